//! Encodes heads and chunked bodies.

use bytes::{BufMut, BytesMut};
use http::{Method, StatusCode};

use crate::net::trailers::Trailers;

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes `METHOD target HTTP/1.1`.
pub fn write_request_line(out: &mut BytesMut, method: &Method, target: &str) {
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
}

/// Writes `HTTP/1.1 status reason`.
pub fn write_status_line(out: &mut BytesMut, status: StatusCode) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
}

/// Writes one field line; `name` and `value` must be valid.
pub fn write_header(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Writes one chunk; nothing for empty `data`, because an empty chunk would end the body.
pub fn write_chunk(out: &mut BytesMut, data: &[u8]) {
    if !data.is_empty() {
        out.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
        out.put_slice(data);
        out.put_slice(b"\r\n");
    }
}

/// Writes the end of a chunked body, with its trailers.
pub fn write_last_chunk(out: &mut BytesMut, trailers: &Trailers) {
    let Some(trailers) = trailers else { return out.extend_from_slice(LAST_CHUNK) };
    out.extend_from_slice(b"0\r\n");
    for (name, value) in &**trailers {
        write_header(out, name.as_str(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
