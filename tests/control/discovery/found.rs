//! Addresses of hosts: found, followed, told.

use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use super::{Knot, QUICK, a, alike, config, lookup, name, wait_for};
use crate::support::client::Client;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::{BINARY, Gapless};
use crate::support::{SOON, eventually};

#[test]
fn a_host_is_all_its_addresses_and_changes_are_followed() {
    let [one, two, three] = alike(["one", "two", "three"]);
    let Some(mut knot) = Knot::start(&[a("web", &one), a("web", &two)]) else { return };
    let port = one.address().port();
    let config = config(&knot, QUICK).zone_of("here/a", &format!("\"web.example:{port}\""));
    let gapless = Gapless::start(&config);
    wait_for(&gapless, &[&one, &two]);
    // Both were found at the start, so neither has to grow into its share.
    for _ in 0..30 {
        gapless.get("/");
    }
    // On its way at the one that goes, and kept open at the one that stays.
    let before = gapless.endpoint(two.address());
    let connections = two.connections();
    let requests = [one.seen().len(), two.seen().len()];
    assert!(requests.iter().all(|&seen| seen > 0), "both serve: {requests:?}");
    one.set(Mode::Slow(Duration::from_secs(1)));
    let mut waiting: Vec<Client> = (0..4).map(|_| Client::open(gapless.address)).collect();
    for client in &mut waiting {
        client.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    }
    let is_slow = |endpoint: &Endpoint| {
        endpoint.seen().iter().filter(|seen| seen.head.word(1) == "/slow").count()
    };
    eventually("requests wait", SOON, || is_slow(&one) > 0 && is_slow(&one) + is_slow(&two) == 4);
    knot.set(&[a("web", &two), a("web", &three)]);
    wait_for(&gapless, &[&two, &three]);
    for client in &mut waiting {
        let answer = client.answer("GET").expect("an answer");
        assert_eq!(answer.status, 200, "who is gone still answers what it was asked");
    }
    let after = gapless.endpoint(two.address());
    assert_eq!((&before["state"], &before["since"]), (&after["state"], &after["since"]));
    let answered = |status: &serde_json::Value| status["traffic"]["answered"].as_u64();
    assert!(answered(&after) >= answered(&before), "its counts go on");
    let mut seen = three.seen().len();
    for _ in 0..30 {
        assert_ne!(gapless.get("/").text(), "one");
    }
    seen = three.seen().len() - seen;
    assert!(seen > 0, "the new one serves");
    assert_eq!(two.connections().min(connections + 4), two.connections(), "connections stay open");
    let told = gapless.log();
    let line = told.lines().rfind(|line| line.contains("a name leads elsewhere")).expect("a line");
    assert!(line.contains(&format!("come=\"[{}]\"", three.address())), "{line}");
    assert!(line.contains(&format!("gone=\"[{}]\"", one.address())), "{line}");
}

#[test]
fn both_families_of_addresses_are_asked_for_unless_one_is_chosen() {
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if std::net::TcpListener::bind(six).is_err() {
        eprintln!("SKIPPED: this machine has no IPv6, nothing was tested");
        return;
    }
    let one = Endpoint::start_at("one", six);
    let port = one.address().port();
    let two = Endpoint::start_at("two", SocketAddr::from(([127, 0, 0, 2], port)));
    let records = ["web AAAA ::1".to_owned(), a("web", &two), "alias CNAME web".to_owned()];
    let Some(knot) = Knot::start(&records) else { return };
    let endpoints = format!("\"alias.example:{port}\"");
    let gapless = Gapless::start(&config(&knot, QUICK).zone_of("here/a", &endpoints));
    wait_for(&gapless, &[&one, &two]);
    let only = format!("family = \"ipv6\"\n{QUICK}");
    gapless.write(&config(&knot, &only).zone_of("here/a", &endpoints).text());
    wait_for(&gapless, &[&one]);
}

