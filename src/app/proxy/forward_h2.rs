//! Requests as endpoints receive them over HTTP/2.

use std::net::SocketAddr;

use bytes::BytesMut;
use http::header::{
    CONTENT_LENGTH, FORWARDED, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, VIA,
};
use http::{Request, Uri, Version};

use crate::net::h1::{self, ConnectionOptions};
use crate::net::trailers;
use crate::net::upstream::BodyFraming;

use super::attempt::Ask;
use super::forward;
use super::marks::{REQUEST_ID, SpanId, TRACEPARENT};
use super::origin;

/// Fields that are added, at most.
const ADDED: usize = 8;

/// The most usual of them: to make a name of bytes costs more than to find it.
static KNOWN: [HeaderName; 6] = [
    HeaderName::from_static(origin::FOR),
    HeaderName::from_static(origin::PROTO),
    HeaderName::from_static(origin::HOST),
    HeaderName::from_static(TRACEPARENT),
    REQUEST_ID,
    FORWARDED,
];

/// What they are written in first; mostly it is enough.
const ADDED_BYTES: usize = 512;

/// The request that is asked of the endpoint at `address`; `None` if HTTP/2 cannot say it.
///
/// The same is left out and added as over HTTP/1.1.
pub(super) fn request(
    ask: &Ask<'_>,
    span: Option<&SpanId>,
    scheme: &'static str,
    address: SocketAddr,
) -> Option<Request<()>> {
    let mut request = Request::new(());
    *request.method_mut() = ask.request.method().clone();
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri(ask, scheme, address)?;
    *request.headers_mut() = headers(ask, span)?;
    Some(request)
}

fn uri(ask: &Ask<'_>, scheme: &'static str, address: SocketAddr) -> Option<Uri> {
    let builder = Uri::builder().scheme(scheme);
    // HTTP/1.0 may not say whom it asks.
    let builder = match ask.admitted.host {
        "" => builder.authority(address.to_string()),
        host => builder.authority(host),
    };
    let target = ask.request.uri().path_and_query().cloned();
    builder
        .path_and_query(target.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")))
        .build()
        .ok()
}

fn headers(ask: &Ask<'_>, span: Option<&SpanId>) -> Option<HeaderMap> {
    let given = ask.request.headers();
    let options = ConnectionOptions::of(given);
    let mut headers = HeaderMap::with_capacity(given.len() + ADDED);
    for (name, value) in given {
        if !forward::is_replaced(name)
            && !ask.asker.replaces(name)
            && !h1::is_hop_by_hop(name)
            && !options.has(name.as_str())
        {
            headers.append(name.clone(), value.clone());
        }
    }
    match ask.admitted.framing {
        Some(BodyFraming::Chunked) => {
            for names in given.get_all(TRAILER) {
                headers.append(TRAILER, names.clone());
            }
        }
        Some(BodyFraming::Length) | None => {
            if let Some(length) = ask.admitted.length {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
    }
    if trailers::are_accepted(given) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    forwarded(&mut headers, ask, span)?;
    Some(headers)
}

fn forwarded(headers: &mut HeaderMap, ask: &Ask<'_>, span: Option<&SpanId>) -> Option<()> {
    let mut lines = BytesMut::with_capacity(ADDED_BYTES);
    ask.asker.write(&mut lines, ask.request.headers(), ask.admitted.asked_host, span);
    let lines = lines.freeze();
    for line in lines.split(|&b| b == b'\n') {
        let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
        let name = name(&line[..colon])?;
        let text = line[colon + 1..].trim_ascii();
        let value = if name == REQUEST_ID || name == TRACEPARENT {
            let mut value = HeaderValue::from_maybe_shared(lines.slice_ref(text)).ok()?;
            // No two requests have the same: in the table of either side it would only be in the way.
            value.set_sensitive(true);
            value
        } else {
            // In a table it must not keep all of them.
            HeaderValue::from_bytes(text).ok()?
        };
        headers.append(name, value);
    }
    for given in ask.request.headers().get_all(VIA) {
        headers.append(VIA, given.clone());
    }
    forward::add_via(headers, ask.via);
    Some(())
}

/// The name of a field that is added.
fn name(bytes: &[u8]) -> Option<HeaderName> {
    let known = KNOWN.iter().find(|name| name.as_str().as_bytes() == bytes);
    known.cloned().or_else(|| HeaderName::from_bytes(bytes).ok())
}
