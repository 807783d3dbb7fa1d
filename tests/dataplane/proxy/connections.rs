//! Connections: kept, reused, given up.

use std::io::ErrorKind;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::{in_front_of, pair, pair_with};
use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode, Next};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

#[test]
fn connections_to_endpoints_are_used_again() {
    let (endpoint, gapless) = pair();
    let mut client = Client::open(gapless.address);
    for _ in 0..20 {
        assert_eq!(client.get("/").status, 200);
    }
    for _ in 0..20 {
        assert_eq!(gapless.get("/").status, 200);
    }
    assert_eq!((endpoint.seen().len(), endpoint.connections()), (40, 1));
}

#[test]
fn an_endpoint_that_wants_to_close_may() {
    let (endpoint, gapless) = pair();
    let closing = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
    endpoint.set(Mode::RawClose(closing.into()));
    let mut client = Client::open(gapless.address);
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text()), (200, "hi".to_owned()));
        assert_eq!(answer.field("connection"), None, "that was not meant for the client");
    }
    assert_eq!(endpoint.connections(), 3);
}

#[test]
fn a_connection_that_was_closed_behind_our_back_is_not_used() {
    let (endpoint, gapless) = pair();
    endpoint.set(Mode::CloseAfter);
    let mut client = Client::open(gapless.address);
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
        // The close needs a moment to arrive; a request that overtakes it has no second endpoint.
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(endpoint.seen().len(), 10, "nothing was asked twice");
}

#[test]
fn bytes_after_a_complete_answer_belong_to_nobody() {
    let (endpoint, gapless) = pair();
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi\
                  HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    endpoint.set(Mode::Raw(poison.into()));
    let mut client = Client::open(gapless.address);
    assert_eq!(client.get("/").text(), "hi");
    endpoint.set(Mode::Ok);
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "one");
    }
    assert_eq!(endpoint.connections(), 2, "the poisoned connection was given up");
}

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let (_endpoint, gapless) = pair();
    let mut client = Client::open(gapless.address);
    let one = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n";
    let two = "POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    client.send([one, two, one].concat()).expect("sent");
    for method in ["GET", "POST", "GET"] {
        assert_eq!(client.answer(method).expect("an answer").status, 200);
    }
}

#[test]
fn a_head_that_drips_is_cut() {
    let config = Config::new().tables("[limits]\nheader_timeout = \"1s\"");
    let (endpoint, gapless) = pair_with(config);
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").expect("sent");
    assert!(
        client.wire.rest().is_ok_and(|rest| rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"))
    );
    assert_eq!(endpoint.seen().len(), 0);
    assert_eq!(gapless.get("/").status, 200);
}

#[test]
fn more_connections_than_allowed_are_turned_away() {
    let config = Config::new().tables("[limits]\nconnections = 3");
    let endpoint = Endpoint::start("one");
    let gapless = Gapless::start_ready(&in_front_of(config, &endpoint));
    let mut kept: Vec<Client> = (0..3).map(|_| Client::open(gapless.address)).collect();
    for client in &mut kept {
        assert_eq!(client.get("/").status, 200);
        // Half a request is no reason to be sent away.
        client.send("GET / HTTP/1.1\r\n").expect("sent");
    }
    let fourth = Client::connect(gapless.address);
    assert!(fourth.map_or(true, |mut client| client.is_ended()), "one too many");
    drop(kept.pop());
    eventually("there is room again", SOON, || {
        let asked = Client::connect(gapless.address);
        asked.and_then(|mut client| client.exchange("GET", "/", &[], b"")).is_ok()
    });
    for client in &mut kept {
        client.send("host: a\r\n\r\n").expect("sent");
        let answer = client.answer("GET").expect("an answer");
        assert_eq!(answer.status, 200, "those within the bound did not notice");
    }
}

#[test]
fn a_client_that_says_close_is_left() {
    let (_endpoint, gapless) = pair();
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("sent");
    assert_eq!(client.answer("GET").expect("an answer").status, 200);
    assert!(client.is_ended());
    assert_eq!(client::get(gapless.address, "/").status, 200);
}

#[test]
fn connections_of_large_answers_come_home() {
    let (endpoint, gapless) = pair();
    let large = "x".repeat(300_000);
    endpoint.set(Mode::Body(large.clone()));
    let mut client = Client::open(gapless.address);
    for method in ["GET", "POST", "GET", "POST", "GET", "POST"] {
        let answer = client.exchange(method, "/", &[], b"").expect("an answer");
        assert!(answer.body == large.as_bytes(), "{method}");
    }
    assert_eq!((endpoint.seen().len(), endpoint.connections(), endpoint.resets()), (6, 1, 0));
}

/// What cannot be asked twice is passed on as soon as its head is there.
#[test]
fn connections_of_late_bodies_come_home() {
    let (endpoint, gapless) = pair();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    endpoint.set(Mode::script(move |head, wire| {
        wire.body(head)?;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")?;
        let _ = wait.lock().expect("a script runs alone").recv_timeout(SOON);
        wire.send("late").map(|()| Next::Keep)
    }));
    let mut client = Client::open(gapless.address);
    for _ in 0..5 {
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx").expect("sent");
        let head = client.wire.head().expect("read").expect("a head");
        assert_eq!(head.word(1), "200");
        go_on.send(()).expect("the endpoint waits");
        assert_eq!(client.wire.body(&head).expect("a body"), b"late");
    }
    assert_eq!((endpoint.seen().len(), endpoint.connections(), endpoint.resets()), (5, 1, 0));
}

/// Larger than all buffers between endpoint and client.
const HUGE_BYTES: usize = 64 * 1024 * 1024;

/// An endpoint that answers with [`HUGE_BYTES`], and says how sending them ended.
fn huge() -> (Endpoint, Gapless, mpsc::Receiver<std::io::Result<()>>) {
    let (endpoint, gapless) = pair_with(Config::new().tables("[limits]\nwrite_timeout = \"1s\""));
    let (ended, end) = mpsc::channel();
    endpoint.set(Mode::script(move |_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {HUGE_BYTES}\r\n\r\n"))?;
        let _ = ended.send(wire.send(vec![b'x'; HUGE_BYTES]));
        Ok(Next::Keep)
    }));
    (endpoint, gapless, end)
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let (_endpoint, gapless, end) = huge();
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let sent = end.recv_timeout(SOON).expect("the endpoint is let go");
    assert!(sent.is_err(), "{HUGE_BYTES} bytes cannot lie in buffers");
    let rest = client.wire.rest();
    let is_cut = rest.as_ref().map_or_else(
        |error| error.kind() == ErrorKind::ConnectionReset,
        |rest| rest.len() < HUGE_BYTES,
    );
    assert!(is_cut, "{:?}", rest.map(|rest| rest.len()));
}

#[test]
fn a_client_that_reads_slowly_gets_everything() {
    let (endpoint, gapless, end) = huge();
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let head = client.wire.head().expect("read").expect("a head");
    let (started, mut read) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(4) {
        read += client.wire.exactly(32 * 1024).expect("more").len();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(head.field("content-length"), Some(&*HUGE_BYTES.to_string()));
    client.wire.exactly(HUGE_BYTES - read).expect("the rest");
    end.recv_timeout(SOON).expect("it ends").expect("all was sent");
    assert_eq!((client.get("/").status, endpoint.connections()), (200, 1));
}
