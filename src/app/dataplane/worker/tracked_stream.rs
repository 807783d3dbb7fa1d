//! A client's stream and its response bodies, which update the connection's phase.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::app::dataplane::proxy::{InterimResponses, ProxyBody};
use crate::net::client_stream::ClientStream;
use crate::net::upstream::ResponseBodyError;

use super::client_connections::ActiveRequest;
use super::connection_activity::ConnectionActivity;

/// For a client that has sent a part of a request head (RFC 9110 15.5.9).
const REQUEST_TIMEOUT_RESPONSE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    x-gapless-reason: header_timeout\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 15\r\n\
    connection: close\r\n\r\n\
    header_timeout\n";

/// A stream that records its activity, writes interim responses, and ends when a head is late.
#[derive(Debug)]
pub(super) struct TrackedStream {
    stream: ClientStream,
    activity: Arc<ConnectionActivity>,
    interim_responses: InterimResponses,
    /// Interim responses that are being written.
    interim_buffer: BytesMut,
    /// No part of another message is on its way to the client.
    is_between_messages: bool,
}

impl TrackedStream {
    /// Wraps `stream`; reports to `activity` and writes what `interim_responses` queues.
    pub(super) fn new(
        stream: ClientStream,
        activity: Arc<ConnectionActivity>,
        interim_responses: InterimResponses,
    ) -> Self {
        Self {
            stream,
            activity,
            interim_responses,
            interim_buffer: BytesMut::new(),
            is_between_messages: true,
        }
    }

    /// Writes queued interim responses before hyper writes anything more.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim_responses.has_any() {
            let interim = self.interim_responses.take();
            // Otherwise they would become part of the previous response, which is not yet complete.
            if self.is_between_messages && self.interim_buffer.is_empty() {
                self.interim_buffer = interim;
            }
        }
        while !self.interim_buffer.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.interim_buffer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.activity.on_sent();
            self.interim_buffer.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes as much of the 408 as fits at once, without a wait for the client.
    fn try_send_timeout(&mut self, cx: &mut Context<'_>) {
        if self.activity.can_send_timeout_response()
            && matches!(
                Pin::new(&mut self.stream).poll_write(cx, REQUEST_TIMEOUT_RESPONSE),
                Poll::Ready(Ok(_))
            )
        {
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
        let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
    }
}

impl Read for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.activity.is_head_late() {
            self.try_send_timeout(cx);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        // This also runs at end of file, where the phase no longer matters.
        self.activity.on_received();
        Poll::Ready(Ok(()))
    }
}

impl TrackedStream {
    fn on_write(&mut self, written: &Poll<io::Result<usize>>) {
        // What could not be written stays in hyper's buffer, as a message in progress.
        self.is_between_messages = false;
        if let Poll::Ready(Ok(_)) = written {
            self.activity.on_sent();
        }
    }
}

impl Write for TrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.on_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.on_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.is_between_messages = true;
        // hyper flushes only after it has written all of its buffer.
        self.activity.on_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A response body; its request is in progress until this is dropped.
pub(super) struct TrackedBody {
    body: ProxyBody,
    _active_request: ActiveRequest,
}

impl TrackedBody {
    pub(super) fn new(body: ProxyBody, active_request: ActiveRequest) -> Self {
        Self { body, _active_request: active_request }
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
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

    use crate::net::client_stream::WriteTimeoutStream;

    #[tokio::test]
    async fn interim_response_is_not_written_inside_another() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let mut client = TcpStream::connect(address).await.expect("connected");
        let (stream, _) = listener.accept().await.expect("accepted");
        let stream = ClientStream::plain(
            WriteTimeoutStream::new(stream, Duration::from_mins(1)),
            Bytes::new(),
        );
        let interim_responses = InterimResponses::default();
        let activity = Arc::new(ConnectionActivity::new(&Arc::new(AtomicU64::new(0))));
        let mut tracked = TrackedStream::new(stream, activity, interim_responses.share());
        let write = async |tracked: &mut TrackedStream, text: &[u8]| {
            let written = poll_fn(|cx| Pin::new(&mut *tracked).poll_write(cx, text)).await;
            assert_eq!(written.expect("written"), text.len());
        };
        interim_responses.push_raw(b"early1 ");
        write(&mut tracked, b"half ").await;
        interim_responses.push_raw(b"late ");
        write(&mut tracked, b"answer ").await;
        poll_fn(|cx| Pin::new(&mut tracked).poll_flush(cx)).await.expect("flushed");
        interim_responses.push_raw(b"early2 ");
        poll_fn(|cx| Pin::new(&mut tracked).poll_flush(cx)).await.expect("flushed");
        write(&mut tracked, b"end").await;
        drop(tracked);
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "early1 half answer early2 end");
    }
}
