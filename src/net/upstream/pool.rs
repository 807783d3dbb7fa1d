//! The connections that one worker keeps to one endpoint.

mod abort;
mod acquire;

pub use abort::AbortEpoch;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::logic::incident::client_failure::ClientFailure;
use crate::logic::model::id::EndpointId;
use crate::logic::model::snapshot::{PoolStats, Target};
use crate::logic::model::topology::PoolLimitSpec;
use crate::logic::model::upstream_protocol::{UpstreamHttpVersion, UpstreamProtocol};
use crate::logic::overload::descriptor_pool::DescriptorPool;
use crate::logic::request::breaker::LimitPermit;
use crate::logic::request::limits::{
    CircuitBreakers, LimitExceeded, LimitGauges, LimitKind, LimitScope,
};

use super::connection::{H1Connection, UpstreamError};
use super::connection_queue::{ConnectionPermit, ConnectionQueue};
use super::connector::UpstreamConnector;
use super::fault_injection::{FaultInjection, InjectedReply};
use super::h2_connection::{H2Connection, StreamPermit};
use super::h2_connections::{H2Connections, PendingConnect};
use super::stream::{IdleState, UpstreamStream};
use super::streaming_responses::StreamingResponses;

/// A connection that has been idle for longer gives its buffer back.
const BUFFER_RELEASE_AFTER: Duration = Duration::from_secs(1);

/// What a pool tells its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// The endpoint closed or reset an idle connection.
    IdleClosed(EndpointId),
}

/// A connection that is free, or will be.
#[derive(Debug)]
pub enum Checkout {
    Idle(H1Connection),
    /// It has room for one more request.
    H2Stream(StreamPermit),
    /// It is being opened, for others as well.
    Pending(Rc<PendingConnect>),
    /// It may be opened.
    New(ConnectionPermit),
}

/// Hears what a pool sees.
type PoolEventHandler = Rc<dyn Fn(PoolEvent)>;

/// The connections to one endpoint: idle ones, last used first, watched for the endpoint's hanging
/// up, and those that requests share.
pub struct ConnectionPool {
    /// Where the connections lead.
    pub target: Target,
    /// What a drill does to them, if they are for its requests.
    pub fault_injection: Option<Rc<FaultInjection>>,
    connector: RefCell<Rc<UpstreamConnector>>,
    /// How often it has changed.
    generation: Cell<u32>,
    h2_connections: H2Connections,
    max_head_bytes: Cell<usize>,
    idle: RefCell<Vec<H1Connection>>,
    max_idle: Cell<usize>,
    pool_stats: Arc<PoolStats>,
    /// Those of all workers together.
    descriptors: Arc<DescriptorPool>,
    breakers: Cell<CircuitBreakers>,
    /// Connections are limited: there may be somebody who waits for one.
    is_limited: Cell<bool>,
    queue: Rc<ConnectionQueue>,
    watcher_waker: RefCell<Option<Waker>>,
    on_event: PoolEventHandler,
    abort_epoch: Cell<AbortEpoch>,
    abort_notify: Notify,
    pub(super) streaming_responses: StreamingResponses,
    /// Nobody is to come any more: what is given back is not kept.
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
    /// An empty pool that speaks as `speech` says, keeps to `limits` and tells `listener` what it
    /// sees; `live` counts what all endpoints have together, `descriptors` what all workers have.
    pub fn new(
        target: Target,
        (pool_stats, descriptors): (Arc<PoolStats>, Arc<DescriptorPool>),
        protocol: &Arc<UpstreamProtocol>,
        limits: &PoolLimitSpec,
        on_event: PoolEventHandler,
    ) -> Rc<Self> {
        Self::with_fault_injection(
            target,
            (pool_stats, descriptors),
            protocol,
            limits,
            (on_event, None),
        )
    }

