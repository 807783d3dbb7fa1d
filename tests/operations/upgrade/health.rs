//! Health passes from the old process to its successor.

use std::time::Duration;

use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// Probed so rarely that all health is inherited, and with timeouts so long that a
/// silent probe has no outcome within a test.
const RARE_PROBES: &str =
    "detect = { interval = \"60s\", down_interval = \"60s\", timeout = \"50s\", down_after = 1 }";

#[test]
fn up_endpoint_serves_after_upgrade_before_any_probe() {
    let one = TestEndpoint::start("one");
    let config = ConfigBuilder::new().pool(RARE_PROBES).zone("here/a", &[one.address()]);
    let gapless = Gapless::start_ready(&config);
    one.set_probe_mode(ResponseMode::Hang);
    let probes = one.probes().len();
    gapless.upgrade();
    for _ in 0..20 {
        assert_eq!(gapless.get("/").text(), "one");
    }
    eventually("it is probed at once", DEFAULT_TIMEOUT, || one.probes().len() > probes);
    let status = gapless.endpoint(one.address());
    assert_eq!((&status["state"], &status["probes"]), (&"up".into(), &serde_json::json!([])));
    assert_eq!(gapless.admin_get("/readyz").status, 200);
    let gauge = format!(
        "gapless_endpoint_up{{pool=\"web\",zone=\"here/a\",endpoint=\"{}\"}}",
        one.address()
    );
    assert_eq!(gapless.metric(&gauge), 1.0);
}

#[test]
fn down_endpoint_stays_down_after_upgrade() {
    let (near, far) = (TestEndpoint::start("near"), TestEndpoint::start("far"));
    let config = ConfigBuilder::new()
        .pool(RARE_PROBES)
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    near.set_probe_mode(ResponseMode::Status(500));
    let gapless = Gapless::start(&config);
    eventually("its verdict", DEFAULT_TIMEOUT, || gapless.endpoint_state(near.address()) == "down");
    eventually("the other's", DEFAULT_TIMEOUT, || gapless.endpoint_state(far.address()) == "up");
    let before = gapless.endpoint(near.address());
    // Neither endpoint gives evidence to the new process.
    near.set_probe_mode(ResponseMode::Hang);
    far.set_probe_mode(ResponseMode::Hang);
    gapless.upgrade();
    for _ in 0..50 {
        assert_eq!(gapless.get("/").text(), "far");
    }
    assert!(near.requests().is_empty(), "no request went to it");
    let after = gapless.endpoint(near.address());
    assert_eq!((&after["state"], &after["reason"]), (&"down".into(), &"http status 500".into()));
    let since = |status: &serde_json::Value| {
        status["since"].as_str().expect("text").parse::<jiff::Timestamp>().expect("a time")
    };
    let difference = since(&after).duration_since(since(&before)).unsigned_abs();
    assert!(difference < Duration::from_secs(1), "{difference:?}");
    let explanation =
        gapless.admin_get(&format!("/api/v1/explain?of={}&format=text", near.address())).text();
    assert!(explanation.contains("http status 500"), "{explanation}");
}

#[test]
fn down_endpoint_recovers_by_probes_after_upgrade() {
    let (near, far) = (TestEndpoint::start("near"), TestEndpoint::start("far"));
    let config = ConfigBuilder::new()
        .pool("detect = { interval = \"200ms\", timeout = \"100ms\", down_interval = \"200ms\" }")
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    near.set_probe_mode(ResponseMode::Status(500));
    let gapless = Gapless::start(&config);
    eventually("its verdict", DEFAULT_TIMEOUT, || gapless.endpoint_state(near.address()) == "down");
    gapless.upgrade();
    assert_eq!(gapless.endpoint_state(near.address()), "down");
    near.set_probe_mode(ResponseMode::Ok);
    eventually("it is back", DEFAULT_TIMEOUT, || gapless.endpoint_state(near.address()) == "up");
    eventually("it serves", DEFAULT_TIMEOUT, || gapless.get("/").text() == "near");
}
