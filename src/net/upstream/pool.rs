//! The connections that one worker keeps to one endpoint.

mod abort;
mod acquire;
mod idle;

pub use abort::AbortEpoch;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use tokio::sync::Notify;

use crate::logic::incident::client_failure::ClientFailure;
use crate::logic::model::id::EndpointId;
use crate::logic::model::snapshot::{PoolStats, Target};
use crate::logic::model::topology::PoolLimitSpec;
use crate::logic::model::upstream_protocol::{UpstreamHttpVersion, UpstreamProtocol};
use crate::logic::overload::descriptor_pool::DescriptorPool;
use crate::logic::request::breaker::LimitPermit;
use crate::logic::request::limits::{CircuitBreakers, LimitExceeded, LimitKind, LimitScope};

use super::checkout::Checkout;
use super::connection::H1Connection;
use super::connection_queue::{ConnectionPermit, ConnectionQueue};
use super::connector::UpstreamConnector;
use super::error::UpstreamError;
use super::fault_injection::{FaultInjection, InjectedReply};
use super::h2_connection::H2Connection;
use super::h2_connections::H2Connections;
use super::stream::UpstreamStream;
use super::streaming_responses::StreamingResponses;

/// What a pool reports to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// The endpoint closed or reset an idle connection.
    IdleClosed(EndpointId),
}

type PoolEventHandler = Rc<dyn Fn(PoolEvent)>;

/// The parts of a new pool.
pub struct PoolOptions<'a> {
    pub target: Target,
    /// Counters of all workers for all endpoints of the pool together.
    pub pool_stats: Arc<PoolStats>,
    /// The descriptors that all workers share.
    pub descriptors: Arc<DescriptorPool>,
    pub protocol: &'a Arc<UpstreamProtocol>,
    pub limits: &'a PoolLimitSpec,
    /// Receives the pool's events on the worker's thread.
    pub on_event: PoolEventHandler,
}

/// The connections of one worker to one endpoint: idle HTTP/1.1 connections, watched for a close by
/// the endpoint, and shared HTTP/2 connections.
pub struct ConnectionPool {
    pub target: Target,
    /// The faults that a drill injects, if the pool serves a drill.
    pub fault_injection: Option<Rc<FaultInjection>>,
    connector: RefCell<Rc<UpstreamConnector>>,
    /// Counts changes of `connector`; connections of an earlier generation are not reused.
    generation: Cell<u32>,
    h2_connections: H2Connections,
    max_head_bytes: Cell<usize>,
    /// Idle HTTP/1.1 connections, the most recently used one last; at most `max_idle`.
    idle: RefCell<Vec<H1Connection>>,
    max_idle: Cell<usize>,
    pool_stats: Arc<PoolStats>,
    descriptors: Arc<DescriptorPool>,
    breakers: Cell<CircuitBreakers>,
    /// A breaker limits connections, so that requests may be waiting for one.
    is_limited: Cell<bool>,
    queue: Rc<ConnectionQueue>,
    watcher_waker: RefCell<Option<Waker>>,
    on_event: PoolEventHandler,
    abort_epoch: Cell<AbortEpoch>,
    abort_notify: Notify,
    pub(super) streaming_responses: StreamingResponses,
    /// Returned connections are closed.
    is_draining: Cell<bool>,
    is_watched: Cell<bool>,
}

impl std::fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let idle = self.idle.borrow().len();
        f.debug_struct("Pool")
            .field("id", &self.target.id)
            .field("idle", &idle)
            .finish_non_exhaustive()
    }
}

impl ConnectionPool {
    pub fn new(options: PoolOptions<'_>) -> Rc<Self> {
        Self::build(options, None)
    }

    /// An empty pool for the requests of a drill, with the faults that the drill injects.
    pub fn with_fault_injection(
        options: PoolOptions<'_>,
        fault_injection: Rc<FaultInjection>,
    ) -> Rc<Self> {
        Self::build(options, Some(fault_injection))
    }

