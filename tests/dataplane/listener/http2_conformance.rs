//! Requirements of RFC 9113 and RFC 7541 for a server. Most are met by the library; these tests
//! check
//! the configured whole. The others are in [`super::http2_attacks`] and [`super::http2`].

use super::http2_frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM,
    RawH2Client, SETTINGS, StreamEnd, encode_fields, encode_frame,
};
use super::start_cleartext;
use crate::support::config::ConfigBuilder;

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
const PADDED: u8 = 8;
const PRIORITY_FLAG: u8 = 0x20;

/// Codes of errors (RFC 9113 7).
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// The end of a stream.
const CLOSED_STREAM_ERRORS: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];

type ConformanceCase = (&'static str, Vec<u8>, &'static [u32]);

fn request_fields(method: &[u8]) -> Vec<u8> {
    encode_fields(&[
        (b":method", method),
        (b":scheme", b"http"),
        (b":authority", b"a"),
        (b":path", b"/"),
    ])
}

/// A complete request.
fn get_frame(stream: u32) -> Vec<u8> {
    encode_frame(HEADERS, END_HEADERS | END_STREAM, stream, &request_fields(b"GET"))
}

/// A request head with a body to follow.
fn post_frame(stream: u32) -> Vec<u8> {
    encode_frame(HEADERS, END_HEADERS, stream, &request_fields(b"POST"))
}

