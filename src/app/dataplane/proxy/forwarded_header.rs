//! A strict parser of the Forwarded header (RFC 7239 4).
//!
//! A proxy appends its element to a value that may come from a client. A parser that tolerates an
//! open quote reads the appended element as the end of the client's string, and trusts the address
//! that the client wrote. So a field that breaks the grammar anywhere is ignored.

use std::borrow::Cow;

use smallvec::SmallVec;

/// One hop, as a proxy reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ForwardedElement<'a> {
    /// The node that made the request.
    pub(super) source: Option<Cow<'a, str>>,
    pub(super) proto: Option<Cow<'a, str>>,
    pub(super) host: Option<Cow<'a, str>>,
}

/// Parses a field value; `None` if it breaks the grammar or repeats a parameter in an element.
pub(super) fn parse_forwarded(text: &str) -> Option<SmallVec<[ForwardedElement<'_>; 4]>> {
    let mut elements = SmallVec::new();
    let mut rest = text.trim_matches(is_blank);
    while !rest.is_empty() {
        // An empty element of a list is allowed (RFC 9110 5.6.1.2).
        if let Some(next) = rest.strip_prefix(',') {
            rest = next.trim_start_matches(is_blank);
            continue;
        }
        let (element, next) = parse_element(rest)?;
        elements.push(element);
        let next = next.trim_start_matches(is_blank);
        rest = match next.strip_prefix(',') {
            Some(next) => next.trim_start_matches(is_blank),
            None if next.is_empty() => next,
            None => return None,
        };
    }
    Some(elements)
}

/// Parses pairs that `;` separates, up to the end of the element; returns the rest of the text.
fn parse_element(mut text: &str) -> Option<(ForwardedElement<'_>, &str)> {
    let mut element = ForwardedElement::default();
    let mut names: SmallVec<[&str; 4]> = SmallVec::new();
    loop {
        // An element may have empty pairs.
        if !text.starts_with(';') {
            let (name, rest) = take_token(text)?;
            let (value, rest) = parse_value(rest.strip_prefix('=')?)?;
            if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return None;
            }
            names.push(name);
            if name.eq_ignore_ascii_case("for") {
                element.source = Some(value);
            } else if name.eq_ignore_ascii_case("proto") {
                element.proto = Some(value);
            } else if name.eq_ignore_ascii_case("host") {
                element.host = Some(value);
            }
            text = rest;
        }
        match text.strip_prefix(';') {
            Some(rest) if rest.is_empty() || rest.starts_with([',', ' ', '\t']) => {
                return Some((element, rest));
            }
            Some(rest) => text = rest,
            None => return Some((element, text)),
        }
    }
}

/// A token or a quoted string, without its quotes and escapes.
fn parse_value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = take_token(text)?;
        return Some((Cow::Borrowed(token), rest));
    };
    let end = quoted.find(['"', '\\'])?;
    if quoted.as_bytes()[end] == b'"' {
        return is_quotable(&quoted[..end])
            .then(|| (Cow::Borrowed(&quoted[..end]), &quoted[end + 1..]));
    }
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    loop {
        match chars.next()? {
            (end, '"') => {
                return is_quotable(&value).then(|| (Cow::Owned(value), &quoted[end + 1..]));
            }
            (_, '\\') => value.push(chars.next()?.1),
            (_, c) => value.push(c),
        }
    }
}

/// Whether a quoted string may contain this (RFC 9110 5.6.4).
fn is_quotable(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f)
}

/// The token at the start of `text`, at least one character, and the rest (RFC 9110 5.6.2).
fn take_token(text: &str) -> Option<(&str, &str)> {
    let is_token_char = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token_char(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_values_give_their_elements() {
        for (text, sources) in [
            ("for=192.0.2.1", &["192.0.2.1"][..]),
            ("For=\"[2001:db8::1]:4711\";Proto=https;by=203.0.113.43", &["[2001:db8::1]:4711"]),
            ("for=a , for=b,for=\"c\"", &["a", "b", "c"]),
            (", for=a,, ", &["a"]),
            ("for=a;;proto=http", &["a"]),
            ("for=a;, for=b;", &["a", "b"]),
            ("for=\"a\\\"b\"", &["a\"b"]),
            ("for=\"a,b;c\"", &["a,b;c"]),
            ("", &[]),
        ] {
            let elements = parse_forwarded(text).unwrap_or_else(|| panic!("{text}"));
            let found: Vec<_> = elements.iter().filter_map(|one| one.source.as_deref()).collect();
            assert_eq!(found, sources, "{text}");
        }
    }

    #[test]
    fn values_that_break_the_grammar_are_refused() {
        for text in [
            "for=6.6.6.6;x=\", for=10.0.0.9",
            "for=a;for=b",
            "for=a;FOR=b",
            "for=192.0.2.1:443",
            "for=[::1]",
            "for = a",
            "for=a b",
            "for=",
            "for",
            "=a",
            "for=a;proto",
            "for=a; proto=http",
            "for=\"a\"b",
            "for=\"a",
            "for=\"a\\",
            "for=\"\u{1}\"",
        ] {
            assert_eq!(parse_forwarded(text), None, "{text}");
        }
    }
}
