//! HTTP/2 as attackers speak it: what would become something else in HTTP/1.1, and floods.

use std::time::Duration;

use super::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, Fate, Fields, Frames, HEADERS, RST_STREAM, block, frame,
};
use super::plain;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::{SOON, eventually};

const GOOD: [(&[u8], &[u8]); 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/")];

/// The good request with these fields added.
fn with<'a>(fields: Fields<'a>) -> Vec<(&'a [u8], &'a [u8])> {
    [&GOOD[..], fields].concat()
}

/// The good request with one pseudo-field changed, or left out.
fn but<'a>(name: &[u8], value: Option<&'a [u8]>) -> Vec<(&'a [u8], &'a [u8])> {
    let mut fields = Vec::new();
    for (known, was) in GOOD {
        let is = if known == name { value } else { Some(was) };
        fields.extend(is.map(|value| (known, value)));
    }
    fields
}

/// Nothing that has two readings reaches an endpoint: the stream is reset, refused, or all is over.
fn is_refused(fate: &Fate) -> bool {
    match fate {
        Fate::Answered(status) => matches!(status, 400 | 405 | 431 | 501),
        Fate::Reset(_) => true,
        Fate::Closed(code) => code.is_some(),
    }
}

#[test]
fn the_good_request_is_good() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let mut frames = Frames::open(gapless.address);
    assert_eq!(frames.ask(&GOOD, &[]), Fate::Answered(200));
    assert_eq!(frames.ask(&with(&[(b"te", b"trailers")]), &[]), Fate::Answered(200));
    let host: Fields<'_> = &[(b"host", b"A.Example")];
    assert_eq!(frames.ask(&with(host), &[]), Fate::Answered(200), "the same in other words");
    let host = [&but(b":authority", None)[..], &[(b"host", b"b.example")]].concat();
    assert_eq!(frames.ask(&host, &[]), Fate::Answered(200));
    let star = [(&b":method"[..], &b"OPTIONS"[..]), GOOD[1], GOOD[2], (b":path", b"*")];
    assert_eq!(frames.ask(&star, &[]), Fate::Answered(200));
    let seen = endpoint.seen();
    let hosts: Vec<_> = seen.iter().map(|seen| seen.head.field("host").expect("a host")).collect();
    assert_eq!(hosts, ["a.example", "a.example", "a.example", "b.example"]);
}

/// Fields that a request may not have.
const BAD_FIELDS: [Fields<'_>; 34] = [
    &[(b"x", b"a\r\nx-evil: 1")],
    &[(b"x", b"a\rb")],
    &[(b"x", b"a\nb")],
    &[(b"x", b"a\0b")],
    &[(b"x", b" a")],
    &[(b"x", b"a ")],
    &[(b"x", b"\ta")],
    &[(b"x\r\nx-evil: 1\r\ny", b"a")],
    &[(b"x: 1\r\nhost", b"evil")],
    &[(b"x:", b"a")],
    &[(b"x y", b"a")],
    &[(b"x\0", b"a")],
    &[(b"X-Upper", b"a")],
    &[(b"", b"a")],
    &[(b"x\x80", b"a")],
    &[(b"connection", b"x")],
    &[(b"keep-alive", b"timeout=5")],
    &[(b"proxy-connection", b"keep-alive")],
    &[(b"upgrade", b"h2c")],
    &[(b"transfer-encoding", b"chunked")],
    &[(b"transfer-encoding", b"identity")],
    &[(b"te", b"gzip")],
    &[(b"te", b"trailers, chunked")],
    &[(b"host", b"evil.example")],
    &[(b"host", b"a.example"), (b"host", b"evil.example")],
    &[(b"host", b"")],
    &[(b":path", b"/again")],
    &[(b"x", b"a"), (b":path", b"/late")],
    &[(b":status", b"200")],
    &[(b":unknown", b"x")],
    &[(b":protocol", b"websocket")],
    &[(b"content-length", b"5")],
    &[(b"content-length", b"0"), (b"content-length", b"0")],
    &[(b"content-length", b"00")],
];

