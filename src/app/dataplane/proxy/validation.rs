//! Validation of requests before routing (RFC 9110, RFC 9112).

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Version};

use crate::net::upstream::BodyFraming;

use super::local_reply_reason::LocalReplyReason;

/// A valid request, as far as its head was parsed.
#[derive(Debug)]
pub(super) struct ValidatedRequest<'a> {
    /// The Host to forward: the client's, unless the route rewrites it.
    pub(super) host: &'a str,
    pub(super) client_host: &'a str,
    /// Framing of the body; `None` without a body.
    pub(super) framing: Option<BodyFraming>,
    pub(super) content_length: Option<u64>,
}

impl ValidatedRequest<'_> {
    /// The checks that HTTP/2 leaves to the application (RFC 9113 8.2, 8.3). HTTP/1.1 requests have
    /// passed theirs.
    ///
    /// # Errors
    /// The reason to refuse the request.
    pub(super) fn validate_h2<B>(
        self,
        request: &Request<B>,
        has_body: bool,
        max_fields: usize,
    ) -> Result<Self, LocalReplyReason> {
        if request.version() != Version::HTTP_2 {
            return Ok(self);
        }
        let headers = request.headers();
        if headers.len() > max_fields {
            return Err(LocalReplyReason::HeadTooLarge);
        }
        let is_blank = |b: Option<&u8>| b.is_some_and(|b| matches!(b, b' ' | b'\t'));
        let is_bad_value = |value: &HeaderValue| {
            is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last())
        };
        let is_other_host =
            |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(self.host.as_bytes());
        // hyper accepts any scheme, and it is not forwarded.
        let is_bad_scheme = request.uri().scheme_str().is_some_and(|s| s != "http" && s != "https");
        if is_bad_scheme
            || headers.values().any(is_bad_value)
            || headers.get(HOST).is_some_and(is_other_host)
        {
            return Err(LocalReplyReason::BadRequest);
        }
        // The end of the stream frames the body.
        let is_unframed = has_body && self.framing.is_none() && self.content_length.is_none();
        let framing = if is_unframed { Some(BodyFraming::Chunked) } else { self.framing };
        Ok(Self { framing, ..self })
    }
}

/// Refuses requests that are ambiguous or malformed.
///
/// # Errors
/// The reason to refuse the request.
pub(super) fn validate<B>(request: &Request<B>) -> Result<ValidatedRequest<'_>, LocalReplyReason> {
    if *request.method() == Method::CONNECT {
        return Err(LocalReplyReason::MethodRefused);
    }
    let path = request.uri().path();
    let is_star = path == "*";
    let target = request.uri().path_and_query().map_or(path, |target| target.as_str());
    if !(path.starts_with('/') || is_star && *request.method() == Method::OPTIONS)
        || !target.is_ascii()
    {
        return Err(LocalReplyReason::BadRequest);
    }
    let host = request_host(request)?;
    let (framing, length) = body_framing(request.headers())?;
    Ok(ValidatedRequest { host, client_host: host, framing, content_length: length })
}

/// The authority of an absolute target replaces Host (RFC 9112 3.2.2). Otherwise there must be
/// exactly one Host; only HTTP/1.0 may omit it.
fn request_host<B>(request: &Request<B>) -> Result<&str, LocalReplyReason> {
    let mut values = request.headers().get_all(HOST).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(LocalReplyReason::BadRequest);
    }
    if let Some(authority) = request.uri().authority() {
        return if is_valid_host(authority.as_str()) {
            Ok(authority.as_str())
        } else {
            Err(LocalReplyReason::BadRequest)
        };
    }
    let Some(value) = first else {
        return if request.version() == Version::HTTP_10 {
            Ok("")
        } else {
            Err(LocalReplyReason::BadRequest)
        };
    };
    let text = value.to_str().map_err(|_| LocalReplyReason::BadRequest)?;
    if is_valid_host(text) { Ok(text) } else { Err(LocalReplyReason::BadRequest) }
}

/// `uri-host [":" port]`, without userinfo, path or list (RFC 9110 7.2).
pub(super) fn is_valid_host(text: &str) -> bool {
    let (name, port) = if text.starts_with('[') {
        match text.find(']') {
            Some(end) => text.split_at(end + 1),
            None => return false,
        }
    } else {
        text.split_at(text.find(':').unwrap_or(text.len()))
    };
    let in_brackets = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_valid_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(&b);
    let is_valid_name = match in_brackets {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(is_valid_byte),
    };
    let is_valid_port = match port.strip_prefix(':') {
        Some(digits) => digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    is_valid_name && is_valid_port
}

/// The host as routes match it: lower case, without port and trailing dot.
pub(super) fn route_host(host: &str) -> std::borrow::Cow<'_, str> {
    let end =
        if host.starts_with('[') { host.find(']').map(|end| end + 1) } else { host.find(':') };
    let name = host[..end.unwrap_or(host.len())].trim_end_matches('.');
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    }
}

