//! What RFC 9113 and RFC 7541 demand of a server: most of it the library keeps, and this sees that it
//! does as it is set up here. What it leaves to us is in [`super::injection`] and [`super::http2`].

use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, Frames, GOAWAY, HEADERS, PING,
    RST_STREAM, SETTINGS, block, frame,
};
use super::plain;
use crate::support::config::Config;

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

/// Codes of errors (RFC 9113 7).
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

/// What is said of a stream that is over.
const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL];

type Case = (&'static str, Vec<u8>, &'static [u32]);

fn fields(method: &[u8]) -> Vec<u8> {
    block(&[(b":method", method), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")])
}

/// A request that is over.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(b"GET"))
}

/// A request whose body is to follow.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &fields(b"POST"))
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// A block of fields as it lies on the wire, as a whole request.
fn raw(bytes: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, bytes)
}

fn after(before: &[u8], then: &[u8]) -> Vec<u8> {
    [before, then].concat()
}

/// Frames on the wrong stream.
fn streams() -> Vec<Case> {
    let head = fields(b"GET");
    let whole = END_HEADERS | END_STREAM;
    vec![
        ("5.1 DATA on an idle stream", frame(DATA, 0, 1, b"x"), &[PROTOCOL]),
        ("5.1 RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), &[PROTOCOL]),
        ("5.1 WINDOW_UPDATE on an idle stream", window(1, 1), &[PROTOCOL]),
        ("5.1 DATA after the end", after(&get(1), &frame(DATA, 0, 1, b"x")), &[STREAM_CLOSED]),
        ("5.1 HEADERS after the end", after(&get(1), &get(1)), CLOSED),
        ("5.1.1 an even stream", get(2), &[PROTOCOL]),
        ("5.1.1 a lower stream", after(&get(5), &get(3)), CLOSED),
        ("6.1 DATA on no stream", after(&post(1), &frame(DATA, 0, 0, b"x")), &[PROTOCOL]),
        ("6.2 HEADERS on no stream", frame(HEADERS, whole, 0, &head), &[PROTOCOL]),
        ("6.3 PRIORITY on no stream", frame(PRIORITY, 0, 0, &[0; 5]), &[PROTOCOL]),
        ("6.4 RST_STREAM on no stream", frame(RST_STREAM, 0, 0, &[0; 4]), &[PROTOCOL]),
        ("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1, b""), &[PROTOCOL]),
        ("6.7 PING on a stream", frame(PING, 0, 1, &[0; 8]), &[PROTOCOL]),
        ("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), &[PROTOCOL]),
    ]
}

/// Frames of the wrong size, or of a kind that no client has.
fn sizes() -> Vec<Case> {
    let open = |kind, flags, payload: &[u8]| after(&post(1), &frame(kind, flags, 1, payload));
    let padded = frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[9, 0x82]);
    vec![
        ("4.2 beyond SETTINGS_MAX_FRAME_SIZE", open(DATA, 0, &[0; 16_385]), &[FRAME_SIZE]),
        ("6.1 more padding than frame", open(DATA, PADDED, &[9, 1]), &[PROTOCOL]),
        ("6.2 more padding than frame", padded, &[PROTOCOL]),
        ("6.3 PRIORITY", open(PRIORITY, 0, &[0; 4]), &[FRAME_SIZE]),
        ("6.4 RST_STREAM", open(RST_STREAM, 0, &[0; 3]), &[FRAME_SIZE]),
        ("6.5 half a setting", frame(SETTINGS, 0, 0, &[0; 3]), &[FRAME_SIZE]),
        ("6.5 an acknowledgement", frame(SETTINGS, ACK, 0, &[0, 3, 0, 0, 0, 1]), &[FRAME_SIZE]),
        ("6.6 PUSH_PROMISE", open(PUSH_PROMISE, END_HEADERS, &[0, 0, 0, 2, 0x82]), &[PROTOCOL]),
        ("6.7 PING", frame(PING, 0, 0, &[0; 6]), &[FRAME_SIZE]),
        ("6.9 WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), &[FRAME_SIZE]),
    ]
}

/// Windows and settings that nobody may have.
fn windows() -> Vec<Case> {
    let many: Vec<u8> = (0..6).flat_map(|_| frame(DATA, 0, 1, &[0; 16_384])).collect();
    let grown = after(&window(1, 0x7fff_0000), &setting(4, 0x7fff_ffff));
    vec![
        ("6.5.2 ENABLE_PUSH", setting(2, 2), &[PROTOCOL]),
        ("6.5.2 INITIAL_WINDOW_SIZE", setting(4, 0x8000_0000), &[FLOW_CONTROL]),
        ("6.5.2 MAX_FRAME_SIZE too small", setting(5, 16_383), &[PROTOCOL]),
        ("6.5.2 MAX_FRAME_SIZE too large", setting(5, 16_777_216), &[PROTOCOL]),
        ("6.9 by nothing", window(0, 0), &[PROTOCOL]),
        ("6.9 by nothing, of a stream", after(&post(1), &window(1, 0)), &[PROTOCOL]),
        ("6.9.1 beyond its bound", window(0, 0x7fff_ffff), &[FLOW_CONTROL]),
        ("6.9.1 of a stream", after(&post(1), &window(1, 0x7fff_ffff)), &[FLOW_CONTROL]),
        ("6.9.1 more than the window", after(&post(1), &many), &[FLOW_CONTROL]),
        ("6.9.2 grown by a setting", after(&post(1), &grown), &[FLOW_CONTROL]),
    ]
}

/// Blocks of fields that are not in one piece.
fn pieces() -> Vec<Case> {
    let head = fields(b"GET");
    let begun = |then: Vec<u8>| after(&frame(HEADERS, 0, 1, &head), &then);
    let more = |stream| frame(CONTINUATION, END_HEADERS, stream, b"");
    vec![
        ("6.10 of nothing", frame(CONTINUATION, END_HEADERS, 1, &head), &[PROTOCOL]),
        ("6.10 on no stream", begun(more(0)), &[PROTOCOL]),
        ("6.10 of another stream", begun(more(3)), &[PROTOCOL]),
        ("6.10 something in between", begun(frame(PING, 0, 0, &[0; 8])), &[PROTOCOL]),
        ("6.10 after the end of the fields", after(&get(1), &more(1)), &[PROTOCOL]),
    ]
}

/// Fields that cannot be decoded (RFC 7541).
fn codes() -> Vec<Case> {
    let good = fields(b"GET");
    let behind = |bytes: &[u8]| raw(&after(&good, bytes));
    let large = after(&[0x3f, 0xe1, 0xff, 0x03], &good);
    vec![
        ("7541 2.3.3 an index of nothing", raw(&[0xff, 0x80, 0x01]), &[COMPRESSION]),
        ("7541 6.1 index 0", raw(&[0x80]), &[COMPRESSION]),
        ("7541 4.2 a table larger than allowed", raw(&large), &[COMPRESSION]),
        ("7541 4.2 a size that comes late", behind(&[0x20]), &[COMPRESSION]),
        ("7541 5.2 zeros", behind(&[0, 1, b'x', 0x81, 0x00]), &[COMPRESSION]),
        ("7541 5.2 a whole octet", behind(&[0, 1, b'x', 0x82, 0x1f, 0xff]), &[COMPRESSION]),
        ("7541 5.2 the end", behind(&[0, 1, b'x', 0x84, 255, 255, 255, 255]), &[COMPRESSION]),
        ("7541 5.2 a string that is cut", behind(&[0, 5, b'x']), &[COMPRESSION]),
    ]
}

/// Trailers that are none.
fn trailers() -> Vec<Case> {
    let trailer = |flags, fields: &[(&[u8], &[u8])]| {
        after(&post(1), &frame(HEADERS, END_HEADERS | flags, 1, &block(fields)))
    };
    vec![
        ("8.1 not the end", trailer(0, &[(b"x", b"y")]), &[PROTOCOL]),
        ("8.1 a pseudo-field", trailer(END_STREAM, &[(b":path", b"/")]), &[PROTOCOL]),
        ("8.2.1 upper case", trailer(END_STREAM, &[(b"X", b"y")]), &[PROTOCOL]),
        ("8.2.2 of the connection", trailer(END_STREAM, &[(b"connection", b"x")]), &[PROTOCOL]),
    ]
}

/// What the library does where the standard wants something else: errors by a less telling name, and a
/// field that it drops instead of refusing what has it.
const OTHERWISE: &[(&str, Fate)] = &[
    ("5.1 DATA after the end", Fate::Closed(Some(PROTOCOL))),
    ("6.3 PRIORITY", Fate::Closed(Some(PROTOCOL))),
    ("6.4 RST_STREAM", Fate::Closed(Some(PROTOCOL))),
    ("6.5 half a setting", Fate::Closed(Some(PROTOCOL))),
    ("6.5 an acknowledgement", Fate::Closed(Some(PROTOCOL))),
    ("6.7 PING", Fate::Closed(Some(PROTOCOL))),
    ("6.9 WINDOW_UPDATE", Fate::Closed(Some(PROTOCOL))),
    ("6.5.2 INITIAL_WINDOW_SIZE", Fate::Closed(Some(PROTOCOL))),
    ("7541 2.3.3 an index of nothing", Fate::Closed(Some(PROTOCOL))),
    ("7541 6.1 index 0", Fate::Closed(Some(PROTOCOL))),
    ("7541 4.2 a table larger than allowed", Fate::Closed(Some(PROTOCOL))),
    ("7541 4.2 a size that comes late", Fate::Closed(Some(PROTOCOL))),
    ("7541 5.2 zeros", Fate::Closed(Some(PROTOCOL))),
    ("7541 5.2 a whole octet", Fate::Closed(Some(PROTOCOL))),
    ("7541 5.2 the end", Fate::Closed(Some(PROTOCOL))),
    ("7541 5.2 a string that is cut", Fate::Closed(Some(PROTOCOL))),
    ("8.1 a pseudo-field", Fate::Answered(200)),
];

/// How it ends, whichever stream it is told of; what was answered may still end badly.
fn outcome(frames: &mut Frames) -> Fate {
    let code = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four"));
    let mut goaway = None;
    let mut is_answered = false;
    while let Ok(Some(got)) = frames.next() {
        match got.kind {
            GOAWAY => goaway = Some(code(&got.payload[4..8])),
            RST_STREAM => return Fate::Reset(code(&got.payload)),
            PING if is_answered => return Fate::Answered(200),
            HEADERS if !is_answered => {
                is_answered = true;
                let _ = frames.client.send(frame(PING, 0, 0, &[7; 8]));
            }
            _ => {}
        }
    }
    Fate::Closed(goaway)
}

#[test]
fn whoever_breaks_a_rule_is_told_which() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let mut kept = Frames::open(gapless.address);
    let all = [streams(), sizes(), windows(), pieces(), codes(), trailers()].concat();
    let mut otherwise = Vec::new();
    for (rule, bytes, codes) in all {
        let mut frames = Frames::open(gapless.address);
        let _ = frames.client.send(&bytes);
        let fate = outcome(&mut frames);
        let code = match fate {
            Fate::Reset(code) | Fate::Closed(Some(code)) => Some(code),
            Fate::Answered(_) | Fate::Closed(None) => None,
        };
        if !code.is_some_and(|code| codes.contains(&code)) {
            otherwise.push((rule, fate));
        }
        assert_eq!(kept.ask(&GOOD, &[]), Fate::Answered(200), "{rule}: another connection");
    }
    assert_eq!(otherwise, OTHERWISE);
    for seen in endpoint.seen() {
        let mut names = seen.head.fields.iter().map(|(name, _)| name.as_str());
        assert!(names.all(|name| name != "connection" && name != "x"), "{seen:?}");
    }
}

const GOOD: [(&[u8], &[u8]); 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/good")];

#[test]
fn what_is_not_known_is_passed_over() {
    let (_endpoint, gapless) = plain(&Config::new(), "");
    let depends = [0, 0, 0, 0, 15];
    for (what, bytes) in [
        ("4.1 an unknown flag", frame(PING, 0xfe, 0, &[0; 8])),
        ("4.1 a reserved bit", frame(PING, 0, 0x8000_0000, &[0; 8])),
        ("5.5 an unknown frame", frame(0x42, 0xff, 0, b"whatever")),
        ("5.5 an unknown frame on a stream", frame(0x42, 0xff, 1, b"whatever")),
        ("6.3 PRIORITY on an idle stream", frame(PRIORITY, 0, 9, &depends)),
        ("6.5.2 an unknown setting", setting(0x42, 7)),
        ("6.5.2 SETTINGS of nothing", frame(SETTINGS, 0, 0, b"")),
        ("6.7 an answer to no PING", frame(PING, ACK, 0, &[1; 8])),
        ("6.8 GOAWAY of a client", frame(GOAWAY, 0, 0, &[0; 8])),
    ] {
        let mut frames = Frames::open(gapless.address);
        frames.client.send(&bytes).expect("sent");
        assert_eq!(frames.ask(&GOOD, &[]), Fate::Answered(200), "{what}");
    }
    let mut frames = Frames::open(gapless.address);
    let stream = frames.stream();
    let padded = [&[4][..], &depends, &block(&GOOD), &[0; 4]].concat();
    let flags = END_HEADERS | END_STREAM | PADDED | WITH_PRIORITY;
    frames.client.send(frame(HEADERS, flags, stream, &padded)).expect("sent");
    assert_eq!(frames.fate(stream), Fate::Answered(200), "6.2 padding and priority");
    let stream = frames.stream();
    let (one, two) = (block(&GOOD[..2]), block(&GOOD[2..]));
    let pieces = [
        frame(HEADERS, END_STREAM, stream, &one),
        frame(CONTINUATION, 0, stream, b""),
        frame(CONTINUATION, END_HEADERS, stream, &two),
    ];
    frames.client.send(pieces.concat()).expect("sent");
    assert_eq!(frames.fate(stream), Fate::Answered(200), "6.10 fields in pieces");
}

#[test]
fn what_asks_for_an_answer_gets_one() {
    let (_endpoint, gapless) = plain(&Config::new(), "");
    let mut frames = Frames::open(gapless.address);
    frames.client.send(frame(PING, 0, 0, b"12345678")).expect("sent");
    let mut next = || frames.next().expect("read").expect("an answer");
    let mut pong = next();
    while pong.kind == WINDOW_UPDATE {
        pong = next();
    }
    assert_eq!((pong.kind, pong.flags, &pong.payload[..]), (PING, ACK, &b"12345678"[..]));
    let mut wire = crate::support::client::Client::open(gapless.address);
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, b"")].concat();
    wire.send(begin).expect("sent");
    let head = wire.wire.exactly(9).expect("a frame");
    assert_eq!(head[3], SETTINGS, "3.4 the server's preface comes first");
    let length = usize::from(head[1]) * 256 + usize::from(head[2]);
    let settings = wire.wire.exactly(length).expect("settings");
    let has = |id: u8, value: u32| {
        settings.chunks(6).any(|s| s[..2] == [0, id] && s[2..] == value.to_be_bytes())
    };
    assert!(has(3, 100) && has(4, 64 * 1024), "{settings:?}");
    assert!(has(8, 1), "RFC 8441 3: extended CONNECT");
    assert!(!settings.chunks(6).any(|s| s[..2] == [0, 2] && s[5] != 0), "nothing is pushed");
    let mut acknowledged = false;
    while !acknowledged {
        let head = wire.wire.exactly(9).expect("a frame");
        wire.wire.exactly(usize::from(head[1]) * 256 + usize::from(head[2])).expect("its payload");
        acknowledged = head[3] == SETTINGS && head[4] == ACK;
    }
}
