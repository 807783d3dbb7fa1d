//! Accepts connections and passes them to the server of their protocol.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::app::dataplane::listener_config::ListenerConfig;
use crate::app::dataplane::shared::{InstanceShared, Listener};
use crate::app::ops::metrics::families;
use crate::logic::overload::memory_pressure::MemoryPressureLevel;
use crate::net::upstream::DownstreamAddresses;

use super::client_connections::{
    ClientConnection, CloseReason, ConnectionCommand, ConnectionGuard, DRAIN_GRACE,
    EvictionCandidates, LATE_CONNECTION_DRAIN_GRACE,
};
use super::handshake;
use super::state::{CAPACITY_RETRY_INTERVAL, Worker};
use super::{http1, http2};

/// Pause after a failed accept: without descriptors, immediate retries would use a whole core.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The state of accepting at one listener.
struct AcceptLoop<'a> {
    worker: &'a Rc<Worker>,
    /// Connections of this listener over all workers.
    connections: &'a Arc<AtomicUsize>,
    listener_config: &'a ArcSwap<ListenerConfig>,
    /// The local address of all connections, unless the listener is bound to a wildcard.
    local: Option<SocketAddr>,
    /// Candidates for eviction among the listener's connections, and among all of the worker's.
    listener_candidates: EvictionCandidates,
    worker_candidates: EvictionCandidates,
}

/// Accepts until `close`, then whatever the kernel has completed before. Dropping the listener
/// would reset those connections, unless another process shares the socket.
pub(super) async fn run_accept_loop(worker: Rc<Worker>, bound: Listener, close: CancellationToken) {
    let listener = match TcpListener::from_std(bound.listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(address = %bound.address, %error, "listener lost");
            return;
        }
    };
    let mut accept_loop = AcceptLoop {
        worker: &worker,
        connections: &bound.connections,
        listener_config: &bound.config,
        // With a wildcard, each connection has a local address of its own.
        local: listener.local_addr().ok().filter(|local| !local.ip().is_unspecified()),
        listener_candidates: EvictionCandidates::default(),
        worker_candidates: EvictionCandidates::default(),
    };
    loop {
        let accepted = tokio::select! {
            accepted = accept_loop.accept_next(&listener) => accepted,
            () = close.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => accept_loop.add_connection(stream, peer),
            Err(_) => {
                worker.warn_rate_limited(
                    "no connection can be accepted: out of descriptors or memory",
                );
                sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
    let Ok(listener) = listener.into_std() else { return };
    while accept_loop.has_capacity()
        && let Ok((stream, peer)) = listener.accept()
    {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            accept_loop.add_connection(stream, peer);
        }
    }
}

impl AcceptLoop<'_> {
    fn has_capacity(&self) -> bool {
        let InstanceShared { descriptors, pressure, .. } = &*self.worker.shared;
        descriptors.has_client_capacity() && pressure.level() < MemoryPressureLevel::Stop
    }

    /// The next connection, once a descriptor and memory are available. Until then the kernel
    /// queues it.
    async fn accept_next(&mut self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        while !self.has_capacity() {
            let Worker { client_connections, shared, .. } = &**self.worker;
            if !shared.descriptors.has_client_capacity() {
                // An evicted connection may take a moment to close; no second one is evicted
                // meanwhile.
                client_connections.evict_oldest_idle(
                    CloseReason::Descriptors,
                    None,
                    &mut self.worker_candidates,
                    Instant::now(),
                );
            }
            let _ = timeout(CAPACITY_RETRY_INTERVAL, client_connections.wait_closed()).await;
        }
        listener.accept().await
    }

    /// Adds a connection if its listener is below the limit or an idle connection can be evicted.
    fn add_connection(&mut self, stream: TcpStream, peer: SocketAddr) {
        let Self { worker, connections, listener_config, .. } = *self;
        let Some(local) = self.local.or_else(|| stream.local_addr().ok()) else { return };
        let max_connections = worker.view().http_policy.limits.connections;
        let now = Instant::now();
        if connections.fetch_add(1, Relaxed) >= max_connections
            && !worker.client_connections.evict_oldest_idle(
                CloseReason::Connections,
                Some(connections),
                &mut self.listener_candidates,
                now,
            )
        {
            connections.fetch_sub(1, Relaxed);
            families::CLIENT_CONNECTIONS_REFUSED.handle().increment(1);
            worker.warn_rate_limited("a connection is refused: `limits.connections` is reached");
            let _ = stream.set_zero_linger();
            return;
        }
        let descriptor = worker.shared.descriptors.acquire_client();
        let guard = worker.client_connections.add(Arc::clone(connections), descriptor, now);
        // A socket from another process may be dual-stack.
        let addresses = DownstreamAddresses { remote: canonical(peer), local: canonical(local) };
        let serving = serve_connection(
            Rc::clone(worker),
            stream,
            addresses,
            listener_config.load_full(),
            guard,
        );
        worker.tasks.spawn_local(serving);
    }
}

async fn serve_connection(
    worker: Rc<Worker>,
    stream: TcpStream,
    addresses: DownstreamAddresses,
    listener_config: Arc<ListenerConfig>,
    guard: ConnectionGuard,
) {
    let limits = worker.view().http_policy.limits.clone();
    // A connection that is accepted during a drain still gets one response.
    let is_late = worker.is_draining.get();
    let client_connection = guard.connection();
    let accepted = tokio::select! {
        accepted = handshake::establish(stream, addresses, &listener_config, &limits) => accepted,
        () = wait_drain_grace(client_connection, is_late || !handshake::is_plaintext(&listener_config)) => None,
    };
    drop(listener_config);
    if worker.client_connections.is_draining() {
        client_connection.drain();
    }
    match accepted {
        None => {}
        Some(accepted) if accepted.is_http2 => {
            // Boxed: it would make the future of every connection large.
            Box::pin(http2::serve(worker, accepted, client_connection, is_late, limits)).await;
        }
        Some(accepted) => {
            http1::serve(&worker, accepted, client_connection, is_late, &limits).await;
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns when a connection without a request yet has to close.
async fn wait_drain_grace(client_connection: &ClientConnection, is_long: bool) {
    if client_connection.next_command().await == ConnectionCommand::Drain {
        sleep(if is_long { LATE_CONNECTION_DRAIN_GRACE } else { DRAIN_GRACE }).await;
    }
}
