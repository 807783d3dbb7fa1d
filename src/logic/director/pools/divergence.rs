//! Divergence of probes and traffic: whether the probes of a pool are ignored.
//!
//! Inputs are the endpoints whose probes fail definitively while their requests succeed. When half
//! of the pool (two at least) contradict, probes are ignored until less than half as many do: a
//! check that is broken everywhere must not take the pool down. The probes of a single endpoint
//! that fails still count.

#[derive(Debug, Default)]
pub(crate) struct DivergenceTracker {
    /// Endpoints whose probes contradict their traffic.
    contradicted: u32,
    is_active: bool,
}

/// The result of [`DivergenceTracker::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DivergenceCheck {
    /// Probes count.
    Absent,
    /// Probes are ignored, starting now.
    Began,
    /// Probes are ignored.
    Ongoing,
}

impl DivergenceTracker {
    /// A tracker without endpoints, with this `is_active`.
    pub(crate) fn new(is_active: bool) -> Self {
        Self { contradicted: 0, is_active }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.is_active
    }

    pub(crate) fn set_active(&mut self, is_active: bool) {
        self.is_active = is_active;
    }

    pub(crate) fn set_contradicted(&mut self, count: u32) {
        self.contradicted = count;
    }

    pub(crate) fn add_contradicted(&mut self) {
        self.contradicted += 1;
    }

    pub(crate) fn remove_contradicted(&mut self) {
        self.contradicted -= 1;
    }

    /// Begins a divergence if enough of `all` endpoints contradict.
    pub(crate) fn check(&mut self, all: u32) -> DivergenceCheck {
        if self.contradicted < threshold(all) {
            return match self.is_active {
                true => DivergenceCheck::Ongoing,
                false => DivergenceCheck::Absent,
            };
        }
        match std::mem::replace(&mut self.is_active, true) {
            true => DivergenceCheck::Ongoing,
            false => DivergenceCheck::Began,
        }
    }

    /// Ends a divergence when few enough of `all` contradict; returns whether it did.
    pub(crate) fn end_if_resolved(&mut self, all: u32) -> bool {
        let is_resolved = self.is_active && self.contradicted * 2 < threshold(all);
        if is_resolved {
            self.is_active = false;
        }
        is_resolved
    }
}

fn threshold(all: u32) -> u32 {
    all.div_ceil(2).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_begins_at_half_and_ends_below_a_quarter() {
        let mut tracker = DivergenceTracker::default();
        (0..3).for_each(|_| tracker.add_contradicted());
        assert_eq!(tracker.check(8), DivergenceCheck::Absent);
        tracker.add_contradicted();
        assert_eq!(tracker.check(8), DivergenceCheck::Began);
        assert_eq!(tracker.check(8), DivergenceCheck::Ongoing);
        tracker.remove_contradicted();
        tracker.remove_contradicted();
        assert!(!tracker.end_if_resolved(8));
        assert_eq!(tracker.check(8), DivergenceCheck::Ongoing);
        tracker.remove_contradicted();
        assert!(tracker.end_if_resolved(8) && !tracker.is_active());
    }

    #[test]
    fn single_endpoint_makes_no_divergence() {
        let mut tracker = DivergenceTracker::default();
        tracker.add_contradicted();
        assert_eq!(tracker.check(1), DivergenceCheck::Absent);
    }
}
