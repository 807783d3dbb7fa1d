//! Formats an access record as a line: JSON, or the combined format of Apache and nginx.

use bytes::BytesMut;
use http::header::{HOST, HeaderMap, HeaderName, REFERER, USER_AGENT};
use http::{Request, Version};

use crate::config::model::{AccessLogConfig, AccessLogFormat};

use super::access_record::AccessRecord;
use super::attempt_record::{AttemptRecord, AttemptResult};
use super::{redact, timestamp};

/// Longest request target in a line.
const MAX_TARGET_BYTES: usize = 2 * 1024;

/// Longest value of any other field.
const MAX_VALUE_BYTES: usize = 512;

/// Marks the end of a truncated value.
const TRUNCATION_MARK: &str = "…";

/// Writes the line of `record`; overwrites `scratch`.
pub(super) fn write_line(out: &mut BytesMut, scratch: &mut Vec<u8>, record: &AccessRecord) {
    match record.http_policy.access_log.format {
        AccessLogFormat::Json => write_json(out, scratch, record),
        AccessLogFormat::Combined => write_combined(out, scratch, record),
    }
    out.extend_from_slice(b"\n");
}

fn write_json(out: &mut BytesMut, scratch: &mut Vec<u8>, record: &AccessRecord) {
    let request = record.request.borrow();
    let spec = &record.http_policy.access_log;
    out.extend_from_slice(b"{\"time\":\"");
    timestamp::write_rfc3339(out, record.unix_ms());
    out.extend_from_slice(b"\"");
    write_key(out, "client");
    write_quoted(out, record.client_ip());
    write_key(out, "method");
    write_string(out, request.method().as_str().as_bytes(), MAX_VALUE_BYTES);
    write_key(out, "scheme");
    write_string(out, record.scheme.get().as_bytes(), MAX_VALUE_BYTES);
    write_key(out, "host");
    write_optional_string(out, request_host(&request), MAX_VALUE_BYTES);
    write_key(out, "path");
    write_string(out, shown_target(&request, spec, scratch), MAX_TARGET_BYTES);
    write_key(out, "protocol");
    write_string(out, protocol(request.version()).as_bytes(), MAX_VALUE_BYTES);
    let tls = record.client.tls.as_deref();
    write_key(out, "tls_version");
    write_optional_string(out, tls.map(|tls| tls.version.as_bytes()), MAX_VALUE_BYTES);
    write_key(out, "sni");
    let sni = tls.and_then(|tls| tls.server_name.as_deref());
    write_optional_string(out, sni.map(str::as_bytes), MAX_VALUE_BYTES);
    write_key(out, "status");
    write_number(out, u64::from(record.status.get()));
    write_key(out, "bytes_in");
    write_number(out, record.read_bytes.get());
    write_key(out, "bytes_out");
    write_number(out, record.sent_bytes.get());
    write_key(out, "duration_ms");
    write_ms(out, record.elapsed().as_micros());
    write_key(out, "first_byte_ms");
    match record.first_byte.get() {
        Some(first_byte) => write_ms(out, first_byte.as_micros()),
        None => out.extend_from_slice(b"null"),
    }
    write_destination(out, record);
    write_key(out, "reason");
    let word = record.ending.get().map_or("-", |ending| ending.as_str());
    write_string(out, word.as_bytes(), MAX_VALUE_BYTES);
    write_key(out, "request_id");
    let id = record.request_id.borrow();
    write_optional_string(out, Some(id.as_slice()).filter(|id| !id.is_empty()), MAX_VALUE_BYTES);
    let trace = record.trace.get();
    write_key(out, "trace_id");
    write_optional_string(out, trace.as_ref().map(|(trace, _)| trace.as_slice()), MAX_VALUE_BYTES);
    write_key(out, "span_id");
    write_optional_string(out, trace.as_ref().map(|(_, span)| span.as_slice()), MAX_VALUE_BYTES);
    write_key(out, "user_agent");
    write_optional_string(out, first_value(request.headers(), &USER_AGENT), MAX_VALUE_BYTES);
    write_headers(out, scratch, request.headers(), spec);
    out.extend_from_slice(b"}");
}

