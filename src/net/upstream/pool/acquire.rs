//! From what is free to a line that is open.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};

use super::{Checkout, ConnectionPool};
use crate::net::upstream::connection::{H1Connection, UpstreamError};
use crate::net::upstream::connection_queue::ConnectionPermit;
use crate::net::upstream::connector::{ConnectProgress, DownstreamAddresses};
use crate::net::upstream::exchange::ReadyConnection;
use crate::net::upstream::h2_connection;
use crate::net::upstream::h2_connection::StreamAcquisition;
use crate::net::upstream::h2_connections::PendingConnect;

/// Openings that one request waits for, at most.
const MAX_PENDING_WAITS: usize = 16;

impl ConnectionPool {
    /// Opens a connection, which holds its `slot`, on behalf of `caller`. The caller bounds the time.
    ///
    /// # Errors
    /// [`TryError::Endpoint`] with nothing reached, or [`TryError::Local`].
    pub async fn open_connection(
        self: &Rc<Self>,
        mut permit: ConnectionPermit,
        downstream: DownstreamAddresses,
        progress: &ConnectProgress,
    ) -> Result<ReadyConnection, UpstreamError> {
        permit.set_descriptor(
            self.descriptors.try_acquire_endpoint().ok_or_else(descriptors_exhausted)?,
        );
        let (connector, generation) = (Rc::clone(&self.connector.borrow()), self.generation.get());
        let client = connector.protocol().proxy_protocol.map(|_| downstream.remote);
        let stream = connector.open(self.target.address, downstream, progress).await?;
        let is_h2 = connector.has_negotiated_h2(&stream)?;
        if generation == self.generation.get() {
            self.h2_connections.set_chosen_h1(!is_h2);
        }
        if !is_h2 {
            return Ok(ReadyConnection::H1(H1Connection::new(stream, generation, client, permit)));
        }
        progress.set_layer(FailureLayer::Http);
        let handshake = h2_connection::handshake(stream, self.max_head_bytes.get()).await?;
        let connection = handshake.spawn_driver(self, client, &self.queue, permit);
        let StreamAcquisition::Permit(permit) = connection.acquire_stream() else {
            return Err(UpstreamError::unreached(Failure::http(FailureReason::Closed)));
        };
        if generation == self.generation.get() {
            self.h2_connections.add(connection);
        } else {
            connection.retire();
        }
        Ok(ReadyConnection::H2(permit))
    }

    /// From what is `free` to a line that is open, within `timeout` where a connection is opened for
    /// others as well; the caller bounds the rest of the time.
    ///
    /// # Errors
    /// As [`Pool::open`], or [`TryError::Full`] if others were faster.
    pub async fn acquire(
        self: &Rc<Self>,
        mut checkout: Checkout,
        downstream: DownstreamAddresses,
        progress: &ConnectProgress,
        timeout: Duration,
    ) -> Result<ReadyConnection, UpstreamError> {
        for _ in 0..MAX_PENDING_WAITS {
            let pending = match checkout {
                Checkout::Idle(connection) => return Ok(ReadyConnection::H1(connection)),
                Checkout::H2Stream(permit) => return Ok(ReadyConnection::H2(permit)),
                Checkout::New(permit) if self.is_per_client() => {
                    if let Some(connection) = self.take_client_connection(downstream.remote) {
                        return Ok(connection);
                    }
                    return self.open_connection(permit, downstream, progress).await;
                }
                Checkout::New(permit) if !self.can_share() => {
                    return self.open_connection(permit, downstream, progress).await;
                }
                // While this one made ready, another may have begun.
                Checkout::New(permit) => match self.h2_connections.join_pending() {
                    Some(pending) => pending,
                    None => self.open_shared(permit, downstream, progress, timeout),
                },
                Checkout::Pending(pending) => pending,
            };
            pending.wait().await?;
            checkout = self.try_checkout().map_err(UpstreamError::LimitReached)?;
        }
        // Each time others were faster, or the connection had gone already.
        Err(UpstreamError::unreached(Failure::http(FailureReason::Closed)))
    }

    /// Opens a connection on a task of its own: whoever asked for it first may be the first to leave.
    fn open_shared(
        self: &Rc<Self>,
        permit: ConnectionPermit,
        downstream: DownstreamAddresses,
        progress: &ConnectProgress,
        timeout: Duration,
    ) -> Rc<PendingConnect> {
        let pending = self.h2_connections.begin_connect();
        let (pool, shared, progress) = (Rc::clone(self), Rc::clone(&pending), progress.clone());
        tokio::task::spawn_local(async move {
            let opening = pool.open_connection(permit, downstream, &progress);
            let result = match tokio::time::timeout(timeout, opening).await {
                Ok(Ok(ReadyConnection::H1(connection))) => {
                    pool.put_idle(connection);
                    Ok(())
                }
                // The seat is given back: those who wait take theirs.
                Ok(Ok(ReadyConnection::H2(permit))) => {
                    drop(permit);
                    Ok(())
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Err(UpstreamError::unreached(progress.timeout_failure())),
            };
            shared.finish(&result);
        });
        pending
    }

    /// A connection that belongs to the client at `address`, if there is one.
    fn take_client_connection(&self, address: SocketAddr) -> Option<ReadyConnection> {
        if let Some(permit) = self.h2_connections.acquire_stream(Some(address)) {
            return Some(ReadyConnection::H2(permit));
        }
        self.take_idle(Some(address)).map(ReadyConnection::H1)
    }
}

/// As the kernel says it, which has some left for others.
fn descriptors_exhausted() -> UpstreamError {
    UpstreamError::Local(io::Error::from(Errno::MFILE))
}
