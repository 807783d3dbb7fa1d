//! The conditions of a route besides host and path.

use std::iter::from_fn;

use http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

use super::pattern::Pattern;

/// The parts of a request that routes match on.
#[derive(Clone, Copy, Debug)]
pub struct RouteRequest<'a> {
    /// Lower case, without a port.
    pub host: &'a str,
    /// Normalised; begins with `/`.
    pub path: &'a str,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// The text after `?`; empty without a query.
    pub query: &'a str,
    /// The client's connection uses TLS.
    pub is_tls: bool,
}

/// Conditions besides host and path; all must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Matches cleartext connections only, so that a redirect to https does not loop.
    pub is_cleartext_only: bool,
    /// One of these; empty matches every method.
    pub methods: Vec<Method>,
    pub headers: Vec<(HeaderName, ValueMatcher)>,
    /// Query parameters by name; all must match.
    pub query: Vec<(Box<str>, ValueMatcher)>,
}

/// The expected value of a header field or a parameter. If it occurs several times, one value must
/// match.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatcher {
    Exact(Box<[u8]>),
    /// Present, with any value.
    Present,
    Absent,
    /// A value with this prefix.
    Prefix(Box<[u8]>),
    /// A value that matches as a whole.
    Regex(Pattern),
}

/// Decoded values up to this length are compared without an allocation.
const INLINE_DECODED_BYTES: usize = 128;

impl Conditions {
    /// The number of conditions. Routes for the same path are tried in descending order of it.
    pub fn count(&self) -> usize {
        let of_request =
            usize::from(self.is_cleartext_only) + usize::from(!self.methods.is_empty());
        of_request + self.headers.len() + self.query.len()
    }

    /// Whether the request meets all conditions.
    pub fn is_met_by(&self, request: &RouteRequest<'_>) -> bool {
        !(self.is_cleartext_only && request.is_tls)
            && (self.methods.is_empty() || self.methods.contains(request.method))
            && self.headers.iter().all(|(name, test)| has_header(test, request.headers, name))
            && self.query.iter().all(|(name, test)| has_parameter(test, request.query, name))
    }
}

impl ValueMatcher {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(same) => value == &**same,
            Self::Present => true,
            Self::Absent => false,
            Self::Prefix(prefix) => value.starts_with(prefix),
            Self::Regex(pattern) => pattern.matches(value),
        }
    }
}

fn has_header(test: &ValueMatcher, headers: &HeaderMap, name: &HeaderName) -> bool {
    match test {
        ValueMatcher::Absent => !headers.contains_key(name),
        ValueMatcher::Present => headers.contains_key(name),
        _ => headers.get_all(name).iter().any(|value| test.matches(value.as_bytes())),
    }
}

fn has_parameter(test: &ValueMatcher, query: &str, name: &str) -> bool {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = from_fn(|| {
        pairs.by_ref().find(|(key, _)| decode_form(key).eq(name.bytes())).map(|(_, value)| value)
    });
    match test {
        ValueMatcher::Absent => values.next().is_none(),
        _ => values.any(|value| {
            if !value.bytes().any(|b| matches!(b, b'%' | b'+')) {
                return test.matches(value.as_bytes());
            }
            let decoded: SmallVec<[u8; INLINE_DECODED_BYTES]> = decode_form(value).collect();
            test.matches(&decoded)
        }),
    }
}

/// Decodes form encoding: `%41` is `A`, `+` is a space. A percent sign without two digits is
/// literal.
fn decode_form(text: &str) -> impl Iterator<Item = u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|&b| char::from(b).to_digit(16));
    let mut at = 0;
    from_fn(move || {
        let byte = *bytes.get(at)?;
        let encoded = if byte == b'%' { digit(at + 1).zip(digit(at + 2)) } else { None };
        let (octet, length) = match encoded {
            Some((high, low)) => ((high * 16 + low) as u8, 3),
            None if byte == b'+' => (b' ', 1),
            None => (byte, 1),
        };
        at += length;
        Some(octet)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact_matcher(text: &str) -> ValueMatcher {
        ValueMatcher::Exact(text.as_bytes().into())
    }

    #[test]
    fn repeated_header_matches_by_any_value() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x-env");
        let has = |headers: &HeaderMap, test: &ValueMatcher| has_header(test, headers, &name);
        assert!(has(&headers, &ValueMatcher::Absent) && !has(&headers, &ValueMatcher::Present));
        headers.append("x-env", "live".parse().expect("a value"));
        headers.append("x-env", "canary-2".parse().expect("a value"));
        assert!(!has(&headers, &ValueMatcher::Absent) && has(&headers, &ValueMatcher::Present));
        assert!(has(&headers, &exact_matcher("live")) && !has(&headers, &exact_matcher("canary")));
        assert!(has(&headers, &ValueMatcher::Prefix(b"canary"[..].into())));
        let pattern = |text| ValueMatcher::Regex(Pattern::parse(text).expect("a pattern"));
        assert!(has(&headers, &pattern("canary-[0-9]")) && !has(&headers, &pattern("canary")));
    }

    #[test]
    fn query_parameters_are_decoded_before_matching() {
        let has = |query, test: &ValueMatcher| has_parameter(test, query, "a b");
        assert!(has("x=1&a%20b=c%2Bd", &exact_matcher("c+d")));
        assert!(has("a+b=c+d", &exact_matcher("c d")));
        assert!(has("a+b", &exact_matcher("")) && has("a+b", &ValueMatcher::Present));
        assert!(
            has("", &ValueMatcher::Absent)
                && has("a=b", &ValueMatcher::Absent)
                && !has("a+b=", &ValueMatcher::Absent)
        );
        assert!(
            has("a+b=%zz", &exact_matcher("%zz"))
                && has("a+b=%", &ValueMatcher::Prefix(b"%"[..].into()))
        );
        assert!(has("a+b=1&a+b=2", &exact_matcher("2")));
        let long = "%41".repeat(2 * INLINE_DECODED_BYTES);
        assert!(has(&format!("a+b={long}"), &exact_matcher(&"A".repeat(2 * INLINE_DECODED_BYTES))));
    }
}
