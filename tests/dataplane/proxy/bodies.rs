//! Forwarded bodies in both directions, piece by piece.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use super::start_pair;
use crate::support::client::TestClient;
use crate::support::endpoint::{ConnectionAction, ResponseMode};
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// Larger than every buffer on the path.
const LARGE_BYTES: usize = 24 * 1024 * 1024;

/// Bytes that encode their position.
fn position_dependent_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn bodies_with_content_length_arrive_complete() {
    let (endpoint, gapless) = start_pair();
    let mut client = TestClient::open(gapless.address);
    for length in [1, 100, 65_536, 1_000_000] {
        let body = position_dependent_bytes(length);
        assert_eq!(client.exchange("POST", "/", &[], &body).expect("answered").status, 200);
        let seen = endpoint.requests().pop().expect("a request");
        assert_eq!(seen.head.field("content-length"), Some(&*length.to_string()));
        assert!(seen.body == body, "{length} bytes");
    }
    let empty = client.exchange("POST", "/", &[("content-length", "0")], b"").expect("answered");
    assert_eq!(empty.status, 200);
    assert_eq!(
        endpoint.requests().pop().expect("a request").head.field("content-length"),
        Some("0")
    );
}

#[test]
fn chunked_bodies_are_decoded_and_reencoded() {
    let (endpoint, gapless) = start_pair();
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n\
                  5;ext=1\r\nhello\r\n0001\r\n!\r\n0\r\nX-Trailer: t\r\n\r\n";
    endpoint.set_mode(ResponseMode::Raw(answer.into()));
    let mut client = TestClient::open(gapless.address);
    let request = "POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n\
                   4;a=b\r\nwiki\r\n5\r\npedia\r\n0\r\nHost: evil\r\n\r\n";
    client.send(request).expect("sent");
    let answer = client.read_response("POST").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "hello!".to_owned()));
    assert_eq!(answer.field("x-trailer"), None);
    let seen = endpoint.requests().pop().expect("a request");
    assert_eq!(seen.body, b"wikipedia");
    assert_eq!(seen.head.field_values("transfer-encoding").collect::<Vec<_>>(), ["chunked"]);
    assert_eq!(seen.head.field_values("host").collect::<Vec<_>>(), ["a"]);
    endpoint.set_mode(ResponseMode::Ok);
    assert_eq!(client.get("/").text(), "one", "the connection is still in step");
}

#[test]
fn close_delimited_response_is_forwarded() {
    let (endpoint, gapless) = start_pair();
    endpoint.set_mode(ResponseMode::RawClose(b"HTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec()));
    assert_eq!(gapless.get("/").text(), "until the end");
    endpoint.set_mode(ResponseMode::RawClose(b"HTTP/1.0 200 OK\r\n\r\nold".to_vec()));
    assert_eq!(gapless.get("/").text(), "old");
}

#[test]
fn large_response_is_streamed_not_buffered() {
    let (endpoint, gapless) = start_pair();
    let body = position_dependent_bytes(LARGE_BYTES);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE_BYTES}\r\n\r\n");
    endpoint.set_mode(ResponseMode::Raw([head.as_bytes(), &body].concat()));
    let rss_before_kib = gapless.rss_kib();
    assert!(gapless.get("/").body == body);
    let grown = gapless.rss_kib().saturating_sub(rss_before_kib);
    assert!(grown < LARGE_BYTES as u64 / 1024 / 2, "{grown} KiB: it was buffered");
}

#[test]
fn large_request_is_streamed_not_buffered() {
    let (endpoint, gapless) = start_pair();
    let body = position_dependent_bytes(LARGE_BYTES);
    let rss_before_kib = gapless.rss_kib();
    let mut client = TestClient::open(gapless.address);
    assert_eq!(client.exchange("PUT", "/", &[], &body).expect("answered").status, 200);
    let grown = gapless.rss_kib().saturating_sub(rss_before_kib);
    assert!(grown < LARGE_BYTES as u64 / 1024 / 2, "{grown} KiB: it was buffered");
    assert!(endpoint.requests()[0].body == body);
}

#[test]
fn response_chunks_are_forwarded_as_they_arrive() {
    let (endpoint, gapless) = start_pair();
    let (proceed, permits) = mpsc::channel::<()>();
    let permits = Mutex::new(permits);
    endpoint.set_mode(ResponseMode::script(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for piece in ["3\r\none\r\n", "3\r\ntwo\r\n", "5\r\nthree\r\n0\r\n\r\n"] {
            wire.send(piece)?;
            let _ = permits.lock().expect("a script runs alone").recv_timeout(DEFAULT_TIMEOUT);
        }
        Ok(ConnectionAction::Keep)
    }));
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let head = client.wire.read_head().expect("read").expect("a head");
    assert_eq!(head.start_line_word(1), "200");
    for piece in ["one", "two", "three"] {
        let chunk = client.wire.read_chunk().expect("read").expect("a chunk");
        assert_eq!(String::from_utf8_lossy(&chunk), piece);
        proceed.send(()).expect("the endpoint waits");
    }
    assert_eq!(client.wire.read_chunk().expect("read"), None);
}

