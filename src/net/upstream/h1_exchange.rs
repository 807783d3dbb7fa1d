//! One request and its response head over HTTP/1.1 (RFC 9112).

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};

use crate::logic::model::outcome::FailureReason;
use crate::logic::request::retry::RequestExposure;
use crate::net::h1::{self, Framing, ResponseHead};

use super::connection::H1Connection;
use super::error::UpstreamError;
use super::h1_request_sender::{BodyFraming, H1RequestSender};
use super::interim::{InterimBuffer, InterimResponse};
use super::pool::ConnectionPool;
use super::request_body::RequestBody;
use super::tunnel::UpstreamTunnel;

/// Bytes of the first reads of a response: a head and a small body fit.
const READ_BYTES: usize = 8 * 1024;

/// A request in flight, until its response head has arrived.
#[derive(Debug)]
pub struct H1Exchange {
    pub(super) connection: H1Connection,
    pub(super) input: BytesMut,
    pub(super) sender: H1RequestSender,
    method: Method,
    max_head_bytes: usize,
    pub(super) interims: InterimBuffer,
    reached: RequestExposure,
    /// The protocol of the request's Upgrade field, which a 101 must name.
    pub(super) switch_to: Option<&'static str>,
}

impl H1Exchange {
    /// Starts to send the request: `framing` is that of its body, if it has one.
    ///
    /// # Errors
    /// [`UpstreamError`]; nothing has been reached if the socket refused the first byte.
    pub(super) fn begin(
        mut connection: H1Connection,
        head: &[u8],
        method: Method,
        framing: Option<BodyFraming>,
        max_head_bytes: usize,
    ) -> Result<Self, UpstreamError> {
        connection.is_in_exchange = true;
        let sender = H1RequestSender::begin(&mut connection, head, framing)?;
        let reached = if sender.written_bytes() > 0 {
            RequestExposure::MaybeSent
        } else {
            RequestExposure::NotSent
        };
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

    /// How much of the request the endpoint may have seen.
    pub(super) fn reached(&self) -> RequestExposure {
        self.reached
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.sender.written_bytes()
    }

    pub(super) fn is_sent(&self) -> bool {
        self.sender.is_done()
    }

    pub(super) fn is_waiting_for_client(&self) -> bool {
        self.sender.is_waiting_for_client()
    }

    /// Sends the rest of the request and waits for the final response head.
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
            match self.connection.poll_read(&mut self.input, READ_BYTES, cx) {
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

    /// Whether a 101 names the requested protocol, and all of the request has been sent.
    fn is_switch_accepted(&self, head: &ResponseHead) -> bool {
        let requested = self.switch_to.filter(|_| self.sender.is_done());
        let accepted = head.upgrade.as_ref();
        requested.zip(accepted).is_some_and(|(requested, accepted)| {
            accepted.as_bytes().eq_ignore_ascii_case(requested.as_bytes())
        })
    }

    /// Turns the connection into a tunnel, after a 101.
    pub(super) fn into_tunnel(self) -> UpstreamTunnel {
        UpstreamTunnel::new(self.connection, self.input)
    }

    /// Whether all of the body has arrived with `head`.
    pub(super) fn has_complete_body(&self, head: &ResponseHead) -> bool {
        let length = body_length(head);
        self.is_sent() && length.is_some_and(|length| length <= self.input.len())
    }

    /// Takes that body and returns the connection to `pool`. Requires [`Self::has_complete_body`].
    pub(super) fn into_complete_body(
        mut self: Box<Self>,
        head: &ResponseHead,
        pool: &Rc<ConnectionPool>,
    ) -> Bytes {
        let length = body_length(head).unwrap_or(0).min(self.input.len());
        let body = self.input.split_to(length).freeze();
        let can_reuse = head.is_keep_alive && self.input.is_empty();
        self.connection.input = self.input;
        pool.return_completed(self.connection, can_reuse);
        body
    }

    /// The final head, if all of it has arrived; interim heads before it are buffered.
    fn take_head(&mut self) -> Result<Option<ResponseHead>, UpstreamError> {
        let malformed =
            |this: &Self| this.connection.http_failure(FailureReason::Malformed, this.reached);
        loop {
            let before = self.input.len();
            let head = h1::parse_response(&mut self.input, &self.method);
            let head = head.map_err(|_| malformed(self))?;
            // The length of the head, or of the part that has arrived.
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

/// The length of the body that follows `head`, if `head` states it.
fn body_length(head: &ResponseHead) -> Option<usize> {
    match head.framing {
        Framing::None => Some(0),
        Framing::Length(length) => usize::try_from(length).ok(),
        Framing::Chunked | Framing::UntilClose => None,
    }
}
