//! The connections that one worker keeps to one endpoint.

mod cut;
mod reach;

pub use cut::Cuts;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::logic::breaker::{Breakers, Full, Gauges, Limit, Permit, Scope};
use crate::logic::casualty::Casualty;
use crate::logic::descriptors::Descriptors;
use crate::logic::id::EndpointId;
use crate::logic::snapshot::{PoolLive, Target};
use crate::logic::speech::{Protocol, Speech};
use crate::logic::topology::PoolLimits;

use super::connection::{Connection, TryError};
use super::dial::Dial;
use super::lasting::Lasting;
use super::lines::{Lines, Opening};
use super::multiplex::{Multiplexed, Seat};
use super::queue::{Queue, Slot};
use super::staged::{Act, Staging};
use super::stream::{Look, Stream};

/// A connection that has been idle for longer gives its buffer back.
const BUFFER_REST: Duration = Duration::from_secs(1);

/// What a pool tells its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// The endpoint closed or reset an idle connection.
    IdleClosed(EndpointId),
}

/// A connection that is free, or will be.
#[derive(Debug)]
pub enum Free {
    /// It was idle.
    Open(Connection),
    /// It has room for one more request.
    Seat(Seat),
    /// It is being opened, for others as well.
    Opening(Rc<Opening>),
    /// It may be opened.
    Room(Slot),
}

/// Hears what a pool sees.
type Listener = Rc<dyn Fn(PoolEvent)>;

/// The connections to one endpoint: idle ones, last used first, watched for the endpoint's hanging
/// up, and those that requests share.
pub struct Pool {
    /// Where the connections lead.
    pub target: Target,
    /// What a drill does to them, if they are for its requests.
    pub staging: Option<Rc<Staging>>,
    dial: RefCell<Rc<Dial>>,
    /// How often it has changed.
    generation: Cell<u32>,
    lines: Lines,
    head_bytes_at_most: Cell<usize>,
    idle: RefCell<Vec<Connection>>,
    at_most: Cell<usize>,
    live: Arc<PoolLive>,
    /// Those of all workers together.
    descriptors: Arc<Descriptors>,
    breakers: Cell<Breakers>,
    /// Connections are limited: there may be somebody who waits for one.
    is_limited: Cell<bool>,
    queue: Rc<Queue>,
    watcher: RefCell<Option<Waker>>,
    listener: Listener,
    cuts: Cell<Cuts>,
    cut: Notify,
    pub(super) lasting: Lasting,
    /// Nobody is to come any more: what is given back is not kept.
    is_left: Cell<bool>,
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
    /// An empty pool that speaks as `speech` says, keeps to `limits` and tells `listener` what it
    /// sees; `live` counts what all endpoints have together, `descriptors` what all workers have.
    #[must_use]
    pub fn new(
        target: Target,
        (live, descriptors): (Arc<PoolLive>, Arc<Descriptors>),
        speech: &Arc<Speech>,
        limits: &PoolLimits,
        listener: Listener,
    ) -> Rc<Self> {
        Self::staged(target, (live, descriptors), speech, limits, (listener, None))
    }

    /// The same for the requests that a drill takes.
    #[must_use]
    pub fn staged(
        target: Target,
        (live, descriptors): (Arc<PoolLive>, Arc<Descriptors>),
        speech: &Arc<Speech>,
        limits: &PoolLimits,
        (listener, staging): (Listener, Option<Rc<Staging>>),
    ) -> Rc<Self> {
        Rc::new(Self {
            target,
            staging,
            dial: RefCell::new(Rc::new(Dial::new(speech))),
            generation: Cell::default(),
            lines: Lines::default(),
            head_bytes_at_most: Cell::new(limits.response_head_bytes),
            idle: RefCell::default(),
            at_most: Cell::new(limits.idle_connections),
            live,
            descriptors,
            breakers: Cell::new(limits.breakers),
            is_limited: Cell::new(limits.breakers.has(Limit::Connections)),
            queue: Rc::default(),
            watcher: RefCell::default(),
            listener,
            cuts: Cell::default(),
            cut: Notify::new(),
            lasting: Lasting::default(),
            is_left: Cell::new(false),
            is_watched: Cell::new(false),
        })
    }

