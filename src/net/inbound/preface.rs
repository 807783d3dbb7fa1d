//! Detects the HTTP version of a client in cleartext.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The connection preface of a client with prior knowledge of HTTP/2 (RFC 9113 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of one read; most request heads fit.
const READ_BYTES: usize = 2 * 1024;

/// The detected version, and the bytes read.
#[derive(Debug)]
pub struct SniffedHttp {
    /// Whether the client sent the HTTP/2 preface.
    pub is_http2: bool,
    /// The bytes read, to be parsed again.
    pub prefix: Bytes,
}

/// Reads until the version is known, which takes one read for almost all clients. `None` if the
/// client closed the connection before.
///
/// # Errors
/// Errors of the stream.
pub async fn sniff_http_version(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<SniffedHttp>> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(None);
        }
        let compared = buffer.len().min(HTTP2_PREFACE.len());
        let is_http2 = buffer[..compared] == HTTP2_PREFACE[..compared];
        if !is_http2 || compared == HTTP2_PREFACE.len() {
            return Ok(Some(SniffedHttp { is_http2, prefix: buffer.freeze() }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sniff_parts(mut parts: &[&[u8]]) -> Option<(bool, Vec<u8>)> {
        let (mut server, mut client) = tokio::io::duplex(8);
        let sending = async {
            while let Some((part, rest)) = parts.split_first() {
                tokio::io::AsyncWriteExt::write_all(&mut client, part).await.expect("sent");
                tokio::task::yield_now().await;
                parts = rest;
            }
            drop(client);
        };
        let (sniffed_http, ()) = tokio::join!(sniff_http_version(&mut server), sending);
        sniffed_http.expect("read").map(|sniffed| (sniffed.is_http2, sniffed.prefix.to_vec()))
    }

    #[tokio::test]
    async fn first_differing_byte_decides_http_version() {
        assert_eq!(sniff_parts(&[b"P", b"O"]).await, Some((false, b"PO".to_vec())));
        assert_eq!(sniff_parts(&[b"G"]).await, Some((false, b"G".to_vec())));
        let preface: Vec<&[u8]> = HTTP2_PREFACE.chunks(1).collect();
        assert_eq!(sniff_parts(&preface).await, Some((true, HTTP2_PREFACE.to_vec())));
        assert_eq!(sniff_parts(&preface[..23]).await, None);
        assert_eq!(sniff_parts(&[]).await, None);
    }
}
