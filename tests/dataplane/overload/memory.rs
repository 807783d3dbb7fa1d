//! Memory pressure: the tests move the limit, not the usage.

use std::time::{Duration, Instant};

use super::closed_connections;
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually, poll_until};

/// Sets the limit so that the present usage is this share in thousandths, which leads
/// to `level`. Usage itself grows a little by the reload.
#[track_caller]
fn set_memory_pressure(gapless: &Gapless, config: &ConfigBuilder, used_permille: u64, level: f64) {
    poll_until("the level is reached", DEFAULT_TIMEOUT, || {
        let bound = gapless.metric("gapless_memory_bytes") as u64 * 1_000 / used_permille;
        let generation = gapless.generation();
        gapless.write_config(&config.clone().tables(&format!("[limits]\nmemory = {bound}")).text());
        eventually("it is loaded", DEFAULT_TIMEOUT, || gapless.generation() > generation);
        // Memory is sampled ten times a second.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(600) {
            if gapless.metric("gapless_memory_pressure") == level {
                return Some(());
            }
        }
        None
    });
}

#[test]
fn memory_pressure_sheds_idle_then_requests_then_accepts() {
    let endpoint = TestEndpoint::start("one");
    let config = ConfigBuilder::new().zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    assert!(gapless.metric("gapless_memory_limit_bytes") > 0.0, "the system sets one");
    let ready = || gapless.admin_get("/readyz");
    let mut idle = TestClient::open(gapless.address);
    assert_eq!(idle.get("/").status, 200);

    set_memory_pressure(&gapless, &config, 935, 1.0);
    assert!(idle.is_closed_by_server());
    assert!(closed_connections(&gapless, "memory") >= 1);
    assert_eq!((gapless.get("/").status, ready().status), (200, 200));

    set_memory_pressure(&gapless, &config, 965, 2.0);
    let mut kept = TestClient::open(gapless.address);
    assert_eq!(kept.get("/").status_and_reason(), (503, Some("overload")));
    let readiness = ready();
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().starts_with("overloaded: 9"), "{}", readiness.text());
    assert!(gapless.metric("gapless_overload_refusals_total") >= 1.0);

    // Starts from the calm level: a level without growth would ease during the test.
    gapless.write_config(&config.text());
    eventually("it is calm", DEFAULT_TIMEOUT, || gapless.metric("gapless_memory_pressure") == 0.0);
    set_memory_pressure(&gapless, &config, 1_100, 3.0);
    // One connection may have been accepted before the level changed.
    let mut waiting: Vec<TestClient> = (0..3).map(|_| TestClient::open(gapless.address)).collect();
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    waiting.iter_mut().for_each(|client| client.send(request).expect("sent"));
    let last = &mut waiting[2];
    last.wire.stream().set_read_timeout(Some(Duration::from_millis(700))).expect("a socket");
    assert!(last.read_response("GET").is_err(), "no connection is accepted");

    gapless.write_config(&config.text());
    last.wire.stream().set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    assert_eq!(last.read_response("GET").expect("an answer").status, 200, "the kernel held it");
    assert_eq!((gapless.get("/").status, ready().status), (200, 200));
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up");
    assert!(!gapless.log().contains("suspect"), "{}", gapless.log());
}