#[test]
fn request_chunks_are_forwarded_as_they_arrive() {
    let (endpoint, gapless) = start_pair();
    let (chunk_sender, chunks) = mpsc::channel();
    endpoint.set_mode(ResponseMode::script(move |_, wire| {
        while let Some(chunk) = wire.read_chunk()? {
            let _ = chunk_sender.send(chunk);
        }
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(ConnectionAction::Keep)
    }));
    let mut client = TestClient::open(gapless.address);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(head).expect("sent");
    for piece in ["one", "two", "six"] {
        client.send(format!("3\r\n{piece}\r\n")).expect("sent");
        assert_eq!(chunks.recv_timeout(DEFAULT_TIMEOUT).expect("it arrives"), piece.as_bytes());
    }
    client.send("0\r\n\r\n").expect("sent");
    assert_eq!(client.read_response("POST").expect("an answer").status, 200);
}

#[test]
fn expect_continue_gets_100_once() {
    let (endpoint, gapless) = start_pair();
    let mut client = TestClient::open(gapless.address);
    let head = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    client.send(head).expect("sent");
    let interim = client.wire.read_head().expect("read").expect("a head");
    assert_eq!(interim.start_line_word(1), "100");
    client.send("hello").expect("sent");
    let answer = client.wire.read_head().expect("read").expect("a head");
    assert_eq!(answer.start_line_word(1), "200", "and it is told once");
    let seen = endpoint.requests().pop().expect("a request");
    assert_eq!((seen.body.as_slice(), seen.head.field("expect")), (&b"hello"[..], None));
}

#[test]
fn early_response_reaches_a_client_still_sending() {
    let (endpoint, gapless) = start_pair();
    endpoint.set_mode(ResponseMode::script(|_, wire| {
        wire.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")?;
        // Keeps reading for a while, so that a reset does not destroy the response.
        wire.read_to_end().map(|_| ConnectionAction::Close)
    }));
    let mut client = TestClient::open(gapless.address);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";
    client.send(head).expect("sent");
    client.send(vec![b'x'; 1000]).expect("sent");
    let answer = client.read_response("POST").expect("an answer before the body is complete");
    assert_eq!((answer.status, answer.text()), (403, "no".to_owned()));
}

#[test]
fn client_disconnect_resets_the_endpoint_connection() {
    let (endpoint, gapless) = start_pair();
    let (end_sender, end) = mpsc::channel();
    endpoint.set_mode(ResponseMode::script(move |_, wire| {
        let _ = end_sender.send(wire.read_to_end().is_err());
        Ok(ConnectionAction::Close)
    }));
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    eventually("the request arrives", DEFAULT_TIMEOUT, || endpoint.requests().len() == 1);
    drop(client);
    let is_reset = end.recv_timeout(Duration::from_secs(10)).expect("the endpoint is told");
    assert!(is_reset, "the abandoned request is reset");
}
