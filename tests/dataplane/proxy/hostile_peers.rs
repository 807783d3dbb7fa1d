//! Hostile clients and endpoints: malformed chunks, line ends, obsolete versions,
//! unread bodies, and more connections than descriptors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::start_pair;
use crate::support::client::{self, TestClient};
use crate::support::endpoint::{ConnectionAction, ResponseMode};
use crate::support::{DEFAULT_TIMEOUT, eventually};

const CHUNKED_POST_HEAD: &str = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";

/// Sends bytes; returns the status, or `None` if the connection ends.
fn response_status(address: std::net::SocketAddr, wire: impl AsRef<[u8]>) -> Option<u16> {
    let mut client = TestClient::open(address);
    client.send(wire).ok()?;
    client.read_response("POST").ok().map(|answer| answer.status)
}

#[test]
fn malformed_chunks_are_rejected_or_reencoded() {
    let (endpoint, gapless) = start_pair();
    endpoint.set_mode(ResponseMode::script(|_, wire| {
        let expected = b"5\r\nhello\r\n0\r\n\r\n";
        let is_reencoded = wire.read_exact(expected.len())? == expected;
        let status = if is_reencoded { 200 } else { 299 };
        wire.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"))?;
        Ok(ConnectionAction::Keep)
    }));
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(64 * 1024));
    for chunks in [
        "5\r\nhello\r\n0\r\n\r\n",
        "05\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n000;c\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;\u{1}\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t;a\r\nhello\r\n0\r\n\r\n",
        &long,
    ] {
        let status = response_status(gapless.address, format!("{CHUNKED_POST_HEAD}{chunks}"));
        let printable = &chunks[..chunks.len().min(40)];
        assert!(matches!(status, None | Some(200 | 400)), "{printable:?}: {status:?}");
    }
    let before = endpoint.requests().len();
    for chunks in [
        "5\nhello\n0\n\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\0: x\r\n\r\n",
    ] {
        let status = response_status(gapless.address, format!("{CHUNKED_POST_HEAD}{chunks}"));
        assert!(matches!(status, None | Some(400)), "{chunks:?}: {status:?}");
    }
    eventually("it serves", DEFAULT_TIMEOUT, || {
        let good = format!("{CHUNKED_POST_HEAD}5\r\nhello\r\n0\r\n\r\n");
        response_status(gapless.address, good) == Some(200)
    });
    assert!(endpoint.requests().len() >= before);
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up", "it is not to blame");
}

#[test]
fn truncated_request_resets_the_endpoint_connection() {
    let (endpoint, gapless) = start_pair();
    let has_whole_request = Arc::new(AtomicBool::new(false));
    let read_whole = Arc::clone(&has_whole_request);
    endpoint.set_mode(ResponseMode::script(move |_, wire| {
        while wire.read_chunk()?.is_some() {}
        read_whole.store(true, SeqCst);
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(ConnectionAction::Keep)
    }));
    let mut client = TestClient::open(gapless.address);
    client.send(format!("{CHUNKED_POST_HEAD}5\r\nhello\r\n")).expect("sent");
    eventually("the endpoint has it", DEFAULT_TIMEOUT, || endpoint.requests().len() == 1);
    client.send("xyz\r\n").expect("sent");
    if let Ok(answer) = client.read_response("POST") {
        assert_eq!(answer.status, 400);
    }
    assert!(client.is_closed_by_server());
    eventually("its connection is reset", DEFAULT_TIMEOUT, || endpoint.reset_count() == 1);
    assert!(!has_whole_request.load(SeqCst));
}

/// A line may end with LF alone (RFC 9112 2.2). Heads are written again, so the endpoint cannot
/// read other lines than the proxy.
#[test]
fn bare_lf_ends_a_line_or_is_rejected() {
    let (endpoint, gapless) = start_pair();
    for wire in [
        "GET / HTTP/1.1\nHost: a\nX-One: 1\nX-Two: 2\n\n",
        "GET / HTTP/1.1\r\nHost: a\nX-One: 1\r\nX-Two: 2\n\r\n",
    ] {
        let before = endpoint.requests().len();
        match response_status(gapless.address, wire) {
            Some(200) => {
                let head = endpoint.requests().pop().expect("a request").head;
                assert_eq!((head.field("x-one"), head.field("x-two")), (Some("1"), Some("2")));
            }
            other => {
                assert!(matches!(other, None | Some(400)), "{wire:?}: {other:?}");
                assert_eq!(endpoint.requests().len(), before);
            }
        }
    }
    let before = endpoint.requests().len();
    for wire in [
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n X: folded first\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    ] {
        assert!(matches!(response_status(gapless.address, wire), None | Some(400)), "{wire:?}");
    }
    assert_eq!(endpoint.requests().len(), before);
}

#[test]
fn obsolete_http_versions_are_rejected() {
    let (endpoint, gapless) = start_pair();
    for wire in [
        "GET /\r\n\r\n",
        "GET / HTTP/0.9\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET / HTTP/1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ] {
        let status = response_status(gapless.address, wire);
        assert!(matches!(status, None | Some(400 | 505)), "{wire:?}: {status:?}");
    }
    assert!(endpoint.requests().is_empty());
}

#[test]
fn oversized_method_is_rejected() {
    let (endpoint, gapless) = start_pair();
    let wire = format!("{} / HTTP/1.1\r\nhost: a\r\n\r\n", "A".repeat(100_000));
    let status = response_status(gapless.address, wire);
    assert!(matches!(status, None | Some(400 | 431 | 501)), "{status:?}");
    assert!(endpoint.requests().is_empty());
}

