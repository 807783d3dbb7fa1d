//! Local replies with their status and reason.

use std::time::Duration;

use super::{config_for, start_pair, start_pair_with};
use crate::support::client::{self, TestClient};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, ReservedPort, eventually};

#[test]
fn unknown_host_or_path_gets_404_no_route() {
    let config = ConfigBuilder::new().route("host = \"api.example\"\npath = \"/v1/\"");
    let (endpoint, gapless) = start_pair_with(config);
    let request = |host: &str, target: &str| {
        let text = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        client::send_raw(gapless.address, text)
    };
    assert_eq!(request("api.example", "/v1/x").status, 200);
    assert_eq!(request("API.Example.:8080", "/v1/x").status, 200);
    assert_eq!(request("api.example", "/v2/x").status_and_reason(), (404, Some("no_route")));
    assert_eq!(request("other.example", "/v1/x").status_and_reason(), (404, Some("no_route")));
    assert_eq!(endpoint.requests().len(), 2);
}

#[test]
fn first_request_after_start_finds_its_route() {
    let endpoint = TestEndpoint::start("one");
    for _ in 0..20 {
        let gapless = Gapless::start(&config_for(ConfigBuilder::new(), &endpoint));
        let first = gapless.get("/");
        assert_ne!(first.status_and_reason(), (404, Some("no_route")));
    }
}

#[test]
fn unprobed_endpoint_gets_503_no_endpoint() {
    // Without a passed probe the endpoint is unknown and gets no request.
    let endpoint = TestEndpoint::start("one");
    endpoint.set_probe_mode(ResponseMode::Hang);
    let slow_probes = "detect = { interval = \"30s\", timeout = \"30s\", down_interval = \"30s\" }";
    let gapless = Gapless::start(&config_for(ConfigBuilder::new().pool(slow_probes), &endpoint));
    assert_eq!(gapless.get("/").status_and_reason(), (503, Some("no_endpoint")));
    assert_eq!(gapless.admin_get("/readyz").status, 503);
    assert_eq!(gapless.admin_get("/healthz").status, 200, "alive all the same");
    assert_eq!(endpoint.requests().len(), 0);
}

#[test]
fn optimistic_pool_serves_before_the_first_probe() {
    let endpoint = TestEndpoint::start("one");
    endpoint.set_probe_mode(ResponseMode::Hang);
    let slow_probes = "optimistic = true\n\
                detect = { interval = \"30s\", timeout = \"30s\", down_interval = \"30s\" }";
    let gapless = Gapless::start(&config_for(ConfigBuilder::new().pool(slow_probes), &endpoint));
    assert_eq!(gapless.get("/").status, 200);
}

#[test]
fn refused_connection_gets_502_connect_failed() {
    let (endpoint, gapless) = start_pair();
    endpoint.kill();
    let answer = gapless.get("/");
    assert_eq!(answer.status_and_reason(), (502, Some("connect_failed")));
    assert_eq!(answer.text(), "connect_failed\n");
    endpoint.listen();
    eventually("it serves again", DEFAULT_TIMEOUT, || gapless.get("/").status == 200);
}

#[test]
fn unanswered_connect_gets_504_connect_timeout() {
    // The queue of a listener that never accepts is full: what comes then is left unanswered.
    let held = ReservedPort::reserve();
    let listener = held.listen();
    socket2::SockRef::from(&listener).listen(0).expect("a queue of one");
    let address = held.address();
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300));
    let _waiting: Vec<_> = std::iter::from_fn(|| connect().ok()).take(16).collect();
    let config = ConfigBuilder::new()
        .route("timeouts = { connect = \"200ms\" }")
        .pool("optimistic = true")
        .zone("here/a", &[address]);
    let gapless = Gapless::start(&config);
    assert_eq!(gapless.get("/").status_and_reason(), (504, Some("connect_timeout")));
}

#[test]
fn closing_or_hanging_endpoint_gets_502_or_504() {
    let config = ConfigBuilder::new().route("timeouts = { response = \"1s\" }");
    let (endpoint, gapless) = start_pair_with(config);
    for (mode, verdict) in [
        (ResponseMode::Close, (502, Some("reset"))),
        (ResponseMode::Reset, (502, Some("reset"))),
        (ResponseMode::malformed(), (502, Some("bad_response"))),
        (ResponseMode::Hang, (504, Some("response_timeout"))),
    ] {
        endpoint.set_mode(mode);
        assert_eq!(gapless.get("/").status_and_reason(), verdict);
        assert_eq!(
            client::request(gapless.address, "POST", "/", b"x").status_and_reason(),
            verdict
        );
    }
    endpoint.set_mode(ResponseMode::Ok);
    assert_eq!(gapless.get("/").status, 200);
    assert_ne!(
        gapless.endpoint_state(endpoint.address()),
        "down",
        "the only endpoint is never evicted"
    );
}

#[test]
fn oversized_body_gets_413() {
    let (endpoint, gapless) =
        start_pair_with(ConfigBuilder::new().route("limits = { body = \"1KiB\" }"));
    let mut client = TestClient::open(gapless.address);
    let fits = client.exchange("POST", "/", &[], &[b'x'; 1024]).expect("answered");
    assert_eq!(fits.status, 200);
    let refused = client.exchange("POST", "/", &[], &[b'x'; 1025]).expect("answered");
    assert_eq!(refused.status_and_reason(), (413, Some("body_too_large")));
    assert_eq!(endpoint.requests().len(), 1);
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let refused = client::send_raw(gapless.address, format!("{head}{chunk}1\r\nx\r\n0\r\n\r\n"));
    assert_eq!(refused.status_and_reason(), (413, Some("body_too_large")));
    assert_eq!(endpoint.requests().len(), 1, "no endpoint takes half a body for a whole one");
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up", "nor is it to blame");
}

#[test]
fn stalled_body_gets_408() {
    let (endpoint, gapless) =
        start_pair_with(ConfigBuilder::new().route("timeouts = { idle = \"1s\" }"));
    let mut client = TestClient::open(gapless.address);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf!").expect("sent");
    let answer = client.read_response("POST").expect("an answer");
    assert_eq!(answer.status_and_reason(), (408, Some("body_timeout")));
    assert_eq!(endpoint.requests().len(), 0);
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up", "the client is to blame");
}

#[test]
fn oversized_head_gets_431() {
    let config = ConfigBuilder::new().tables("[limits]\nheader = \"8KiB\"\nheader_count = 20");
    let (endpoint, gapless) = start_pair_with(config);
    let request_status = |fields: &str| {
        let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        client::send_raw(gapless.address, text).status
    };
    assert_eq!(request_status(&"x-f: 1\r\n".repeat(19)), 200);
    assert_eq!(request_status(&"x-f: 1\r\n".repeat(20)), 431);
    assert_eq!(request_status(&format!("x-f: {}\r\n", "v".repeat(7_000))), 200);
    assert_eq!(request_status(&format!("x-f: {}\r\n", "v".repeat(100_000))), 431);
    assert_eq!(endpoint.requests().len(), 2);
}

#[test]
fn own_error_responses_are_counted() {
    let (endpoint, gapless) = start_pair();
    endpoint.kill();
    assert_eq!(gapless.get("/").status, 502);
    let sample = "gapless_own_responses_total{pool=\"web\",reason=\"connect_failed\"}";
    assert!(gapless.metric(sample) >= 1.0);
    assert!(gapless.metric("gapless_requests_total{pool=\"web\",code=\"5xx\"}") >= 1.0);
}
