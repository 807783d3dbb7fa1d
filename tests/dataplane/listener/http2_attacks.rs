//! HTTP/2 attacks: fields that would change their meaning in HTTP/1.1, and floods.

use std::time::Duration;

use super::http2_frames::{
    CONTINUATION, END_HEADERS, END_STREAM, H2Fields, HEADERS, RST_STREAM, RawH2Client, StreamEnd,
    encode_fields, encode_frame,
};
use super::start_cleartext;
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::{DEFAULT_TIMEOUT, eventually};

const VALID_REQUEST: [(&[u8], &[u8]); 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/")];

/// The valid request with these fields added.
fn with_fields<'a>(fields: H2Fields<'a>) -> Vec<(&'a [u8], &'a [u8])> {
    [&VALID_REQUEST[..], fields].concat()
}

/// The valid request with one pseudo-field changed or omitted.
fn with_pseudo_field<'a>(name: &[u8], value: Option<&'a [u8]>) -> Vec<(&'a [u8], &'a [u8])> {
    let mut fields = Vec::new();
    for (field_name, default_value) in VALID_REQUEST {
        let new_value = if field_name == name { value } else { Some(default_value) };
        fields.extend(new_value.map(|value| (field_name, value)));
    }
    fields
}

/// An ambiguous request never reaches an endpoint: its stream is reset or refused, or the
/// connection ends.
fn is_refused(end: &StreamEnd) -> bool {
    match end {
        StreamEnd::Response(status) => matches!(status, 400 | 405 | 431 | 501),
        StreamEnd::Reset(_) => true,
        StreamEnd::ConnectionClosed(code) => code.is_some(),
    }
}

#[test]
fn valid_http2_requests_are_forwarded() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let mut frames = RawH2Client::open(gapless.address);
    assert_eq!(frames.send_request(&VALID_REQUEST, &[]), StreamEnd::Response(200));
    assert_eq!(
        frames.send_request(&with_fields(&[(b"te", b"trailers")]), &[]),
        StreamEnd::Response(200)
    );
    let host: H2Fields<'_> = &[(b"host", b"A.Example")];
    assert_eq!(
        frames.send_request(&with_fields(host), &[]),
        StreamEnd::Response(200),
        "the same in other words"
    );
    let host = [&with_pseudo_field(b":authority", None)[..], &[(b"host", b"b.example")]].concat();
    assert_eq!(frames.send_request(&host, &[]), StreamEnd::Response(200));
    let options_star =
        [(&b":method"[..], &b"OPTIONS"[..]), VALID_REQUEST[1], VALID_REQUEST[2], (b":path", b"*")];
    assert_eq!(frames.send_request(&options_star, &[]), StreamEnd::Response(200));
    let seen = endpoint.requests();
    let hosts: Vec<_> = seen.iter().map(|seen| seen.head.field("host").expect("a host")).collect();
    assert_eq!(hosts, ["a.example", "a.example", "a.example", "b.example"]);
}

/// Fields that a request may not have.
const INVALID_FIELDS: [H2Fields<'_>; 34] = [
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
fn invalid_http2_field_is_never_forwarded() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let pseudo = [
        with_pseudo_field(b":method", Some(b"GET / HTTP/1.1\r\nx: y")),
        with_pseudo_field(b":method", Some(b"GE T")),
        with_pseudo_field(b":method", Some(b"")),
        with_pseudo_field(b":method", Some(b"CONNECT")),
        with_pseudo_field(b":method", None),
        with_pseudo_field(b":path", Some(b"")),
        with_pseudo_field(b":path", Some(b"x")),
        with_pseudo_field(b":path", Some(b"?x=y")),
        with_pseudo_field(b":path", Some(b"*")),
        with_pseudo_field(b":path", Some(b"http://evil/")),
        with_pseudo_field(b":path", Some(b"/ HTTP/1.1\r\nx: y\r\n\r\n")),
        with_pseudo_field(b":path", Some(b"/a b")),
        with_pseudo_field(b":path", Some(b"/\xc3\xa4")),
        with_pseudo_field(b":path", Some(b"/\0")),
        with_pseudo_field(b":path", None),
        with_pseudo_field(b":scheme", None),
        with_pseudo_field(b":scheme", Some(b"http://evil/?")),
        with_pseudo_field(b":scheme", Some(b"")),
        with_pseudo_field(b":authority", Some(b"a.example\r\nx: y")),
        with_pseudo_field(b":authority", Some(b"user@a.example")),
        with_pseudo_field(b":authority", Some(b"a.example/evil")),
        with_pseudo_field(b":authority", Some(b"a.example, evil")),
        with_pseudo_field(b":authority", Some(b"")),
        with_pseudo_field(b":authority", None),
    ];
    let all = INVALID_FIELDS.iter().map(|fields| with_fields(fields)).chain(pseudo);
    for fields in all {
        let printable: Vec<_> = fields
            .iter()
            .map(|(name, value)| [name.escape_ascii(), value.escape_ascii()].map(|e| e.to_string()))
            .collect();
        let end = RawH2Client::open(gapless.address).send_request(&fields, &[]);
        assert!(is_refused(&end), "{printable:?}: {end:?}");
        let seen = endpoint.requests();
        assert!(seen.is_empty(), "{printable:?} reached it as {:?}", seen[0].head);
    }
}

