//! Services: SRV records with their ports, weights and priorities.

use std::net::SocketAddr;

use super::{FAST_DNS, Knot, dns_config, wait_for_up_endpoints};
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

const SRV_ENTRY: &str = "{ srv = \"_http._tcp.web.example\" }";

/// The SRV record of a target and its address record.
fn srv_and_address_records(
    name: &str,
    endpoint: &TestEndpoint,
    priority: u16,
    weight: u16,
) -> [String; 2] {
    let SocketAddr::V4(address) = endpoint.address() else { panic!("an IPv4 address") };
    [
        format!("_http._tcp.web SRV {priority} {weight} {} {name}", address.port()),
        format!("{name} A {}", address.ip()),
    ]
}

#[test]
fn srv_targets_become_endpoints_with_ports_and_weights() {
    let [one, two, three] = ["one", "two", "three"].map(TestEndpoint::start);
    let fixed = TestEndpoint::start("fixed");
    let first =
        [srv_and_address_records("a", &one, 1, 10), srv_and_address_records("b", &two, 1, 30)]
            .concat();
    let Some(mut knot) = Knot::start(&first) else { return };
    let endpoints = format!("\"{}\", {SRV_ENTRY}", fixed.address());
    let gapless =
        Gapless::start(&dns_config(&knot, FAST_DNS).zone_with_entries("here/a", &endpoints));
    wait_for_up_endpoints(&gapless, &[&one, &two, &fixed]);
    let weight = |endpoint: &TestEndpoint| gapless.endpoint(endpoint.address())["weight"].clone();
    assert_eq!([weight(&one), weight(&two), weight(&fixed)], [10, 30, 1]);
    let since = gapless.endpoint(one.address())["since"].clone();
    knot.set_records(
        &[
            srv_and_address_records("a", &one, 1, 65_535),
            srv_and_address_records("c", &three, 1, 0),
        ]
        .concat(),
    );
    wait_for_up_endpoints(&gapless, &[&one, &three, &fixed]);
    assert_eq!([weight(&one), weight(&three)], [1_000, 1]);
    assert_eq!(
        gapless.endpoint(one.address())["since"],
        since,
        "an endpoint that remains keeps its health"
    );
    let explained = gapless.api_json(&format!("/api/v1/explain?of={}", three.address()));
    let found_by = serde_json::json!(["srv _http._tcp.web.example by c.example."]);
    assert_eq!(explained["explanations"][0]["found_by"], found_by);
}

#[test]
fn backup_srv_priority_serves_while_preferred_is_down() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let records =
        [srv_and_address_records("a", &one, 10, 1), srv_and_address_records("b", &two, 20, 1)]
            .concat();
    let Some(knot) = Knot::start(&records) else { return };
    let pool = "detect = { interval = \"200ms\", timeout = \"200ms\", down_interval = \"200ms\" }\n\
                recover = { hold_down = \"100ms\" }";
    let gapless = Gapless::start(
        &dns_config(&knot, FAST_DNS).pool(pool).zone_with_entries("here/a", SRV_ENTRY),
    );
    wait_for_up_endpoints(&gapless, &[&one]);
    assert_eq!(gapless.get("/").text(), "one");
    one.set_all_modes(ResponseMode::Status(500));
    eventually("the other target serves", DEFAULT_TIMEOUT, || gapless.get("/").text() == "two");
    one.set_all_modes(ResponseMode::Ok);
    wait_for_up_endpoints(&gapless, &[&one]);
    assert_eq!(gapless.get("/").text(), "one");
}
