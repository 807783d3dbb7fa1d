//! A response body over HTTP/1.1, and the return of its connection to the pool.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use crate::logic::request::retry::RequestExposure;
use crate::net::h1::{BodyDecoder, Decoded, ResponseHead};
use crate::net::trailers::Trailers;

use super::connection::H1Connection;
use super::error::{ResponseBodyError, TRUNCATED};
use super::h1_exchange::H1Exchange;
use super::h1_request_sender::H1RequestSender;
use super::pool::ConnectionPool;
use super::request_body::RequestBody;

/// Bytes of one read of a large body.
const BODY_READ_BYTES: usize = 64 * 1024;

/// A response body that is being received.
#[derive(Debug)]
pub(super) struct H1ResponseBody {
    /// `None` after the end of the body.
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

    /// Bytes that have not been taken yet, where the length is known.
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
            match ready!(connection.poll_read(&mut self.input, BODY_READ_BYTES, cx)) {
                Ok(0) if self.decoder.is_complete_at_close() => return Poll::Ready(Ok(None)),
                Ok(0) => return Poll::Ready(Err(TRUNCATED)),
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(TRUNCATED)),
            }
        }
    }

    /// All of a body of known length, collected in the read buffer; `None` after each read before.
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
        // One spare byte: a read that fills its buffer does not show whether the socket is empty.
        // The connection's next idle check would then cost a system call.
        self.input.reserve(length.saturating_sub(self.input.len()).saturating_add(1));
        let stream = Pin::new(&mut connection.stream);
        match ready!(tokio_util::io::poll_read_buf(stream, cx, &mut self.input)) {
            Ok(0) | Err(_) => Poll::Ready(Err(TRUNCATED)),
            Ok(_) => Poll::Ready(self.try_complete()),
        }
    }

    /// All of a body of known length, if all of it has arrived.
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

    /// The caller has taken all of the body: returns the connection to its pool.
    pub(super) fn finish(&mut self, pool: &Rc<ConnectionPool>) {
        let Some(connection) = self.connection.take() else { return };
        if !self.sender.is_done() {
            if let Some(request_body) = &mut self.request_body {
                request_body.discard_rest();
            }
            return;
        }
        pool.return_completed(connection, self.is_keep_alive && self.input.is_empty());
    }

    /// Ends the response before its last byte; the connection is reset.
    pub(super) fn abort(&mut self) {
        self.connection = None;
    }
}
