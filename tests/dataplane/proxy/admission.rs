//! Ambiguous or malformed requests never reach an endpoint.

use super::start_pair;
use crate::support::client::{self, TestClient};

/// Sends each, asserts its status, and asserts that nothing reaches the endpoint.
#[track_caller]
fn assert_rejected(cases: &[(&str, u16)]) {
    let (endpoint, gapless) = start_pair();
    for (wire, status) in cases {
        let wire = wire.replace('\n', "\r\n");
        let answer = client::send_raw(gapless.address, &wire);
        assert_eq!(answer.status, *status, "{wire:?}");
    }
    let seen: Vec<_> = endpoint.requests().into_iter().map(|seen| seen.head.start_line).collect();
    assert!(seen.is_empty(), "{seen:?}");
    assert_eq!(gapless.get("/").status, 200);
}

#[test]
fn invalid_host_is_rejected() {
    assert_rejected(&[
        ("GET / HTTP/1.1\n\n", 400),
        ("GET / HTTP/1.1\nHost:\n\n", 400),
        ("GET / HTTP/1.1\nHost: user@a.example\n\n", 400),
        ("GET / HTTP/1.1\nHost: a.example/path\n\n", 400),
        ("GET / HTTP/1.1\nHost: a.example, b.example\n\n", 400),
        ("GET / HTTP/1.1\nHost: a.example\nHost: a.example\n\n", 400),
        ("GET / HTTP/1.1\nHost: a.example:port\n\n", 400),
        ("GET / HTTP/1.1\nHost: a b\n\n", 400),
    ]);
}

#[test]
fn invalid_transfer_encoding_is_rejected() {
    let post = |fields: &str| format!("POST / HTTP/1.1\nHost: a\n{fields}\n0\n\n");
    for (fields, statuses) in [
        ("Transfer-Encoding: chunked, chunked\n", &[400][..]),
        ("Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n", &[400]),
        ("Transfer-Encoding: ,chunked\n", &[400]),
        ("Transfer-Encoding: gzip, chunked\n", &[400, 501]),
        ("Transfer-Encoding: chunked, identity\n", &[400, 501]),
        ("Transfer-Encoding: xchunked\n", &[400, 501]),
        ("Transfer-Encoding: gzip\n", &[400, 501]),
        ("Transfer-Encoding : chunked\n", &[400]),
        ("Transfer-Encoding:\n chunked\n", &[400]),
        ("Transfer-Encoding: \u{b}chunked\n", &[400]),
    ] {
        let (endpoint, gapless) = start_pair();
        let wire = post(fields).replace('\n', "\r\n");
        let answer = client::send_raw(gapless.address, &wire);
        assert!(statuses.contains(&answer.status), "{fields:?} got {}", answer.status);
        assert_eq!(endpoint.requests().len(), 0, "{fields:?}");
    }
}

#[test]
fn invalid_content_length_is_rejected() {
    assert_rejected(&[
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 010\n\n0123456789", 400),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: +1\n\nx", 400),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: -1\n\nx", 400),
        ("POST / HTTP/1.1\nHost: a\nContent-Length:\n\n", 400),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 1, 1\n\nx", 400),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 1\nContent-Length: 2\n\nxx", 400),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 18446744073709551616\n\n", 400),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 0x1\n\nx", 400),
    ]);
}

/// RFC 9110 8.6 allows a recipient to merge repeated lengths.
#[test]
fn repeated_content_length_is_rejected_or_merged() {
    let (endpoint, gapless) = start_pair();
    let wire = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx";
    let answer = client::send_raw(gapless.address, wire);
    assert!(answer.status == 400 || answer.status == 200, "{}", answer.status);
    for seen in endpoint.requests() {
        assert_eq!(seen.head.field_values("content-length").collect::<Vec<_>>(), ["1"]);
    }
}

#[test]
fn malformed_request_line_or_field_is_rejected() {
    assert_rejected(&[
        ("GET / HTTP/1.1\nHost: a\nBad Name: x\n\n", 400),
        ("GET / HTTP/1.1\nHost: a\n: empty\n\n", 400),
        ("GET / HTTP/1.1\nHost: a\nX: a\0b\n\n", 400),
        ("GET / HTTP/1.1\nHost: a\nX : a\n\n", 400),
        ("GET / HTTP/1.1\nHost: a\nX: a\n folded\n\n", 400),
        ("GET /\u{e9} HTTP/1.1\nHost: a\n\n", 400),
        ("G@T / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/9.1\nHost: a\n\n", 400),
    ]);
}

