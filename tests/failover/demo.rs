//! The demo is the first thing that a newcomer runs: it must work anywhere, and be won.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

use crate::alone;
use crate::support::instance::BINARY;

fn demo(arguments: &[&str]) -> Output {
    let _alone = alone();
    // Two demos that start at once find the same ports free: another run of these tests waits.
    let ports = std::env::temp_dir().join("gapless-demo.lock");
    let ports = File::options().create(true).append(true).open(ports).expect("a file");
    ports.lock().expect("the demo's ports");
    let mut command = Command::new(BINARY);
    command.args(["demo", "--seconds", "6", "--rate", "100"]).args(arguments);
    command.output().expect("the demo runs")
}

fn result(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let beside = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_else(|| panic!("no result:\n{beside}"));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}\n{beside}"))
}

fn number(result: &Value, path: &str) -> f64 {
    result.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {result}"))
}

/// What holds whatever the fault: it was seen no later than probes alone see it, the zone came
/// back, and the names that scripts rely on are there.
fn check(result: &Value, fault: &str) {
    assert_eq!(result["fault"], fault);
    assert_eq!(result["scope"], "zone");
    for path in
        ["/predicted/median_ms", "/predicted/p99_ms", "/predicted/worst_ms", "/measured/gap_ms"]
    {
        assert!(number(result, path) >= 0.0, "{path} in {result}");
    }
    assert!(number(result, "/measured/detection_ms") <= 2_000.0, "{result}");
    assert!(number(result, "/measured/return_ms") <= 2_100.0, "{result}");
    let sent = number(result, "/requests/sent");
    assert!((500.0..=700.0).contains(&sent), "an open loop of 100 a second for 6 s: {result}");
    assert!(
        number(result, "/requests/late") >= 0.0 && number(result, "/requests/failed_post") >= 0.0
    );
}

#[test]
fn a_zone_dies_and_no_get_fails() {
    let output = demo(&["--fault", "refused", "--format", "json"]);
    assert!(output.status.success());
    let result = result(&output);
    check(&result, "refused");
    assert_eq!(number(&result, "/requests/failed_get"), 0.0, "{result}");
    let beside = String::from_utf8_lossy(&output.stderr);
    for word in
        ["[pool.web]", "us-south/us-south-1 fails: refused", "down (connect refused)", "is healed"]
    {
        assert!(beside.contains(word), "{word:?} in\n{beside}");
    }
}

#[test]
fn a_zone_hangs_and_no_get_fails() {
    let result = result(&demo(&["--fault", "hang", "--format", "json"]));
    check(&result, "hang");
    assert_eq!(number(&result, "/requests/failed_get"), 0.0, "{result}");
    assert!(number(&result, "/requests/rescued") > 0.0, "{result}");
}

#[test]
fn it_works_where_its_ports_are_taken() {
    // Whether this test or another process has them does not matter.
    let _taken = ["127.0.0.1:18800", "127.0.0.1:18900", "127.0.0.1:18811"].map(TcpListener::bind);
    let result = result(&demo(&["--fault", "reset", "--format", "json"]));
    check(&result, "reset");
    assert_eq!(number(&result, "/requests/failed_get"), 0.0, "{result}");
}

#[test]
fn for_people_it_ends_with_a_table() {
    let output = demo(&["--fault", "bad-status"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    for word in
        ["predicted window", "measured window", "measured gap", "return", "failed", "rescued"]
    {
        assert!(text.contains(word), "{word:?} in\n{text}");
    }
}
