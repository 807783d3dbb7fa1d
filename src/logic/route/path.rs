//! The one form that a path is brought to before it is matched and forwarded (RFC 3986 6.2.2), so
//! that nobody reads it in another way afterwards.

use std::borrow::Cow;

/// How paths are brought to one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRules {
    /// `.` and `..` are resolved, what is encoded without need is decoded.
    pub normalise: bool,
    /// `//` becomes `/`.
    pub merge_slashes: bool,
    /// What becomes of `%2F`, `%5C` and a plain backslash.
    pub encoded_slash: EncodedSlash,
}

impl Default for PathRules {
    fn default() -> Self {
        Self { normalise: true, merge_slashes: true, encoded_slash: EncodedSlash::Keep }
    }
}

/// What becomes of a slash that is encoded, and of a backslash, which some take for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// It stays encoded, and parts no segments.
    Keep,
    /// The request is refused.
    Reject,
    /// It is a slash.
    Decode,
}

/// A path that is not to be passed on: a control character, an octet that is no ASCII, a percent
/// sign without two digits, or an encoded slash where those are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath;

/// `path`, which begins with `/`, in its one form. Costs one look at it, and no allocation, if it has
/// that form already.
///
/// # Errors
/// [`BadPath`].
pub fn normalise<'p>(path: &'p str, rules: &PathRules) -> Result<Cow<'p, str>, BadPath> {
    let bytes = path.as_bytes();
    if has_its_form(bytes) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(bytes, rules)?;
    let resolved = resolve(&decoded, rules);
    Ok(if resolved == path { Cow::Borrowed(path) } else { Cow::Owned(resolved) })
}

/// Whether nothing is to be changed or refused, by any rules. What it cannot tell, it denies.
fn has_its_form(path: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let is_begin = at > 0 && path[at - 1] == b'/';
        match byte {
            b'%' => {
                let upper = |at: usize| path.get(at).filter(|digit| !digit.is_ascii_lowercase());
                match octet(upper(at + 1), upper(at + 2)) {
                    Ok(octet) if !is_unreserved(octet) && !octet.is_ascii_control() => {
                        if matches!(octet, b'/' | b'\\') {
                            return false;
                        }
                        at += 2;
                    }
                    _ => return false,
                }
            }
            b'/' if is_begin => return false,
            b'.' if is_begin => {
                let end = path[at..].iter().position(|&b| b == b'/').map_or(path.len(), |n| at + n);
                if matches!(&path[at..end], b"." | b"..") {
                    return false;
                }
            }
            b'\\' => return false,
            other if !other.is_ascii_graphic() => return false,
            _ => {}
        }
        at += 1;
    }
    true
}

/// Percent-encodings in their one form: decoded where the octet is unreserved, else in capitals.
fn decode(path: &[u8], rules: &PathRules) -> Result<String, BadPath> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut rest = path.iter();
    while let Some(&byte) = rest.next() {
        let (octet, was_encoded) = match byte {
            b'%' => (octet(rest.next(), rest.next())?, true),
            other if other.is_ascii_graphic() => (other, false),
            _ => return Err(BadPath),
        };
        let is_slash = octet == b'\\' || octet == b'/' && was_encoded;
        match rules.encoded_slash {
            EncodedSlash::Reject if is_slash => return Err(BadPath),
            EncodedSlash::Decode if is_slash => out.push('/'),
            _ if !was_encoded && octet != b'\\' => out.push(char::from(octet)),
            _ if octet.is_ascii_control() => return Err(BadPath),
            _ if is_unreserved(octet) && rules.normalise => out.push(char::from(octet)),
            _ => encode(octet, &mut out),
        }
    }
    Ok(out)
}

fn octet(high: Option<&u8>, low: Option<&u8>) -> Result<u8, BadPath> {
    let digit = |digit: Option<&u8>| digit.and_then(|&digit| char::from(digit).to_digit(16));
    let (high, low) = (digit(high).ok_or(BadPath)?, digit(low).ok_or(BadPath)?);
    u8::try_from(high * 16 + low).map_err(|_| BadPath)
}

fn encode(octet: u8, out: &mut String) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(octet >> 4)]));
    out.push(char::from(DIGITS[usize::from(octet & 15)]));
}

