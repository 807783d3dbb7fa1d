//! The failure history of an endpoint, and the operator orders that concern it.
//!
//! Most endpoints never have either, so both are in one box that is allocated on first use: with a
//! hundred thousand endpoints this keeps the rest of the endpoint small.

use std::collections::VecDeque;
use std::time::Instant;

use crate::logic::director::event::EvidenceSource;
use crate::logic::director::orders::endpoint_orders::EndpointOrders;
use crate::logic::health::recovery::FlapHistory;
use crate::logic::model::outcome::Failure;
use crate::logic::model::topology::RecoverySpec;

/// Pieces of evidence that are kept for `explain`.
const EVIDENCE_HISTORY_LEN: usize = 4;

/// A piece of evidence against an endpoint, and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvidenceRecord {
    /// When it was applied.
    pub at: Instant,
    pub source: EvidenceSource,
    pub failure: Failure,
}

#[derive(Debug, Default)]
pub(crate) struct EvidenceHistory {
    rare: Option<Box<RareState>>,
}

#[derive(Debug, Default)]
struct RareState {
    evidence: VecDeque<EvidenceRecord>,
    /// The cause of the verdict, while the verdict is down.
    cause: Option<EvidenceRecord>,
    last_strike: Option<Instant>,
    /// The first failure of a connection among the latest strikes in a row.
    first_connection_failure: Option<Instant>,
    flaps: FlapHistory,
    held_until: Option<Instant>,
    outlier_check_at: Option<Instant>,
    operator_orders: Option<Box<EndpointOrders>>,
}

impl EvidenceHistory {
    /// The record of another process.
    pub(crate) fn import(
        &mut self,
        cause: Option<EvidenceRecord>,
        evidence: Vec<EvidenceRecord>,
        flaps: FlapHistory,
        held_until: Option<Instant>,
    ) {
        let has_rare_state = held_until.is_some()
            || flaps.last_down.is_some()
            || cause.is_some()
            || !evidence.is_empty();
        if has_rare_state {
            let rare = self.rare_mut();
            (rare.held_until, rare.flaps) = (held_until, flaps);
            (rare.cause, rare.evidence) = (cause, evidence.into());
        }
    }

    pub(crate) fn last_strike(&self) -> Option<Instant> {
        self.rare.as_ref()?.last_strike
    }

    pub(crate) fn first_connection_failure(&self) -> Option<Instant> {
        self.rare.as_ref()?.first_connection_failure
    }

