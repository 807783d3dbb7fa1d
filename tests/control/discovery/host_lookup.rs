//! Host names: their addresses are found, followed and reported.

use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use super::{
    FAST_DNS, Knot, a_record, dns_config, endpoints_on_same_port, first_name_status, lookup_status,
    wait_for_up_endpoints,
};
use crate::support::client::TestClient;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::{BINARY, Gapless};
use crate::support::{DEFAULT_TIMEOUT, eventually};

#[test]
fn host_addresses_become_endpoints_and_changes_are_followed() {
    let [one, two, three] = endpoints_on_same_port(["one", "two", "three"]);
    let Some(mut knot) = Knot::start(&[a_record("web", &one), a_record("web", &two)]) else {
        return;
    };
    let port = one.address().port();
    let config =
        dns_config(&knot, FAST_DNS).zone_with_entries("here/a", &format!("\"web.example:{port}\""));
    let gapless = Gapless::start(&config);
    wait_for_up_endpoints(&gapless, &[&one, &two]);
    // Both were found at the start, so neither ramps.
    for _ in 0..30 {
        gapless.get("/");
    }
    // One request runs at the endpoint that leaves, and one connection stays open at the other.
    let before = gapless.endpoint(two.address());
    let connections = two.used_connection_count();
    let requests = [one.requests().len(), two.requests().len()];
    assert!(requests.iter().all(|&seen| seen > 0), "both serve: {requests:?}");
    one.set_mode(ResponseMode::Slow(Duration::from_secs(1)));
    let mut waiting: Vec<TestClient> = (0..4).map(|_| TestClient::open(gapless.address)).collect();
    for client in &mut waiting {
        client.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    }
    let slow_requests = |endpoint: &TestEndpoint| {
        endpoint.requests().iter().filter(|seen| seen.head.start_line_word(1) == "/slow").count()
    };
    eventually("requests wait", DEFAULT_TIMEOUT, || {
        slow_requests(&one) > 0 && slow_requests(&one) + slow_requests(&two) == 4
    });
    knot.set_records(&[a_record("web", &two), a_record("web", &three)]);
    wait_for_up_endpoints(&gapless, &[&two, &three]);
    for client in &mut waiting {
        let answer = client.read_response("GET").expect("an answer");
        assert_eq!(answer.status, 200, "a removed endpoint completes its request");
    }
    let after = gapless.endpoint(two.address());
    assert_eq!((&before["state"], &before["since"]), (&after["state"], &after["since"]));
    let answered = |status: &serde_json::Value| status["traffic"]["answered"].as_u64();
    assert!(answered(&after) >= answered(&before), "its counts go on");
    let mut seen = three.requests().len();
    for _ in 0..30 {
        assert_ne!(gapless.get("/").text(), "one");
    }
    seen = three.requests().len() - seen;
    assert!(seen > 0, "the new one serves");
    assert_eq!(
        two.used_connection_count().min(connections + 4),
        two.used_connection_count(),
        "connections stay open"
    );
    let log_text = gapless.log();
    let line = log_text
        .lines()
        .rfind(|line| line.contains("endpoints of a DNS name have changed"))
        .expect("a line");
    assert!(line.contains(&format!("added=\"[{}]\"", three.address())), "{line}");
    assert!(line.contains(&format!("removed=\"[{}]\"", one.address())), "{line}");
}

#[test]
fn both_address_families_are_looked_up_unless_one_is_set() {
    let ipv6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if std::net::TcpListener::bind(ipv6).is_err() {
        eprintln!("SKIPPED: this machine has no IPv6, nothing was tested");
        return;
    }
    let one = TestEndpoint::start_at("one", ipv6);
    let port = one.address().port();
    let two = TestEndpoint::start_at("two", SocketAddr::from(([127, 0, 0, 2], port)));
    let records = ["web AAAA ::1".to_owned(), a_record("web", &two), "alias CNAME web".to_owned()];
    let Some(knot) = Knot::start(&records) else { return };
    let endpoints = format!("\"alias.example:{port}\"");
    let gapless =
        Gapless::start(&dns_config(&knot, FAST_DNS).zone_with_entries("here/a", &endpoints));
    wait_for_up_endpoints(&gapless, &[&one, &two]);
    let only = format!("family = \"ipv6\"\n{FAST_DNS}");
    gapless.write_config(&dns_config(&knot, &only).zone_with_entries("here/a", &endpoints).text());
    wait_for_up_endpoints(&gapless, &[&one]);
}

