//! Malformed responses of endpoints: the client gets 502 or a cut, and the next request succeeds.

use super::start_pair;
use crate::support::client::TestClient;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;

/// The endpoint sends `wire`; the client must receive 502.
#[track_caller]
fn assert_bad_response(endpoint: &TestEndpoint, gapless: &Gapless, wire: &[u8]) {
    let printable = String::from_utf8_lossy(&wire[..wire.len().min(80)]).into_owned();
    endpoint.set_mode(ResponseMode::Raw(wire.to_vec()));
    let answer = gapless.get("/");
    assert_eq!(answer.status_and_reason(), (502, Some("bad_response")), "{printable:?}");
    endpoint.set_mode(ResponseMode::Ok);
    let next = gapless.get("/");
    assert_eq!((next.status, next.text()), (200, "one".to_owned()), "after {printable:?}");
}

#[test]
fn malformed_response_head_becomes_502() {
    let (endpoint, gapless) = start_pair();
    for wire in [
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "<html>an answer of 1991</html>\r\n\r\n",
        "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/3.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        assert_bad_response(&endpoint, &gapless, wire.as_bytes());
    }
}

#[test]
fn ambiguous_response_framing_becomes_502() {
    let (endpoint, gapless) = start_pair();
    for fields in [
        "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: 3, 4\r\n",
        "content-length: -3\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
    ] {
        let wire = format!("HTTP/1.1 200 OK\r\n{fields}\r\n3\r\nabc\r\n0\r\n\r\n");
        assert_bad_response(&endpoint, &gapless, wire.as_bytes());
    }
}

#[test]
fn oversized_response_head_becomes_502() {
    let (endpoint, gapless) = start_pair();
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "v".repeat(200 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: v\r\n".repeat(10_000));
    let flood = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(10_000);
    for wire in [long, many, flood] {
        assert_bad_response(&endpoint, &gapless, wire.as_bytes());
    }
}

#[test]
fn few_interim_responses_are_accepted() {
    let (endpoint, gapless) = start_pair();
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(3);
    let wire = format!("{hints}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    endpoint.set_mode(ResponseMode::Raw(wire.into_bytes()));
    assert_eq!(gapless.get("/").text(), "hi");
    assert_eq!(gapless.get("/").text(), "hi");
    assert_eq!(endpoint.used_connection_count(), 1);
}

/// A large body has started when it is cut, so only a cut can signal it.
#[test]
fn truncated_large_response_is_cut_for_the_client() {
    let (endpoint, gapless) = start_pair();
    let part = "x".repeat(100_000);
    for head in ["content-length: 200000", "transfer-encoding: chunked"] {
        let chunk = if head.starts_with("transfer") { "186a0\r\n" } else { "" };
        let wire = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{chunk}{part}");
        endpoint.set_mode(ResponseMode::RawClose(wire.into_bytes()));
        let mut client = TestClient::open(gapless.address);
        let result = client.exchange("GET", "/", &[], b"");
        assert!(result.is_err(), "{head}: half an answer was passed off as a whole one");
        endpoint.set_mode(ResponseMode::Ok);
        assert_eq!(gapless.get("/").text(), "one");
    }
}

#[test]
fn truncated_small_response_becomes_502() {
    let (endpoint, gapless) = start_pair();
    for mode in [ResponseMode::truncated(), ResponseMode::close_after_head()] {
        endpoint.set_mode(mode);
        let answer = gapless.get("/");
        assert_eq!(answer.status_and_reason(), (502, Some("reset")));
        endpoint.set_mode(ResponseMode::Ok);
        assert_eq!(gapless.get("/").text(), "one");
    }
}

#[test]
fn broken_response_chunks_never_complete() {
    let (endpoint, gapless) = start_pair();
    for chunks in [
        "xyz\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "-1\r\n",
        "\r\n\r\n",
        "\r\n0\r\n\r\n",
        ";x=y\r\n\r\n",
        "3\r\nabc\r\n\r\n\r\n",
    ] {
        let wire = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        endpoint.set_mode(ResponseMode::Raw(wire.into_bytes()));
        let mut client = TestClient::open(gapless.address);
        let answer = client.exchange("GET", "/", &[], b"");
        let is_error = answer.as_ref().map_or(true, |answer| answer.status == 502);
        assert!(is_error, "{chunks:?} passed as {answer:?}");
        endpoint.set_mode(ResponseMode::Ok);
        assert_eq!(gapless.get("/").text(), "one", "after {chunks:?}");
    }
}

#[test]
fn chunked_http10_response_becomes_502() {
    let (endpoint, gapless) = start_pair();
    let wire = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    assert_bad_response(&endpoint, &gapless, wire.as_bytes());
}

#[test]
fn content_length_nominated_by_connection_is_kept() {
    let (endpoint, gapless) = start_pair();
    let wire = "HTTP/1.1 200 OK\r\nconnection: content-length\r\ncontent-length: 2\r\n\r\nhi";
    endpoint.set_mode(ResponseMode::Raw(wire.into()));
    let mut client = TestClient::open(gapless.address);
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text()), (200, "hi".to_owned()));
        assert_eq!(answer.field("content-length"), Some("2"));
    }
    assert_eq!(endpoint.used_connection_count(), 1);
}
