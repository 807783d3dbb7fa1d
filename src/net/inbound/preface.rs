//! Which version of HTTP a client in cleartext begins with.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a client sends first that knows that HTTP/2 is spoken here (RFC 9113 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most request heads fit.
const READ_BYTES: usize = 2 * 1024;

/// What a client began with.
#[derive(Debug)]
pub struct Begun {
    /// Whether it was the preface of HTTP/2.
    pub is_http2: bool,
    /// What was read, to be read again.
    pub read: Bytes,
}

/// Reads until it is clear what is spoken: one read for nearly everybody, and never more than are
/// there. `None` if the client went away before.
///
/// # Errors
/// As reading has them.
pub async fn sniff(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Begun>> {
    let mut read = BytesMut::with_capacity(READ_BYTES);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
        let known = read.len().min(PREFACE.len());
        let is_http2 = read[..known] == PREFACE[..known];
        if !is_http2 || known == PREFACE.len() {
            return Ok(Some(Begun { is_http2, read: read.freeze() }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sniffed(mut pieces: &[&[u8]]) -> Option<(bool, Vec<u8>)> {
        let (mut near, mut far) = tokio::io::duplex(8);
        let sending = async {
            while let Some((piece, rest)) = pieces.split_first() {
                tokio::io::AsyncWriteExt::write_all(&mut far, piece).await.expect("sent");
                tokio::task::yield_now().await;
                pieces = rest;
            }
            drop(far);
        };
        let (begun, ()) = tokio::join!(sniff(&mut near), sending);
        begun.expect("read").map(|begun| (begun.is_http2, begun.read.to_vec()))
    }

    #[tokio::test]
    async fn the_first_byte_that_differs_decides() {
        assert_eq!(sniffed(&[b"P", b"O"]).await, Some((false, b"PO".to_vec())));
        assert_eq!(sniffed(&[b"G"]).await, Some((false, b"G".to_vec())));
        let preface: Vec<&[u8]> = PREFACE.chunks(1).collect();
        assert_eq!(sniffed(&preface).await, Some((true, PREFACE.to_vec())));
        assert_eq!(sniffed(&preface[..23]).await, None);
        assert_eq!(sniffed(&[]).await, None);
    }
}
