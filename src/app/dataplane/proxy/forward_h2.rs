//! Request heads for endpoints over HTTP/2.

use std::net::SocketAddr;

use bytes::BytesMut;
use http::header::{
    CONTENT_LENGTH, FORWARDED, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, VIA,
};
use http::{Request, Uri, Version};

use crate::net::h1::{self, ConnectionOptions};
use crate::net::trailers;
use crate::net::upstream::BodyFraming;

use super::client_origin;
use super::forward;
use super::request_ids::{REQUEST_ID, SpanId, TRACEPARENT};
use super::upstream_request::UpstreamRequest;
use super::via::add_via;

/// Limit of added fields, for the capacity of the map.
const MAX_ADDED_FIELDS: usize = 8;

/// The most frequent added names: a lookup costs less than parsing a name.
static COMMON_NAMES: [HeaderName; 6] = [
    HeaderName::from_static(client_origin::X_FORWARDED_FOR),
    HeaderName::from_static(client_origin::X_FORWARDED_PROTO),
    HeaderName::from_static(client_origin::X_FORWARDED_HOST),
    HeaderName::from_static(TRACEPARENT),
    REQUEST_ID,
    FORWARDED,
];

/// Initial size of the buffer for added fields; mostly sufficient.
const ADDED_FIELDS_BYTES: usize = 512;

/// The request for the endpoint at `address`; `None` if HTTP/2 cannot express it.
///
/// It removes and adds the same fields as over HTTP/1.1.
pub(super) fn build_request(
    upstream: &UpstreamRequest<'_>,
    span: Option<&SpanId>,
    scheme: &'static str,
    address: SocketAddr,
) -> Option<Request<()>> {
    let mut request = Request::new(());
    *request.method_mut() = upstream.request.method().clone();
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = build_uri(upstream, scheme, address)?;
    *request.headers_mut() = build_headers(upstream, span)?;
    Some(request)
}

fn build_uri(
    upstream: &UpstreamRequest<'_>,
    scheme: &'static str,
    address: SocketAddr,
) -> Option<Uri> {
    let builder = Uri::builder().scheme(scheme);
    // HTTP/1.0 requests may lack a Host.
    let builder = match upstream.validated.host {
        "" => builder.authority(address.to_string()),
        host => builder.authority(host),
    };
    let target = upstream.request.uri().path_and_query().cloned();
    builder
        .path_and_query(target.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")))
        .build()
        .ok()
}

fn build_headers(upstream: &UpstreamRequest<'_>, span: Option<&SpanId>) -> Option<HeaderMap> {
    let client_headers = upstream.request.headers();
    let options = ConnectionOptions::from_headers(client_headers);
    let mut headers = HeaderMap::with_capacity(client_headers.len() + MAX_ADDED_FIELDS);
    for (name, value) in client_headers {
        if !forward::is_replaced(name)
            && !upstream.downstream.should_replace(name)
            && !h1::is_hop_by_hop(name)
            && !options.has_option(name.as_str())
        {
            headers.append(name.clone(), value.clone());
        }
    }
    match upstream.validated.framing {
        Some(BodyFraming::Chunked) => {
            for names in client_headers.get_all(TRAILER) {
                headers.append(TRAILER, names.clone());
            }
        }
        Some(BodyFraming::Length) | None => {
            if let Some(length) = upstream.validated.content_length {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
    }
    if trailers::has_te_trailers(client_headers) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    add_forwarded_fields(&mut headers, upstream, span)?;
    Some(headers)
}

fn add_forwarded_fields(
    headers: &mut HeaderMap,
    upstream: &UpstreamRequest<'_>,
    span: Option<&SpanId>,
) -> Option<()> {
    let mut lines = BytesMut::with_capacity(ADDED_FIELDS_BYTES);
    upstream.downstream.write_fields(
        &mut lines,
        upstream.request.headers(),
        upstream.validated.client_host,
        span,
    );
    let lines = lines.freeze();
    for line in lines.split(|&b| b == b'\n') {
        let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
        let name = header_name(&line[..colon])?;
        let text = line[colon + 1..].trim_ascii();
        let value = if name == REQUEST_ID || name == TRACEPARENT {
            let mut value = HeaderValue::from_maybe_shared(lines.slice_ref(text)).ok()?;
            // Unique values: they would fill the HPACK tables of both sides for nothing.
            value.set_sensitive(true);
            value
        } else {
            // Copied: a slice in the HPACK table would keep the whole buffer alive.
            HeaderValue::from_bytes(text).ok()?
        };
        headers.append(name, value);
    }
    for value in upstream.request.headers().get_all(VIA) {
        headers.append(VIA, value.clone());
    }
    add_via(headers, upstream.via);
    Some(())
}

/// The name of an added field.
fn header_name(bytes: &[u8]) -> Option<HeaderName> {
    let common = COMMON_NAMES.iter().find(|name| name.as_str().as_bytes() == bytes);
    common.cloned().or_else(|| HeaderName::from_bytes(bytes).ok())
}
