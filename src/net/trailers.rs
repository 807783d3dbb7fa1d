//! Fields that come after a body (RFC 9110 6.5).
//!
//! They are passed on as what they are and never merged into the head. Whoever reads them has acted on
//! the head already: a field that frames, routes or authenticates means nothing here, and could only
//! be mistaken for one that does.

use http::header::{HeaderMap, HeaderName, TE};

/// Fields that follow a body; in a box, since most bodies have none.
pub type Trailers = Option<Box<HeaderMap>>;

/// What may be passed on of `fields`.
#[must_use]
pub fn passed(mut fields: HeaderMap) -> Trailers {
    let forbidden: Vec<HeaderName> =
        fields.keys().filter(|name| is_forbidden(name)).cloned().collect();
    for name in forbidden {
        fields.remove(name);
    }
    (!fields.is_empty()).then(|| Box::new(fields))
}

/// Whether a request with these headers says that trailers can be taken (RFC 9110 10.1.4).
#[must_use]
pub fn are_accepted(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        let mut codings = value.split(',').map(|coding| coding.split(';').next());
        codings.any(|coding| coding.is_some_and(|c| c.trim().eq_ignore_ascii_case("trailers")))
    })
}

/// Fields for message framing, routing, request modifiers, authentication, response control and
/// content (RFC 9110 6.5.1), and those that a proxy speaks with.
fn is_forbidden(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Many readers take the one sign for the other.
    if name.contains('_') {
        let same = HeaderName::try_from(name.replace('_', "-"));
        return same.is_ok_and(|name| is_forbidden(&name));
    }
    let is_said_after = matches!(name, "content-digest");
    let begins = ["content-", "proxy-", "x-forwarded-", "x-gapless-", "if-", "access-control-"];
    if begins.iter().any(|start| name.starts_with(start)) {
        return !is_said_after;
    }
    matches!(
        name,
        "transfer-encoding"
            | "connection"
            | "keep-alive"
            | "upgrade"
            | "te"
            | "trailer"
            | "http2-settings"
            | "host"
            | "via"
            | "forwarded"
            | "max-forwards"
            | "expect"
            | "range"
            | "pragma"
            | "cache-control"
            | "authorization"
            | "www-authenticate"
            | "authentication-info"
            | "cookie"
            | "set-cookie"
            | "age"
            | "date"
            | "expires"
            | "location"
            | "retry-after"
            | "vary"
            | "warning"
            | "strict-transport-security"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn fields(names: &[&str]) -> HeaderMap {
        let field = |name: &&str| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_static("x"))
        };
        names.iter().map(field).collect()
    }

    #[test]
    fn what_belongs_into_a_head_is_dropped() {
        let all = fields(&[
            "grpc-status",
            "content-length",
            "transfer-encoding",
            "host",
            "authorization",
            "set-cookie",
            "x-forwarded-for",
            "content-digest",
            "connection",
            "if-match",
            "x_forwarded_for",
            "content_length",
        ]);
        let left = passed(all).expect("some");
        let mut left: Vec<&str> = left.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-digest", "grpc-status"]);
        assert_eq!(passed(fields(&["trailer"])), None);
        assert_eq!(passed(HeaderMap::new()), None);
    }

    #[test]
    fn who_takes_trailers_says_so() {
        let with = |value| {
            let mut headers = HeaderMap::new();
            headers.append(TE, HeaderValue::from_static("gzip"));
            headers.append(TE, HeaderValue::from_static(value));
            are_accepted(&headers)
        };
        assert!(with("trailers") && with("deflate, Trailers;q=1"));
        assert!(!with("trailer") && !with("x-trailers") && !are_accepted(&HeaderMap::new()));
    }
}
