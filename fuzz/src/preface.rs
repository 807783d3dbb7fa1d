//! The detection of a client's protocol in cleartext: the result does not depend on how the bytes
//! are split, and no byte is lost.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use gapless::net::inbound::preface::sniff_http_version;
use tokio::io::{AsyncRead, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that delivers bytes in pieces.
struct ChunkedReader(VecDeque<Vec<u8>>);

impl AsyncRead for ChunkedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            let taken = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..taken]);
            if taken < piece.len() {
                self.0.push_front(piece.split_off(taken));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Panics if `data` violates the property. The first byte is the length of pieces, the rest is the
/// stream.
pub fn check(data: &[u8]) {
    let Some((&piece_size, wire)) = data.split_first() else { return };
    let pieces = wire.chunks(usize::from(piece_size) + 1).map(<[u8]>::to_vec).collect();
    let mut stream = ChunkedReader(pieces);
    let sniffed = {
        let mut sniffing = pin!(sniff_http_version(&mut stream));
        let Poll::Ready(sniffed) = sniffing.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("it waits although all is there");
        };
        sniffed.expect("no error")
    };
    let is_undecided = PREFACE.len() > wire.len() && PREFACE.starts_with(wire);
    assert_eq!(sniffed.is_none(), is_undecided);
    let Some(sniffed) = sniffed else { return };
    assert_eq!(sniffed.is_http2, wire.starts_with(PREFACE));
    let rest: Vec<u8> = stream.0.into_iter().flatten().collect();
    assert_eq!([&sniffed.prefix[..], &rest].concat(), wire, "a byte is lost");
}
