//! The state of one endpoint: the combination of its probes, its requests, its zone and the
//! protections.
//!
//! Inputs are evidence, the outlier test's decisions and the fall or return of the zone. Outputs
//! are the verdict ([`EndpointState::verdict`]) and the one function that publishes it,
//! [`EndpointState::eligibility`]. A variant carries exactly the data that is possible in it: an
//! endpoint that its probes put down has no trials and no withheld verdict, one that never passed
//! has not fallen with its zone.

use std::time::Instant;

use crate::logic::director::eligibility::Eligibility;
use crate::logic::director::outlier::state::{EjectionStage, OutlierState};
use crate::logic::health::endpoint_health::{Health, HealthThresholds, HealthTransition};
use crate::logic::health::evidence::Evidence;
use crate::logic::model::outcome::Failure;
use crate::logic::model::topology::PoolSpec;

/// Why an endpoint with enough strikes is still in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithheldReason {
    /// The eviction budget is spent.
    Budget,
    /// Probes fail in much of the pool while traffic succeeds.
    Divergence,
}

impl WithheldReason {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Divergence => "divergence",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        [Self::Budget, Self::Divergence].into_iter().find(|one| one.as_str() == word)
    }
}

/// The state of an endpoint since the last fall of its zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ZoneRecovery {
    /// Its own evidence decides.
    #[default]
    Independent,
    /// The zone went down at this time, and no later probe has shown that the endpoint is an
    /// exception.
    Unproven(Instant),
}

/// What qualifies the service of an endpoint that its probes allow to serve.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ServiceConditions {
    traffic: OutlierState,
    zone: ZoneRecovery,
    withheld: Option<WithheldReason>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum EndpointState {
    /// No pass yet: it serves only where the pool is optimistic, and may fail requests there.
    Unknown { strikes: u32, traffic: OutlierState },
    /// Its probes pass.
    Up(ServiceConditions),
    /// Its probes or connections have begun to fail.
    Suspect { strikes: u32, failure: Failure, conditions: ServiceConditions },
    /// Probes or failed connections made the verdict.
    Down { failure: Failure, zone: ZoneRecovery },
    /// Its probes pass again, but not yet often enough.
    Returning { passes: u32, failure: Failure, zone: ZoneRecovery },
}

impl EndpointState {
    /// The state of an unknown endpoint.
    pub(crate) const NEW: Self = Self::Unknown { strikes: 0, traffic: OutlierState::Normal };

    /// The state for this `health` by probes and these `conditions`.
    pub(crate) fn from_parts(health: Health, conditions: ServiceConditions) -> Self {
        let ServiceConditions { traffic, zone, .. } = conditions;
        match health {
            Health::Unknown { strikes } => Self::Unknown { strikes, traffic },
            Health::Up => Self::Up(conditions),
            Health::Suspect { strikes, failure } => Self::Suspect { strikes, failure, conditions },
            Health::Down { failure } => Self::Down { failure, zone },
            Health::Returning { passes, failure } => Self::Returning { passes, failure, zone },
        }
    }

    /// The verdict of probes and failed connections alone.
    pub(crate) fn probe_verdict(self) -> Health {
        match self {
            Self::Unknown { strikes, .. } => Health::Unknown { strikes },
            Self::Up(_) => Health::Up,
            Self::Suspect { strikes, failure, .. } => Health::Suspect { strikes, failure },
            Self::Down { failure, .. } => Health::Down { failure },
            Self::Returning { passes, failure, .. } => Health::Returning { passes, failure },
        }
    }

    /// The verdict of all evidence together.
    pub(crate) fn verdict(self) -> Health {
        match (self.probe_verdict(), self.outlier()) {
            (Health::Up | Health::Suspect { .. }, OutlierState::Ejected(ejection)) => {
                Health::Down { failure: ejection.failure() }
            }
            (Health::Up, OutlierState::Doubted { failure }) => {
                Health::Suspect { strikes: 1, failure }
            }
            (health, _) => health,
        }
    }

    /// The requests that the endpoint may receive, drains apart.
    pub(crate) fn eligibility(self, pool: &PoolSpec) -> Eligibility {
        match self {
            Self::Unknown { .. } if pool.is_optimistic => Eligibility::Clear,
            Self::Unknown { .. } => Eligibility::Unknown,
            Self::Up(conditions) => match conditions.restriction() {
                Some(restricted) => restricted,
                None if conditions.traffic.doubt().is_some() => Eligibility::Doubted,
                None => Eligibility::Clear,
            },
            Self::Suspect { conditions, .. } => match conditions.restriction() {
                Some(restricted) => restricted,
                None => Eligibility::Suspect,
            },
            Self::Down { .. } => Eligibility::Out,
            Self::Returning { passes, .. } if passes >= pool.detect.up_after => {
                Eligibility::LastResort
            }
            Self::Returning { .. } => Eligibility::Out,
        }
    }

