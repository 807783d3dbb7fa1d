//! Detects that probes yield no evidence.
//!
//! The input is every outcome. The output is when probing becomes impaired, for lack of this
//! process's own resources, and when that ends.

use std::time::{Duration, Instant};

use crate::logic::model::outcome::ProbeOutcome;

/// Probes without evidence, one after the other and over at least [`IMPAIRED_AFTER`], that make
/// probing impaired.
const IMPAIRED_AFTER_PROBES: u32 = 3;

/// See [`IMPAIRED_AFTER_PROBES`].
const IMPAIRED_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct ProbingMonitor {
    state: ProbingState,
}

#[derive(Debug, Default)]
enum ProbingState {
    #[default]
    Working,
    Degrading {
        since: Instant,
        inconclusive_probes: u32,
    },
    Impaired,
}

impl ProbingMonitor {
    pub(crate) fn is_impaired(&self) -> bool {
        matches!(self.state, ProbingState::Impaired)
    }

    /// Handles the outcome of a probe; returns whether probing is impaired, if that has changed.
    pub(crate) fn observe(&mut self, outcome: ProbeOutcome, now: Instant) -> Option<bool> {
        let was_impaired = self.is_impaired();
        match (outcome, &mut self.state) {
            (ProbeOutcome::Inconclusive, ProbingState::Working) => {
                self.state = ProbingState::Degrading { since: now, inconclusive_probes: 1 };
            }
            (
                ProbeOutcome::Inconclusive,
                ProbingState::Degrading { since, inconclusive_probes },
            ) => {
                *inconclusive_probes += 1;
                if *inconclusive_probes >= IMPAIRED_AFTER_PROBES
                    && now.saturating_duration_since(*since) >= IMPAIRED_AFTER
                {
                    self.state = ProbingState::Impaired;
                }
            }
            (ProbeOutcome::Inconclusive, ProbingState::Impaired) => {}
            _ => self.state = ProbingState::Working,
        }
        let is_impaired = self.is_impaired();
        (is_impaired != was_impaired).then_some(is_impaired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASS: ProbeOutcome = ProbeOutcome::Pass { latency: Duration::ZERO };

    #[test]
    fn inconclusive_probes_over_a_second_impair_probing() {
        let (mut monitor, now) = (ProbingMonitor::default(), Instant::now());
        let mut observe = |outcome, ms| monitor.observe(outcome, now + Duration::from_millis(ms));
        for ms in [0, 1, 2, 999] {
            assert_eq!(observe(ProbeOutcome::Inconclusive, ms), None);
        }
        assert_eq!(observe(ProbeOutcome::Inconclusive, 1_000), Some(true));
        assert_eq!(observe(ProbeOutcome::Inconclusive, 1_001), None);
        assert_eq!(observe(PASS, 1_002), Some(false));
    }

    #[test]
    fn one_conclusive_probe_begins_the_count_anew() {
        let (mut monitor, now) = (ProbingMonitor::default(), Instant::now());
        monitor.observe(ProbeOutcome::Inconclusive, now);
        monitor.observe(PASS, now);
        for _ in 0..2 {
            let changed = monitor.observe(ProbeOutcome::Inconclusive, now + IMPAIRED_AFTER);
            assert_eq!(changed, None);
        }
    }
}