#[test]
fn what_http1_would_read_otherwise_reaches_nobody() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let pseudo = [
        but(b":method", Some(b"GET / HTTP/1.1\r\nx: y")),
        but(b":method", Some(b"GE T")),
        but(b":method", Some(b"")),
        but(b":method", Some(b"CONNECT")),
        but(b":method", None),
        but(b":path", Some(b"")),
        but(b":path", Some(b"x")),
        but(b":path", Some(b"?x=y")),
        but(b":path", Some(b"*")),
        but(b":path", Some(b"http://evil/")),
        but(b":path", Some(b"/ HTTP/1.1\r\nx: y\r\n\r\n")),
        but(b":path", Some(b"/a b")),
        but(b":path", Some(b"/\xc3\xa4")),
        but(b":path", Some(b"/\0")),
        but(b":path", None),
        but(b":scheme", None),
        but(b":scheme", Some(b"http://evil/?")),
        but(b":scheme", Some(b"")),
        but(b":authority", Some(b"a.example\r\nx: y")),
        but(b":authority", Some(b"user@a.example")),
        but(b":authority", Some(b"a.example/evil")),
        but(b":authority", Some(b"a.example, evil")),
        but(b":authority", Some(b"")),
        but(b":authority", None),
    ];
    let all = BAD_FIELDS.iter().map(|fields| with(fields)).chain(pseudo);
    for fields in all {
        let shown: Vec<_> = fields
            .iter()
            .map(|(name, value)| [name.escape_ascii(), value.escape_ascii()].map(|e| e.to_string()))
            .collect();
        let fate = Frames::open(gapless.address).ask(&fields, &[]);
        assert!(is_refused(&fate), "{shown:?}: {fate:?}");
        let seen = endpoint.seen();
        assert!(seen.is_empty(), "{shown:?} reached it as {:?}", seen[0].head);
    }
}

#[test]
fn a_length_that_is_not_that_of_the_body_is_never_a_whole_request() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let mut request = but(b":method", Some(b"POST"));
    request.push((b"content-length", b"5"));
    let smuggled = b"hello GET /evil HTTP/1.1\r\nhost: a\r\n\r\n";
    let bodies: [&[&[u8]]; 5] =
        [&[b"abc"], &[b""], &[smuggled], &[b"hello", b"!"], &[b"he", b"l", b""]];
    for body in bodies {
        let fate = Frames::open(gapless.address).ask(&request, body);
        assert!(is_refused(&fate), "{body:?}: {fate:?}");
    }
    assert!(endpoint.seen().is_empty(), "{:?}", endpoint.seen());
    let mut frames = Frames::open(gapless.address);
    assert_eq!(frames.ask(&request, &[b"he", b"", b"llo"]), Fate::Answered(200));
    assert_eq!(endpoint.seen()[0].body, b"hello");
    assert_eq!(gapless.state(endpoint.address()), "up");
}

#[test]
fn a_body_cannot_become_a_second_request() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let request = but(b":method", Some(b"POST"));
    let body = b"0\r\n\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut frames = Frames::open(gapless.address);
    assert_eq!(frames.ask(&request, &[body]), Fate::Answered(200));
    assert_eq!(frames.ask(&GOOD, &[body]), Fate::Answered(200), "a GET with a body");
    let seen = endpoint.seen();
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert_eq!(request.head.field("transfer-encoding"), Some("chunked"));
        assert_eq!(request.body, body);
    }
}

#[test]
fn the_number_of_streams_is_bounded() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    endpoint.set(Mode::Hang);
    let mut frames = Frames::open(gapless.address);
    for _ in 0..100 {
        let stream = frames.stream();
        let asked = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GOOD));
        frames.client.send(asked).expect("sent");
    }
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(frames.ask(&GOOD, &[]), Fate::Reset(REFUSED_STREAM));
    eventually("all of the others", SOON, || endpoint.seen().len() == 100);
}

/// What an honest client gets, meanwhile or afterwards.
#[track_caller]
fn good_client_is_served(address: std::net::SocketAddr, endpoint: &Endpoint) {
    endpoint.set(Mode::Ok);
    assert_eq!(Client::open(address).get("/").status, 200);
    assert_eq!(Frames::open(address).ask(&GOOD, &[]), Fate::Answered(200));
}

#[test]
fn a_rapid_reset_hardly_reaches_the_endpoints() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    endpoint.set(Mode::Hang);
    let mut frames = Frames::open(gapless.address);
    let fields = block(&GOOD);
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        let stream = frames.stream();
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let _ = frames.client.send(bytes);
    const ENHANCE_YOUR_CALM: u32 = 11;
    assert_eq!(frames.fate(0), Fate::Closed(Some(ENHANCE_YOUR_CALM)));
    assert!(endpoint.seen().len() < 1_000, "{}", endpoint.seen().len());
    good_client_is_served(gapless.address, &endpoint);
}

