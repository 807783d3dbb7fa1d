//! One request and its response head, over whichever version of HTTP.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};

use crate::logic::request::retry::RequestExposure;
use crate::net::h1::ResponseHead;

use super::connection::{H1Connection, UpstreamError};
use super::h2_connection::StreamPermit;
use super::pool::ConnectionPool;
use super::request_body::RequestBody;
use super::tunnel::UpstreamTunnel;
use super::{h1_exchange, h2_exchange};

/// Interim answers before the final one, at most (RFC 9110 15.2).
const MAX_INTERIM: u32 = 16;

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// As many bytes as the head's content-length says.
    Length,
    Chunked,
}

/// A way to an endpoint that is open.
#[derive(Debug)]
pub enum ReadyConnection {
    /// HTTP/1.1: a connection carries one request at a time.
    H1(H1Connection),
    /// HTTP/2: room for one request among others.
    H2(StreamPermit),
}

/// What may wait of interim answers until somebody takes them, by the length of their heads.
const MAX_INTERIM_BYTES: usize = 16 * 1024;

/// An interim answer (1xx): more is to come.
#[derive(Debug)]
pub struct InterimResponse {
    /// 100 to 199, and never 101.
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// The interim answers to one request: they are counted, and kept for who wants them.
#[derive(Debug, Default)]
pub(super) struct InterimBuffer {
    count: u32,
    bytes: usize,
    responses: Vec<InterimResponse>,
}

impl InterimBuffer {
    /// Takes in one whose head is `bytes` long, about; whether it is not one too many.
    pub(super) fn try_push(&mut self, interim: InterimResponse, bytes: usize) -> bool {
        self.count += 1;
        self.bytes += bytes;
        if self.bytes <= MAX_INTERIM_BYTES {
            self.responses.push(interim);
        }
        self.count <= MAX_INTERIM
    }

    pub(super) fn take_all(&mut self) -> Vec<InterimResponse> {
        std::mem::take(&mut self.responses)
    }
}

/// A request on its way and the response head that is awaited. Dropped before its end it is
/// withdrawn: the endpoint does not go on with a request that nobody waits for. It changes hands often,
/// and so lies in a box.
#[derive(Debug)]
pub enum Exchange {
    H1(Box<h1_exchange::H1Exchange>),
    H2(Box<h2_exchange::H2Exchange>),
}

impl Exchange {
    /// Begins over HTTP/1.1: writes as much of `head` as the socket takes at once. Pieces of a body,
    /// framed as `framing` says, will follow if there is one. `switch_to` is the protocol that it asks the
    /// endpoint to go on in: a 101 that says so is then an answer.
    ///
    /// # Errors
    /// [`TryError`]; nothing has been reached if the socket refused the first byte.
    pub fn begin_h1(
        connection: H1Connection,
        head: &[u8],
        method: Method,
        framing: Option<BodyFraming>,
        max_head_bytes: usize,
        switch_to: Option<&'static str>,
    ) -> Result<Self, UpstreamError> {
        let mut exchange =
            h1_exchange::H1Exchange::begin(connection, head, method, framing, max_head_bytes)?;
        exchange.switch_to = switch_to;
        Ok(Self::H1(Box::new(exchange)))
    }

    /// After a 101: the connection, for anything. `None` over HTTP/2, which has none.
    pub fn into_tunnel(self) -> Option<UpstreamTunnel> {
        match self {
            Self::H1(exchange) => Some(exchange.into_tunnel()),
            Self::H2(_) => None,
        }
    }

    /// Begins over HTTP/2: hands `request` over; pieces of a body follow if it `has_body`.
    ///
    /// # Errors
    /// [`TryError`] with nothing reached.
    pub fn begin_h2(
        permit: StreamPermit,
        request: Request<()>,
        has_body: bool,
    ) -> Result<Self, UpstreamError> {
        permit.send_request(request, has_body).map(|exchange| Self::H2(Box::new(exchange)))
    }

    /// How much of the request may have been seen.
    pub fn reached(&self) -> RequestExposure {
        match self {
            Self::H1(exchange) => exchange.reached(),
            Self::H2(exchange) => exchange.reached(),
        }
    }

    /// Bytes of the request that were handed over.
    pub fn written_bytes(&self) -> u64 {
        match self {
            Self::H1(exchange) => exchange.written_bytes(),
            Self::H2(exchange) => exchange.written_bytes(),
        }
    }

    /// Whether all of the request has been handed over.
    pub fn is_sent(&self) -> bool {
        match self {
            Self::H1(exchange) => exchange.is_sent(),
            Self::H2(exchange) => exchange.is_sent(),
        }
    }

    /// Whether the client is to send more before the endpoint can be expected to answer.
    pub fn is_waiting_for_client(&self) -> bool {
        match self {
            Self::H1(exchange) => exchange.is_waiting_for_client(),
            Self::H2(exchange) => exchange.is_waiting_for_client(),
        }
    }

    /// Whether all of the body that follows `head` has come with it.
    pub fn has_complete_body(&self, head: &ResponseHead) -> bool {
        match self {
            Self::H1(exchange) => exchange.has_complete_body(head),
            Self::H2(_) => false,
        }
    }

    /// That body, if there is one; the connection goes back to `home`. Only if
    /// [`Exchange::has_whole`].
    pub fn into_complete_body(self, head: &ResponseHead, pool: &Rc<ConnectionPool>) -> Bytes {
        match self {
            Self::H1(exchange) => exchange.into_complete_body(head, pool),
            Self::H2(_) => Bytes::new(),
        }
    }

    /// Takes out what the endpoint has said before its answer.
    pub fn take_interim_responses(&mut self) -> Vec<InterimResponse> {
        match self {
            Self::H1(exchange) => exchange.interims.take_all(),
            Self::H2(exchange) => exchange.interims.take_all(),
        }
    }

    /// Sends on and waits for the final response head. What comes before it can be taken out.
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
