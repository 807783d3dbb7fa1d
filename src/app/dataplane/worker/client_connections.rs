//! The client connections of one worker: what each is doing, which of them are silent for too long,
//! and which go first where there is no room for all.
//!
//! A request writes a few cells of its own connection; it reads no clock for that, sets no timer and
//! allocates nothing. Time is told by a look at all connections, twice a second.

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

/// Of the idle connections, those that are found at once as the oldest: one of so many, and so many at
/// least. To look at all of them for each would cost those too who are served.
const OLDEST_BATCH_DIVISOR: usize = 16;
const MIN_OLDEST_BATCH: usize = 16;

/// One of so many idle connections goes at once where memory is short.
const SHRINK_DIVISOR: usize = 4;

/// Who has just come has not had the time to ask for anything yet.
const NEW_CONNECTION_GRACE: Duration = Duration::from_secs(1);

/// Where there is too little of something, clients have this part of their time.
const PRESSURE_TIMEOUT_DIVISOR: u32 = 4;

/// Where none are idle, they are looked for again after this long.
const IDLE_SCAN_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// On the way out: time for a request that has arrived to be read. hyper closes a connection of
/// which it has read nothing yet, whatever the kernel holds of it.
pub(super) const DRAIN_GRACE: Duration = Duration::from_millis(50);

/// The same for a connection that was accepted on the way out: its first request may still be on
/// its way.
pub(super) const LATE_CONNECTION_DRAIN_GRACE: Duration = Duration::from_secs(1);

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionCommand {
    /// The worker drains: end with the request that is under way, or on its way.
    Drain,
    /// End with the request that is under way.
    Close(CloseReason),
}

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// Nothing was asked for too long.
    Idle,
    /// A head did not come in its time.
    HeaderTimeout,
    /// Its listener has no room for a new one.
    Connections,
    /// There are too few descriptors.
    Descriptors,
    /// There is too little memory.
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

/// The connections that go first, where some have to; found once for many.
#[derive(Debug, Default)]
pub(super) struct EvictionCandidates {
    /// Each with the turn at which it was found idle, the oldest last.
    candidates: Vec<(Rc<ClientConnection>, u64)>,
    /// There are none, as far as is known until then.
    empty_until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct ClientConnection {
    activity: Arc<ConnectionActivity>,
    /// Whether the look at all of them keeps its time; another one keeps it itself.
    is_timed: Cell<bool>,
    command: Cell<Option<ConnectionCommand>>,
    close_reason: Cell<Option<CloseReason>>,
    waker: RefCell<Option<Waker>>,
    /// Its place among all of them; none when it has gone.
    index: Cell<Option<usize>>,
    /// How many there are at its listener, while it counts there.
    listener_count: RefCell<Option<Arc<AtomicUsize>>>,
    /// The turn at which the look found it, and when that was; at first when it came.
    last_seen: Cell<(u64, Instant)>,
    /// When the head that is awaited began to be.
    head_since: Cell<Option<Instant>>,
}

/// A guest's stay: it is one of the crowd until this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    connections: Rc<ClientConnections>,
    connection: Rc<ClientConnection>,
    _descriptor: DescriptorPermit,
}

/// A request under way; over when dropped.
#[derive(Debug)]
pub(super) struct ActiveRequest(Rc<ClientConnection>);

impl ClientConnections {
    /// One more, of which nothing is known yet; `counted` has counted it.
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

    /// Everybody is told to leave, those too who come later.
    pub(super) fn drain(&self) {
        self.is_draining.set(true);
        for connection in &*self.connections.borrow() {
            connection.drain();
        }
    }

    /// Whether everybody was told to.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Ends those that were silent for longer than `limits` allow, as of `now`; where there is too little
    /// of something, for a part of that.
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

    /// Sends away the connection that has been idle for the longest, one of `listener` if that is
    /// asked for; whether there was one. `oldest` remembers what was found, for the next time.
    pub(super) fn evict_oldest_idle(
        &self,
        reason: CloseReason,
        listener: Option<&Arc<AtomicUsize>>,
        candidates: &mut EvictionCandidates,
        now: Instant,
    ) -> bool {
        loop {
            while let Some((connection, turn)) = candidates.candidates.pop() {
                if connection.activity.last_activity() == turn && connection.is_evictable(now) {
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

    /// Sends away those that have been idle for the longest: a part of all that are, so that there is
    /// time to see what came of it.
    pub(super) fn evict_for_memory(&self, now: Instant) {
        let is_candidate = |connection: &ClientConnection| connection.is_evictable(now);
        let candidates = self.find_oldest(is_candidate, |idle| idle.div_ceil(SHRINK_DIVISOR));
        for (connection, _) in candidates {
            connection.close(CloseReason::Memory);
        }
    }

    /// So many as `count` says of those that fit, the oldest last.
    fn find_oldest(
        &self,
        is_candidate: impl Fn(&ClientConnection) -> bool,
        count: impl Fn(usize) -> usize,
    ) -> Vec<(Rc<ClientConnection>, u64)> {
        let connections = self.connections.borrow();
        let turns = |(index, connection): (usize, &Rc<ClientConnection>)| {
            is_candidate(connection).then(|| (connection.activity.last_activity(), index))
        };
        let mut found: Vec<_> = connections.iter().enumerate().filter_map(turns).collect();
        let count = count(found.len());
        if count < found.len() {
            found.select_nth_unstable(count);
            found.truncate(count);
        }
        found.sort_unstable_by_key(|&(turn, _)| Reverse(turn));
        found.into_iter().map(|(turn, index)| (Rc::clone(&connections[index]), turn)).collect()
    }

    /// Ends when a connection has.
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
    /// HTTP/1.1 is served from now on: the look keeps the time, that of the first head from `since`.
    pub(super) fn start_timing(&self, since: Instant) {
        self.head_since.set(Some(since));
        self.is_timed.set(true);
    }

    /// What it is doing.
    pub(super) fn activity(&self) -> &Arc<ConnectionActivity> {
        &self.activity
    }

    /// Nothing more can be done now: if a head is not all there, its time runs.
    pub(super) fn on_pending(&self) {
        if self.activity.phase() == ConnectionPhase::ReadingHead && self.head_since.get().is_none()
        {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// A request begins; it is under way until what comes back is dropped.
    pub(super) fn begin_request(self: &Rc<Self>) -> ActiveRequest {
        self.set_busy();
        ActiveRequest(Rc::clone(self))
    }

    /// Something is under way.
    pub(super) fn set_busy(&self) {
        self.activity.set_busy();
        self.head_since.set(None);
    }

    /// Nothing is any more.
    pub(super) fn set_idle(&self) {
        self.activity.set_idle();
    }

    /// Counts no more at its listener: somebody else may come for it.
    fn release_listener_slot(&self) {
        if let Some(listener_count) = self.listener_count.take() {
            listener_count.fetch_sub(1, Relaxed);
        }
    }

    fn is_from_listener(&self, listener: &Arc<AtomicUsize>) -> bool {
        self.listener_count.borrow().as_ref().is_some_and(|counted| Arc::ptr_eq(counted, listener))
    }

    /// Whether nothing is lost with it: no request is under way, nor a part of one there.
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
                let (turn, since) = self.last_seen.get();
                if turn != self.activity.last_activity() {
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

    /// Waits for an order.
    pub(super) async fn next_command(&self) -> ConnectionCommand {
        poll_fn(|cx| self.poll_command(cx)).await
    }

    fn poll_command(&self, cx: &mut Context<'_>) -> Poll<ConnectionCommand> {
        if let Some(command) = self.command.take() {
            return Poll::Ready(command);
        }
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
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
