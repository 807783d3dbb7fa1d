//! The Via field (RFC 9110 7.6.3) of requests and responses.

use bytes::BytesMut;
use http::header::{HeaderMap, HeaderValue, VIA};

use crate::net::h1;

pub(super) fn write_via(out: &mut BytesMut, headers: &HeaderMap, version: &str, via: &str) {
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

/// Adds our Via to a response; none if `via` is empty.
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
