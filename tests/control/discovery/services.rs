//! Services: SRV records with their ports, weights and priorities.

use std::net::SocketAddr;

use super::{Knot, QUICK, config, wait_for};
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

const SRV: &str = "{ srv = \"_http._tcp.web.example\" }";

/// The record of a target, and that of its address.
fn target(name: &str, endpoint: &Endpoint, priority: u16, weight: u16) -> [String; 2] {
    let SocketAddr::V4(address) = endpoint.address() else { panic!("an IPv4 address") };
    [
        format!("_http._tcp.web SRV {priority} {weight} {} {name}", address.port()),
        format!("{name} A {}", address.ip()),
    ]
}

#[test]
fn a_service_is_its_targets_with_their_ports_and_weights() {
    let [one, two, three] = ["one", "two", "three"].map(Endpoint::start);
    let fixed = Endpoint::start("fixed");
    let first = [target("a", &one, 1, 10), target("b", &two, 1, 30)].concat();
    let Some(mut knot) = Knot::start(&first) else { return };
    let endpoints = format!("\"{}\", {SRV}", fixed.address());
    let gapless = Gapless::start(&config(&knot, QUICK).zone_of("here/a", &endpoints));
    wait_for(&gapless, &[&one, &two, &fixed]);
    let weight = |endpoint: &Endpoint| gapless.endpoint(endpoint.address())["weight"].clone();
    assert_eq!([weight(&one), weight(&two), weight(&fixed)], [10, 30, 1]);
    let since = gapless.endpoint(one.address())["since"].clone();
    knot.set(&[target("a", &one, 1, 65_535), target("c", &three, 1, 0)].concat());
    wait_for(&gapless, &[&one, &three, &fixed]);
    assert_eq!([weight(&one), weight(&three)], [1_000, 1]);
    assert_eq!(gapless.endpoint(one.address())["since"], since, "who stays keeps its health");
    let explained = gapless.api(&format!("/api/v1/explain?of={}", three.address()));
    let found_by = serde_json::json!(["srv _http._tcp.web.example by c.example."]);
    assert_eq!(explained["explanations"][0]["found_by"], found_by);
}

#[test]
fn a_worse_priority_serves_while_all_of_the_better_are_down() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let records = [target("a", &one, 10, 1), target("b", &two, 20, 1)].concat();
    let Some(knot) = Knot::start(&records) else { return };
    let pool = "detect = { interval = \"200ms\", timeout = \"200ms\", down_interval = \"200ms\" }\n\
                recover = { hold_down = \"100ms\" }";
    let gapless = Gapless::start(&config(&knot, QUICK).pool(pool).zone_of("here/a", SRV));
    wait_for(&gapless, &[&one]);
    assert_eq!(gapless.get("/").text(), "one");
    one.set_all(Mode::Status(500));
    eventually("the other target serves", SOON, || gapless.get("/").text() == "two");
    one.set_all(Mode::Ok);
    wait_for(&gapless, &[&one]);
    assert_eq!(gapless.get("/").text(), "one");
}
