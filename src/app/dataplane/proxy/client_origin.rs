//! The origin of a request, from the forwarding headers of trusted proxies.
//!
//! For a peer that is not a trusted proxy, its own address counts, and its forwarding headers are
//! replaced. The headers of a trusted peer are followed back through all trusted proxies. The first
//! address behind them is the client (RFC 7239 8.1).

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use http::HeaderMap;
use http::header::{AsHeaderName, FORWARDED};
use smallvec::SmallVec;

use crate::config::model::ForwardedHeaders;
use crate::logic::model::network::Network;
use crate::net::h1;

use super::client::Client;
use super::forwarded_header::{ForwardedElement, parse_forwarded};
use super::validation;

/// Limit of hops that are followed.
const MAX_HOPS: usize = 64;

pub(super) const X_FORWARDED_FOR: &str = "x-forwarded-for";
pub(super) const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
pub(super) const X_FORWARDED_HOST: &str = "x-forwarded-host";

#[derive(Debug)]
pub(super) struct ClientOrigin<'a> {
    /// The client's address; IPv4-mapped addresses as IPv4.
    pub(super) ip: IpAddr,
    /// The scheme that the client used.
    pub(super) scheme: &'static str,
    /// The host that the client requested, as reported by a trusted proxy.
    host: Option<Cow<'a, str>>,
    pub(super) is_from_trusted_proxy: bool,
    fields: ForwardedHeaders,
}

impl<'a> ClientOrigin<'a> {
    /// Follows `headers` if `client` is in a `trusted` network.
    pub(super) fn from_headers(
        client: &Client,
        headers: &'a HeaderMap,
        trusted: &[Network],
        fields: ForwardedHeaders,
    ) -> Self {
        let peer = client.address.ip().to_canonical();
        let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
        let is_from_trusted_proxy = !trusted.is_empty() && is_trusted(peer);
        let mut origin =
            Self { ip: peer, scheme: client.scheme(), host: None, is_from_trusted_proxy, fields };
        if is_from_trusted_proxy {
            let hop = if fields == ForwardedHeaders::Rfc7239 {
                client_from_forwarded(headers, peer, is_trusted)
            } else {
                client_from_x_forwarded(headers, peer, is_trusted)
            };
            origin.ip = hop.ip;
            origin.scheme = hop.scheme.unwrap_or(origin.scheme);
            origin.host = hop.host;
        }
        origin
    }

    /// Writes the forwarding headers for an endpoint.
    pub(super) fn write_fields(
        &self,
        out: &mut BytesMut,
        headers: &HeaderMap,
        client: &Client,
        host: &str,
    ) {
        if matches!(self.fields, ForwardedHeaders::XForwarded | ForwardedHeaders::Both) {
            self.begin_list(out, headers, X_FORWARDED_FOR);
            out.extend_from_slice(client.ip_text.as_bytes());
            out.extend_from_slice(b"\r\n");
            h1::write_header(out, X_FORWARDED_PROTO, self.scheme.as_bytes());
            let host = self.host.as_deref().unwrap_or(host);
            if !host.is_empty() {
                h1::write_header(out, X_FORWARDED_HOST, host.as_bytes());
            }
        }
        match self.fields {
            ForwardedHeaders::Rfc7239 => {
                // An open quote in the value would absorb the appended element.
                if parse_forwarded_fields(headers).is_some() {
                    self.begin_list(out, headers, "forwarded");
                } else {
                    out.extend_from_slice(b"forwarded: ");
                }
                write_element(out, client.address.ip(), client.scheme(), host);
                out.extend_from_slice(b"\r\n");
            }
            // A proxy that uses one of both headers may pass on the other unchecked, so `forwarded`
            // is built from the evaluated origin.
            ForwardedHeaders::Both => {
                out.extend_from_slice(b"forwarded: ");
                write_element(out, self.ip, self.scheme, self.host.as_deref().unwrap_or(host));
                if self.is_from_trusted_proxy {
                    out.extend_from_slice(b", ");
                    write_element(out, client.address.ip(), client.scheme(), host);
                }
                out.extend_from_slice(b"\r\n");
            }
            ForwardedHeaders::XForwarded | ForwardedHeaders::Off => {}
        }
    }

    /// Writes the header's name and, from a trusted proxy, its current values.
    fn begin_list(&self, out: &mut BytesMut, headers: &HeaderMap, name: &str) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        if !self.is_from_trusted_proxy {
            return;
        }
        for value in headers.get_all(name) {
            if !value.as_bytes().trim_ascii().is_empty() {
                out.extend_from_slice(value.as_bytes());
                out.extend_from_slice(b", ");
            }
        }
    }
}

/// The first hop that is not a trusted proxy.
struct ForwardedHop<'a> {
    ip: IpAddr,
    scheme: Option<&'static str>,
    host: Option<Cow<'a, str>>,
}

