//! The client connections of one worker: their phase, their timeouts, and their eviction when
//! resources are short.
//!
//! A request only writes a few cells of its connection: it reads no clock, sets no timer and
//! allocates nothing. A scan of all connections, twice a second, measures time.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::app::ops::metrics::families;
use crate::config::model::ServerLimits;
use crate::logic::overload::descriptor_pool::DescriptorPermit;

use super::connection_activity::{ConnectionActivity, ConnectionPhase};

/// Share and minimum of the idle connections that one scan finds as the oldest. A scan for each
/// eviction would slow down the requests that are being served.
const OLDEST_BATCH_DIVISOR: usize = 16;
const MIN_OLDEST_BATCH: usize = 16;

/// Share of the idle connections that is evicted at once when memory is short.
const SHRINK_DIVISOR: usize = 4;

/// A new connection is not evicted for this long, so that it can send a request.
const NEW_CONNECTION_GRACE: Duration = Duration::from_secs(1);

/// Timeouts are divided by this when descriptors or memory are short.
const PRESSURE_TIMEOUT_DIVISOR: u32 = 4;

/// Pause between scans that find no idle connection.
const IDLE_SCAN_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Time for a request that has arrived to be read during a drain. hyper closes a connection that it
/// has read nothing from, even if the kernel has data.
pub(super) const DRAIN_GRACE: Duration = Duration::from_millis(50);

/// The same for a connection that was accepted during a drain: its first request may be in flight.
pub(super) const LATE_CONNECTION_DRAIN_GRACE: Duration = Duration::from_secs(1);

/// A command to the server of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionCommand {
    /// The worker drains: close after the request that is in progress or in flight.
    Drain,
    /// Close after the request in progress.
    Close(CloseReason),
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// No request for the idle timeout.
    Idle,
    /// A request head took too long.
    HeaderTimeout,
    /// Its listener is at its limit of connections.
    Connections,
    /// Descriptors are short.
    Descriptors,
    /// Memory is short.
    Memory,
}

impl CloseReason {
    /// The word used in metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::HeaderTimeout => "header_timeout",
            Self::Connections => "connections",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
        }
    }
}

/// The client connections of a worker.
#[derive(Debug, Default)]
pub(super) struct ClientConnections {
    connections: RefCell<Vec<Rc<ClientConnection>>>,
    activity_counter: Arc<AtomicU64>,
    is_draining: Cell<bool>,
    closed: Notify,
}

/// The oldest idle connections, found once for many evictions.
#[derive(Debug, Default)]
pub(super) struct EvictionCandidates {
    /// Each with its activity number when it was found; the oldest is last.
    candidates: Vec<(Rc<ClientConnection>, u64)>,
    /// No scan before then: the last one found none.
    empty_until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct ClientConnection {
    activity: Arc<ConnectionActivity>,
    /// Whether the scan enforces its timeouts; HTTP/2 enforces its own.
    is_timed: Cell<bool>,
    command: Cell<Option<ConnectionCommand>>,
    close_reason: Cell<Option<CloseReason>>,
    waker: RefCell<Option<Waker>>,
    /// Its index among all connections; `None` once it is removed.
    index: Cell<Option<usize>>,
    /// The connection count of its listener, while it counts there.
    listener_count: RefCell<Option<Arc<AtomicUsize>>>,
    /// The last activity number that a scan saw, and when; at first the time of arrival.
    last_seen: Cell<(u64, Instant)>,
    /// Start of the wait for the current request head.
    head_since: Cell<Option<Instant>>,
}

/// A connection among the others until this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    connections: Rc<ClientConnections>,
    connection: Rc<ClientConnection>,
    _descriptor: DescriptorPermit,
}

/// A request in progress, until this is dropped.
#[derive(Debug)]
pub(super) struct ActiveRequest(Rc<ClientConnection>);