fn settings_frame(id: u16, value: u32) -> Vec<u8> {
    encode_frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window_update_frame(stream: u32, by: u32) -> Vec<u8> {
    encode_frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// A block of fields as it lies on the wire, as a whole request.
fn headers_frame(bytes: &[u8]) -> Vec<u8> {
    encode_frame(HEADERS, END_HEADERS | END_STREAM, 1, bytes)
}

fn concat_frames(before: &[u8], after: &[u8]) -> Vec<u8> {
    [before, after].concat()
}

/// Frames on the wrong stream.
fn wrong_stream_cases() -> Vec<ConformanceCase> {
    let head = request_fields(b"GET");
    let whole = END_HEADERS | END_STREAM;
    vec![
        ("5.1 DATA on an idle stream", encode_frame(DATA, 0, 1, b"x"), &[PROTOCOL_ERROR]),
        (
            "5.1 RST_STREAM on an idle stream",
            encode_frame(RST_STREAM, 0, 1, &[0; 4]),
            &[PROTOCOL_ERROR],
        ),
        ("5.1 WINDOW_UPDATE on an idle stream", window_update_frame(1, 1), &[PROTOCOL_ERROR]),
        (
            "5.1 DATA after the end",
            concat_frames(&get_frame(1), &encode_frame(DATA, 0, 1, b"x")),
            &[STREAM_CLOSED],
        ),
        (
            "5.1 HEADERS after the end",
            concat_frames(&get_frame(1), &get_frame(1)),
            CLOSED_STREAM_ERRORS,
        ),
        ("5.1.1 an even stream", get_frame(2), &[PROTOCOL_ERROR]),
        ("5.1.1 a lower stream", concat_frames(&get_frame(5), &get_frame(3)), CLOSED_STREAM_ERRORS),
        (
            "6.1 DATA on no stream",
            concat_frames(&post_frame(1), &encode_frame(DATA, 0, 0, b"x")),
            &[PROTOCOL_ERROR],
        ),
        ("6.2 HEADERS on no stream", encode_frame(HEADERS, whole, 0, &head), &[PROTOCOL_ERROR]),
        ("6.3 PRIORITY on no stream", encode_frame(PRIORITY, 0, 0, &[0; 5]), &[PROTOCOL_ERROR]),
        ("6.4 RST_STREAM on no stream", encode_frame(RST_STREAM, 0, 0, &[0; 4]), &[PROTOCOL_ERROR]),
        ("6.5 SETTINGS on a stream", encode_frame(SETTINGS, 0, 1, b""), &[PROTOCOL_ERROR]),
        ("6.7 PING on a stream", encode_frame(PING, 0, 1, &[0; 8]), &[PROTOCOL_ERROR]),
        ("6.8 GOAWAY on a stream", encode_frame(GOAWAY, 0, 1, &[0; 8]), &[PROTOCOL_ERROR]),
    ]
}

/// Frames of wrong sizes or of types that clients must not send.
fn wrong_size_cases() -> Vec<ConformanceCase> {
    let open = |kind, flags, payload: &[u8]| {
        concat_frames(&post_frame(1), &encode_frame(kind, flags, 1, payload))
    };
    let padded = encode_frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[9, 0x82]);
    vec![
        ("4.2 beyond SETTINGS_MAX_FRAME_SIZE", open(DATA, 0, &[0; 16_385]), &[FRAME_SIZE_ERROR]),
        ("6.1 more padding than frame", open(DATA, PADDED, &[9, 1]), &[PROTOCOL_ERROR]),
        ("6.2 more padding than frame", padded, &[PROTOCOL_ERROR]),
        ("6.3 PRIORITY", open(PRIORITY, 0, &[0; 4]), &[FRAME_SIZE_ERROR]),
        ("6.4 RST_STREAM", open(RST_STREAM, 0, &[0; 3]), &[FRAME_SIZE_ERROR]),
        ("6.5 half a setting", encode_frame(SETTINGS, 0, 0, &[0; 3]), &[FRAME_SIZE_ERROR]),
        (
            "6.5 an acknowledgement",
            encode_frame(SETTINGS, ACK, 0, &[0, 3, 0, 0, 0, 1]),
            &[FRAME_SIZE_ERROR],
        ),
        (
            "6.6 PUSH_PROMISE",
            open(PUSH_PROMISE, END_HEADERS, &[0, 0, 0, 2, 0x82]),
            &[PROTOCOL_ERROR],
        ),
        ("6.7 PING", encode_frame(PING, 0, 0, &[0; 6]), &[FRAME_SIZE_ERROR]),
        ("6.9 WINDOW_UPDATE", encode_frame(WINDOW_UPDATE, 0, 0, &[0; 3]), &[FRAME_SIZE_ERROR]),
    ]
}

/// Invalid windows and settings.
fn window_cases() -> Vec<ConformanceCase> {
    let many: Vec<u8> = (0..6).flat_map(|_| encode_frame(DATA, 0, 1, &[0; 16_384])).collect();
    let grown =
        concat_frames(&window_update_frame(1, 0x7fff_0000), &settings_frame(4, 0x7fff_ffff));
    vec![
        ("6.5.2 ENABLE_PUSH", settings_frame(2, 2), &[PROTOCOL_ERROR]),
        ("6.5.2 INITIAL_WINDOW_SIZE", settings_frame(4, 0x8000_0000), &[FLOW_CONTROL_ERROR]),
        ("6.5.2 MAX_FRAME_SIZE too small", settings_frame(5, 16_383), &[PROTOCOL_ERROR]),
        ("6.5.2 MAX_FRAME_SIZE too large", settings_frame(5, 16_777_216), &[PROTOCOL_ERROR]),
        ("6.9 by nothing", window_update_frame(0, 0), &[PROTOCOL_ERROR]),
        (
            "6.9 by nothing, of a stream",
            concat_frames(&post_frame(1), &window_update_frame(1, 0)),
            &[PROTOCOL_ERROR],
        ),
        ("6.9.1 beyond its bound", window_update_frame(0, 0x7fff_ffff), &[FLOW_CONTROL_ERROR]),
        (
            "6.9.1 of a stream",
            concat_frames(&post_frame(1), &window_update_frame(1, 0x7fff_ffff)),
            &[FLOW_CONTROL_ERROR],
        ),
        ("6.9.1 more than the window", concat_frames(&post_frame(1), &many), &[FLOW_CONTROL_ERROR]),
        ("6.9.2 grown by a setting", concat_frames(&post_frame(1), &grown), &[FLOW_CONTROL_ERROR]),
    ]
}

/// Blocks of fields that are not in one piece.
fn continuation_cases() -> Vec<ConformanceCase> {
    let head = request_fields(b"GET");
    let begun = |then: Vec<u8>| concat_frames(&encode_frame(HEADERS, 0, 1, &head), &then);
    let more = |stream| encode_frame(CONTINUATION, END_HEADERS, stream, b"");
    vec![
        ("6.10 of nothing", encode_frame(CONTINUATION, END_HEADERS, 1, &head), &[PROTOCOL_ERROR]),
        ("6.10 on no stream", begun(more(0)), &[PROTOCOL_ERROR]),
        ("6.10 of another stream", begun(more(3)), &[PROTOCOL_ERROR]),
        ("6.10 something in between", begun(encode_frame(PING, 0, 0, &[0; 8])), &[PROTOCOL_ERROR]),
        (
            "6.10 after the end of the fields",
            concat_frames(&get_frame(1), &more(1)),
            &[PROTOCOL_ERROR],
        ),
    ]
}

/// Fields that cannot be decoded (RFC 7541).
fn hpack_cases() -> Vec<ConformanceCase> {
    let good = request_fields(b"GET");
    let behind = |bytes: &[u8]| headers_frame(&concat_frames(&good, bytes));
    let large = concat_frames(&[0x3f, 0xe1, 0xff, 0x03], &good);
    vec![
        (
            "7541 2.3.3 an index of nothing",
            headers_frame(&[0xff, 0x80, 0x01]),
            &[COMPRESSION_ERROR],
        ),
        ("7541 6.1 index 0", headers_frame(&[0x80]), &[COMPRESSION_ERROR]),
        ("7541 4.2 a table larger than allowed", headers_frame(&large), &[COMPRESSION_ERROR]),
        ("7541 4.2 a size that comes late", behind(&[0x20]), &[COMPRESSION_ERROR]),
        ("7541 5.2 zeros", behind(&[0, 1, b'x', 0x81, 0x00]), &[COMPRESSION_ERROR]),
        ("7541 5.2 a whole octet", behind(&[0, 1, b'x', 0x82, 0x1f, 0xff]), &[COMPRESSION_ERROR]),
        ("7541 5.2 the end", behind(&[0, 1, b'x', 0x84, 255, 255, 255, 255]), &[COMPRESSION_ERROR]),
        ("7541 5.2 a string that is cut", behind(&[0, 5, b'x']), &[COMPRESSION_ERROR]),
    ]
}

/// Invalid trailers.
fn trailer_cases() -> Vec<ConformanceCase> {
    let trailer = |flags, fields: &[(&[u8], &[u8])]| {
        concat_frames(
            &post_frame(1),
            &encode_frame(HEADERS, END_HEADERS | flags, 1, &encode_fields(fields)),
        )
    };
    vec![
        ("8.1 not the end", trailer(0, &[(b"x", b"y")]), &[PROTOCOL_ERROR]),
        ("8.1 a pseudo-field", trailer(END_STREAM, &[(b":path", b"/")]), &[PROTOCOL_ERROR]),
        ("8.2.1 upper case", trailer(END_STREAM, &[(b"X", b"y")]), &[PROTOCOL_ERROR]),
        (
            "8.2.2 of the connection",
            trailer(END_STREAM, &[(b"connection", b"x")]),
            &[PROTOCOL_ERROR],
        ),
    ]
}

/// Deviations of the library from the standard: errors with a more general code, and a
/// field that it drops instead of refusing the request.
const KNOWN_DEVIATIONS: &[(&str, StreamEnd)] = &[
    ("5.1 DATA after the end", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("6.3 PRIORITY", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("6.4 RST_STREAM", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("6.5 half a setting", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("6.5 an acknowledgement", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("6.7 PING", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("6.9 WINDOW_UPDATE", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("6.5.2 INITIAL_WINDOW_SIZE", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("7541 2.3.3 an index of nothing", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("7541 6.1 index 0", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("7541 4.2 a table larger than allowed", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("7541 4.2 a size that comes late", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("7541 5.2 zeros", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("7541 5.2 a whole octet", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("7541 5.2 the end", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("7541 5.2 a string that is cut", StreamEnd::ConnectionClosed(Some(PROTOCOL_ERROR))),
    ("8.1 a pseudo-field", StreamEnd::Response(200)),
];

/// The first end of any stream; an answered stream may still end with an error.
fn connection_end(frames: &mut RawH2Client) -> StreamEnd {
    let code = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four"));
    let mut goaway = None;
    let mut is_answered = false;
    while let Ok(Some(received)) = frames.next_frame() {
        match received.kind {
            GOAWAY => goaway = Some(code(&received.payload[4..8])),
            RST_STREAM => return StreamEnd::Reset(code(&received.payload)),
            PING if is_answered => return StreamEnd::Response(200),
            HEADERS if !is_answered => {
                is_answered = true;
                let _ = frames.client.send(encode_frame(PING, 0, 0, &[7; 8]));
            }
            _ => {}
        }
    }
    StreamEnd::ConnectionClosed(goaway)
}

#[test]
fn protocol_violation_yields_the_rfc_error_code() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let mut other_connection = RawH2Client::open(gapless.address);
    let all = [
        wrong_stream_cases(),
        wrong_size_cases(),
        window_cases(),
        continuation_cases(),
        hpack_cases(),
        trailer_cases(),
    ]
    .concat();
    let mut deviations = Vec::new();
    for (rule, bytes, allowed_codes) in all {
        let mut frames = RawH2Client::open(gapless.address);
        let _ = frames.client.send(&bytes);
        let end = connection_end(&mut frames);
        let code = match end {
            StreamEnd::Reset(code) | StreamEnd::ConnectionClosed(Some(code)) => Some(code),
            StreamEnd::Response(_) | StreamEnd::ConnectionClosed(None) => None,
        };
        if !code.is_some_and(|code| allowed_codes.contains(&code)) {
            deviations.push((rule, end));
        }
        assert_eq!(
            other_connection.send_request(&VALID_REQUEST, &[]),
            StreamEnd::Response(200),
            "{rule}: another connection"
        );
    }
    assert_eq!(deviations, KNOWN_DEVIATIONS);
    for seen in endpoint.requests() {
        let mut names = seen.head.fields.iter().map(|(name, _)| name.as_str());
        assert!(names.all(|name| name != "connection" && name != "x"), "{seen:?}");
    }
}

const VALID_REQUEST: [(&[u8], &[u8]); 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/good")];

#[test]
fn unknown_frames_flags_and_settings_are_ignored() {
    let (_endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let priority = [0, 0, 0, 0, 15];
    for (what, bytes) in [
        ("4.1 an unknown flag", encode_frame(PING, 0xfe, 0, &[0; 8])),
        ("4.1 a reserved bit", encode_frame(PING, 0, 0x8000_0000, &[0; 8])),
        ("5.5 an unknown frame", encode_frame(0x42, 0xff, 0, b"whatever")),
        ("5.5 an unknown frame on a stream", encode_frame(0x42, 0xff, 1, b"whatever")),
        ("6.3 PRIORITY on an idle stream", encode_frame(PRIORITY, 0, 9, &priority)),
        ("6.5.2 an unknown setting", settings_frame(0x42, 7)),
        ("6.5.2 SETTINGS of nothing", encode_frame(SETTINGS, 0, 0, b"")),
        ("6.7 an answer to no PING", encode_frame(PING, ACK, 0, &[1; 8])),
        ("6.8 GOAWAY of a client", encode_frame(GOAWAY, 0, 0, &[0; 8])),
    ] {
        let mut frames = RawH2Client::open(gapless.address);
        frames.client.send(&bytes).expect("sent");
        assert_eq!(frames.send_request(&VALID_REQUEST, &[]), StreamEnd::Response(200), "{what}");
    }
    let mut frames = RawH2Client::open(gapless.address);
    let stream = frames.next_stream_id();
    let padded = [&[4][..], &priority, &encode_fields(&VALID_REQUEST), &[0; 4]].concat();
    let flags = END_HEADERS | END_STREAM | PADDED | PRIORITY_FLAG;
    frames.client.send(encode_frame(HEADERS, flags, stream, &padded)).expect("sent");
    assert_eq!(frames.stream_end(stream), StreamEnd::Response(200), "6.2 padding and priority");
    let stream = frames.next_stream_id();
    let (one, two) = (encode_fields(&VALID_REQUEST[..2]), encode_fields(&VALID_REQUEST[2..]));
    let pieces = [
        encode_frame(HEADERS, END_STREAM, stream, &one),
        encode_frame(CONTINUATION, 0, stream, b""),
        encode_frame(CONTINUATION, END_HEADERS, stream, &two),
    ];
    frames.client.send(pieces.concat()).expect("sent");
    assert_eq!(frames.stream_end(stream), StreamEnd::Response(200), "6.10 fields in pieces");
}

#[test]
fn ping_and_settings_are_acknowledged() {
    let (_endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let mut frames = RawH2Client::open(gapless.address);
    frames.client.send(encode_frame(PING, 0, 0, b"12345678")).expect("sent");
    let mut next = || frames.next_frame().expect("read").expect("an answer");
    let mut pong = next();
    while pong.kind == WINDOW_UPDATE {
        pong = next();
    }
    assert_eq!((pong.kind, pong.flags, &pong.payload[..]), (PING, ACK, &b"12345678"[..]));
    let mut client = crate::support::client::TestClient::open(gapless.address);
    let preface =
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &encode_frame(SETTINGS, 0, 0, b"")].concat();
    client.send(preface).expect("sent");
    let head = client.wire.read_exact(9).expect("a frame");
    assert_eq!(head[3], SETTINGS, "3.4 the server's preface comes first");
    let length = usize::from(head[1]) * 256 + usize::from(head[2]);
    let settings = client.wire.read_exact(length).expect("settings");
    let has_setting = |id: u8, value: u32| {
        settings.chunks(6).any(|s| s[..2] == [0, id] && s[2..] == value.to_be_bytes())
    };
    assert!(has_setting(3, 100) && has_setting(4, 64 * 1024), "{settings:?}");
    assert!(has_setting(8, 1), "RFC 8441 3: extended CONNECT");
    assert!(!settings.chunks(6).any(|s| s[..2] == [0, 2] && s[5] != 0), "nothing is pushed");
    let mut is_acknowledged = false;
    while !is_acknowledged {
        let head = client.wire.read_exact(9).expect("a frame");
        client
            .wire
            .read_exact(usize::from(head[1]) * 256 + usize::from(head[2]))
            .expect("its payload");
        is_acknowledged = head[3] == SETTINGS && head[4] == ACK;
    }
}
