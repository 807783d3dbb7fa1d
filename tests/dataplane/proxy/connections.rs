//! Connections: kept, reused, closed.

use std::io::ErrorKind;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::{config_for, start_pair, start_pair_with};
use crate::support::client::{self, TestClient};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

#[test]
fn endpoint_connections_are_reused() {
    let (endpoint, gapless) = start_pair();
    let mut client = TestClient::open(gapless.address);
    for _ in 0..20 {
        assert_eq!(client.get("/").status, 200);
    }
    for _ in 0..20 {
        assert_eq!(gapless.get("/").status, 200);
    }
    assert_eq!((endpoint.requests().len(), endpoint.used_connection_count()), (40, 1));
}

#[test]
fn connection_close_from_endpoint_is_honoured() {
    let (endpoint, gapless) = start_pair();
    let closing = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
    endpoint.set_mode(ResponseMode::RawClose(closing.into()));
    let mut client = TestClient::open(gapless.address);
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text()), (200, "hi".to_owned()));
        assert_eq!(answer.field("connection"), None, "that was not meant for the client");
    }
    assert_eq!(endpoint.used_connection_count(), 3);
}

#[test]
fn connection_closed_by_endpoint_is_not_reused() {
    let (endpoint, gapless) = start_pair();
    endpoint.set_mode(ResponseMode::CloseAfter);
    let mut client = TestClient::open(gapless.address);
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
        // The close needs a moment to arrive; a request that overtakes it has no second endpoint.
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(endpoint.requests().len(), 10, "nothing was asked twice");
}

#[test]
fn bytes_after_a_response_are_discarded() {
    let (endpoint, gapless) = start_pair();
    let two_responses = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi\
                  HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    endpoint.set_mode(ResponseMode::Raw(two_responses.into()));
    let mut client = TestClient::open(gapless.address);
    assert_eq!(client.get("/").text(), "hi");
    endpoint.set_mode(ResponseMode::Ok);
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "one");
    }
    assert_eq!(endpoint.used_connection_count(), 2, "the poisoned connection was given up");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_endpoint, gapless) = start_pair();
    let mut client = TestClient::open(gapless.address);
    let one = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n";
    let two = "POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    client.send([one, two, one].concat()).expect("sent");
    for method in ["GET", "POST", "GET"] {
        assert_eq!(client.read_response(method).expect("an answer").status, 200);
    }
}

#[test]
fn slow_head_is_cut() {
    let config = ConfigBuilder::new().tables("[limits]\nheader_timeout = \"1s\"");
    let (endpoint, gapless) = start_pair_with(config);
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").expect("sent");
    assert!(
        client
            .wire
            .read_to_end()
            .is_ok_and(|rest| rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"))
    );
    assert_eq!(endpoint.requests().len(), 0);
    assert_eq!(gapless.get("/").status, 200);
}

#[test]
fn connections_over_the_limit_are_refused() {
    let config = ConfigBuilder::new().tables("[limits]\nconnections = 3");
    let endpoint = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config_for(config, &endpoint));
    let mut kept: Vec<TestClient> = (0..3).map(|_| TestClient::open(gapless.address)).collect();
    for client in &mut kept {
        assert_eq!(client.get("/").status, 200);
        // Half a request does not close the connection.
        client.send("GET / HTTP/1.1\r\n").expect("sent");
    }
    let fourth = TestClient::connect(gapless.address);
    assert!(fourth.map_or(true, |mut client| client.is_closed_by_server()), "one too many");
    drop(kept.pop());
    eventually("there is room again", DEFAULT_TIMEOUT, || {
        let connected = TestClient::connect(gapless.address);
        connected.and_then(|mut client| client.exchange("GET", "/", &[], b"")).is_ok()
    });
    for client in &mut kept {
        client.send("host: a\r\n\r\n").expect("sent");
        let answer = client.read_response("GET").expect("an answer");
        assert_eq!(answer.status, 200, "those within the bound did not notice");
    }
}

