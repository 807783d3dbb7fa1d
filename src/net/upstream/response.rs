//! The response body of an exchange, and the connection's way back to its pool.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Sleep, sleep};

use crate::logic::outcome::Reason;
use crate::net::h1::ResponseHead;
use crate::net::trailers::Trailers;

use super::exchange::Exchange;
use super::lasting::Place;
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::{over_h1, over_h2};

/// Bytes of an unwanted response that are read before its connection is closed.
const DRAIN_BYTES: usize = 64 * 1024;

/// Time for that.
const DRAIN_TIME: Duration = Duration::from_millis(200);

/// Why a response body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The endpoint is at fault.
    Endpoint(Reason),
    /// The client is: the rest of its request body could not be read.
    Client,
    /// Nobody is: the endpoint is drained, and the time of what lasts there is up.
    Drained,
}

/// Closed, reset or wrongly framed after the head: all the same to whoever awaits the rest.
pub(super) const CUT: ResponseError = ResponseError::Endpoint(Reason::Cut);

/// A response body that was read to its end, or one still to be streamed.
#[derive(Debug)]
pub enum Received {
    /// All of it.
    Whole(Bytes),
    /// The rest is still on its way.
    Stream(Box<ResponseBody>),
}

/// A response body on its way.
#[derive(Debug)]
pub struct ResponseBody {
    flow: Flow,
    home: Rc<Pool>,
    idle_timeout: Duration,
    idle: Option<Pin<Box<Sleep>>>,
    /// How often what lasts at the endpoint had been ended before.
    ends: u64,
    place: Option<Place>,
}

#[derive(Debug)]
enum Flow {
    H1(over_h1::Flow),
    H2(over_h2::Flow),
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.home.lasting.leave(&mut self.place);
    }
}

impl ResponseBody {
    /// The body that follows `head`. `outgoing` is what of the request is still to be sent; who
    /// takes the body `until_end` asks for what follows it even if its length is known.
    #[must_use]
    pub fn new(
        exchange: Exchange,
        head: &ResponseHead,
        mut outgoing: Option<Outgoing>,
        home: Rc<Pool>,
        idle_timeout: Duration,
        until_end: bool,
    ) -> Box<Self> {
        if let Some(outgoing) = &mut outgoing {
            outgoing.commit();
        }
        let flow = match exchange {
            Exchange::H1(exchange) => Flow::H1(over_h1::Flow::new(*exchange, head, outgoing)),
            Exchange::H2(exchange) => {
                Flow::H2(over_h2::Flow::new(*exchange, head, outgoing, until_end))
            }
        };
        let ends = home.lasting.ends();
        Box::new(Self { flow, home, idle_timeout, idle: None, ends, place: None })
    }

