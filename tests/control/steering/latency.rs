//! Steering by latency.

use std::time::Duration;

use super::{SteeringZone, config, zone_share};
use crate::support::endpoint::ResponseMode;
use crate::support::instance::Gapless;
use crate::support::load::SteadyLoad;
use crate::support::{DEFAULT_TIMEOUT, eventually};

fn slow_mode(ms: u64) -> ResponseMode {
    ResponseMode::Slow(Duration::from_millis(ms))
}

#[test]
fn latency_policy_learns_fastest_region_and_leaves_slow_one() {
    // The far region is listed first.
    let zones = ["eu/a", "us/a"].map(SteeringZone::new);
    zones[0].endpoints.iter().for_each(|one| one.set_all_modes(slow_mode(10)));
    let gapless = Gapless::start_ready(&config(&zones, "steer = \"latency\""));
    eventually("the near region is led to", DEFAULT_TIMEOUT, || {
        zone_share(&gapless, "us/a") == 1.0
    });
    let whatif = gapless.admin_get("/api/v1/whatif?lose=eu").text();
    let whatif: serde_json::Value = serde_json::from_str(&whatif).expect("JSON");
    assert_eq!(
        whatif["pools"][0]["before"]["zones"][1]["share"], 1.0,
        "it knows the order: {whatif}"
    );
    let load = SteadyLoad::start(gapless.address, 2, Duration::from_millis(2));
    // Longer than two samples of the latency order.
    eventually("requests tell what they take", DEFAULT_TIMEOUT * 2, || load.sent() > 1_500);
    // Only requests are delayed; probes are not.
    zones[1].endpoints.iter().for_each(|one| one.set_mode(slow_mode(35)));
    eventually("it is left", DEFAULT_TIMEOUT * 6, || zone_share(&gapless, "us/a") == 0.0);
    assert_eq!(load.stop().failures, [""; 0]);
    assert_eq!(gapless.pool()["policy"], "latency");
    assert!(
        gapless.log().contains("order of regions by measured latency changed"),
        "{}",
        gapless.log()
    );
}
