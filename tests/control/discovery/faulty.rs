//! DNS that is dead, slow, empty or late.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Knot, QUICK, a, alike, config, lookup, name, wait_for};
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::load::Load;
use crate::support::{SOON, eventually};

#[test]
fn a_dead_server_takes_nothing_away() {
    let [one, two] = alike(["one", "two"]);
    let Some(mut knot) = Knot::start(&[a("web", &one)]) else { return };
    let port = one.address().port();
    let config = config(&knot, QUICK).zone_of("here/a", &format!("\"web.example:{port}\""));
    let gapless = Gapless::start(&config);
    wait_for(&gapless, &[&one]);
    let load = Load::start(gapless.address, 4, Duration::from_millis(5));
    knot.kill();
    let fails = |gapless: &Gapless| lookup(gapless, "web.example", "A")["failing"].clone();
    eventually("many lookups have failed", SOON, || {
        fails(&gapless)["in_a_row"].as_u64() >= Some(5)
    });
    wait_for(&gapless, &[&one]);
    assert_eq!(name(&gapless)["state"], "found", "when DNS last answered");
    let told = gapless.log();
    let warnings = told.lines().filter(|line| line.contains("a lookup failed")).count();
    assert!((1..=4).contains(&warnings), "a failure is told once, and not each time:\n{told}");
    knot.set_while_dead(&[a("web", &two)]);
    knot.run();
    wait_for(&gapless, &[&two]);
    assert!(fails(&gapless).is_null());
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    assert!(tally.sent > 100);
}

#[test]
fn a_silent_server_holds_up_no_start() {
    let [one] = alike(["one"]);
    let fixed = Endpoint::start("fixed");
    let Some(knot) = Knot::start(&[a("web", &one)]) else { return };
    knot.freeze();
    let port = one.address().port();
    let named = format!("\"web.example:{port}\"");
    let patient = QUICK.replace("500ms", "1m");
    let began = Instant::now();
    let gapless = Gapless::start(&config(&knot, &patient).zone_of("here/a", &named));
    assert!(began.elapsed() < SOON, "nothing waits for DNS");
    assert_eq!(gapless.ask("/healthz").status, 200);
    let ready = gapless.ask("/readyz");
    assert_eq!((ready.status, ready.text().as_str()), (503, "no endpoint can be chosen\n"));
    assert_eq!(gapless.get("/").status, 503);
    assert_eq!(name(&gapless)["state"], "pending");
    // Where there are others they serve meanwhile.
    let both = config(&knot, &patient).zone_of("here/a", &named).zone("here/b", &[fixed.address()]);
    let other = Gapless::start(&both);
    wait_for(&other, &[&fixed]);
    assert_eq!(other.get("/").text(), "fixed");
    assert_eq!(other.ask("/readyz").status, 200);
    knot.thaw();
    wait_for(&gapless, &[&one]);
    eventually("it is ready", SOON, || gapless.ask("/readyz").status == 200);
    assert_eq!(gapless.get("/").text(), "one");
    wait_for(&other, &[&one, &fixed]);
    assert_eq!(other.get("/").text(), "one", "the zone that is named first is preferred");
}

#[test]
fn a_name_that_is_gone_and_one_that_is_empty_are_told_apart_and_kept_unless_obeyed() {
    let [one, two] = alike(["one", "two"]);
    let records = [a("gone", &one), a("empty", &one)];
    let Some(mut knot) = Knot::start(&records) else { return };
    let port = one.address().port();
    for (host, word, left) in [("gone", "nxdomain", None), ("empty", "nodata", Some("empty TXT x"))]
    {
        let endpoints = format!("\"{host}.example:{port}\"");
        knot.set(&records);
        let keep = config(&knot, QUICK).zone_of("here/a", &endpoints);
        let gapless = Gapless::start(&keep);
        wait_for(&gapless, &[&one]);
        let left: Vec<String> = left.iter().map(|&record| record.to_owned()).collect();
        knot.set(&left);
        eventually("it is seen", SOON, || name(&gapless)["state"] == word);
        wait_for(&gapless, &[&one]);
        assert_eq!(gapless.get("/").text(), "one");
        assert_eq!(name(&gapless)["endpoints"][0]["kept"], true);
        let count = format!("gapless_dns_lookups_total{{record=\"A\",result=\"{word}\"}}");
        assert!(gapless.metric(&count) > 0.0);
        let told = gapless.log();
        assert!(told.contains("DNS says that there is nothing"), "{told}");
        knot.set(&[left.as_slice(), &[a(host, &two)]].concat());
        wait_for(&gapless, &[&two]);
        let obey = format!("{QUICK}\nempty = \"obey\"");
        gapless.write(&config(&knot, &obey).zone_of("here/a", &endpoints).text());
        eventually("it is obeyed", SOON, || gapless.generation() == 2);
        wait_for(&gapless, &[&two]);
        knot.set(&left);
        wait_for(&gapless, &[]);
        eventually("nobody is left", SOON, || gapless.get("/").status == 503);
        assert_eq!(gapless.ask("/readyz").status, 503);
        knot.set(&[left.as_slice(), &[a(host, &one)]].concat());
        wait_for(&gapless, &[&one]);
        assert_eq!(gapless.get("/").text(), "one");
    }
}

