//! Clients and endpoints that mean harm, byte by byte: chunks with tricks, ends of lines, versions long
//! gone, bodies that nobody reads, and more connections than there are descriptors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::pair;
use crate::support::client::{self, Client};
use crate::support::endpoint::{Mode, Next};
use crate::support::{SOON, eventually};

const CHUNKED: &str = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";

/// Sends it; the status, or `None` where the connection just ends.
fn status(address: std::net::SocketAddr, wire: impl AsRef<[u8]>) -> Option<u16> {
    let mut client = Client::open(address);
    client.send(wire).ok()?;
    client.answer("POST").ok().map(|answer| answer.status)
}

#[test]
fn chunks_with_tricks_are_refused_or_written_anew() {
    let (endpoint, gapless) = pair();
    endpoint.set(Mode::script(|_, wire| {
        let expected = b"5\r\nhello\r\n0\r\n\r\n";
        let is_anew = wire.exactly(expected.len())? == expected;
        let status = if is_anew { 200 } else { 299 };
        wire.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"))?;
        Ok(Next::Keep)
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
        let status = status(gapless.address, format!("{CHUNKED}{chunks}"));
        let shown = &chunks[..chunks.len().min(40)];
        assert!(matches!(status, None | Some(200 | 400)), "{shown:?}: {status:?}");
    }
    let before = endpoint.seen().len();
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
        let status = status(gapless.address, format!("{CHUNKED}{chunks}"));
        assert!(matches!(status, None | Some(400)), "{chunks:?}: {status:?}");
    }
    eventually("it serves", SOON, || {
        let good = format!("{CHUNKED}5\r\nhello\r\n0\r\n\r\n");
        status(gapless.address, good) == Some(200)
    });
    assert!(endpoint.seen().len() >= before);
    assert_eq!(gapless.state(endpoint.address()), "up", "it is not to blame");
}

#[test]
fn half_a_request_is_reset_and_never_whole() {
    let (endpoint, gapless) = pair();
    let is_whole = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_whole);
    endpoint.set(Mode::script(move |_, wire| {
        while wire.chunk()?.is_some() {}
        seen.store(true, SeqCst);
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Next::Keep)
    }));
    let mut client = Client::open(gapless.address);
    client.send(format!("{CHUNKED}5\r\nhello\r\n")).expect("sent");
    eventually("the endpoint has it", SOON, || endpoint.seen().len() == 1);
    client.send("xyz\r\n").expect("sent");
    if let Ok(answer) = client.answer("POST") {
        assert_eq!(answer.status, 400);
    }
    assert!(client.is_ended());
    eventually("its connection is reset", SOON, || endpoint.resets() == 1);
    assert!(!is_whole.load(SeqCst));
}

/// A line may end with LF alone (RFC 9112 2.2). What goes on is written anew, so nobody behind can see
/// another line than we did.
#[test]
fn a_bare_lf_is_an_end_of_a_line_for_everybody_or_nobody() {
    let (endpoint, gapless) = pair();
    for wire in [
        "GET / HTTP/1.1\nHost: a\nX-One: 1\nX-Two: 2\n\n",
        "GET / HTTP/1.1\r\nHost: a\nX-One: 1\r\nX-Two: 2\n\r\n",
    ] {
        let before = endpoint.seen().len();
        match status(gapless.address, wire) {
            Some(200) => {
                let head = endpoint.seen().pop().expect("a request").head;
                assert_eq!((head.field("x-one"), head.field("x-two")), (Some("1"), Some("2")));
            }
            other => {
                assert!(matches!(other, None | Some(400)), "{wire:?}: {other:?}");
                assert_eq!(endpoint.seen().len(), before);
            }
        }
    }
    let before = endpoint.seen().len();
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
        assert!(matches!(status(gapless.address, wire), None | Some(400)), "{wire:?}");
    }
    assert_eq!(endpoint.seen().len(), before);
}

#[test]
fn versions_long_gone_are_not_spoken() {
    let (endpoint, gapless) = pair();
    for wire in [
        "GET /\r\n\r\n",
        "GET / HTTP/0.9\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET / HTTP/1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ] {
        let status = status(gapless.address, wire);
        assert!(matches!(status, None | Some(400 | 505)), "{wire:?}: {status:?}");
    }
    assert!(endpoint.seen().is_empty());
}

#[test]
fn a_method_without_end_is_refused() {
    let (endpoint, gapless) = pair();
    let wire = format!("{} / HTTP/1.1\r\nhost: a\r\n\r\n", "A".repeat(100_000));
    let status = status(gapless.address, wire);
    assert!(matches!(status, None | Some(400 | 431 | 501)), "{status:?}");
    assert!(endpoint.seen().is_empty());
}

