//! Bad answers of endpoints: the client gets 502 or a cut, and the next request is fine.

use super::pair;
use crate::support::client::Client;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;

/// The endpoint says `wire`; the client must be told 502.
#[track_caller]
fn is_bad(endpoint: &Endpoint, gapless: &Gapless, wire: &[u8]) {
    let shown = String::from_utf8_lossy(&wire[..wire.len().min(80)]).into_owned();
    endpoint.set(Mode::Raw(wire.to_vec()));
    let answer = gapless.get("/");
    assert_eq!(answer.verdict(), (502, Some("bad_response")), "{shown:?}");
    endpoint.set(Mode::Ok);
    let next = gapless.get("/");
    assert_eq!((next.status, next.text()), (200, "one".to_owned()), "after {shown:?}");
}

#[test]
fn heads_that_are_not_http() {
    let (endpoint, gapless) = pair();
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
        is_bad(&endpoint, &gapless, wire.as_bytes());
    }
}

#[test]
fn framing_that_has_two_readings() {
    let (endpoint, gapless) = pair();
    for fields in [
        "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: 3, 4\r\n",
        "content-length: -3\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
    ] {
        let wire = format!("HTTP/1.1 200 OK\r\n{fields}\r\n3\r\nabc\r\n0\r\n\r\n");
        is_bad(&endpoint, &gapless, wire.as_bytes());
    }
}

#[test]
fn heads_without_end() {
    let (endpoint, gapless) = pair();
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "v".repeat(200 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: v\r\n".repeat(10_000));
    let flood = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(10_000);
    for wire in [long, many, flood] {
        is_bad(&endpoint, &gapless, wire.as_bytes());
    }
}

#[test]
fn a_few_informational_answers_do_no_harm() {
    let (endpoint, gapless) = pair();
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(3);
    let wire = format!("{hints}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    endpoint.set(Mode::Raw(wire.into_bytes()));
    assert_eq!(gapless.get("/").text(), "hi");
    assert_eq!(gapless.get("/").text(), "hi");
    assert_eq!(endpoint.connections(), 1);
}

/// A large body has been begun when it is cut, so that only a cut can say it.
#[test]
fn a_large_answer_that_is_cut_is_cut_for_the_client_too() {
    let (endpoint, gapless) = pair();
    let part = "x".repeat(100_000);
    for head in ["content-length: 200000", "transfer-encoding: chunked"] {
        let chunk = if head.starts_with("transfer") { "186a0\r\n" } else { "" };
        let wire = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{chunk}{part}");
        endpoint.set(Mode::RawClose(wire.into_bytes()));
        let mut client = Client::open(gapless.address);
        let cut = client.exchange("GET", "/", &[], b"");
        assert!(cut.is_err(), "{head}: half an answer was passed off as a whole one");
        endpoint.set(Mode::Ok);
        assert_eq!(gapless.get("/").text(), "one");
    }
}

#[test]
fn a_small_answer_that_is_cut_is_an_error_and_not_half_an_answer() {
    let (endpoint, gapless) = pair();
    for mode in [Mode::truncated(), Mode::close_after_head()] {
        endpoint.set(mode);
        let answer = gapless.get("/");
        assert_eq!(answer.verdict(), (502, Some("reset")));
        endpoint.set(Mode::Ok);
        assert_eq!(gapless.get("/").text(), "one");
    }
}

#[test]
fn broken_chunks_are_cut() {
    let (endpoint, gapless) = pair();
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
        endpoint.set(Mode::Raw(wire.into_bytes()));
        let mut client = Client::open(gapless.address);
        let answer = client.exchange("GET", "/", &[], b"");
        let told = answer.as_ref().map_or(true, |answer| answer.status == 502);
        assert!(told, "{chunks:?} passed as {answer:?}");
        endpoint.set(Mode::Ok);
        assert_eq!(gapless.get("/").text(), "one", "after {chunks:?}");
    }
}

#[test]
fn an_old_answer_in_chunks_is_bad() {
    let (endpoint, gapless) = pair();
    let wire = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    is_bad(&endpoint, &gapless, wire.as_bytes());
}

#[test]
fn an_endpoint_cannot_nominate_its_framing_away() {
    let (endpoint, gapless) = pair();
    let wire = "HTTP/1.1 200 OK\r\nconnection: content-length\r\ncontent-length: 2\r\n\r\nhi";
    endpoint.set(Mode::Raw(wire.into()));
    let mut client = Client::open(gapless.address);
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text()), (200, "hi".to_owned()));
        assert_eq!(answer.field("content-length"), Some("2"));
    }
    assert_eq!(endpoint.connections(), 1);
}
