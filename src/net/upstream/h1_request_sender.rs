//! The sending side of an exchange over HTTP/1.1.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::logic::request::retry::RequestExposure;
use crate::net::h1;

use super::connection::H1Connection;
use super::error::UpstreamError;
use super::request_body::RequestBody;

/// Bytes of small body chunks that one write combines.
const MAX_COALESCED_BYTES: usize = 64 * 1024;

/// A body chunk of at least this size is written without a copy.
const MIN_DIRECT_WRITE_BYTES: usize = 4 * 1024;

/// The largest plaintext of one TLS record (RFC 8446 5.1).
const TLS_RECORD_BYTES: usize = 16 * 1024;

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// By the Content-Length field of the head.
    Length,
    Chunked,
}

/// The sending side of an exchange; it may still send while the response is read.
#[derive(Debug)]
pub(super) struct H1RequestSender {
    /// The bytes to write next.
    pending: BytesMut,
    /// A large body chunk to write after `pending`.
    direct_chunk: Bytes,
    framing: BodyFraming,
    state: H1SendState,
    written_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum H1SendState {
    /// The head waits for the body: both go in one write if the body has arrived already.
    Head,
    Body,
    Flushing,
    Done,
    /// The endpoint reads no more; it may have responded nevertheless.
    Broken,
}

impl H1RequestSender {
    /// Without a body, writes as much of `head` as the socket accepts at once. With one, the head
    /// is written together with the first chunks of the body.
    ///
    /// # Errors
    /// [`UpstreamError::Endpoint`] if the socket fails.
    pub(super) fn begin(
        connection: &mut H1Connection,
        head: &[u8],
        framing: Option<BodyFraming>,
    ) -> Result<Self, UpstreamError> {
        let written = if framing.is_some() { 0 } else { try_write_head(connection, head)? };
        let pending = BytesMut::from(&head[written..]);
        let state = match framing {
            Some(_) => H1SendState::Head,
            None if pending.is_empty() && connection.stream.try_flush() => H1SendState::Done,
            None => H1SendState::Flushing,
        };
        Ok(Self {
            pending,
            direct_chunk: Bytes::new(),
            framing: framing.unwrap_or(BodyFraming::Length),
            state,
            written_bytes: written as u64,
        })
    }

    /// Whether the kernel has accepted all of the request.
    pub(super) fn is_done(&self) -> bool {
        self.state == H1SendState::Done
    }

    /// Bytes of the request that the kernel has accepted.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Whether all that the client has sent is forwarded and its body has not ended.
    pub(super) fn is_waiting_for_client(&self) -> bool {
        self.state == H1SendState::Body && self.is_written()
    }

    fn is_written(&self) -> bool {
        self.pending.is_empty() && self.direct_chunk.is_empty()
    }

    /// Sends until the socket is full or the body has nothing ready.
    pub(super) fn poll(
        &mut self,
        connection: &mut H1Connection,
        body: &mut RequestBody,
        cx: &mut Context<'_>,
        reached: &mut RequestExposure,
    ) -> Result<(), UpstreamError> {
        if self.state == H1SendState::Head {
            self.state = H1SendState::Body;
            self.buffer_body(body, cx)?;
            if self.state == H1SendState::Body && self.direct_chunk.is_empty() {
                // hyper reads the body only after the first poll. In the next turn the first chunk
                // is there, or the head goes alone.
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
        while !matches!(self.state, H1SendState::Done | H1SendState::Broken) {
            self.buffer_body(body, cx)?;
            if self.is_written() {
                match Pin::new(&mut connection.stream).poll_flush(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) if self.state == H1SendState::Flushing => {
                        self.state = H1SendState::Done;
                    }
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => self.state = H1SendState::Broken,
                }
                return Ok(());
            }
            match self.poll_write(connection, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(written)) => {
                    *reached = RequestExposure::MaybeSent;
                    self.written_bytes += written as u64;
                    let written_of_pending = written.min(self.pending.len());
                    self.pending.advance(written_of_pending);
                    self.direct_chunk.advance(written - written_of_pending);
                }
                Poll::Ready(Err(_)) => {
                    // A part of what exceeds one TLS record may have been sent.
                    let is_multi_record =
                        self.pending.len() + self.direct_chunk.len() > TLS_RECORD_BYTES;
                    if is_multi_record && connection.stream.alpn().is_some() {
                        *reached = RequestExposure::MaybeSent;
                    }
                    self.state = H1SendState::Broken;
                }
            }
        }
        Ok(())
    }

    fn poll_write(
        &self,
        connection: &mut H1Connection,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut connection.stream);
        match (&*self.pending, &*self.direct_chunk) {
            (pending, []) => stream.poll_write(cx, pending),
            ([], chunk) => stream.poll_write(cx, chunk),
            (pending, chunk) => {
                let slices = [IoSlice::new(pending), IoSlice::new(chunk)];
                stream.poll_write_vectored(cx, &slices)
            }
        }
    }

    fn buffer_body(
        &mut self,
        body: &mut RequestBody,
        cx: &mut Context<'_>,
    ) -> Result<(), UpstreamError> {
        let has_room =
            |this: &Self| this.direct_chunk.is_empty() && this.pending.len() < MAX_COALESCED_BYTES;
        while self.state == H1SendState::Body && has_room(self) {
            match body.poll_chunk(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(chunk))) => match self.framing {
                    BodyFraming::Length if chunk.len() >= MIN_DIRECT_WRITE_BYTES => {
                        self.direct_chunk = chunk;
                    }
                    BodyFraming::Length => self.pending.extend_from_slice(&chunk),
                    BodyFraming::Chunked => h1::write_chunk(&mut self.pending, &chunk),
                },
                Poll::Ready(Some(Err(error))) => return Err(UpstreamError::Client(error)),
                Poll::Ready(None) => {
                    if self.framing == BodyFraming::Chunked {
                        h1::write_last_chunk(&mut self.pending, body.trailers());
                    }
                    self.state = H1SendState::Flushing;
                }
            }
        }
        Ok(())
    }
}

fn try_write_head(connection: &mut H1Connection, head: &[u8]) -> Result<usize, UpstreamError> {
    match connection.stream.try_write(head) {
        Ok(written) => Ok(written),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => {
            // A part of what exceeds one TLS record may have been sent.
            let reached = if head.len() <= TLS_RECORD_BYTES {
                RequestExposure::NotSent
            } else {
                RequestExposure::MaybeSent
            };
            Err(connection.io_failure(&error, reached))
        }
    }
}
