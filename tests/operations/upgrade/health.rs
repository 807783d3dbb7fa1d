//! What the old process knew, the new one knows from its first request on.

use std::time::Duration;

use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

/// Probed so seldom that what is known was found out by another process; and so patiently that a
/// probe that hears nothing finds out nothing in the time of a test.
const DETECT: &str =
    "detect = { interval = \"60s\", down_interval = \"60s\", timeout = \"50s\", down_after = 1 }";

#[test]
fn who_was_up_serves_before_any_probe_has_passed() {
    let one = Endpoint::start("one");
    let config = Config::new().pool(DETECT).zone("here/a", &[one.address()]);
    let gapless = Gapless::start_ready(&config);
    one.set_probe(Mode::Hang);
    let probes = one.probes().len();
    gapless.upgrade();
    for _ in 0..20 {
        assert_eq!(gapless.get("/").text(), "one");
    }
    eventually("it is probed at once", SOON, || one.probes().len() > probes);
    let status = gapless.endpoint(one.address());
    assert_eq!((&status["state"], &status["probes"]), (&"up".into(), &serde_json::json!([])));
    assert_eq!(gapless.ask("/readyz").status, 200);
    let gauge = format!(
        "gapless_endpoint_up{{pool=\"web\",zone=\"here/a\",endpoint=\"{}\"}}",
        one.address()
    );
    assert_eq!(gapless.metric(&gauge), 1.0);
}

#[test]
fn who_was_down_stays_down_and_gets_no_request() {
    let (near, far) = (Endpoint::start("near"), Endpoint::start("far"));
    let config = Config::new()
        .pool(DETECT)
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    near.set_probe(Mode::Status(500));
    let gapless = Gapless::start(&config);
    eventually("its verdict", SOON, || gapless.state(near.address()) == "down");
    eventually("the other's", SOON, || gapless.state(far.address()) == "up");
    let before = gapless.endpoint(near.address());
    // Neither of them tells the new process anything.
    near.set_probe(Mode::Hang);
    far.set_probe(Mode::Hang);
    gapless.upgrade();
    for _ in 0..50 {
        assert_eq!(gapless.get("/").text(), "far");
    }
    assert!(near.seen().is_empty(), "no request went to it");
    let after = gapless.endpoint(near.address());
    assert_eq!((&after["state"], &after["reason"]), (&"down".into(), &"http status 500".into()));
    let since = |status: &serde_json::Value| {
        status["since"].as_str().expect("text").parse::<jiff::Timestamp>().expect("a time")
    };
    let apart = since(&after).duration_since(since(&before)).unsigned_abs();
    assert!(apart < Duration::from_secs(1), "{apart:?}");
    let why = gapless.ask(&format!("/api/v1/explain?of={}&format=text", near.address())).text();
    assert!(why.contains("http status 500"), "{why}");
}

#[test]
fn who_was_down_comes_back_by_its_own_proof() {
    let (near, far) = (Endpoint::start("near"), Endpoint::start("far"));
    let config = Config::new()
        .pool("detect = { interval = \"200ms\", timeout = \"100ms\", down_interval = \"200ms\" }")
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    near.set_probe(Mode::Status(500));
    let gapless = Gapless::start(&config);
    eventually("its verdict", SOON, || gapless.state(near.address()) == "down");
    gapless.upgrade();
    assert_eq!(gapless.state(near.address()), "down");
    near.set_probe(Mode::Ok);
    eventually("it is back", SOON, || gapless.state(near.address()) == "up");
    eventually("it serves", SOON, || gapless.get("/").text() == "near");
}
