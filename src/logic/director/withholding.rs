//! Withheld verdicts: the eviction budget is spent, or probes contradict traffic.

use std::time::Instant;

use super::Director;
use super::endpoint::DatedEvidence;
use super::endpoint::state::{EndpointState, WithheldReason};
use super::event::{Divergence, Event, EvidenceSource};
use super::outlier::state::OutlierState;
use super::pools::divergence::DivergenceCheck;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::{Failure, FailureClass};

impl Director {
    /// The reason to withhold the verdict that `dated` makes due, if any.
    pub(super) fn reason_to_withhold(
        &mut self,
        id: EndpointId,
        failure: Failure,
        dated: DatedEvidence,
        now: Instant,
    ) -> Option<WithheldReason> {
        let epoch = self.epoch;
        let endpoint = self.endpoints.get_mut(id)?;
        // An endpoint that is down by traffic already uses no more of the budget.
        if endpoint.is_unknown() || endpoint.is_down() {
            return None;
        }
        let (state, location) = (endpoint.state(), endpoint.location());
        // Requests must have been answered after the first of the latest probes had failed.
        let since = match state {
            EndpointState::Suspect { .. } => endpoint.since(),
            _ => dated.began(),
        };
        let has_responses = endpoint.last_response(epoch).is_some_and(|answer| answer >= since);
        let is_definitive = dated.source() == EvidenceSource::Probe
            && matches!(failure.class(), FailureClass::BadStatus | FailureClass::Tls)
            && state.outlier() == OutlierState::Normal;
        if is_definitive && has_responses && endpoint.set_contradicted() {
            self.pools[location.pool()].divergence_mut().add_contradicted();
        }
        let is_contradicted = endpoint.is_contradicted();
        let reason = if is_definitive
            && is_contradicted
            && self.should_ignore_probes(location.pool(), now)
        {
            WithheldReason::Divergence
        } else if !self.pools[location.pool()].can_evict(location.zone(), 1) {
            WithheldReason::Budget
        } else {
            return None;
        };
        let endpoint = self.endpoints.get(id)?;
        if endpoint.state().withheld() != Some(reason) {
            let subject = endpoint.subject();
            self.pools[location.pool()].count_withheld();
            self.push_event(Event::VerdictWithheld { subject, failure, reason });
        }
        Some(reason)
    }

    /// Whether probes fail in so much of a pool, while its traffic succeeds, that they are ignored.
    /// When that begins, the endpoints that they alone put down return.
    fn should_ignore_probes(&mut self, pool: usize, now: Instant) -> bool {
        let state = &mut self.pools[pool];
        let all = state.counts().all();
        match state.divergence_mut().check(all) {
            DivergenceCheck::Absent => return false,
            DivergenceCheck::Ongoing => return true,
            DivergenceCheck::Began => {}
        }
        let (name, members) = (state.spec().name.clone(), state.members().clone());
        self.push_event(Event::Divergence(Divergence::ProbesFail { pool: name, is_active: true }));
        for &id in &*members {
            let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
            if endpoint.is_contradicted() && endpoint.is_down() {
                let before = endpoint.verdict();
                endpoint.ignore_probes();
                self.apply_verdict_change(id, before, now);
            }
        }
        true
    }

    /// Ends a divergence when less than half as many endpoints contradict as began it.
    pub(super) fn end_resolved_divergence(&mut self, pool: usize) {
        let state = &mut self.pools[pool];
        let all = state.counts().all();
        if state.divergence_mut().end_if_resolved(all) {
            let pool = state.spec().name.clone();
            self.push_event(Event::Divergence(Divergence::ProbesFail { pool, is_active: false }));
        }
    }
}
