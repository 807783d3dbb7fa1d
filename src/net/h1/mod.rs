//! HTTP/1.1 towards endpoints, without I/O: bytes in, messages out (RFC 9112).
//!
//! hyper serves clients. Towards endpoints an own codec is worth its lines: it knows which bytes of
//! a request left, it costs no task and no channel, and it lets go of its buffer when idle.

use bytes::BytesMut;

use crate::net::trailers::Trailers;

mod body;
mod head;

pub use body::{BodyDecoder, Decoded, Malformed};
pub use head::{
    ConnectionOptions, Framing, ResponseHead, is_hop_by_hop, parse_response, write_chunk,
    write_header, write_request_line, write_status_line,
};

/// Ends a chunked body that nothing follows.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Ends a chunked body with what follows it.
pub fn write_last_chunk(out: &mut BytesMut, trailers: &Trailers) {
    let Some(trailers) = trailers else { return out.extend_from_slice(LAST_CHUNK) };
    out.extend_from_slice(b"0\r\n");
    for (name, value) in &**trailers {
        write_header(out, name.as_str(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
