//! Opens connections to an endpoint: TCP, PROXY header, TLS.

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

use super::error::{UpstreamError, io_failure_reason};
use super::proxy_header::{self, DownstreamAddresses};
use super::stream::UpstreamStream;

/// TLS session tickets that are kept for each endpoint; an endpoint accepts only its own tickets.
const MAX_SESSION_TICKETS: usize = 8;

/// The ALPN identifier of HTTP/2 over TLS (RFC 9113 3.2).
const ALPN_H2: &[u8] = b"h2";

/// The protocol of an endpoint, and its TLS configuration once it is prepared.
#[derive(Debug)]
pub(super) struct UpstreamConnector {
    protocol: Arc<UpstreamProtocol>,
    tls: RefCell<Option<Arc<ClientConfig>>>,
}

/// The layer that the opening of a connection has reached, to which a timeout is attributed.
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

    /// The failure if the connection is not open in time.
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

    /// Builds the TLS configuration, which may read the system's certificates. The endpoint is not
    /// blamed for the time that this takes.
    ///
    /// # Errors
    /// [`UpstreamError::Local`].
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

    /// Whether HTTP/2 is to be spoken on an open stream.
    ///
    /// # Errors
    /// If the configuration requires HTTP/2 and the endpoint negotiated another protocol.
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
    /// [`UpstreamError::Endpoint`] with nothing reached, or [`UpstreamError::Local`].
    pub(super) async fn open(
        &self,
        address: SocketAddr,
        downstream: DownstreamAddresses,
        progress: &ConnectProgress,
    ) -> Result<UpstreamStream, UpstreamError> {
        let mut stream = TcpStream::connect(address).await.map_err(connect_error)?;
        // Nagle's algorithm would delay a small request until the previous one is acknowledged.
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
        let not_prepared =
            || UpstreamError::Local(io::Error::other("the TLS configuration is not prepared"));
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