    pub(crate) fn outlier(self) -> OutlierState {
        match self {
            Self::Unknown { traffic, .. } => traffic,
            _ => self.conditions().map_or(OutlierState::Normal, |conditions| conditions.traffic),
        }
    }

    pub(crate) fn zone_recovery(self) -> ZoneRecovery {
        match self {
            Self::Unknown { .. } => ZoneRecovery::Independent,
            Self::Up(conditions) | Self::Suspect { conditions, .. } => conditions.zone,
            Self::Down { zone, .. } | Self::Returning { zone, .. } => zone,
        }
    }

    pub(crate) fn withheld(self) -> Option<WithheldReason> {
        self.conditions()?.withheld
    }

    /// Up, and nothing qualifies that.
    pub(crate) fn is_unconditionally_up(self) -> bool {
        self == Self::Up(ServiceConditions::default())
    }

    /// Whether it could return at once, if its zone did. `is_held_down`: its hold-down is not over.
    pub(crate) fn is_ready(self, pool: &PoolSpec, is_held_down: bool, now: Instant) -> bool {
        match self {
            Self::Up(conditions) | Self::Suspect { conditions, .. } => match conditions.traffic {
                OutlierState::Ejected(ejection) => ejection.is_proven(now),
                OutlierState::Normal | OutlierState::Doubted { .. } => {
                    conditions.zone == ZoneRecovery::Independent
                }
            },
            Self::Returning { passes, .. } => passes >= pool.detect.up_after && !is_held_down,
            Self::Unknown { .. } | Self::Down { .. } => false,
        }
    }

    /// Applies one piece of evidence to the verdict machine of the probes.
    pub(crate) fn apply(
        &mut self,
        evidence: Evidence,
        thresholds: HealthThresholds,
    ) -> HealthTransition {
        let mut health = self.probe_verdict();
        let transition = health.apply(evidence, thresholds);
        self.set_probe_verdict(health);
        transition
    }

    /// Sets it up by its probes, regardless of their results before.
    pub(crate) fn mark_up(&mut self) {
        self.set_probe_verdict(Health::Up);
    }

    /// Takes it down with its zone, if it is a suspect; returns the failure that made it a suspect.
    pub(crate) fn fall_as_suspect(&mut self) -> Option<Failure> {
        let Self::Suspect { failure, conditions, .. } = *self else { return None };
        *self = Self::Down { failure, zone: conditions.zone };
        Some(failure)
    }

    /// Marks it unproven since its zone fell, if it is in service; returns whether it is.
    pub(crate) fn mark_unproven(&mut self, since: Instant) -> bool {
        let conditions = self.conditions_mut();
        conditions.map(|conditions| conditions.zone = ZoneRecovery::Unproven(since)).is_some()
    }

    /// Ends the unproven state after the fall of its zone.
    pub(crate) fn mark_independent(&mut self) {
        match self {
            Self::Unknown { .. } => {}
            Self::Up(conditions) | Self::Suspect { conditions, .. } => {
                conditions.zone = ZoneRecovery::Independent;
            }
            Self::Down { zone, .. } | Self::Returning { zone, .. } => {
                *zone = ZoneRecovery::Independent;
            }
        }
    }

    /// Sets the verdict of traffic; without effect on an endpoint that its probes put down.
    pub(crate) fn set_outlier(&mut self, outlier: OutlierState) {
        match self {
            Self::Unknown { traffic, .. } => *traffic = outlier,
            Self::Up(conditions) | Self::Suspect { conditions, .. } => conditions.traffic = outlier,
            Self::Down { .. } | Self::Returning { .. } => {}
        }
    }

    pub(crate) fn set_withheld(&mut self, reason: Option<WithheldReason>) {
        if let Some(conditions) = self.conditions_mut() {
            conditions.withheld = reason;
        }
    }

    fn set_probe_verdict(&mut self, health: Health) {
        let conditions = ServiceConditions {
            traffic: self.outlier(),
            zone: self.zone_recovery(),
            withheld: self.withheld(),
        };
        *self = Self::from_parts(health, conditions);
    }

    fn conditions(self) -> Option<ServiceConditions> {
        match self {
            Self::Up(conditions) | Self::Suspect { conditions, .. } => Some(conditions),
            Self::Unknown { .. } | Self::Down { .. } | Self::Returning { .. } => None,
        }
    }

    fn conditions_mut(&mut self) -> Option<&mut ServiceConditions> {
        match self {
            Self::Up(conditions) | Self::Suspect { conditions, .. } => Some(conditions),
            Self::Unknown { .. } | Self::Down { .. } | Self::Returning { .. } => None,
        }
    }
}

impl ServiceConditions {
    pub(crate) fn new(
        traffic: OutlierState,
        zone: ZoneRecovery,
        withheld: Option<WithheldReason>,
    ) -> Self {
        Self { traffic, zone, withheld }
    }

