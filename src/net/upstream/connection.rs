//! One connection to an endpoint.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;

use crate::logic::breaker::Full;
use crate::logic::outcome::{Failure, Layer, Reason};
use crate::logic::retry::Reached;
use crate::net::tls_client;

use super::outgoing::ClientFault;
use super::queue::Slot;
use super::stream::Stream;

/// An open connection. Dropped in the middle of an exchange it is reset, so that the endpoint
/// does not go on with a request that nobody waits for.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: Stream,
    /// Where answers are read into: empty between them, and used again.
    pub(super) input: BytesMut,
    /// An exchange is not over.
    pub(super) busy: bool,
    /// An exchange has gone well on it.
    pub(super) is_proven: bool,
    pub(super) idle_since: Instant,
    /// How often its pool had changed its speech when it was opened.
    pub(super) generation: u32,
    /// Whose it is, where a connection belongs to one client.
    pub(super) client: Option<SocketAddr>,
    _slot: Slot,
}

/// Why a try ended without a response head.
#[derive(Debug)]
pub enum TryError {
    /// The endpoint is at fault.
    Endpoint {
        /// What happened.
        failure: Failure,
        /// How much of the request it may have seen.
        reached: Reached,
    },
    /// The client is at fault: its body could not be read.
    Client(ClientFault),
    /// This process is: no descriptor, port or memory left.
    Local(io::Error),
    /// A limit has left no room meanwhile.
    Full(Full),
}

impl TryError {
    /// No connection came about.
    pub(super) fn never_reached(failure: Failure) -> Self {
        Self::Endpoint { failure, reached: Reached::Nothing }
    }
}

/// The reason that an I/O error gives, or `None` if this process is at fault.
#[must_use]
pub fn reason_of(error: &io::Error) -> Option<Reason> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(Reason::Refused),
        ErrorKind::TimedOut => Some(Reason::Timeout),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Some(Reason::Unreachable),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Some(Reason::Reset),
        ErrorKind::BrokenPipe | ErrorKind::NotConnected => Some(Reason::Reset),
        ErrorKind::UnexpectedEof => Some(Reason::Closed),
        // EADDRNOTAVAIL (ports), EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM (a local firewall).
        _ => None,
    }
}

impl Connection {
    /// A connection that was opened just now, which holds its `slot`.
    pub(super) fn new(
        stream: Stream,
        generation: u32,
        client: Option<SocketAddr>,
        slot: Slot,
    ) -> Self {
        let idle_since = Instant::now();
        let (busy, is_proven) = (false, false);
        let input = BytesMut::new();
        Self { stream, input, busy, is_proven, idle_since, generation, client, _slot: slot }
    }

    /// What `error`, met in an exchange, says; `reached` is how much of it may have been seen.
    pub(super) fn broken(&self, error: &io::Error, reached: Reached) -> TryError {
        if !self.is_proven && tls_client::is_refusal(error) {
            let failure = Failure { layer: Layer::Tls, reason: Reason::Handshake };
            return TryError::Endpoint { failure, reached: Reached::Nothing };
        }
        self.failed(reason_of(error).unwrap_or(Reason::Reset), reached)
    }

    pub(super) fn failed(&self, reason: Reason, reached: Reached) -> TryError {
        TryError::Endpoint { failure: Failure { layer: Layer::Http, reason }, reached }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.busy {
            self.stream.reset_on_drop();
        }
    }
}
