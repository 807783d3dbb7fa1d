//! Normalises paths before they are matched and forwarded (RFC 3986, 6.2.2), so that the proxy and
//! the endpoint interpret a path in the same way.

use std::borrow::Cow;

/// The rules of path normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathNormalisation {
    /// Resolves `.` and `..`, and decodes unreserved characters.
    pub should_normalise: bool,
    /// Replaces `//` by `/`.
    pub should_merge_slashes: bool,
    /// The treatment of `%2F`, `%5C` and backslashes.
    pub encoded_slash: EncodedSlash,
}

impl Default for PathNormalisation {
    fn default() -> Self {
        Self {
            should_normalise: true,
            should_merge_slashes: true,
            encoded_slash: EncodedSlash::Keep,
        }
    }
}

/// The treatment of encoded slashes, and of backslashes, which some servers treat as slashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// Stays encoded and separates no segments.
    Keep,
    /// The request is rejected.
    Reject,
    /// Decoded to a slash.
    Decode,
}

/// The path is rejected: a control character, a non-ASCII octet, a percent sign without two digits,
/// or an encoded slash under [`EncodedSlash::Reject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPath;

/// Normalises `path`, which must begin with `/`. A normalised path costs one scan and no
/// allocation.
///
/// # Errors
/// [`InvalidPath`].
pub fn normalise<'p>(
    path: &'p str,
    rules: &PathNormalisation,
) -> Result<Cow<'p, str>, InvalidPath> {
    let bytes = path.as_bytes();
    if is_normalised(bytes) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(bytes, rules)?;
    let resolved = resolve_segments(&decoded, rules);
    Ok(if resolved == path { Cow::Borrowed(path) } else { Cow::Owned(resolved) })
}

/// Whether no rule changes or rejects the path. May return `false` for a normalised path.
fn is_normalised(path: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let is_segment_start = at > 0 && path[at - 1] == b'/';
        match byte {
            b'%' => {
                let upper = |at: usize| path.get(at).filter(|digit| !digit.is_ascii_lowercase());
                match decode_octet(upper(at + 1), upper(at + 2)) {
                    Ok(octet) if !is_unreserved(octet) && !octet.is_ascii_control() => {
                        if matches!(octet, b'/' | b'\\') {
                            return false;
                        }
                        at += 2;
                    }
                    _ => return false,
                }
            }
            b'/' if is_segment_start => return false,
            b'.' if is_segment_start => {
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

/// Normalises percent-encodings: decodes unreserved octets, writes the others in upper case.
fn decode(path: &[u8], rules: &PathNormalisation) -> Result<String, InvalidPath> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut rest = path.iter();
    while let Some(&byte) = rest.next() {
        let (octet, is_encoded) = match byte {
            b'%' => (decode_octet(rest.next(), rest.next())?, true),
            other if other.is_ascii_graphic() => (other, false),
            _ => return Err(InvalidPath),
        };
        let is_slash = octet == b'\\' || octet == b'/' && is_encoded;
        match rules.encoded_slash {
            EncodedSlash::Reject if is_slash => return Err(InvalidPath),
            EncodedSlash::Decode if is_slash => out.push('/'),
            _ if !is_encoded && octet != b'\\' => out.push(char::from(octet)),
            _ if octet.is_ascii_control() => return Err(InvalidPath),
            _ if is_unreserved(octet) && rules.should_normalise => out.push(char::from(octet)),
            _ => percent_encode(octet, &mut out),
        }
    }
    Ok(out)
}

fn decode_octet(high: Option<&u8>, low: Option<&u8>) -> Result<u8, InvalidPath> {
    let digit = |digit: Option<&u8>| digit.and_then(|&digit| char::from(digit).to_digit(16));
    let (high, low) = (digit(high).ok_or(InvalidPath)?, digit(low).ok_or(InvalidPath)?);
    u8::try_from(high * 16 + low).map_err(|_| InvalidPath)
}

fn percent_encode(octet: u8, out: &mut String) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(octet >> 4)]));
    out.push(char::from(DIGITS[usize::from(octet & 15)]));
}

fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

/// Removes dot segments (RFC 3986, 5.2.4), after merging slashes if configured.
fn resolve_segments(path: &str, rules: &PathNormalisation) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let is_dropped = match segment {
            "." => rules.should_normalise,
            ".." if rules.should_normalise => {
                out.truncate(out.rfind('/').unwrap_or(0));
                true
            }
            "" => rules.should_merge_slashes,
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

    fn normalise_by_default(path: &str) -> Result<String, InvalidPath> {
        normalise(path, &PathNormalisation::default()).map(Cow::into_owned)
    }

    #[test]
    fn normalised_path_is_borrowed() {
        for path in
            ["/", "/a", "/a/b.c/", "/a/b-c_d~e/", "/%2Fa%25", "/.well-known/x", "/a/...", "/*"]
        {
            let same = normalise(path, &PathNormalisation::default());
            assert!(matches!(same, Ok(Cow::Borrowed(same)) if same == path), "{path}: {same:?}");
        }
    }

    #[test]
    fn dot_segments_slashes_and_needless_escapes_are_removed() {
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
            assert_eq!(normalise_by_default(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn invalid_octets_and_escapes_are_rejected() {
        for path in
            ["/%00", "/a%0d%0aX", "/%7f", "/%", "/%4", "/%4g", "/a b", "/\u{e9}", "/a\0", "/\x7f"]
        {
            assert_eq!(normalise_by_default(path), Err(InvalidPath), "{path:?}");
        }
    }

    #[test]
    fn encoded_slash_is_kept_rejected_or_decoded() {
        let with = |path, encoded_slash| {
            let rules = PathNormalisation { encoded_slash, ..PathNormalisation::default() };
            normalise(path, &rules).map(Cow::into_owned)
        };
        for path in ["/a%2Fb", "/a%2fb", "/a%5cb", "/a\\b"] {
            assert_eq!(with(path, EncodedSlash::Reject), Err(InvalidPath), "{path}");
            assert_eq!(with(path, EncodedSlash::Decode).as_deref(), Ok("/a/b"), "{path}");
        }
        assert_eq!(with("/a%2f..%2fb", EncodedSlash::Decode).as_deref(), Ok("/b"));
        assert_eq!(with("/a%2f..%2fb", EncodedSlash::Keep).as_deref(), Ok("/a%2F..%2Fb"));
        assert_eq!(with("/a%252fb", EncodedSlash::Decode).as_deref(), Ok("/a%252fb"));
    }

    #[test]
    fn normalisation_steps_can_be_disabled() {
        let rules = PathNormalisation { should_normalise: false, ..PathNormalisation::default() };
        let unmerged = normalise("/a/../%41//b", &rules);
        assert_eq!(unmerged.as_deref(), Ok("/a/../%41/b"));
        assert_eq!(normalise("/%00", &rules), Err(InvalidPath));
        let rules =
            PathNormalisation { should_merge_slashes: false, ..PathNormalisation::default() };
        assert_eq!(normalise("/a//b/../c//", &rules).as_deref(), Ok("/a//c//"));
    }

    proptest! {
        #[test]
        fn normalise_is_idempotent(
            path in "/([a./%\\\\]|%2[efEF]|%5[cC]|%00|%41|%c3|//|\\.\\.){0,12}",
            normalised: bool, merge_slashes: bool, policy in 0..3_usize,
        ) {
            let policies = [EncodedSlash::Keep, EncodedSlash::Reject, EncodedSlash::Decode];
            let encoded_slash = policies[policy];
            let rules = PathNormalisation {
                should_normalise: normalised,
                should_merge_slashes: merge_slashes,
                encoded_slash,
            };
            if let Ok(once) = normalise(&path, &rules) {
                let twice = normalise(&once, &rules);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                prop_assert!(once.starts_with('/'));
                prop_assert!(!merge_slashes || !once.contains("//"));
                let has_dots = once.split('/').any(|part| part == "." || part == "..");
                prop_assert!(!normalised || !has_dots);
            }
        }
    }
}
