//! The HTTP/2 connections of a pool: requests share them, and share the opening of a new one.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::logic::model::outcome::Failure;

use super::error::UpstreamError;
use super::h2_connection::{H2Connection, StreamAcquisition, StreamPermit};

/// Requests that wait for one pending connection, until the endpoint's limit is known.
const EXPECTED_STREAMS: usize = 100;

#[derive(Debug)]
pub(super) struct H2Connections {
    connections: RefCell<Vec<Rc<H2Connection>>>,
    pending: RefCell<Option<Rc<PendingConnect>>>,
    /// The stream limit of the newest connection.
    streams_per_connection: Cell<usize>,
    /// Whether the endpoint negotiated HTTP/1.1 last.
    has_chosen_h1: Cell<bool>,
}

/// A connection that is being opened, shared by the requests that wait for it.
#[derive(Debug)]
pub struct PendingConnect {
    waiters: Cell<usize>,
    state: Cell<ConnectState>,
    finished: Notify,
}

#[derive(Clone, Copy, Debug)]
enum ConnectState {
    Running,
    /// The connection is open; other requests may have taken its streams.
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
    /// A stream on an open connection; of `client`, where each connection belongs to one client.
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

    /// Joins the requests that wait for the pending connection, if it is expected to have room.
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

    /// A new pending connection with one waiting request.
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

    /// Records whether the endpoint negotiated HTTP/1.1.
    pub(super) fn set_chosen_h1(&self, has_chosen: bool) {
        self.has_chosen_h1.set(has_chosen);
    }

    pub(super) fn has_chosen_h1(&self) -> bool {
        self.has_chosen_h1.get()
    }

    /// The number of connections without a stream.
    pub(super) fn idle_count(&self) -> usize {
        self.connections
            .borrow()
            .iter()
            .filter(|connection| connection.idle_since().is_some())
            .count()
    }

    /// Retires the connections for which `is_match` holds: they end with their last stream.
    pub(super) fn retire_matching(&self, is_match: impl Fn(&H2Connection) -> bool) {
        self.connections.borrow_mut().retain(|connection| {
            let is_retired = is_match(connection);
            if is_retired {
                connection.retire();
            }
            !is_retired
        });
    }

    /// Retires the connections that have been idle for longer than `timeout`.
    pub(super) fn retire_idle(&self, now: Instant, timeout: Duration) {
        let is_old = |since: Instant| now.saturating_duration_since(since) > timeout;
        self.retire_matching(|connection| connection.idle_since().is_some_and(is_old));
    }

    /// Retires the connection that has been idle for the longest time; `false` if none is idle.
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

    /// Makes all connections end with a TCP reset.
    pub(super) fn reset_on_close(&self) {
        self.connections.borrow().iter().for_each(|connection| connection.reset_on_close());
    }
}

impl PendingConnect {
    /// Waits until the connection is open.
    ///
    /// # Errors
    /// The failure of the opening.
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
