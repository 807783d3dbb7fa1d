//! Heads on their way through: what is passed on, what is left out, what is added.

use bytes::BytesMut;
use http::header::{
    CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TRAILER,
    VIA,
};
use http::{Request, Version};

use crate::net::h1::{self, ConnectionOptions};
use crate::net::trailers;
use crate::net::upstream::BodyFraming;

use super::admit::Admitted;
use super::asker::Asker;
use super::marks::SpanId;

/// Writes the head of `request` as an endpoint receives it.
///
/// Hop-by-hop and nominated fields go first, then our own are added, so that a client can neither
/// remove nor forge them. `span` is that of the try.
pub(super) fn write_request_head<B>(
    out: &mut BytesMut,
    request: &Request<B>,
    admitted: &Admitted<'_>,
    (asker, span): (&Asker<'_>, Option<&SpanId>),
    via: &str,
    switch_to: Option<&str>,
) {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    h1::write_request_line(out, request.method(), target);
    h1::write_header(out, "host", admitted.host.as_bytes());
    let options = ConnectionOptions::of(request.headers());
    let is_http2 = request.version() == Version::HTTP_2;
    for (name, value) in request.headers() {
        if is_http2 && *name == COOKIE {
            continue;
        }
        if !is_replaced(name)
            && !asker.replaces(name)
            && !h1::is_hop_by_hop(name)
            && !options.has(name.as_str())
        {
            h1::write_header(out, name.as_str(), value.as_bytes());
        }
    }
    if is_http2 {
        write_cookies(out, request.headers());
    }
    match admitted.framing {
        Some(BodyFraming::Chunked) => {
            h1::write_header(out, "transfer-encoding", b"chunked");
            for names in request.headers().get_all(TRAILER) {
                h1::write_header(out, "trailer", names.as_bytes());
            }
        }
        Some(BodyFraming::Length) | None => {
            if let Some(length) = admitted.length {
                h1::write_header(
                    out,
                    "content-length",
                    itoa::Buffer::new().format(length).as_bytes(),
                );
            }
        }
    }
    if trailers::are_accepted(request.headers()) {
        h1::write_header(out, "te", b"trailers");
        h1::write_header(out, "connection", b"te");
    }
    asker.write(out, request.headers(), admitted.asked_host, span);
    write_via(out, request.headers(), if is_http2 { "2.0" } else { "1.1" }, via);
    if let Some(protocol) = switch_to {
        h1::write_header(out, "connection", b"upgrade");
        h1::write_header(out, "upgrade", protocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Fields that are written anew.
pub(super) fn is_replaced(name: &HeaderName) -> bool {
    if *name == HOST
        || *name == CONTENT_LENGTH
        || *name == VIA
        || *name == EXPECT
        || *name == FORWARDED
    {
        return true;
    }
    matches!(
        name.as_str(),
        "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-client-cert"
    )
}

/// Clients split their cookies for HTTP/2; elsewhere they are one field (RFC 9113 8.2.3). Empty ones
/// would only leave a blank at its end.
fn write_cookies(out: &mut BytesMut, headers: &HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter().filter(|crumb| !crumb.is_empty());
    let Some(first) = crumbs.next() else { return };
    out.extend_from_slice(b"cookie: ");
    out.extend_from_slice(first.as_bytes());
    for crumb in crumbs {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(crumb.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn write_via(out: &mut BytesMut, headers: &HeaderMap, version: &str, via: &str) {
    for value in headers.get_all(VIA) {
        h1::write_header(out, "via", value.as_bytes());
    }
    if !via.is_empty() {
        out.extend_from_slice(b"via: ");
        out.extend_from_slice(version.as_bytes());
        out.extend_from_slice(b" ");
        out.extend_from_slice(via.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Adds our Via to a response.
pub(super) fn add_via(headers: &mut HeaderMap, via: &str) {
    if via.is_empty() {
        return;
    }
    let value = if via == "gapless" {
        Ok(HeaderValue::from_static("1.1 gapless"))
    } else {
        HeaderValue::try_from(format!("1.1 {via}"))
    };
    if let Ok(value) = value {
        headers.append(VIA, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::admit::admit;
    use super::super::client::Client;
    use super::super::marks::Ids;
    use super::*;
    use crate::app::access::Held;
    use crate::app::shared::Manners;
    use std::rc::Rc;

    use crate::config::model::{AccessLog, Headers, Limits};
    use crate::logic::route::PathRules;

    fn written(headers: &[(&str, &str)]) -> String {
        let builder = Request::builder().method("GET").uri("/a?b=c").header("host", "h.example:81");
        let request = headers.iter().fold(builder, |b, (name, value)| b.header(*name, *value));
        let request = request.body(()).expect("request");
        let mut out = BytesMut::new();
        let admitted = admit(&request).expect("admitted");
        let manners = Manners {
            limits: Limits::default(),
            headers: Headers { request_id: false, ..Headers::default() },
            access_log: AccessLog::default(),
            trusted_proxies: Vec::new(),
            paths: PathRules::default(),
            places: None,
            country_header: None,
        };
        let (peer, local) = (([192, 0, 2, 7], 5_000).into(), ([192, 0, 2, 1], 80).into());
        let (client, held) =
            (Rc::new(Client::new(peer, local)), Held { request: request.clone(), note: None });
        let asker = Asker::of(&manners, &Ids::default(), &client, &held);
        write_request_head(&mut out, &request, &admitted, (&asker, None), "gapless", None);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn a_plain_request() {
        assert_eq!(
            written(&[("accept", "*/*")]),
            "GET /a?b=c HTTP/1.1\r\nhost: h.example:81\r\naccept: */*\r\nx-forwarded-for: 192.0.2.7\r\n\
             x-forwarded-proto: http\r\nx-forwarded-host: h.example:81\r\nvia: 1.1 gapless\r\n\r\n"
        );
    }

    #[test]
    fn a_client_cannot_forge_or_remove_what_we_say() {
        let text = written(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("connection", "x-forwarded-for, x-secret, close"),
            ("x-secret", "s"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("te", "gzip"),
            ("trailer", "x-sum"),
            ("expect", "100-continue"),
            ("proxy-connection", "keep-alive"),
            ("via", "1.0 first"),
        ]);
        assert_eq!(
            text,
            "GET /a?b=c HTTP/1.1\r\nhost: h.example:81\r\nx-forwarded-for: 192.0.2.7\r\n\
             x-forwarded-proto: http\r\nx-forwarded-host: h.example:81\r\nvia: 1.0 first\r\nvia: 1.1 gapless\r\n\r\n"
        );
    }

    #[test]
    fn trailers_are_announced_where_they_can_come() {
        let text = written(&[("te", "gzip, trailers"), ("connection", "te")]);
        assert!(text.contains("\r\nte: trailers\r\nconnection: te\r\n"), "{text}");
        let text = written(&[("transfer-encoding", "chunked"), ("trailer", "x-sum")]);
        assert!(text.contains("\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n"), "{text}");
        let text = written(&[("content-length", "1"), ("trailer", "x-sum")]);
        assert!(!text.contains("trailer"), "{text}");
    }

    #[test]
    fn framing_is_rebuilt() {
        assert!(written(&[("content-length", "5")]).contains("\r\ncontent-length: 5\r\n"));
        assert!(
            written(&[("transfer-encoding", "CHUNKED")])
                .contains("\r\ntransfer-encoding: chunked\r\n")
        );
    }
}
