//! A client's connection and its answers, with an eye on what the connection is doing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::app::proxy::{Early, ProxyBody};
use crate::net::client::ClientStream;
use crate::net::upstream::ResponseError;

use super::crowd::UnderWay;
use super::pulse::Pulse;

/// To a client of which half a request has come (RFC 9110 15.5.9).
const TOO_LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    x-gapless-reason: header_timeout\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 15\r\n\
    connection: close\r\n\r\n\
    header_timeout\n";

/// A connection that feels what moves on it, and ends when a head is late. Interim answers reach the
/// client here.
#[derive(Debug)]
pub(super) struct Guarded {
    stream: ClientStream,
    pulse: Arc<Pulse>,
    early: Early,
    /// What is being written of them.
    interim: BytesMut,
    /// Nothing of another message is under way to the client.
    is_clear: bool,
}

impl Guarded {
    /// The connection whose pulse that is, and where interim answers wait that are to go on it.
    pub(super) fn new(stream: ClientStream, pulse: Arc<Pulse>, early: Early) -> Self {
        Self { stream, pulse, early, interim: BytesMut::new(), is_clear: true }
    }

    /// Writes what waits of interim answers, before hyper writes anything more.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.early.is_any() {
            let interim = self.early.take();
            // Else the answer before is still on its way, and they would be a part of it.
            if self.is_clear && self.interim.is_empty() {
                self.interim = interim;
            }
        }
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pulse.sent();
            self.interim.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// As much of an answer as can be written at once: nobody waits for who is late.
    fn answer(&mut self, cx: &mut Context<'_>) {
        if self.pulse.can_be_answered()
            && matches!(Pin::new(&mut self.stream).poll_write(cx, TOO_LATE), Poll::Ready(Ok(_)))
        {
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
        let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
    }
}

impl Read for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.pulse.is_late() {
            self.answer(cx);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        // At the end of what the client sends there is nothing, and the connection is over.
        self.pulse.received();
        Poll::Ready(Ok(()))
    }
}

impl Guarded {
    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        // What could not be written waits in hyper, which is as good as on its way.
        self.is_clear = false;
        if let Poll::Ready(Ok(_)) = written {
            self.pulse.sent();
        }
    }
}

impl Write for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_early(cx))?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_early(cx))?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_early(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.is_clear = true;
        // hyper asks for that only when it has handed over all that it had.
        self.pulse.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// An answer's body: its request is under way for as long as it lives.
pub(super) struct Served {
    body: ProxyBody,
    _under_way: UnderWay,
}

impl Served {
    /// The answer to the request that is under way.
    pub(super) fn new(body: ProxyBody, under_way: UnderWay) -> Self {
        Self { body, _under_way: under_way }
    }
}

impl Body for Served {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::poll_fn;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use crate::net::client::Bounded;

    #[tokio::test]
    async fn an_interim_answer_waits_for_no_gap_inside_of_another_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let mut client = TcpStream::connect(address).await.expect("connected");
        let (stream, _) = listener.accept().await.expect("accepted");
        let stream =
            ClientStream::plain(Bounded::new(stream, Duration::from_mins(1)), Bytes::new());
        let early = Early::default();
        let pulse = Arc::new(Pulse::new(&Arc::new(AtomicU64::new(0))));
        let mut guarded = Guarded::new(stream, pulse, early.share());
        let write = async |guarded: &mut Guarded, text: &[u8]| {
            let written = poll_fn(|cx| Pin::new(&mut *guarded).poll_write(cx, text)).await;
            assert_eq!(written.expect("written"), text.len());
        };
        early.put(b"early1 ");
        write(&mut guarded, b"half ").await;
        early.put(b"late ");
        write(&mut guarded, b"answer ").await;
        poll_fn(|cx| Pin::new(&mut guarded).poll_flush(cx)).await.expect("flushed");
        early.put(b"early2 ");
        poll_fn(|cx| Pin::new(&mut guarded).poll_flush(cx)).await.expect("flushed");
        write(&mut guarded, b"end").await;
        drop(guarded);
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "early1 half answer early2 end");
    }
}
