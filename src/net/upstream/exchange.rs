//! One request and its response head, over HTTP/1.1 or HTTP/2.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request};

use crate::logic::request::retry::RequestExposure;
use crate::net::h1::ResponseHead;

use super::connection::H1Connection;
use super::error::UpstreamError;
use super::h1_exchange::H1Exchange;
use super::h1_request_sender::BodyFraming;
use super::h2_connection::StreamPermit;
use super::h2_exchange::H2Exchange;
use super::interim::InterimResponse;
use super::pool::ConnectionPool;
use super::request_body::RequestBody;
use super::tunnel::UpstreamTunnel;

/// A request in flight, until its response head has arrived. Dropped before the response ends, it
/// resets its connection or stream, so that the endpoint does not execute an abandoned request.
/// Boxed, because it is moved often.
#[derive(Debug)]
pub enum Exchange {
    H1(Box<H1Exchange>),
    H2(Box<H2Exchange>),
}

impl Exchange {
    /// Starts an exchange over HTTP/1.1: writes as much of `head` as the socket accepts at once.
    /// `framing` is that of the body, if there is one. `switch_to` is the protocol of the Upgrade
    /// field: a 101 that names it is then a final response.
    ///
    /// # Errors
    /// [`UpstreamError`]; nothing has been reached if the socket refused the first byte.
    pub fn begin_h1(
        connection: H1Connection,
        head: &[u8],
        method: Method,
        framing: Option<BodyFraming>,
        max_head_bytes: usize,
        switch_to: Option<&'static str>,
    ) -> Result<Self, UpstreamError> {
        let mut exchange = H1Exchange::begin(connection, head, method, framing, max_head_bytes)?;
        exchange.switch_to = switch_to;
        Ok(Self::H1(Box::new(exchange)))
    }

    /// Turns the connection into a tunnel, after a 101. `None` over HTTP/2, which has no 101.
    pub fn into_tunnel(self) -> Option<UpstreamTunnel> {
        match self {
            Self::H1(exchange) => Some(exchange.into_tunnel()),
            Self::H2(_) => None,
        }
    }

    /// Starts an exchange over HTTP/2; a body follows `request` if `has_body`.
    ///
    /// # Errors
    /// [`UpstreamError`] with nothing reached.
    pub fn begin_h2(
        permit: StreamPermit,
        request: Request<()>,
        has_body: bool,
    ) -> Result<Self, UpstreamError> {
        H2Exchange::begin(permit, request, has_body).map(|exchange| Self::H2(Box::new(exchange)))
    }

    /// How much of the request the endpoint may have seen.
    pub fn reached(&self) -> RequestExposure {
        match self {
            Self::H1(exchange) => exchange.reached(),
            Self::H2(exchange) => exchange.reached(),
        }
    }

    /// Bytes of the request that the kernel (HTTP/1.1) or the library (HTTP/2) has accepted.
    pub fn written_bytes(&self) -> u64 {
        match self {
            Self::H1(exchange) => exchange.written_bytes(),
            Self::H2(exchange) => exchange.written_bytes(),
        }
    }

    /// Whether all of the request has been accepted.
    pub fn is_sent(&self) -> bool {
        match self {
            Self::H1(exchange) => exchange.is_sent(),
            Self::H2(exchange) => exchange.is_sent(),
        }
    }

    /// Whether the endpoint may be waiting for the rest of the client's body.
    pub fn is_waiting_for_client(&self) -> bool {
        match self {
            Self::H1(exchange) => exchange.is_waiting_for_client(),
            Self::H2(exchange) => exchange.is_waiting_for_client(),
        }
    }

    /// Whether all of the body has arrived with `head`.
    pub fn has_complete_body(&self, head: &ResponseHead) -> bool {
        match self {
            Self::H1(exchange) => exchange.has_complete_body(head),
            Self::H2(_) => false,
        }
    }

    /// Takes that body and returns the connection to `pool`. Requires [`Self::has_complete_body`].
    pub fn into_complete_body(self, head: &ResponseHead, pool: &Rc<ConnectionPool>) -> Bytes {
        match self {
            Self::H1(exchange) => exchange.into_complete_body(head, pool),
            Self::H2(_) => Bytes::new(),
        }
    }

    /// Takes the interim responses that have arrived since the last call.
    pub fn take_interim_responses(&mut self) -> Vec<InterimResponse> {
        match self {
            Self::H1(exchange) => exchange.interims.take_all(),
            Self::H2(exchange) => exchange.interims.take_all(),
        }
    }

    /// Sends the rest of the request and waits for the final response head. Interim responses
    /// before it can be taken.
    pub fn poll_head(
        &mut self,
        body: &mut RequestBody,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        match self {
            Self::H1(exchange) => exchange.poll_head(body, cx),
            Self::H2(exchange) => exchange.poll_head(body, cx),
        }
    }
}
