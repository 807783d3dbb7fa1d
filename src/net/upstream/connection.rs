//! One connection to an endpoint.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};
use crate::logic::request::limits::LimitExceeded;
use crate::logic::request::retry::RequestExposure;
use crate::net::tls_client;

use super::connection_queue::ConnectionPermit;
use super::request_body::ClientBodyError;
use super::stream::UpstreamStream;

/// An open connection. Dropped in the middle of an exchange it is reset, so that the endpoint
/// does not go on with a request that nobody waits for.
#[derive(Debug)]
pub struct H1Connection {
    pub(super) stream: UpstreamStream,
    /// Where answers are read into: empty between them, and used again.
    pub(super) input: BytesMut,
    /// An exchange is not over.
    pub(super) is_in_exchange: bool,
    /// An exchange has gone well on it.
    pub(super) has_completed_exchange: bool,
    pub(super) idle_since: Instant,
    /// How often its pool had changed its speech when it was opened.
    pub(super) generation: u32,
    /// Whose it is, where a connection belongs to one client.
    pub(super) client: Option<SocketAddr>,
    _permit: ConnectionPermit,
}

/// Why a try ended without a response head.
#[derive(Debug)]
pub enum UpstreamError {
    /// The endpoint is at fault.
    Endpoint {
        failure: Failure,
        /// How much of the request it may have seen.
        reached: RequestExposure,
    },
    /// The client is at fault: its body could not be read.
    Client(ClientBodyError),
    /// This process is: no descriptor, port or memory left.
    Local(io::Error),
    /// A limit has left no room meanwhile.
    LimitReached(LimitExceeded),
}

impl UpstreamError {
    /// No connection came about.
    pub(super) fn unreached(failure: Failure) -> Self {
        Self::Endpoint { failure, reached: RequestExposure::NotSent }
    }
}

/// The reason that an I/O error gives, or `None` if this process is at fault.
pub fn io_failure_reason(error: &io::Error) -> Option<FailureReason> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(FailureReason::Refused),
        ErrorKind::TimedOut => Some(FailureReason::Timeout),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Some(FailureReason::Unreachable)
        }
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Some(FailureReason::Reset),
        ErrorKind::BrokenPipe | ErrorKind::NotConnected => Some(FailureReason::Reset),
        ErrorKind::UnexpectedEof => Some(FailureReason::Closed),
        // EADDRNOTAVAIL (ports), EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM (a local firewall).
        _ => None,
    }
}

impl H1Connection {
    /// A connection that was opened just now, which holds its `slot`.
    pub(super) fn new(
        stream: UpstreamStream,
        generation: u32,
        client: Option<SocketAddr>,
        permit: ConnectionPermit,
    ) -> Self {
        let idle_since = Instant::now();
        let (is_in_exchange, has_completed_exchange) = (false, false);
        let input = BytesMut::new();
        Self {
            stream,
            input,
            is_in_exchange,
            has_completed_exchange,
            idle_since,
            generation,
            client,
            _permit: permit,
        }
    }

    /// What `error`, met in an exchange, says; `reached` is how much of it may have been seen.
    pub(super) fn io_failure(&self, error: &io::Error, reached: RequestExposure) -> UpstreamError {
        if !self.has_completed_exchange && tls_client::is_handshake_refusal(error) {
            let failure = Failure { layer: FailureLayer::Tls, reason: FailureReason::Handshake };
            return UpstreamError::Endpoint { failure, reached: RequestExposure::NotSent };
        }
        self.http_failure(io_failure_reason(error).unwrap_or(FailureReason::Reset), reached)
    }

    pub(super) fn http_failure(
        &self,
        reason: FailureReason,
        reached: RequestExposure,
    ) -> UpstreamError {
        UpstreamError::Endpoint { failure: Failure { layer: FailureLayer::Http, reason }, reached }
    }
}

impl Drop for H1Connection {
    fn drop(&mut self) {
        if self.is_in_exchange {
            self.stream.reset_on_drop();
        }
    }
}
