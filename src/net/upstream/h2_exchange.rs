//! One request and its response over HTTP/2 (RFC 9113).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRAILER};
use http::response::Parts;

use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::retry::RequestExposure;
use crate::net::h1::{Framing, ResponseHead};
use crate::net::trailers::{self, Trailers};

use super::connection::UpstreamError;
use super::exchange::{InterimBuffer, InterimResponse};
use super::h2_connection::StreamPermit;
use super::request_body::{ClientBodyError, RequestBody};
use super::response_body::{ResponseBodyError, TRUNCATED};

/// Time for the end of a response whose last byte has come.
const END_OF_STREAM_TIMEOUT: Duration = Duration::from_millis(200);

/// A request on its way and the response head that is awaited. Dropped before its end it is
/// withdrawn (`RST_STREAM`), so that the endpoint does not go on with what nobody waits for.
#[derive(Debug)]
pub struct H2Exchange {
    response: ResponseFuture,
    recv_stream: Option<RecvStream>,
    sender: H2RequestSender,
    permit: StreamPermit,
    /// What had been written to the connection before.
    written_before: u64,
    pub(super) interims: InterimBuffer,
}

/// The sending side; goes on while the response is read already.
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
    /// The pending bytes are the last.
    LastChunk,
    Done,
    /// The endpoint takes no more; it may have answered all the same.
    Broken,
}

impl H2Exchange {
    pub(super) fn new(
        response: ResponseFuture,
        stream: SendStream<Bytes>,
        has_body: bool,
        permit: StreamPermit,
        written_before: u64,
    ) -> Self {
        let state = if has_body { H2SendState::Body } else { H2SendState::Done };
        let sender = H2RequestSender { stream, pending: Bytes::new(), state, sent_bytes: 0 };
        Self {
            response,
            recv_stream: None,
            sender,
            permit,
            written_before,
            interims: InterimBuffer::default(),
        }
    }

    /// Whether anything may have been seen of the request: nothing, if the connection has written
    /// nothing since.
    pub(super) fn reached(&self) -> RequestExposure {
        if self.permit.connection().written_bytes() == self.written_before {
            RequestExposure::NotSent
        } else {
            RequestExposure::MaybeSent
        }
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.sender.sent_bytes
    }

    pub(super) fn is_sent(&self) -> bool {
        self.sender.is_done()
    }

    pub(super) fn is_waiting_for_client(&self) -> bool {
        self.sender.is_waiting_for_client()
    }

    /// Sends on and waits for the final response head.
    pub(super) fn poll_head(
        &mut self,
        body: &mut RequestBody,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        self.sender.poll(body, cx).map_err(UpstreamError::Client)?;
        let failure = Failure::http(FailureReason::Malformed);
        let malformed = UpstreamError::Endpoint { failure, reached: RequestExposure::MaybeSent };
        // Left to itself the library would drop them without counting.
        while let Poll::Ready(Some(Ok(response))) = self.response.poll_informational(cx) {
            let Parts { status, headers, .. } = response.into_parts().0;
            let length =
                |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
            let bytes = headers.iter().map(length).sum();
            // 101 has no place in HTTP/2 (RFC 9113 8.6).
            if status == StatusCode::SWITCHING_PROTOCOLS
                || !self.interims.try_push(InterimResponse { status, headers }, bytes)
            {
                return Poll::Ready(Err(malformed));
            }
        }
        match ready!(Pin::new(&mut self.response).poll(cx)) {
            Ok(response) => {
                let (parts, recv_stream) = response.into_parts();
                let head = response_head(parts, &recv_stream);
                self.recv_stream = Some(recv_stream);
                self.permit.connection().set_response_received();
                Poll::Ready(head.ok_or(malformed))
            }
            Err(error) => {
                Poll::Ready(Err(self.permit.connection().h2_failure(&error, self.reached())))
            }
        }
    }
}