    /// Changes the limits.
    pub fn keep_to(&self, limits: &PoolLimits) {
        self.at_most.set(limits.idle_connections);
        self.head_bytes_at_most.set(limits.response_head_bytes);
        self.breakers.set(limits.breakers);
        self.is_limited.set(limits.breakers.has(Limit::Connections));
        self.idle.borrow_mut().truncate(limits.idle_connections);
    }

    /// Speaks as `speech` says from now on; connections that were opened otherwise are not kept.
    pub fn speak(&self, speech: &Arc<Speech>) {
        if Arc::ptr_eq(self.dial.borrow().speech(), speech) {
            return;
        }
        let is_same = self.dial.borrow().speech() == speech;
        if !is_same {
            self.dial.replace(Rc::new(Dial::new(speech)));
            self.generation.update(|count| count.wrapping_add(1));
            self.lines.chose_h1(false);
            self.close_idle();
        }
    }

    /// A connection that leads nowhere.
    #[must_use]
    pub fn stage(&self, act: Act) -> Connection {
        let slot = Slot::of_nothing(&self.queue);
        Connection::new(Stream::Staged(Box::new(act)), self.generation.get(), None, slot)
    }

    /// A client saw a failure of the endpoint.
    pub fn failed(&self, now_us: u64, casualty: Casualty) {
        self.target.live.failed(casualty, now_us);
        if let Some(staging) = &self.staging {
            staging.tallies.failed(now_us, casualty.is_repeatable);
        }
    }

    /// The drill that the connections were for is over.
    pub fn is_over(&self) -> bool {
        self.staging.as_ref().is_some_and(|staging| staging.is_over.get())
    }

    /// Makes ready what the opening of a connection needs that is not the endpoint's affair.
    ///
    /// # Errors
    /// [`TryError::Local`].
    pub async fn prepare(&self) -> Result<(), TryError> {
        let dial = Rc::clone(&self.dial.borrow());
        dial.prepare().await
    }