    /// The end of the hold-down, which may have passed.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.rare.as_ref()?.held_until
    }

    pub(crate) fn flaps(&self) -> FlapHistory {
        self.rare.as_ref().map(|rare| rare.flaps).unwrap_or_default()
    }

    pub(crate) fn operator_orders(&self) -> Option<&EndpointOrders> {
        self.rare.as_ref()?.operator_orders.as_deref()
    }

    pub(crate) fn operator_orders_mut(&mut self) -> Option<&mut EndpointOrders> {
        self.rare.as_mut()?.operator_orders.as_deref_mut()
    }

    /// The cause of the verdict, while the verdict is down.
    pub(crate) fn cause(&self) -> Option<EvidenceRecord> {
        self.rare.as_ref()?.cause
    }

    /// The latest evidence, oldest first.
    pub(crate) fn evidence(&self) -> impl Iterator<Item = &EvidenceRecord> {
        self.rare.iter().flat_map(|rare| &rare.evidence)
    }

    /// Records a strike. Evidence after a verdict must not push out the evidence that led to it.
    pub(crate) fn record_evidence(
        &mut self,
        now: Instant,
        source: EvidenceSource,
        failure: Failure,
    ) {
        let rare = self.rare_mut();
        if rare.cause.is_some() {
            return;
        }
        if rare.evidence.len() >= EVIDENCE_HISTORY_LEN {
            rare.evidence.pop_front();
        }
        rare.evidence.push_back(EvidenceRecord { at: now, source, failure });
    }

    /// Records the strike that makes the verdict.
    pub(crate) fn record_cause(&mut self, now: Instant, source: EvidenceSource, failure: Failure) {
        self.record_evidence(now, source, failure);
        self.rare_mut().cause = Some(EvidenceRecord { at: now, source, failure });
    }

    /// The verdict is over.
    pub(crate) fn clear_cause(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.cause = None;
        }
    }

    pub(crate) fn record_strike_time(&mut self, now: Instant) {
        self.rare_mut().last_strike = Some(now);
    }

    /// Whether this failure of a connection is the first since the endpoint last passed.
    pub(crate) fn record_connection_failure(&mut self, now: Instant) -> bool {
        let is_first = self.first_connection_failure().is_none();
        if is_first {
            self.rare_mut().first_connection_failure = Some(now);
        }
        is_first
    }

    pub(crate) fn take_connection_failure(&mut self) -> Option<Instant> {
        self.rare.as_mut()?.first_connection_failure.take()
    }

    /// Counts a verdict, and holds the endpoint down for as long as its flaps demand.
    pub(crate) fn begin_hold_down(&mut self, recovery: &RecoverySpec, now: Instant) {
        let rare = self.rare_mut();
        rare.held_until = Some(now + rare.flaps.record_down(recovery, now));
    }

    /// Counts a verdict by traffic; returns the end of its hold, which has at least the configured
    /// length.
    pub(crate) fn begin_ejection(&mut self, recovery: &RecoverySpec, now: Instant) -> Instant {
        now + recovery.hold_down.max(self.rare_mut().flaps.record_down(recovery, now))
    }

    /// Lets the hold-down last until `until` at least.
    pub(crate) fn extend_hold_down(&mut self, until: Instant) {
        let rare = self.rare_mut();
        rare.held_until = rare.held_until.max(Some(until));
    }

    pub(crate) fn clear_hold_down(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.held_until = None;
        }
    }

    /// Plans the next outlier check; returns the one that it replaces.
    pub(crate) fn plan_outlier_check(&mut self, at: Instant) -> Option<Instant> {
        self.rare_mut().outlier_check_at.replace(at)
    }

    pub(crate) fn clear_outlier_check(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.outlier_check_at = None;
        }
    }

    pub(crate) fn set_operator_orders(&mut self, orders: Option<EndpointOrders>) {
        if orders.is_some() || self.operator_orders().is_some() {
            self.rare_mut().operator_orders = orders.map(Box::new);
        }
    }

    fn rare_mut(&mut self) -> &mut RareState {
        self.rare.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::outcome::FailureReason;
    use std::time::Duration;

    const REFUSED: Failure = Failure::connect(FailureReason::Refused);

    #[test]
    fn evidence_after_the_verdict_is_not_recorded() {
        let (mut history, now) = (EvidenceHistory::default(), Instant::now());
        let at = |n| now + Duration::from_secs(n);
        (0..5).for_each(|n| history.record_evidence(at(n), EvidenceSource::Probe, REFUSED));
        history.record_cause(at(5), EvidenceSource::Traffic, REFUSED);
        history.record_evidence(at(6), EvidenceSource::Probe, REFUSED);
        let times: Vec<Instant> = history.evidence().map(|record| record.at).collect();
        assert_eq!(times, [at(2), at(3), at(4), at(5)]);
        history.clear_cause();
        assert_eq!(history.cause(), None);
    }

    #[test]
    fn only_the_first_connection_failure_in_a_row_counts() {
        let (mut history, now) = (EvidenceHistory::default(), Instant::now());
        assert!(history.record_connection_failure(now));
        assert!(!history.record_connection_failure(now + Duration::from_secs(1)));
        assert_eq!(history.take_connection_failure(), Some(now));
        assert!(history.record_connection_failure(now));
    }
}
