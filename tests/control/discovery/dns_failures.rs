//! DNS servers that are dead, slow, empty or late.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{
    FAST_DNS, Knot, a_record, dns_config, endpoints_on_same_port, first_name_status, lookup_status,
    wait_for_up_endpoints,
};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::load::SteadyLoad;
use crate::support::{DEFAULT_TIMEOUT, eventually};

#[test]
fn dead_dns_server_keeps_found_endpoints() {
    let [one, two] = endpoints_on_same_port(["one", "two"]);
    let Some(mut knot) = Knot::start(&[a_record("web", &one)]) else { return };
    let port = one.address().port();
    let config =
        dns_config(&knot, FAST_DNS).zone_with_entries("here/a", &format!("\"web.example:{port}\""));
    let gapless = Gapless::start(&config);
    wait_for_up_endpoints(&gapless, &[&one]);
    let load = SteadyLoad::start(gapless.address, 4, Duration::from_millis(5));
    knot.kill();
    let lookup_failure =
        |gapless: &Gapless| lookup_status(gapless, "web.example", "A")["failing"].clone();
    eventually("many lookups have failed", DEFAULT_TIMEOUT, || {
        lookup_failure(&gapless)["in_a_row"].as_u64() >= Some(5)
    });
    wait_for_up_endpoints(&gapless, &[&one]);
    assert_eq!(first_name_status(&gapless)["state"], "found", "when DNS last answered");
    let log_text = gapless.log();
    let warnings = log_text.lines().filter(|line| line.contains("DNS lookup failed")).count();
    assert!((1..=4).contains(&warnings), "a failure is logged once, not each time:\n{log_text}");
    knot.set_records_while_stopped(&[a_record("web", &two)]);
    knot.start_process();
    wait_for_up_endpoints(&gapless, &[&two]);
    assert!(lookup_failure(&gapless).is_null());
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    assert!(tally.sent > 100);
}

#[test]
fn silent_dns_server_does_not_block_startup() {
    let [one] = endpoints_on_same_port(["one"]);
    let fixed = TestEndpoint::start("fixed");
    let Some(knot) = Knot::start(&[a_record("web", &one)]) else { return };
    knot.freeze();
    let port = one.address().port();
    let named = format!("\"web.example:{port}\"");
    let long_timeout = FAST_DNS.replace("500ms", "1m");
    let started = Instant::now();
    let gapless =
        Gapless::start(&dns_config(&knot, &long_timeout).zone_with_entries("here/a", &named));
    assert!(started.elapsed() < DEFAULT_TIMEOUT, "nothing waits for DNS");
    assert_eq!(gapless.admin_get("/healthz").status, 200);
    let ready = gapless.admin_get("/readyz");
    assert_eq!((ready.status, ready.text().as_str()), (503, "no endpoint can be chosen\n"));
    assert_eq!(gapless.get("/").status, 503);
    assert_eq!(first_name_status(&gapless)["state"], "pending");
    // Other endpoints serve meanwhile.
    let both = dns_config(&knot, &long_timeout)
        .zone_with_entries("here/a", &named)
        .zone("here/b", &[fixed.address()]);
    let other = Gapless::start(&both);
    wait_for_up_endpoints(&other, &[&fixed]);
    assert_eq!(other.get("/").text(), "fixed");
    assert_eq!(other.admin_get("/readyz").status, 200);
    knot.thaw();
    wait_for_up_endpoints(&gapless, &[&one]);
    eventually("it is ready", DEFAULT_TIMEOUT, || gapless.admin_get("/readyz").status == 200);
    assert_eq!(gapless.get("/").text(), "one");
    wait_for_up_endpoints(&other, &[&one, &fixed]);
    assert_eq!(other.get("/").text(), "one", "the zone that is named first is preferred");
}

