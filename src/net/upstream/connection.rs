//! One connection to an endpoint.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::TcpStream;

use crate::logic::outcome::{Failure, Layer, Reason};
use crate::logic::retry::Reached;

use super::outgoing::ClientFault;
use super::queue::Slot;

/// An open connection. Dropped in the middle of an exchange it is reset, so that the endpoint
/// does not go on with a request that nobody waits for.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: TcpStream,
    /// An exchange is not over.
    pub(super) busy: bool,
    pub(super) idle_since: Instant,
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
}

/// Opens a connection, which holds its `slot`. The caller bounds the time.
///
/// # Errors
/// [`TryError::Endpoint`] with nothing reached, or [`TryError::Local`].
pub async fn connect(address: SocketAddr, slot: Slot) -> Result<Connection, TryError> {
    let stream = TcpStream::connect(address).await.map_err(connect_error)?;
    // Without it a small request waits for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    Ok(Connection { stream, busy: false, idle_since: Instant::now(), _slot: slot })
}

fn connect_error(error: io::Error) -> TryError {
    match reason_of(&error) {
        Some(Reason::Reset | Reason::Closed) => never_reached(Failure::connect(Reason::Refused)),
        Some(reason) => never_reached(Failure::connect(reason)),
        None => TryError::Local(error),
    }
}

fn never_reached(failure: Failure) -> TryError {
    TryError::Endpoint { failure, reached: Reached::Nothing }
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
    pub(super) fn failed(&self, reason: Reason, reached: Reached) -> TryError {
        TryError::Endpoint { failure: Failure { layer: Layer::Http, reason }, reached }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.busy {
            let _ = self.stream.set_zero_linger();
        }
    }
}
