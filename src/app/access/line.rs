//! A note as a line: JSON for machines, or the combined format that every tool reads.

use bytes::BytesMut;
use http::header::{HOST, HeaderMap, HeaderName, REFERER, USER_AGENT};
use http::{Request, Version};

use crate::config::model::{AccessLog, LogLines};

use super::note::{Fate, Note, Try};
use super::{redact, stamp};

/// Longest target that is written down.
const TARGET_BYTES: usize = 2 * 1024;

/// Longest value of any other kind.
const VALUE_BYTES: usize = 512;

/// Stands at the end of what was cut.
const CUT: &str = "…";

/// Writes the line of `note`; `scratch` is overwritten.
pub(super) fn write(out: &mut BytesMut, scratch: &mut Vec<u8>, note: &Note) {
    match note.manners.access_log.lines {
        LogLines::Json => json(out, scratch, note),
        LogLines::Combined => combined(out, scratch, note),
    }
    out.extend_from_slice(b"\n");
}

fn json(out: &mut BytesMut, scratch: &mut Vec<u8>, note: &Note) {
    let request = note.request.borrow();
    let spec = &note.manners.access_log;
    out.extend_from_slice(b"{\"time\":\"");
    stamp::rfc3339(out, note.unix_ms());
    out.extend_from_slice(b"\"");
    key(out, "client");
    quoted(out, note.from());
    key(out, "method");
    string(out, request.method().as_str().as_bytes(), VALUE_BYTES);
    key(out, "scheme");
    string(out, note.scheme.get().as_bytes(), VALUE_BYTES);
    key(out, "host");
    optional(out, host(&request), VALUE_BYTES);
    key(out, "path");
    string(out, target(&request, spec, scratch), TARGET_BYTES);
    key(out, "protocol");
    string(out, protocol(request.version()).as_bytes(), VALUE_BYTES);
    let tls = note.client.tls.as_deref();
    key(out, "tls_version");
    optional(out, tls.map(|tls| tls.version.as_bytes()), VALUE_BYTES);
    key(out, "sni");
    let sni = tls.and_then(|tls| tls.server_name.as_deref());
    optional(out, sni.map(str::as_bytes), VALUE_BYTES);
    key(out, "status");
    number(out, u64::from(note.status.get()));
    key(out, "bytes_in");
    number(out, note.read_bytes.get());
    key(out, "bytes_out");
    number(out, note.sent_bytes.get());
    key(out, "duration_ms");
    millis(out, note.elapsed().as_micros());
    key(out, "first_byte_ms");
    match note.first_byte.get() {
        Some(first_byte) => millis(out, first_byte.as_micros()),
        None => out.extend_from_slice(b"null"),
    }
    whereabouts(out, note);
    key(out, "reason");
    let word = note.ending.get().map_or("-", |ending| ending.as_str());
    string(out, word.as_bytes(), VALUE_BYTES);
    key(out, "request_id");
    let id = note.request_id.borrow();
    optional(out, Some(id.as_slice()).filter(|id| !id.is_empty()), VALUE_BYTES);
    let trace = note.trace.get();
    key(out, "trace_id");
    optional(out, trace.as_ref().map(|(trace, _)| trace.as_slice()), VALUE_BYTES);
    key(out, "span_id");
    optional(out, trace.as_ref().map(|(_, span)| span.as_slice()), VALUE_BYTES);
    key(out, "user_agent");
    optional(out, first(request.headers(), &USER_AGENT), VALUE_BYTES);
    extra(out, scratch, request.headers(), spec);
    out.extend_from_slice(b"}");
}