#[test]
fn nxdomain_and_nodata_keep_endpoints_unless_configured() {
    let [one, two] = endpoints_on_same_port(["one", "two"]);
    let records = [a_record("gone", &one), a_record("empty", &one)];
    let Some(mut knot) = Knot::start(&records) else { return };
    let port = one.address().port();
    for (host, expected_state, remaining_record) in
        [("gone", "nxdomain", None), ("empty", "nodata", Some("empty TXT x"))]
    {
        let endpoints = format!("\"{host}.example:{port}\"");
        knot.set_records(&records);
        let keep = dns_config(&knot, FAST_DNS).zone_with_entries("here/a", &endpoints);
        let gapless = Gapless::start(&keep);
        wait_for_up_endpoints(&gapless, &[&one]);
        let remaining_records: Vec<String> =
            remaining_record.iter().map(|&record| record.to_owned()).collect();
        knot.set_records(&remaining_records);
        eventually("it is seen", DEFAULT_TIMEOUT, || {
            first_name_status(&gapless)["state"] == expected_state
        });
        wait_for_up_endpoints(&gapless, &[&one]);
        assert_eq!(gapless.get("/").text(), "one");
        assert_eq!(first_name_status(&gapless)["endpoints"][0]["kept"], true);
        let count =
            format!("gapless_dns_lookups_total{{record=\"A\",result=\"{expected_state}\"}}");
        assert!(gapless.metric(&count) > 0.0);
        let log_text = gapless.log();
        assert!(log_text.contains("DNS lookup found no records"), "{log_text}");
        knot.set_records(&[remaining_records.as_slice(), &[a_record(host, &two)]].concat());
        wait_for_up_endpoints(&gapless, &[&two]);
        let obey_empty = format!("{FAST_DNS}\nempty = \"obey\"");
        gapless.write_config(
            &dns_config(&knot, &obey_empty).zone_with_entries("here/a", &endpoints).text(),
        );
        eventually("it is obeyed", DEFAULT_TIMEOUT, || gapless.generation() == 2);
        wait_for_up_endpoints(&gapless, &[&two]);
        knot.set_records(&remaining_records);
        wait_for_up_endpoints(&gapless, &[]);
        eventually("no endpoint is left", DEFAULT_TIMEOUT, || gapless.get("/").status == 503);
        assert_eq!(gapless.admin_get("/readyz").status, 503);
        knot.set_records(&[remaining_records.as_slice(), &[a_record(host, &one)]].concat());
        wait_for_up_endpoints(&gapless, &[&one]);
        assert_eq!(gapless.get("/").text(), "one");
    }
}

/// A failover by DNS: the record has changed when its endpoint dies, and its TTL is an hour.
#[test]
fn refused_endpoint_triggers_immediate_lookup() {
    let [one, two] = endpoints_on_same_port(["one", "two"]);
    let record = |endpoint: &TestEndpoint| format!("web 3600 A {}", endpoint.address().ip());
    let Some(mut knot) = Knot::start(&[record(&one)]) else { return };
    let hour_long_ttl = "min_ttl = \"100ms\"\nmax_ttl = \"1h\"\nretry_max = \"1h\"";
    let port = one.address().port();
    let config = dns_config(&knot, hour_long_ttl)
        .zone_with_entries("here/a", &format!("\"web.example:{port}\""));
    let gapless = Gapless::start(&config);
    wait_for_up_endpoints(&gapless, &[&one]);
    knot.set_records(&[record(&two)]);
    let next = lookup_status(&gapless, "web.example", "A")["next_in_ms"].as_f64().expect("a time");
    assert!(next > 3_000_000.0, "nothing is to be looked up: {next}");
    assert_eq!(gapless.endpoints().len(), 1);
    one.kill();
    wait_for_up_endpoints(&gapless, &[&two]);
    assert_eq!(gapless.get("/").text(), "two");
}

/// Error responses are reported by their kinds.
#[test]
fn servfail_and_refused_lookups_have_distinct_reasons() {
    let Some(knot) = Knot::start(&[]) else { return };
    let endpoints = "\"a.broken:80\", \"a.elsewhere:80\"";
    let gapless =
        Gapless::start(&dns_config(&knot, FAST_DNS).zone_with_entries("here/a", endpoints));
    for (name, reason) in [("a.broken", "servfail"), ("a.elsewhere", "refused")] {
        eventually(reason, DEFAULT_TIMEOUT, || {
            lookup_status(&gapless, name, "A")["failing"]["reason"] == reason
        });
        assert_eq!(lookup_status(&gapless, name, "A")["state"], "pending");
    }
}

/// A DNS record cannot direct the proxy to its own machine (DNS rebinding).
#[test]
fn name_resolving_to_loopback_is_forbidden() {
    let [one] = endpoints_on_same_port(["one"]);
    let port = one.address().port();
    let secret = TestEndpoint::start_at("secret", SocketAddr::from(([127, 0, 0, 1], port)));
    let Some(mut knot) = Knot::start(&[a_record("web", &one), a_record("bad", &secret)]) else {
        return;
    };
    let only = format!("[dns]\nservers = [\"{}\"]\nallow = [\"127.0.0.2\"]\n", knot.address());
    let config = ConfigBuilder::new().tables(&format!("{only}{FAST_DNS}"));
    let config = config.zone_with_entries("here/a", &format!("\"web.example:{port}\""));
    let config = config.zone_with_entries("here/b", &format!("\"bad.example:{port}\""));
    let gapless = Gapless::start(&config);
    wait_for_up_endpoints(&gapless, &[&one]);
    knot.set_records(&[a_record("web", &secret), a_record("bad", &secret)]);
    eventually("it is seen", DEFAULT_TIMEOUT, || {
        lookup_status(&gapless, "web.example", "A")["state"] == "forbidden"
    });
    assert_eq!(lookup_status(&gapless, "bad.example", "A")["refused"][0], "127.0.0.1");
    wait_for_up_endpoints(&gapless, &[&one]);
    assert_eq!(gapless.get("/").text(), "one");
    assert_eq!(secret.used_connection_count(), 0, "not even a probe");
    let log_text = gapless.log();
    assert!(log_text.contains("need `dns.allow`"), "{log_text}");
}
