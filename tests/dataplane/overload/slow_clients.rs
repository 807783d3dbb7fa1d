//! Slow clients that send or read a little at a time.

use std::io::ErrorKind;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{closed_connections, start_pair_with};
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;

/// The pause between two pieces.
const DRIP_INTERVAL: Duration = Duration::from_millis(50);

/// Sends `drops` one by one until the proxy responds, or for too long. Returns how long that
/// took.
#[track_caller]
fn send_slowly(client: &mut TestClient, piece: &str) -> Duration {
    let began = Instant::now();
    client.wire.stream().set_nonblocking(true).expect("a socket");
    loop {
        let peeked = client.wire.stream().peek(&mut [0]);
        let is_silent = peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        if !is_silent || client.send(piece).is_err() {
            client.wire.stream().set_nonblocking(false).expect("a socket");
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it drips on");
        sleep(DRIP_INTERVAL);
    }
}

fn config_with_limits(lines: &str) -> ConfigBuilder {
    ConfigBuilder::new().tables(&format!("[limits]\n{lines}"))
}

#[test]
fn slow_head_gets_408_after_header_timeout() {
    let (endpoint, gapless) = start_pair_with(config_with_limits("header_timeout = \"1s\""));
    let mut used = TestClient::open(gapless.address);
    assert_eq!(used.get("/").status, 200);
    for (mut client, what) in [(TestClient::open(gapless.address), "new"), (used, "used")] {
        client.send("GET /slow HTTP/1.1\r\nhost: a\r\n").expect("sent");
        let took = send_slowly(&mut client, "x-drop: 1\r\n");
        let answer = client.read_response("GET").expect("an answer");
        assert_eq!(answer.status_and_reason(), (408, Some("header_timeout")), "{what}");
        assert_eq!(
            (answer.field("connection"), answer.text()),
            (Some("close"), "header_timeout\n".to_owned())
        );
        assert!(client.is_closed_by_server());
        assert!((900..2_500).contains(&took.as_millis()), "{what}: {took:?}");
    }
    assert_eq!((closed_connections(&gapless, "header_timeout"), endpoint.requests().len()), (2, 1));
}

/// The version sniff counts into the header timeout.
#[test]
fn header_timeout_starts_at_accept() {
    let (_endpoint, gapless) = start_pair_with(config_with_limits("header_timeout = \"2s\""));
    let began = Instant::now();
    let mut client = TestClient::open(gapless.address);
    sleep(Duration::from_millis(1_700));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n").expect("sent");
    assert_eq!(client.read_response("GET").expect("an answer").status, 408);
    let took = began.elapsed().as_millis();
    assert!((1_900..3_400).contains(&took), "{took} ms");
}

#[test]
fn silent_connection_is_closed_after_header_timeout() {
    for lines in ["", "http2 = false\n"] {
        let endpoint = TestEndpoint::start("one");
        let config =
            config_with_limits("header_timeout = \"1s\"").zone("here/a", &[endpoint.address()]);
        let text = config.text().replacen("[[listen]]\n", &format!("[[listen]]\n{lines}"), 1);
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, text).expect("written");
        let gapless = Gapless::start_with_file(directory, file);
        let began = Instant::now();
        let mut client = TestClient::open(gapless.address);
        assert!(client.is_closed_by_server(), "without an answer to no question");
        let took = began.elapsed().as_millis();
        assert!((900..2_500).contains(&took), "{lines:?}: {took} ms");
    }
}

#[test]
fn used_connection_is_closed_after_idle_timeout() {
    let lines = "header_timeout = \"500ms\"\nidle_timeout = \"3s\"";
    let (endpoint, gapless) = start_pair_with(config_with_limits(lines));
    let mut client = TestClient::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    sleep(Duration::from_millis(1_500));
    assert_eq!(client.get("/").status, 200, "the same connection");
    let began = Instant::now();
    assert!(client.is_closed_by_server());
    let took = began.elapsed().as_millis();
    assert!((2_900..5_500).contains(&took), "{took} ms");
    assert_eq!((closed_connections(&gapless, "idle"), endpoint.requests().len()), (1, 2));
}