    /// The same for the requests that a drill takes.
    pub fn with_fault_injection(
        target: Target,
        (pool_stats, descriptors): (Arc<PoolStats>, Arc<DescriptorPool>),
        protocol: &Arc<UpstreamProtocol>,
        limits: &PoolLimitSpec,
        (on_event, fault_injection): (PoolEventHandler, Option<Rc<FaultInjection>>),
    ) -> Rc<Self> {
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

    /// Speaks as `speech` says from now on; connections that were opened otherwise are not kept.
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

    /// A connection that leads nowhere.
    pub fn inject_reply(&self, reply: InjectedReply) -> H1Connection {
        let permit = ConnectionPermit::unlimited(&self.queue);
        H1Connection::new(
            UpstreamStream::Injected(Box::new(reply)),
            self.generation.get(),
            None,
            permit,
        )
    }

    /// A client saw a failure of the endpoint.
    pub fn record_client_failure(&self, now_us: u64, failure: ClientFailure) {
        self.target.stats.record_client_failure(failure, now_us);
        if let Some(injection) = &self.fault_injection {
            injection.tallies.record_failure(now_us, failure.is_repeatable);
        }
    }

    /// The drill that the connections were for is over.
    pub fn is_drill_over(&self) -> bool {
        self.fault_injection.as_ref().is_some_and(|staging| staging.is_finished.get())
    }

    /// Makes ready what the opening of a connection needs that is not the endpoint's affair.
    ///
    /// # Errors
    /// [`TryError::Local`].
    pub async fn prepare(&self) -> Result<(), UpstreamError> {
        let connector = Rc::clone(&self.connector.borrow());
        connector.prepare().await
    }

    /// What requests are asked for by, as a URI says it.
    pub fn scheme(&self) -> &'static str {
        if self.connector.borrow().protocol().tls.is_some() { "https" } else { "http" }
    }

    /// Whether each connection belongs to one client.
    fn is_per_client(&self) -> bool {
        self.connector.borrow().protocol().proxy_protocol.is_some()
    }

    /// Whether requests are expected to share connections.
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

    /// An HTTP/2 connection has ended, while somebody might have wanted it or not.
    pub(super) fn h2_connection_closed(&self, connection: &Rc<H2Connection>, is_idle_close: bool) {
        self.h2_connections.remove(connection);
        if is_idle_close {
            (self.on_event)(PoolEvent::IdleClosed(self.target.id));
        }
    }

    /// What all workers share for the endpoints together.
    pub fn pool_stats(&self) -> &Arc<PoolStats> {
        &self.pool_stats
    }

    /// A connection that was idle, or room for another one. Nobody passes those who wait.
    ///
    /// # Errors
    /// The limit that leaves no room.
    pub fn checkout(&self) -> Result<Checkout, LimitExceeded> {
        // Whoever comes has been told that it may.
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

    /// Room where connections belong to clients: others' idle ones give way.
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

    /// A place among those who wait for a connection, if one more may.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn pending_permit(&self) -> Result<LimitPermit, LimitExceeded> {
        self.permit(LimitKind::Pending)
    }

    fn permit(&self, limit: LimitKind) -> Result<LimitPermit, LimitExceeded> {
        LimitPermit::try_acquire(limit, &self.breakers.get(), &self.target.stats, &self.pool_stats)
    }

    /// Waits, first come first served, until a connection is free or may be opened.
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

    /// Whether somebody who waits elsewhere has a better use for an idle connection's room, or for its
    /// descriptor.
    fn should_yield(&self) -> bool {
        if self.descriptors.is_near_limit() {
            return true;
        }
        if !self.is_limited.get() {
            return false;
        }
        let CircuitBreakers { endpoint, pool } = self.breakers.get();
        let has_pending = |gauges: &LimitGauges| gauges.get(LimitKind::Pending) > 0;
        self.queue.is_empty()
            && (endpoint.connections.is_some() && has_pending(self.target.stats.gauges())
                || pool.connections.is_some() && has_pending(self.pool_stats.gauges()))
    }

