//! The verdict of requests on one endpoint, and the trials by which an ejected one returns.
//!
//! An ejection is held first. Then single requests that can be sent again are tried; a row of
//! [`TRIALS_TO_RETURN`] good ones proves the endpoint. Good trials halve the gap to the next, a bad
//! one doubles it. Envoy's outlier detection lets all traffic return after a fixed time instead,
//! and so pays for every wrong return with client errors.

use std::time::{Duration, Instant};

use crate::logic::model::endpoint_stats::{AttemptCounts, EndpointStats};
use crate::logic::model::outcome::Failure;

/// Trials that must be answered well, one after the other.
pub(crate) const TRIALS_TO_RETURN: u32 = 8;

/// An endpoint whose probes pass returns after this long without a request that may be tried.
pub(crate) const TRIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The gap between the first two trials, in microseconds.
pub(crate) const TRIAL_GAP_US: u32 = 100_000;

/// The shortest gap between two trials, in microseconds.
const TRIAL_GAP_MIN_US: u32 = 2_000;

/// The longest gap between two trials, in microseconds.
const TRIAL_GAP_MAX_US: u32 = 500_000;

/// The verdict of live traffic on an endpoint that the probes allow to serve.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum OutlierState {
    #[default]
    Normal,
    /// More requests failed than usual: it receives only repeatable ones.
    Doubted { failure: Failure },
    /// So many failed that it receives trials only.
    Ejected(Ejection),
}

/// A verdict by traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ejection {
    failure: Failure,
    stage: EjectionStage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum EjectionStage {
    /// No trials before `until`.
    Held { until: Instant },
    /// Single requests are tried.
    OnTrial { consecutive_successes: u32, gap_us: u32, trials_taken: u32, waiting_since: Instant },
}

/// The trials of an endpoint since they were last evaluated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrialReport {
    attempts: AttemptCounts,
    /// Trials since the process began.
    trials_taken: u32,
}

impl TrialReport {
    pub(crate) fn new(attempts: AttemptCounts, trials_taken: u32) -> Self {
        Self { attempts, trials_taken }
    }
}

/// When the next trials may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrialSchedule {
    /// From now to the first, in microseconds.
    delay_us: u32,
    /// Between two, in microseconds.
    gap_us: u32,
}

impl TrialSchedule {
    /// Announces the trials to the request path.
    pub(crate) fn apply(self, stats: &EndpointStats, now_us: u64) {
        stats.schedule_trials(now_us + u64::from(self.delay_us), self.gap_us);
    }
}

impl OutlierState {
    pub(crate) fn ejection(self) -> Option<Ejection> {
        match self {
            Self::Ejected(ejection) => Some(ejection),
            Self::Normal | Self::Doubted { .. } => None,
        }
    }

    pub(crate) fn is_ejected(self) -> bool {
        self.ejection().is_some()
    }

    /// The latest failure of an endpoint that is doubted.
    pub(crate) fn doubt(self) -> Option<Failure> {
        match self {
            Self::Doubted { failure } => Some(failure),
            Self::Normal | Self::Ejected(_) => None,
        }
    }
}

impl Ejection {
    pub(crate) fn held(failure: Failure, until: Instant) -> Self {
        Self { failure, stage: EjectionStage::Held { until } }
    }

    pub(crate) fn failure(self) -> Failure {
        self.failure
    }

    pub(crate) fn stage(self) -> EjectionStage {
        self.stage
    }

    /// The end of the hold, while there are no trials yet.
    pub(crate) fn held_until(self) -> Option<Instant> {
        match self.stage {
            EjectionStage::Held { until } => Some(until),
            EjectionStage::OnTrial { .. } => None,
        }
    }

    pub(crate) fn is_on_trial(self) -> bool {
        matches!(self.stage, EjectionStage::OnTrial { .. })
    }

