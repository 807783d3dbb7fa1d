//! Interim responses (RFC 9110 15.2) reach the client before the final response.

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode};

use super::{start_pair, start_pair_with};

const EARLY_HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nx-inner: 1\r\n\
                    connection: x-hop\r\nx-hop: 1\r\ncontent-length: 3\r\n\r\n";

const FINAL_RESPONSE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";

#[test]
fn early_hint_arrives_before_the_response() {
    let config = ConfigBuilder::new().route("response_headers = { remove = [\"x-inner\"] }");
    let (endpoint, gapless) = start_pair_with(config);
    let (proceed, permits) = mpsc::channel::<()>();
    let permits = Mutex::new(permits);
    endpoint.set_mode(ResponseMode::script(move |_, wire| {
        wire.send(EARLY_HINTS)?;
        let _ = permits.lock().expect("one at a time").recv();
        wire.send(FINAL_RESPONSE)?;
        Ok(ConnectionAction::Keep)
    }));
    let mut client = TestClient::open(gapless.address);
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").expect("sent");
        let hint = client.wire.read_head().expect("read").expect("a head");
        assert_eq!(hint.start_line, "HTTP/1.1 103 Early Hints");
        let names: Vec<&str> = hint.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["link", "via"]);
        assert_eq!(hint.field("link"), Some("</a.css>; rel=preload"));
        proceed.send(()).expect("the endpoint waits");
        let answer = client.read_response("GET").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    }
    assert_eq!(endpoint.used_connection_count(), 1);
}

/// The kinds of the messages on a connection in order, up to this many final responses.
fn message_summaries(client: &mut TestClient, answers: usize) -> Vec<String> {
    let mut summaries = Vec::new();
    let mut remaining = answers;
    while remaining > 0 {
        let head = client.wire.read_head().expect("read").expect("a head");
        summaries.push(head.start_line_word(1).to_owned());
        if !head.start_line_word(1).starts_with('1') {
            let body = client.wire.read_body(&head).expect("a body");
            summaries.push(body.len().to_string());
            remaining -= 1;
        }
    }
    summaries
}

#[test]
fn hints_sent_with_the_response_precede_it() {
    let (endpoint, gapless) = start_pair();
    endpoint.set_mode(ResponseMode::Raw(
        format!("{EARLY_HINTS}{EARLY_HINTS}{FINAL_RESPONSE}").into_bytes(),
    ));
    let mut client = TestClient::open(gapless.address);
    let one = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";
    client.send(one.repeat(3)).expect("sent");
    let expected = ["103", "103", "200", "4"];
    assert_eq!(message_summaries(&mut client, 3), [expected, expected, expected].concat());
}

/// The client reads so slowly that the next request's interim response is ready while a part of the
/// previous response has not left.
#[test]
fn hint_never_interleaves_with_another_response() {
    let (large_bytes, step_bytes) = (8 << 20, 64 << 10);
    let (endpoint, gapless) = start_pair();
    let (hint_sender, hint_receiver) = mpsc::channel::<()>();
    endpoint.set_mode(ResponseMode::script(move |head, wire| {
        if head.start_line_word(1) == "/large" {
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {large_bytes}\r\n\r\n"))?;
            wire.send(vec![b'x'; large_bytes])?;
        } else {
            wire.send(EARLY_HINTS)?;
            let _ = hint_sender.send(());
            wire.send(FINAL_RESPONSE)?;
        }
        Ok(ConnectionAction::Keep)
    }));
    let mut client = TestClient::open(gapless.address);
    let request = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: a.example\r\n\r\n");
    client.send(format!("{}{}", request("/large"), request("/hint"))).expect("sent");
    let head = client.wire.read_head().expect("read").expect("a head");
    assert_eq!(head.start_line_word(1), "200");
    let mut remaining_bytes = large_bytes;
    while remaining_bytes > 0 && hint_receiver.recv_timeout(Duration::from_millis(2)).is_err() {
        let body = client.wire.read_exact(step_bytes).expect("a part of it");
        assert!(body.iter().all(|&b| b == b'x'));
        remaining_bytes -= step_bytes;
    }
    assert!(remaining_bytes > 0, "the hint comes while the answer before is read");
    let body = client.wire.read_exact(remaining_bytes).expect("the rest of it");
    assert!(body.iter().all(|&b| b == b'x'), "nothing else is in it");
    let rest = message_summaries(&mut client, 1);
    assert!(rest == ["103", "200", "4"] || rest == ["200", "4"], "{rest:?}");
}

#[test]
fn http10_client_gets_no_hint() {
    let (endpoint, gapless) = start_pair();
    endpoint.set_mode(ResponseMode::Raw(format!("{EARLY_HINTS}{FINAL_RESPONSE}").into_bytes()));
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.0\r\nhost: a.example\r\n\r\n").expect("sent");
    let head = client.wire.read_head().expect("read").expect("a head");
    assert_eq!(head.start_line_word(1), "200");
    // A client that waits for `100 Continue` receives one, from the proxy.
    let continue_head = "HTTP/1.1 100 Continue\r\n\r\n";
    endpoint.set_mode(ResponseMode::Raw(
        format!("{continue_head}{EARLY_HINTS}{FINAL_RESPONSE}").into_bytes(),
    ));
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").expect("sent");
    assert_eq!(message_summaries(&mut client, 1), ["103", "200", "4"]);
}