    fn build(options: PoolOptions<'_>, fault_injection: Option<Rc<FaultInjection>>) -> Rc<Self> {
        let PoolOptions { target, pool_stats, descriptors, protocol, limits, on_event } = options;
        Rc::new(Self {
            target,
            fault_injection,
            connector: RefCell::new(Rc::new(UpstreamConnector::new(protocol))),
            generation: Cell::default(),
            h2_connections: H2Connections::default(),
            max_head_bytes: Cell::new(limits.max_response_head_bytes),
            idle: RefCell::default(),
            max_idle: Cell::new(limits.max_idle_connections),
            pool_stats,
            descriptors,
            breakers: Cell::new(limits.circuit_breakers),
            is_limited: Cell::new(limits.circuit_breakers.has_limit(LimitKind::Connections)),
            queue: Rc::default(),
            watcher_waker: RefCell::default(),
            on_event,
            abort_epoch: Cell::default(),
            abort_notify: Notify::new(),
            streaming_responses: StreamingResponses::default(),
            is_draining: Cell::new(false),
            is_watched: Cell::new(false),
        })
    }

    pub fn set_limits(&self, limits: &PoolLimitSpec) {
        self.max_idle.set(limits.max_idle_connections);
        self.max_head_bytes.set(limits.max_response_head_bytes);
        self.breakers.set(limits.circuit_breakers);
        self.is_limited.set(limits.circuit_breakers.has_limit(LimitKind::Connections));
        self.idle.borrow_mut().truncate(limits.max_idle_connections);
    }

    /// Changes the protocol of new connections; open ones of another protocol are not reused.
    pub fn set_protocol(&self, protocol: &Arc<UpstreamProtocol>) {
        if Arc::ptr_eq(self.connector.borrow().protocol(), protocol) {
            return;
        }
        let is_same = self.connector.borrow().protocol() == protocol;
        if !is_same {
            self.connector.replace(Rc::new(UpstreamConnector::new(protocol)));
            self.generation.update(|count| count.wrapping_add(1));
            self.h2_connections.set_chosen_h1(false);
            self.close_idle();
        }
    }

    /// A connection without a peer, for a drill.
    pub fn inject_reply(&self, reply: InjectedReply) -> H1Connection {
        let permit = ConnectionPermit::unlimited(&self.queue);
        H1Connection::new(
            UpstreamStream::Injected(Box::new(reply)),
            self.generation.get(),
            None,
            permit,
        )
    }

    /// Counts a failure of the endpoint that a client saw.
    pub fn record_client_failure(&self, now_us: u64, failure: ClientFailure) {
        self.target.stats.record_client_failure(failure, now_us);
        if let Some(injection) = &self.fault_injection {
            injection.tallies.record_failure(now_us, failure.is_repeatable);
        }
    }

    /// Whether the pool serves a drill that is over.
    pub fn is_injection_over(&self) -> bool {
        self.fault_injection.as_ref().is_some_and(|injection| injection.is_finished.get())
    }

    /// Prepares what a connection needs from this process (TLS roots and keys), so that the time
    /// for it is not blamed on the endpoint.
    ///
    /// # Errors
    /// [`UpstreamError::Local`].
    pub async fn prepare(&self) -> Result<(), UpstreamError> {
        let connector = Rc::clone(&self.connector.borrow());
        connector.prepare().await
    }

