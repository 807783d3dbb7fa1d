//! The idle HTTP/1.1 connections of a pool: kept, watched, closed.

use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::logic::request::limits::{CircuitBreakers, LimitGauges, LimitKind};
use crate::net::upstream::connection::H1Connection;
use crate::net::upstream::stream::IdleState;

use super::{ConnectionPool, PoolEvent};

/// An idle connection frees its read buffer after this time.
const BUFFER_RELEASE_AFTER: Duration = Duration::from_secs(1);

impl ConnectionPool {
    /// Whether an idle connection is to be closed in favour of another worker, another endpoint of
    /// the pool, or another use of its descriptor.
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

    /// The most recently used idle connection that is still open; of `client`, where each
    /// connection belongs to one client.
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

    /// Takes back a connection after a complete exchange. Bytes after a complete response are not
    /// attributable to a request: such a connection is not reused.
    pub(in crate::net::upstream) fn return_completed(
        self: &Rc<Self>,
        mut connection: H1Connection,
        can_reuse: bool,
    ) {
        connection.is_in_exchange = false;
        connection.has_completed_exchange = true;
        if can_reuse {
            self.put_idle(connection);
        }
    }

    /// Keeps an idle connection. The first one spawns the pool's watcher onto the current
    /// `LocalSet`.
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
            // The client of the oldest connection has probably gone.
            idle.remove(0);
        }
        connection.idle_since = Instant::now();
        if !self.is_watched.replace(true) {
            let weak_pool = Rc::downgrade(self);
            tokio::task::spawn_local(std::future::poll_fn(move |cx| watch_idle(&weak_pool, cx)));
        } else if let Some(waker) = &*self.watcher_waker.borrow() {
            // Registers the watcher for a close by the endpoint, which may have happened already.
            if connection.stream.check_idle(&mut Context::from_waker(waker)) != IdleState::Silent {
                return;
            }
        }
        idle.push(connection);
        drop(idle);
        self.queue.wake_first();
    }

    /// Closes connections that have been idle for longer than `timeout`, or that must yield.
    pub fn retire_idle(&self, now: Instant, timeout: Duration) {
        if self.should_yield() {
            self.h2_connections.retire_matching(|connection| connection.idle_since().is_some());
            return self.idle.borrow_mut().clear();
        }
        self.h2_connections.retire_idle(now, timeout);
        let mut idle = self.idle.borrow_mut();
        let old = idle.partition_point(|c| now.saturating_duration_since(c.idle_since) > timeout);
        idle.drain(..old);
        // Sorted by the time of last use.
        let is_past_release = |c: &&mut H1Connection| {
            now.saturating_duration_since(c.idle_since) > BUFFER_RELEASE_AFTER
        };
        idle.iter_mut().take_while(is_past_release).for_each(|c| c.input = BytesMut::new());
    }

    /// Drops idle connections that the endpoint has closed, and registers `cx` with the others.
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

/// The watcher of a pool's idle connections; ends with the pool.
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
