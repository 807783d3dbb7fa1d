//! Heads on their way through: what is passed on, what is left out, what is added.

use bytes::BytesMut;
use http::Request;
use http::header::{
    CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA,
};

use crate::net::h1::{self, ConnectionOptions};
use crate::net::upstream::BodyFraming;

use super::admit::Admitted;
use super::asker::Asker;

/// Writes the head of `request` as an endpoint receives it.
///
/// Hop-by-hop and nominated fields go first, then our own are added, so that a client can neither
/// remove nor forge them.
pub(super) fn write_request_head<B>(
    out: &mut BytesMut,
    request: &Request<B>,
    admitted: &Admitted<'_>,
    asker: &Asker<'_>,
    via: &str,
    switch_to: Option<&str>,
) {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    h1::write_request_line(out, request.method(), target);
    h1::write_header(out, "host", admitted.host.as_bytes());
    let options = ConnectionOptions::of(request.headers());
    for (name, value) in request.headers() {
        if !is_replaced(name)
            && !asker.replaces(name)
            && !h1::is_hop_by_hop(name)
            && !options.has(name.as_str())
        {
            h1::write_header(out, name.as_str(), value.as_bytes());
        }
    }
    match admitted.framing {
        Some(BodyFraming::Chunked) => h1::write_header(out, "transfer-encoding", b"chunked"),
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
    asker.write(out, request.headers(), admitted.host);
    write_via(out, request.headers(), via);
    if let Some(protocol) = switch_to {
        h1::write_header(out, "connection", b"upgrade");
        h1::write_header(out, "upgrade", protocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Fields that are written anew.
fn is_replaced(name: &HeaderName) -> bool {
    if *name == HOST
        || *name == CONTENT_LENGTH
        || *name == VIA
        || *name == EXPECT
        || *name == FORWARDED
    {
        return true;
    }
    matches!(name.as_str(), "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host")
}

fn write_via(out: &mut BytesMut, headers: &HeaderMap, via: &str) {
    for value in headers.get_all(VIA) {
        h1::write_header(out, "via", value.as_bytes());
    }
    if !via.is_empty() {
        out.extend_from_slice(b"via: 1.1 ");
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
    use crate::config::model::{AccessLog, Headers, Limits};

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
        };
        let (peer, local) = (([192, 0, 2, 7], 5_000).into(), ([192, 0, 2, 1], 80).into());
        let (client, held) =
            (Client::new(peer, local), Held { request: request.clone(), note: None });
        let asker = Asker::of(&manners, &Ids::default(), &client, &held);
        write_request_head(&mut out, &request, &admitted, &asker, "gapless", None);
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
            ("te", "trailers"),
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
    fn framing_is_rebuilt() {
        assert!(written(&[("content-length", "5")]).contains("\r\ncontent-length: 5\r\n"));
        assert!(
            written(&[("transfer-encoding", "CHUNKED")])
                .contains("\r\ntransfer-encoding: chunked\r\n")
        );
    }
}