/// A failover by DNS: the record is another already when its endpoint dies, and would not be looked at
/// for an hour.
#[test]
fn an_endpoint_that_refuses_has_its_name_looked_up_at_once() {
    let [one, two] = alike(["one", "two"]);
    let record = |endpoint: &Endpoint| format!("web 3600 A {}", endpoint.address().ip());
    let Some(mut knot) = Knot::start(&[record(&one)]) else { return };
    let hour = "min_ttl = \"100ms\"\nmax_ttl = \"1h\"\nretry_max = \"1h\"";
    let port = one.address().port();
    let config = config(&knot, hour).zone_of("here/a", &format!("\"web.example:{port}\""));
    let gapless = Gapless::start(&config);
    wait_for(&gapless, &[&one]);
    knot.set(&[record(&two)]);
    let next = lookup(&gapless, "web.example", "A")["next_in_ms"].as_f64().expect("a time");
    assert!(next > 3_000_000.0, "nothing is to be looked up: {next}");
    assert_eq!(gapless.endpoints().len(), 1);
    one.die();
    wait_for(&gapless, &[&two]);
    assert_eq!(gapless.get("/").text(), "two");
}

/// Answers that are errors are told by their kinds.
#[test]
fn servers_that_refuse_and_servers_that_fail_are_told_apart() {
    let Some(knot) = Knot::start(&[]) else { return };
    let endpoints = "\"a.broken:80\", \"a.elsewhere:80\"";
    let gapless = Gapless::start(&config(&knot, QUICK).zone_of("here/a", endpoints));
    for (name, reason) in [("a.broken", "servfail"), ("a.elsewhere", "refused")] {
        eventually(reason, SOON, || lookup(&gapless, name, "A")["failing"]["reason"] == reason);
        assert_eq!(lookup(&gapless, name, "A")["state"], "pending");
    }
}

/// Who can write records cannot turn the proxy towards the machine that it runs on (DNS rebinding).
#[test]
fn a_name_that_leads_to_this_machine_leads_nowhere() {
    let [one] = alike(["one"]);
    let port = one.address().port();
    let secret = Endpoint::start_at("secret", SocketAddr::from(([127, 0, 0, 1], port)));
    let Some(mut knot) = Knot::start(&[a("web", &one), a("bad", &secret)]) else { return };
    let only = format!("[dns]\nservers = [\"{}\"]\nallow = [\"127.0.0.2\"]\n", knot.address());
    let config = Config::new().tables(&format!("{only}{QUICK}"));
    let config = config.zone_of("here/a", &format!("\"web.example:{port}\""));
    let config = config.zone_of("here/b", &format!("\"bad.example:{port}\""));
    let gapless = Gapless::start(&config);
    wait_for(&gapless, &[&one]);
    knot.set(&[a("web", &secret), a("bad", &secret)]);
    eventually("it is seen", SOON, || lookup(&gapless, "web.example", "A")["state"] == "forbidden");
    assert_eq!(lookup(&gapless, "bad.example", "A")["refused"][0], "127.0.0.1");
    wait_for(&gapless, &[&one]);
    assert_eq!(gapless.get("/").text(), "one");
    assert_eq!(secret.connections(), 0, "not even a probe");
    let told = gapless.log();
    assert!(told.contains("unless `dns.allow` has them"), "{told}");
}
