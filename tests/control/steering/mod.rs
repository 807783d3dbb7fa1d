//! Traffic shares under real load, compared with `gapless whatif`.

mod geo_and_routes;
mod latency;
mod whatif;

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::{BINARY, Gapless};
use crate::support::load::{LoadSummary, SteadyLoad};
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// Requests that measure a share within two per cent at three standard deviations.
const MIN_REQUESTS: u64 = 6_000;

/// Requests of one sample of a ramp, and the deviation that chance adds to a share of a third.
const RAMP_SAMPLE_REQUESTS: u64 = 1_500;
const SAMPLING_ERROR: f64 = 0.04;

/// Two endpoints of one zone.
struct SteeringZone {
    name: &'static str,
    endpoints: [TestEndpoint; 2],
}

impl SteeringZone {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            endpoints: ["one", "two"].map(|one| TestEndpoint::start(&format!("{name}/{one}"))),
        }
    }

    fn refuse_connections(&self) {
        self.endpoints.iter().for_each(TestEndpoint::refuse_connections);
    }

    fn listen(&self) {
        self.endpoints.iter().for_each(TestEndpoint::listen);
    }
}

fn config(zones: &[SteeringZone], pool: &str) -> ConfigBuilder {
    let detect =
        "detect = { interval = \"200ms\", timeout = \"100ms\", down_interval = \"100ms\" }";
    // Hedges go to another zone whatever the shares, and a busy machine causes many.
    let route = "retry = { hedge = false }";
    let config = ConfigBuilder::new().keys("self = \"us/a\"").route(route).pool(detect).pool(pool);
    zones.iter().fold(config, |config, zone| {
        config.zone(zone.name, &zone.endpoints.each_ref().map(TestEndpoint::address))
    })
}

/// Runs `whatif` on an instance's file or on the instance.
fn run_gapless(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("the program runs")
}

/// The share of each zone after the loss according to `gapless whatif FILE`.
fn predicted_shares(instance: &Gapless, lose: &[&str]) -> BTreeMap<String, f64> {
    let mut arguments =
        vec!["whatif", instance.config_file().to_str().expect("text"), "--format", "json"];
    lose.iter().for_each(|what| arguments.extend(["--lose", what]));
    let output = run_gapless(&arguments);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let zones = report["pools"][0]["after"]["zones"].as_array().expect("zones").clone();
    let share = |zone: &Value| {
        (
            zone["zone"].as_str().expect("a name").to_owned(),
            zone["share"].as_f64().expect("a share"),
        )
    };
    zones.iter().map(share).collect()
}

/// The share of each zone among the requests of a load.
fn measured_shares(gapless: &Gapless, zones: &[SteeringZone]) -> BTreeMap<String, f64> {
    let load = SteadyLoad::start(gapless.address, 8, Duration::ZERO);
    eventually("enough requests", DEFAULT_TIMEOUT * 6, || load.sent() > MIN_REQUESTS);
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    zone_shares(&tally, zones)
}

fn zone_shares(tally: &LoadSummary, zones: &[SteeringZone]) -> BTreeMap<String, f64> {
    let all: u64 = tally.by_endpoint.values().sum();
    let of = |zone: &SteeringZone| {
        let addresses = zone.endpoints.each_ref().map(|one| one.address().to_string());
        let count = addresses.iter().filter_map(|one| tally.by_endpoint.get(one)).sum::<u64>();
        (zone.name.to_owned(), count as f64 / all.max(1) as f64)
    };
    zones.iter().map(of).collect()
}

#[track_caller]
fn assert_shares_close(measured: &BTreeMap<String, f64>, predicted: &BTreeMap<String, f64>) {
    let is_close = |(name, share): (&String, &f64)| (share - predicted[name]).abs() <= 0.02;
    assert!(measured.iter().all(is_close), "{measured:?} and not {predicted:?}");
}

/// Waits until the instance steers as predicted.
#[track_caller]
fn wait_for_shares(gapless: &Gapless, predicted: &BTreeMap<String, f64>) {
    eventually("traffic is where it belongs", DEFAULT_TIMEOUT, || {
        let zones = gapless.api_json("/api/v1/zones")["zones"].as_array().expect("zones").clone();
        zones.iter().all(|zone| {
            let share = zone["share"].as_f64().expect("a share");
            (share - predicted[zone["zone"].as_str().expect("a name")]).abs() < 0.001
        })
    });
}

#[test]
fn zone_losses_shift_traffic_as_predicted() {
    let zones = ["us/a", "us/b", "us/c", "eu/a"].map(SteeringZone::new);
    let gapless = Gapless::start_ready(&config(&zones, "recover = { ramp = \"500ms\" }"));
    assert_shares_close(&measured_shares(&gapless, &zones), &predicted_shares(&gapless, &["eu/a"]));
    let mut lost: Vec<&str> = Vec::new();
    for zone in &zones[..3] {
        lost.push(zone.name);
        let predicted = predicted_shares(&gapless, &lost);
        zone.refuse_connections();
        wait_for_shares(&gapless, &predicted);
        assert_shares_close(&measured_shares(&gapless, &zones), &predicted);
    }
    assert_eq!(lost.len(), 3);
    zones[..3].iter().for_each(SteeringZone::listen);
    wait_for_shares(&gapless, &predicted_shares(&gapless, &["eu/a"]));
}

/// A returning zone gets no more than its final share.
#[test]
fn returning_zone_ramps_up_without_burst() {
    let zones = ["us/a", "us/b", "eu/a"].map(SteeringZone::new);
    let pool = "steer = \"spread\"\nrecover = { ramp = \"4s\", hold_down = \"0s\" }";
    let gapless = Gapless::start_ready(&config(&zones, pool));
    zones[0].refuse_connections();
    wait_for_shares(&gapless, &predicted_shares(&gapless, &["us/a"]));
    zones[0].listen();
    let third = 1.0 / 3.0;
    let mut observed_shares = Vec::new();
    while observed_shares.last().is_none_or(|share| *share < third * 0.999) {
        let load = SteadyLoad::start(gapless.address, 8, Duration::ZERO);
        eventually("enough requests", DEFAULT_TIMEOUT, || load.sent() > RAMP_SAMPLE_REQUESTS);
        let tally = load.stop();
        assert_eq!(tally.failures, [""; 0]);
        let share = zone_shares(&tally, &zones)["us/a"];
        assert!(
            share <= third * 1.1 + SAMPLING_ERROR,
            "{share} of the requests after {observed_shares:?}"
        );
        observed_shares.push(zone_share(&gapless, "us/a"));
    }
    assert!(observed_shares.is_sorted(), "{observed_shares:?}");
    assert!(
        observed_shares.iter().any(|share| (0.05..0.3).contains(share)),
        "that is no ramp: {observed_shares:?}"
    );
}

/// The share of the zone that the instance reports.
fn zone_share(gapless: &Gapless, zone: &str) -> f64 {
    let zones = gapless.api_json("/api/v1/zones")["zones"].as_array().expect("zones").clone();
    let one = zones.iter().find(|one| one["zone"] == zone).expect("the zone");
    one["share"].as_f64().expect("a share")
}