/// Writes the route, the pool, the endpoint and the attempts.
fn write_destination(out: &mut BytesMut, record: &AccessRecord) {
    for (name, cell) in [("route", &record.route), ("pool", &record.pool)] {
        write_key(out, name);
        write_optional_string(
            out,
            cell.borrow().as_ref().map(|name| name.as_bytes()),
            MAX_VALUE_BYTES,
        );
    }
    let attempts = record.attempts.borrow();
    // The attempt that was answered, or else the last one.
    let answered = attempts.iter().rfind(|one| matches!(one.result, AttemptResult::Status(_)));
    let shown_attempt = answered.or_else(|| attempts.last());
    write_key(out, "endpoint");
    match shown_attempt {
        Some(attempt) => write_quoted(out, attempt.endpoint),
        None => out.extend_from_slice(b"null"),
    }
    write_key(out, "zone");
    match shown_attempt {
        Some(attempt) => write_quoted(out, &attempt.place),
        None => out.extend_from_slice(b"null"),
    }
    write_key(out, "attempts");
    write_number(out, u64::from(record.attempt_count.get()));
    write_key(out, "tries");
    out.extend_from_slice(b"[");
    for (index, attempt) in attempts.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        write_attempt(out, attempt, record);
    }
    out.extend_from_slice(b"]");
}

fn write_attempt(out: &mut BytesMut, attempt: &AttemptRecord, record: &AccessRecord) {
    out.extend_from_slice(b"{\"endpoint\":");
    write_quoted(out, attempt.endpoint);
    write_key(out, "outcome");
    match (attempt.result.reason_word(), attempt.result.status()) {
        (None, Some(status)) => write_quoted(out, status),
        (word, _) => write_string(out, word.unwrap_or("-").as_bytes(), MAX_VALUE_BYTES),
    }
    write_key(out, "ms");
    write_ms(out, attempt.elapsed.unwrap_or_else(|| record.elapsed()).as_micros());
    out.extend_from_slice(b"}");
}

/// Writes the configured request headers.
fn write_headers(
    out: &mut BytesMut,
    scratch: &mut Vec<u8>,
    headers: &HeaderMap,
    spec: &AccessLogConfig,
) {
    if spec.headers.is_empty() {
        return;
    }
    write_key(out, "headers");
    let mut separator: &[u8] = b"{";
    for name in &spec.headers {
        out.extend_from_slice(separator);
        separator = b",";
        write_string(out, name.as_str().as_bytes(), MAX_VALUE_BYTES);
        out.extend_from_slice(b":");
        write_optional_string(out, shown_header(headers, name, spec, scratch), MAX_VALUE_BYTES);
    }
    out.extend_from_slice(b"}");
}

fn write_combined(out: &mut BytesMut, scratch: &mut Vec<u8>, record: &AccessRecord) {
    let request = record.request.borrow();
    let spec = &record.http_policy.access_log;
    write_display(out, record.client_ip());
    out.extend_from_slice(b" - - [");
    timestamp::write_common_log(out, record.unix_ms());
    out.extend_from_slice(b"] \"");
    write_hex_escaped(out, request.method().as_str().as_bytes(), MAX_VALUE_BYTES);
    out.extend_from_slice(b" ");
    write_hex_escaped(out, shown_target(&request, spec, scratch), MAX_TARGET_BYTES);
    out.extend_from_slice(b" ");
    out.extend_from_slice(protocol(request.version()).as_bytes());
    out.extend_from_slice(b"\" ");
    write_number(out, u64::from(record.status.get()));
    out.extend_from_slice(b" ");
    write_number(out, record.sent_bytes.get());
    for name in [REFERER, USER_AGENT] {
        out.extend_from_slice(b" \"");
        let value = shown_header(request.headers(), &name, spec, scratch).unwrap_or(b"-");
        write_hex_escaped(out, value, MAX_VALUE_BYTES);
        out.extend_from_slice(b"\"");
    }
}

fn request_host(request: &Request<()>) -> Option<&[u8]> {
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    authority.or_else(|| first_value(request.headers(), &HOST))
}

fn first_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    headers.get(name).map(|value| value.as_bytes())
}

/// The request target, redacted as configured.
fn shown_target<'a>(
    request: &'a Request<()>,
    spec: &AccessLogConfig,
    scratch: &'a mut Vec<u8>,
) -> &'a [u8] {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).as_bytes();
    if !spec.should_redact_query {
        return target;
    }
    scratch.clear();
    redact::redact_query(scratch, target);
    scratch
}