#[test]
fn connection_close_from_client_is_honoured() {
    let (_endpoint, gapless) = start_pair();
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("sent");
    assert_eq!(client.read_response("GET").expect("an answer").status, 200);
    assert!(client.is_closed_by_server());
    assert_eq!(client::get(gapless.address, "/").status, 200);
}

#[test]
fn connection_is_reused_after_large_responses() {
    let (endpoint, gapless) = start_pair();
    let large = "x".repeat(300_000);
    endpoint.set_mode(ResponseMode::Body(large.clone()));
    let mut client = TestClient::open(gapless.address);
    for method in ["GET", "POST", "GET", "POST", "GET", "POST"] {
        let answer = client.exchange(method, "/", &[], b"").expect("an answer");
        assert!(answer.body == large.as_bytes(), "{method}");
    }
    assert_eq!(
        (endpoint.requests().len(), endpoint.used_connection_count(), endpoint.reset_count()),
        (6, 1, 0)
    );
}

/// The response to a request that cannot be repeated is forwarded as soon as its head arrives.
#[test]
fn connection_is_reused_after_late_bodies() {
    let (endpoint, gapless) = start_pair();
    let (proceed, permits) = mpsc::channel::<()>();
    let permits = Mutex::new(permits);
    endpoint.set_mode(ResponseMode::script(move |head, wire| {
        wire.read_body(head)?;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")?;
        let _ = permits.lock().expect("a script runs alone").recv_timeout(DEFAULT_TIMEOUT);
        wire.send("late").map(|()| ConnectionAction::Keep)
    }));
    let mut client = TestClient::open(gapless.address);
    for _ in 0..5 {
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx").expect("sent");
        let head = client.wire.read_head().expect("read").expect("a head");
        assert_eq!(head.start_line_word(1), "200");
        proceed.send(()).expect("the endpoint waits");
        assert_eq!(client.wire.read_body(&head).expect("a body"), b"late");
    }
    assert_eq!(
        (endpoint.requests().len(), endpoint.used_connection_count(), endpoint.reset_count()),
        (5, 1, 0)
    );
}

/// Larger than all buffers between endpoint and client.
const HUGE_BYTES: usize = 64 * 1024 * 1024;

/// An endpoint that answers with [`HUGE_BYTES`] and reports how sending ended.
fn start_with_huge_response() -> (TestEndpoint, Gapless, mpsc::Receiver<std::io::Result<()>>) {
    let (endpoint, gapless) =
        start_pair_with(ConfigBuilder::new().tables("[limits]\nwrite_timeout = \"1s\""));
    let (end_sender, end) = mpsc::channel();
    endpoint.set_mode(ResponseMode::script(move |_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {HUGE_BYTES}\r\n\r\n"))?;
        let _ = end_sender.send(wire.send(vec![b'x'; HUGE_BYTES]));
        Ok(ConnectionAction::Keep)
    }));
    (endpoint, gapless, end)
}

#[test]
fn non_reading_client_is_cut() {
    let (_endpoint, gapless, end) = start_with_huge_response();
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let sent = end.recv_timeout(DEFAULT_TIMEOUT).expect("the endpoint is let go");
    assert!(sent.is_err(), "{HUGE_BYTES} bytes cannot lie in buffers");
    let rest = client.wire.read_to_end();
    let is_cut = rest.as_ref().map_or_else(
        |error| error.kind() == ErrorKind::ConnectionReset,
        |rest| rest.len() < HUGE_BYTES,
    );
    assert!(is_cut, "{:?}", rest.map(|rest| rest.len()));
}

#[test]
fn slow_reading_client_gets_everything() {
    let (endpoint, gapless, end) = start_with_huge_response();
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let head = client.wire.read_head().expect("read").expect("a head");
    let (started, mut read) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(4) {
        read += client.wire.read_exact(32 * 1024).expect("more").len();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(head.field("content-length"), Some(&*HUGE_BYTES.to_string()));
    client.wire.read_exact(HUGE_BYTES - read).expect("the rest");
    end.recv_timeout(DEFAULT_TIMEOUT).expect("it ends").expect("all was sent");
    assert_eq!((client.get("/").status, endpoint.used_connection_count()), (200, 1));
}
