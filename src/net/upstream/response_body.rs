//! The response body of an exchange, and the return of its connection to the pool.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Sleep, sleep};

use crate::logic::model::outcome::FailureReason;
use crate::net::h1::ResponseHead;
use crate::net::trailers::Trailers;

use super::error::ResponseBodyError;
use super::exchange::Exchange;
use super::h1_response_body::H1ResponseBody;
use super::h2_response_body::H2ResponseBody;
use super::pool::ConnectionPool;
use super::request_body::RequestBody;
use super::streaming_responses::WakerSlot;

/// Bytes of an unwanted response that are read to keep its connection; it is closed after more.
const MAX_DISCARD_BYTES: usize = 64 * 1024;

const DISCARD_TIMEOUT: Duration = Duration::from_millis(200);

/// A response body: read to its end, or still to be streamed.
#[derive(Debug)]
pub enum ReceivedBody {
    Complete(Bytes),
    Streaming(Box<ResponseBody>),
}

/// A response body that is being received.
#[derive(Debug)]
pub struct ResponseBody {
    body: ProtocolBody,
    pool: Rc<ConnectionPool>,
    idle_timeout: Duration,
    idle_timer: Option<Pin<Box<Sleep>>>,
    /// The endpoint's count of ended streaming responses when this one began.
    end_count: u64,
    waker_slot: Option<WakerSlot>,
}

#[derive(Debug)]
enum ProtocolBody {
    H1(H1ResponseBody),
    H2(H2ResponseBody),
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.pool.streaming_responses.release_slot(&mut self.waker_slot);
    }
}

impl ResponseBody {
    /// The body that follows `head`. `outgoing` is the rest of the request body. With
    /// `should_read_to_end` the caller polls for trailers even if the length is known.
    pub fn new(
        exchange: Exchange,
        head: &ResponseHead,
        mut outgoing: Option<RequestBody>,
        pool: Rc<ConnectionPool>,
        idle_timeout: Duration,
        should_read_to_end: bool,
    ) -> Box<Self> {
        if let Some(outgoing) = &mut outgoing {
            outgoing.stop_buffering();
        }
        let body = match exchange {
            Exchange::H1(exchange) => {
                ProtocolBody::H1(H1ResponseBody::new(*exchange, head, outgoing))
            }
            Exchange::H2(exchange) => {
                ProtocolBody::H2(H2ResponseBody::new(*exchange, head, outgoing, should_read_to_end))
            }
        };
        let end_count = pool.streaming_responses.end_count();
        Box::new(Self { body, pool, idle_timeout, idle_timer: None, end_count, waker_slot: None })
    }

    /// Bytes that have not been taken yet, where the length is known.
    pub fn remaining(&self) -> Option<u64> {
        match &self.body {
            ProtocolBody::H1(body) => body.remaining(),
            ProtocolBody::H2(body) => body.remaining(),
        }
    }

    /// Whether the caller has taken all of the body.
    pub fn is_over(&self) -> bool {
        match &self.body {
            ProtocolBody::H1(body) => body.is_over(),
            ProtocolBody::H2(body) => body.is_over(),
        }
    }

    /// Takes the trailers, after the end of the body.
    pub fn take_trailers(&mut self) -> Trailers {
        match &mut self.body {
            ProtocolBody::H1(body) => body.take_trailers(),
            ProtocolBody::H2(body) => body.take_trailers(),
        }
    }

