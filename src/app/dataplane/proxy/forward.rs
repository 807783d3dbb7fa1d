//! Request heads for endpoints over HTTP/1.1: fields that are forwarded, removed and added.

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, TRAILER, VIA};
use http::{Method, Request, Version};

use crate::logic::request::identity_fields;
use crate::net::h1::{self, ConnectionOptions};
use crate::net::trailers;
use crate::net::upstream::BodyFraming;

use super::downstream::Downstream;
use super::request_ids::SpanId;
use super::validation::ValidatedRequest;
use super::via::write_via;

/// The head of a request as an endpoint receives it over HTTP/1.1.
pub(super) struct OutgoingHead<'a, B> {
    pub(super) request: &'a Request<B>,
    pub(super) validated: &'a ValidatedRequest<'a>,
    pub(super) downstream: &'a Downstream<'a>,
    /// The span of the attempt.
    pub(super) span: Option<&'a SpanId>,
    /// The pseudonym in Via; none is added if it is empty.
    pub(super) via: &'a str,
    /// The protocol of an upgrade.
    pub(super) switch_to: Option<&'static str>,
}

impl<B> OutgoingHead<'_, B> {
    /// Writes the head.
    ///
    /// Removes hop-by-hop and nominated fields before it adds those of the proxy, so that a client
    /// can neither remove nor forge the latter.
    pub(super) fn write(&self, out: &mut BytesMut) {
        let &Self { request, validated, downstream, span, via, switch_to } = self;
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        h1::write_request_line(out, request.method(), target);
        h1::write_header(out, "host", validated.host.as_bytes());
        let options = ConnectionOptions::from_headers(request.headers());
        let is_http2 = request.version() == Version::HTTP_2;
        for (name, value) in request.headers() {
            if is_http2 && *name == COOKIE {
                continue;
            }
            if !is_replaced(name)
                && !downstream.should_replace(name)
                && !h1::is_hop_by_hop(name)
                && !options.has_option(name.as_str())
            {
                h1::write_header(out, name.as_str(), value.as_bytes());
            }
        }
        if is_http2 {
            write_cookies(out, request.headers());
        }
        match validated.framing {
            Some(BodyFraming::Chunked) => {
                h1::write_header(out, "transfer-encoding", b"chunked");
                for names in request.headers().get_all(TRAILER) {
                    h1::write_header(out, "trailer", names.as_bytes());
                }
            }
            Some(BodyFraming::Length) | None => {
                let is_empty = switch_to.is_none() && anticipates_content(request.method());
                if let Some(length) = validated.content_length.or_else(|| is_empty.then_some(0)) {
                    h1::write_header(
                        out,
                        "content-length",
                        itoa::Buffer::new().format(length).as_bytes(),
                    );
                }
            }
        }
        if trailers::has_te_trailers(request.headers()) {
            h1::write_header(out, "te", b"trailers");
            h1::write_header(out, "connection", b"te");
        }
        downstream.write_fields(out, request.headers(), validated.client_host, span);
        write_via(out, request.headers(), if is_http2 { "2.0" } else { "1.1" }, via);
        if let Some(protocol) = switch_to {
            h1::write_header(out, "connection", b"upgrade");
            h1::write_header(out, "upgrade", protocol.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether a request with this method says by `Content-Length: 0` that it has no content (RFC 9110
/// 8.6): many endpoints answer 411 otherwise.
fn anticipates_content(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Fields that are generated instead of forwarded.
pub(super) fn is_replaced(name: &HeaderName) -> bool {
    if *name == HOST || *name == CONTENT_LENGTH || *name == VIA || *name == EXPECT {
        return true;
    }
    identity_fields::is_generated(name)
}

/// HTTP/2 clients split cookies; HTTP/1.1 has one field (RFC 9113 8.2.3). Empty values would leave
/// a trailing separator.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::dataplane::access::RecordedRequest;
    use crate::app::dataplane::http_policy::HttpPolicy;
    use crate::app::dataplane::proxy::client::Client;
    use crate::app::dataplane::proxy::request_ids::IdGenerator;
    use crate::app::dataplane::proxy::validation::validate;
    use std::rc::Rc;

    use crate::config::model::{AccessLogConfig, HeaderPolicy, ServerLimits};
    use crate::logic::routing::PathNormalisation;

    fn rendered_head(headers: &[(&str, &str)]) -> String {
        let builder = Request::builder().method("GET").uri("/a?b=c").header("host", "h.example:81");
        let request = headers.iter().fold(builder, |b, (name, value)| b.header(*name, *value));
        let request = request.body(()).expect("request");
        let mut out = BytesMut::new();
        let validated = validate(&request).expect("admitted");
        let policy = HttpPolicy {
            limits: ServerLimits::default(),
            headers: HeaderPolicy { should_set_request_id: false, ..HeaderPolicy::default() },
            access_log: AccessLogConfig::default(),
            trusted_proxies: Vec::new(),
            paths: PathNormalisation::default(),
            geo_database: None,
            country_header: None,
        };
        let (peer, local) = (([192, 0, 2, 7], 5_000).into(), ([192, 0, 2, 1], 80).into());
        let (client, recorded) = (
            Rc::new(Client::new(peer, local)),
            RecordedRequest { request: request.clone(), record: None },
        );
        let downstream = Downstream::new(&policy, &IdGenerator::default(), &client, &recorded);
        let head = OutgoingHead {
            request: &request,
            validated: &validated,
            downstream: &downstream,
            span: None,
            via: "gapless",
            switch_to: None,
        };
        head.write(&mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn plain_request_gets_forwarded_headers() {
        assert_eq!(
            rendered_head(&[("accept", "*/*")]),
            "GET /a?b=c HTTP/1.1\r\nhost: h.example:81\r\naccept: */*\r\nx-forwarded-for: 192.0.2.7\r\n\
             x-forwarded-proto: http\r\nx-forwarded-host: h.example:81\r\nvia: 1.1 gapless\r\n\r\n"
        );
    }

    #[test]
    fn client_cannot_forge_or_remove_proxy_headers() {
        let text = rendered_head(&[
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
    fn trailers_are_announced_only_where_possible() {
        let text = rendered_head(&[("te", "gzip, trailers"), ("connection", "te")]);
        assert!(text.contains("\r\nte: trailers\r\nconnection: te\r\n"), "{text}");
        let text = rendered_head(&[("transfer-encoding", "chunked"), ("trailer", "x-sum")]);
        assert!(text.contains("\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n"), "{text}");
        let text = rendered_head(&[("content-length", "1"), ("trailer", "x-sum")]);
        assert!(!text.contains("trailer"), "{text}");
    }

    #[test]
    fn body_framing_headers_are_rebuilt() {
        assert!(rendered_head(&[("content-length", "5")]).contains("\r\ncontent-length: 5\r\n"));
        assert!(
            rendered_head(&[("transfer-encoding", "CHUNKED")])
                .contains("\r\ntransfer-encoding: chunked\r\n")
        );
    }
}
