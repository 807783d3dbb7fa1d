//! HTTP/1.1 towards endpoints (RFC 9112), without I/O: bytes in, messages out.
//!
//! hyper serves clients. This codec replaces it towards endpoints. It reports which bytes of a
//! request were sent, needs no task or channel, and frees the buffer of an idle connection.

mod body;
mod encode;
mod framing;
mod head;
mod hop_by_hop;

pub use body::{BodyDecoder, Decoded};
pub use encode::{
    LAST_CHUNK, write_chunk, write_header, write_last_chunk, write_request_line, write_status_line,
};
pub use framing::{Framing, Malformed};
pub use head::{ResponseHead, parse_response};
pub use hop_by_hop::{ConnectionOptions, is_hop_by_hop};