/// The endpoint answers at once and reads nothing; what would come is a request, for whoever takes it
/// for one (CL.0, CVE-2025-4366).
#[test]
fn a_body_that_nobody_read_is_never_a_request() {
    let (endpoint, gapless) = pair();
    let starts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&starts);
    endpoint.set(Mode::script(move |head, wire| {
        heard.lock().expect("no panic").push(head.start.clone());
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly")?;
        Ok(Next::Keep)
    }));
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = 50_000;
    let mut client = Client::open(gapless.address);
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    client.send(format!("{head}{smuggled}")).expect("sent");
    let answer = client.answer("POST").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "early".to_owned()));
    // The rest of it, and a request that is one.
    let rest = smuggled.repeat(length / smuggled.len() + 1);
    let next = "GET /next HTTP/1.1\r\nhost: a\r\n\r\n";
    let _ = client.send(format!("{}{next}", &rest[..length - smuggled.len()]));
    let _ = client.answer("GET");
    for _ in 0..3 {
        assert_eq!(gapless.get("/other").status, 200);
    }
    // Behind a proxy that used the connection again, the endpoint itself would have read it there.
    let starts = starts.lock().expect("no panic").clone();
    let of_others = ["POST / HTTP/1.1", "GET /next HTTP/1.1", "GET /other HTTP/1.1"];
    assert!(
        starts
            .iter()
            .filter(|start| !start.contains("smuggled"))
            .all(|s| of_others.contains(&&**s))
    );
    let first = endpoint.seen()[0].connection;
    let mut others = endpoint.seen().into_iter().filter(|seen| seen.head.word(1) == "/other");
    assert!(others.all(|seen| seen.connection != first), "it was used again");
}

#[test]
fn answers_that_would_be_split_are_none() {
    let (endpoint, gapless) = pair();
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
        endpoint.set(Mode::Raw(wire.into_bytes()));
        assert_eq!(gapless.get("/").verdict(), (502, Some("bad_response")), "{line:?}");
    }
    // Told in the words of a status line, they would be on a line of their own.
    endpoint.set(Mode::Raw(b"HTTP/1.1 200 O\rK\r\ncontent-length: 0\r\n\r\n".to_vec()));
    assert_eq!(gapless.get("/").verdict(), (502, Some("bad_response")));
    endpoint.set(Mode::Ok);
    assert_eq!(gapless.get("/").status, 200);
}

/// More clients than there are descriptors: it rests instead of spinning, and serves again at once.
#[test]
fn without_descriptors_it_waits_and_burns_nothing() {
    let (_endpoint, gapless) = pair();
    let open = gapless.descriptors();
    gapless.limit_descriptors(Some(open + 8));
    let clients: Vec<_> = (0..40).filter_map(|_| Client::connect(gapless.address).ok()).collect();
    eventually("it is out of them", SOON, || gapless.log().contains("out of descriptors"));
    let (before, began) = (gapless.cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let spent = gapless.cpu() - before;
    assert!(spent < began.elapsed() / 5, "{spent:?} of {:?}", began.elapsed());
    drop(clients);
    gapless.limit_descriptors(None);
    eventually("it serves again", SOON, || {
        Client::connect(gapless.address).is_ok_and(|mut client| {
            client.exchange("GET", "/", &[], b"").is_ok_and(|answer| answer.status == 200)
        })
    });
}

/// A name that resolves to loopback cannot have a browser read the operator's pages.
#[test]
fn the_operators_pages_are_for_addresses_only() {
    let (_endpoint, gapless) = pair();
    let ask = |host: &str, path: &str| {
        client::raw(gapless.admin, format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")).status
    };
    for path in ["/metrics", "/api/v1/endpoints", "/api/v1/config", "/healthz"] {
        assert_eq!(ask("evil.example", path), 403, "{path}");
        assert_eq!(ask("localhost", path), 200, "{path}");
    }
    let post = client::raw(gapless.admin, "POST /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(post.status, 405);
}

/// Interim answers without end cost an endpoint its connection, and us next to nothing.
#[test]
fn a_flood_of_interim_answers_is_cut_soon() {
    let (endpoint, gapless) = pair();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    endpoint.set(Mode::script(move |_, wire| {
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n".repeat(64);
        loop {
            wire.send(&hints)?;
            count.fetch_add(hints.len(), SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
    }));
    let before = gapless.rss_kib();
    assert_eq!(gapless.get("/").verdict(), (502, Some("bad_response")));
    assert!(taken.load(SeqCst) < 1 << 20, "{} bytes were taken", taken.load(SeqCst));
    assert!(gapless.rss_kib() < before + 1024, "{before} {}", gapless.rss_kib());
    for (count, status) in [(16, 200), (17, 502)] {
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count);
        let wire = format!("{hints}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
        endpoint.set(Mode::RawClose(wire.into_bytes()));
        assert_eq!(gapless.get("/").status, status, "{count}");
    }
}