#[test]
fn content_length_mismatch_is_rejected() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let mut request = with_pseudo_field(b":method", Some(b"POST"));
    request.push((b"content-length", b"5"));
    let smuggled = b"hello GET /evil HTTP/1.1\r\nhost: a\r\n\r\n";
    let bodies: [&[&[u8]]; 5] =
        [&[b"abc"], &[b""], &[smuggled], &[b"hello", b"!"], &[b"he", b"l", b""]];
    for body in bodies {
        let end = RawH2Client::open(gapless.address).send_request(&request, body);
        assert!(is_refused(&end), "{body:?}: {end:?}");
    }
    assert!(endpoint.requests().is_empty(), "{:?}", endpoint.requests());
    let mut frames = RawH2Client::open(gapless.address);
    assert_eq!(frames.send_request(&request, &[b"he", b"", b"llo"]), StreamEnd::Response(200));
    assert_eq!(endpoint.requests()[0].body, b"hello");
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up");
}

#[test]
fn http2_body_is_never_parsed_as_a_request() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let request = with_pseudo_field(b":method", Some(b"POST"));
    let body = b"0\r\n\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut frames = RawH2Client::open(gapless.address);
    assert_eq!(frames.send_request(&request, &[body]), StreamEnd::Response(200));
    assert_eq!(
        frames.send_request(&VALID_REQUEST, &[body]),
        StreamEnd::Response(200),
        "a GET with a body"
    );
    let seen = endpoint.requests();
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert_eq!(request.head.field("transfer-encoding"), Some("chunked"));
        assert_eq!(request.body, body);
    }
}

#[test]
fn concurrent_streams_are_limited() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    endpoint.set_mode(ResponseMode::Hang);
    let mut frames = RawH2Client::open(gapless.address);
    for _ in 0..100 {
        let stream = frames.next_stream_id();
        let request =
            encode_frame(HEADERS, END_HEADERS | END_STREAM, stream, &encode_fields(&VALID_REQUEST));
        frames.client.send(request).expect("sent");
    }
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(frames.send_request(&VALID_REQUEST, &[]), StreamEnd::Reset(REFUSED_STREAM));
    eventually("all of the others", DEFAULT_TIMEOUT, || endpoint.requests().len() == 100);
}

/// Asserts that an honest client is served.
#[track_caller]
fn assert_good_client_is_served(address: std::net::SocketAddr, endpoint: &TestEndpoint) {
    endpoint.set_mode(ResponseMode::Ok);
    assert_eq!(TestClient::open(address).get("/").status, 200);
    assert_eq!(
        RawH2Client::open(address).send_request(&VALID_REQUEST, &[]),
        StreamEnd::Response(200)
    );
}

#[test]
fn rapid_reset_closes_the_connection() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    endpoint.set_mode(ResponseMode::Hang);
    let mut frames = RawH2Client::open(gapless.address);
    let fields = encode_fields(&VALID_REQUEST);
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        let stream = frames.next_stream_id();
        bytes.extend(encode_frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
        bytes.extend(encode_frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let _ = frames.client.send(bytes);
    const ENHANCE_YOUR_CALM: u32 = 11;
    assert_eq!(frames.stream_end(0), StreamEnd::ConnectionClosed(Some(ENHANCE_YOUR_CALM)));
    assert!(endpoint.requests().len() < 1_000, "{}", endpoint.requests().len());
    assert_good_client_is_served(gapless.address, &endpoint);
}

/// Each request is dispatched before it is reset, so a count of undispatched resets does not find
/// it.
#[test]
fn paced_rapid_reset_closes_the_connection() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    endpoint.set_mode(ResponseMode::Hang);
    let mut frames = RawH2Client::open(gapless.address);
    let fields = encode_fields(&VALID_REQUEST);
    for _ in 0..10_000 {
        let stream = frames.next_stream_id();
        let sent =
            frames.client.send(encode_frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
        if sent.is_err() || frames.wait_for_ping().is_err() {
            break;
        }
        let reset = encode_frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        if frames.client.send(reset).is_err() {
            break;
        }
    }
    assert_eq!(frames.stream_end(0), StreamEnd::ConnectionClosed(None), "it was cut");
    let seen = endpoint.requests().len();
    assert!((100..1_000).contains(&seen), "{seen}");
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up");
    assert_good_client_is_served(gapless.address, &endpoint);
}

/// Streams that the client makes the proxy reset by violations (CVE-2025-8671).
#[test]
fn made_you_reset_closes_the_connection() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    endpoint.set_mode(ResponseMode::Hang);
    let mut frames = RawH2Client::open(gapless.address);
    let fields = encode_fields(&VALID_REQUEST);
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        let stream = frames.next_stream_id();
        bytes.extend(encode_frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
        // A window increment of zero.
        bytes.extend(encode_frame(8, 0, stream, &[0; 4]));
    }
    let _ = frames.client.send(bytes);
    assert!(matches!(frames.stream_end(0), StreamEnd::ConnectionClosed(_)));
    assert!(endpoint.requests().len() < 1_000, "{}", endpoint.requests().len());
    assert_good_client_is_served(gapless.address, &endpoint);
}

