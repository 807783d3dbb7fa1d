//! The requests of one worker that wait for a connection to one endpoint, first come, first served.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::logic::overload::descriptor_pool::DescriptorPermit;
use crate::logic::request::breaker::LimitPermit;

/// How often the first waiter checks by itself: connections that another worker returns, or that
/// another endpoint of the pool returns, do not wake it.
const RECHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Waiting requests in order of arrival. The limit for pending requests bounds their number.
#[derive(Debug, Default)]
pub(super) struct ConnectionQueue {
    waiters: RefCell<VecDeque<Rc<Notify>>>,
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub(super) struct QueueTicket<'a> {
    queue: &'a ConnectionQueue,
    notify: Rc<Notify>,
}

impl ConnectionQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.borrow().is_empty()
    }

    pub(super) fn enqueue(&self) -> QueueTicket<'_> {
        let notify = Rc::new(Notify::new());
        self.waiters.borrow_mut().push_back(Rc::clone(&notify));
        QueueTicket { queue: self, notify }
    }

    /// Wakes the first waiter, because a connection may be free.
    pub(super) fn wake_first(&self) {
        if let Some(first) = self.waiters.borrow().front() {
            first.notify_one();
        }
    }
}

impl QueueTicket<'_> {
    /// Whether the request is the first one in the queue.
    pub(super) fn is_first(&self) -> bool {
        self.queue.waiters.borrow().front().is_some_and(|first| Rc::ptr_eq(first, &self.notify))
    }

    /// Waits until a connection may be free.
    pub(super) async fn wait_turn(&self) {
        if self.is_first() {
            let _ = tokio::time::timeout(RECHECK_INTERVAL, self.notify.notified()).await;
        } else {
            self.notify.notified().await;
        }
    }
}

impl Drop for QueueTicket<'_> {
    fn drop(&mut self) {
        self.queue.waiters.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.notify));
        // More than one connection may be free.
        self.queue.wake_first();
    }
}

/// What an open connection holds: its share of the limits and its descriptor. Dropping it wakes the
/// first waiter. Boxed, because connections are moved with every request.
#[derive(Debug)]
pub struct ConnectionPermit(Box<ConnectionPermitInner>);

#[derive(Debug)]
struct ConnectionPermitInner {
    permit: Option<LimitPermit>,
    descriptor: Option<DescriptorPermit>,
    queue: Rc<ConnectionQueue>,
}

impl ConnectionPermit {
    pub(super) fn new(permit: LimitPermit, queue: &Rc<ConnectionQueue>) -> Self {
        let (permit, queue) = (Some(permit), Rc::clone(queue));
        Self(Box::new(ConnectionPermitInner { permit, descriptor: None, queue }))
    }

    /// A permit that counts against no limit, for a connection without a peer.
    pub(super) fn unlimited(queue: &Rc<ConnectionQueue>) -> Self {
        Self(Box::new(ConnectionPermitInner {
            permit: None,
            descriptor: None,
            queue: Rc::clone(queue),
        }))
    }

    /// Adds the descriptor of the connection.
    pub(super) fn set_descriptor(&mut self, descriptor: DescriptorPermit) {
        self.0.descriptor = Some(descriptor);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.permit = None;
        self.0.descriptor = None;
        self.0.queue.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiters_are_served_in_order_and_drop_advances() {
        let queue = ConnectionQueue::default();
        let (first, second) = (queue.enqueue(), queue.enqueue());
        assert!(first.is_first() && !second.is_first());
        queue.wake_first();
        first.wait_turn().await;
        drop(first);
        assert!(second.is_first());
        second.wait_turn().await;
        drop(second);
        assert!(queue.is_empty());
    }
}
