//! What a client in cleartext begins with: told by its bytes alone, however they are cut, and none of
//! them lost.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use gapless::net::inbound::preface::sniff;
use tokio::io::{AsyncRead, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that come in pieces.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
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

/// Panics if `data` breaks it: a length for the pieces, then what comes.
pub fn holds(data: &[u8]) {
    let Some((&step, wire)) = data.split_first() else { return };
    let pieces = wire.chunks(usize::from(step) + 1).map(<[u8]>::to_vec).collect();
    let mut stream = Pieces(pieces);
    let begun = {
        let mut sniffing = pin!(sniff(&mut stream));
        let Poll::Ready(begun) = sniffing.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("it waits although all is there");
        };
        begun.expect("no error")
    };
    let is_unclear = PREFACE.len() > wire.len() && PREFACE.starts_with(wire);
    assert_eq!(begun.is_none(), is_unclear);
    let Some(begun) = begun else { return };
    assert_eq!(begun.is_http2, wire.starts_with(PREFACE));
    let rest: Vec<u8> = stream.0.into_iter().flatten().collect();
    assert_eq!([&begun.read[..], &rest].concat(), wire, "a byte is lost");
}
