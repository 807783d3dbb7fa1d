//! Requests of one worker that wait for a connection to one endpoint: first come, first served.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::logic::breaker::Permit;
use crate::logic::descriptors::Descriptor;

/// How often the first in the queue looks by itself: what another worker gives back, and what another
/// endpoint of the pool does, wakes nobody here.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    line: RefCell<VecDeque<Rc<Notify>>>,
}

/// A place in the queue; left when dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    queue: &'a Queue,
    me: Rc<Notify>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.line.borrow().is_empty()
    }

    pub(super) fn join(&self) -> Place<'_> {
        let me = Rc::new(Notify::new());
        self.line.borrow_mut().push_back(Rc::clone(&me));
        Place { queue: self, me }
    }

    /// Something has come free.
    pub(super) fn wake(&self) {
        if let Some(first) = self.line.borrow().front() {
            first.notify_one();
        }
    }
}

impl Place<'_> {
    /// Whether it is this one's turn.
    pub(super) fn is_first(&self) -> bool {
        self.queue.line.borrow().front().is_some_and(|first| Rc::ptr_eq(first, &self.me))
    }

    /// Ends when it is worth looking again.
    pub(super) async fn turn(&self) {
        if self.is_first() {
            let _ = tokio::time::timeout(LOOK_EVERY, self.me.notified()).await;
        } else {
            self.me.notified().await;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.line.borrow_mut().retain(|one| !Rc::ptr_eq(one, &self.me));
        // There may be enough for the next one too.
        self.queue.wake();
    }
}

/// What an open connection takes of its limits, and its descriptor. Whoever waits hears of its end. In a box, since
/// connections move with every request.
#[derive(Debug)]
pub struct Slot(Box<Taken>);

#[derive(Debug)]
struct Taken {
    permit: Option<Permit>,
    descriptor: Option<Descriptor>,
    queue: Rc<Queue>,
}

impl Slot {
    pub(super) fn new(permit: Permit, queue: &Rc<Queue>) -> Self {
        let (permit, queue) = (Some(permit), Rc::clone(queue));
        Self(Box::new(Taken { permit, descriptor: None, queue }))
    }

    /// It takes nothing of anything: the connection leads nowhere.
    pub(super) fn of_nothing(queue: &Rc<Queue>) -> Self {
        Self(Box::new(Taken { permit: None, descriptor: None, queue: Rc::clone(queue) }))
    }

    /// It is opened with this.
    pub(super) fn hold(&mut self, descriptor: Descriptor) {
        self.0.descriptor = Some(descriptor);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.permit = None;
        self.0.descriptor = None;
        self.0.queue.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_come_is_first_served_and_who_leaves_makes_room() {
        let queue = Queue::default();
        let (first, second) = (queue.join(), queue.join());
        assert!(first.is_first() && !second.is_first());
        queue.wake();
        first.turn().await;
        drop(first);
        assert!(second.is_first());
        second.turn().await;
        drop(second);
        assert!(queue.is_empty());
    }
}
