//! Clients that send or take a little now and then, to hold on to what others need.

use std::io::ErrorKind;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{closed, pair_with};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode, Next};
use crate::support::instance::Gapless;

/// A pause between two drops.
const DROP_EVERY: Duration = Duration::from_millis(50);

/// Sends `drops` one by one until the other side has something to say, or for too long; how long that
/// took.
#[track_caller]
fn drip(client: &mut Client, drop: &str) -> Duration {
    let began = Instant::now();
    client.wire.stream().set_nonblocking(true).expect("a socket");
    loop {
        let heard = client.wire.stream().peek(&mut [0]);
        let is_silent = heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        if !is_silent || client.send(drop).is_err() {
            client.wire.stream().set_nonblocking(false).expect("a socket");
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it drips on");
        sleep(DROP_EVERY);
    }
}

fn limits(lines: &str) -> Config {
    Config::new().tables(&format!("[limits]\n{lines}"))
}

#[test]
fn a_head_that_drips_is_cut_in_its_time() {
    let (endpoint, gapless) = pair_with(limits("header_timeout = \"1s\""));
    let mut used = Client::open(gapless.address);
    assert_eq!(used.get("/").status, 200);
    for (mut client, what) in [(Client::open(gapless.address), "new"), (used, "used")] {
        client.send("GET /slow HTTP/1.1\r\nhost: a\r\n").expect("sent");
        let took = drip(&mut client, "x-drop: 1\r\n");
        let answer = client.answer("GET").expect("an answer");
        assert_eq!(answer.verdict(), (408, Some("header_timeout")), "{what}");
        assert_eq!(
            (answer.field("connection"), answer.text()),
            (Some("close"), "header_timeout\n".to_owned())
        );
        assert!(client.is_ended());
        assert!((900..2_500).contains(&took.as_millis()), "{what}: {took:?}");
    }
    assert_eq!((closed(&gapless, "header_timeout"), endpoint.seen().len()), (2, 1));
}

/// What was read to see what is spoken counts in the time of the head.
#[test]
fn a_head_that_begins_late_has_what_is_left_of_its_time() {
    let (_endpoint, gapless) = pair_with(limits("header_timeout = \"2s\""));
    let began = Instant::now();
    let mut client = Client::open(gapless.address);
    sleep(Duration::from_millis(1_700));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n").expect("sent");
    assert_eq!(client.answer("GET").expect("an answer").status, 408);
    let took = began.elapsed().as_millis();
    assert!((1_900..3_400).contains(&took), "{took} ms");
}

#[test]
fn who_says_nothing_is_left_in_the_time_of_a_head() {
    for lines in ["", "http2 = false\n"] {
        let endpoint = Endpoint::start("one");
        let config = limits("header_timeout = \"1s\"").zone("here/a", &[endpoint.address()]);
        let text = config.text().replacen("[[listen]]\n", &format!("[[listen]]\n{lines}"), 1);
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, text).expect("written");
        let gapless = Gapless::start_with(directory, file);
        let began = Instant::now();
        let mut client = Client::open(gapless.address);
        assert!(client.is_ended(), "without an answer to no question");
        let took = began.elapsed().as_millis();
        assert!((900..2_500).contains(&took), "{lines:?}: {took} ms");
    }
}

#[test]
fn a_used_connection_is_kept_for_longer_than_a_head_may_take() {
    let lines = "header_timeout = \"500ms\"\nidle_timeout = \"3s\"";
    let (endpoint, gapless) = pair_with(limits(lines));
    let mut client = Client::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    sleep(Duration::from_millis(1_500));
    assert_eq!(client.get("/").status, 200, "the same connection");
    let began = Instant::now();
    assert!(client.is_ended());
    let took = began.elapsed().as_millis();
    assert!((2_900..5_500).contains(&took), "{took} ms");
    assert_eq!((closed(&gapless, "idle"), endpoint.seen().len()), (1, 2));
}

#[test]
fn a_request_that_takes_long_is_not_idle() {
    let lines = "header_timeout = \"500ms\"\nidle_timeout = \"500ms\"";
    let (endpoint, gapless) = pair_with(limits(lines));
    endpoint.set(Mode::Slow(Duration::from_secs(3)));
    let mut client = Client::open(gapless.address);
    let one = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    // The second is there in time, but for its end.
    client.send([one, &one[..20]].concat()).expect("sent");
    assert_eq!(client.answer("GET").expect("an answer").status, 200);
    client.send(&one[20..]).expect("sent");
    assert_eq!(client.answer("GET").expect("an answer").status, 200);
}

#[test]
fn a_body_that_drips_is_cut() {
    let config = limits("body_rate = \"1KiB\"").route("timeouts = { idle = \"1s\" }");
    let (endpoint, gapless) = pair_with(config);
    let mut client = Client::open(gapless.address);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").expect("sent");
    let took = drip(&mut client, "b");
    assert_eq!(client.answer("POST").expect("an answer").verdict(), (408, Some("body_timeout")));
    assert!((900..4_000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(gapless.state(endpoint.address()), "up", "the client is to blame");
}

#[test]
fn a_body_that_comes_slowly_but_fast_enough_is_taken() {
    let config = limits("body_rate = \"1KiB\"").route("timeouts = { idle = \"1s\" }");
    let (endpoint, gapless) = pair_with(config);
    let mut client = Client::open(gapless.address);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6000\r\n\r\n").expect("sent");
    for _ in 0..60 {
        client.send([b'b'; 100]).expect("sent");
        sleep(DROP_EVERY);
    }
    assert_eq!(client.answer("POST").expect("an answer").status, 200);
    assert_eq!(endpoint.seen()[0].body.len(), 6_000);
}

/// A stream of calls has nothing to say for a while.
#[test]
fn a_call_may_drip() {
    let config = limits("body_rate = \"1KiB\"").route("timeouts = { idle = \"1s\" }");
    let (endpoint, gapless) = pair_with(config);
    endpoint.set(Mode::script(|_, wire| {
        wire.exactly(40)?;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").map(|()| Next::Close)
    }));
    let mut client = Client::open(gapless.address);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 40\r\n\r\n";
    client.send(head).expect("sent");
    for _ in 0..40 {
        client.send("b").expect("sent");
        sleep(DROP_EVERY);
    }
    assert_eq!(client.answer("POST").expect("an answer").status, 200);
}

#[test]
fn who_takes_nothing_of_an_answer_is_cut() {
    let (endpoint, gapless) = pair_with(limits("write_timeout = \"1s\""));
    endpoint.set(Mode::Body("x".repeat(16 * 1024 * 1024)));
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    // Nothing is read until it is over.
    let began = Instant::now();
    let is_let_go = || gapless.endpoint(endpoint.address())["in_flight"] == 0;
    sleep(Duration::from_millis(500));
    assert!(!is_let_go(), "it is under way");
    while !is_let_go() {
        assert!(began.elapsed() < Duration::from_secs(10), "it is still under way");
        sleep(DROP_EVERY);
    }
    assert!(client.answer("GET").is_err(), "a part of it");
}

#[test]
fn others_are_served_meanwhile() {
    let (_endpoint, gapless) = pair_with(limits("header_timeout = \"2s\""));
    let mut slow: Vec<Client> = (0..100).map(|_| Client::open(gapless.address)).collect();
    for _ in 0..10 {
        for client in &mut slow {
            let _ = client.send("G");
        }
        let began = Instant::now();
        assert_eq!(gapless.get("/").status, 200);
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