    /// The connection that was used last, by `client` where connections belong to clients, if it
    /// still looks alive.
    pub fn take_idle(&self, client: Option<SocketAddr>) -> Option<H1Connection> {
        loop {
            let mut connection = match client {
                None => self.idle.borrow_mut().pop()?,
                Some(_) => {
                    let mut idle = self.idle.borrow_mut();
                    let index = idle.iter().rposition(|open| open.client == client)?;
                    idle.remove(index)
                }
            };
            let mut cx = Context::from_waker(Waker::noop());
            match connection.stream.check_idle(&mut cx) {
                IdleState::Silent => return Some(connection),
                IdleState::Closed => (self.on_event)(PoolEvent::IdleClosed(self.target.id)),
                IdleState::UnexpectedData => {}
            }
        }
    }

    /// Keeps a connection whose exchange is complete. The first one spawns the pool's watcher onto
    /// the current `LocalSet`.
    pub fn put_idle(self: &Rc<Self>, mut connection: H1Connection) {
        let mut idle = self.idle.borrow_mut();
        let is_old = connection.generation != self.generation.get();
        if is_old || self.is_draining.get() || self.max_idle.get() == 0 || self.should_yield() {
            return;
        }
        if idle.len() >= self.max_idle.get() {
            if connection.client.is_none() {
                return;
            }
            // Its own client has use for it; that of the oldest has probably gone.
            idle.remove(0);
        }
        connection.idle_since = Instant::now();
        if !self.is_watched.replace(true) {
            let weak_pool = Rc::downgrade(self);
            tokio::task::spawn_local(std::future::poll_fn(move |cx| watch_idle(&weak_pool, cx)));
        } else if let Some(waker) = &*self.watcher_waker.borrow() {
            // Has the watcher woken when the endpoint hangs up; it may have done so already.
            if connection.stream.check_idle(&mut Context::from_waker(waker)) != IdleState::Silent {
                return;
            }
        }
        idle.push(connection);
        drop(idle);
        self.queue.wake_first();
    }

    /// Closes what has been idle for longer than `timeout`, or is wanted elsewhere.
    pub fn retire_idle(&self, now: Instant, timeout: Duration) {
        if self.should_yield() {
            self.h2_connections.retire_matching(|connection| connection.idle_since().is_some());
            return self.idle.borrow_mut().clear();
        }
        self.h2_connections.retire_idle(now, timeout);
        let mut idle = self.idle.borrow_mut();
        let old = idle.partition_point(|c| now.saturating_duration_since(c.idle_since) > timeout);
        idle.drain(..old);
        // They are in the order in which they were last used.
        let is_past_release = |c: &&mut H1Connection| {
            now.saturating_duration_since(c.idle_since) > BUFFER_RELEASE_AFTER
        };
        idle.iter_mut().take_while(is_past_release).for_each(|c| c.input = BytesMut::new());
    }

    pub fn idle_count(&self) -> usize {
        self.idle.borrow().len() + self.h2_connections.idle_count()
    }

    /// What is cut short from now on, on connections that requests share, is not to be gone on with.
    pub fn reset_shared_on_close(&self) {
        self.h2_connections.reset_on_close();
    }

    /// Closes all idle connections; those that requests share take no new ones.
    pub fn close_idle(&self) {
        self.idle.borrow_mut().clear();
        self.h2_connections.retire_matching(|_| true);
    }

    fn check_idle(&self, cx: &mut Context<'_>) {
        let mut closed = 0;
        self.idle.borrow_mut().retain_mut(|connection| match connection.stream.check_idle(cx) {
            IdleState::Silent => true,
            IdleState::Closed => {
                closed += 1;
                false
            }
            IdleState::UnexpectedData => false,
        });
        if closed > 0 {
            (self.on_event)(PoolEvent::IdleClosed(self.target.id));
        }
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

/// Runs for as long as the pool lives.
fn watch_idle(pool: &Weak<ConnectionPool>, cx: &mut Context<'_>) -> Poll<()> {
    let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
    let is_same_waker =
        pool.watcher_waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
    if !is_same_waker {
        *pool.watcher_waker.borrow_mut() = Some(cx.waker().clone());
    }
    pool.check_idle(cx);
    Poll::Pending
}
