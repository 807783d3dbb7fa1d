//! What a request must be before it is routed (RFC 9110, RFC 9112).

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Version};

use crate::net::upstream::BodyFraming;

use super::fault::Reason;

/// What the request path needs to know of a request that may pass.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    /// The Host to forward: as the client wrote it, unless a route says another.
    pub(super) host: &'a str,
    /// The Host that the client wrote.
    pub(super) asked_host: &'a str,
    /// How the body is framed; `None` if there is none.
    pub(super) framing: Option<BodyFraming>,
    /// The content-length, if there is one.
    pub(super) length: Option<u64>,
}

impl Admitted<'_> {
    /// What HTTP/2 leaves to be checked, and says in its own way (RFC 9113 8.2, 8.3). With HTTP/1.1
    /// all that is done already.
    ///
    /// # Errors
    /// The reason to refuse the request with.
    pub(super) fn over<B>(
        self,
        request: &Request<B>,
        has_body: bool,
        fields_at_most: usize,
    ) -> Result<Self, Reason> {
        if request.version() != Version::HTTP_2 {
            return Ok(self);
        }
        let headers = request.headers();
        if headers.len() > fields_at_most {
            return Err(Reason::HeadTooLarge);
        }
        let is_blank = |b: Option<&u8>| b.is_some_and(|b| matches!(b, b' ' | b'\t'));
        let value_is_bad = |value: &HeaderValue| {
            is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last())
        };
        let other_host =
            |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(self.host.as_bytes());
        // The library takes any scheme; it is dropped here, but nobody means these.
        let scheme_is_bad = request.uri().scheme_str().is_some_and(|s| s != "http" && s != "https");
        if scheme_is_bad
            || headers.values().any(value_is_bad)
            || headers.get(HOST).is_some_and(other_host)
        {
            return Err(Reason::BadRequest);
        }
        // Its end is where the stream's is.
        let unframed = has_body && self.framing.is_none() && self.length.is_none();
        let framing = if unframed { Some(BodyFraming::Chunked) } else { self.framing };
        Ok(Self { framing, ..self })
    }
}

/// Checks what could be read in two ways, or not at all.
///
/// # Errors
/// The reason to refuse it with.
pub(super) fn admit<B>(request: &Request<B>) -> Result<Admitted<'_>, Reason> {
    if *request.method() == Method::CONNECT {
        return Err(Reason::MethodRefused);
    }
    let path = request.uri().path();
    let is_star = path == "*";
    let target = request.uri().path_and_query().map_or(path, |target| target.as_str());
    if !(path.starts_with('/') || is_star && *request.method() == Method::OPTIONS)
        || !target.is_ascii()
    {
        return Err(Reason::BadRequest);
    }
    let host = host(request)?;
    let (framing, length) = framing(request.headers())?;
    Ok(Admitted { host, asked_host: host, framing, length })
}

/// The authority of an absolute target replaces Host (RFC 9112 3.2.2); else there must be exactly
/// one Host, and only HTTP/1.0 may leave it out.
fn host<B>(request: &Request<B>) -> Result<&str, Reason> {
    let mut values = request.headers().get_all(HOST).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Reason::BadRequest);
    }
    if let Some(authority) = request.uri().authority() {
        return if is_host(authority.as_str()) {
            Ok(authority.as_str())
        } else {
            Err(Reason::BadRequest)
        };
    }
    let Some(value) = first else {
        return if request.version() == Version::HTTP_10 {
            Ok("")
        } else {
            Err(Reason::BadRequest)
        };
    };
    let text = value.to_str().map_err(|_| Reason::BadRequest)?;
    if is_host(text) { Ok(text) } else { Err(Reason::BadRequest) }
}

/// `uri-host [":" port]`, without userinfo, path or list (RFC 9110 7.2).
pub(super) fn is_host(text: &str) -> bool {
    let (name, port) = if text.starts_with('[') {
        match text.find(']') {
            Some(end) => text.split_at(end + 1),
            None => return false,
        }
    } else {
        text.split_at(text.find(':').unwrap_or(text.len()))
    };
    let in_brackets = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(&b);
    let name_is_valid = match in_brackets {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(valid),
    };
    let port_is_valid = match port.strip_prefix(':') {
        Some(digits) => digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    name_is_valid && port_is_valid
}

/// The host as routes know it: lower case, without port and trailing dot.
#[must_use]
pub(super) fn route_key(host: &str) -> std::borrow::Cow<'_, str> {
    let end =
        if host.starts_with('[') { host.find(']').map(|end| end + 1) } else { host.find(':') };
    let name = host[..end.unwrap_or(host.len())].trim_end_matches('.');
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    }
}