/// The origin by X-Forwarded-For and its companions.
fn client_from_x_forwarded(
    headers: &HeaderMap,
    peer: IpAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> ForwardedHop<'_> {
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let texts = values.map(|value| value.to_str().unwrap_or_default());
    let hops = texts.flat_map(|text| text.rsplit(',')).take(MAX_HOPS);
    let mut ip = peer;
    for hop in hops {
        let Some(address) = parse_node(hop.trim()) else { break };
        ip = address;
        if !is_trusted(address) {
            break;
        }
    }
    ForwardedHop {
        ip,
        scheme: single_value(headers, X_FORWARDED_PROTO).and_then(parse_scheme),
        host: single_value(headers, X_FORWARDED_HOST)
            .filter(|host| validation::is_valid_host(host))
            .map(Cow::Borrowed),
    }
}

/// The origin by Forwarded (RFC 7239 4).
fn client_from_forwarded(
    headers: &HeaderMap,
    peer: IpAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> ForwardedHop<'_> {
    let mut found = ForwardedHop { ip: peer, scheme: None, host: None };
    let Some(elements) = parse_forwarded_fields(headers) else { return found };
    for element in elements.into_iter().rev().take(MAX_HOPS) {
        let named = element.source.as_deref().and_then(parse_node);
        let Some(ip) = named else { return found };
        found = ForwardedHop {
            ip,
            scheme: element.proto.as_deref().and_then(parse_scheme),
            host: element.host.filter(|host| validation::is_valid_host(host)),
        };
        if !is_trusted(ip) {
            return found;
        }
    }
    found
}

/// The elements of all Forwarded fields; `None` if one of them breaks the grammar.
fn parse_forwarded_fields(headers: &HeaderMap) -> Option<SmallVec<[ForwardedElement<'_>; 8]>> {
    let mut all = SmallVec::new();
    for value in headers.get_all(FORWARDED) {
        all.extend(parse_forwarded(value.to_str().ok()?)?);
    }
    Some(all)
}

/// An address with or without a port; `None` for `unknown` and obfuscated identifiers (RFC 7239
/// 6.3).
fn parse_node(text: &str) -> Option<IpAddr> {
    let ip = text.parse().ok();
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip()).ok();
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    ip.or_else(with_port).or_else(in_brackets).map(|ip: IpAddr| ip.to_canonical())
}

fn parse_scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|scheme| scheme.eq_ignore_ascii_case(text))
}

/// The value of a field that occurs exactly once.
fn single_value(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none());
    value.and_then(|value| value.to_str().ok()).map(str::trim)
}

