//! Refuses requests to the admin API that a web page in a browser may have caused.
//!
//! A page can send requests to loopback, and through a name that resolves to loopback it can read
//! the responses (DNS rebinding). So there is one `Host`, and it is an address or `localhost`;
//! where requests carry a token, which no page has, it may be any name.

use std::net::{IpAddr, Ipv6Addr};

use http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use http::{Request, StatusCode, Uri};

use super::access::AdminAccess;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminRefusal {
    Host,
    Origin,
    Token,
}

impl AdminRefusal {
    /// The word in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Token => "token",
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Host | Self::Origin => StatusCode::FORBIDDEN,
            Self::Token => StatusCode::UNAUTHORIZED,
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Host => "there must be one Host, which is an address or localhost\n",
            Self::Origin => "requests from other origins are refused\n",
            Self::Token => "the admin token is missing or wrong: `Authorization: Bearer TOKEN`\n",
        }
    }
}

/// Checks host, origin and token, in this order.
pub(super) fn check<B>(request: &Request<B>, access: &AdminAccess) -> Result<(), AdminRefusal> {
    let host = only_value(request.headers(), HOST).unwrap_or_default().unwrap_or_default();
    let is_allowed_host = host_name(host)
        .is_some_and(|name| access.has_token() || is_local_name(name))
        && is_same_authority(request.uri(), host);
    if !is_allowed_host {
        return Err(AdminRefusal::Host);
    }
    let scheme = if access.tls.is_some() { "https://" } else { "http://" };
    let is_same_origin = |origin: &str| {
        origin.strip_prefix(scheme).is_some_and(|origin| origin.eq_ignore_ascii_case(host))
    };
    match only_value(request.headers(), ORIGIN) {
        // A browser adds `Origin` to every request of a page that is not a plain GET or HEAD.
        Ok(origin)
            if origin.is_none_or(|one| request.method().is_safe() || is_same_origin(one)) => {}
        _ => return Err(AdminRefusal::Origin),
    }
    if access.is_authorized(request.headers()) { Ok(()) } else { Err(AdminRefusal::Token) }
}

/// The value of a field that may be there once; an error if it is there more often, or unreadable.
pub(super) fn only_value(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// The name in `name[:port]`, without the brackets of an IPv6 address; `None` if there is anything
/// else, such as user information.
fn host_name(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(inside) => {
            let (name, rest) = inside.split_once(']')?;
            name.parse::<Ipv6Addr>().ok()?;
            (name, rest)
        }
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_valid = !name.is_empty()
        && name.bytes().all(is_name_byte)
        && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    is_valid.then_some(name)
}

fn is_local_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// An absolute target names the same host; it would replace `Host` otherwise (RFC 9112 3.2.2).
fn is_same_authority(target: &Uri, host: &str) -> bool {
    target.authority().is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{AdminConfig, AdminToken};
    use http::Method;

    fn request(method: Method, target: &str, fields: &[(HeaderName, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(name, *value);
        }
        request.body(()).expect("a request")
    }

    fn checked(
        method: Method,
        target: &str,
        fields: &[(HeaderName, &str)],
    ) -> Option<AdminRefusal> {
        check(&request(method, target, fields), &AdminAccess::default()).err()
    }

    #[test]
    fn host_must_be_one_address_or_localhost() {
        for host in ["localhost:9900", "127.0.0.1:9900", "[::1]:9900", "LOCALHOST", "[::1]"] {
            assert_eq!(checked(Method::GET, "/metrics", &[(HOST, host)]), None, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "localhost:80@evil",
            "[::1]evil",
            "[evil]",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1:+80",
            "user@localhost",
            "localhost, evil",
            "localhost:99999",
            "::1",
            "127.0.0.1/a",
        ] {
            let refusal = checked(Method::GET, "/metrics", &[(HOST, host)]);
            assert_eq!(refusal, Some(AdminRefusal::Host), "{host}");
        }
        let twice = [(HOST, "localhost"), (HOST, "localhost")];
        assert_eq!(checked(Method::GET, "/", &twice), Some(AdminRefusal::Host));
        assert_eq!(checked(Method::GET, "/", &[]), Some(AdminRefusal::Host));
    }

    #[test]
    fn absolute_target_must_name_the_same_host() {
        let host = [(HOST, "localhost:9900")];
        assert_eq!(checked(Method::GET, "http://localhost:9900/", &host), None);
        for target in ["http://evil.example/", "http://localhost/", "http://a@localhost:9900/"] {
            assert_eq!(checked(Method::GET, target, &host), Some(AdminRefusal::Host), "{target}");
        }
    }

    #[test]
    fn write_from_other_origin_is_refused() {
        let post = |origins: &[&str]| {
            let origins = origins.iter().map(|origin| (ORIGIN, *origin));
            let fields: Vec<_> = [(HOST, "127.0.0.1:9900")].into_iter().chain(origins).collect();
            checked(Method::POST, "/api/v1/orders", &fields)
        };
        let own = "http://127.0.0.1:9900";
        assert_eq!((post(&[]), post(&[own])), (None, None));
        let others =
            [&["http://evil.example"][..], &["null"], &[own, own], &["https://127.0.0.1:9900"]];
        for origins in others {
            assert_eq!(post(origins), Some(AdminRefusal::Origin), "{origins:?}");
        }
    }

    #[test]
    fn token_replaces_the_check_of_the_name() {
        let token = AdminToken::parse("0123456789abcdef").ok();
        let config = AdminConfig { token, ..AdminConfig::default() };
        let access = AdminAccess::prepare(&config).expect("no TLS");
        let host = (HOST, "gapless.internal:9900");
        let bearer = (http::header::AUTHORIZATION, "Bearer 0123456789abcdef");
        let refusal = |fields: &[_]| check(&request(Method::GET, "/", fields), &access).err();
        assert_eq!(refusal(&[host.clone(), bearer.clone()]), None);
        assert_eq!(refusal(&[host]), Some(AdminRefusal::Token));
        assert_eq!(refusal(&[(HOST, "a@b"), bearer]), Some(AdminRefusal::Host));
    }
}