    /// What the conditions allow, if they and not the probes decide: an ejection outranks all; a
    /// zone's fall outranks the probes; a withheld verdict restores full service.
    fn restriction(self) -> Option<Eligibility> {
        if let OutlierState::Ejected(ejection) = self.traffic {
            return Some(match ejection.stage() {
                EjectionStage::OnTrial { .. } => Eligibility::Trial,
                EjectionStage::Held { .. } => Eligibility::Out,
            });
        }
        if self.zone != ZoneRecovery::Independent {
            return Some(Eligibility::LastResort);
        }
        self.withheld.map(|_| Eligibility::Clear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::director::outlier::state::Ejection;
    use crate::logic::model::outcome::FailureReason;

    const REFUSED: Failure = Failure::connect(FailureReason::Refused);
    const BAD_STATUS: Failure = Failure::http(FailureReason::Status(500));

    fn spec() -> PoolSpec {
        PoolSpec::new("web", Vec::new())
    }

    fn doubted() -> OutlierState {
        OutlierState::Doubted { failure: BAD_STATUS }
    }

    fn thresholds() -> HealthThresholds {
        HealthThresholds { down_after: 2, up_after: 2 }
    }

    fn up(traffic: OutlierState, zone: ZoneRecovery) -> EndpointState {
        EndpointState::Up(ServiceConditions::new(traffic, zone, None))
    }

    #[test]
    fn unknown_serves_only_in_an_optimistic_pool() {
        let optimistic = PoolSpec { is_optimistic: true, ..spec() };
        assert_eq!(EndpointState::NEW.eligibility(&spec()), Eligibility::Unknown);
        assert_eq!(EndpointState::NEW.eligibility(&optimistic), Eligibility::Clear);
    }

    #[test]
    fn traffic_outranks_passing_probes() {
        let now = Instant::now();
        let ejected = OutlierState::Ejected(Ejection::held(BAD_STATUS, now));
        let mut state = up(ejected, ZoneRecovery::Independent);
        assert_eq!(state.apply(Evidence::Pass, thresholds()), HealthTransition::None);
        assert_eq!(state.verdict(), Health::Down { failure: BAD_STATUS });
        assert_eq!(state.eligibility(&spec()), Eligibility::Out);
        let doubted = up(doubted(), ZoneRecovery::Independent);
        assert_eq!(doubted.eligibility(&spec()), Eligibility::Doubted);
        assert_eq!(doubted.verdict(), Health::Suspect { strikes: 1, failure: BAD_STATUS });
    }

    #[test]
    fn unproven_endpoint_is_the_last_resort_until_marked() {
        let now = Instant::now();
        let mut state = EndpointState::Up(ServiceConditions::default());
        assert!(state.mark_unproven(now));
        assert_eq!(state.eligibility(&spec()), Eligibility::LastResort);
        assert!(!state.is_ready(&spec(), false, now));
        state.mark_independent();
        assert!(state.is_unconditionally_up() && state.is_ready(&spec(), false, now));
        let mut new = EndpointState::NEW;
        assert!(!new.mark_unproven(now), "it never served");
    }

    #[test]
    fn withheld_verdict_keeps_a_suspect_in_full_service() {
        let conditions = ServiceConditions::new(
            OutlierState::Normal,
            ZoneRecovery::Independent,
            Some(WithheldReason::Budget),
        );
        let suspect = EndpointState::Suspect { strikes: 2, failure: REFUSED, conditions };
        assert_eq!(suspect.eligibility(&spec()), Eligibility::Clear);
        let plain = ServiceConditions { withheld: None, ..conditions };
        let suspect = EndpointState::Suspect { strikes: 2, failure: REFUSED, conditions: plain };
        assert_eq!(suspect.eligibility(&spec()), Eligibility::Suspect);
    }

    #[test]
    fn probe_verdict_down_drops_doubt_and_keeps_zone_recovery() {
        let now = Instant::now();
        let mut state = up(doubted(), ZoneRecovery::Unproven(now));
        state.apply(Evidence::Firm(REFUSED), thresholds());
        assert_eq!(state.apply(Evidence::Firm(REFUSED), thresholds()), HealthTransition::WentDown);
        let zone = ZoneRecovery::Unproven(now);
        assert_eq!(state, EndpointState::Down { failure: REFUSED, zone });
        state.mark_up();
        assert_eq!(state, up(OutlierState::Normal, zone));
    }

    #[test]
    fn suspect_falls_with_its_zone_for_its_own_failure() {
        let mut state = EndpointState::Up(ServiceConditions::default());
        assert_eq!(state.fall_as_suspect(), None);
        state.apply(Evidence::Firm(REFUSED), thresholds());
        assert_eq!(state.fall_as_suspect(), Some(REFUSED));
        assert!(state.verdict().is_down());
    }
}