    /// What requests are asked for by, as a URI says it.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.dial.borrow().speech().tls.is_some() { "https" } else { "http" }
    }

    /// Whether each connection belongs to one client.
    fn is_private(&self) -> bool {
        self.dial.borrow().speech().proxy_protocol.is_some()
    }

    /// Whether requests are expected to share connections.
    fn shares(&self) -> bool {
        let dial = self.dial.borrow();
        let speech = dial.speech();
        let speaks_h2 = match speech.protocol {
            Protocol::H1 => false,
            Protocol::H2 => true,
            Protocol::Auto => speech.tls.is_some() && !self.lines.has_chosen_h1(),
        };
        speaks_h2 && speech.proxy_protocol.is_none()
    }

    /// An HTTP/2 connection has ended, while somebody might have wanted it or not.
    pub(super) fn line_ended(&self, line: &Rc<Multiplexed>, was_wanted: bool) {
        self.lines.remove(line);
        if was_wanted {
            (self.listener)(PoolEvent::IdleClosed(self.target.id));
        }
    }

    /// What all workers share for the endpoints together.
    #[must_use]
    pub fn live(&self) -> &Arc<PoolLive> {
        &self.live
    }

    /// A connection that was idle, or room for another one. Nobody passes those who wait.
    ///
    /// # Errors
    /// The limit that leaves no room.
    pub fn free(&self) -> Result<Free, Full> {
        // Whoever comes has been told that it may.
        self.is_left.set(false);
        if !self.queue.is_empty() {
            return Err(Full { scope: Scope::Endpoint, limit: Limit::Connections });
        }
        self.take_free()
    }

    fn take_free(&self) -> Result<Free, Full> {
        if self.is_private() {
            return self.room_in_private();
        }
        if self.shares() {
            if let Some(seat) = self.lines.seat(None) {
                return Ok(Free::Seat(seat));
            }
            if let Some(opening) = self.lines.join() {
                return Ok(Free::Opening(opening));
            }
        } else if let Some(connection) = self.check_out(None) {
            return Ok(Free::Open(connection));
        }
        self.room()
    }

    fn room(&self) -> Result<Free, Full> {
        let permit = self.permit(Limit::Connections)?;
        Ok(Free::Room(Slot::new(permit, &self.queue)))
    }

    /// Room where connections belong to clients: others' idle ones give way.
    fn room_in_private(&self) -> Result<Free, Full> {
        loop {
            let full = match self.room() {
                Ok(room) => return Ok(room),
                Err(full) => full,
            };
            let mut idle = self.idle.borrow_mut();
            let oldest = (!idle.is_empty()).then(|| idle.remove(0));
            drop(idle);
            if oldest.is_none() && !self.lines.give_up_oldest() {
                return Err(full);
            }
        }
    }

    /// A place among those who wait for a connection, if one more may.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn line(&self) -> Result<Permit, Full> {
        self.permit(Limit::Pending)
    }

    fn permit(&self, limit: Limit) -> Result<Permit, Full> {
        Permit::take(limit, &self.breakers.get(), &self.target.live, &self.live)
    }

    /// Waits, first come first served, until a connection is free or may be opened.
    pub async fn wait(&self) -> Free {
        let place = self.queue.join();
        loop {
            if place.is_first()
                && let Ok(free) = self.take_free()
            {
                return free;
            }
            place.turn().await;
        }
    }

    /// Whether somebody who waits elsewhere has a better use for an idle connection's room, or for its
    /// descriptor.
    fn gives_way(&self) -> bool {
        if self.descriptors.is_tight() {
            return true;
        }
        if !self.is_limited.get() {
            return false;
        }
        let Breakers { endpoint, pool } = self.breakers.get();
        let wait = |gauges: &Gauges| gauges.get(Limit::Pending) > 0;
        self.queue.is_empty()
            && (endpoint.connections.is_some() && wait(self.target.live.gauges())
                || pool.connections.is_some() && wait(self.live.gauges()))
    }

    /// The connection that was used last, by `client` where connections belong to clients, if it
    /// still looks alive.
    #[must_use]
    pub fn check_out(&self, client: Option<SocketAddr>) -> Option<Connection> {
        loop {
            let mut connection = match client {
                None => self.idle.borrow_mut().pop()?,
                Some(_) => {
                    let mut idle = self.idle.borrow_mut();
                    let place = idle.iter().rposition(|open| open.client == client)?;
                    idle.remove(place)
                }
            };
            let mut cx = Context::from_waker(Waker::noop());
            match connection.stream.look(&mut cx) {
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
        let is_old = connection.generation != self.generation.get();
        if is_old || self.is_left.get() || self.at_most.get() == 0 || self.gives_way() {
            return;
        }
        if idle.len() >= self.at_most.get() {
            if connection.client.is_none() {
                return;
            }
            // Its own client has use for it; that of the oldest has probably gone.
            idle.remove(0);
        }
        connection.idle_since = Instant::now();
        if !self.is_watched.replace(true) {
            let watched = Rc::downgrade(self);
            tokio::task::spawn_local(std::future::poll_fn(move |cx| watch(&watched, cx)));
        } else if let Some(waker) = &*self.watcher.borrow() {
            // Has the watcher woken when the endpoint hangs up; it may have done so already.
            if connection.stream.look(&mut Context::from_waker(waker)) != Look::Quiet {
                return;
            }
        }
        idle.push(connection);
        drop(idle);
        self.queue.wake();
    }

    /// Closes what has been idle for longer than `timeout`, or is wanted elsewhere.
    pub fn reap(&self, now: Instant, timeout: Duration) {
        if self.gives_way() {
            self.lines.retire(|line| line.idle_since().is_some());
            return self.idle.borrow_mut().clear();
        }
        self.lines.reap(now, timeout);
        let mut idle = self.idle.borrow_mut();
        let old = idle.partition_point(|c| now.saturating_duration_since(c.idle_since) > timeout);
        idle.drain(..old);
        // They are in the order in which they were last used.
        let at_rest =
            |c: &&mut Connection| now.saturating_duration_since(c.idle_since) > BUFFER_REST;
        idle.iter_mut().take_while(at_rest).for_each(|c| c.input = BytesMut::new());
    }

    /// Idle connections.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.borrow().len() + self.lines.idle()
    }

    /// What is cut short from now on, on connections that requests share, is not to be gone on with.
    pub fn reset_shared(&self) {
        self.lines.reset_at_end();
    }

    /// Closes all idle connections; those that requests share take no new ones.
    pub fn close_idle(&self) {
        self.idle.borrow_mut().clear();
        self.lines.retire(|_| true);
    }

    fn look_at_idle(&self, cx: &mut Context<'_>) {
        let mut hung_up = 0;
        self.idle.borrow_mut().retain_mut(|connection| match connection.stream.look(cx) {
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
        self.lines.retire(|_| true);
        if let Some(waker) = self.watcher.take() {
            waker.wake();
        }
    }
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
