//! The idle connections that one worker keeps to one endpoint.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::logic::id::EndpointId;
use crate::logic::snapshot::Target;

use super::connection::Connection;

/// What a pool tells its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// The endpoint closed or reset an idle connection.
    IdleClosed(EndpointId),
}

/// How often a pool was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    repeatable: u64,
    all: u64,
}

/// Hears what a pool sees.
type Listener = Rc<dyn Fn(PoolEvent)>;

/// The idle connections to one endpoint, last used first, watched for the endpoint's hanging up.
pub struct Pool {
    /// Where the connections lead.
    pub target: Target,
    idle: RefCell<Vec<Connection>>,
    at_most: Cell<usize>,
    watcher: RefCell<Option<Waker>>,
    listener: Listener,
    cuts: Cell<Cuts>,
    cut: Notify,
    is_watched: Cell<bool>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let idle = self.idle.borrow().len();
        f.debug_struct("Pool")
            .field("id", &self.target.id)
            .field("idle", &idle)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// An empty pool that keeps `at_most` connections and tells `listener` what it sees.
    #[must_use]
    pub fn new(target: Target, at_most: usize, listener: Listener) -> Rc<Self> {
        Rc::new(Self {
            target,
            idle: RefCell::default(),
            at_most: Cell::new(at_most),
            watcher: RefCell::default(),
            listener,
            cuts: Cell::default(),
            cut: Notify::new(),
            is_watched: Cell::new(false),
        })
    }

    /// Changes the bound.
    pub fn keep_at_most(&self, at_most: usize) {
        self.at_most.set(at_most);
        self.idle.borrow_mut().truncate(at_most);
    }

    /// The connection that was used last, if it still looks alive.
    #[must_use]
    pub fn check_out(&self) -> Option<Connection> {
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            let mut cx = Context::from_waker(Waker::noop());
            match look(&connection, &mut cx) {
                Look::Quiet => return Some(connection),
                Look::Closed => (self.listener)(PoolEvent::IdleClosed(self.target.id)),
                Look::Noisy => {}
            }
        }
    }

    /// Keeps a connection whose exchange is complete. The first one spawns the pool's watcher onto
    /// the current `LocalSet`.
    pub fn check_in(self: &Rc<Self>, mut connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.at_most.get() {
            return;
        }
        connection.idle_since = Instant::now();
        if !self.is_watched.replace(true) {
            let watched = Rc::downgrade(self);
            tokio::task::spawn_local(std::future::poll_fn(move |cx| watch(&watched, cx)));
        } else if let Some(waker) = &*self.watcher.borrow() {
            // Has the watcher woken when the endpoint hangs up; it may have done so already.
            if !matches!(look(&connection, &mut Context::from_waker(waker)), Look::Quiet) {
                return;
            }
        }
        idle.push(connection);
    }

    /// Closes what has been idle for longer than `timeout`.
    pub fn reap(&self, now: Instant, timeout: Duration) {
        let mut idle = self.idle.borrow_mut();
        let old = idle.partition_point(|c| now.saturating_duration_since(c.idle_since) > timeout);
        idle.drain(..old);
    }

    /// Idle connections.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Closes all idle connections.
    pub fn close_idle(&self) {
        self.idle.borrow_mut().clear();
    }

    /// The verdict is down: wakes the requests that wait for this endpoint, `all` of them or those
    /// only that may be sent again.
    pub fn cut_waiting(&self, all: bool) {
        let Cuts { repeatable, all: before } = self.cuts.get();
        self.cuts.set(Cuts { repeatable: repeatable + 1, all: before + u64::from(all) });
        self.cut.notify_waiters();
    }

    /// How often it was cut; to be read before a try begins.
    #[must_use]
    pub fn cuts(&self) -> Cuts {
        self.cuts.get()
    }

    /// Ends when the pool has been cut since `since`, for a request that is `repeatable` or not.
    pub async fn until_cut(&self, since: Cuts, repeatable: bool) {
        loop {
            let woken = self.cut.notified();
            let now = self.cuts.get();
            if now.all > since.all || repeatable && now.repeatable > since.repeatable {
                return;
            }
            woken.await;
        }
    }

    fn look_at_idle(&self, cx: &mut Context<'_>) {
        let mut hung_up = 0;
        self.idle.borrow_mut().retain(|connection| match look(connection, cx) {
            Look::Quiet => true,
            Look::Closed => {
                hung_up += 1;
                false
            }
            Look::Noisy => false,
        });
        if hung_up > 0 {
            (self.listener)(PoolEvent::IdleClosed(self.target.id));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(waker) = self.watcher.take() {
            waker.wake();
        }
    }
}

enum Look {
    Quiet,
    /// The endpoint hung up.
    Closed,
    /// The endpoint spoke without being asked.
    Noisy,
}

/// Looks at an idle connection without a system call, unless something happened on it.
fn look(connection: &Connection, cx: &mut Context<'_>) -> Look {
    while connection.stream.poll_read_ready(cx).is_ready() {
        match connection.stream.try_read(&mut [0; 1]) {
            Ok(0) => return Look::Closed,
            Ok(_) => return Look::Noisy,
            // Clears the readiness: the next turn registers the waker.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Look::Closed,
        }
    }
    Look::Quiet
}

/// Runs for as long as the pool lives.
fn watch(pool: &Weak<Pool>, cx: &mut Context<'_>) -> Poll<()> {
    let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
    let known = pool.watcher.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
    if !known {
        *pool.watcher.borrow_mut() = Some(cx.waker().clone());
    }
    pool.look_at_idle(cx);
    Poll::Pending
}