    /// The next chunk, or `None` at the end, when the connection has been returned to its pool.
    pub fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ResponseBodyError>>> {
        if self.pool.streaming_responses.end_count() > self.end_count {
            self.body.abort();
            return Poll::Ready(Some(Err(ResponseBodyError::Drained)));
        }
        match self.body.poll(cx) {
            Poll::Ready(Ok(Some(chunk))) => {
                self.idle_timer = None;
                // A caller that knows the length does not poll again after the last byte.
                if self.body.is_complete() {
                    self.return_connection();
                }
                Poll::Ready(Some(Ok(chunk)))
            }
            Poll::Ready(Ok(None)) => {
                self.return_connection();
                Poll::Ready(None)
            }
            Poll::Ready(Err(error)) => {
                self.body.abort();
                Poll::Ready(Some(Err(error)))
            }
            Poll::Pending => {
                let error = ready!(self.poll_idle_timeout(cx));
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    /// The error of a body that is idle for longer than its timeout.
    fn poll_idle_timeout(&mut self, cx: &mut Context<'_>) -> Poll<ResponseBodyError> {
        self.pool.streaming_responses.register_waker(&mut self.waker_slot, cx);
        let timeout = self.idle_timeout;
        let timer = self.idle_timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        // An endpoint that reads the request while it responds may be waiting for the client.
        let is_client_waiting = self.body.is_waiting_for_client();
        self.body.abort();
        Poll::Ready(if is_client_waiting {
            ResponseBodyError::Client
        } else {
            ResponseBodyError::Endpoint(FailureReason::Timeout)
        })
    }

    /// Takes the whole body if all of it has arrived.
    ///
    /// # Errors
    /// As [`Self::poll_chunk`].
    pub fn try_complete(&mut self) -> Result<Option<Bytes>, ResponseBodyError> {
        let complete = match &mut self.body {
            ProtocolBody::H1(body) => body.try_complete()?,
            ProtocolBody::H2(body) => body.try_complete(),
        };
        if complete.is_some() {
            self.return_connection();
        }
        Ok(complete)
    }

    /// Whether trailers follow the body, which has been read to its end.
    pub fn has_trailers(&self) -> bool {
        match &self.body {
            ProtocolBody::H1(_) => false,
            ProtocolBody::H2(body) => body.has_trailers(),
        }
    }

    /// Puts a collected body back, so that it is forwarded as a stream with its trailers.
    pub fn restore(&mut self, complete: Bytes) {
        if let ProtocolBody::H2(body) = &mut self.body {
            body.restore(complete);
        }
    }

    /// Reads a body of known length, of which no chunk has been taken, to its end. The rest of an
    /// HTTP/1.1 request body is not sent meanwhile.
    ///
    /// # Errors
    /// As [`Self::poll_chunk`].
    pub async fn collect(&mut self) -> Result<Bytes, ResponseBodyError> {
        std::future::poll_fn(|cx| self.poll_collect(cx)).await
    }

    fn poll_collect(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, ResponseBodyError>> {
        loop {
            let collected = match &mut self.body {
                ProtocolBody::H1(body) => body.poll_collect(cx),
                ProtocolBody::H2(body) => body.poll_collect(cx),
            };
            let error = match collected {
                Poll::Ready(Ok(Some(complete))) => {
                    self.return_connection();
                    return Poll::Ready(Ok(complete));
                }
                Poll::Ready(Ok(None)) => {
                    self.idle_timer = None;
                    continue;
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending => ready!(self.poll_idle_timeout(cx)),
            };
            self.body.abort();
            return Poll::Ready(Err(error));
        }
    }

    /// Discards an unwanted body. The rest of a small one is read on a task of the current
    /// `LocalSet`, so that the connection can be reused. The connection of a large one is closed.
    pub fn discard(mut self: Box<Self>) {
        let is_small = self.remaining().is_none_or(|left| left <= MAX_DISCARD_BYTES as u64);
        if !is_small || !self.body.is_sent() || !matches!(self.try_complete(), Ok(None)) {
            return;
        }
        tokio::task::spawn_local(tokio::time::timeout(DISCARD_TIMEOUT, async move {
            let mut read = 0;
            while read <= MAX_DISCARD_BYTES {
                match std::future::poll_fn(|cx| self.poll_chunk(cx)).await {
                    Some(Ok(chunk)) => read += chunk.len(),
                    Some(Err(_)) | None => return,
                }
            }
        }));
    }

    fn return_connection(&mut self) {
        match &mut self.body {
            ProtocolBody::H1(body) => body.finish(&self.pool),
            ProtocolBody::H2(body) => body.finish(),
        }
    }
}

impl ProtocolBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ResponseBodyError>> {
        match self {
            Self::H1(body) => body.poll(cx),
            Self::H2(body) => body.poll(cx),
        }
    }

    /// Whether no further poll is needed.
    fn is_complete(&self) -> bool {
        match self {
            Self::H1(body) => body.remaining() == Some(0),
            Self::H2(body) => body.is_complete(),
        }
    }

    fn is_sent(&self) -> bool {
        match self {
            Self::H1(body) => body.sender.is_done(),
            Self::H2(body) => body.sender.is_done(),
        }
    }

    fn is_waiting_for_client(&self) -> bool {
        match self {
            Self::H1(body) => body.request_body.is_some() && body.sender.is_waiting_for_client(),
            Self::H2(body) => body.request_body.is_some() && body.sender.is_waiting_for_client(),
        }
    }

    fn abort(&mut self) {
        match self {
            Self::H1(body) => body.abort(),
            Self::H2(body) => body.abort(),
        }
    }
}
