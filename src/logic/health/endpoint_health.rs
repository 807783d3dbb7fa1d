//! The verdict machine of one endpoint: strikes and passes in a row, as HAProxy's `fall` and
//! `rise`.
//!
//! The state is a function of the sequence of evidence alone: without a pass, neither time nor a
//! reload nor another endpoint makes it up.

use super::evidence::Evidence;
use crate::logic::model::outcome::Failure;

/// The verdict on an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// No evidence has decided yet; serves only in an optimistic pool.
    Unknown {
        /// Strikes in a row so far.
        strikes: u32,
    },
    Up,
    /// Has a strike, still serves, is probed at the fast interval.
    Suspect {
        /// Strikes in a row.
        strikes: u32,
        /// The failure of the latest strike.
        failure: Failure,
    },
    Down {
        /// The failure of the strike that made the verdict.
        failure: Failure,
    },
    /// Passes again after a verdict, but not yet often enough.
    Returning {
        /// Passes in a row.
        passes: u32,
        /// The failure that it went down for.
        failure: Failure,
    },
}

/// The thresholds of [`crate::logic::model::topology::DetectionSpec`] that the machine needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthThresholds {
    /// Strikes in a row that make the verdict down.
    pub down_after: u32,
    /// Passes in a row that bring it back.
    pub up_after: u32,
}

/// The change that one piece of evidence made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HealthTransition {
    /// No change of the verdict.
    None,
    /// First pass of an unknown endpoint.
    Started,
    /// First strike against an endpoint that was up.
    Suspected,
    Cleared,
    /// The verdict is down.
    WentDown,
    /// First pass after a verdict.
    Returning,
    /// Back up after a verdict.
    Restored,
}

impl HealthTransition {
    /// The transition from one verdict to the next.
    pub fn from_states(before: Health, after: Health) -> Self {
        match (before, after) {
            (Health::Unknown { .. }, Health::Up | Health::Suspect { .. }) => Self::Started,
            (Health::Up, Health::Suspect { .. }) => Self::Suspected,
            (Health::Suspect { .. }, Health::Up) => Self::Cleared,
            (Health::Down { .. }, Health::Returning { .. }) => Self::Returning,
            (before, after) if before.is_down() && !after.is_down() => Self::Restored,
            (before, after) if !before.is_down() && after.is_down() => Self::WentDown,
            _ => Self::None,
        }
    }
}

impl Health {
    /// The verdict on an endpoint without any evidence.
    pub const NEW: Self = Self::Unknown { strikes: 0 };

    /// Applies one piece of evidence.
    pub fn apply(&mut self, evidence: Evidence, thresholds: HealthThresholds) -> HealthTransition {
        let (next, change) = match evidence {
            Evidence::Pass => self.after_pass(thresholds),
            Evidence::Soft(failure) => self.after_soft_strike(failure),
            Evidence::Firm(failure) => self.after_firm_strike(failure, thresholds),
        };
        *self = next;
        change
    }

    /// Up without another pass: the endpoint had passed often enough and was only held down.
    pub fn mark_up(&mut self) {
        *self = Self::Up;
    }

    fn after_pass(self, thresholds: HealthThresholds) -> (Self, HealthTransition) {
        match self {
            Self::Unknown { .. } => (Self::Up, HealthTransition::Started),
            Self::Up => (Self::Up, HealthTransition::None),
            Self::Suspect { .. } => (Self::Up, HealthTransition::Cleared),
            Self::Down { .. } if thresholds.up_after <= 1 => (Self::Up, HealthTransition::Restored),
            Self::Down { failure } => {
                (Self::Returning { passes: 1, failure }, HealthTransition::Returning)
            }
            Self::Returning { passes, .. } if passes + 1 >= thresholds.up_after => {
                (Self::Up, HealthTransition::Restored)
            }
            Self::Returning { passes, failure } => {
                (Self::Returning { passes: passes + 1, failure }, HealthTransition::None)
            }
        }
    }

    /// Soft evidence makes a suspect of an endpoint that is up, and nothing more: two keep-alive
    /// connections that an endpoint closed in the same millisecond are no outage.
    fn after_soft_strike(self, failure: Failure) -> (Self, HealthTransition) {
        match self {
            Self::Up => (Self::Suspect { strikes: 1, failure }, HealthTransition::Suspected),
            other => (other, HealthTransition::None),
        }
    }

    fn after_firm_strike(
        self,
        failure: Failure,
        thresholds: HealthThresholds,
    ) -> (Self, HealthTransition) {
        let strikes = match self {
            Self::Unknown { strikes } | Self::Suspect { strikes, .. } => strikes + 1,
            Self::Up => 1,
            Self::Down { failure } => return (Self::Down { failure }, HealthTransition::None),
            Self::Returning { failure, .. } => {
                return (Self::Down { failure }, HealthTransition::None);
            }
        };
        if strikes >= thresholds.down_after {
            return (Self::Down { failure }, HealthTransition::WentDown);
        }
        match self {
            Self::Unknown { .. } => (Self::Unknown { strikes }, HealthTransition::None),
            Self::Up => (Self::Suspect { strikes, failure }, HealthTransition::Suspected),
            _ => (Self::Suspect { strikes, failure }, HealthTransition::None),
        }
    }