/// Each request is let through before it is reset, so that no count of unseen ones notices.
#[test]
fn a_patient_reset_hardly_reaches_the_endpoints() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    endpoint.set(Mode::Hang);
    let mut frames = Frames::open(gapless.address);
    let fields = block(&GOOD);
    for _ in 0..10_000 {
        let stream = frames.stream();
        let asked = frames.client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
        if asked.is_err() || frames.settle().is_err() {
            break;
        }
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        if frames.client.send(reset).is_err() {
            break;
        }
    }
    assert_eq!(frames.fate(0), Fate::Closed(None), "it was cut");
    let seen = endpoint.seen().len();
    assert!((100..1_000).contains(&seen), "{seen}");
    assert_eq!(gapless.state(endpoint.address()), "up");
    good_client_is_served(gapless.address, &endpoint);
}

/// Streams that the client makes us reset, by breaking rules (CVE-2025-8671).
#[test]
fn resets_that_a_client_provokes_are_bounded() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    endpoint.set(Mode::Hang);
    let mut frames = Frames::open(gapless.address);
    let fields = block(&GOOD);
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        let stream = frames.stream();
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
        // A window's increment of nothing.
        bytes.extend(frame(8, 0, stream, &[0; 4]));
    }
    let _ = frames.client.send(bytes);
    assert!(matches!(frames.fate(0), Fate::Closed(_)));
    assert!(endpoint.seen().len() < 1_000, "{}", endpoint.seen().len());
    good_client_is_served(gapless.address, &endpoint);
}

#[test]
fn fields_without_end_are_cut_soon() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let before = gapless.rss_kib();
    for piece in [block(&[(b"x-flood", &[b'x'; 8_000])]), Vec::new()] {
        let mut frames = Frames::open(gapless.address);
        let stream = frames.stream();
        let begun = frame(HEADERS, END_STREAM, stream, &block(&GOOD));
        let mut sent = begun.len();
        frames.client.send(begun).expect("sent");
        let more = frame(CONTINUATION, 0, stream, &piece);
        let is_cut = (0..1_000_000).any(|_| {
            sent += more.len();
            frames.client.send(&more).is_err()
        });
        assert!(is_cut, "{sent} bytes were taken");
        assert!(matches!(frames.fate(stream), Fate::Closed(_)));
    }
    assert!(endpoint.seen().is_empty());
    assert!(gapless.rss_kib() < before + 16 * 1024, "{before} {}", gapless.rss_kib());
    good_client_is_served(gapless.address, &endpoint);
}

/// One long field, named again and again by its index: little on the wire, much when it is decoded.
#[test]
fn a_small_block_cannot_become_a_large_head() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let mut frames = Frames::open(gapless.address);
    let stream = frames.stream();
    let mut fields = block(&GOOD);
    // Literal with indexing: a name of one byte, a value of 127 + 57 + 22 * 128 = 3,000.
    fields.extend([0x40, 1, b'x', 127, 0x80 | 57, 22]);
    fields.extend([b'v'; 3_000]);
    fields.extend([0xbe; 10_000]);
    let _ = frames.client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
    let fate = frames.fate(stream);
    assert!(is_refused(&fate), "{fate:?}");
    assert!(endpoint.seen().is_empty());
    good_client_is_served(gapless.address, &endpoint);
}

#[test]
fn crumbs_of_cookies_count_as_fields() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let crumbs = [(&b"cookie"[..], &b"a=b"[..]); 200];
    let fate = Frames::open(gapless.address).ask(&with(&crumbs), &[]);
    assert_eq!(fate, Fate::Answered(431));
    assert!(endpoint.seen().is_empty());
}

#[test]
fn floods_of_frames_that_mean_nothing_hold_nobody_up() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let before = gapless.rss_kib();
    let flood = [
        frame(super::frames::PING, 0, 0, b"01234567"),
        frame(super::frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        frame(super::frames::DATA, 0, 1, b""),
        frame(2, 0, 1, &[0, 0, 0, 0, 1]),
    ];
    std::thread::scope(|scope| {
        for one in &flood {
            scope.spawn(|| {
                let mut frames = Frames::open(gapless.address);
                let stream = frames.stream();
                let begun = frame(HEADERS, END_HEADERS, stream, &block(&GOOD));
                let _ = frames.client.send(begun);
                let many = one.repeat(1_000);
                // Nothing is read of what comes back.
                let _ = frames.client.wire.stream().set_write_timeout(Some(Duration::from_secs(2)));
                for _ in 0..200 {
                    if frames.client.send(&many).is_err() {
                        break;
                    }
                }
            });
        }
        for _ in 0..20 {
            assert_eq!(Client::open(gapless.address).get("/").status, 200);
        }
    });
    eventually("little was kept", SOON, || gapless.rss_kib() < before + 64 * 1024);
    good_client_is_served(gapless.address, &endpoint);
}
