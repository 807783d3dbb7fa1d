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

use crate::logic::outcome::{Failure, Layer, Reason};
use crate::logic::speech::{Protocol, Speech, TlsClient};
use crate::net::tls_client;

use super::connection::{TryError, reason_of};
use super::proxy_header;
use super::stream::Stream;

/// Session tickets that are kept for an endpoint, and none for any other: a ticket is of no use to
/// an endpoint that did not make it.
const TICKETS: usize = 8;

/// HTTP/2 in a handshake (RFC 9113 3.2).
const H2: &[u8] = b"h2";

/// How an endpoint is spoken to, and what was made ready for that.
#[derive(Debug)]
pub(super) struct Dial {
    speech: Arc<Speech>,
    tls: RefCell<Option<Arc<ClientConfig>>>,
}

/// On whose behalf a connection is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Where the client connects from.
    pub address: SocketAddr,
    /// Where its connection was accepted.
    pub local: SocketAddr,
}

/// How far the opening of a connection has come: the layer that a timeout is one of.
#[derive(Clone, Debug)]
pub struct Stage(Rc<Cell<Layer>>);

impl Default for Stage {
    fn default() -> Self {
        Self(Rc::new(Cell::new(Layer::Connect)))
    }
}

impl Stage {
    pub(super) fn at(&self, layer: Layer) {
        self.0.set(layer);
    }

    /// No connection came of it in time.
    #[must_use]
    pub fn timeout(&self) -> Failure {
        Failure { layer: self.0.get(), reason: Reason::Timeout }
    }
}

impl Dial {
    pub(super) fn new(speech: &Arc<Speech>) -> Self {
        Self { speech: Arc::clone(speech), tls: RefCell::default() }
    }

    pub(super) fn speech(&self) -> &Arc<Speech> {
        &self.speech
    }

    /// Makes ready what does not depend on the endpoint, and so must not count against it: the first
    /// time, the system's certificates may have to be read.
    ///
    /// # Errors
    /// [`TryError::Local`].
    pub(super) async fn prepare(&self) -> Result<(), TryError> {
        let Some(tls) = &self.speech.tls else { return Ok(()) };
        if self.tls.borrow().is_some() {
            return Ok(());
        }
        let made = tls_client::config(tls).await;
        let mut config = made.map_err(|error| TryError::Local(io::Error::other(error)))?;
        config.resumption = Resumption::in_memory_sessions(TICKETS);
        self.tls.replace(Some(Arc::new(config)));
        Ok(())
    }

    /// Whether a stream that was opened speaks HTTP/2.
    ///
    /// # Errors
    /// If it had to, and the endpoint chose otherwise.
    pub(super) fn speaks_h2(&self, stream: &Stream) -> Result<bool, TryError> {
        match (self.speech.protocol, stream.alpn()) {
            (Protocol::H1, _) => Ok(false),
            (Protocol::H2, None) => Ok(true),
            (Protocol::Auto, None) => Ok(false),
            (Protocol::Auto, Some(chosen)) => Ok(chosen == H2),
            (Protocol::H2, Some(chosen)) if chosen == H2 => Ok(true),
            (Protocol::H2, Some(_)) => {
                let failure = Failure { layer: Layer::Tls, reason: Reason::Handshake };
                Err(TryError::never_reached(failure))
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
        caller: Caller,
        stage: &Stage,
    ) -> Result<Stream, TryError> {
        let mut stream = TcpStream::connect(address).await.map_err(connect_error)?;
        // Without it a small request waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        if let Some(version) = self.speech.proxy_protocol {
            let header = proxy_header::of(version, caller);
            stream.write_all(&header).await.map_err(connect_error)?;
        }
        let Some(tls) = &self.speech.tls else { return Ok(Stream::Plain(stream)) };
        stage.at(Layer::Tls);
        self.shake_hands(tls, address, stream).await
    }

    async fn shake_hands(
        &self,
        tls: &TlsClient,
        address: SocketAddr,
        stream: TcpStream,
    ) -> Result<Stream, TryError> {
        let broken = || TryError::Local(io::Error::other("TLS was not made ready"));
        let config = self.tls.borrow().clone().ok_or_else(broken)?;
        let name = tls_client::server_name(tls.server_name.as_deref(), address.ip());
        let name = name.ok_or_else(broken)?;
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => Err(handshake_error(error)),
        }
    }
}

fn connect_error(error: io::Error) -> TryError {
    match reason_of(&error) {
        Some(Reason::Reset | Reason::Closed) => {
            TryError::never_reached(Failure::connect(Reason::Refused))
        }
        Some(reason) => TryError::never_reached(Failure::connect(reason)),
        None => TryError::Local(error),
    }
}

fn handshake_error(error: io::Error) -> TryError {
    match tls_client::reason_of(&error).or_else(|| reason_of(&error)) {
        Some(reason) => TryError::never_reached(Failure { layer: Layer::Tls, reason }),
        None => TryError::Local(error),
    }
}
