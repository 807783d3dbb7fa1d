//! Regions that are led to by how soon they answer.

use std::time::Duration;

use super::{Zone, config, share_of};
use crate::support::endpoint::Mode;
use crate::support::instance::Gapless;
use crate::support::load::Load;
use crate::support::{SOON, eventually};

fn ms(ms: u64) -> Mode {
    Mode::Slow(Duration::from_millis(ms))
}

#[test]
fn the_region_that_answers_soonest_is_learnt_and_left_when_it_becomes_slow() {
    // The far one is listed first.
    let zones = ["eu/a", "us/a"].map(Zone::new);
    zones[0].endpoints.iter().for_each(|one| one.set_all(ms(10)));
    let gapless = Gapless::start_ready(&config(&zones, "steer = \"latency\""));
    eventually("the near region is led to", SOON, || share_of(&gapless, "us/a") == 1.0);
    let told = gapless.ask("/api/v1/whatif?lose=eu").text();
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["pools"][0]["before"]["zones"][1]["share"], 1.0, "it knows the order: {told}");
    let load = Load::start(gapless.address, 2, Duration::from_millis(2));
    // More than two looks at it.
    eventually("requests tell what they take", SOON * 2, || load.sent() > 1_500);
    // Of requests only: its probes are answered as ever.
    zones[1].endpoints.iter().for_each(|one| one.set(ms(35)));
    eventually("it is left", SOON * 6, || share_of(&gapless, "us/a") == 0.0);
    assert_eq!(load.stop().failures, [""; 0]);
    assert_eq!(gapless.pool()["policy"], "latency");
    assert!(gapless.log().contains("regions by how soon they answer"), "{}", gapless.log());
}
