//! The schedule of probes: one queue for all endpoints, within a global budget.
//!
//! Inputs are due times ([`ProbeScheduler::insert`]) and the budget in probes a second. Outputs are
//! the endpoints that may start now. Entries of the queue are never searched for: an outdated entry
//! is recognised when it is due, and dropped. Endpoints beyond the budget wait, first come first
//! served, so that all periods stretch alike.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::timing_wheel::TimingWheel;
use crate::logic::model::id::EndpointId;

/// Probes that may start at once after a rest: this share of a second's budget.
const BURST_FRACTION: f64 = 0.05;

#[derive(Debug)]
pub(crate) struct ProbeScheduler {
    queue: TimingWheel,
    /// Due, and waiting for the budget.
    waiting: VecDeque<EndpointId>,
    tokens: f64,
    refilled_at: Instant,
    /// Probes a second that all intervals together demand.
    nominal_rate: f64,
}

impl ProbeScheduler {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            queue: TimingWheel::new(now),
            waiting: VecDeque::new(),
            tokens: 0.0,
            refilled_at: now,
            nominal_rate: 0.0,
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let next_token =
            (!self.waiting.is_empty()).then(|| self.refilled_at + Duration::from_millis(1));
        [self.queue.next_due(), next_token].into_iter().flatten().min()
    }

    pub(crate) fn insert(&mut self, due: Instant, id: EndpointId) {
        self.queue.insert(due, id);
    }

    /// The entries that are due by now. Entries that these make due at once follow in the next
    /// call.
    pub(crate) fn pop_due(&mut self, now: Instant) -> SmallVec<[(Instant, EndpointId); 16]> {
        std::iter::from_fn(|| self.queue.pop(now)).collect()
    }

    /// Adds the probes to the budget that have accrued since the last call.
    pub(crate) fn refill(&mut self, probes_per_second: u32, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        self.refilled_at = now;
        let rate = f64::from(probes_per_second);
        self.tokens =
            (self.tokens + rate * elapsed.as_secs_f64()).min((rate * BURST_FRACTION).max(1.0));
    }

    /// The next endpoint that waits, if the budget has room for it.
    pub(crate) fn pop_waiting(&mut self) -> Option<EndpointId> {
        if self.tokens < 1.0 {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Whether an endpoint that is due may start; otherwise it waits. An urgent probe starts at
    /// once, and overdraws the budget.
    pub(crate) fn admit(&mut self, id: EndpointId, is_urgent: bool) -> bool {
        let is_admitted = is_urgent || self.tokens >= 1.0;
        if !is_admitted {
            self.waiting.push_back(id);
        }
        is_admitted
    }

    /// One probe has started.
    pub(crate) fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    pub(crate) fn is_waiting(&self, id: EndpointId) -> bool {
        self.waiting.contains(&id)
    }

    pub(crate) fn set_nominal_rate(&mut self, probes_per_second: f64) {
        self.nominal_rate = probes_per_second;
    }

    /// How many times longer than configured periods are under this budget; at least 1.
    pub(crate) fn stretch(&self, probes_per_second: u32) -> f64 {
        (self.nominal_rate / f64::from(probes_per_second.max(1))).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_beyond_the_budget_wait_in_order() {
        let now = Instant::now();
        let mut scheduler = ProbeScheduler::new(now);
        let id = |slot| EndpointId::new(slot, 0);
        scheduler.refill(10, now + Duration::from_millis(100));
        assert!(scheduler.admit(id(1), false));
        scheduler.spend();
        assert!(!scheduler.admit(id(2), false) && !scheduler.admit(id(3), false));
        assert!(scheduler.admit(id(4), true), "an urgent probe overdraws the budget");
        scheduler.spend();
        assert_eq!(scheduler.pop_waiting(), None);
        scheduler.refill(10, now + Duration::from_millis(300));
        assert_eq!(scheduler.pop_waiting(), Some(id(2)));
        assert!(scheduler.is_waiting(id(3)) && !scheduler.is_waiting(id(2)));
    }

    #[test]
    fn stretch_is_the_demand_over_the_budget() {
        let mut scheduler = ProbeScheduler::new(Instant::now());
        assert_eq!(scheduler.stretch(10), 1.0);
        scheduler.set_nominal_rate(25.0);
        assert_eq!(scheduler.stretch(10), 2.5);
    }
}
