//! The sending side of an exchange over HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use crate::net::trailers::Trailers;

use super::request_body::{ClientBodyError, RequestBody};

/// The sending side of an exchange; it may still send while the response is read.
#[derive(Debug)]
pub(super) struct H2RequestSender {
    stream: SendStream<Bytes>,
    pending: Bytes,
    state: H2SendState,
    sent_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum H2SendState {
    Body,
    /// The pending bytes end the body.
    LastChunk,
    Done,
    /// The endpoint reads no more; it may have responded nevertheless.
    Broken,
}

impl H2RequestSender {
    pub(super) fn new(stream: SendStream<Bytes>, has_body: bool) -> Self {
        let state = if has_body { H2SendState::Body } else { H2SendState::Done };
        Self { stream, pending: Bytes::new(), state, sent_bytes: 0 }
    }

    /// Bytes of the body that the library has accepted.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Resets the stream: the endpoint is not to execute the request.
    pub(super) fn cancel(&mut self) {
        self.stream.send_reset(h2::Reason::CANCEL);
    }

    /// Whether the library has accepted all of the request.
    pub(super) fn is_done(&self) -> bool {
        self.state == H2SendState::Done
    }

    /// Whether all that the client has sent is forwarded and its body has not ended.
    pub(super) fn is_waiting_for_client(&self) -> bool {
        self.state == H2SendState::Body && self.pending.is_empty()
    }

    /// Sends until the endpoint's window is full or no chunk of the body is ready.
    pub(super) fn poll(
        &mut self,
        body: &mut RequestBody,
        cx: &mut Context<'_>,
    ) -> Result<(), ClientBodyError> {
        while matches!(self.state, H2SendState::Body | H2SendState::LastChunk) {
            if self.pending.is_empty() {
                match body.poll_chunk(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Some(chunk)) => {
                        self.pending = chunk?;
                        if body.is_at_end() {
                            self.state = H2SendState::LastChunk;
                        }
                    }
                    Poll::Ready(None) => self.send_end(body.trailers()),
                }
                continue;
            }
            match self.poll_send_capacity(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => self.state = H2SendState::Broken,
                Poll::Ready(Some(capacity)) => self.send_pending(capacity),
            }
        }
        Ok(())
    }

    /// How many of the pending bytes may be sent; `None` if the stream has ended.
    fn poll_send_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        self.stream.reserve_capacity(self.pending.len());
        loop {
            let capacity = self.stream.capacity();
            if capacity > 0 {
                return Poll::Ready(Some(capacity));
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(None),
            }
        }
    }

    fn send_pending(&mut self, capacity: usize) {
        let chunk = self.pending.split_to(capacity.min(self.pending.len()));
        let is_last = self.state == H2SendState::LastChunk && self.pending.is_empty();
        self.sent_bytes += chunk.len() as u64;
        match self.stream.send_data(chunk, is_last) {
            Ok(()) if is_last => self.state = H2SendState::Done,
            Ok(()) => {}
            Err(_) => self.state = H2SendState::Broken,
        }
    }

    fn send_end(&mut self, trailers: &Trailers) {
        let sent = match trailers {
            Some(trailers) => self.stream.send_trailers(HeaderMap::clone(trailers)),
            None => self.stream.send_data(Bytes::new(), true),
        };
        self.state = if sent.is_ok() { H2SendState::Done } else { H2SendState::Broken };
    }
}