    /// Whether the verdict is down.
    pub fn is_down(self) -> bool {
        matches!(self, Self::Down { .. } | Self::Returning { .. })
    }

    /// Whether the verdict allows traffic, in a pool that is (or is not) optimistic.
    pub fn can_serve(self, is_optimistic: bool) -> bool {
        match self {
            Self::Up | Self::Suspect { .. } => true,
            Self::Unknown { .. } => is_optimistic,
            Self::Down { .. } | Self::Returning { .. } => false,
        }
    }

    /// The glossary's word for the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown",
            Self::Up => "up",
            Self::Suspect { .. } => "suspect",
            Self::Down { .. } => "down",
            Self::Returning { .. } => "returning",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::outcome::FailureReason;
    use proptest::prelude::*;

    const REFUSED: Failure = Failure::connect(FailureReason::Refused);
    const STALL: Failure = Failure::http(FailureReason::Stall);

    fn evidence() -> impl Strategy<Value = Evidence> {
        prop_oneof![
            Just(Evidence::Pass),
            Just(Evidence::Soft(STALL)),
            Just(Evidence::Firm(REFUSED)),
        ]
    }

    fn thresholds() -> impl Strategy<Value = HealthThresholds> {
        (1u32..5, 1u32..5)
            .prop_map(|(down_after, up_after)| HealthThresholds { down_after, up_after })
    }

    fn replay(history: &[Evidence], thresholds: HealthThresholds) -> Health {
        let mut health = Health::NEW;
        for piece in history {
            health.apply(*piece, thresholds);
        }
        health
    }

    proptest! {
        #[test]
        fn endpoint_without_a_pass_is_never_up(history in prop::collection::vec(evidence(), 0..40), t in thresholds()) {
            let unproven: Vec<_> = history.into_iter().filter(|e| *e != Evidence::Pass).collect();
            prop_assert!(!replay(&unproven, t).can_serve(false));
        }

        #[test]
        fn consecutive_strikes_make_verdict_down(
            history in prop::collection::vec(evidence(), 0..40), t in thresholds()
        ) {
            let mut health = replay(&history, t);
            for _ in 0..t.down_after {
                health.apply(Evidence::Firm(REFUSED), t);
            }
            prop_assert!(matches!(health, Health::Down { .. }), "{health:?}");
        }

        #[test]
        fn consecutive_passes_restore_endpoint(
            history in prop::collection::vec(evidence(), 0..40), t in thresholds()
        ) {
            let mut health = replay(&history, t);
            for _ in 0..t.up_after {
                health.apply(Evidence::Pass, t);
            }
            prop_assert_eq!(health, Health::Up);
        }

        #[test]
        fn opposite_result_resets_consecutive_count(
            history in prop::collection::vec(evidence(), 0..40), t in thresholds()
        ) {
            let mut health = replay(&history, t);
            if health.can_serve(false) {
                health.apply(Evidence::Pass, t);
                for _ in 1..t.down_after {
                    health.apply(Evidence::Firm(REFUSED), t);
                }
                prop_assert!(health.can_serve(false), "{health:?}");
            } else if matches!(health, Health::Down { .. } | Health::Returning { .. }) {
                health.apply(Evidence::Firm(REFUSED), t);
                for _ in 1..t.up_after {
                    health.apply(Evidence::Pass, t);
                }
                prop_assert!(!health.can_serve(false), "{health:?}");
            }
        }

        #[test]
        fn soft_evidence_alone_never_changes_verdict(
            history in prop::collection::vec(evidence(), 0..40), t in thresholds(), n in 1usize..50
        ) {
            let mut health = replay(&history, t);
            let served = health.can_serve(false);
            for _ in 0..n {
                health.apply(Evidence::Soft(STALL), t);
            }
            prop_assert_eq!(health.can_serve(false), served);
        }

        #[test]
        fn same_evidence_gives_same_state(history in prop::collection::vec(evidence(), 0..40), t in thresholds()) {
            prop_assert_eq!(replay(&history, t), replay(&history, t));
        }
    }

    #[test]
    fn first_pass_starts_and_first_strike_suspects() {
        let t = HealthThresholds { down_after: 2, up_after: 2 };
        let mut health = Health::NEW;
        assert_eq!(health.apply(Evidence::Pass, t), HealthTransition::Started);
        assert_eq!(health.apply(Evidence::Firm(REFUSED), t), HealthTransition::Suspected);
        assert_eq!(health.apply(Evidence::Firm(REFUSED), t), HealthTransition::WentDown);
        assert_eq!(health.apply(Evidence::Pass, t), HealthTransition::Returning);
        assert_eq!(health.apply(Evidence::Pass, t), HealthTransition::Restored);
    }
}
