//! From a checkout to an open connection.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};

use crate::net::upstream::checkout::{Checkout, ReadyConnection};
use crate::net::upstream::connection::H1Connection;
use crate::net::upstream::connection_queue::ConnectionPermit;
use crate::net::upstream::connector::ConnectProgress;
use crate::net::upstream::error::UpstreamError;
use crate::net::upstream::h2_connection::{H2Connection, StreamAcquisition};
use crate::net::upstream::h2_connections::PendingConnect;
use crate::net::upstream::h2_handshake;
use crate::net::upstream::proxy_header::DownstreamAddresses;

use super::ConnectionPool;

/// Pending connections that one request waits for, at most.
const MAX_PENDING_WAITS: usize = 16;

impl ConnectionPool {
    /// Opens a connection for `downstream`; it holds `permit` until it ends. The caller bounds the
    /// time.
    ///
    /// # Errors
    /// [`UpstreamError::Endpoint`] with nothing reached, or [`UpstreamError::Local`].
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
        let handshake = h2_handshake::handshake(stream, self.max_head_bytes.get()).await?;
        let pool = Rc::downgrade(self);
        let on_close = move |connection: &Rc<H2Connection>, is_idle_close: bool| {
            if let Some(pool) = pool.upgrade() {
                pool.h2_connection_closed(connection, is_idle_close);
            }
        };
        let connection = handshake.spawn_driver(client, &self.queue, permit, on_close);
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

    /// Turns a checkout into an open connection. `timeout` bounds the opening of a shared
    /// connection; the caller bounds the whole.
    ///
    /// # Errors
    /// As [`Self::open_connection`], or [`UpstreamError::LimitReached`] if other requests took the
    /// room.
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
                // Another request may have begun to open one since the checkout.
                Checkout::New(permit) => match self.h2_connections.join_pending() {
                    Some(pending) => pending,
                    None => self.open_shared(permit, downstream, progress, timeout),
                },
                Checkout::Pending(pending) => pending,
            };
            pending.wait().await?;
            checkout = self.try_checkout().map_err(UpstreamError::LimitReached)?;
        }
        // Each time other requests took the streams, or the connection ended at once.
        Err(UpstreamError::unreached(Failure::http(FailureReason::Closed)))
    }

    /// Opens a connection on a task of its own: other requests wait for it even if the first one
    /// is cancelled.
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
                // The waiting requests acquire their own permits.
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

    /// An open connection that belongs to the client at `address`.
    fn take_client_connection(&self, address: SocketAddr) -> Option<ReadyConnection> {
        if let Some(permit) = self.h2_connections.acquire_stream(Some(address)) {
            return Some(ReadyConnection::H2(permit));
        }
        self.take_idle(Some(address)).map(ReadyConnection::H1)
    }
}

/// The kernel's error for a limit that this process sets below the kernel's.
fn descriptors_exhausted() -> UpstreamError {
    UpstreamError::Local(io::Error::from(Errno::MFILE))
}
