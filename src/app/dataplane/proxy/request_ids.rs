//! Identifiers of a request: its request id and its trace context (W3C Trace Context). Generating
//! them allocates nothing.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use bytes::BytesMut;
use fastrand::Rng;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::config::model::{HeaderPolicy, TraceSampling};
use crate::net::h1;

/// The request id, on requests to endpoints and on local replies.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) const TRACEPARENT: &str = "traceparent";

/// Longest request id that is accepted from a proxy.
const MAX_ID_BYTES: usize = 128;

/// Length of a version 00 `traceparent`.
const TRACEPARENT_BYTES: usize = 55;

/// Defined flags: sampled, and random trace id.
const KNOWN_FLAGS: u8 = 0b11;

/// The spans of the trace are recorded.
const SAMPLED_FLAG: u8 = 0b1;

/// A span id in hex; never all zeros.
pub type SpanId = [u8; 16];

/// The trace id and the span id of the request, in hex.
pub type TraceIds = ([u8; 32], SpanId);

/// Generates the ids of one worker. They are not secret, but must be unique over workers and
/// processes: a salt from the system's randomness ensures that.
#[derive(Debug)]
pub struct IdGenerator {
    rng: RefCell<Rng>,
    salt: u64,
}

impl Default for IdGenerator {
    fn default() -> Self {
        let draw = |input: u8| RandomState::new().hash_one(input);
        Self { rng: RefCell::new(Rng::with_seed(draw(0))), salt: draw(1) }
    }
}

impl IdGenerator {
    fn trace_id(&self) -> [u8; 32] {
        let mut rng = self.rng.borrow_mut();
        let (high, low) = (rng.u64(..) ^ self.salt, rng.u64(1..));
        let mut text = [0; 32];
        write_hex(&mut text[..16], high);
        write_hex(&mut text[16..], low);
        text
    }

    /// A new span id.
    pub fn span_id(&self) -> SpanId {
        let mut text = [0; 16];
        write_hex(&mut text, self.rng.borrow_mut().u64(1..));
        text
    }
}

fn write_hex(out: &mut [u8], value: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (index, digit) in out.iter_mut().rev().enumerate() {
        *digit = DIGITS[(value >> (4 * index) & 15) as usize];
    }
}

/// The identifiers of one request.
#[derive(Debug)]
pub(super) struct RequestIds<'a> {
    request_id: Option<RequestId<'a>>,
    pub(super) trace: Option<TraceContext>,
}

#[derive(Debug)]
enum RequestId<'a> {
    /// From a trusted proxy.
    Received(&'a str),
    Generated([u8; 32]),
}

/// A request's place in a trace.
#[derive(Debug)]
pub(super) struct TraceContext {
    pub(super) id: [u8; 32],
    /// The request's own span, the parent of its attempts.
    pub(super) span: SpanId,
    flags: u8,
    /// The trace began before this request.
    is_continued: bool,
}

/// The trace context that a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    id: [u8; 32],
    /// The span that the request belongs to.
    pub span: SpanId,
    flags: u8,
}

impl TraceParent {
    /// The `traceparent` in `headers`; an invalid or repeated one is ignored (W3C Trace Context
    /// 3.2).
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let only = values.next().filter(|_| values.next().is_none());
        only.and_then(|value| parse_traceparent(value.as_bytes()))
    }
}

/// Whether the spans of a request are exported: by the sampled flag of its trace, or by `draw` for
/// a new trace.
pub(super) fn is_sampled(
    sampling: TraceSampling,
    headers: &HeaderMap,
    draw: impl FnOnce() -> u32,
) -> bool {
    match TraceParent::from_headers(headers) {
        Some(parent) => parent.flags & SAMPLED_FLAG != 0,
        None => sampling.is_sampled(draw()),
    }
}

impl<'a> RequestIds<'a> {
    /// Takes identifiers from `headers` or generates them. Request ids are accepted from trusted
    /// proxies only, traces from all clients. `sampled` is `None` where spans are not exported.
    pub(super) fn new(
        ids: &IdGenerator,
        spec: &HeaderPolicy,
        headers: &'a HeaderMap,
        is_trusted: bool,
        sampled: Option<bool>,
    ) -> Self {
        let received =
            || is_trusted.then(|| received_request_id(headers)).flatten().map(RequestId::Received);
        let generated = || RequestId::Generated(ids.trace_id());
        let request_id = spec.should_set_request_id.then(|| received().unwrap_or_else(generated));
        let trace =
            spec.should_set_traceparent.then(|| TraceContext::from_headers(ids, headers, sampled));
        Self { request_id, trace }
    }

