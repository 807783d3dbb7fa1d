//! Shutdown: a drain at the first TERM, an immediate end at the second or at INT.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// A bound that no test reaches.
const LONG_TIMEOUT: &str = "600s";

fn start(lame_duck: &str, drain: &str) -> (TestEndpoint, Gapless) {
    let endpoint = TestEndpoint::start("one");
    let table = format!("[shutdown]\nlame_duck = \"{lame_duck}\"\ndrain = \"{drain}\"");
    let config = ConfigBuilder::new().tables(&table).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    (endpoint, gapless)
}

/// A request that the endpoint has received and does not answer yet.
fn send_request_in_flight(endpoint: &TestEndpoint, gapless: &Gapless) -> TestClient {
    let mut client = TestClient::open(gapless.address);
    let before = endpoint.requests().len();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    eventually("the request is under way", DEFAULT_TIMEOUT, || endpoint.requests().len() > before);
    client
}

#[test]
fn lame_duck_serves_but_is_not_ready() {
    let (_endpoint, mut gapless) = start("3s", LONG_TIMEOUT);
    assert_eq!(gapless.admin_get("/readyz").status, 200);
    let mut connection = TestClient::open(gapless.address);
    assert_eq!(connection.get("/").status, 200);
    gapless.signal(Signal::TERM);
    eventually("it is not ready", DEFAULT_TIMEOUT, || gapless.admin_get("/readyz").status == 503);
    assert_eq!(gapless.admin_get("/healthz").status, 200);
    assert_eq!(connection.get("/").status, 200);
    assert_eq!(gapless.get("/").status, 200, "connections are still taken");
    let status = gapless.wait_for_exit(DEFAULT_TIMEOUT);
    assert!(status.success(), "{status}");
    eventually("its last word", DEFAULT_TIMEOUT, || gapless.log().contains("stopped"));
}

#[test]
fn sigterm_completes_requests_in_flight() {
    let (endpoint, mut gapless) = start("0s", LONG_TIMEOUT);
    endpoint.set_mode(ResponseMode::Slow(Duration::from_secs(3)));
    let mut waiting = send_request_in_flight(&endpoint, &gapless);
    let mut idle = TestClient::open(gapless.address);
    gapless.signal(Signal::TERM);
    eventually("the listener is closed", DEFAULT_TIMEOUT, || {
        TestClient::connect(gapless.address).is_err()
    });
    assert_eq!(gapless.admin_get("/readyz").status, 503);
    assert!(idle.is_closed_by_server(), "an idle connection is closed");
    let answer = waiting.read_response("GET").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "one".to_owned()));
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
}

#[test]
fn drain_timeout_ends_process() {
    let (endpoint, mut gapless) = start("0s", "1s");
    endpoint.set_mode(ResponseMode::Hang);
    let mut waiting = send_request_in_flight(&endpoint, &gapless);
    gapless.signal(Signal::TERM);
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
    assert!(waiting.read_response("GET").is_err());
}

#[test]
fn second_sigterm_ends_drain() {
    assert_second_sigterm_ends_process("0s");
}

#[test]
fn second_sigterm_ends_lame_duck_and_skips_drain() {
    assert_second_sigterm_ends_process(LONG_TIMEOUT);
}

/// Starts with a drain timeout that no test reaches.
fn assert_second_sigterm_ends_process(lame_duck: &str) {
    let (endpoint, mut gapless) = start(lame_duck, LONG_TIMEOUT);
    endpoint.set_mode(ResponseMode::Hang);
    let _waiting = send_request_in_flight(&endpoint, &gapless);
    gapless.signal(Signal::TERM);
    eventually("it is not ready", DEFAULT_TIMEOUT, || gapless.admin_get("/readyz").status == 503);
    assert!(gapless.is_running());
    gapless.signal(Signal::TERM);
    gapless.wait_for_exit(DEFAULT_TIMEOUT);
}

#[test]
fn sigint_ends_process_immediately() {
    let (endpoint, mut gapless) = start(LONG_TIMEOUT, LONG_TIMEOUT);
    endpoint.set_mode(ResponseMode::Hang);
    let _waiting = send_request_in_flight(&endpoint, &gapless);
    gapless.signal(Signal::INT);
    gapless.wait_for_exit(DEFAULT_TIMEOUT);
}

#[test]
fn stalled_request_is_rescued_during_drain() {
    let (near, far) = (TestEndpoint::start("near"), TestEndpoint::start("far"));
    let config = ConfigBuilder::new()
        .tables("[shutdown]\ndrain = \"600s\"")
        .pool("detect = { interval = \"1s\", timeout = \"500ms\" }")
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    let mut gapless = Gapless::start_ready(&config);
    near.set_all_modes(ResponseMode::Hang);
    let mut waiting = send_request_in_flight(&near, &gapless);
    gapless.signal(Signal::TERM);
    let answer = waiting.read_response("GET").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "far".to_owned()));
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
}

/// Connections in the kernel's accept queue are served before the process stops.
#[test]
fn queued_connections_are_answered_before_shutdown() {
    let (_endpoint, mut gapless) = start("0s", LONG_TIMEOUT);
    assert_eq!(gapless.get("/").status, 200);
    gapless.signal(Signal::STOP);
    let mut waiting: Vec<TestClient> =
        (0..200).map(|_| TestClient::open(gapless.address)).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    }
    gapless.signal(Signal::TERM);
    gapless.signal(Signal::CONT);
    for client in &mut waiting {
        assert_eq!(client.read_response("GET").expect("an answer").status, 200);
        assert!(client.is_closed_by_server());
    }
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
}