#[test]
fn ttl_is_clamped_to_configured_bounds() {
    let [one] = endpoints_on_same_port(["one"]);
    let records = ["none A 127.0.0.2", "day 86400 A 127.0.0.2", "minute 60 A 127.0.0.2"];
    let Some(knot) = Knot::start(&records.map(str::to_owned)) else { return };
    let bounds = "min_ttl = \"20s\"\nmax_ttl = \"2m\"\nfamily = \"ipv4\"";
    let port = one.address().port();
    let endpoints =
        format!("\"none.example:{port}\", \"day.example:{port}\", \"minute.example:{port}\"");
    let gapless =
        Gapless::start(&dns_config(&knot, bounds).zone_with_entries("here/a", &endpoints));
    wait_for_up_endpoints(&gapless, &[&one]);
    for (name, least, most) in [("none", 20, 20), ("day", 108, 120), ("minute", 54, 60)] {
        let lookup = lookup_status(&gapless, &format!("{name}.example"), "A");
        let period_ms = lookup["next_in_ms"].as_f64().expect("a time")
            + lookup["asked_ago_ms"].as_f64().expect("a time");
        let (least, most) = (f64::from(least) * 1e3, f64::from(most) * 1e3 + 1e3);
        assert!((least..=most).contains(&period_ms), "{name}: {lookup:#}");
    }
    let names = gapless.api_json("/api/v1/discovery")["names"].as_array().expect("a list").len();
    assert_eq!(names, 3);
    assert_eq!(gapless.endpoints().len(), 1, "the same address counts once");
}

#[test]
fn found_endpoints_appear_in_api_explain_and_metrics() {
    let [one] = endpoints_on_same_port(["one"]);
    let Some(knot) = Knot::start(&[a_record("web", &one)]) else { return };
    let named = format!("web.example:{}", one.address().port());
    let entry = format!("{{ address = \"{named}\", weight = 3 }}");
    let config = dns_config(&knot, FAST_DNS).zone_with_entries("here/a", &entry);
    let gapless = Gapless::start(&config);
    wait_for_up_endpoints(&gapless, &[&one]);
    let address = one.address().to_string();
    assert_eq!(gapless.endpoint(one.address())["weight"], 3);
    let name_status = first_name_status(&gapless);
    assert_eq!(
        (&name_status["name"], &name_status["state"]),
        (&named.as_str().into(), &"found".into())
    );
    assert_eq!((&name_status["pool"], &name_status["zone"]), (&"web".into(), &"here/a".into()));
    let endpoint = serde_json::json!({ "address": address, "target": null, "kept": false });
    assert_eq!(name_status["endpoints"], serde_json::json!([endpoint]));
    let explained = gapless.api_json(&format!("/api/v1/explain?of={address}"));
    assert_eq!(explained["explanations"][0]["found_by"], serde_json::json!([named]));
    let text = gapless.admin_get(&format!("/api/v1/explain?of={address}&format=text")).text();
    assert!(text.contains(&format!("found by  {named}")), "{text}");
    let labels = format!("{{pool=\"web\",zone=\"here/a\",name=\"{named}\"}}");
    assert_eq!(gapless.metric(&format!("gapless_dns_endpoints{labels}")), 1.0);
    assert_eq!(gapless.metric(&format!("gapless_dns_endpoints_kept{labels}")), 0.0);
    assert_eq!(gapless.metric(&format!("gapless_dns_failures_in_a_row{labels}")), 0.0);
    assert!(gapless.metric(&format!("gapless_dns_answer_age_seconds{labels}")) < 10.0);
    let found = "gapless_dns_lookups_total{record=\"A\",result=\"found\"}";
    eventually("lookups are counted", DEFAULT_TIMEOUT, || gapless.metric(found) > 1.0);
    assert!(gapless.metric("gapless_dns_lookup_duration_seconds_count{record=\"A\"}") > 1.0);
}

/// Neither command queries DNS, so its output never changes.
#[test]
fn check_and_predict_report_names_without_looking_up() {
    let gapless = |arguments: &[&str]| {
        let directory = tempfile::TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        let text = crate::support::config::ConfigBuilder::new()
            .zone_with_entries("here/a", "\"web.example:80\", { srv = \"_http._tcp.web.example\" }")
            .text();
        std::fs::write(&file, text).expect("written");
        let output = Command::new(BINARY).args(arguments).arg(&file).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let output = gapless(&["check"]);
    let names = "and 2 names to be looked up: `web.example:80`, `srv _http._tcp.web.example`";
    assert!(output.contains(names), "{output}");
    let output = gapless(&["predict", "--trials", "50"]);
    let stand_ins = "2 names are not looked up here: 2 endpoints stand for each";
    assert!(output.starts_with(stand_ins) && output.contains("zone refused"), "{output}");
    let output = gapless(&["predict", "--trials", "50", "--format", "json"]);
    let output: serde_json::Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(output["stand_ins"], 4);
}
