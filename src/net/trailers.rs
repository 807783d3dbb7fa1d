//! Trailer fields (RFC 9110 6.5).
//!
//! Trailers are forwarded as trailers and never merged into the head. A recipient has processed
//! the head before them, so that a field that frames, routes or authenticates has no meaning
//! there. Such fields are removed, because some recipients merge trailers nevertheless.

use http::header::{HeaderMap, HeaderName, TE};

use crate::logic::request::identity_fields::is_identity_field;

/// Trailer fields; boxed, because most bodies have none.
pub type Trailers = Option<Box<HeaderMap>>;

/// Removes the fields that may not be forwarded as trailers.
pub fn strip_forbidden(mut fields: HeaderMap) -> Trailers {
    let forbidden: Vec<HeaderName> =
        fields.keys().filter(|name| is_forbidden(name)).cloned().collect();
    for name in forbidden {
        fields.remove(name);
    }
    (!fields.is_empty()).then(|| Box::new(fields))
}

/// Whether a request with these headers accepts trailers (RFC 9110 10.1.4).
pub fn has_te_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        let mut codings = value.split(',').map(|coding| coding.split(';').next());
        codings.any(|coding| coding.is_some_and(|c| c.trim().eq_ignore_ascii_case("trailers")))
    })
}

/// Whether a field is for message framing, routing, request modifiers, authentication, response
/// control or content (RFC 9110 6.5.1), or is one that proxies add.
fn is_forbidden(name: &HeaderName) -> bool {
    if is_identity_field(name) {
        return true;
    }
    let name = name.as_str();
    // Many recipients treat `_` like `-`.
    if name.contains('_') {
        let normalized = HeaderName::try_from(name.replace('_', "-"));
        return normalized.is_ok_and(|name| is_forbidden(&name));
    }
    let is_allowed = matches!(name, "content-digest");
    let forbidden_prefixes = ["content-", "proxy-", "if-", "access-control-"];
    if forbidden_prefixes.iter().any(|prefix| name.starts_with(prefix)) {
        return !is_allowed;
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
    fn forbidden_trailer_fields_are_dropped() {
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
        let allowed = strip_forbidden(all).expect("some");
        let mut names: Vec<&str> = allowed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-digest", "grpc-status"]);
        assert_eq!(strip_forbidden(fields(&["trailer"])), None);
        assert_eq!(strip_forbidden(HeaderMap::new()), None);
    }

    #[test]
    fn te_trailers_is_recognized_by_token() {
        let has_trailers = |value| {
            let mut headers = HeaderMap::new();
            headers.append(TE, HeaderValue::from_static("gzip"));
            headers.append(TE, HeaderValue::from_static(value));
            has_te_trailers(&headers)
        };
        assert!(has_trailers("trailers") && has_trailers("deflate, Trailers;q=1"));
        assert!(
            !has_trailers("trailer")
                && !has_trailers("x-trailers")
                && !has_te_trailers(&HeaderMap::new())
        );
    }
}
