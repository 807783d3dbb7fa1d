//! A pool's HTTP/2 connections: many requests share one, and those that need a new one share its
//! opening.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::logic::model::outcome::Failure;

use super::connection::UpstreamError;
use super::h2_connection::{H2Connection, StreamAcquisition, StreamPermit};

/// Requests that wait for one opening, while it is not known how many the endpoint allows.
const EXPECTED_STREAMS: usize = 100;

/// The HTTP/2 connections of a pool.
#[derive(Debug)]
pub(super) struct H2Connections {
    connections: RefCell<Vec<Rc<H2Connection>>>,
    pending: RefCell<Option<Rc<PendingConnect>>>,
    /// How many requests the newest connection could carry.
    streams_per_connection: Cell<usize>,
    /// Whether the endpoint chose HTTP/1.1 when it had the choice.
    has_chosen_h1: Cell<bool>,
}

/// A connection that is being opened, for all who wait for it.
#[derive(Debug)]
pub struct PendingConnect {
    waiters: Cell<usize>,
    state: Cell<ConnectState>,
    finished: Notify,
}

#[derive(Clone, Copy, Debug)]
enum ConnectState {
    Running,
    /// It is open, and may be taken already.
    Open,
    Failed(Failure),
    /// This process is at fault.
    Local,
}

impl Default for H2Connections {
    fn default() -> Self {
        Self {
            connections: RefCell::default(),
            pending: RefCell::default(),
            streams_per_connection: Cell::new(EXPECTED_STREAMS),
            has_chosen_h1: Cell::default(),
        }
    }
}

impl H2Connections {
    /// A seat on a connection that is open, `client`'s own where connections belong to clients.
    pub(super) fn acquire_stream(&self, client: Option<SocketAddr>) -> Option<StreamPermit> {
        let mut connections = self.connections.borrow_mut();
        let mut permit = None;
        connections.retain(|connection| {
            if permit.is_some() || connection.client != client {
                return true;
            }
            match connection.acquire_stream() {
                StreamAcquisition::Permit(granted) => {
                    permit = Some(granted);
                    true
                }
                StreamAcquisition::AtCapacity => true,
                StreamAcquisition::Closed => false,
            }
        });
        permit
    }

    /// Joins those who wait for a connection, if one is being opened that will have a seat.
    pub(super) fn join_pending(&self) -> Option<Rc<PendingConnect>> {
        let pending = self.pending.borrow();
        let pending = pending.as_ref()?;
        let is_running = matches!(pending.state.get(), ConnectState::Running);
        if !is_running || pending.waiters.get() >= self.streams_per_connection.get() {
            return None;
        }
        pending.waiters.update(|count| count + 1);
        Some(Rc::clone(pending))
    }

    /// A new opening, with one who waits for it.
    pub(super) fn begin_connect(&self) -> Rc<PendingConnect> {
        let pending = PendingConnect {
            waiters: Cell::new(1),
            state: Cell::new(ConnectState::Running),
            finished: Notify::new(),
        };
        let pending = Rc::new(pending);
        self.pending.replace(Some(Rc::clone(&pending)));
        pending
    }

    pub(super) fn add(&self, connection: Rc<H2Connection>) {
        self.streams_per_connection.set(connection.max_streams().max(1));
        self.connections.borrow_mut().push(connection);
    }

    pub(super) fn remove(&self, connection: &Rc<H2Connection>) {
        self.connections.borrow_mut().retain(|open| !Rc::ptr_eq(open, connection));
    }

    /// The endpoint had the choice.
    pub(super) fn set_chosen_h1(&self, has_chosen: bool) {
        self.has_chosen_h1.set(has_chosen);
    }

    pub(super) fn has_chosen_h1(&self) -> bool {
        self.has_chosen_h1.get()
    }

    /// Connections that carry nothing.
    pub(super) fn idle_count(&self) -> usize {
        self.connections
            .borrow()
            .iter()
            .filter(|connection| connection.idle_since().is_some())
            .count()
    }

    /// Those that `fits` take no new requests, and end when the last one has.
    pub(super) fn retire_matching(&self, is_match: impl Fn(&H2Connection) -> bool) {
        self.connections.borrow_mut().retain(|connection| {
            let is_retired = is_match(connection);
            if is_retired {
                connection.retire();
            }
            !is_retired
        });
    }

    /// Those go that have carried nothing for longer than `timeout`.
    pub(super) fn retire_idle(&self, now: Instant, timeout: Duration) {
        let is_old = |since: Instant| now.saturating_duration_since(since) > timeout;
        self.retire_matching(|connection| connection.idle_since().is_some_and(is_old));
    }

    /// Makes room where each connection belongs to one client: the one goes that has carried nothing
    /// for the longest.
    pub(super) fn try_retire_oldest_idle(&self) -> bool {
        let connections = self.connections.borrow();
        let idle = connections.iter().filter(|connection| connection.idle_since().is_some());
        let Some(oldest) = idle.min_by_key(|connection| connection.idle_since()).cloned() else {
            return false;
        };
        drop(connections);
        self.remove(&oldest);
        oldest.retire();
        true
    }

    /// What is cut short from now on is not to be gone on with.
    pub(super) fn reset_on_close(&self) {
        self.connections.borrow().iter().for_each(|connection| connection.reset_on_close());
    }
}

impl PendingConnect {
    /// Waits for its end.
    ///
    /// # Errors
    /// What it failed for.
    pub(super) async fn wait(&self) -> Result<(), UpstreamError> {
        loop {
            let finished = self.finished.notified();
            match self.state.get() {
                ConnectState::Running => finished.await,
                ConnectState::Open => return Ok(()),
                ConnectState::Failed(failure) => return Err(UpstreamError::unreached(failure)),
                ConnectState::Local => {
                    return Err(UpstreamError::Local(std::io::ErrorKind::Other.into()));
                }
            }
        }
    }

    pub(super) fn finish(&self, result: &Result<(), UpstreamError>) {
        self.state.set(match result {
            Ok(()) => ConnectState::Open,
            Err(UpstreamError::Endpoint { failure, .. }) => ConnectState::Failed(*failure),
            Err(_) => ConnectState::Local,
        });
        self.finished.notify_waiters();
    }
}
