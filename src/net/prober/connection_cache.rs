//! Connections that are kept from one probe to the next.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::model::upstream_protocol::UpstreamTls;
use crate::logic::probing::probe::ProbeKind;

use super::{ProbeContext, ProbeStream, http2};

/// A connection is used for this long, at most: what only a new one shows (another certificate, an
/// endpoint that accepts no more) is not hidden for ever.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(60);

/// An open connection and its age.
#[derive(Debug)]
pub(super) struct ProbeConnection {
    pub(super) opened_at: Instant,
    pub(super) transport: ProbeTransport,
}

/// A connection by what is spoken on it.
#[derive(Debug)]
pub(super) enum ProbeTransport {
    /// HTTP/1.1, or no HTTP at all.
    ByteStream(Box<ProbeStream>),
    H2(Box<http2::H2ProbeSession>),
}

/// What one probe of one endpoint keeps; belongs to its thread.
#[derive(Debug, Default)]
pub struct ProbeConnectionCache {
    cached: RefCell<Option<CachedConnection>>,
}

#[derive(Debug)]
struct CachedConnection {
    key: ConnectionCacheKey,
    connection: ProbeConnection,
}

/// A connection that was opened for something else is of no use.
#[derive(Debug, PartialEq)]
struct ConnectionCacheKey {
    target: SocketAddr,
    tls: Option<Arc<UpstreamTls>>,
    protocol: ProbeProtocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeProtocol {
    ByteStream,
    H1,
    H2,
}

impl ConnectionCacheKey {
    fn from_context(context: &ProbeContext<'_>) -> Self {
        let protocol = match context.spec.kind {
            ProbeKind::Tcp { .. } | ProbeKind::Tls => ProbeProtocol::ByteStream,
            ProbeKind::Http(_) | ProbeKind::Grpc(_) if context.spec.is_http2() => ProbeProtocol::H2,
            ProbeKind::Http(_) | ProbeKind::Grpc(_) => ProbeProtocol::H1,
        };
        Self { target: context.target, tls: context.spec.tls.clone(), protocol }
    }
}

impl ProbeConnectionCache {
    /// Takes the connection out, if there is one that will do.
    pub(super) fn take(&self, context: &ProbeContext<'_>) -> Option<ProbeConnection> {
        let cached = self.cached.take()?;
        let is_fresh = cached.connection.opened_at.elapsed() < MAX_CONNECTION_AGE;
        let can_reuse = context.spec.is_connection_reused
            && is_fresh
            && cached.key == ConnectionCacheKey::from_context(context);
        can_reuse.then_some(cached.connection)
    }

    /// Keeps a connection for the next probe.
    pub(super) fn put(&self, context: &ProbeContext<'_>, connection: Option<ProbeConnection>) {
        let Some(connection) = connection.filter(|_| context.spec.is_connection_reused) else {
            return;
        };
        let key = ConnectionCacheKey::from_context(context);
        self.cached.replace(Some(CachedConnection { key, connection }));
    }
}
