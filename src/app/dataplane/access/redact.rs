//! Redaction of queries: the names of parameters stay, their values do not.

const MASK: &[u8] = b"*";

/// Writes a target or URL with redacted query values. A part without `=` may itself be a secret, so
/// all of it is redacted.
pub(super) fn redact_query(out: &mut Vec<u8>, target: &[u8]) {
    let Some(start) = target.iter().position(|&b| b == b'?') else {
        out.extend_from_slice(target);
        return;
    };
    let (path, rest) = target.split_at(start + 1);
    out.extend_from_slice(path);
    let mut part = 0;
    for at in 0..=rest.len() {
        let separator = rest.get(at).copied();
        if separator.is_some_and(|b| !matches!(b, b'&' | b';' | b'#')) {
            continue;
        }
        mask_value(out, &rest[part..at]);
        out.extend(separator);
        part = at + 1;
    }
}

fn mask_value(out: &mut Vec<u8>, part: &[u8]) {
    let Some(equals) = part.iter().position(|&b| b == b'=') else {
        out.extend_from_slice(if part.is_empty() { b"" } else { MASK });
        return;
    };
    out.extend_from_slice(&part[..=equals]);
    if part.len() > equals + 1 {
        out.extend_from_slice(MASK);
    }
}

/// The same for a URL, without its userinfo.
pub(super) fn redact_url(out: &mut Vec<u8>, url: &[u8]) {
    let authority = url.windows(3).position(|three| three == b"://").map(|at| at + 3);
    let rest = authority.map_or(url, |at| &url[at..]);
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    match (authority, rest[..end].iter().rposition(|&b| b == b'@')) {
        (Some(start), Some(at)) => {
            out.extend_from_slice(&url[..start]);
            redact_query(out, &rest[at + 1..]);
        }
        _ => redact_query(out, url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(target: &str) -> String {
        let mut out = Vec::new();
        redact_query(&mut out, target.as_bytes());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn query_values_are_masked_and_names_kept() {
        for (target, expected) in [
            ("/a/b", "/a/b"),
            ("/a?", "/a?"),
            ("/a?b=c", "/a?b=*"),
            ("/a?b=c&d=e=f&g=", "/a?b=*&d=*&g="),
            ("/a?token;x=1", "/a?*;x=*"),
            ("/a?x=1?y=2&&", "/a?x=*&&"),
            ("/a?=secret", "/a?=*"),
            ("/a?x=1#access_token=t", "/a?x=*#access_token=*"),
        ] {
            assert_eq!(redacted(target), expected, "{target}");
        }
    }

    #[test]
    fn url_user_info_is_removed() {
        for (text, expected) in [
            ("https://a.example/b?c=d", "https://a.example/b?c=*"),
            ("https://u:p@a.example/b@c?d=e", "https://a.example/b@c?d=*"),
            ("https://u:p@q@a.example", "https://a.example"),
            ("/b@c?d=e", "/b@c?d=*"),
        ] {
            let mut out = Vec::new();
            redact_url(&mut out, text.as_bytes());
            assert_eq!(String::from_utf8(out).expect("text"), expected);
        }
    }
}