/// The head as everybody knows it; `None` if it is none.
fn response_head(parts: Parts, recv_stream: &RecvStream) -> Option<ResponseHead> {
    let Parts { status, mut headers, .. } = parts;
    if status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    let length = content_length(&headers)?;
    let framing = match length {
        _ if recv_stream.is_end_stream() => Framing::None,
        Some(length) => Framing::Length(length),
        // Towards a client of HTTP/1.1 that is what it will be.
        None => Framing::Chunked,
    };
    if framing != Framing::Chunked {
        headers.remove(TRAILER);
    }
    Some(ResponseHead { status, headers, framing, is_keep_alive: true, upgrade: None })
}

/// The content-length, if there is one; `None` if it is not one number.
fn content_length(headers: &HeaderMap) -> Option<Option<u64>> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Some(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    if values.next().is_some() { None } else { digits.parse().ok().map(Some) }
}

impl H2RequestSender {
    /// All of the request has been handed over.
    pub(super) fn is_done(&self) -> bool {
        self.state == H2SendState::Done
    }

    /// Everything that the client has sent was handed on, and more is to come.
    pub(super) fn is_waiting_for_client(&self) -> bool {
        self.state == H2SendState::Body && self.pending.is_empty()
    }

    /// Sends until the endpoint's window is full or the body has nothing ready.
    pub(super) fn poll(
        &mut self,
        body: &mut RequestBody,
        cx: &mut Context<'_>,
    ) -> Result<(), ClientBodyError> {
        while matches!(self.state, H2SendState::Body | H2SendState::LastChunk) {
            if self.pending.is_empty() {
                match body.poll_chunk(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Some(piece)) => {
                        self.pending = piece?;
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

    /// How much may be sent of what is pending; `None` if the stream has ended.
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

/// A response body on its way.
#[derive(Debug)]
pub(super) struct H2ResponseBody {
    /// `None` when it is over.
    incoming: Option<H2BodyStream>,
    remaining_bytes: Option<u64>,
    pub(super) sender: H2RequestSender,
    pub(super) request_body: Option<RequestBody>,
    trailers: Trailers,
    /// What was gathered of a body that is to be whole.
    collected: BytesMut,
    /// All of the body, where it was collected before it is passed on.
    restored: Option<Bytes>,
    /// Whoever takes it asks for what follows the last byte.
    should_read_to_end: bool,
}

#[derive(Debug)]
struct H2BodyStream {
    stream: RecvStream,
    /// Bytes that were handed on and whose room has not been given back.
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

    /// Bytes still to come, where that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        self.restored.as_ref().map_or(self.remaining_bytes, |kept| Some(kept.len() as u64))
    }

    pub(super) fn is_over(&self) -> bool {
        self.incoming.is_none() && self.restored.is_none() && self.trailers.is_none()
    }

    pub(super) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// Gives `whole` back, which was taken before: it is to be passed on with what followed it.
    pub(super) fn restore(&mut self, complete: Bytes) {
        self.restored = (!complete.is_empty()).then_some(complete);
    }

    pub(super) fn take_trailers(&mut self) -> Trailers {
        self.trailers.take()
    }

    /// Whether no more need be asked for: nothing follows the last byte, or nobody wants it.
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

    /// All of a body, and what follows it; `None` if more of it has come, and more is to come.
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

    /// The body of a response that had none is there already.
    pub(super) fn try_complete(&mut self) -> Option<Bytes> {
        let is_empty = self.remaining_bytes == Some(0) && self.is_complete();
        is_empty.then(Bytes::new)
    }

    /// All of it has been taken. What is left of the request is not wanted any more.
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
        // The end is still to come: to be gone before would look like a withdrawal.
        tokio::task::spawn_local(tokio::time::timeout(END_OF_STREAM_TIMEOUT, async move {
            let next = std::future::poll_fn(|cx| incoming.stream.poll_data(cx)).await;
            if next.is_none() {
                let _ = incoming.stream.trailers().await;
            }
        }));
    }

    /// It ends here, whatever is still to come.
    pub(super) fn abort(&mut self) {
        if self.incoming.take().is_some() {
            self.sender.stream.send_reset(h2::Reason::CANCEL);
        }
    }
}
