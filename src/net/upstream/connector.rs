//! How connections to an endpoint are opened.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};
use crate::logic::model::upstream_protocol::{UpstreamHttpVersion, UpstreamProtocol, UpstreamTls};
use crate::net::tls_client;

use super::connection::{UpstreamError, io_failure_reason};
use super::proxy_header;
use super::stream::UpstreamStream;

/// Session tickets that are kept for an endpoint, and none for any other: a ticket is of no use to
/// an endpoint that did not make it.
const MAX_SESSION_TICKETS: usize = 8;

/// HTTP/2 in a handshake (RFC 9113 3.2).
const ALPN_H2: &[u8] = b"h2";

/// How an endpoint is spoken to, and what was made ready for that.
#[derive(Debug)]
pub(super) struct UpstreamConnector {
    protocol: Arc<UpstreamProtocol>,
    tls: RefCell<Option<Arc<ClientConfig>>>,
}

/// On whose behalf a connection is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownstreamAddresses {
    /// Where the client connects from.
    pub remote: SocketAddr,
    /// Where its connection was accepted.
    pub local: SocketAddr,
}

/// How far the opening of a connection has come: the layer that a timeout is one of.
#[derive(Clone, Debug)]
pub struct ConnectProgress(Rc<Cell<FailureLayer>>);

impl Default for ConnectProgress {
    fn default() -> Self {
        Self(Rc::new(Cell::new(FailureLayer::Connect)))
    }
}

impl ConnectProgress {
    pub(super) fn set_layer(&self, layer: FailureLayer) {
        self.0.set(layer);
    }

    /// No connection came of it in time.
    pub fn timeout_failure(&self) -> Failure {
        Failure { layer: self.0.get(), reason: FailureReason::Timeout }
    }
}

impl UpstreamConnector {
    pub(super) fn new(protocol: &Arc<UpstreamProtocol>) -> Self {
        Self { protocol: Arc::clone(protocol), tls: RefCell::default() }
    }

    pub(super) fn protocol(&self) -> &Arc<UpstreamProtocol> {
        &self.protocol
    }

    /// Makes ready what does not depend on the endpoint, and so must not count against it: the first
    /// time, the system's certificates may have to be read.
    ///
    /// # Errors
    /// [`TryError::Local`].
    pub(super) async fn prepare(&self) -> Result<(), UpstreamError> {
        let Some(tls) = &self.protocol.tls else { return Ok(()) };
        if self.tls.borrow().is_some() {
            return Ok(());
        }
        let result = tls_client::client_config(tls).await;
        let mut config = result.map_err(|error| UpstreamError::Local(io::Error::other(error)))?;
        config.resumption = Resumption::in_memory_sessions(MAX_SESSION_TICKETS);
        self.tls.replace(Some(Arc::new(config)));
        Ok(())
    }

    /// Whether a stream that was opened speaks HTTP/2.
    ///
    /// # Errors
    /// If it had to, and the endpoint chose otherwise.
    pub(super) fn has_negotiated_h2(&self, stream: &UpstreamStream) -> Result<bool, UpstreamError> {
        match (self.protocol.http_version, stream.alpn()) {
            (UpstreamHttpVersion::H1, _) => Ok(false),
            (UpstreamHttpVersion::H2, None) => Ok(true),
            (UpstreamHttpVersion::Auto, None) => Ok(false),
            (UpstreamHttpVersion::Auto, Some(chosen)) => Ok(chosen == ALPN_H2),
            (UpstreamHttpVersion::H2, Some(chosen)) if chosen == ALPN_H2 => Ok(true),
            (UpstreamHttpVersion::H2, Some(_)) => {
                let failure =
                    Failure { layer: FailureLayer::Tls, reason: FailureReason::Handshake };
                Err(UpstreamError::unreached(failure))
            }
        }
    }

    /// Opens a connection to `address`. The caller bounds the time.
    ///
    /// # Errors
    /// [`TryError::Endpoint`] with nothing reached, or [`TryError::Local`].
    pub(super) async fn open(
        &self,
        address: SocketAddr,
        downstream: DownstreamAddresses,
        progress: &ConnectProgress,
    ) -> Result<UpstreamStream, UpstreamError> {
        let mut stream = TcpStream::connect(address).await.map_err(connect_error)?;
        // Without it a small request waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        if let Some(version) = self.protocol.proxy_protocol {
            let header = proxy_header::encode(version, downstream);
            stream.write_all(&header).await.map_err(connect_error)?;
        }
        let Some(tls) = &self.protocol.tls else { return Ok(UpstreamStream::Plain(stream)) };
        progress.set_layer(FailureLayer::Tls);
        self.tls_handshake(tls, address, stream).await
    }

    async fn tls_handshake(
        &self,
        tls: &UpstreamTls,
        address: SocketAddr,
        stream: TcpStream,
    ) -> Result<UpstreamStream, UpstreamError> {
        let not_prepared = || UpstreamError::Local(io::Error::other("TLS was not made ready"));
        let config = self.tls.borrow().clone().ok_or_else(not_prepared)?;
        let name = tls_client::server_name(tls.server_name.as_deref(), address.ip());
        let name = name.ok_or_else(not_prepared)?;
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(UpstreamStream::Tls(Box::new(stream))),
            Err(error) => Err(handshake_error(error)),
        }
    }
}

fn connect_error(error: io::Error) -> UpstreamError {
    match io_failure_reason(&error) {
        Some(FailureReason::Reset | FailureReason::Closed) => {
            UpstreamError::unreached(Failure::connect(FailureReason::Refused))
        }
        Some(reason) => UpstreamError::unreached(Failure::connect(reason)),
        None => UpstreamError::Local(error),
    }
}

fn handshake_error(error: io::Error) -> UpstreamError {
    match tls_client::tls_failure_reason(&error).or_else(|| io_failure_reason(&error)) {
        Some(reason) => UpstreamError::unreached(Failure { layer: FailureLayer::Tls, reason }),
        None => UpstreamError::Local(error),
    }
}
