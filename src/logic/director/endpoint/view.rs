//! Everything that is derived from an endpoint's state.

use super::state::EndpointState;
use crate::logic::director::orders::endpoint_orders::{EndpointOrders, OrderedShare};
use crate::logic::director::outlier::state::OutlierState;
use crate::logic::health::endpoint_health::Health;
use crate::logic::incident::IncidentImpact;
use crate::logic::model::outcome::Failure;
use crate::logic::model::snapshot::FailoverCounts;
use crate::logic::probing::probe_schedule;
use std::time::{Duration, Instant};

use super::{
    AnswerGrade, EndpointMachine, HealthOrigin, Membership, ProbeAgreement, TransitionReport,
    instant_at,
};

/// Queries of the verdict and of the traits.
impl EndpointMachine {
    /// The verdict of all evidence together.
    pub(crate) fn verdict(&self) -> Health {
        self.state.verdict()
    }

    /// Whether its probes, and no traffic, decide that it receives nothing.
    pub(crate) fn is_down_by_probes(&self) -> bool {
        !self.state.probe_verdict().can_serve(true)
    }

    /// Up, and a pass would change nothing at all.
    pub(crate) fn is_fully_healthy(&self) -> bool {
        self.state.is_unconditionally_up()
            && self.history.first_connection_failure().is_none()
            && !self.is_contradicted()
            && self.traits.origin == HealthOrigin::Observed
    }

    pub(crate) fn can_serve(&self) -> bool {
        self.verdict().can_serve(self.pool.is_optimistic)
    }

    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.state, EndpointState::Unknown { .. })
    }

    /// The failure for which it is down; `None` if it is not.
    pub(crate) fn down_failure(&self) -> Option<Failure> {
        match self.verdict() {
            Health::Down { failure } | Health::Returning { failure, .. } => Some(failure),
            Health::Unknown { .. } | Health::Up | Health::Suspect { .. } => None,
        }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down_failure().is_some()
    }

    pub(crate) fn has_been_up(&self) -> bool {
        self.up_since.is_some()
    }

    /// Whether it could return at once, if its zone did.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.state.is_ready(&self.pool, self.is_held_down(now), now)
    }

    pub(crate) fn is_held_down(&self, now: Instant) -> bool {
        self.history.held_until().is_some_and(|until| now < until)
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.traits.grade == AnswerGrade::Degraded
    }

    pub(crate) fn is_contradicted(&self) -> bool {
        self.traits.agreement == ProbeAgreement::Contradicted
    }

    pub(crate) fn is_late_addition(&self) -> bool {
        self.traits.membership == Membership::LateAddition
    }

    pub(crate) fn is_report_pending(&self) -> bool {
        self.traits.report == TransitionReport::Pending
    }

    /// The parts of its share and of its capacity that orders leave.
    pub(crate) fn ordered_share(&self, now: Instant) -> OrderedShare {
        self.history
            .operator_orders()
            .map_or(OrderedShare::FULL, |orders| orders.ordered_share(now))
    }

    /// Whether an order leaves it no share: then its failures are no incidents.
    pub(crate) fn is_drained(&self) -> bool {
        self.history.operator_orders().is_some_and(EndpointOrders::is_drained)
    }

    /// When live traffic was last answered well.
    pub(crate) fn last_response(&self, epoch: Instant) -> Option<Instant> {
        instant_at(epoch, self.stats.last_good_us())
    }

    /// The start of the last probe that passed.
    #[cfg(test)]
    pub(crate) fn last_pass(&self) -> Option<Instant> {
        self.last_pass
    }

    /// The last proof of life, by probe or by traffic.
    pub(crate) fn last_success(&self, epoch: Instant) -> Option<Instant> {
        self.last_pass.max(self.last_response(epoch))
    }

    /// The results of requests since the last proof of life while up.
    pub(crate) fn incident_impact(&self, epoch: Instant) -> IncidentImpact {
        let (all, before) = (self.stats.failover_counts(), self.impact.counts);
        let counts = FailoverCounts {
            failed: all.failed - before.failed,
            rescued: all.rescued - before.rescued,
            late: all.late - before.late,
        };
        let last_us = self.stats.last_failure_us();
        let is_new = last_us > self.impact.last_failure_us;
        let last_failure = if is_new { instant_at(epoch, last_us) } else { None };
        IncidentImpact { counts, client_failures: self.stats.client_failures(), last_failure }
    }

    /// The duration of the fastest of its latest probes: about a round trip.
    pub(crate) fn round_trip(&self, epoch: Instant) -> Option<Duration> {
        self.probes.history().iter(epoch).filter_map(|(_, _, outcome)| outcome.latency()).min()
    }

    /// The period of its regular probes in the present state.
    pub(crate) fn probe_period(&self, in_panic: bool) -> Duration {
        let detect = &self.pool.detect;
        match self.state.probe_verdict() {
            Health::Up if self.state.outlier() == OutlierState::Normal => detect.interval,
            // In panic every endpoint has requests.
            Health::Down { .. } if in_panic => detect.fast_interval,
            Health::Down { .. } => detect.down_interval,
            Health::Up => detect.fast_interval,
            health => probe_schedule::probe_period(health, detect),
        }
    }
}
