//! What follows a body, both ways.

use std::io;

use super::QUIET;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode, Next};
use crate::support::instance::Gapless;
use crate::support::wire::{Head, Wire};

/// What a peer sent: its body, and the lines that followed it.
type Said = (Vec<u8>, Vec<String>);

/// A chunked body with its trailers, strictly.
fn chunked(wire: &mut Wire) -> io::Result<Said> {
    let mut body = Vec::new();
    loop {
        let line = wire.line()?;
        let size = usize::from_str_radix(&line, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if size == 0 {
            break;
        }
        body.extend(wire.exactly(size)?);
        assert_eq!(wire.exactly(2)?, b"\r\n");
    }
    let mut trailers = Vec::new();
    loop {
        match wire.line()? {
            line if line.is_empty() => return Ok((body, trailers)),
            line => trailers.push(line),
        }
    }
}

fn start(endpoint: &Endpoint) -> Gapless {
    Gapless::start_ready(&Config::new().pool(QUIET).zone("a/b", &[endpoint.address()]))
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, x-two\r\n\r\n\
                      5\r\nhello\r\n0\r\nx-sum: 5d41\r\ncontent-length: 7\r\nx-two: 2\r\n\r\n";

#[test]
fn of_an_answer_reach_a_client_that_takes_them() {
    let endpoint = Endpoint::start("web");
    endpoint.set(Mode::Raw(ANSWER.into()));
    let gapless = start(&endpoint);
    let mut client = Client::open(gapless.address);
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n").expect("sent");
        let head = client.wire.head().expect("a head").expect("an answer");
        assert_eq!(head.field("trailer"), Some("x-sum, x-two"));
        assert_eq!(head.field("x-sum"), None, "never merged into the head");
        let (body, trailers) = chunked(&mut client.wire).expect("a body");
        assert_eq!(body, b"hello");
        assert_eq!(trailers, ["x-sum: 5d41", "x-two: 2"]);
    }
    let seen = endpoint.seen();
    assert_eq!(
        (seen[0].head.field("te"), seen[0].head.field("connection")),
        (Some("trailers"), Some("te"))
    );
    assert_eq!(endpoint.connections(), 1, "the connection goes on after them");
}

#[test]
fn of_an_answer_are_nothing_to_a_client_that_does_not() {
    let endpoint = Endpoint::start("web");
    endpoint.set(Mode::Raw(ANSWER.into()));
    let gapless = start(&endpoint);
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let head = client.wire.head().expect("a head").expect("an answer");
    assert_eq!((head.field("trailer"), head.field("x-sum")), (None, None));
    assert_eq!(chunked(&mut client.wire).expect("a body"), (b"hello".to_vec(), Vec::new()));
    assert_eq!(endpoint.seen()[0].head.field("te"), None);
}

#[test]
fn of_a_request_reach_the_endpoint_at_each_try() {
    let (near, far) = (Endpoint::start("near"), Endpoint::start("far"));
    let (said, heard) = std::sync::mpsc::channel::<(Head, Said)>();
    let read = move |head: &Head, wire: &mut Wire| {
        let body = chunked(wire)?;
        let _ = said.send((head.clone(), body));
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Next::Keep)
    };
    let again = read.clone();
    near.set(Mode::script(move |head, wire| again(head, wire).map(|_| Next::Keep)));
    far.set(Mode::script(read));
    let config = Config::new()
        .pool(QUIET)
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    let gapless = Gapless::start_ready(&config);
    near.refuse();
    let mut client = Client::open(gapless.address);
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
             3\r\nabc\r\n0\r\nx-sum: 9001\r\nhost: evil\r\n\r\n",
        )
        .expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").status, 200);
    let (head, (body, trailers)) = heard.recv().expect("a request");
    assert_eq!((head.field("trailer"), head.field("host")), (Some("x-sum"), Some("a")));
    assert_eq!((body.as_slice(), trailers), (&b"abc"[..], vec!["x-sum: 9001".to_owned()]));
}

#[test]
fn too_many_of_an_answer_break_it() {
    let endpoint = Endpoint::start("web");
    let many = "x-a: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(1_000);
    let answer =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{many}\r\n");
    endpoint.set(Mode::Raw(answer.into_bytes()));
    let gapless = start(&endpoint);
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n").expect("sent");
    // What was cut so early may not even have begun.
    let is_whole = matches!(client.wire.head(), Ok(Some(_))) && chunked(&mut client.wire).is_ok();
    assert!(!is_whole);
}