#[test]
fn invalid_method_or_target_form_is_rejected() {
    assert_rejected(&[
        ("GET * HTTP/1.1\nHost: a\n\n", 400),
        ("CONNECT a:443 HTTP/1.1\nHost: a:443\n\n", 405),
        ("OPTIONS * HTTP/1.1\nHost: a\n\n", 200),
        ("GET http:// HTTP/1.1\nHost: a\n\n", 400),
        ("GET relative HTTP/1.1\nHost: a\n\n", 400),
    ]);
}

#[test]
fn absolute_target_authority_replaces_host() {
    let (endpoint, gapless) = start_pair();
    let wire = "GET http://real.example/p?q=1 HTTP/1.1\r\nHost: claimed.example\r\n\r\n";
    assert_eq!(client::send_raw(gapless.address, wire).status, 200);
    let head = endpoint.requests().pop().expect("a request").head;
    assert_eq!(head.start_line, "GET /p?q=1 HTTP/1.1");
    assert_eq!(head.field_values("host").collect::<Vec<_>>(), ["real.example"]);
    assert_eq!(head.field("x-forwarded-host"), Some("real.example"));
}

#[test]
fn target_without_path_gets_a_slash() {
    let (endpoint, gapless) = start_pair();
    for (target, forwarded) in [("http://a.example?q=/", "/?q=/"), ("http://a.example", "/")] {
        let wire = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert_eq!(client::send_raw(gapless.address, wire).status, 200);
        let head = endpoint.requests().pop().expect("a request").head;
        assert_eq!(head.start_line, format!("GET {forwarded} HTTP/1.1"));
    }
    let wire = "GET ?q=1 HTTP/1.1\r\nHost: a.example\r\n\r\n";
    assert_eq!(client::send_raw(gapless.address, wire).status, 400);
    assert_eq!(endpoint.requests().len(), 2);
}

/// Both framings in one request: refused, or read by chunks with the connection closed after it.
#[test]
fn both_framings_never_smuggle_a_request() {
    for fields in [
        "content-length: 6\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 6\r\n",
    ] {
        let (endpoint, gapless) = start_pair();
        let mut client = TestClient::open(gapless.address);
        let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        let wire = format!("POST /outer HTTP/1.1\r\nhost: a\r\n{fields}\r\n0\r\n\r\n{smuggled}");
        client.send(wire).expect("sent");
        let answer = client.read_response("POST").expect("an answer");
        assert!(answer.status == 400 || answer.status == 200, "{}", answer.status);
        assert!(client.is_closed_by_server(), "the connection ends after it: {fields:?}");
        let targets: Vec<_> =
            endpoint.requests().into_iter().map(|seen| seen.head.start_line).collect();
        assert!(!targets.iter().any(|start| start.contains("smuggled")), "{targets:?}");
    }
}

#[test]
fn broken_request_chunks_close_the_connection() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for chunks in ["xyz\r\n", "3\r\nabcd\r\n0\r\n\r\n", "-1\r\n", "ffffffffffffffffff\r\n"] {
        let (endpoint, gapless) = start_pair();
        let mut client = TestClient::open(gapless.address);
        client.send(format!("{head}{chunks}")).expect("sent");
        if let Ok(answer) = client.read_response("POST") {
            assert_eq!(answer.status, 400, "{chunks:?}");
        }
        assert!(client.is_closed_by_server(), "{chunks:?}");
        assert_eq!(endpoint.requests().len(), 0, "{chunks:?}: half a request is none");
        assert_eq!(gapless.endpoint_state(endpoint.address()), "up");
    }
}

#[test]
fn bytes_after_an_unread_body_are_not_a_request() {
    let (endpoint, gapless) = start_pair();
    let mut client = TestClient::open(gapless.address);
    let wire = "POST / HTTP/1.1\r\nhost: a, b\r\ncontent-length: 38\r\n\r\n\
                GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send(wire).expect("sent");
    assert_eq!(client.read_response("POST").expect("an answer").status, 400);
    assert!(client.is_closed_by_server());
    assert_eq!(endpoint.requests().len(), 0);
}