/// Where the request went.
fn whereabouts(out: &mut BytesMut, note: &Note) {
    for (name, of) in [("route", &note.route), ("pool", &note.pool)] {
        key(out, name);
        optional(out, of.borrow().as_ref().map(|name| name.as_bytes()), VALUE_BYTES);
    }
    let tries = note.tries.borrow();
    // The one that answered; where none did, the last one.
    let answered = tries.iter().rfind(|one| matches!(one.fate, Fate::Status(_)));
    let end = answered.or_else(|| tries.last());
    key(out, "endpoint");
    match end {
        Some(end) => quoted(out, end.endpoint),
        None => out.extend_from_slice(b"null"),
    }
    key(out, "zone");
    match end {
        Some(end) => quoted(out, &end.place),
        None => out.extend_from_slice(b"null"),
    }
    key(out, "attempts");
    number(out, u64::from(note.tries_counted.get()));
    key(out, "tries");
    out.extend_from_slice(b"[");
    for (index, one) in tries.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        attempt(out, one, note);
    }
    out.extend_from_slice(b"]");
}

fn attempt(out: &mut BytesMut, one: &Try, note: &Note) {
    out.extend_from_slice(b"{\"endpoint\":");
    quoted(out, one.endpoint);
    key(out, "outcome");
    match (one.fate.word(), one.fate.status()) {
        (None, Some(status)) => quoted(out, status),
        (word, _) => string(out, word.unwrap_or("-").as_bytes(), VALUE_BYTES),
    }
    key(out, "ms");
    millis(out, one.elapsed.unwrap_or_else(|| note.elapsed()).as_micros());
    out.extend_from_slice(b"}");
}

/// The fields that the operator has asked for.
fn extra(out: &mut BytesMut, scratch: &mut Vec<u8>, headers: &HeaderMap, spec: &AccessLog) {
    if spec.headers.is_empty() {
        return;
    }
    key(out, "headers");
    let mut mark: &[u8] = b"{";
    for name in &spec.headers {
        out.extend_from_slice(mark);
        mark = b",";
        string(out, name.as_str().as_bytes(), VALUE_BYTES);
        out.extend_from_slice(b":");
        optional(out, shown(headers, name, spec, scratch), VALUE_BYTES);
    }
    out.extend_from_slice(b"}");
}

fn combined(out: &mut BytesMut, scratch: &mut Vec<u8>, note: &Note) {
    let request = note.request.borrow();
    let spec = &note.manners.access_log;
    display(out, note.from());
    out.extend_from_slice(b" - - [");
    stamp::common(out, note.unix_ms());
    out.extend_from_slice(b"] \"");
    hex_escaped(out, request.method().as_str().as_bytes(), VALUE_BYTES);
    out.extend_from_slice(b" ");
    hex_escaped(out, target(&request, spec, scratch), TARGET_BYTES);
    out.extend_from_slice(b" ");
    out.extend_from_slice(protocol(request.version()).as_bytes());
    out.extend_from_slice(b"\" ");
    number(out, u64::from(note.status.get()));
    out.extend_from_slice(b" ");
    number(out, note.sent_bytes.get());
    for name in [REFERER, USER_AGENT] {
        out.extend_from_slice(b" \"");
        let value = shown(request.headers(), &name, spec, scratch).unwrap_or(b"-");
        hex_escaped(out, value, VALUE_BYTES);
        out.extend_from_slice(b"\"");
    }
}

fn host(request: &Request<()>) -> Option<&[u8]> {
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    authority.or_else(|| first(request.headers(), &HOST))
}

fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    headers.get(name).map(|value| value.as_bytes())
}

/// The target, as far as it may be shown.
fn target<'a>(request: &'a Request<()>, spec: &AccessLog, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).as_bytes();
    if !spec.redact_query {
        return target;
    }
    scratch.clear();
    redact::query(scratch, target);
    scratch
}

/// A field, as far as it may be shown: where somebody came from is a URL with a query too.
fn shown<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    spec: &AccessLog,
    scratch: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    let value = first(headers, name)?;
    if *name != REFERER || !spec.redact_query {
        return Some(value);
    }
    scratch.clear();
    redact::url(scratch, value);
    Some(scratch)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

