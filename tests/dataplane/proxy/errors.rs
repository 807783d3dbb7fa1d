//! Answers of the proxy's own: each with its status and its reason.

use std::time::Duration;

use super::{in_front_of, pair, pair_with};
use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;
use crate::support::{HeldPort, SOON, eventually};

#[test]
fn no_route() {
    let config = Config::new().route("host = \"api.example\"\npath = \"/v1/\"");
    let (endpoint, gapless) = pair_with(config);
    let ask = |host: &str, target: &str| {
        let text = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        client::raw(gapless.address, text)
    };
    assert_eq!(ask("api.example", "/v1/x").status, 200);
    assert_eq!(ask("API.Example.:8080", "/v1/x").status, 200);
    assert_eq!(ask("api.example", "/v2/x").verdict(), (404, Some("no_route")));
    assert_eq!(ask("other.example", "/v1/x").verdict(), (404, Some("no_route")));
    assert_eq!(endpoint.seen().len(), 2);
}

#[test]
fn whoever_comes_first_finds_the_routes() {
    let endpoint = Endpoint::start("one");
    for _ in 0..20 {
        let gapless = Gapless::start(&in_front_of(Config::new(), &endpoint));
        let first = gapless.get("/");
        assert_ne!(first.verdict(), (404, Some("no_route")));
    }
}

#[test]
fn no_endpoint() {
    // Never probed with success: nothing is known of it, so nothing may be sent to it.
    let endpoint = Endpoint::start("one");
    endpoint.set_probe(Mode::Hang);
    let slow = "detect = { interval = \"30s\", timeout = \"30s\", down_interval = \"30s\" }";
    let gapless = Gapless::start(&in_front_of(Config::new().pool(slow), &endpoint));
    assert_eq!(gapless.get("/").verdict(), (503, Some("no_endpoint")));
    assert_eq!(gapless.ask("/readyz").status, 503);
    assert_eq!(gapless.ask("/healthz").status, 200, "alive all the same");
    assert_eq!(endpoint.seen().len(), 0);
}

#[test]
fn an_optimistic_pool_does_not_wait_for_a_first_pass() {
    let endpoint = Endpoint::start("one");
    endpoint.set_probe(Mode::Hang);
    let slow = "optimistic = true\n\
                detect = { interval = \"30s\", timeout = \"30s\", down_interval = \"30s\" }";
    let gapless = Gapless::start(&in_front_of(Config::new().pool(slow), &endpoint));
    assert_eq!(gapless.get("/").status, 200);
}

#[test]
fn connection_refused() {
    let (endpoint, gapless) = pair();
    endpoint.die();
    let answer = gapless.get("/");
    assert_eq!(answer.verdict(), (502, Some("connect_failed")));
    assert_eq!(answer.text(), "connect_failed\n");
    endpoint.listen();
    eventually("it serves again", SOON, || gapless.get("/").status == 200);
}

#[test]
fn a_connection_that_never_opens() {
    // The queue of a listener that never accepts is full: what comes then is left unanswered.
    let held = HeldPort::take();
    let listener = held.listen();
    socket2::SockRef::from(&listener).listen(0).expect("a queue of one");
    let address = held.address();
    let fill = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300));
    let _waiting: Vec<_> = std::iter::from_fn(|| fill().ok()).take(16).collect();
    let config = Config::new()
        .route("timeouts = { connect = \"200ms\" }")
        .pool("optimistic = true")
        .zone("here/a", &[address]);
    let gapless = Gapless::start(&config);
    assert_eq!(gapless.get("/").verdict(), (504, Some("connect_timeout")));
}

#[test]
fn an_endpoint_that_hangs_up_or_hangs() {
    let config = Config::new().route("timeouts = { response = \"1s\" }");
    let (endpoint, gapless) = pair_with(config);
    for (mode, verdict) in [
        (Mode::Close, (502, Some("reset"))),
        (Mode::Reset, (502, Some("reset"))),
        (Mode::malformed(), (502, Some("bad_response"))),
        (Mode::Hang, (504, Some("response_timeout"))),
    ] {
        endpoint.set(mode);
        assert_eq!(gapless.get("/").verdict(), verdict);
        assert_eq!(client::request(gapless.address, "POST", "/", b"x").verdict(), verdict);
    }
    endpoint.set(Mode::Ok);
    assert_eq!(gapless.get("/").status, 200);
    assert_ne!(gapless.state(endpoint.address()), "down", "there is nobody better");
}

#[test]
fn too_large_a_body_is_refused_before_or_while_it_is_read() {
    let (endpoint, gapless) = pair_with(Config::new().route("limits = { body = \"1KiB\" }"));
    let mut client = Client::open(gapless.address);
    let fits = client.exchange("POST", "/", &[], &[b'x'; 1024]).expect("answered");
    assert_eq!(fits.status, 200);
    let refused = client.exchange("POST", "/", &[], &[b'x'; 1025]).expect("answered");
    assert_eq!(refused.verdict(), (413, Some("body_too_large")));
    assert_eq!(endpoint.seen().len(), 1);
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let refused = client::raw(gapless.address, format!("{head}{chunk}1\r\nx\r\n0\r\n\r\n"));
    assert_eq!(refused.verdict(), (413, Some("body_too_large")));
    assert_eq!(endpoint.seen().len(), 1, "no endpoint takes half a body for a whole one");
    assert_eq!(gapless.state(endpoint.address()), "up", "nor is it to blame");
}

#[test]
fn a_body_that_stops_coming() {
    let (endpoint, gapless) = pair_with(Config::new().route("timeouts = { idle = \"1s\" }"));
    let mut client = Client::open(gapless.address);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf!").expect("sent");
    let answer = client.answer("POST").expect("an answer");
    assert_eq!(answer.verdict(), (408, Some("body_timeout")));
    assert_eq!(endpoint.seen().len(), 0);
    assert_eq!(gapless.state(endpoint.address()), "up", "the client is to blame");
}

#[test]
fn heads_beyond_the_bounds() {
    let config = Config::new().tables("[limits]\nheader = \"8KiB\"\nheader_count = 20");
    let (endpoint, gapless) = pair_with(config);
    let ask = |fields: &str| {
        let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        client::raw(gapless.address, text).status
    };
    assert_eq!(ask(&"x-f: 1\r\n".repeat(19)), 200);
    assert_eq!(ask(&"x-f: 1\r\n".repeat(20)), 431);
    assert_eq!(ask(&format!("x-f: {}\r\n", "v".repeat(7_000))), 200);
    assert_eq!(ask(&format!("x-f: {}\r\n", "v".repeat(100_000))), 431);
    assert_eq!(endpoint.seen().len(), 2);
}

#[test]
fn answers_of_its_own_are_counted() {
    let (endpoint, gapless) = pair();
    endpoint.die();
    assert_eq!(gapless.get("/").status, 502);
    let sample = "gapless_own_responses_total{pool=\"web\",reason=\"connect_failed\"}";
    assert!(gapless.metric(sample) >= 1.0);
    assert!(gapless.metric("gapless_requests_total{pool=\"web\",code=\"5xx\"}") >= 1.0);
}
