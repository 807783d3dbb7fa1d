//! Scheduled events in order of time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Instant;

/// Events by time; events of one instant in order of insertion.
#[derive(Debug)]
pub(super) struct EventQueue<T> {
    heap: BinaryHeap<Reverse<QueuedEvent<T>>>,
    last_sequence: u64,
}

#[derive(Debug)]
struct QueuedEvent<T> {
    due_at: Instant,
    sequence: u64,
    event: T,
}

impl<T> EventQueue<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), last_sequence: 0 }
    }

    pub(super) fn push(&mut self, at: Instant, event: T) {
        self.last_sequence += 1;
        self.heap.push(Reverse(QueuedEvent { due_at: at, sequence: self.last_sequence, event }));
    }

    /// When the next event is due.
    pub(super) fn next_due_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.due_at)
    }

    /// The next event, if it is due by `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<T> {
        self.next_due_at().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse(entry)| entry.event)
    }
}

impl<T> QueuedEvent<T> {
    fn key(&self) -> (Instant, u64) {
        (self.due_at, self.sequence)
    }
}

impl<T> Ord for QueuedEvent<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T> PartialOrd for QueuedEvent<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for QueuedEvent<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for QueuedEvent<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn events_pop_by_time_then_insertion_order() {
        let t0 = Instant::now();
        let mut queue = EventQueue::new();
        for (after_ms, name) in [(5, "c"), (1, "a"), (5, "d"), (3, "b")] {
            queue.push(t0 + Duration::from_millis(after_ms), name);
        }
        assert_eq!(queue.pop_due(t0), None);
        let end = t0 + Duration::from_millis(5);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop_due(end)).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
    }
}