fn body_framing(
    headers: &HeaderMap,
) -> Result<(Option<BodyFraming>, Option<u64>), LocalReplyReason> {
    let length = content_length(headers)?;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok((length.filter(|&length| length > 0).map(|_| BodyFraming::Length), length));
    };
    // Exactly one `chunked` without a length: anything else allows request smuggling (RFC 9112
    // 6.1).
    if length.is_some() || codings.next().is_some() {
        return Err(LocalReplyReason::BadRequest);
    }
    let text = coding.to_str().map_err(|_| LocalReplyReason::BadRequest)?;
    if text.eq_ignore_ascii_case("chunked") {
        return Ok((Some(BodyFraming::Chunked), None));
    }
    let has_chunked = text.split(',').any(|part| part.trim().eq_ignore_ascii_case("chunked"));
    Err(if has_chunked { LocalReplyReason::BadRequest } else { LocalReplyReason::UnknownCoding })
}

/// A single number without leading zeros.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, LocalReplyReason> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.as_bytes();
    let has_leading_zero = digits.len() > 1 && digits[0] == b'0';
    if values.next().is_some() || has_leading_zero || !digits.iter().all(u8::is_ascii_digit) {
        return Err(LocalReplyReason::BadRequest);
    }
    let text = std::str::from_utf8(digits).map_err(|_| LocalReplyReason::BadRequest)?;
    text.parse().map(Some).map_err(|_| LocalReplyReason::BadRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let builder = Request::builder().method(method).uri(uri);
        let builder =
            headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).expect("request")
    }

    fn refusal(method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<LocalReplyReason> {
        validate(&request(method, uri, headers)).err()
    }

    #[test]
    fn host_is_single_and_well_formed() {
        assert_eq!(refusal("GET", "/", &[("host", "a.example:80")]), None);
        assert_eq!(refusal("GET", "/", &[("host", "[::1]:80")]), None);
        for bad in ["", "u@a", "a/b", "a,b", "a b", "a:b", "[::1", ":80", "a]b", "[]", "[zz]"] {
            assert_eq!(
                refusal("GET", "/", &[("host", bad)]),
                Some(LocalReplyReason::BadRequest),
                "{bad:?}"
            );
        }
        assert_eq!(refusal("GET", "/", &[]), Some(LocalReplyReason::BadRequest));
        assert_eq!(
            refusal("GET", "/", &[("host", "a"), ("host", "a")]),
            Some(LocalReplyReason::BadRequest)
        );
        let absolute = request("GET", "http://other/x", &[("host", "a")]);
        assert_eq!(validate(&absolute).expect("admitted").host, "other");
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let with = |fields: &[(&str, &str)]| {
            let all: Vec<_> = [("host", "a")].iter().chain(fields).copied().collect();
            validate(&request("POST", "/", &all)).map(|validated| validated.framing)
        };
        assert_eq!(with(&[]), Ok(None));
        assert_eq!(with(&[("content-length", "0")]), Ok(None));
        assert_eq!(with(&[("content-length", "7")]), Ok(Some(BodyFraming::Length)));
        assert_eq!(with(&[("transfer-encoding", "Chunked")]), Ok(Some(BodyFraming::Chunked)));
        for bad in ["010", "+1", "", "1,1", "18446744073709551616"] {
            assert_eq!(
                with(&[("content-length", bad)]),
                Err(LocalReplyReason::BadRequest),
                "{bad:?}"
            );
        }
        let both = [("content-length", "1"), ("transfer-encoding", "chunked")];
        assert_eq!(with(&both), Err(LocalReplyReason::BadRequest));
        for bad in ["chunked, chunked", ",chunked", "gzip, chunked"] {
            assert_eq!(
                with(&[("transfer-encoding", bad)]),
                Err(LocalReplyReason::BadRequest),
                "{bad:?}"
            );
        }
        assert_eq!(
            with(&[("transfer-encoding", "xchunked")]),
            Err(LocalReplyReason::UnknownCoding)
        );
    }

    #[test]
    fn connect_and_star_targets_are_checked() {
        assert_eq!(
            refusal("CONNECT", "a:443", &[("host", "a")]),
            Some(LocalReplyReason::MethodRefused)
        );
        assert_eq!(refusal("GET", "*", &[("host", "a")]), Some(LocalReplyReason::BadRequest));
        assert_eq!(refusal("OPTIONS", "*", &[("host", "a")]), None);
    }

    #[test]
    fn route_host_drops_port_case_and_dot() {
        assert_eq!(route_host("A.Example.:8080"), "a.example");
        assert_eq!(route_host("[::1]:80"), "[::1]");
        assert_eq!(route_host("plain"), "plain");
    }
}
