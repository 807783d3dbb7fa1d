//! How incidents are told: over the API and on the command line.

use serde_json::Value;

use super::{Home, fall, gapless, wait_for};
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually, until};

/// Two zones of two; the first one has failed and is back.
struct Story {
    gapless: Gapless,
    _endpoints: Vec<Endpoint>,
}

fn story() -> Story {
    let endpoints: Vec<Endpoint> = ["a", "b", "c", "d"].map(Endpoint::start).into();
    let home = Home::new();
    let all: Vec<&Endpoint> = endpoints.iter().collect();
    let gapless = Gapless::start_ready(&home.config(&all[..2], &all[2..]));
    for endpoint in &endpoints[..2] {
        endpoint.refuse();
    }
    eventually("both are down", SOON, || gapless.incidents("endpoints").len() == 2);
    for endpoint in &endpoints[..2] {
        endpoint.listen();
    }
    until("the zone is back", SOON, || {
        let zone = gapless.incidents("zones").pop()?;
        zone["timeline"]["ramp_full"].is_string().then_some(())
    });
    Story { gapless, _endpoints: endpoints }
}

fn stdout(arguments: &[&str]) -> String {
    let output = gapless(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_zone_is_told_in_every_form() {
    let Story { gapless, .. } = &story();
    let admin = gapless.admin.to_string();
    let zone = gapless.incidents("zones").remove(0);
    assert_eq!((&zone["zone"], &zone["region"]), (&"here/a".into(), &"here".into()));
    assert_eq!(zone["members"].as_array().map(Vec::len), Some(2));
    assert!(zone["restoration_ms"].as_f64().expect("over") > 0.0);

    let table = stdout(&["incidents", "--admin", &admin]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("web zone here/a (2 endpoints)"), "{table}");
    let id = zone["id"].to_string();
    let told = stdout(&["incidents", &id, "--admin", &admin]);
    assert!(told.contains("ramp full") && told.contains("endpoints"), "{told}");
    let csv = stdout(&["incidents", "--admin", &admin, "--format", "csv"]);
    let columns = |line: &str| line.split(',').count();
    assert_eq!(csv.lines().count(), 4, "{csv}");
    assert!(csv.lines().all(|line| columns(line) == 31), "{csv}");
    let answer = gapless.ask("/api/v1/incidents.csv");
    assert_eq!(answer.field("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(answer.text().lines().count(), 4);
    let json = stdout(&["incidents", "--admin", &admin, "--format", "json", "--zone", "here/b"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["endpoints"], Value::Array(Vec::new()));
}

#[test]
fn a_question_without_meaning_is_refused() {
    let one = Endpoint::start("one");
    let running = Gapless::start_ready(&Config::new().zone("here/a", &[one.address()]));
    assert_eq!(running.ask("/api/v1/incidents?nonsense=1").status, 400);
    assert_eq!(running.ask("/api/v1/incidents?since=yesterday").status, 400);
    let admin = running.admin.to_string();
    let output = gapless(&["incidents", "--admin", &admin, "--since", "yesterday"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&["incidents", "--admin", &admin]), "no incidents\n");
    let output = gapless(&["incidents", "--state-dir", "/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no ledger to read"));
}

#[test]
fn what_was_predicted_stands_beside_what_was_measured() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let home = Home::new();
    let gapless = Gapless::start_ready(&home.config(&[&one, &two], &[]));
    fall(&gapless, &one);
    let told = gapless.incidents("endpoints").remove(0);
    assert_eq!(told["predicted"]["fault"], "refused", "the closed form is there at once");
    let worst = told["predicted"]["closed_form"]["worst_ms"].as_f64().expect("a number");
    assert!((300.0..400.0).contains(&worst), "{worst}");
    // It is made at the lowest priority there is.
    let simulated = until("a simulation", 12 * SOON, || {
        let told = gapless.incidents("endpoints").remove(0);
        told["predicted"]["p99_ms"].as_f64().map(|_| told)
    });
    let predicted = &simulated["predicted"];
    let number = |key: &str| predicted[key].as_f64().expect("a number");
    assert!(number("median_ms") <= number("p99_ms") && number("p99_ms") <= number("worst_ms"));
    assert!(number("worst_ms") <= worst + 10.0, "{predicted:#}");
    assert!(simulated["left_prediction"].is_boolean());
}

#[test]
fn clients_that_saw_a_failure_are_counted_by_what_they_saw() {
    let one = Endpoint::start("one");
    let home = Home::new();
    let gapless =
        Gapless::start_ready(&home.config(&[&one], &[]).route("retry = { attempts = 1 }"));
    one.refuse();
    assert_eq!(gapless.get("/").status, 502);
    let told = until("it is counted", SOON, || {
        let told = gapless.incidents("endpoints").pop()?;
        (told["requests"]["failed"] != 0).then_some(told)
    });
    let requests = &told["requests"];
    assert_eq!(requests["failed_by"]["connect"], requests["failed"], "{requests:#}");
    one.listen();
    let over = wait_for(&gapless, "ended", "restored");
    assert!(over["gap_ms"].as_f64().expect("a number") > 0.0);
}