#[test]
fn a_ttl_is_kept_within_its_bounds() {
    let [one] = alike(["one"]);
    let records = ["none A 127.0.0.2", "day 86400 A 127.0.0.2", "minute 60 A 127.0.0.2"];
    let Some(knot) = Knot::start(&records.map(str::to_owned)) else { return };
    let bounds = "min_ttl = \"20s\"\nmax_ttl = \"2m\"\nfamily = \"ipv4\"";
    let port = one.address().port();
    let endpoints =
        format!("\"none.example:{port}\", \"day.example:{port}\", \"minute.example:{port}\"");
    let gapless = Gapless::start(&config(&knot, bounds).zone_of("here/a", &endpoints));
    wait_for(&gapless, &[&one]);
    for (name, least, most) in [("none", 20, 20), ("day", 108, 120), ("minute", 54, 60)] {
        let lookup = lookup(&gapless, &format!("{name}.example"), "A");
        let whole = lookup["next_in_ms"].as_f64().expect("a time")
            + lookup["asked_ago_ms"].as_f64().expect("a time");
        let (least, most) = (f64::from(least) * 1e3, f64::from(most) * 1e3 + 1e3);
        assert!((least..=most).contains(&whole), "{name}: {lookup:#}");
    }
    let names = gapless.api("/api/v1/discovery")["names"].as_array().expect("a list").len();
    assert_eq!(names, 3);
    assert_eq!(gapless.endpoints().len(), 1, "the same address counts once");
}

#[test]
fn what_is_found_is_told() {
    let [one] = alike(["one"]);
    let Some(knot) = Knot::start(&[a("web", &one)]) else { return };
    let named = format!("web.example:{}", one.address().port());
    let entry = format!("{{ address = \"{named}\", weight = 3 }}");
    let config = config(&knot, QUICK).zone_of("here/a", &entry);
    let gapless = Gapless::start(&config);
    wait_for(&gapless, &[&one]);
    let address = one.address().to_string();
    assert_eq!(gapless.endpoint(one.address())["weight"], 3);
    let told = name(&gapless);
    assert_eq!((&told["name"], &told["state"]), (&named.as_str().into(), &"found".into()));
    assert_eq!((&told["pool"], &told["zone"]), (&"web".into(), &"here/a".into()));
    let endpoint = serde_json::json!({ "address": address, "target": null, "kept": false });
    assert_eq!(told["endpoints"], serde_json::json!([endpoint]));
    let explained = gapless.api(&format!("/api/v1/explain?of={address}"));
    assert_eq!(explained["explanations"][0]["found_by"], serde_json::json!([named]));
    let text = gapless.ask(&format!("/api/v1/explain?of={address}&format=text")).text();
    assert!(text.contains(&format!("found by  {named}")), "{text}");
    let labels = format!("{{pool=\"web\",zone=\"here/a\",name=\"{named}\"}}");
    assert_eq!(gapless.metric(&format!("gapless_dns_endpoints{labels}")), 1.0);
    assert_eq!(gapless.metric(&format!("gapless_dns_endpoints_kept{labels}")), 0.0);
    assert_eq!(gapless.metric(&format!("gapless_dns_failures_in_a_row{labels}")), 0.0);
    assert!(gapless.metric(&format!("gapless_dns_answer_age_seconds{labels}")) < 10.0);
    let found = "gapless_dns_lookups_total{record=\"A\",result=\"found\"}";
    eventually("lookups are counted", SOON, || gapless.metric(found) > 1.0);
    assert!(gapless.metric("gapless_dns_lookup_duration_seconds_count{record=\"A\"}") > 1.0);
}

/// Neither asks anybody, so the answer is the same wherever and whenever it is asked for.
#[test]
fn check_and_predict_say_what_they_do_not_look_up() {
    let gapless = |arguments: &[&str]| {
        let directory = tempfile::TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        let text = crate::support::config::Config::new()
            .zone_of("here/a", "\"web.example:80\", { srv = \"_http._tcp.web.example\" }")
            .text();
        std::fs::write(&file, text).expect("written");
        let output = Command::new(BINARY).args(arguments).arg(&file).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let said = gapless(&["check"]);
    let names = "and 2 names to be looked up: `web.example:80`, `srv _http._tcp.web.example`";
    assert!(said.contains(names), "{said}");
    let said = gapless(&["predict", "--trials", "50"]);
    let stand_ins = "2 names are not looked up here: 2 endpoints stand for each";
    assert!(said.starts_with(stand_ins) && said.contains("zone refused"), "{said}");
    let said = gapless(&["predict", "--trials", "50", "--format", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["stand_ins"], 4);
}
