//! Bodies that take their time on the way in, and answers that do not wait for them.

use std::time::Duration;

use super::{in_front_of, pair, pair_with};
use crate::support::HeldPort;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode, Next, answer};
use crate::support::instance::Gapless;

/// Rest between two pieces of a slow upload.
const PAUSE: Duration = Duration::from_millis(200);

/// A body that fits into the buffers of a connection, and not into a server's.
const UNWANTED_BYTES: usize = 150 * 1024;

#[test]
fn a_slow_upload_has_all_the_time_and_so_has_its_answer() {
    let config = Config::new().route("timeouts = { response = \"2s\" }");
    let (endpoint, gapless) = pair_with(config);
    endpoint.set(Mode::Slow(Duration::from_millis(1_200)));
    let mut client = Client::open(gapless.address);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1500\r\n\r\n").expect("sent");
    for _ in 0..15 {
        std::thread::sleep(PAUSE);
        client.send([b'x'; 100]).expect("sent");
    }
    let answer = client.answer("POST").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "one".to_owned()), "{:?}", answer.verdict());
    assert_eq!(endpoint.seen()[0].body.len(), 1500);
}

#[test]
fn an_endpoint_that_reads_slowly_may() {
    const STEP_BYTES: usize = 1024 * 1024;
    const SLOW_STEPS: usize = 15;
    // What remains after the slow steps does not fit into the buffers.
    const STEPS: usize = 40;
    let config = Config::new().route("timeouts = { response = \"2s\" }");
    let (endpoint, gapless) = pair_with(config);
    endpoint.set(Mode::script(|_, wire| {
        for step in 0..STEPS {
            wire.exactly(STEP_BYTES)?;
            if step < SLOW_STEPS {
                std::thread::sleep(PAUSE);
            }
        }
        wire.send(answer(200, "one", "all of it", "PUT")).map(|()| Next::Keep)
    }));
    let body = vec![b'x'; STEPS * STEP_BYTES];
    let answer = Client::open(gapless.address).exchange("PUT", "/", &[], &body);
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "all of it".to_owned()));
}

#[test]
fn a_client_that_stops_in_the_middle_is_told_so() {
    let config = Config::new().route("timeouts = { response = \"1s\", idle = \"2s\" }");
    let (endpoint, gapless) = pair_with(config);
    let mut client = Client::open(gapless.address);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n";
    client.send([head.as_bytes(), &[b'x'; 100_000]].concat()).expect("sent");
    let answer = client.answer("POST").expect("an answer");
    assert_eq!(answer.verdict(), (408, Some("body_timeout")));
    assert_eq!(gapless.state(endpoint.address()), "up", "the client is to blame");
}

/// Sends half of a large body, waits for the answer to arrive, and reads it only when all is sent:
/// what the proxy leaves unread, the kernel answers with a reset. The answer's verdict.
#[track_caller]
fn upload(gapless: &Gapless, host: &str) -> (u16, String) {
    let mut client = Client::open(gapless.address);
    let length = UNWANTED_BYTES;
    let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n");
    let body = vec![b'x'; length];
    let (first, second) = body.split_at(length / 2);
    client.send(head).and_then(|()| client.send(first)).expect("sent");
    client.wire.stream().peek(&mut [0]).expect("an answer arrives");
    for piece in second.chunks(16 * 1024) {
        client.send(piece).expect("nobody hangs up");
    }
    let answer = client.answer("POST").expect("the answer is not lost");
    if answer.field("connection") == Some("close") {
        assert_eq!(client.wire.fill().expect("no reset"), 0);
    } else {
        assert!(client.get("/").status > 0, "the connection is still in step");
    }
    (answer.status, answer.field("x-gapless-reason").unwrap_or_default().to_owned())
}

#[test]
fn refusals_reach_a_client_that_is_still_sending() {
    let config = Config::new().route("host = \"api.example\"\nlimits = { body = \"1KiB\" }");
    let (endpoint, gapless) = pair_with(config);
    assert_eq!(upload(&gapless, "other.example"), (404, "no_route".to_owned()));
    assert_eq!(upload(&gapless, "not/a/host"), (400, "bad_request".to_owned()));
    assert_eq!(upload(&gapless, "api.example"), (413, "body_too_large".to_owned()));
    assert_eq!(endpoint.seen().len(), 0);
}

#[test]
fn a_dead_endpoint_is_told_to_a_client_that_is_still_sending() {
    let (endpoint, gapless) = pair();
    endpoint.die();
    assert_eq!(upload(&gapless, "a"), (502, "connect_failed".to_owned()));
}

#[test]
fn that_nobody_serves_is_told_to_a_client_that_is_still_sending() {
    let held = HeldPort::take();
    let _silent = held.listen();
    let slow = "detect = { interval = \"30s\", timeout = \"30s\", down_interval = \"30s\" }";
    let gapless = Gapless::start(&Config::new().pool(slow).zone("here/a", &[held.address()]));
    assert_eq!(upload(&gapless, "a"), (503, "no_endpoint".to_owned()));
}

#[test]
fn an_endpoint_that_drops_the_upload_is_told_to_a_client_that_is_still_sending() {
    let endpoint = Endpoint::start("one");
    let gapless = Gapless::start_ready(&in_front_of(Config::new(), &endpoint));
    endpoint.set(Mode::script(|_, _| Ok(Next::Reset)));
    assert_eq!(upload(&gapless, "a"), (502, "reset".to_owned()));
}
