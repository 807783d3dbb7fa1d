//! One request and its response over HTTP/1.1.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::io::AsyncWrite;

use crate::logic::model::outcome::FailureReason;
use crate::logic::request::retry::RequestExposure;
use crate::net::h1::{self, BodyDecoder, Decoded, Framing, ResponseHead};
use crate::net::trailers::Trailers;

use super::connection::{H1Connection, UpstreamError};
use super::exchange::{BodyFraming, InterimBuffer, InterimResponse};
use super::pool::ConnectionPool;
use super::request_body::RequestBody;
use super::response_body::{ResponseBodyError, TRUNCATED};
use super::tunnel::UpstreamTunnel;

/// Reads of a large body.
const BODY_READ_BYTES: usize = 64 * 1024;

/// First read of a response: a head and a small body fit.
const READ_BYTES: usize = 8 * 1024;

/// Small pieces of a request body are gathered up to this before they are written.
const MAX_COALESCED_BYTES: usize = 64 * 1024;

/// A piece of a request body from this size on is written from where it lies.
const MIN_DIRECT_WRITE_BYTES: usize = 4 * 1024;

/// What TLS sends in one piece, at most (RFC 8446 5.1).
const TLS_RECORD_BYTES: usize = 16 * 1024;

/// The sending side of an exchange; goes on while the response is read already.
#[derive(Debug)]
pub(super) struct H1RequestSender {
    /// What is to be written next.
    pending: BytesMut,
    /// A large piece of the body, which follows.
    direct_chunk: Bytes,
    framing: BodyFraming,
    state: H1SendState,
    written_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum H1SendState {
    /// The head waits for what follows it: both go in one write if the body has come with it.
    Head,
    Body,
    Flushing,
    Done,
    /// The endpoint takes no more; it may have answered all the same.
    Broken,
}

/// A request on its way and the response head that is awaited.
#[derive(Debug)]
pub struct H1Exchange {
    connection: H1Connection,
    input: BytesMut,
    sender: H1RequestSender,
    method: Method,
    max_head_bytes: usize,
    pub(super) interims: InterimBuffer,
    reached: RequestExposure,
    /// The protocol that the endpoint was asked to switch to.
    pub(super) switch_to: Option<&'static str>,
}

impl H1Exchange {
    /// Begins: without a body, writes as much of `head` as the socket takes at once; with one, which
    /// `framing` says, the head goes with the first of it.
    ///
    /// # Errors
    /// [`TryError`]; nothing has been reached if the socket refused the first byte.
    pub(super) fn begin(
        mut connection: H1Connection,
        head: &[u8],
        method: Method,
        framing: Option<BodyFraming>,
        max_head_bytes: usize,
    ) -> Result<Self, UpstreamError> {
        connection.is_in_exchange = true;
        let written = if framing.is_some() { 0 } else { try_write_head(&mut connection, head)? };
        let pending = BytesMut::from(&head[written..]);
        let state = match framing {
            Some(_) => H1SendState::Head,
            None if pending.is_empty() && connection.stream.try_flush() => H1SendState::Done,
            None => H1SendState::Flushing,
        };
        let reached =
            if written > 0 { RequestExposure::MaybeSent } else { RequestExposure::NotSent };
        let framing = framing.unwrap_or(BodyFraming::Length);
        let (direct_chunk, written_bytes) = (Bytes::new(), written as u64);
        let sender = H1RequestSender { pending, direct_chunk, framing, state, written_bytes };
        let input = std::mem::take(&mut connection.input);
        Ok(Self {
            connection,
            input,
            sender,
            method,
            max_head_bytes,
            interims: InterimBuffer::default(),
            reached,
            switch_to: None,
        })
    }

    /// Whether a byte of the request may have been seen.
    pub(super) fn reached(&self) -> RequestExposure {
        self.reached
    }

    /// Bytes of the request that were handed to the kernel.
    pub(super) fn written_bytes(&self) -> u64 {
        self.sender.written_bytes
    }

    /// Whether all of the request has been handed to the kernel.
    pub(super) fn is_sent(&self) -> bool {
        self.sender.is_done()
    }

    /// Whether the client is to send more before the endpoint can be expected to answer.
    pub(super) fn is_waiting_for_client(&self) -> bool {
        self.sender.is_waiting_for_client()
    }

