//! What else a request must say, beside its host and path.

use std::iter::from_fn;

use http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

use super::pattern::Pattern;

/// A request, as routes look at it.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Lower case, without a port.
    pub host: &'a str,
    /// In its one form; begins with `/`.
    pub path: &'a str,
    /// As it came.
    pub method: &'a Method,
    /// As they came.
    pub headers: &'a HeaderMap,
    /// What follows the `?`; empty if nothing does.
    pub query: &'a str,
    /// The client's connection is encrypted.
    pub is_tls: bool,
}

/// What a route asks for beside host and path; all of it must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// The connection is not encrypted: who is sent to https is not sent there from there.
    pub cleartext: bool,
    /// One of these; empty is any.
    pub methods: Vec<Method>,
    /// Each of these.
    pub headers: Vec<(HeaderName, Test)>,
    /// Each of these, by the parameter's name.
    pub query: Vec<(Box<str>, Test)>,
}

/// What a header or a parameter must be. One that is there several times needs one such value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Exactly this.
    Is(Box<[u8]>),
    /// There, whatever it is.
    Present,
    /// Not there.
    Absent,
    /// It begins with this.
    Prefix(Box<[u8]>),
    /// All of it matches this.
    Matches(Pattern),
}

/// Decoded values up to this are compared without an allocation.
const DECODED_BYTES: usize = 128;

impl Conditions {
    /// How many there are: of two routes for the same path, the one with more is asked first.
    #[must_use]
    pub fn count(&self) -> usize {
        let of_request = usize::from(self.cleartext) + usize::from(!self.methods.is_empty());
        of_request + self.headers.len() + self.query.len()
    }

    /// Whether all of them hold.
    #[must_use]
    pub fn hold(&self, ask: &Ask<'_>) -> bool {
        !(self.cleartext && ask.is_tls)
            && (self.methods.is_empty() || self.methods.contains(ask.method))
            && self.headers.iter().all(|(name, test)| has_header(test, ask.headers, name))
            && self.query.iter().all(|(name, test)| has_parameter(test, ask.query, name))
    }
}

impl Test {
    fn takes(&self, value: &[u8]) -> bool {
        match self {
            Self::Is(same) => value == &**same,
            Self::Present => true,
            Self::Absent => false,
            Self::Prefix(prefix) => value.starts_with(prefix),
            Self::Matches(pattern) => pattern.matches(value),
        }
    }
}

fn has_header(test: &Test, headers: &HeaderMap, name: &HeaderName) -> bool {
    match test {
        Test::Absent => !headers.contains_key(name),
        Test::Present => headers.contains_key(name),
        _ => headers.get_all(name).iter().any(|value| test.takes(value.as_bytes())),
    }
}

fn has_parameter(test: &Test, query: &str, name: &str) -> bool {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = from_fn(|| {
        pairs.by_ref().find(|(key, _)| octets(key).eq(name.bytes())).map(|(_, value)| value)
    });
    match test {
        Test::Absent => values.next().is_none(),
        _ => values.any(|value| {
            if !value.bytes().any(|b| matches!(b, b'%' | b'+')) {
                return test.takes(value.as_bytes());
            }
            let decoded: SmallVec<[u8; DECODED_BYTES]> = octets(value).collect();
            test.takes(&decoded)
        }),
    }
}

/// The octets of a form-encoded text: `%41` is `A`, `+` is a blank. A percent sign without two digits
/// stands for itself.
fn octets(text: &str) -> impl Iterator<Item = u8> {
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

    fn is(text: &str) -> Test {
        Test::Is(text.as_bytes().into())
    }

    #[test]
    fn headers_hold_by_any_of_their_values() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x-env");
        let has = |headers: &HeaderMap, test: &Test| has_header(test, headers, &name);
        assert!(has(&headers, &Test::Absent) && !has(&headers, &Test::Present));
        headers.append("x-env", "live".parse().expect("a value"));
        headers.append("x-env", "canary-2".parse().expect("a value"));
        assert!(!has(&headers, &Test::Absent) && has(&headers, &Test::Present));
        assert!(has(&headers, &is("live")) && !has(&headers, &is("canary")));
        assert!(has(&headers, &Test::Prefix(b"canary"[..].into())));
        let pattern = |text| Test::Matches(Pattern::parse(text).expect("a pattern"));
        assert!(has(&headers, &pattern("canary-[0-9]")) && !has(&headers, &pattern("canary")));
    }

    #[test]
    fn parameters_are_decoded() {
        let has = |query, test: &Test| has_parameter(test, query, "a b");
        assert!(has("x=1&a%20b=c%2Bd", &is("c+d")));
        assert!(has("a+b=c+d", &is("c d")));
        assert!(has("a+b", &is("")) && has("a+b", &Test::Present));
        assert!(has("", &Test::Absent) && has("a=b", &Test::Absent) && !has("a+b=", &Test::Absent));
        assert!(has("a+b=%zz", &is("%zz")) && has("a+b=%", &Test::Prefix(b"%"[..].into())));
        assert!(has("a+b=1&a+b=2", &is("2")));
        let long = "%41".repeat(2 * DECODED_BYTES);
        assert!(has(&format!("a+b={long}"), &is(&"A".repeat(2 * DECODED_BYTES))));
    }
}