    pub(super) fn request_id(&self) -> Option<&[u8]> {
        self.request_id.as_ref().map(|id| match id {
            RequestId::Received(text) => text.as_bytes(),
            RequestId::Generated(text) => text.as_slice(),
        })
    }

    /// The request id as a header value.
    pub(super) fn request_id_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(self.request_id()?).ok()
    }

    /// Whether the proxy replaces a request header.
    pub(super) fn should_replace(&self, name: &HeaderName) -> bool {
        match name.as_str() {
            "x-request-id" => self.request_id.is_some(),
            TRACEPARENT => self.trace.is_some(),
            // `tracestate` belongs to the incoming trace and ends with it.
            "tracestate" => self.trace.as_ref().is_some_and(|trace| !trace.is_continued),
            _ => false,
        }
    }

    /// Writes the headers. The parent of the endpoint's span is `span`, or else the request's own.
    pub(super) fn write_fields(&self, out: &mut BytesMut, span: Option<&SpanId>) {
        if let Some(id) = self.request_id() {
            h1::write_header(out, REQUEST_ID.as_str(), id);
        }
        if let Some(trace) = &self.trace {
            h1::write_header(out, TRACEPARENT, &trace.traceparent(span.unwrap_or(&trace.span)));
        }
    }
}

impl TraceContext {
    fn from_headers(ids: &IdGenerator, headers: &HeaderMap, sampled: Option<bool>) -> Self {
        let span = ids.span_id();
        let trace = match TraceParent::from_headers(headers) {
            Some(TraceParent { id, flags, .. }) => Self { id, span, flags, is_continued: true },
            // Without an export no span of this trace is recorded here: not sampled.
            None => Self { id: ids.trace_id(), span, flags: 0, is_continued: false },
        };
        match sampled {
            None => trace,
            Some(true) => Self { flags: trace.flags | SAMPLED_FLAG, ..trace },
            Some(false) => Self { flags: trace.flags & !SAMPLED_FLAG, ..trace },
        }
    }

    fn traceparent(&self, span: &SpanId) -> [u8; TRACEPARENT_BYTES] {
        let mut text = *b"00-                                -                -00";
        text[3..35].copy_from_slice(&self.id);
        text[36..52].copy_from_slice(span);
        text[54] = b'0' + self.flags;
        text
    }
}