    /// Sends on and waits for the final response head.
    pub(super) fn poll_head(
        &mut self,
        body: &mut RequestBody,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        self.sender.poll(&mut self.connection, body, cx, &mut self.reached)?;
        loop {
            if let Some(head) = self.take_head()? {
                return Poll::Ready(Ok(head));
            }
            match poll_read(&mut self.connection, &mut self.input, READ_BYTES, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => {
                    let reason = if self.input.is_empty() {
                        FailureReason::Closed
                    } else {
                        FailureReason::Malformed
                    };
                    return Poll::Ready(Err(self.connection.http_failure(reason, self.reached)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(self.connection.io_failure(&error, self.reached)));
                }
            }
        }
    }

    /// Whether the endpoint does what it was asked for, and nothing of the request is still to be sent.
    fn is_switch_accepted(&self, head: &ResponseHead) -> bool {
        let requested = self.switch_to.filter(|_| self.sender.is_done());
        let accepted = head.upgrade.as_ref();
        requested.zip(accepted).is_some_and(|(asked, granted)| {
            granted.as_bytes().eq_ignore_ascii_case(asked.as_bytes())
        })
    }

    /// After a 101: the connection, for anything.
    pub(super) fn into_tunnel(self) -> UpstreamTunnel {
        UpstreamTunnel::new(self.connection, self.input)
    }

    /// Whether all of the body that follows `head` has come with it.
    pub(super) fn has_complete_body(&self, head: &ResponseHead) -> bool {
        let length = body_length(head);
        self.is_sent() && length.is_some_and(|length| length <= self.input.len())
    }

    /// That body; the connection goes back to `home`. Only if [`Exchange::has_whole`].
    pub(super) fn into_complete_body(
        mut self: Box<Self>,
        head: &ResponseHead,
        pool: &Rc<ConnectionPool>,
    ) -> Bytes {
        let length = body_length(head).unwrap_or(0).min(self.input.len());
        let body = self.input.split_to(length).freeze();
        let can_reuse = head.is_keep_alive && self.input.is_empty();
        self.connection.input = self.input;
        return_to_pool(self.connection, can_reuse, pool);
        body
    }

    /// The final head, if all of it is there; interim ones before it are taken in.
    fn take_head(&mut self) -> Result<Option<ResponseHead>, UpstreamError> {
        let malformed =
            |this: &Self| this.connection.http_failure(FailureReason::Malformed, this.reached);
        loop {
            let before = self.input.len();
            let head = h1::parse_response(&mut self.input, &self.method);
            let head = head.map_err(|_| malformed(self))?;
            // All of a head, or what there is of one.
            let bytes = if head.is_some() { before - self.input.len() } else { before };
            if bytes > self.max_head_bytes {
                return Err(malformed(self));
            }
            match head {
                None => return Ok(None),
                Some(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                    let is_accepted = self.is_switch_accepted(&head);
                    return if is_accepted { Ok(Some(head)) } else { Err(malformed(self)) };
                }
                Some(head) if head.status.is_informational() => {
                    let interim = InterimResponse { status: head.status, headers: head.headers };
                    if !self.interims.try_push(interim, bytes) {
                        return Err(malformed(self));
                    }
                }
                Some(head) => return Ok(Some(head)),
            }
        }
    }
}

/// The length of the body that follows `head`, where that says it.
fn body_length(head: &ResponseHead) -> Option<usize> {
    match head.framing {
        Framing::None => Some(0),
        Framing::Length(length) => usize::try_from(length).ok(),
        Framing::Chunked | Framing::UntilClose => None,
    }
}

/// An exchange has gone well on `connection`. Bytes after a complete response belong to nobody: with
/// such it is not kept.
fn return_to_pool(mut connection: H1Connection, can_reuse: bool, pool: &Rc<ConnectionPool>) {
    connection.is_in_exchange = false;
    connection.has_completed_exchange = true;
    if can_reuse {
        pool.put_idle(connection);
    }
}

/// Writes as much of `head` as the socket takes at once.
fn try_write_head(connection: &mut H1Connection, head: &[u8]) -> Result<usize, UpstreamError> {
    match connection.stream.try_write(head) {
        Ok(written) => Ok(written),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => {
            // Of what is larger than a TLS record a part may have gone.
            let is_single_record = head.len() <= TLS_RECORD_BYTES;
            let reached = if is_single_record {
                RequestExposure::NotSent
            } else {
                RequestExposure::MaybeSent
            };
            Err(connection.io_failure(&error, reached))
        }
    }
}

impl H1RequestSender {
    /// All of the request has been handed to the kernel.
    pub(super) fn is_done(&self) -> bool {
        self.state == H1SendState::Done
    }

