//! What an endpoint says before its answer (RFC 9110 15.2) reaches the client before its answer.

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Mode, Next};

use super::{pair, pair_with};

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nx-inner: 1\r\n\
                    connection: x-hop\r\nx-hop: 1\r\ncontent-length: 3\r\n\r\n";

const DONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";

#[test]
fn a_hint_is_there_before_the_answer_is() {
    let config = Config::new().route("response_headers = { remove = [\"x-inner\"] }");
    let (endpoint, gapless) = pair_with(config);
    let (go_on, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    endpoint.set(Mode::script(move |_, wire| {
        wire.send(HINT)?;
        let _ = gate.lock().expect("one at a time").recv();
        wire.send(DONE)?;
        Ok(Next::Keep)
    }));
    let mut client = Client::open(gapless.address);
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").expect("sent");
        let hint = client.wire.head().expect("read").expect("a head");
        assert_eq!(hint.start, "HTTP/1.1 103 Early Hints");
        let names: Vec<&str> = hint.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["link", "via"]);
        assert_eq!(hint.field("link"), Some("</a.css>; rel=preload"));
        go_on.send(()).expect("the endpoint waits");
        let answer = client.answer("GET").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    }
    assert_eq!(endpoint.connections(), 1);
}

/// The kinds of the messages on a connection, in order, up to as many answers.
fn kinds(client: &mut Client, answers: usize) -> Vec<String> {
    let mut kinds = Vec::new();
    let mut left = answers;
    while left > 0 {
        let head = client.wire.head().expect("read").expect("a head");
        kinds.push(head.word(1).to_owned());
        if !head.word(1).starts_with('1') {
            let body = client.wire.body(&head).expect("a body");
            kinds.push(body.len().to_string());
            left -= 1;
        }
    }
    kinds
}

#[test]
fn hints_that_come_with_the_answer_come_before_it() {
    let (endpoint, gapless) = pair();
    endpoint.set(Mode::Raw(format!("{HINT}{HINT}{DONE}").into_bytes()));
    let mut client = Client::open(gapless.address);
    let one = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";
    client.send(one.repeat(3)).expect("sent");
    let each = ["103", "103", "200", "4"];
    assert_eq!(kinds(&mut client, 3), [each, each, each].concat());
}

/// The client reads so slowly that it is asked about the next request while some of the answer before
/// has not left yet.
#[test]
fn a_hint_never_lands_in_another_answer() {
    let (large, step) = (8 << 20, 64 << 10);
    let (endpoint, gapless) = pair();
    let (has_hinted, hinted) = mpsc::channel::<()>();
    endpoint.set(Mode::script(move |head, wire| {
        if head.word(1) == "/large" {
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {large}\r\n\r\n"))?;
            wire.send(vec![b'x'; large])?;
        } else {
            wire.send(HINT)?;
            let _ = has_hinted.send(());
            wire.send(DONE)?;
        }
        Ok(Next::Keep)
    }));
    let mut client = Client::open(gapless.address);
    let ask = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: a.example\r\n\r\n");
    client.send(format!("{}{}", ask("/large"), ask("/hint"))).expect("sent");
    let head = client.wire.head().expect("read").expect("a head");
    assert_eq!(head.word(1), "200");
    let mut left = large;
    while left > 0 && hinted.recv_timeout(Duration::from_millis(2)).is_err() {
        let body = client.wire.exactly(step).expect("a part of it");
        assert!(body.iter().all(|&b| b == b'x'));
        left -= step;
    }
    assert!(left > 0, "the hint comes while the answer before is read");
    let body = client.wire.exactly(left).expect("the rest of it");
    assert!(body.iter().all(|&b| b == b'x'), "nothing else is in it");
    let rest = kinds(&mut client, 1);
    assert!(rest == ["103", "200", "4"] || rest == ["200", "4"], "{rest:?}");
}

#[test]
fn who_cannot_take_a_hint_gets_none() {
    let (endpoint, gapless) = pair();
    endpoint.set(Mode::Raw(format!("{HINT}{DONE}").into_bytes()));
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.0\r\nhost: a.example\r\n\r\n").expect("sent");
    let head = client.wire.head().expect("read").expect("a head");
    assert_eq!(head.word(1), "200");
    // What a client that waits for `100 Continue` is told, it is told once, and by us.
    let also = "HTTP/1.1 100 Continue\r\n\r\n";
    endpoint.set(Mode::Raw(format!("{also}{HINT}{DONE}").into_bytes()));
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").expect("sent");
    assert_eq!(kinds(&mut client, 1), ["103", "200", "4"]);
}