    /// Whether its trials went well, or no request could be tried for [`TRIAL_TIMEOUT`].
    pub(crate) fn is_proven(self, now: Instant) -> bool {
        match self.stage {
            EjectionStage::Held { .. } => false,
            EjectionStage::OnTrial { consecutive_successes, waiting_since, .. } => {
                consecutive_successes >= TRIALS_TO_RETURN
                    || now.saturating_duration_since(waiting_since) >= TRIAL_TIMEOUT
            }
        }
    }

    /// The ejection after `report`, and when the next trials may start if that changes.
    pub(crate) fn advance(
        self,
        report: TrialReport,
        now: Instant,
    ) -> (Self, Option<TrialSchedule>) {
        let TrialReport { attempts, trials_taken } = report;
        match self.stage {
            EjectionStage::Held { until } if now < until => (self, None),
            EjectionStage::Held { .. } => {
                let stage = EjectionStage::OnTrial {
                    consecutive_successes: 0,
                    gap_us: TRIAL_GAP_US,
                    trials_taken,
                    waiting_since: now,
                };
                let schedule = TrialSchedule { delay_us: 0, gap_us: TRIAL_GAP_US };
                (Self { stage, ..self }, Some(schedule))
            }
            EjectionStage::OnTrial {
                consecutive_successes,
                gap_us,
                trials_taken: taken_before,
                waiting_since,
            } => {
                let (consecutive_successes, gap_us) = match attempts {
                    AttemptCounts { bad: 0, good } => (
                        consecutive_successes.saturating_add(good as u32),
                        (gap_us >> good.min(8)).max(TRIAL_GAP_MIN_US),
                    ),
                    _ => (0, (gap_us.max(TRIAL_GAP_US) * 2).min(TRIAL_GAP_MAX_US)),
                };
                let has_attempts = attempts != AttemptCounts::default();
                let stage = EjectionStage::OnTrial {
                    consecutive_successes,
                    gap_us,
                    trials_taken,
                    waiting_since: if trials_taken == taken_before { waiting_since } else { now },
                };
                let schedule = TrialSchedule { delay_us: gap_us, gap_us };
                (Self { stage, ..self }, has_attempts.then_some(schedule))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::outcome::FailureReason;

    fn report(good: u64, bad: u64, trials_taken: u32) -> TrialReport {
        TrialReport::new(AttemptCounts { good, bad }, trials_taken)
    }

    fn on_trial(now: Instant) -> Ejection {
        let held = Ejection::held(Failure::http(FailureReason::Status(503)), now);
        held.advance(report(0, 0, 3), now).0
    }

    #[test]
    fn held_ejection_gets_no_trial_before_its_end() {
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        let held = Ejection::held(Failure::http(FailureReason::Status(503)), until);
        assert_eq!(held.advance(report(0, 0, 0), now), (held, None));
        let (tried, schedule) = held.advance(report(0, 0, 0), until);
        assert!(tried.is_on_trial() && !tried.is_proven(until));
        assert_eq!(schedule, Some(TrialSchedule { delay_us: 0, gap_us: TRIAL_GAP_US }));
    }

    #[test]
    fn eight_good_trials_in_a_row_prove_an_endpoint() {
        let now = Instant::now();
        let (seven, schedule) = on_trial(now).advance(report(7, 0, 10), now);
        assert!(!seven.is_proven(now));
        assert_eq!(schedule.map(|next| next.gap_us), Some(TRIAL_GAP_MIN_US), "good ones hurry");
        let (failed, schedule) = seven.advance(report(5, 1, 16), now);
        assert!(!failed.advance(report(7, 0, 23), now).0.is_proven(now), "the row began anew");
        assert_eq!(schedule.map(|next| next.gap_us), Some(2 * TRIAL_GAP_US));
        assert!(seven.advance(report(1, 0, 11), now).0.is_proven(now));
    }

    #[test]
    fn endpoint_without_trials_is_proven_after_timeout() {
        let now = Instant::now();
        let waiting = on_trial(now);
        assert!(waiting.is_proven(now + TRIAL_TIMEOUT));
        let (tried, _) = waiting.advance(report(0, 0, 4), now + Duration::from_secs(1));
        assert!(!tried.is_proven(now + TRIAL_TIMEOUT), "a trial is under way");
    }
}
