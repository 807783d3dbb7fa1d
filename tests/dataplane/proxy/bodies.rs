//! Bodies on their way through, in both directions, piece by piece.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use super::pair;
use crate::support::client::Client;
use crate::support::endpoint::{Mode, Next};
use crate::support::{SOON, eventually};

/// Larger than every buffer on the way.
const LARGE_BYTES: usize = 24 * 1024 * 1024;

/// Bytes that tell their place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn bodies_of_known_length_arrive_whole() {
    let (endpoint, gapless) = pair();
    let mut client = Client::open(gapless.address);
    for length in [1, 100, 65_536, 1_000_000] {
        let body = pattern(length);
        assert_eq!(client.exchange("POST", "/", &[], &body).expect("answered").status, 200);
        let seen = endpoint.seen().pop().expect("a request");
        assert_eq!(seen.head.field("content-length"), Some(&*length.to_string()));
        assert!(seen.body == body, "{length} bytes");
    }
    let empty = client.exchange("POST", "/", &[("content-length", "0")], b"").expect("answered");
    assert_eq!(empty.status, 200);
    assert_eq!(endpoint.seen().pop().expect("a request").head.field("content-length"), Some("0"));
}

#[test]
fn chunks_are_taken_apart_and_put_together_again() {
    let (endpoint, gapless) = pair();
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n\
                  5;ext=1\r\nhello\r\n0001\r\n!\r\n0\r\nX-Trailer: t\r\n\r\n";
    endpoint.set(Mode::Raw(answer.into()));
    let mut client = Client::open(gapless.address);
    let request = "POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n\
                   4;a=b\r\nwiki\r\n5\r\npedia\r\n0\r\nHost: evil\r\n\r\n";
    client.send(request).expect("sent");
    let answer = client.answer("POST").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "hello!".to_owned()));
    assert_eq!(answer.field("x-trailer"), None);
    let seen = endpoint.seen().pop().expect("a request");
    assert_eq!(seen.body, b"wikipedia");
    assert_eq!(seen.head.all("transfer-encoding").collect::<Vec<_>>(), ["chunked"]);
    assert_eq!(seen.head.all("host").collect::<Vec<_>>(), ["a"]);
    endpoint.set(Mode::Ok);
    assert_eq!(client.get("/").text(), "one", "the connection is still in step");
}

#[test]
fn a_body_until_the_end_of_the_connection_is_passed_on() {
    let (endpoint, gapless) = pair();
    endpoint.set(Mode::RawClose(b"HTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec()));
    assert_eq!(gapless.get("/").text(), "until the end");
    endpoint.set(Mode::RawClose(b"HTTP/1.0 200 OK\r\n\r\nold".to_vec()));
    assert_eq!(gapless.get("/").text(), "old");
}

#[test]
fn large_answers_arrive_whole() {
    let (endpoint, gapless) = pair();
    let body = pattern(LARGE_BYTES);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE_BYTES}\r\n\r\n");
    endpoint.set(Mode::Raw([head.as_bytes(), &body].concat()));
    let before = gapless.rss_kib();
    assert!(gapless.get("/").body == body);
    let grown = gapless.rss_kib().saturating_sub(before);
    assert!(grown < LARGE_BYTES as u64 / 1024 / 2, "{grown} KiB: it was buffered");
}

#[test]
fn large_requests_arrive_whole() {
    let (endpoint, gapless) = pair();
    let body = pattern(LARGE_BYTES);
    let before = gapless.rss_kib();
    let mut client = Client::open(gapless.address);
    assert_eq!(client.exchange("PUT", "/", &[], &body).expect("answered").status, 200);
    let grown = gapless.rss_kib().saturating_sub(before);
    assert!(grown < LARGE_BYTES as u64 / 1024 / 2, "{grown} KiB: it was buffered");
    assert!(endpoint.seen()[0].body == body);
}

#[test]
fn an_answer_arrives_while_it_is_still_being_made() {
    let (endpoint, gapless) = pair();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    endpoint.set(Mode::script(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for piece in ["3\r\none\r\n", "3\r\ntwo\r\n", "5\r\nthree\r\n0\r\n\r\n"] {
            wire.send(piece)?;
            let _ = wait.lock().expect("a script runs alone").recv_timeout(SOON);
        }
        Ok(Next::Keep)
    }));
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let head = client.wire.head().expect("read").expect("a head");
    assert_eq!(head.word(1), "200");
    for piece in ["one", "two", "three"] {
        let chunk = client.wire.chunk().expect("read").expect("a chunk");
        assert_eq!(String::from_utf8_lossy(&chunk), piece);
        go_on.send(()).expect("the endpoint waits");
    }
    assert_eq!(client.wire.chunk().expect("read"), None);
}

#[test]
fn a_request_arrives_while_it_is_still_being_made() {
    let (endpoint, gapless) = pair();
    let (arrived, arrivals) = mpsc::channel();
    endpoint.set(Mode::script(move |_, wire| {
        while let Some(chunk) = wire.chunk()? {
            let _ = arrived.send(chunk);
        }
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Next::Keep)
    }));
    let mut client = Client::open(gapless.address);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(head).expect("sent");
    for piece in ["one", "two", "six"] {
        client.send(format!("3\r\n{piece}\r\n")).expect("sent");
        assert_eq!(arrivals.recv_timeout(SOON).expect("it arrives"), piece.as_bytes());
    }
    client.send("0\r\n\r\n").expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").status, 200);
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let (endpoint, gapless) = pair();
    let mut client = Client::open(gapless.address);
    let head = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    client.send(head).expect("sent");
    let interim = client.wire.head().expect("read").expect("a head");
    assert_eq!(interim.word(1), "100");
    client.send("hello").expect("sent");
    let answer = client.wire.head().expect("read").expect("a head");
    assert_eq!(answer.word(1), "200", "and it is told once");
    let seen = endpoint.seen().pop().expect("a request");
    assert_eq!((seen.body.as_slice(), seen.head.field("expect")), (&b"hello"[..], None));
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let (endpoint, gapless) = pair();
    endpoint.set(Mode::script(|_, wire| {
        wire.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")?;
        // Reads on for a while, as a server should that wants its answer to be seen.
        wire.rest().map(|_| Next::Close)
    }));
    let mut client = Client::open(gapless.address);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";
    client.send(head).expect("sent");
    client.send(vec![b'x'; 1000]).expect("sent");
    let answer = client.answer("POST").expect("an answer before the body is complete");
    assert_eq!((answer.status, answer.text()), (403, "no".to_owned()));
}

#[test]
fn a_client_that_goes_away_takes_its_request_along() {
    let (endpoint, gapless) = pair();
    let (ended, end) = mpsc::channel();
    endpoint.set(Mode::script(move |_, wire| {
        let _ = ended.send(wire.rest().is_err());
        Ok(Next::Close)
    }));
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    eventually("the request arrives", SOON, || endpoint.seen().len() == 1);
    drop(client);
    let was_reset = end.recv_timeout(Duration::from_secs(10)).expect("the endpoint is told");
    assert!(was_reset, "a reset says that nobody waits any more");
}