/// The endpoint answers at once and reads nothing; the unread body looks like a request
/// (CL.0, CVE-2025-4366).
#[test]
fn unread_body_is_never_parsed_as_a_request() {
    let (endpoint, gapless) = start_pair();
    let starts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorded = Arc::clone(&starts);
    endpoint.set_mode(ResponseMode::script(move |head, wire| {
        recorded.lock().expect("no panic").push(head.start_line.clone());
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly")?;
        Ok(ConnectionAction::Keep)
    }));
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = 50_000;
    let mut client = TestClient::open(gapless.address);
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    client.send(format!("{head}{smuggled}")).expect("sent");
    let answer = client.read_response("POST").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "early".to_owned()));
    // The rest of the body, and a real request.
    let rest = smuggled.repeat(length / smuggled.len() + 1);
    let next = "GET /next HTTP/1.1\r\nhost: a\r\n\r\n";
    let _ = client.send(format!("{}{next}", &rest[..length - smuggled.len()]));
    let _ = client.read_response("GET");
    for _ in 0..3 {
        assert_eq!(gapless.get("/other").status, 200);
    }
    // Behind a proxy that reused the connection, the endpoint would have read it as a request.
    let starts = starts.lock().expect("no panic").clone();
    let expected = ["POST / HTTP/1.1", "GET /next HTTP/1.1", "GET /other HTTP/1.1"];
    assert!(
        starts.iter().filter(|start| !start.contains("smuggled")).all(|s| expected.contains(&&**s))
    );
    let first = endpoint.requests()[0].connection;
    let mut others =
        endpoint.requests().into_iter().filter(|seen| seen.head.start_line_word(1) == "/other");
    assert!(others.all(|seen| seen.connection != first), "it was used again");
}

#[test]
fn split_response_field_becomes_502() {
    let (endpoint, gapless) = start_pair();
    for line in [
        "x: a\rset-cookie: evil=1",
        "x: a\r\n set-cookie: evil=1",
        "x : a",
        ": a",
        "x\0: a",
        "set-cookie\r: evil=1",
        "x: a\0",
    ] {
        let wire = format!("HTTP/1.1 200 OK\r\n{line}\r\ncontent-length: 0\r\n\r\n");
        endpoint.set_mode(ResponseMode::Raw(wire.into_bytes()));
        assert_eq!(gapless.get("/").status_and_reason(), (502, Some("bad_response")), "{line:?}");
    }
    // In a status line they would begin a line of their own.
    endpoint
        .set_mode(ResponseMode::Raw(b"HTTP/1.1 200 O\rK\r\ncontent-length: 0\r\n\r\n".to_vec()));
    assert_eq!(gapless.get("/").status_and_reason(), (502, Some("bad_response")));
    endpoint.set_mode(ResponseMode::Ok);
    assert_eq!(gapless.get("/").status, 200);
}

/// More clients than descriptors: the accept loop pauses instead of spinning, and recovers at once.
#[test]
fn descriptor_exhaustion_does_not_spin() {
    let (_endpoint, gapless) = start_pair();
    let open = gapless.open_descriptor_count();
    gapless.set_descriptor_limit(Some(open + 8));
    let clients: Vec<_> =
        (0..40).filter_map(|_| TestClient::connect(gapless.address).ok()).collect();
    eventually("it is out of them", DEFAULT_TIMEOUT, || {
        gapless.log().contains("out of descriptors")
    });
    let (before, began) = (gapless.cpu_time(), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let spent = gapless.cpu_time() - before;
    assert!(spent < began.elapsed() / 5, "{spent:?} of {:?}", began.elapsed());
    drop(clients);
    gapless.set_descriptor_limit(None);
    eventually("it serves again", DEFAULT_TIMEOUT, || {
        TestClient::connect(gapless.address).is_ok_and(|mut client| {
            client.exchange("GET", "/", &[], b"").is_ok_and(|answer| answer.status == 200)
        })
    });
}

/// A name that resolves to loopback cannot make a browser read the admin API (DNS rebinding).
#[test]
fn admin_api_rejects_foreign_host_names() {
    let (_endpoint, gapless) = start_pair();
    let request_status = |host: &str, path: &str| {
        client::send_raw(gapless.admin, format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .status
    };
    for path in ["/metrics", "/api/v1/endpoints", "/api/v1/config", "/healthz"] {
        assert_eq!(request_status("evil.example", path), 403, "{path}");
        assert_eq!(request_status("localhost", path), 200, "{path}");
    }
    let post = client::send_raw(gapless.admin, "POST /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(post.status, 405);
}

/// Endless interim responses cost the endpoint its connection, and the proxy little.
#[test]
fn interim_response_flood_becomes_502() {
    let (endpoint, gapless) = start_pair();
    let taken_bytes = Arc::new(AtomicUsize::new(0));
    let sent_bytes = Arc::clone(&taken_bytes);
    endpoint.set_mode(ResponseMode::script(move |_, wire| {
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n".repeat(64);
        loop {
            wire.send(&hints)?;
            sent_bytes.fetch_add(hints.len(), SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
    }));
    let rss_before_kib = gapless.rss_kib();
    assert_eq!(gapless.get("/").status_and_reason(), (502, Some("bad_response")));
    assert!(taken_bytes.load(SeqCst) < 1 << 20, "{} bytes were taken", taken_bytes.load(SeqCst));
    assert!(gapless.rss_kib() < rss_before_kib + 1024, "{rss_before_kib} {}", gapless.rss_kib());
    for (count, status) in [(16, 200), (17, 502)] {
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count);
        let wire = format!("{hints}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
        endpoint.set_mode(ResponseMode::RawClose(wire.into_bytes()));
        assert_eq!(gapless.get("/").status, status, "{count}");
    }
}
