//! Slow uploads, and responses that arrive before their end.

use std::time::Duration;

use super::{config_for, start_pair, start_pair_with};
use crate::support::ReservedPort;
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint, response_text};
use crate::support::instance::Gapless;

/// The pause between two pieces of a slow upload.
const PAUSE: Duration = Duration::from_millis(200);

/// A body that fits into the buffers of a connection, but not into a server's.
const UNREAD_BODY_BYTES: usize = 150 * 1024;

#[test]
fn slow_upload_does_not_consume_the_response_timeout() {
    let config = ConfigBuilder::new().route("timeouts = { response = \"2s\" }");
    let (endpoint, gapless) = start_pair_with(config);
    endpoint.set_mode(ResponseMode::Slow(Duration::from_millis(1_200)));
    let mut client = TestClient::open(gapless.address);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1500\r\n\r\n").expect("sent");
    for _ in 0..15 {
        std::thread::sleep(PAUSE);
        client.send([b'x'; 100]).expect("sent");
    }
    let answer = client.read_response("POST").expect("an answer");
    assert_eq!(
        (answer.status, answer.text()),
        (200, "one".to_owned()),
        "{:?}",
        answer.status_and_reason()
    );
    assert_eq!(endpoint.requests()[0].body.len(), 1500);
}

#[test]
fn slow_reading_endpoint_gets_the_whole_upload() {
    const STEP_BYTES: usize = 1024 * 1024;
    const SLOW_STEPS: usize = 15;
    // The rest after the slow steps does not fit into the buffers.
    const STEPS: usize = 40;
    let config = ConfigBuilder::new().route("timeouts = { response = \"2s\" }");
    let (endpoint, gapless) = start_pair_with(config);
    endpoint.set_mode(ResponseMode::script(|_, wire| {
        for step in 0..STEPS {
            wire.read_exact(STEP_BYTES)?;
            if step < SLOW_STEPS {
                std::thread::sleep(PAUSE);
            }
        }
        wire.send(response_text(200, "one", "all of it", "PUT")).map(|()| ConnectionAction::Keep)
    }));
    let body = vec![b'x'; STEPS * STEP_BYTES];
    let answer = TestClient::open(gapless.address).exchange("PUT", "/", &[], &body);
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "all of it".to_owned()));
}

#[test]
fn upload_stalled_by_the_client_gets_408() {
    let config = ConfigBuilder::new().route("timeouts = { response = \"1s\", idle = \"2s\" }");
    let (endpoint, gapless) = start_pair_with(config);
    let mut client = TestClient::open(gapless.address);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n";
    client.send([head.as_bytes(), &[b'x'; 100_000]].concat()).expect("sent");
    let answer = client.read_response("POST").expect("an answer");
    assert_eq!(answer.status_and_reason(), (408, Some("body_timeout")));
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up", "the client is to blame");
}

/// Sends half of a large body, waits for the response, and reads it after sending the rest:
/// bytes that the proxy leaves unread cause a reset. Returns status and reason.
#[track_caller]
fn upload_and_read_late(gapless: &Gapless, host: &str) -> (u16, String) {
    let mut client = TestClient::open(gapless.address);
    let length = UNREAD_BODY_BYTES;
    let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n");
    let body = vec![b'x'; length];
    let (first, second) = body.split_at(length / 2);
    client.send(head).and_then(|()| client.send(first)).expect("sent");
    client.wire.stream().peek(&mut [0]).expect("an answer arrives");
    for piece in second.chunks(16 * 1024) {
        client.send(piece).expect("the connection stays open");
    }
    let answer = client.read_response("POST").expect("the answer is not lost");
    if answer.field("connection") == Some("close") {
        assert_eq!(client.wire.read_some().expect("no reset"), 0);
    } else {
        assert!(client.get("/").status > 0, "the connection is still in step");
    }
    (answer.status, answer.field("x-gapless-reason").unwrap_or_default().to_owned())
}

#[test]
fn refusal_reaches_a_client_still_uploading() {
    let config = ConfigBuilder::new().route("host = \"api.example\"\nlimits = { body = \"1KiB\" }");
    let (endpoint, gapless) = start_pair_with(config);
    assert_eq!(upload_and_read_late(&gapless, "other.example"), (404, "no_route".to_owned()));
    assert_eq!(upload_and_read_late(&gapless, "not/a/host"), (400, "bad_request".to_owned()));
    assert_eq!(upload_and_read_late(&gapless, "api.example"), (413, "body_too_large".to_owned()));
    assert_eq!(endpoint.requests().len(), 0);
}

#[test]
fn connect_failure_reaches_a_client_still_uploading() {
    let (endpoint, gapless) = start_pair();
    endpoint.kill();
    assert_eq!(upload_and_read_late(&gapless, "a"), (502, "connect_failed".to_owned()));
}

#[test]
fn no_endpoint_error_reaches_a_client_still_uploading() {
    let held = ReservedPort::reserve();
    let _silent = held.listen();
    let slow_probes = "detect = { interval = \"30s\", timeout = \"30s\", down_interval = \"30s\" }";
    let gapless =
        Gapless::start(&ConfigBuilder::new().pool(slow_probes).zone("here/a", &[held.address()]));
    assert_eq!(upload_and_read_late(&gapless, "a"), (503, "no_endpoint".to_owned()));
}

#[test]
fn endpoint_reset_reaches_a_client_still_uploading() {
    let endpoint = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config_for(ConfigBuilder::new(), &endpoint));
    endpoint.set_mode(ResponseMode::script(|_, _| Ok(ConnectionAction::Reset)));
    assert_eq!(upload_and_read_late(&gapless, "a"), (502, "reset".to_owned()));
}