fn key(out: &mut BytesMut, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn number(out: &mut BytesMut, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds with three digits behind the point.
fn millis(out: &mut BytesMut, us: u128) {
    let us = u64::try_from(us).unwrap_or(u64::MAX);
    number(out, us / 1_000);
    let rest = us % 1_000;
    let digit = |value: u64| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

/// Something of our own that needs no escapes.
fn display(out: &mut BytesMut, value: impl std::fmt::Display) {
    let _ = std::fmt::Write::write_fmt(out, format_args!("{value}"));
}

fn quoted(out: &mut BytesMut, value: impl std::fmt::Display) {
    out.extend_from_slice(b"\"");
    display(out, value);
    out.extend_from_slice(b"\"");
}

fn optional(out: &mut BytesMut, value: Option<&[u8]>, at_most: usize) {
    match value {
        Some(value) => string(out, value, at_most),
        None => out.extend_from_slice(b"null"),
    }
}

/// A JSON string (RFC 8259 7) of any bytes. What is not UTF-8 is replaced; control characters are
/// escaped, those that a terminal might obey too.
fn string(out: &mut BytesMut, bytes: &[u8], at_most: usize) {
    out.extend_from_slice(b"\"");
    let shown = &bytes[..bytes.len().min(at_most)];
    let is_plain = |b: &u8| matches!(b, b' '..=b'~') && *b != b'"' && *b != b'\\';
    if shown.iter().all(is_plain) {
        out.extend_from_slice(shown);
    } else {
        for chunk in shown.utf8_chunks() {
            chunk.valid().chars().for_each(|c| character(out, c));
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    if shown.len() < bytes.len() {
        out.extend_from_slice(CUT.as_bytes());
    }
    out.extend_from_slice(b"\"");
}

fn character(out: &mut BytesMut, c: char) {
    match c {
        '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
        c if c.is_control() => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&hex(c as u8));
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// As nginx and Apache escape: what is not printable ASCII, and what would end the field.
fn hex_escaped(out: &mut BytesMut, bytes: &[u8], at_most: usize) {
    for &byte in bytes.iter().take(at_most) {
        if matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\' {
            out.extend_from_slice(&[byte]);
        } else {
            out.extend_from_slice(b"\\x");
            out.extend_from_slice(&hex(byte));
        }
    }
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out);
        out.to_vec()
    }

    #[test]
    fn what_a_terminal_might_obey_is_escaped() {
        let text = written(|out| string(out, "a\u{1b}[2J\u{9b}\u{7f}\n\"\\é".as_bytes(), 64));
        let text = String::from_utf8(text).expect("text");
        assert_eq!(text, "\"a\\u001b[2J\\u009b\\u007f\\u000a\\\"\\\\é\"");
        let text = written(|out| hex_escaped(out, b"a\"\\\x1b\xff\n", 64));
        assert_eq!(text, b"a\\x22\\x5c\\x1b\\xff\\x0a");
    }

    #[test]
    fn times_have_three_digits_behind_the_point() {
        for (us, expected) in
            [(0, "0.000"), (7, "0.007"), (1_000, "1.000"), (61_234_567, "61234.567")]
        {
            assert_eq!(written(|out| millis(out, us)), expected.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_one_json_string_on_one_line(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            at_most in 1_usize..64,
        ) {
            let text = written(|out| string(out, &bytes, at_most));
            prop_assert!(text.iter().all(|&b| b >= b' '));
            let read: String = serde_json::from_slice(&text).expect("a JSON string");
            if let Ok(plain) = std::str::from_utf8(&bytes) && bytes.len() <= at_most {
                prop_assert_eq!(read, plain);
            }
            let text = written(|out| hex_escaped(out, &bytes, at_most));
            prop_assert!(text.iter().all(|b| (b' '..=b'~').contains(b) && *b != b'"'));
        }
    }
}
