//! Trailers in both directions.

use std::io;

use super::WITHOUT_VERDICTS;
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::wire::{MessageHead, WireStream};

/// A received body and its trailer lines.
type ChunkedMessage = (Vec<u8>, Vec<String>);

/// A chunked body with its trailers, strictly.
fn read_chunked(wire: &mut WireStream) -> io::Result<ChunkedMessage> {
    let mut body = Vec::new();
    loop {
        let line = wire.read_line()?;
        let size = usize::from_str_radix(&line, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if size == 0 {
            break;
        }
        body.extend(wire.read_exact(size)?);
        assert_eq!(wire.read_exact(2)?, b"\r\n");
    }
    let mut trailers = Vec::new();
    loop {
        match wire.read_line()? {
            line if line.is_empty() => return Ok((body, trailers)),
            line => trailers.push(line),
        }
    }
}

fn start_gapless(endpoint: &TestEndpoint) -> Gapless {
    Gapless::start_ready(
        &ConfigBuilder::new().pool(WITHOUT_VERDICTS).zone("a/b", &[endpoint.address()]),
    )
}

const RESPONSE_WITH_TRAILERS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, x-two\r\n\r\n\
                      5\r\nhello\r\n0\r\nx-sum: 5d41\r\ncontent-length: 7\r\nx-two: 2\r\n\r\n";

#[test]
fn response_trailers_reach_a_client_that_accepts_them() {
    let endpoint = TestEndpoint::start("web");
    endpoint.set_mode(ResponseMode::Raw(RESPONSE_WITH_TRAILERS.into()));
    let gapless = start_gapless(&endpoint);
    let mut client = TestClient::open(gapless.address);
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n").expect("sent");
        let head = client.wire.read_head().expect("a head").expect("an answer");
        assert_eq!(head.field("trailer"), Some("x-sum, x-two"));
        assert_eq!(head.field("x-sum"), None, "never merged into the head");
        let (body, trailers) = read_chunked(&mut client.wire).expect("a body");
        assert_eq!(body, b"hello");
        assert_eq!(trailers, ["x-sum: 5d41", "x-two: 2"]);
    }
    let seen = endpoint.requests();
    assert_eq!(
        (seen[0].head.field("te"), seen[0].head.field("connection")),
        (Some("trailers"), Some("te"))
    );
    assert_eq!(endpoint.used_connection_count(), 1, "the connection goes on after them");
}

#[test]
fn response_trailers_are_dropped_for_other_clients() {
    let endpoint = TestEndpoint::start("web");
    endpoint.set_mode(ResponseMode::Raw(RESPONSE_WITH_TRAILERS.into()));
    let gapless = start_gapless(&endpoint);
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let head = client.wire.read_head().expect("a head").expect("an answer");
    assert_eq!((head.field("trailer"), head.field("x-sum")), (None, None));
    assert_eq!(read_chunked(&mut client.wire).expect("a body"), (b"hello".to_vec(), Vec::new()));
    assert_eq!(endpoint.requests()[0].head.field("te"), None);
}

#[test]
fn request_trailers_reach_the_endpoint_on_each_attempt() {
    let (near, far) = (TestEndpoint::start("near"), TestEndpoint::start("far"));
    let (sender, received) = std::sync::mpsc::channel::<(MessageHead, ChunkedMessage)>();
    let respond = move |head: &MessageHead, wire: &mut WireStream| {
        let body = read_chunked(wire)?;
        let _ = sender.send((head.clone(), body));
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(ConnectionAction::Keep)
    };
    let respond_near = respond.clone();
    near.set_mode(ResponseMode::script(move |head, wire| {
        respond_near(head, wire).map(|_| ConnectionAction::Keep)
    }));
    far.set_mode(ResponseMode::script(respond));
    let config = ConfigBuilder::new()
        .pool(WITHOUT_VERDICTS)
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    let gapless = Gapless::start_ready(&config);
    near.refuse_connections();
    let mut client = TestClient::open(gapless.address);
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
             3\r\nabc\r\n0\r\nx-sum: 9001\r\nhost: evil\r\n\r\n",
        )
        .expect("sent");
    assert_eq!(client.read_response("POST").expect("an answer").status, 200);
    let (head, (body, trailers)) = received.recv().expect("a request");
    assert_eq!((head.field("trailer"), head.field("host")), (Some("x-sum"), Some("a")));
    assert_eq!((body.as_slice(), trailers), (&b"abc"[..], vec!["x-sum: 9001".to_owned()]));
}

#[test]
fn oversized_response_trailers_cut_the_response() {
    let endpoint = TestEndpoint::start("web");
    let many = "x-a: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(1_000);
    let answer =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{many}\r\n");
    endpoint.set_mode(ResponseMode::Raw(answer.into_bytes()));
    let gapless = start_gapless(&endpoint);
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n").expect("sent");
    // A request that was cut so early may not have started.
    let is_whole =
        matches!(client.wire.read_head(), Ok(Some(_))) && read_chunked(&mut client.wire).is_ok();
    assert!(!is_whole);
}