#[test]
fn long_request_is_not_idle() {
    let lines = "header_timeout = \"500ms\"\nidle_timeout = \"500ms\"";
    let (endpoint, gapless) = start_pair_with(config_with_limits(lines));
    endpoint.set_mode(ResponseMode::Slow(Duration::from_secs(3)));
    let mut client = TestClient::open(gapless.address);
    let one = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    // The second head arrives in time except for its end.
    client.send([one, &one[..20]].concat()).expect("sent");
    assert_eq!(client.read_response("GET").expect("an answer").status, 200);
    client.send(&one[20..]).expect("sent");
    assert_eq!(client.read_response("GET").expect("an answer").status, 200);
}

#[test]
fn slow_body_gets_408() {
    let config = config_with_limits("body_rate = \"1KiB\"").route("timeouts = { idle = \"1s\" }");
    let (endpoint, gapless) = start_pair_with(config);
    let mut client = TestClient::open(gapless.address);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").expect("sent");
    let took = send_slowly(&mut client, "b");
    assert_eq!(
        client.read_response("POST").expect("an answer").status_and_reason(),
        (408, Some("body_timeout"))
    );
    assert!((900..4_000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up", "the client is to blame");
}

#[test]
fn body_above_the_minimum_rate_is_accepted() {
    let config = config_with_limits("body_rate = \"1KiB\"").route("timeouts = { idle = \"1s\" }");
    let (endpoint, gapless) = start_pair_with(config);
    let mut client = TestClient::open(gapless.address);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6000\r\n\r\n").expect("sent");
    for _ in 0..60 {
        client.send([b'b'; 100]).expect("sent");
        sleep(DRIP_INTERVAL);
    }
    assert_eq!(client.read_response("POST").expect("an answer").status, 200);
    assert_eq!(endpoint.requests()[0].body.len(), 6_000);
}

/// A gRPC stream may be silent for a while.
#[test]
fn slow_grpc_body_is_accepted() {
    let config = config_with_limits("body_rate = \"1KiB\"").route("timeouts = { idle = \"1s\" }");
    let (endpoint, gapless) = start_pair_with(config);
    endpoint.set_mode(ResponseMode::script(|_, wire| {
        wire.read_exact(40)?;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").map(|()| ConnectionAction::Close)
    }));
    let mut client = TestClient::open(gapless.address);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 40\r\n\r\n";
    client.send(head).expect("sent");
    for _ in 0..40 {
        client.send("b").expect("sent");
        sleep(DRIP_INTERVAL);
    }
    assert_eq!(client.read_response("POST").expect("an answer").status, 200);
}

#[test]
fn unread_response_is_cut_after_write_timeout() {
    let (endpoint, gapless) = start_pair_with(config_with_limits("write_timeout = \"1s\""));
    endpoint.set_mode(ResponseMode::Body("x".repeat(16 * 1024 * 1024)));
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    // No byte is read until then.
    let began = Instant::now();
    let is_released = || gapless.endpoint(endpoint.address())["in_flight"] == 0;
    sleep(Duration::from_millis(500));
    assert!(!is_released(), "it is under way");
    while !is_released() {
        assert!(began.elapsed() < Duration::from_secs(10), "it is still under way");
        sleep(DRIP_INTERVAL);
    }
    assert!(client.read_response("GET").is_err(), "a part of it");
}

#[test]
fn slow_clients_do_not_delay_others() {
    let (_endpoint, gapless) = start_pair_with(config_with_limits("header_timeout = \"2s\""));
    let mut slow_clients: Vec<TestClient> =
        (0..100).map(|_| TestClient::open(gapless.address)).collect();
    for _ in 0..10 {
        for client in &mut slow_clients {
            let _ = client.send("G");
        }
        let began = Instant::now();
        assert_eq!(gapless.get("/").status, 200);
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
