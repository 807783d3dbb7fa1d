//! A response body over HTTP/2, and the return of its stream.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;

use crate::net::h1::{Framing, ResponseHead};
use crate::net::trailers::{self, Trailers};

use super::error::{ResponseBodyError, TRUNCATED};
use super::h2_connection::StreamPermit;
use super::h2_exchange::H2Exchange;
use super::h2_request_sender::H2RequestSender;
use super::request_body::RequestBody;

/// Time for END_STREAM after the last byte of a response.
const END_OF_STREAM_TIMEOUT: Duration = Duration::from_millis(200);

/// A response body that is being received.
#[derive(Debug)]
pub(super) struct H2ResponseBody {
    /// `None` after the end of the body.
    incoming: Option<H2BodyStream>,
    remaining_bytes: Option<u64>,
    pub(super) sender: H2RequestSender,
    pub(super) request_body: Option<RequestBody>,
    trailers: Trailers,
    /// The bytes so far of a body that is collected before it is forwarded.
    collected: BytesMut,
    /// A collected body that is forwarded as a stream nevertheless.
    restored: Option<Bytes>,
    /// The caller also reads the trailers of a body of known length.
    should_read_to_end: bool,
}

#[derive(Debug)]
struct H2BodyStream {
    stream: RecvStream,
    /// Bytes that were forwarded and whose window has not been released.
    unreleased_bytes: usize,
    _permit: StreamPermit,
}

impl H2ResponseBody {
    pub(super) fn new(
        exchange: H2Exchange,
        head: &ResponseHead,
        request_body: Option<RequestBody>,
        should_read_to_end: bool,
    ) -> Self {
        let remaining_bytes = match head.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        let H2Exchange { recv_stream, sender, permit, .. } = exchange;
        let incoming =
            recv_stream.map(|stream| H2BodyStream { stream, unreleased_bytes: 0, _permit: permit });
        Self {
            incoming,
            remaining_bytes,
            sender,
            request_body,
            trailers: None,
            collected: BytesMut::new(),
            restored: None,
            should_read_to_end,
        }
    }

    /// Bytes that have not been taken yet, where the length is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        self.restored.as_ref().map_or(self.remaining_bytes, |whole| Some(whole.len() as u64))
    }

    pub(super) fn is_over(&self) -> bool {
        self.incoming.is_none() && self.restored.is_none() && self.trailers.is_none()
    }

    pub(super) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// Puts the collected body back: it is forwarded as a stream, with its trailers.
    pub(super) fn restore(&mut self, complete: Bytes) {
        self.restored = (!complete.is_empty()).then_some(complete);
    }

    pub(super) fn take_trailers(&mut self) -> Trailers {
        self.trailers.take()
    }

    /// Whether no further poll is needed: nothing follows the last byte, or the caller ignores it.
    pub(super) fn is_complete(&self) -> bool {
        let is_end_stream = |incoming: &H2BodyStream| incoming.stream.is_end_stream();
        self.remaining_bytes == Some(0) && !self.should_read_to_end
            || self.incoming.as_ref().is_some_and(is_end_stream)
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, ResponseBodyError>> {
        if let Some(request_body) = &mut self.request_body
            && self.sender.poll(request_body, cx).is_err()
        {
            return Poll::Ready(Err(ResponseBodyError::Client));
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(Ok(self.restored.take()));
        };
        let released_bytes = std::mem::take(&mut incoming.unreleased_bytes);
        if released_bytes > 0 {
            let _ = incoming.stream.flow_control().release_capacity(released_bytes);
        }
        loop {
            match ready!(incoming.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    incoming.unreleased_bytes = data.len();
                    if let Some(remaining) = &mut self.remaining_bytes {
                        *remaining = remaining.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Ok(Some(data)));
                }
                Some(Err(_)) => return Poll::Ready(Err(TRUNCATED)),
                None => break,
            }
        }
        match ready!(incoming.stream.poll_trailers(cx)) {
            Ok(fields) => self.trailers = fields.and_then(trailers::strip_forbidden),
            Err(_) => return Poll::Ready(Err(TRUNCATED)),
        }
        Poll::Ready(Ok(None))
    }

    /// All of the body, once its end and its trailers have arrived; `None` after each chunk before.
    pub(super) fn poll_collect(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, ResponseBodyError>> {
        let Some(chunk) = ready!(self.poll(cx))? else {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.collected).freeze())));
        };
        self.collected.extend_from_slice(&chunk);
        let is_complete = self.is_complete();
        Poll::Ready(Ok(is_complete.then(|| std::mem::take(&mut self.collected).freeze())))
    }

    /// All of the body if it is empty.
    pub(super) fn try_complete(&mut self) -> Option<Bytes> {
        let is_empty = self.remaining_bytes == Some(0) && self.is_complete();
        is_empty.then(Bytes::new)
    }

    /// The caller has taken all of the body: releases the stream, and discards the rest of the
    /// request.
    pub(super) fn finish(&mut self) {
        let Some(mut incoming) = self.incoming.take() else { return };
        if !self.sender.is_done() {
            if let Some(request_body) = &mut self.request_body {
                request_body.discard_rest();
            }
            return;
        }
        if incoming.stream.is_end_stream() {
            return;
        }
        // A stream dropped before its END_STREAM would be reset.
        tokio::task::spawn_local(tokio::time::timeout(END_OF_STREAM_TIMEOUT, async move {
            let next = std::future::poll_fn(|cx| incoming.stream.poll_data(cx)).await;
            if next.is_none() {
                let _ = incoming.stream.trailers().await;
            }
        }));
    }

    /// Ends the response before its last byte.
    pub(super) fn abort(&mut self) {
        if self.incoming.take().is_some() {
            self.sender.cancel();
        }
    }
}
