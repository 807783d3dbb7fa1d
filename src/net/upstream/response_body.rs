//! The response body of an exchange, and the connection's way back to its pool.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Sleep, sleep};

use crate::logic::model::outcome::FailureReason;
use crate::net::h1::ResponseHead;
use crate::net::trailers::Trailers;

use super::exchange::Exchange;
use super::pool::ConnectionPool;
use super::request_body::RequestBody;
use super::streaming_responses::WakerSlot;
use super::{h1_exchange, h2_exchange};

/// Bytes of an unwanted response that are read before its connection is closed.
const MAX_DISCARD_BYTES: usize = 64 * 1024;

const DISCARD_TIMEOUT: Duration = Duration::from_millis(200);

/// Why a response body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBodyError {
    /// The endpoint is at fault.
    Endpoint(FailureReason),
    /// The client is: the rest of its request body could not be read.
    Client,
    /// Nobody is: the endpoint is drained, and the time of what lasts there is up.
    Drained,
}

/// Closed, reset or wrongly framed after the head: all the same to whoever awaits the rest.
pub(super) const TRUNCATED: ResponseBodyError = ResponseBodyError::Endpoint(FailureReason::Cut);

/// A response body that was read to its end, or one still to be streamed.
#[derive(Debug)]
pub enum ReceivedBody {
    Complete(Bytes),
    /// The rest is still on its way.
    Streaming(Box<ResponseBody>),
}

/// A response body on its way.
#[derive(Debug)]
pub struct ResponseBody {
    body: ProtocolBody,
    pool: Rc<ConnectionPool>,
    idle_timeout: Duration,
    idle_timer: Option<Pin<Box<Sleep>>>,
    /// How often what lasts at the endpoint had been ended before.
    end_count: u64,
    waker_slot: Option<WakerSlot>,
}

#[derive(Debug)]
enum ProtocolBody {
    H1(h1_exchange::H1ResponseBody),
    H2(h2_exchange::H2ResponseBody),
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.pool.streaming_responses.release_slot(&mut self.waker_slot);
    }
}

impl ResponseBody {
    /// The body that follows `head`. `outgoing` is what of the request is still to be sent; who
    /// takes the body `until_end` asks for what follows it even if its length is known.
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
                ProtocolBody::H1(h1_exchange::H1ResponseBody::new(*exchange, head, outgoing))
            }
            Exchange::H2(exchange) => ProtocolBody::H2(h2_exchange::H2ResponseBody::new(
                *exchange,
                head,
                outgoing,
                should_read_to_end,
            )),
        };
        let end_count = pool.streaming_responses.end_count();
        Box::new(Self { body, pool, idle_timeout, idle_timer: None, end_count, waker_slot: None })
    }

    /// Bytes still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match &self.body {
            ProtocolBody::H1(body) => body.remaining(),
            ProtocolBody::H2(body) => body.remaining(),
        }
    }

    /// Whether all of it has been taken.
    pub fn is_over(&self) -> bool {
        match &self.body {
            ProtocolBody::H1(body) => body.is_over(),
            ProtocolBody::H2(body) => body.is_over(),
        }
    }

    /// Takes out what followed the body, when it is over.
    pub fn take_trailers(&mut self) -> Trailers {
        match &mut self.body {
            ProtocolBody::H1(body) => body.take_trailers(),
            ProtocolBody::H2(body) => body.take_trailers(),
        }
    }

    /// The next piece, or `None` at the end, when the connection has gone back to its pool.
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
                // Whoever knows the length does not ask again after the last byte.
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

    /// Nothing has come: an error if that has been so for too long.
    fn poll_idle_timeout(&mut self, cx: &mut Context<'_>) -> Poll<ResponseBodyError> {
        self.pool.streaming_responses.register_waker(&mut self.waker_slot, cx);
        let timeout = self.idle_timeout;
        let timer = self.idle_timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        // An endpoint that reads on while it answers may be waiting for its client.
        let is_client_waiting = self.body.is_waiting_for_client();
        self.body.abort();
        Poll::Ready(if is_client_waiting {
            ResponseBodyError::Client
        } else {
            ResponseBodyError::Endpoint(FailureReason::Timeout)
        })
    }

    /// Takes what has arrived already; `Some` if that was all of it.
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

    /// Whether anything followed the body, which has been read to its end.
    pub fn has_trailers(&self) -> bool {
        match &self.body {
            ProtocolBody::H1(_) => false,
            ProtocolBody::H2(body) => body.has_trailers(),
        }
    }

    /// Gives back what was collected, so that it passes on as it came, with what followed it.
    pub fn restore(&mut self, complete: Bytes) {
        if let ProtocolBody::H2(body) = &mut self.body {
            body.restore(complete);
        }
    }

    /// Reads a body of known length, of which nothing has been taken, to its end. What is left of
    /// its request is not sent on meanwhile.
    ///
    /// # Errors
    /// As [`ResponseBody::poll_piece`].
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

    /// Nobody wants it: reads the rest, if it is small and on its way already, on a task of the
    /// current `LocalSet`, so that the connection can be kept; else closes it.
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

    /// Whether no more need be asked for.
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
