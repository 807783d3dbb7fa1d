//! Reuse of a connection from one probe to the next.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::logic::model::upstream_protocol::UpstreamTls;
use crate::logic::probing::probe::ProbeKind;

use super::connection::ProbeConnection;
use super::context::ProbeContext;

/// The age at which a connection is no longer reused. Some failures show only on a new one:
/// another certificate, or an endpoint that accepts no connections.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(60);

/// The cached connection of one probe of one endpoint; used on one thread.
#[derive(Debug, Default)]
pub struct ProbeConnectionCache {
    cached: RefCell<Option<CachedConnection>>,
}

#[derive(Debug)]
struct CachedConnection {
    key: ConnectionCacheKey,
    connection: ProbeConnection,
}

/// A connection is reused only for the same target, TLS settings and protocol.
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
    /// Takes the cached connection, if it may be reused.
    pub(super) fn take(&self, context: &ProbeContext<'_>) -> Option<ProbeConnection> {
        let cached = self.cached.take()?;
        let is_fresh = cached.connection.opened_at.elapsed() < MAX_CONNECTION_AGE;
        let can_reuse = context.spec.is_connection_reused
            && is_fresh
            && cached.key == ConnectionCacheKey::from_context(context);
        can_reuse.then_some(cached.connection)
    }

    /// Caches `connection`, if the probe reuses connections.
    pub(super) fn put(&self, context: &ProbeContext<'_>, connection: Option<ProbeConnection>) {
        let Some(connection) = connection.filter(|_| context.spec.is_connection_reused) else {
            return;
        };
        let key = ConnectionCacheKey::from_context(context);
        self.cached.replace(Some(CachedConnection { key, connection }));
    }
}