#[test]
fn continuation_flood_closes_the_connection() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let rss_before_kib = gapless.rss_kib();
    for fields in [encode_fields(&[(b"x-flood", &[b'x'; 8_000])]), Vec::new()] {
        let mut frames = RawH2Client::open(gapless.address);
        let stream = frames.next_stream_id();
        let headers = encode_frame(HEADERS, END_STREAM, stream, &encode_fields(&VALID_REQUEST));
        let mut sent = headers.len();
        frames.client.send(headers).expect("sent");
        let more = encode_frame(CONTINUATION, 0, stream, &fields);
        let is_cut = (0..1_000_000).any(|_| {
            sent += more.len();
            frames.client.send(&more).is_err()
        });
        assert!(is_cut, "{sent} bytes were taken");
        assert!(matches!(frames.stream_end(stream), StreamEnd::ConnectionClosed(_)));
    }
    assert!(endpoint.requests().is_empty());
    assert!(
        gapless.rss_kib() < rss_before_kib + 16 * 1024,
        "{rss_before_kib} {}",
        gapless.rss_kib()
    );
    assert_good_client_is_served(gapless.address, &endpoint);
}

/// One long field referenced repeatedly by its index: small on the wire, large when decoded.
#[test]
fn hpack_bomb_is_rejected() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let mut frames = RawH2Client::open(gapless.address);
    let stream = frames.next_stream_id();
    let mut fields = encode_fields(&VALID_REQUEST);
    // Literal with indexing: a name of one byte, a value of 127 + 57 + 22 * 128 = 3,000.
    fields.extend([0x40, 1, b'x', 127, 0x80 | 57, 22]);
    fields.extend([b'v'; 3_000]);
    fields.extend([0xbe; 10_000]);
    let _ = frames.client.send(encode_frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
    let end = frames.stream_end(stream);
    assert!(is_refused(&end), "{end:?}");
    assert!(endpoint.requests().is_empty());
    assert_good_client_is_served(gapless.address, &endpoint);
}

#[test]
fn split_cookie_fields_count_toward_the_field_limit() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let cookies = [(&b"cookie"[..], &b"a=b"[..]); 200];
    let end = RawH2Client::open(gapless.address).send_request(&with_fields(&cookies), &[]);
    assert_eq!(end, StreamEnd::Response(431));
    assert!(endpoint.requests().is_empty());
}

#[test]
fn control_frame_floods_do_not_delay_other_clients() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let rss_before_kib = gapless.rss_kib();
    let flood = [
        encode_frame(super::http2_frames::PING, 0, 0, b"01234567"),
        encode_frame(super::http2_frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        encode_frame(super::http2_frames::DATA, 0, 1, b""),
        encode_frame(2, 0, 1, &[0, 0, 0, 0, 1]),
    ];
    std::thread::scope(|scope| {
        for flood_frame in &flood {
            scope.spawn(|| {
                let mut frames = RawH2Client::open(gapless.address);
                let stream = frames.next_stream_id();
                let headers =
                    encode_frame(HEADERS, END_HEADERS, stream, &encode_fields(&VALID_REQUEST));
                let _ = frames.client.send(headers);
                let batch = flood_frame.repeat(1_000);
                // Responses are not read.
                let _ = frames.client.wire.stream().set_write_timeout(Some(Duration::from_secs(2)));
                for _ in 0..200 {
                    if frames.client.send(&batch).is_err() {
                        break;
                    }
                }
            });
        }
        for _ in 0..20 {
            assert_eq!(TestClient::open(gapless.address).get("/").status, 200);
        }
    });
    eventually("little was kept", DEFAULT_TIMEOUT, || {
        gapless.rss_kib() < rss_before_kib + 64 * 1024
    });
    assert_good_client_is_served(gapless.address, &endpoint);
}