    /// Everything that the client has sent was handed on, and more is to come.
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
                // What came with the head is read when it is first asked for: in the next turn it
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
                    // Of what is larger than a TLS record a part may have gone.
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
            ([], piece) => stream.poll_write(cx, piece),
            (pending, piece) => {
                let slices = [IoSlice::new(pending), IoSlice::new(piece)];
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

/// Reads once into `input`, which is grown by `reserve` bytes when it is full.
fn poll_read(
    connection: &mut H1Connection,
    input: &mut BytesMut,
    reserve: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let filled = input.len();
    if input.capacity() - filled < reserve / 4 {
        input.reserve(reserve);
    }
    tokio_util::io::poll_read_buf(Pin::new(&mut connection.stream), cx, input)
}

/// A response body on its way.
#[derive(Debug)]
pub(super) struct H1ResponseBody {
    /// `None` when it is over.
    connection: Option<H1Connection>,
    input: BytesMut,
    decoder: BodyDecoder,
    pub(super) sender: H1RequestSender,
    pub(super) request_body: Option<RequestBody>,
    is_keep_alive: bool,
    trailers: Trailers,
}

impl H1ResponseBody {
    pub(super) fn new(
        exchange: H1Exchange,
        head: &ResponseHead,
        request_body: Option<RequestBody>,
    ) -> Self {
        Self {
            connection: Some(exchange.connection),
            input: exchange.input,
            decoder: BodyDecoder::new(head.framing),
            sender: exchange.sender,
            request_body,
            is_keep_alive: head.is_keep_alive,
            trailers: None,
        }
    }

    /// Bytes still to come, where that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    pub(super) fn is_over(&self) -> bool {
        self.connection.is_none()
    }

    pub(super) fn take_trailers(&mut self) -> Trailers {
        self.trailers.take()
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, ResponseBodyError>> {
        let Some(connection) = self.connection.as_mut() else { return Poll::Ready(Ok(None)) };
        if let Some(request_body) = &mut self.request_body {
            let mut reached = RequestExposure::MaybeSent;
            if self.sender.poll(connection, request_body, cx, &mut reached).is_err() {
                return Poll::Ready(Err(ResponseBodyError::Client));
            }
        }
        loop {
            match self.decoder.decode(&mut self.input) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Ok(Some(data))),
                Ok(Decoded::End) => {
                    self.trailers = self.decoder.take_trailers();
                    return Poll::Ready(Ok(None));
                }
                Ok(Decoded::NeedMore) => {}
                Err(_) => return Poll::Ready(Err(TRUNCATED)),
            }
            match ready!(poll_read(connection, &mut self.input, BODY_READ_BYTES, cx)) {
                Ok(0) if self.decoder.is_complete_at_close() => return Poll::Ready(Ok(None)),
                Ok(0) => return Poll::Ready(Err(TRUNCATED)),
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(TRUNCATED)),
            }
        }
    }

    /// All of a body of known length, gathered where it is read; `None` if more of it has come, and
    /// more is to come.
    pub(super) fn poll_collect(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, ResponseBodyError>> {
        if let Some(complete) = self.try_complete()? {
            return Poll::Ready(Ok(Some(complete)));
        }
        let (Some(connection), Some(length)) = (&mut self.connection, self.decoder.remaining())
        else {
            return Poll::Ready(Err(TRUNCATED));
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // Room for a byte more: a read that fills its buffer says nothing of what is left, and the
        // connection's next look would be one more system call.
        self.input.reserve(length.saturating_sub(self.input.len()).saturating_add(1));
        let stream = Pin::new(&mut connection.stream);
        match ready!(tokio_util::io::poll_read_buf(stream, cx, &mut self.input)) {
            Ok(0) | Err(_) => Poll::Ready(Err(TRUNCATED)),
            Ok(_) => Poll::Ready(self.try_complete()),
        }
    }

    /// All of a body of known length, if it has arrived already.
    pub(super) fn try_complete(&mut self) -> Result<Option<Bytes>, ResponseBodyError> {
        let malformed = |_| TRUNCATED;
        let Some(remaining) = self.decoder.remaining() else { return Ok(None) };
        if remaining > self.input.len() as u64 {
            return Ok(None);
        }
        let complete = match self.decoder.decode(&mut self.input).map_err(malformed)? {
            Decoded::Data(data) => data,
            Decoded::End | Decoded::NeedMore => Bytes::new(),
        };
        // Moves the decoder past its end.
        self.decoder.decode(&mut self.input).map_err(malformed)?;
        Ok(Some(complete))
    }

    /// All of it has been taken: the connection goes back to its pool.
    pub(super) fn finish(&mut self, pool: &Rc<ConnectionPool>) {
        let Some(connection) = self.connection.take() else { return };
        if !self.sender.is_done() {
            if let Some(request_body) = &mut self.request_body {
                request_body.discard_rest();
            }
            return;
        }
        return_to_pool(connection, self.is_keep_alive && self.input.is_empty(), pool);
    }

    /// It ends here, whatever is still to come.
    pub(super) fn abort(&mut self) {
        self.connection = None;
    }
}
