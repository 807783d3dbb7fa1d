//! The names by which a request is known: a request id, and its place in a trace (W3C Trace
//! Context). Both are made without an allocation.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use bytes::BytesMut;
use fastrand::Rng;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::config::model::{Headers, Sampling};
use crate::net::h1;

/// The request's id, on its way to the endpoint and on answers of our own.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) const TRACEPARENT: &str = "traceparent";

/// Longest id that is taken over.
const ID_BYTES: usize = 128;

/// A `traceparent` of the version that is known.
const TRACEPARENT_BYTES: usize = 55;

/// Flags that mean something: sampled, and that the trace id is random.
const KNOWN_FLAGS: u8 = 0b11;

/// Somebody keeps the spans of the trace.
const SAMPLED: u8 = 0b1;

/// A part of a trace, in hex; never all zeros.
pub type SpanId = [u8; 16];

/// Where one worker's ids come from. They need not be secret, but no other worker or process may
/// make the same: so they have a share that is drawn once from the system's randomness.
#[derive(Debug)]
pub struct Ids {
    rng: RefCell<Rng>,
    share: u64,
}

impl Default for Ids {
    fn default() -> Self {
        let draw = |what: u8| RandomState::new().hash_one(what);
        Self { rng: RefCell::new(Rng::with_seed(draw(0))), share: draw(1) }
    }
}

impl Ids {
    fn id(&self) -> [u8; 32] {
        let mut rng = self.rng.borrow_mut();
        let (high, low) = (rng.u64(..) ^ self.share, rng.u64(1..));
        let mut text = [0; 32];
        write_hex(&mut text[..16], high);
        write_hex(&mut text[16..], low);
        text
    }

    /// A new part of a trace.
    #[must_use]
    pub fn span(&self) -> SpanId {
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

/// The names of one request.
#[derive(Debug)]
pub(super) struct Marks<'a> {
    request_id: Option<RequestId<'a>>,
    pub(super) trace: Option<Trace>,
}

#[derive(Debug)]
enum RequestId<'a> {
    /// By a proxy that is believed.
    Given(&'a str),
    Made([u8; 32]),
}

/// A request's place in a trace.
#[derive(Debug)]
pub(super) struct Trace {
    /// The whole trace.
    pub(super) id: [u8; 32],
    /// Our own part, of which the endpoint's will be one.
    pub(super) span: SpanId,
    flags: u8,
    /// Somebody else has begun it.
    is_continued: bool,
}

/// The trace that a request brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    id: [u8; 32],
    /// The part of it that the request comes from.
    pub span: SpanId,
    flags: u8,
}

impl Parent {
    /// What `headers` say of it; a `traceparent` that is wrong, or not the only one, says nothing (3.2).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let only = values.next().filter(|_| values.next().is_none());
        only.and_then(|value| parse(value.as_bytes()))
    }
}

/// Whether the spans of a request are exported: as the trace that it belongs to says, or as `draw` does
/// for one that begins here.
pub(super) fn is_sampled(
    sampling: Sampling,
    headers: &HeaderMap,
    draw: impl FnOnce() -> u32,
) -> bool {
    match Parent::of(headers) {
        Some(parent) => parent.flags & SAMPLED != 0,
        None => sampling.takes(draw()),
    }
}

impl<'a> Marks<'a> {
    /// Takes over what `headers` have, or makes it. Ids are taken over only from who is `believed`;
    /// traces from everybody, since they are made to cross borders. Where spans are exported, `sampled`
    /// says whether those of this request are.
    pub(super) fn of(
        ids: &Ids,
        spec: &Headers,
        headers: &'a HeaderMap,
        believed: bool,
        sampled: Option<bool>,
    ) -> Self {
        let given = || believed.then(|| request_id(headers)).flatten().map(RequestId::Given);
        let made = || RequestId::Made(ids.id());
        let request_id = spec.request_id.then(|| given().unwrap_or_else(made));
        let trace = spec.traceparent.then(|| Trace::of(ids, headers, sampled));
        Self { request_id, trace }
    }

    /// The request's id.
    pub(super) fn request_id(&self) -> Option<&[u8]> {
        self.request_id.as_ref().map(|id| match id {
            RequestId::Given(text) => text.as_bytes(),
            RequestId::Made(text) => text.as_slice(),
        })
    }

    /// The same as a field's value.
    pub(super) fn request_id_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(self.request_id()?).ok()
    }

    /// Whether a field of the request is written anew.
    pub(super) fn replace(&self, name: &HeaderName) -> bool {
        match name.as_str() {
            "x-request-id" => self.request_id.is_some(),
            TRACEPARENT => self.trace.is_some(),
            // It belongs to the trace, and ends with it.
            "tracestate" => self.trace.as_ref().is_some_and(|trace| !trace.is_continued),
            _ => false,
        }
    }

    /// Writes the fields; the endpoint's part of the trace is below `span`, if it is not ours.
    pub(super) fn write(&self, out: &mut BytesMut, span: Option<&SpanId>) {
        if let Some(id) = self.request_id() {
            h1::write_header(out, REQUEST_ID.as_str(), id);
        }
        if let Some(trace) = &self.trace {
            h1::write_header(out, TRACEPARENT, &trace.parent(span.unwrap_or(&trace.span)));
        }
    }
}