/// A header value, redacted as configured: Referer is a URL with a query.
fn shown_header<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    spec: &AccessLogConfig,
    scratch: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    let value = first_value(headers, name)?;
    if *name != REFERER || !spec.should_redact_query {
        return Some(value);
    }
    scratch.clear();
    redact::redact_url(scratch, value);
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

fn write_key(out: &mut BytesMut, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_number(out: &mut BytesMut, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds with three decimals.
fn write_ms(out: &mut BytesMut, us: u128) {
    let us = u64::try_from(us).unwrap_or(u64::MAX);
    write_number(out, us / 1_000);
    let rest = us % 1_000;
    let digit = |value: u64| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

/// Writes a value that needs no escapes.
fn write_display(out: &mut BytesMut, value: impl std::fmt::Display) {
    let _ = std::fmt::Write::write_fmt(out, format_args!("{value}"));
}

fn write_quoted(out: &mut BytesMut, value: impl std::fmt::Display) {
    out.extend_from_slice(b"\"");
    write_display(out, value);
    out.extend_from_slice(b"\"");
}

fn write_optional_string(out: &mut BytesMut, value: Option<&[u8]>, max_bytes: usize) {
    match value {
        Some(value) => write_string(out, value, max_bytes),
        None => out.extend_from_slice(b"null"),
    }
}

/// A JSON string (RFC 8259 7) of arbitrary bytes. Replaces invalid UTF-8 and escapes all control
/// characters, including those that terminals interpret.
fn write_string(out: &mut BytesMut, bytes: &[u8], max_bytes: usize) {
    out.extend_from_slice(b"\"");
    let shown = &bytes[..bytes.len().min(max_bytes)];
    let is_plain = |b: &u8| matches!(b, b' '..=b'~') && *b != b'"' && *b != b'\\';
    if shown.iter().all(is_plain) {
        out.extend_from_slice(shown);
    } else {
        for chunk in shown.utf8_chunks() {
            chunk.valid().chars().for_each(|c| write_escaped_char(out, c));
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    if shown.len() < bytes.len() {
        out.extend_from_slice(TRUNCATION_MARK.as_bytes());
    }
    out.extend_from_slice(b"\"");
}

fn write_escaped_char(out: &mut BytesMut, c: char) {
    match c {
        '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
        c if c.is_control() => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&hex(c as u8));
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Escapes as nginx and Apache do: everything but printable ASCII, and the field's delimiters.
fn write_hex_escaped(out: &mut BytesMut, bytes: &[u8], max_bytes: usize) {
    for &byte in bytes.iter().take(max_bytes) {
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
    fn terminal_control_characters_are_escaped() {
        let text = written(|out| write_string(out, "a\u{1b}[2J\u{9b}\u{7f}\n\"\\é".as_bytes(), 64));
        let text = String::from_utf8(text).expect("text");
        assert_eq!(text, "\"a\\u001b[2J\\u009b\\u007f\\u000a\\\"\\\\é\"");
        let text = written(|out| write_hex_escaped(out, b"a\"\\\x1b\xff\n", 64));
        assert_eq!(text, b"a\\x22\\x5c\\x1b\\xff\\x0a");
    }

    #[test]
    fn milliseconds_have_three_decimals() {
        for (us, expected) in
            [(0, "0.000"), (7, "0.007"), (1_000, "1.000"), (61_234_567, "61234.567")]
        {
            assert_eq!(written(|out| write_ms(out, us)), expected.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_make_one_json_string(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            at_most in 1_usize..64,
        ) {
            let text = written(|out| write_string(out, &bytes, at_most));
            prop_assert!(text.iter().all(|&b| b >= b' '));
            let read: String = serde_json::from_slice(&text).expect("a JSON string");
            if let Ok(plain) = std::str::from_utf8(&bytes) && bytes.len() <= at_most {
                prop_assert_eq!(read, plain);
            }
            let text = written(|out| write_hex_escaped(out, &bytes, at_most));
            prop_assert!(text.iter().all(|b| (b' '..=b'~').contains(b) && *b != b'"'));
        }
    }
}