/// Parses versions after 00 as 00 and answers in 00 (W3C Trace Context 3.2.4).
fn parse_traceparent(text: &[u8]) -> Option<TraceParent> {
    let (prefix, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
    let is_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &[u8]| part.iter().all(|&b| b == b'0');
    let (version, id, parent, flags) =
        (&prefix[..2], &prefix[3..35], &prefix[36..52], &prefix[53..]);
    let dashes = [2, 35, 52].iter().all(|&at| prefix[at] == b'-');
    let parts = [version, id, parent, flags];
    let is_long = !rest.is_empty();
    let is_well_formed = dashes
        && parts.iter().all(|part| is_hex(part))
        && version != b"ff"
        && !is_zero(id)
        && !is_zero(parent)
        && !(is_long && (version == b"00" || rest[0] != b'-'));
    if !is_well_formed {
        return None;
    }
    let flags = u8::from_str_radix(std::str::from_utf8(flags).ok()?, 16).ok()? & KNOWN_FLAGS;
    Some(TraceParent { id: id.try_into().ok()?, span: parent.try_into().ok()?, flags })
}

/// A request id that is acceptable: a single one, short, and of visible ASCII.
fn received_request_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(REQUEST_ID).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let is_plain =
        (1..=MAX_ID_BYTES).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    is_plain.then_some(value)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn rendered(fields: &[(&'static str, &str)], is_trusted: bool) -> String {
        rendered_with(fields, is_trusted, None, None)
    }

    fn rendered_with(
        fields: &[(&'static str, &str)],
        is_trusted: bool,
        sampled: Option<bool>,
        span: Option<&SpanId>,
    ) -> String {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().expect("a value"))
        };
        let headers: HeaderMap = fields.iter().map(field).collect();
        let spec = HeaderPolicy { should_set_traceparent: true, ..HeaderPolicy::default() };
        let request_ids =
            RequestIds::new(&IdGenerator::default(), &spec, &headers, is_trusted, sampled);
        let mut out = BytesMut::new();
        request_ids.write_fields(&mut out, span);
        let state = request_ids.should_replace(&HeaderName::from_static("tracestate"));
        format!("{}{}", String::from_utf8_lossy(&out), if state { "no state" } else { "state" })
    }

    fn value<'a>(text: &'a str, name: &str) -> &'a str {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    #[test]
    fn generated_ids_are_unique_hex() {
        let (first, second) = (IdGenerator::default(), IdGenerator::default());
        let ids: HashSet<_> =
            (0..1_000).flat_map(|_| [first.trace_id(), second.trace_id()]).collect();
        assert_eq!(ids.len(), 2_000);
        assert!(ids.iter().flatten().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    }

    #[test]
    fn request_id_is_kept_only_from_trusted_peers() {
        let received = [("x-request-id", "abc-123")];
        assert_eq!(value(&rendered(&received, true), "x-request-id"), "abc-123");
        assert_eq!(value(&rendered(&received, false), "x-request-id").len(), 32);
        for bad in ["", "a b", &"x".repeat(129)] {
            assert_eq!(value(&rendered(&[("x-request-id", bad)], true), "x-request-id").len(), 32);
        }
        let twice = [("x-request-id", "a"), ("x-request-id", "b")];
        assert_eq!(value(&rendered(&twice, true), "x-request-id").len(), 32);
    }

    #[test]
    fn trace_continues_with_a_new_parent_id() {
        let text = rendered(&[("traceparent", PARENT)], false);
        let parent = value(&text, "traceparent");
        assert_eq!((parent.len(), &parent[..36], &parent[52..]), (55, &PARENT[..36], "-01"));
        assert_ne!(parent[36..52], PARENT[36..52]);
        assert!(text.ends_with("\nstate"), "{text}");
        let later = format!("cc{}-more", &PARENT[2..]);
        let text = rendered(&[("traceparent", &later)], false);
        assert_eq!(value(&text, "traceparent")[..36], PARENT[..36]);
    }

    #[test]
    fn export_sets_sampled_flag_and_attempt_span() {
        let unsampled = PARENT.replace("-01", "-00");
        for (traceparent, sampled, flags) in [
            (PARENT, Some(false), "-00"),
            (&unsampled, Some(true), "-01"),
            ("", Some(true), "-01"),
            ("", Some(false), "-00"),
        ] {
            let text = rendered_with(
                &[("traceparent", traceparent)],
                false,
                sampled,
                Some(b"00000000000000ab"),
            );
            let parent = value(&text, "traceparent");
            assert_eq!(&parent[35..], format!("-00000000000000ab{flags}"), "{traceparent}");
        }
        let half = TraceSampling::new(500_000).expect("a half");
        let sampled_with = |traceparent: &str, draw: u32| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, traceparent.parse().expect("a value"));
            is_sampled(half, &headers, || draw)
        };
        assert!(
            sampled_with(PARENT, 999_999) && !sampled_with(&unsampled, 0),
            "the parent decides"
        );
        assert!(sampled_with("", 499_999) && !sampled_with("", 500_000), "the draw decides");
    }

    #[test]
    fn invalid_traceparent_starts_a_new_trace() {
        let zero_id = PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        for bad in [
            "",
            "rubbish",
            &PARENT[..54],
            &format!("{PARENT}-more"),
            &format!("cc{}more", &PARENT[2..]),
            &PARENT.to_uppercase(),
            &PARENT.replace("00-4", "ff-4"),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &zero_id,
            &PARENT.replace('-', "_"),
        ] {
            let text = rendered(&[("traceparent", bad)], true);
            let parent = value(&text, "traceparent");
            assert!(parent.ends_with("-00") && parent[3..35] != PARENT[3..35], "{bad:?}: {parent}");
            assert!(parse_traceparent(parent.as_bytes()).is_some(), "{parent}");
            assert!(text.ends_with("no state"), "{text}");
        }
        let twice = rendered(&[("traceparent", PARENT), ("traceparent", PARENT)], false);
        assert!(twice.ends_with("no state"), "{twice}");
    }
}