/// RFC 3986 2.3.
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 5.2.4, after empty segments have gone where they are to go.
fn resolve(path: &str, rules: &PathRules) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let is_dropped = match segment {
            "." => rules.normalise,
            ".." if rules.normalise => {
                out.truncate(out.rfind('/').unwrap_or(0));
                true
            }
            "" => rules.merge_slashes,
            _ => false,
        };
        if !is_dropped {
            out.push('/');
            out.push_str(segment);
        } else if is_last {
            out.push('/');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(path: &str) -> Result<String, BadPath> {
        normalise(path, &PathRules::default()).map(Cow::into_owned)
    }

    #[test]
    fn a_path_in_its_form_is_borrowed() {
        for path in
            ["/", "/a", "/a/b.c/", "/a/b-c_d~e/", "/%2Fa%25", "/.well-known/x", "/a/...", "/*"]
        {
            let same = normalise(path, &PathRules::default());
            assert!(matches!(same, Ok(Cow::Borrowed(same)) if same == path), "{path}: {same:?}");
        }
    }

    #[test]
    fn dots_slashes_and_needless_encodings_go() {
        for (path, expected) in [
            ("//", "/"),
            ("/a//b///c//", "/a/b/c/"),
            ("/a/./b/.", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a//../b", "/b"),
            ("/%61%2D%7e", "/a-~"),
            ("/a/%2e%2E/admin%2fx", "/admin%2Fx"),
            ("/a/%2e./b", "/b"),
            ("/a/.%2e", "/"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a%252e%252e/b", "/a%252e%252e/b"),
            ("/a\\..\\b", "/a%5C..%5Cb"),
        ] {
            assert_eq!(plain(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for path in
            ["/%00", "/a%0d%0aX", "/%7f", "/%", "/%4", "/%4g", "/a b", "/\u{e9}", "/a\0", "/\x7f"]
        {
            assert_eq!(plain(path), Err(BadPath), "{path:?}");
        }
    }

    #[test]
    fn encoded_slashes_are_kept_refused_or_decoded() {
        let with = |path, encoded_slash| {
            let rules = PathRules { encoded_slash, ..PathRules::default() };
            normalise(path, &rules).map(Cow::into_owned)
        };
        for path in ["/a%2Fb", "/a%2fb", "/a%5cb", "/a\\b"] {
            assert_eq!(with(path, EncodedSlash::Reject), Err(BadPath), "{path}");
            assert_eq!(with(path, EncodedSlash::Decode).as_deref(), Ok("/a/b"), "{path}");
        }
        assert_eq!(with("/a%2f..%2fb", EncodedSlash::Decode).as_deref(), Ok("/b"));
        assert_eq!(with("/a%2f..%2fb", EncodedSlash::Keep).as_deref(), Ok("/a%2F..%2Fb"));
        assert_eq!(with("/a%252fb", EncodedSlash::Decode).as_deref(), Ok("/a%252fb"));
    }

    #[test]
    fn rules_can_be_switched_off() {
        let rules = PathRules { normalise: false, ..PathRules::default() };
        let kept = normalise("/a/../%41//b", &rules);
        assert_eq!(kept.as_deref(), Ok("/a/../%41/b"));
        assert_eq!(normalise("/%00", &rules), Err(BadPath));
        let rules = PathRules { merge_slashes: false, ..PathRules::default() };
        assert_eq!(normalise("/a//b/../c//", &rules).as_deref(), Ok("/a//c//"));
    }

    proptest! {
        #[test]
        fn one_form_is_the_only_form(
            path in "/([a./%\\\\]|%2[efEF]|%5[cC]|%00|%41|%c3|//|\\.\\.){0,12}",
            normalised: bool, merge_slashes: bool, policy in 0..3_usize,
        ) {
            let policies = [EncodedSlash::Keep, EncodedSlash::Reject, EncodedSlash::Decode];
            let encoded_slash = policies[policy];
            let rules = PathRules { normalise: normalised, merge_slashes, encoded_slash };
            if let Ok(once) = normalise(&path, &rules) {
                let twice = normalise(&once, &rules);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                prop_assert!(once.starts_with('/'));
                prop_assert!(!merge_slashes || !once.contains("//"));
                prop_assert!(!normalised || once.split('/').all(|part| part != "." && part != ".."));
            }
        }
    }
}