    /// The URI scheme of requests to the endpoint.
    pub fn scheme(&self) -> &'static str {
        if self.connector.borrow().protocol().tls.is_some() { "https" } else { "http" }
    }

    /// Whether each connection belongs to one client (PROXY protocol).
    fn is_per_client(&self) -> bool {
        self.connector.borrow().protocol().proxy_protocol.is_some()
    }

    /// Whether requests are expected to share connections (HTTP/2).
    fn can_share(&self) -> bool {
        let connector = self.connector.borrow();
        let protocol = connector.protocol();
        let is_h2 = match protocol.http_version {
            UpstreamHttpVersion::H1 => false,
            UpstreamHttpVersion::H2 => true,
            UpstreamHttpVersion::Auto => {
                protocol.tls.is_some() && !self.h2_connections.has_chosen_h1()
            }
        };
        is_h2 && protocol.proxy_protocol.is_none()
    }

    /// Removes an HTTP/2 connection that has ended, and reports it if it was idle.
    fn h2_connection_closed(&self, connection: &Rc<H2Connection>, is_idle_close: bool) {
        self.h2_connections.remove(connection);
        if is_idle_close {
            (self.on_event)(PoolEvent::IdleClosed(self.target.id));
        }
    }

    /// The counters of all workers for all endpoints of the pool together.
    pub fn pool_stats(&self) -> &Arc<PoolStats> {
        &self.pool_stats
    }

    /// An idle connection or the permission to open one. Fails while other requests wait, so that
    /// connections are handed out first come, first served.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn checkout(&self) -> Result<Checkout, LimitExceeded> {
        // A request arrives only while the endpoint is eligible.
        self.is_draining.set(false);
        if !self.queue.is_empty() {
            return Err(LimitExceeded {
                scope: LimitScope::Endpoint,
                limit: LimitKind::Connections,
            });
        }
        self.try_checkout()
    }

    fn try_checkout(&self) -> Result<Checkout, LimitExceeded> {
        if self.is_per_client() {
            return self.per_client_permit();
        }
        if self.can_share() {
            if let Some(permit) = self.h2_connections.acquire_stream(None) {
                return Ok(Checkout::H2Stream(permit));
            }
            if let Some(pending) = self.h2_connections.join_pending() {
                return Ok(Checkout::Pending(pending));
            }
        } else if let Some(connection) = self.take_idle(None) {
            return Ok(Checkout::Idle(connection));
        }
        self.connection_permit()
    }

    fn connection_permit(&self) -> Result<Checkout, LimitExceeded> {
        let permit = self.permit(LimitKind::Connections)?;
        Ok(Checkout::New(ConnectionPermit::new(permit, &self.queue)))
    }

    /// Permission to open a connection for one client; idle connections of other clients are closed
    /// if a limit requires it.
    fn per_client_permit(&self) -> Result<Checkout, LimitExceeded> {
        loop {
            let full = match self.connection_permit() {
                Ok(checkout) => return Ok(checkout),
                Err(full) => full,
            };
            let mut idle = self.idle.borrow_mut();
            let oldest = (!idle.is_empty()).then(|| idle.remove(0));
            drop(idle);
            if oldest.is_none() && !self.h2_connections.try_retire_oldest_idle() {
                return Err(full);
            }
        }
    }

    /// Permission to wait for a connection.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn pending_permit(&self) -> Result<LimitPermit, LimitExceeded> {
        self.permit(LimitKind::Pending)
    }

    fn permit(&self, limit: LimitKind) -> Result<LimitPermit, LimitExceeded> {
        LimitPermit::try_acquire(limit, &self.breakers.get(), &self.target.stats, &self.pool_stats)
    }

    /// Waits, first come, first served, until a connection is free or may be opened.
    pub async fn wait_for_connection(&self) -> Checkout {
        let ticket = self.queue.enqueue();
        loop {
            if ticket.is_first()
                && let Ok(checkout) = self.try_checkout()
            {
                return checkout;
            }
            ticket.wait_turn().await;
        }
    }

    pub fn idle_count(&self) -> usize {
        self.idle.borrow().len() + self.h2_connections.idle_count()
    }

    /// Makes shared HTTP/2 connections end with a TCP reset, so that the endpoint does not execute
    /// aborted requests.
    pub fn reset_shared_on_close(&self) {
        self.h2_connections.reset_on_close();
    }

    /// Closes all idle connections as if the endpoint had closed them.
    pub fn close_idle_by_endpoint(&self) {
        if !self.idle.borrow().is_empty() || self.h2_connections.idle_count() > 0 {
            self.close_idle();
            (self.on_event)(PoolEvent::IdleClosed(self.target.id));
        }
    }

    /// Closes all idle connections; shared ones take no new requests.
    pub fn close_idle(&self) {
        self.idle.borrow_mut().clear();
        self.h2_connections.retire_matching(|_| true);
    }
}

impl Drop for ConnectionPool {
    fn drop(&mut self) {
        self.h2_connections.retire_matching(|_| true);
        if let Some(waker) = self.watcher_waker.take() {
            waker.wake();
        }
    }
}
