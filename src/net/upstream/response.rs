//! The response body of an exchange, and the connection's way back to its pool.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Sleep, sleep};

use crate::logic::outcome::Reason;
use crate::logic::retry::Reached;
use crate::net::h1::{BodyDecoder, Decoded, ResponseHead};

use super::connection::Connection;
use super::exchange::{Exchange, Sender, poll_read};
use super::outgoing::Outgoing;
use super::pool::Pool;

/// Reads of a large body.
const READ_BYTES: usize = 64 * 1024;

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
}

/// Closed, reset or wrongly framed after the head: all the same to whoever awaits the rest.
const CUT: ResponseError = ResponseError::Endpoint(Reason::Cut);

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
}

#[derive(Debug)]
struct Flow {
    connection: Option<Connection>,
    input: BytesMut,
    decoder: BodyDecoder,
    sender: Sender,
    outgoing: Option<Outgoing>,
    keep_alive: bool,
}

impl ResponseBody {
    /// The body that follows `head`. `outgoing` is what of the request is still to be sent.
    #[must_use]
    pub fn new(
        exchange: Exchange,
        head: &ResponseHead,
        mut outgoing: Option<Outgoing>,
        home: Rc<Pool>,
        idle_timeout: Duration,
    ) -> Box<Self> {
        if let Some(outgoing) = &mut outgoing {
            outgoing.commit();
        }
        let flow = Flow {
            connection: Some(exchange.connection),
            input: exchange.input,
            decoder: BodyDecoder::new(head.framing),
            sender: exchange.sender,
            outgoing,
            keep_alive: head.keep_alive,
        };
        Box::new(Self { flow, home, idle_timeout, idle: None })
    }

    /// Bytes still to come, where that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.flow.decoder.remaining()
    }

    /// Whether all of it has been taken.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.flow.connection.is_none()
    }

    /// The next piece, or `None` at the end, when the connection has gone back to its pool.
    pub fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ResponseError>>> {
        match self.flow.poll(cx) {
            Poll::Ready(Ok(Some(piece))) => {
                self.idle = None;
                // Whoever knows the length does not ask again after the last byte.
                if self.remaining() == Some(0) {
                    self.go_home();
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(Ok(None)) => {
                self.go_home();
                Poll::Ready(None)
            }
            Poll::Ready(Err(error)) => {
                self.flow.connection = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Pending => {
                let timeout = self.idle_timeout;
                let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(timeout)));
                ready!(idle.as_mut().poll(cx));
                self.flow.connection = None;
                // An endpoint that reads on while it answers may be waiting for its client.
                let by_client = self.flow.outgoing.is_some() && self.flow.sender.waits_for_client();
                let error = if by_client {
                    ResponseError::Client
                } else {
                    ResponseError::Endpoint(Reason::Timeout)
                };
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    /// Takes what has arrived already; `Some` if that was all of it.
    pub fn try_whole(&mut self) -> Result<Option<Bytes>, ResponseError> {
        let malformed = |_| CUT;
        let Some(remaining) = self.flow.decoder.remaining() else { return Ok(None) };
        if remaining > self.flow.input.len() as u64 {
            return Ok(None);
        }
        let whole = match self.flow.decoder.decode(&mut self.flow.input).map_err(malformed)? {
            Decoded::Data(data) => data,
            Decoded::End | Decoded::More => Bytes::new(),
        };
        // Moves the decoder past its end.
        self.flow.decoder.decode(&mut self.flow.input).map_err(malformed)?;
        self.go_home();
        Ok(Some(whole))
    }

    /// Reads a body of known length to its end.
    ///
    /// # Errors
    /// As [`ResponseBody::poll_piece`].
    pub async fn collect(&mut self) -> Result<Bytes, ResponseError> {
        let length = usize::try_from(self.remaining().unwrap_or(0)).unwrap_or(0);
        let mut whole = BytesMut::with_capacity(length);
        while let Some(piece) = std::future::poll_fn(|cx| self.poll_piece(cx)).await {
            whole.extend_from_slice(&piece?);
        }
        Ok(whole.freeze())
    }

    /// Nobody wants it: reads the rest, if it is small and on its way already, on a task of the
    /// current `LocalSet`, so that the connection can be kept; else closes it.
    pub fn drain(mut self: Box<Self>) {
        let is_small = self.remaining().is_none_or(|left| left <= DRAIN_BYTES as u64);
        if !is_small || !self.flow.sender.is_done() || !matches!(self.try_whole(), Ok(None)) {
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
        let Some(mut connection) = self.flow.connection.take() else { return };
        if !self.flow.sender.is_done() {
            if let Some(outgoing) = &mut self.flow.outgoing {
                outgoing.abandon();
            }
            return;
        }
        connection.busy = false;
        connection.is_proven = true;
        // Bytes after a complete response belong to nobody: such a connection is not reused.
        if self.flow.keep_alive && self.flow.input.is_empty() {
            self.home.check_in(connection);
        }
    }
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ResponseError>> {
        let Some(connection) = self.connection.as_mut() else { return Poll::Ready(Ok(None)) };
        if let Some(outgoing) = &mut self.outgoing {
            let mut reached = Reached::Something;
            if self.sender.poll(connection, outgoing, cx, &mut reached).is_err() {
                return Poll::Ready(Err(ResponseError::Client));
            }
        }
        loop {
            match self.decoder.decode(&mut self.input) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Ok(Some(data))),
                Ok(Decoded::End) => return Poll::Ready(Ok(None)),
                Ok(Decoded::More) => {}
                Err(_) => return Poll::Ready(Err(CUT)),
            }
            match ready!(poll_read(connection, &mut self.input, READ_BYTES, cx)) {
                Ok(0) if self.decoder.ends_at_close() => return Poll::Ready(Ok(None)),
                Ok(0) => return Poll::Ready(Err(CUT)),
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(CUT)),
            }
        }
    }
}
