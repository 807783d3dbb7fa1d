//! Where traffic goes under real load, beside what `gapless whatif` says of it.

mod latency;
mod told;
mod ways;

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::{BINARY, Gapless};
use crate::support::load::{Load, Tally};
use crate::support::{SOON, eventually};

/// Requests that tell a share within two per cent: chance alone makes three of its deviations of it.
const ENOUGH: u64 = 6_000;

/// Requests of one look at a ramp, and what chance may add to a share of a third among them.
const WINDOW: u64 = 1_500;
const CHANCE: f64 = 0.04;

/// Two endpoints of one zone.
struct Zone {
    name: &'static str,
    endpoints: [Endpoint; 2],
}

impl Zone {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            endpoints: ["one", "two"].map(|one| Endpoint::start(&format!("{name}/{one}"))),
        }
    }

    fn refuse(&self) {
        self.endpoints.iter().for_each(Endpoint::refuse);
    }

    fn listen(&self) {
        self.endpoints.iter().for_each(Endpoint::listen);
    }
}

fn config(zones: &[Zone], pool: &str) -> Config {
    let detect =
        "detect = { interval = \"200ms\", timeout = \"100ms\", down_interval = \"100ms\" }";
    // A hedge goes to another zone, whatever the shares: on a busy machine there are many.
    let route = "retry = { hedge = false }";
    let config = Config::new().keys("self = \"us/a\"").route(route).pool(detect).pool(pool);
    zones.iter().fold(config, |config, zone| {
        config.zone(zone.name, &zone.endpoints.each_ref().map(Endpoint::address))
    })
}

/// Runs the program beside an instance: `whatif` of its file, or of itself.
fn gapless(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("the program runs")
}

/// The share of each zone after the loss, as `gapless whatif FILE` has it.
fn predicted(gapless_: &Gapless, lose: &[&str]) -> BTreeMap<String, f64> {
    let mut arguments = vec!["whatif", gapless_.file().to_str().expect("text"), "--format", "json"];
    lose.iter().for_each(|what| arguments.extend(["--lose", what]));
    let output = gapless(&arguments);
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let zones = said["pools"][0]["after"]["zones"].as_array().expect("zones").clone();
    let share = |zone: &Value| {
        (
            zone["zone"].as_str().expect("a name").to_owned(),
            zone["share"].as_f64().expect("a share"),
        )
    };
    zones.iter().map(share).collect()
}

/// The share of each zone among the requests of some load.
fn measured(gapless: &Gapless, zones: &[Zone]) -> BTreeMap<String, f64> {
    let load = Load::start(gapless.address, 8, Duration::ZERO);
    eventually("enough requests", SOON * 6, || load.sent() > ENOUGH);
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    shares(&tally, zones)
}

fn shares(tally: &Tally, zones: &[Zone]) -> BTreeMap<String, f64> {
    let all: u64 = tally.by_endpoint.values().sum();
    let of = |zone: &Zone| {
        let addresses = zone.endpoints.each_ref().map(|one| one.address().to_string());
        let count = addresses.iter().filter_map(|one| tally.by_endpoint.get(one)).sum::<u64>();
        (zone.name.to_owned(), count as f64 / all.max(1) as f64)
    };
    zones.iter().map(of).collect()
}

#[track_caller]
fn assert_close(measured: &BTreeMap<String, f64>, predicted: &BTreeMap<String, f64>) {
    let is_close = |(name, share): (&String, &f64)| (share - predicted[name]).abs() <= 0.02;
    assert!(measured.iter().all(is_close), "{measured:?} and not {predicted:?}");
}

/// Waits until the instance steers as predicted.
#[track_caller]
fn settled(gapless: &Gapless, predicted: &BTreeMap<String, f64>) {
    eventually("traffic is where it belongs", SOON, || {
        let zones = gapless.api("/api/v1/zones")["zones"].as_array().expect("zones").clone();
        zones.iter().all(|zone| {
            let share = zone["share"].as_f64().expect("a share");
            (share - predicted[zone["zone"].as_str().expect("a name")]).abs() < 0.001
        })
    });
}

#[test]
fn a_region_that_loses_one_two_and_all_zones_is_led_as_was_said() {
    let zones = ["us/a", "us/b", "us/c", "eu/a"].map(Zone::new);
    let gapless = Gapless::start_ready(&config(&zones, "recover = { ramp = \"500ms\" }"));
    assert_close(&measured(&gapless, &zones), &predicted(&gapless, &["eu/a"]));
    let mut lost: Vec<&str> = Vec::new();
    for zone in &zones[..3] {
        lost.push(zone.name);
        let predicted = predicted(&gapless, &lost);
        zone.refuse();
        settled(&gapless, &predicted);
        assert_close(&measured(&gapless, &zones), &predicted);
    }
    assert_eq!(lost.len(), 3);
    zones[..3].iter().for_each(Zone::listen);
    settled(&gapless, &predicted(&gapless, &["eu/a"]));
}

/// A zone that comes back while others carry on gets no more than it will have.
#[test]
fn a_zone_returns_by_a_ramp_without_a_burst() {
    let zones = ["us/a", "us/b", "eu/a"].map(Zone::new);
    let pool = "steer = \"spread\"\nrecover = { ramp = \"4s\", hold_down = \"0s\" }";
    let gapless = Gapless::start_ready(&config(&zones, pool));
    zones[0].refuse();
    settled(&gapless, &predicted(&gapless, &["us/a"]));
    zones[0].listen();
    let third = 1.0 / 3.0;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|share| *share < third * 0.999) {
        let load = Load::start(gapless.address, 8, Duration::ZERO);
        eventually("enough requests", SOON, || load.sent() > WINDOW);
        let tally = load.stop();
        assert_eq!(tally.failures, [""; 0]);
        let share = shares(&tally, &zones)["us/a"];
        assert!(share <= third * 1.1 + CHANCE, "{share} of the requests after {seen:?}");
        seen.push(share_of(&gapless, "us/a"));
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(seen.iter().any(|share| (0.05..0.3).contains(share)), "that is no ramp: {seen:?}");
}

/// The share of the zone that the instance draws for it.
fn share_of(gapless: &Gapless, zone: &str) -> f64 {
    let zones = gapless.api("/api/v1/zones")["zones"].as_array().expect("zones").clone();
    let one = zones.iter().find(|one| one["zone"] == zone).expect("the zone");
    one["share"].as_f64().expect("a share")
}