    /// Bytes still to come, where that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match &self.flow {
            Flow::H1(flow) => flow.remaining(),
            Flow::H2(flow) => flow.remaining(),
        }
    }

    /// Whether all of it has been taken.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match &self.flow {
            Flow::H1(flow) => flow.is_over(),
            Flow::H2(flow) => flow.is_over(),
        }
    }

    /// Takes out what followed the body, when it is over.
    pub fn take_trailers(&mut self) -> Trailers {
        match &mut self.flow {
            Flow::H1(flow) => flow.take_trailers(),
            Flow::H2(flow) => flow.take_trailers(),
        }
    }

    /// The next piece, or `None` at the end, when the connection has gone back to its pool.
    pub fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ResponseError>>> {
        if self.home.lasting.ends() > self.ends {
            self.flow.break_off();
            return Poll::Ready(Some(Err(ResponseError::Drained)));
        }
        match self.flow.poll(cx) {
            Poll::Ready(Ok(Some(piece))) => {
                self.idle = None;
                // Whoever knows the length does not ask again after the last byte.
                if self.flow.is_enough() {
                    self.go_home();
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(Ok(None)) => {
                self.go_home();
                Poll::Ready(None)
            }
            Poll::Ready(Err(error)) => {
                self.flow.break_off();
                Poll::Ready(Some(Err(error)))
            }
            Poll::Pending => {
                let error = ready!(self.poll_idle(cx));
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    /// Nothing has come: an error if that has been so for too long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<ResponseError> {
        self.home.lasting.wait(&mut self.place, cx);
        let timeout = self.idle_timeout;
        let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(idle.as_mut().poll(cx));
        // An endpoint that reads on while it answers may be waiting for its client.
        let by_client = self.flow.waits_for_client();
        self.flow.break_off();
        Poll::Ready(if by_client {
            ResponseError::Client
        } else {
            ResponseError::Endpoint(Reason::Timeout)
        })
    }

    /// Takes what has arrived already; `Some` if that was all of it.
    pub fn try_whole(&mut self) -> Result<Option<Bytes>, ResponseError> {
        let whole = match &mut self.flow {
            Flow::H1(flow) => flow.try_whole()?,
            Flow::H2(flow) => flow.try_whole(),
        };
        if whole.is_some() {
            self.go_home();
        }
        Ok(whole)
    }

    /// Whether anything followed the body, which has been read to its end.
    #[must_use]
    pub fn has_trailers(&self) -> bool {
        match &self.flow {
            Flow::H1(_) => false,
            Flow::H2(flow) => flow.has_trailers(),
        }
    }

    /// Gives back what was collected, so that it passes on as it came, with what followed it.
    pub fn keep(&mut self, whole: Bytes) {
        if let Flow::H2(flow) = &mut self.flow {
            flow.keep(whole);
        }
    }

    /// Reads a body of known length, of which nothing has been taken, to its end. What is left of
    /// its request is not sent on meanwhile.
    ///
    /// # Errors
    /// As [`ResponseBody::poll_piece`].
    pub async fn collect(&mut self) -> Result<Bytes, ResponseError> {
        std::future::poll_fn(|cx| self.poll_whole(cx)).await
    }

    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, ResponseError>> {
        loop {
            let gathered = match &mut self.flow {
                Flow::H1(flow) => flow.poll_gather(cx),
                Flow::H2(flow) => flow.poll_gather(cx),
            };
            let error = match gathered {
                Poll::Ready(Ok(Some(whole))) => {
                    self.go_home();
                    return Poll::Ready(Ok(whole));
                }
                Poll::Ready(Ok(None)) => {
                    self.idle = None;
                    continue;
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending => ready!(self.poll_idle(cx)),
            };
            self.flow.break_off();
            return Poll::Ready(Err(error));
        }
    }

    /// Nobody wants it: reads the rest, if it is small and on its way already, on a task of the
    /// current `LocalSet`, so that the connection can be kept; else closes it.
    pub fn drain(mut self: Box<Self>) {
        let is_small = self.remaining().is_none_or(|left| left <= DRAIN_BYTES as u64);
        if !is_small || !self.flow.is_sent() || !matches!(self.try_whole(), Ok(None)) {
            return;
        }
        tokio::task::spawn_local(tokio::time::timeout(DRAIN_TIME, async move {
            let mut read = 0;
            while read <= DRAIN_BYTES {
                match std::future::poll_fn(|cx| self.poll_piece(cx)).await {
                    Some(Ok(piece)) => read += piece.len(),
                    Some(Err(_)) | None => return,
                }
            }
        }));
    }

    fn go_home(&mut self) {
        match &mut self.flow {
            Flow::H1(flow) => flow.finish(&self.home),
            Flow::H2(flow) => flow.finish(),
        }
    }
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ResponseError>> {
        match self {
            Self::H1(flow) => flow.poll(cx),
            Self::H2(flow) => flow.poll(cx),
        }
    }

    /// Whether no more need be asked for.
    fn is_enough(&self) -> bool {
        match self {
            Self::H1(flow) => flow.remaining() == Some(0),
            Self::H2(flow) => flow.is_enough(),
        }
    }

    fn is_sent(&self) -> bool {
        match self {
            Self::H1(flow) => flow.sender.is_done(),
            Self::H2(flow) => flow.sender.is_done(),
        }
    }

    fn waits_for_client(&self) -> bool {
        match self {
            Self::H1(flow) => flow.outgoing.is_some() && flow.sender.waits_for_client(),
            Self::H2(flow) => flow.outgoing.is_some() && flow.sender.waits_for_client(),
        }
    }

    fn break_off(&mut self) {
        match self {
            Self::H1(flow) => flow.break_off(),
            Self::H2(flow) => flow.break_off(),
        }
    }
}