impl Trace {
    fn of(ids: &Ids, headers: &HeaderMap, sampled: Option<bool>) -> Self {
        let span = ids.span();
        let trace = match Parent::of(headers) {
            Some(Parent { id, flags, .. }) => Self { id, span, flags, is_continued: true },
            // Without an export, whether it is looked at is not ours to say: not sampled.
            None => Self { id: ids.id(), span, flags: 0, is_continued: false },
        };
        match sampled {
            None => trace,
            Some(true) => Self { flags: trace.flags | SAMPLED, ..trace },
            Some(false) => Self { flags: trace.flags & !SAMPLED, ..trace },
        }
    }

    fn parent(&self, span: &SpanId) -> [u8; TRACEPARENT_BYTES] {
        let mut text = *b"00-                                -                -00";
        text[3..35].copy_from_slice(&self.id);
        text[36..52].copy_from_slice(span);
        text[54] = b'0' + self.flags;
        text
    }
}

/// Later versions begin as the known one does, and are answered in it (3.2.4).
fn parse(text: &[u8]) -> Option<Parent> {
    let (known, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
    let is_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &[u8]| part.iter().all(|&b| b == b'0');
    let (version, id, parent, flags) = (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
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
    Some(Parent { id: id.try_into().ok()?, span: parent.try_into().ok()?, flags })
}

/// An id that may be taken over: one, not long, and made of plain characters.
fn request_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(REQUEST_ID).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let is_plain =
        (1..=ID_BYTES).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    is_plain.then_some(value)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn written(fields: &[(&'static str, &str)], believed: bool) -> String {
        exported(fields, believed, None, None)
    }

    fn exported(
        fields: &[(&'static str, &str)],
        believed: bool,
        sampled: Option<bool>,
        span: Option<&SpanId>,
    ) -> String {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().expect("a value"))
        };
        let headers: HeaderMap = fields.iter().map(field).collect();
        let spec = Headers { traceparent: true, ..Headers::default() };
        let marks = Marks::of(&Ids::default(), &spec, &headers, believed, sampled);
        let mut out = BytesMut::new();
        marks.write(&mut out, span);
        let state = marks.replace(&HeaderName::from_static("tracestate"));
        format!("{}{}", String::from_utf8_lossy(&out), if state { "no state" } else { "state" })
    }

    fn value<'a>(text: &'a str, name: &str) -> &'a str {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    #[test]
    fn ids_are_hex_and_differ() {
        let (one, two) = (Ids::default(), Ids::default());
        let ids: HashSet<_> = (0..1_000).flat_map(|_| [one.id(), two.id()]).collect();
        assert_eq!(ids.len(), 2_000);
        assert!(ids.iter().flatten().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    }

    #[test]
    fn an_id_is_taken_over_only_from_who_is_believed() {
        let given = [("x-request-id", "abc-123")];
        assert_eq!(value(&written(&given, true), "x-request-id"), "abc-123");
        assert_eq!(value(&written(&given, false), "x-request-id").len(), 32);
        for bad in ["", "a b", &"x".repeat(129)] {
            assert_eq!(value(&written(&[("x-request-id", bad)], true), "x-request-id").len(), 32);
        }
        let twice = [("x-request-id", "a"), ("x-request-id", "b")];
        assert_eq!(value(&written(&twice, true), "x-request-id").len(), 32);
    }

    #[test]
    fn a_trace_goes_on_with_a_new_parent() {
        let text = written(&[("traceparent", PARENT)], false);
        let parent = value(&text, "traceparent");
        assert_eq!((parent.len(), &parent[..36], &parent[52..]), (55, &PARENT[..36], "-01"));
        assert_ne!(parent[36..52], PARENT[36..52]);
        assert!(text.ends_with("\nstate"), "{text}");
        let later = format!("cc{}-more", &PARENT[2..]);
        let text = written(&[("traceparent", &later)], false);
        assert_eq!(value(&text, "traceparent")[..36], PARENT[..36]);
    }

    #[test]
    fn who_exports_says_what_is_sampled_and_each_try_is_a_part() {
        let unsampled = PARENT.replace("-01", "-00");
        for (given, sampled, flags) in [
            (PARENT, Some(false), "-00"),
            (&unsampled, Some(true), "-01"),
            ("", Some(true), "-01"),
            ("", Some(false), "-00"),
        ] {
            let text =
                exported(&[("traceparent", given)], false, sampled, Some(b"00000000000000ab"));
            let parent = value(&text, "traceparent");
            assert_eq!(&parent[35..], format!("-00000000000000ab{flags}"), "{given}");
        }
        let half = Sampling::new(500_000).expect("a half");
        let of = |given: &str, draw: u32| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, given.parse().expect("a value"));
            is_sampled(half, &headers, || draw)
        };
        assert!(of(PARENT, 999_999) && !of(&unsampled, 0), "as the parent says");
        assert!(of("", 499_999) && !of("", 500_000), "as chance has it");
    }

    #[test]
    fn what_is_no_trace_begins_one() {
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
            let text = written(&[("traceparent", bad)], true);
            let parent = value(&text, "traceparent");
            assert!(parent.ends_with("-00") && parent[3..35] != PARENT[3..35], "{bad:?}: {parent}");
            assert!(parse(parent.as_bytes()).is_some(), "{parent}");
            assert!(text.ends_with("no state"), "{text}");
        }
        let twice = written(&[("traceparent", PARENT), ("traceparent", PARENT)], false);
        assert!(twice.ends_with("no state"), "{twice}");
    }
}
