//! What is yet to happen, in the order in which it will.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Instant;

/// Events by time; those of one instant in the order in which they were added.
#[derive(Debug)]
pub(super) struct Queue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    added: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Instant,
    sequence: u64,
    event: T,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), added: 0 }
    }

    pub(super) fn add(&mut self, at: Instant, event: T) {
        self.added += 1;
        self.heap.push(Reverse(Entry { at, sequence: self.added, event }));
    }

    /// When the next event is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// The next event, if it is due by `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<T> {
        self.next_at().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse(entry)| entry.event)
    }
}

impl<T> Entry<T> {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.sequence)
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn earliest_first_and_in_order_of_adding_at_one_instant() {
        let t0 = Instant::now();
        let mut queue = Queue::new();
        for (after_ms, name) in [(5, "c"), (1, "a"), (5, "d"), (3, "b")] {
            queue.add(t0 + Duration::from_millis(after_ms), name);
        }
        assert_eq!(queue.pop_due(t0), None);
        let end = t0 + Duration::from_millis(5);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop_due(end)).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
    }
}