fn framing(headers: &HeaderMap) -> Result<(Option<BodyFraming>, Option<u64>), Reason> {
    let length = content_length(headers)?;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok((length.filter(|&length| length > 0).map(|_| BodyFraming::Length), length));
    };
    // Exactly one `chunked`, and no length beside it: anything else has been read in two ways.
    if length.is_some() || codings.next().is_some() {
        return Err(Reason::BadRequest);
    }
    let text = coding.to_str().map_err(|_| Reason::BadRequest)?;
    if text.eq_ignore_ascii_case("chunked") {
        return Ok((Some(BodyFraming::Chunked), None));
    }
    let listed = text.split(',').any(|part| part.trim().eq_ignore_ascii_case("chunked"));
    Err(if listed { Reason::BadRequest } else { Reason::UnknownCoding })
}

/// One value of digits without leading zeros.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Reason> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.as_bytes();
    let leading_zero = digits.len() > 1 && digits[0] == b'0';
    if values.next().is_some() || leading_zero || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Reason::BadRequest);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Reason::BadRequest)?;
    text.parse().map(Some).map_err(|_| Reason::BadRequest)
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

    fn refusal(method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<Reason> {
        admit(&request(method, uri, headers)).err()
    }

    #[test]
    fn hosts_are_one_and_plain() {
        assert_eq!(refusal("GET", "/", &[("host", "a.example:80")]), None);
        assert_eq!(refusal("GET", "/", &[("host", "[::1]:80")]), None);
        for bad in ["", "u@a", "a/b", "a,b", "a b", "a:b", "[::1", ":80", "a]b", "[]", "[zz]"] {
            assert_eq!(refusal("GET", "/", &[("host", bad)]), Some(Reason::BadRequest), "{bad:?}");
        }
        assert_eq!(refusal("GET", "/", &[]), Some(Reason::BadRequest));
        assert_eq!(refusal("GET", "/", &[("host", "a"), ("host", "a")]), Some(Reason::BadRequest));
        let absolute = request("GET", "http://other/x", &[("host", "a")]);
        assert_eq!(admit(&absolute).expect("admitted").host, "other");
    }

    #[test]
    fn framing_has_one_reading() {
        let with = |fields: &[(&str, &str)]| {
            let all: Vec<_> = [("host", "a")].iter().chain(fields).copied().collect();
            admit(&request("POST", "/", &all)).map(|admitted| admitted.framing)
        };
        assert_eq!(with(&[]), Ok(None));
        assert_eq!(with(&[("content-length", "0")]), Ok(None));
        assert_eq!(with(&[("content-length", "7")]), Ok(Some(BodyFraming::Length)));
        assert_eq!(with(&[("transfer-encoding", "Chunked")]), Ok(Some(BodyFraming::Chunked)));
        for bad in ["010", "+1", "", "1,1", "18446744073709551616"] {
            assert_eq!(with(&[("content-length", bad)]), Err(Reason::BadRequest), "{bad:?}");
        }
        let both = [("content-length", "1"), ("transfer-encoding", "chunked")];
        assert_eq!(with(&both), Err(Reason::BadRequest));
        for bad in ["chunked, chunked", ",chunked", "gzip, chunked"] {
            assert_eq!(with(&[("transfer-encoding", bad)]), Err(Reason::BadRequest), "{bad:?}");
        }
        assert_eq!(with(&[("transfer-encoding", "xchunked")]), Err(Reason::UnknownCoding));
    }

    #[test]
    fn methods_and_targets() {
        assert_eq!(refusal("CONNECT", "a:443", &[("host", "a")]), Some(Reason::MethodRefused));
        assert_eq!(refusal("GET", "*", &[("host", "a")]), Some(Reason::BadRequest));
        assert_eq!(refusal("OPTIONS", "*", &[("host", "a")]), None);
    }

    #[test]
    fn routes_know_hosts_without_port_and_case() {
        assert_eq!(route_key("A.Example.:8080"), "a.example");
        assert_eq!(route_key("[::1]:80"), "[::1]");
        assert_eq!(route_key("plain"), "plain");
    }
}