/// `for=192.0.2.7;proto=http;host="a.example"`.
fn write_element(out: &mut BytesMut, ip: IpAddr, scheme: &str, host: &str) {
    use std::fmt::Write;
    let _ = match ip.to_canonical() {
        IpAddr::V4(v4) => write!(out, "for={v4};proto={scheme}"),
        IpAddr::V6(v6) => write!(out, "for=\"[{v6}]\";proto={scheme}"),
    };
    if !host.is_empty() {
        let _ = write!(out, ";host=\"{host}\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> Vec<Network> {
        ["10.0.0.0/8", "fd00::/8"].map(|text| Network::parse(text).expect("a network")).to_vec()
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (http::HeaderName::from_static(name), value.parse().expect("a value"))
        };
        fields.iter().map(field).collect()
    }

    fn origin(peer: &str, fields: ForwardedHeaders, map: &HeaderMap) -> (String, String) {
        let client = Client::new(
            SocketAddr::new(peer.parse().expect("an address"), 5_000),
            ([127, 0, 0, 1], 80).into(),
        );
        let origin = ClientOrigin::from_headers(&client, map, &trusted(), fields);
        let mut out = BytesMut::new();
        origin.write_fields(&mut out, map, &client, "own.example");
        let resolved = format!("{} {}", origin.ip, origin.scheme);
        (resolved, String::from_utf8(out.to_vec()).expect("text").replace("\r\n", "|"))
    }

    #[test]
    fn rightmost_untrusted_address_is_the_client() {
        for (chain, client) in [
            ("192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1, 10.0.0.9", "192.0.2.1"),
            ("10.0.0.8,10.0.0.9", "10.0.0.8"),
            ("6.6.6.6, unknown, 10.0.0.9", "10.0.0.9"),
            ("6.6.6.6, , 10.0.0.9", "10.0.0.9"),
            ("6.6.6.6, [2001:db8::1]:443", "2001:db8::1"),
            ("6.6.6.6, 192.0.2.1:443", "192.0.2.1"),
            ("6.6.6.6, ::ffff:192.0.2.1", "192.0.2.1"),
            ("rubbish", "10.0.0.1"),
        ] {
            let map = headers(&[(X_FORWARDED_FOR, chain)]);
            let (resolved, _) = origin("10.0.0.1", ForwardedHeaders::XForwarded, &map);
            assert_eq!(resolved, format!("{client} http"), "{chain}");
        }
        let map = headers(&[
            (X_FORWARDED_FOR, "6.6.6.6"),
            (X_FORWARDED_FOR, "192.0.2.1"),
            (X_FORWARDED_FOR, "fd00::1"),
        ]);
        let (resolved, written) = origin("10.0.0.1", ForwardedHeaders::XForwarded, &map);
        assert_eq!(resolved, "192.0.2.1 http", "fields of several lines are one list");
        let list = "x-forwarded-for: 6.6.6.6, 192.0.2.1, fd00::1, 10.0.0.1|";
        assert!(written.starts_with(list), "{written}");
    }

    #[test]
    fn untrusted_peer_fields_are_ignored() {
        let map = headers(&[
            (X_FORWARDED_FOR, "6.6.6.6"),
            (X_FORWARDED_PROTO, "https"),
            (X_FORWARDED_HOST, "evil.example"),
            ("forwarded", "for=6.6.6.6;proto=https;host=evil.example"),
        ]);
        let element = "forwarded: for=192.0.2.7;proto=http;host=\"own.example\"|";
        let list =
            "x-forwarded-for: 192.0.2.7|x-forwarded-proto: http|x-forwarded-host: own.example|";
        for (fields, expected) in [
            (ForwardedHeaders::XForwarded, list.to_owned()),
            (ForwardedHeaders::Rfc7239, element.to_owned()),
            (ForwardedHeaders::Both, format!("{list}{element}")),
            (ForwardedHeaders::Off, String::new()),
        ] {
            let (resolved, written) = origin("192.0.2.7", fields, &map);
            assert_eq!((resolved.as_str(), written), ("192.0.2.7 http", expected), "{fields:?}");
        }
    }

    #[test]
    fn trusted_proxy_is_read_only_in_configured_fields() {
        let map = headers(&[
            (X_FORWARDED_FOR, "192.0.2.1"),
            (X_FORWARDED_PROTO, "HTTPS"),
            (X_FORWARDED_HOST, "a.example:8443"),
            ("forwarded", "for=6.6.6.6"),
        ]);
        let (resolved, written) = origin("10.0.0.1", ForwardedHeaders::Both, &map);
        assert_eq!(resolved, "192.0.2.1 https");
        let expected = "x-forwarded-for: 192.0.2.1, 10.0.0.1|x-forwarded-proto: https|\
                        x-forwarded-host: a.example:8443|\
                        forwarded: for=192.0.2.1;proto=https;host=\"a.example:8443\", \
                        for=10.0.0.1;proto=http;host=\"own.example\"|";
        assert_eq!(written, expected, "what a client has slipped through is not believed");
        let map = headers(&[(X_FORWARDED_PROTO, "gopher"), (X_FORWARDED_HOST, "a b")]);
        let (resolved, written) = origin("10.0.0.1", ForwardedHeaders::XForwarded, &map);
        assert_eq!(resolved, "10.0.0.1 http");
        let own =
            "x-forwarded-for: 10.0.0.1|x-forwarded-proto: http|x-forwarded-host: own.example|";
        assert_eq!(written, own);
    }

    #[test]
    fn forwarded_header_is_parsed_per_rfc_7239() {
        for (value, expected) in [
            ("for=192.0.2.1", "192.0.2.1 http"),
            ("For=\"[2001:db8::1]:47011\";Proto=https", "2001:db8::1 https"),
            ("for=6.6.6.6, for=192.0.2.1;proto=https, for=10.0.0.9", "192.0.2.1 https"),
            ("for=6.6.6.6;host=\"a,b;c=\\\"\", for=_hidden, for=10.0.0.9", "10.0.0.9 http"),
            ("for=unknown", "10.0.0.1 http"),
            ("by=10.0.0.2", "10.0.0.1 http"),
            ("for=192.0.2.1;host=\"a.example\"", "192.0.2.1 http"),
        ] {
            let map = headers(&[("forwarded", value), (X_FORWARDED_FOR, "6.6.6.6")]);
            let (found, written) = origin("10.0.0.1", ForwardedHeaders::Rfc7239, &map);
            assert_eq!(found, expected, "{value}");
            let tail = ", for=10.0.0.1;proto=http;host=\"own.example\"|";
            assert_eq!(written, format!("forwarded: {value}{tail}"));
        }
    }

    #[test]
    fn broken_forwarded_header_is_neither_read_nor_extended() {
        for values in [
            &["for=6.6.6.6;x=\", for=10.0.0.9"][..],
            &["for=6.6.6.6;for=192.0.2.1"],
            &["for=6.6.6.6;x=\"", "for=10.0.0.9"],
        ] {
            let fields: Vec<_> = values.iter().map(|value| ("forwarded", *value)).collect();
            let map: HeaderMap = fields
                .iter()
                .map(|(name, value)| {
                    (http::HeaderName::from_static(name), value.parse().expect("a value"))
                })
                .collect();
            let (found, written) = origin("10.0.0.1", ForwardedHeaders::Rfc7239, &map);
            assert_eq!(found, "10.0.0.1 http", "{values:?}");
            assert_eq!(written, "forwarded: for=10.0.0.1;proto=http;host=\"own.example\"|");
        }
    }
}