impl ClientConnections {
    /// Adds a connection that `listener_count` already counts.
    pub(super) fn add(
        self: &Rc<Self>,
        listener_count: Arc<AtomicUsize>,
        descriptor: DescriptorPermit,
        now: Instant,
    ) -> ConnectionGuard {
        let mut connections = self.connections.borrow_mut();
        let connection = Rc::new(ClientConnection {
            activity: Arc::new(ConnectionActivity::new(&self.activity_counter)),
            is_timed: Cell::new(false),
            command: Cell::new(self.is_draining.get().then_some(ConnectionCommand::Drain)),
            close_reason: Cell::default(),
            waker: RefCell::default(),
            index: Cell::new(Some(connections.len())),
            listener_count: RefCell::new(Some(listener_count)),
            last_seen: Cell::new((0, now)),
            head_since: Cell::default(),
        });
        connections.push(Rc::clone(&connection));
        ConnectionGuard { connections: Rc::clone(self), connection, _descriptor: descriptor }
    }

    /// Sends [`ConnectionCommand::Drain`] to all connections, present and future.
    pub(super) fn drain(&self) {
        self.is_draining.set(true);
        for connection in &*self.connections.borrow() {
            connection.drain();
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Closes connections that exceed the timeouts of `limits`, which are shorter under pressure.
    pub(super) fn enforce_timeouts(
        &self,
        now: Instant,
        limits: &ServerLimits,
        is_under_pressure: bool,
    ) {
        let divisor = if is_under_pressure { PRESSURE_TIMEOUT_DIVISOR } else { 1 };
        let (idle, head) = (limits.idle_timeout / divisor, limits.header_timeout / divisor);
        for connection in &*self.connections.borrow() {
            if let Some(reason) = connection.expired_reason(now, idle, head) {
                connection.close(reason);
            }
        }
    }

    /// Closes the connection that was idle the longest, of `listener` if given. Returns whether
    /// there was one. `candidates` caches the scan for the next call.
    pub(super) fn evict_oldest_idle(
        &self,
        reason: CloseReason,
        listener: Option<&Arc<AtomicUsize>>,
        candidates: &mut EvictionCandidates,
        now: Instant,
    ) -> bool {
        loop {
            while let Some((connection, sequence)) = candidates.candidates.pop() {
                if connection.activity.last_activity() == sequence && connection.is_evictable(now) {
                    connection.release_listener_slot();
                    connection.close(reason);
                    return true;
                }
            }
            if candidates.empty_until.is_some_and(|until| now < until) {
                return false;
            }
            let is_candidate = |connection: &ClientConnection| {
                listener.is_none_or(|listener| connection.is_from_listener(listener))
                    && connection.is_evictable(now)
            };
            candidates.candidates = self.find_oldest(is_candidate, |idle| {
                (idle / OLDEST_BATCH_DIVISOR).max(MIN_OLDEST_BATCH)
            });
            candidates.empty_until =
                candidates.candidates.is_empty().then_some(now + IDLE_SCAN_RETRY_INTERVAL);
        }
    }

    /// Closes a share of the idle connections, the oldest. The rest waits for the effect on memory.
    pub(super) fn evict_for_memory(&self, now: Instant) {
        let is_candidate = |connection: &ClientConnection| connection.is_evictable(now);
        let candidates = self.find_oldest(is_candidate, |idle| idle.div_ceil(SHRINK_DIVISOR));
        for (connection, _) in candidates {
            connection.close(CloseReason::Memory);
        }
    }

    /// Finds the `count` oldest of the matching connections; the oldest is last.
    fn find_oldest(
        &self,
        is_candidate: impl Fn(&ClientConnection) -> bool,
        count: impl Fn(usize) -> usize,
    ) -> Vec<(Rc<ClientConnection>, u64)> {
        let connections = self.connections.borrow();
        let numbered = |(index, connection): (usize, &Rc<ClientConnection>)| {
            is_candidate(connection).then(|| (connection.activity.last_activity(), index))
        };
        let mut found: Vec<_> = connections.iter().enumerate().filter_map(numbered).collect();
        let count = count(found.len());
        if count < found.len() {
            found.select_nth_unstable(count);
            found.truncate(count);
        }
        found.sort_unstable_by_key(|&(sequence, _)| Reverse(sequence));
        found
            .into_iter()
            .map(|(sequence, index)| (Rc::clone(&connections[index]), sequence))
            .collect()
    }

    /// Returns when a connection closes.
    pub(super) async fn wait_closed(&self) {
        self.closed.notified().await;
    }

    fn remove(&self, connection: &ClientConnection) {
        let mut connections = self.connections.borrow_mut();
        let Some(index) = connection.index.take() else { return };
        connections.swap_remove(index);
        if let Some(moved) = connections.get(index) {
            moved.index.set(Some(index));
        }
        connection.release_listener_slot();
        self.closed.notify_waiters();
    }
}

impl ConnectionGuard {
    pub(super) fn connection(&self) -> &Rc<ClientConnection> {
        &self.connection
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.connections.remove(&self.connection);
    }
}

impl ClientConnection {
    /// Lets the scan enforce the timeouts of HTTP/1.1; the first head is awaited from `since`.
    pub(super) fn start_timing(&self, since: Instant) {
        self.head_since.set(Some(since));
        self.is_timed.set(true);
    }

    pub(super) fn activity(&self) -> &Arc<ConnectionActivity> {
        &self.activity
    }

    /// The server waits for input: the header timeout starts if a head is incomplete.
    pub(super) fn on_pending(&self) {
        if self.activity.phase() == ConnectionPhase::ReadingHead && self.head_since.get().is_none()
        {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// Begins a request, which is in progress until the result is dropped.
    pub(super) fn begin_request(self: &Rc<Self>) -> ActiveRequest {
        self.set_busy();
        ActiveRequest(Rc::clone(self))
    }

    /// Marks a request or a tunnel as in progress.
    pub(super) fn set_busy(&self) {
        self.activity.set_busy();
        self.head_since.set(None);
    }

    /// Marks the connection as without a request.
    pub(super) fn set_idle(&self) {
        self.activity.set_idle();
    }

    /// Frees the place at the listener for another connection.
    fn release_listener_slot(&self) {
        if let Some(listener_count) = self.listener_count.take() {
            listener_count.fetch_sub(1, Relaxed);
        }
    }

    fn is_from_listener(&self, listener: &Arc<AtomicUsize>) -> bool {
        self.listener_count.borrow().as_ref().is_some_and(|count| Arc::ptr_eq(count, listener))
    }

    /// Whether an eviction loses no request and no part of one.
    fn is_evictable(&self, now: Instant) -> bool {
        let is_idle = match self.activity.phase() {
            ConnectionPhase::Idle => true,
            ConnectionPhase::Opening => {
                now.saturating_duration_since(self.last_seen.get().1) >= NEW_CONNECTION_GRACE
            }
            ConnectionPhase::ReadingHead | ConnectionPhase::Busy => false,
        };
        is_idle && self.index.get().is_some() && self.close_reason.get().is_none()
    }

    fn expired_reason(&self, now: Instant, idle: Duration, head: Duration) -> Option<CloseReason> {
        if !self.is_timed.get() {
            return None;
        }
        match (self.activity.phase(), self.close_reason.get()) {
            (_, Some(CloseReason::HeaderTimeout)) | (ConnectionPhase::Busy, _) => None,
            (ConnectionPhase::Idle, _) => {
                let (sequence, since) = self.last_seen.get();
                if sequence != self.activity.last_activity() {
                    self.last_seen.set((self.activity.last_activity(), now));
                    return None;
                }
                let is_due = now.saturating_duration_since(since) >= idle;
                (is_due && self.close_reason.get().is_none()).then_some(CloseReason::Idle)
            }
            (ConnectionPhase::Opening | ConnectionPhase::ReadingHead, _) => {
                let since = self.head_since.get()?;
                let is_due = now.saturating_duration_since(since) >= head;
                is_due.then_some(CloseReason::HeaderTimeout)
            }
        }
    }

    fn close(&self, reason: CloseReason) {
        families::CLIENT_CONNECTIONS_CLOSED.with(&[reason.as_str()]).increment(1);
        self.close_reason.set(Some(reason));
        if reason == CloseReason::HeaderTimeout {
            self.activity.set_head_late();
        }
        self.send_command(ConnectionCommand::Close(reason));
    }

    fn send_command(&self, command: ConnectionCommand) {
        self.command.set(Some(command));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn drain(&self) {
        self.send_command(ConnectionCommand::Drain);
    }

    pub(super) async fn next_command(&self) -> ConnectionCommand {
        poll_fn(|cx| self.poll_command(cx)).await
    }

    fn poll_command(&self, cx: &mut Context<'_>) -> Poll<ConnectionCommand> {
        if let Some(command) = self.command.take() {
            return Poll::Ready(command);
        }
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.set_idle();
    }
}
