//! The demo is the first command of a new user: it must work everywhere.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::serialize_tests;
use crate::support::instance::BINARY;
use crate::support::{DEFAULT_TIMEOUT, eventually};

fn demo_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["demo", "--seconds", "6", "--rate", "100"]).args(arguments);
    command
}

fn run_demo(arguments: &[&str]) -> Output {
    let _serial_guard = serialize_tests();
    demo_command(arguments).output().expect("the demo runs")
}

fn demo_result(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_else(|| panic!("no result:\n{stderr}"));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}\n{stderr}"))
}

fn number(result: &Value, path: &str) -> f64 {
    result.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {result}"))
}

/// Checks what holds for every fault: detection within the window of probes alone, the zone's
/// return, and the JSON names that scripts use.
fn check_result(result: &Value, fault: &str) {
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
fn zone_that_refuses_connections_fails_no_get() {
    let output = run_demo(&["--fault", "refused", "--format", "json"]);
    assert!(output.status.success());
    let result = demo_result(&output);
    check_result(&result, "refused");
    assert_eq!(number(&result, "/requests/failed_get"), 0.0, "{result}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    for word in
        ["[pool.web]", "us-south/us-south-1 fails: refused", "down (connect refused)", "is healed"]
    {
        assert!(stderr.contains(word), "{word:?} in\n{stderr}");
    }
}

#[test]
fn zone_that_hangs_fails_no_get() {
    let result = demo_result(&run_demo(&["--fault", "hang", "--format", "json"]));
    check_result(&result, "hang");
    assert_eq!(number(&result, "/requests/failed_get"), 0.0, "{result}");
    assert!(number(&result, "/requests/rescued") > 0.0, "{result}");
}

#[test]
fn demo_with_occupied_ports_uses_others() {
    // Either this test or another process holds these ports.
    let _occupied =
        ["127.0.0.1:18800", "127.0.0.1:18900", "127.0.0.1:18811"].map(TcpListener::bind);
    let result = demo_result(&run_demo(&["--fault", "reset", "--format", "json"]));
    check_result(&result, "reset");
    assert_eq!(number(&result, "/requests/failed_get"), 0.0, "{result}");
}

#[test]
fn text_output_ends_with_a_table() {
    let output = run_demo(&["--fault", "bad-status"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    for word in
        ["predicted window", "measured window", "measured gap", "return", "failed", "rescued"]
    {
        assert!(text.contains(word), "{word:?} in\n{text}");
    }
}

#[test]
fn two_demos_at_once_use_different_ports() {
    let _serial_guard = serialize_tests();
    let start = || {
        let mut command = demo_command(&["--fault", "refused", "--format", "json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the demo starts")
    };
    let demos = [start(), start()];
    for demo in demos {
        let output = demo.wait_with_output().expect("the demo ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let result = demo_result(&output);
        check_result(&result, "refused");
        assert_eq!(number(&result, "/requests/failed_get"), 0.0, "{result}");
    }
}

#[test]
fn interrupted_demo_leaves_no_directory_behind() {
    let _serial_guard = serialize_tests();
    let directory = TempDir::new().expect("a directory");
    let is_empty = || std::fs::read_dir(directory.path()).expect("read").next().is_none();
    let mut command = demo_command(&[]);
    command.env("TMPDIR", directory.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut demo = command.spawn().expect("the demo starts");
    eventually("the demo has written its configuration", DEFAULT_TIMEOUT, || !is_empty());
    let pid = Pid::from_child(&demo);
    eventually("the demo ends", DEFAULT_TIMEOUT, || {
        kill_process(pid, Signal::INT).expect("signalled");
        demo.try_wait().expect("a child").is_some()
    });
    assert_eq!(demo.wait().expect("its end").code(), Some(1));
    assert!(is_empty());
}
