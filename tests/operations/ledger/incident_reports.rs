//! Reports of incidents over the API and on the command line.

use serde_json::Value;

use super::{LedgerDirectory, fail_endpoint, run_gapless, wait_for_incident};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually, poll_until};

/// Two zones of two; the first has failed and returned.
struct ZoneIncidentFixture {
    gapless: Gapless,
    _endpoints: Vec<TestEndpoint>,
}

fn zone_incident_fixture() -> ZoneIncidentFixture {
    let endpoints: Vec<TestEndpoint> = ["a", "b", "c", "d"].map(TestEndpoint::start).into();
    let ledger_dir = LedgerDirectory::new();
    let all: Vec<&TestEndpoint> = endpoints.iter().collect();
    let gapless = Gapless::start_ready(&ledger_dir.config(&all[..2], &all[2..]));
    for endpoint in &endpoints[..2] {
        endpoint.refuse_connections();
    }
    eventually("both are down", DEFAULT_TIMEOUT, || gapless.incidents("endpoints").len() == 2);
    for endpoint in &endpoints[..2] {
        endpoint.listen();
    }
    poll_until("the zone is back", DEFAULT_TIMEOUT, || {
        let zone = gapless.incidents("zones").pop()?;
        zone["timeline"]["ramp_full"].is_string().then_some(())
    });
    ZoneIncidentFixture { gapless, _endpoints: endpoints }
}

fn run_for_stdout(arguments: &[&str]) -> String {
    let output = run_gapless(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn zone_incident_is_reported_in_every_format() {
    let ZoneIncidentFixture { gapless, .. } = &zone_incident_fixture();
    let admin = gapless.admin.to_string();
    let zone = gapless.incidents("zones").remove(0);
    assert_eq!((&zone["zone"], &zone["region"]), (&"here/a".into(), &"here".into()));
    assert_eq!(zone["members"].as_array().map(Vec::len), Some(2));
    assert!(zone["restoration_ms"].as_f64().expect("over") > 0.0);

    let table = run_for_stdout(&["incidents", "--admin", &admin]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("web zone here/a (2 endpoints)"), "{table}");
    let id = zone["id"].to_string();
    let timeline = run_for_stdout(&["incidents", &id, "--admin", &admin]);
    assert!(timeline.contains("ramp full") && timeline.contains("endpoints"), "{timeline}");
    let csv = run_for_stdout(&["incidents", "--admin", &admin, "--format", "csv"]);
    let columns = |line: &str| line.split(',').count();
    assert_eq!(csv.lines().count(), 4, "{csv}");
    assert!(csv.lines().all(|line| columns(line) == 31), "{csv}");
    let answer = gapless.admin_get("/api/v1/incidents.csv");
    assert_eq!(answer.field("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(answer.text().lines().count(), 4);
    let json =
        run_for_stdout(&["incidents", "--admin", &admin, "--format", "json", "--zone", "here/b"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["endpoints"], Value::Array(Vec::new()));
}

#[test]
fn unknown_names_in_incident_queries_fail_with_the_nearest() {
    let one = TestEndpoint::start("one");
    let ledger_dir = LedgerDirectory::new();
    let instance = Gapless::start_ready(&ledger_dir.config(&[&one], &[]));
    let admin = instance.admin.to_string();
    let error = |arguments: &[&str]| {
        let output = run_gapless(&[&["incidents", "--admin", &admin], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(error(&["999"]).contains("there is no incident 999, and no other"));
    assert!(error(&["--class", "foo"]).contains("`refused`, `reset`, `silent`"));
    assert!(error(&["--class", "refusd"]).contains("did you mean `refused`?"));
    assert!(error(&["--pool", "wep"]).contains("did you mean `web`?"));
    assert!(error(&["--zone", "here/z"]).contains("did you mean `here/a`?"));
    assert!(error(&["--region", "there"]).contains("`here`"));
    let known = ["incidents", "--admin", &admin, "--zone", "here/a", "--class", "tls"];
    assert_eq!(run_for_stdout(&known), "no incidents\n");
}

#[test]
fn invalid_incident_query_is_refused() {
    let one = TestEndpoint::start("one");
    let instance = Gapless::start_ready(&ConfigBuilder::new().zone("here/a", &[one.address()]));
    assert_eq!(instance.admin_get("/api/v1/incidents?nonsense=1").status, 400);
    assert_eq!(instance.admin_get("/api/v1/incidents?since=yesterday").status, 400);
    let admin = instance.admin.to_string();
    let output = run_gapless(&["incidents", "--admin", &admin, "--since", "yesterday"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(run_for_stdout(&["incidents", "--admin", &admin]), "no incidents\n");
    let output = run_gapless(&["incidents", "--state-dir", "/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no ledger to read"));
}

#[test]
fn incident_shows_prediction_beside_measurement() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let ledger_dir = LedgerDirectory::new();
    let gapless = Gapless::start_ready(&ledger_dir.config(&[&one, &two], &[]));
    fail_endpoint(&gapless, &one);
    let incident = gapless.incidents("endpoints").remove(0);
    assert_eq!(incident["predicted"]["fault"], "refused", "the closed form is there at once");
    let worst = incident["predicted"]["closed_form"]["worst_ms"].as_f64().expect("a number");
    assert!((300.0..400.0).contains(&worst), "{worst}");
    // The prediction is made at the lowest priority.
    let simulated = poll_until("a simulation", 12 * DEFAULT_TIMEOUT, || {
        let incident = gapless.incidents("endpoints").remove(0);
        incident["predicted"]["p99_ms"].as_f64().map(|_| incident)
    });
    let predicted = &simulated["predicted"];
    let number = |key: &str| predicted[key].as_f64().expect("a number");
    assert!(number("median_ms") <= number("p99_ms") && number("p99_ms") <= number("worst_ms"));
    assert!(number("worst_ms") <= worst + 10.0, "{predicted:#}");
    assert!(simulated["left_prediction"].is_boolean());
}

#[test]
fn failed_requests_are_counted_by_cause() {
    let one = TestEndpoint::start("one");
    let ledger_dir = LedgerDirectory::new();
    let gapless =
        Gapless::start_ready(&ledger_dir.config(&[&one], &[]).route("retry = { attempts = 1 }"));
    one.refuse_connections();
    assert_eq!(gapless.get("/").status, 502);
    let counted = poll_until("it is counted", DEFAULT_TIMEOUT, || {
        let incident = gapless.incidents("endpoints").pop()?;
        (incident["requests"]["failed"] != 0).then_some(incident)
    });
    let requests = &counted["requests"];
    assert_eq!(requests["failed_by"]["connect"], requests["failed"], "{requests:#}");
    one.listen();
    let ended = wait_for_incident(&gapless, "ended", "restored");
    assert!(ended["gap_ms"].as_f64().expect("a number") > 0.0);
}
