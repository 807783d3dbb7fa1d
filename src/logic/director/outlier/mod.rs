//! Verdicts by results of requests: endpoints are doubted, ejected, tried and returned.
//!
//! Traffic outranks probes: no passing probe ends a doubt or an ejection. A doubted endpoint
//! receives only repeatable requests, an ejected one a single such request from time to time; it
//! returns when a row of these was answered well.

pub(crate) mod checks;
pub(crate) mod ratios;
pub(crate) mod state;

use std::time::Instant;

use super::eligibility::Eligibility;
use super::event::{Divergence, Event, EvidenceSource};
use super::zones::ZoneFailureCause;
use super::{Director, EndpointMachine};
use crate::logic::health::endpoint_health::Health;
use crate::logic::health::failure_ratio::{CLEAR_SCORE, SUSPECT_SCORE, VERDICT_SCORE};
use crate::logic::model::endpoint_stats::AttemptCounts;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::Failure;
use state::{Ejection, OutlierState, TrialReport};

/// The number of endpoints with failed requests that a verdict by traffic on their zone needs.
const MIN_ZONE_WITNESSES: u32 = 2;

/// Recent failures, decayed, from which on an endpoint counts as failing for its zone.
const MIN_WITNESS_FAILURES: f32 = 0.5;

impl Director {
    /// Evaluates the results of requests at an endpoint since the last evaluation. `failure` is the
    /// reported one, if a report is the occasion.
    pub(super) fn evaluate_outlier(
        &mut self,
        id: EndpointId,
        failure: Option<Failure>,
        now: Instant,
    ) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let stats = endpoint.stats().clone();
        let attempts = endpoint.ratio_mut().take_new_attempts(&stats);
        if endpoint.is_down_by_probes() || attempts == AttemptCounts::default() && failure.is_none()
        {
            // The probes see the failure, and decide.
            return;
        }
        let outlier = endpoint.state().outlier();
        if let OutlierState::Ejected(ejection) = outlier {
            // Its trials are no evidence about other endpoints.
            return self.update_trials(id, ejection, attempts, now);
        }
        let (before, location) = (endpoint.verdict(), endpoint.location());
        let ratios = self.pools[location.pool()].ratios_mut();
        let scores = ratios.apply(location.zone(), endpoint.ratio_mut(), attempts, now);
        let next = doubt_after(outlier, scores.endpoint(), failure);
        if let (OutlierState::Normal, Some(failure)) = (outlier, next.doubt()) {
            endpoint.history_mut().record_evidence(now, EvidenceSource::Traffic, failure);
        }
        endpoint.set_outlier(next);
        self.apply_verdict_change(id, before, now);
        if let Some(failure) = next.doubt() {
            self.schedule_outlier_check(id, now, now);
            if scores.endpoint() > VERDICT_SCORE {
                self.try_eject(id, failure, now);
            }
            if scores.zone() > VERDICT_SCORE {
                self.try_eject_zone(location.pool(), location.zone(), failure, now);
            }
        }
    }

    /// Plans the next evaluation of an endpoint, not before `earliest`.
    pub(super) fn schedule_outlier_check(
        &mut self,
        id: EndpointId,
        earliest: Instant,
        now: Instant,
    ) {
        self.plan_outlier_check(id, earliest.max(self.outlier_checks.next_check(now)));
    }

    fn plan_outlier_check(&mut self, id: EndpointId, at: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let replaced = endpoint.history_mut().plan_outlier_check(at);
        self.outlier_checks.schedule(id, at, replaced);
    }

    /// Evaluates the endpoints that are due.
    pub(super) fn run_outlier_checks(&mut self, now: Instant) {
        while let Some(id) = self.outlier_checks.pop_due(now) {
            let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
            endpoint.history_mut().clear_outlier_check();
            match endpoint.state().outlier() {
                OutlierState::Normal => {}
                OutlierState::Doubted { failure } => self.reevaluate_outlier(id, failure, now),
                OutlierState::Ejected(ejection) => {
                    let stats = endpoint.stats().clone();
                    let attempts = endpoint.ratio_mut().take_new_attempts(&stats);
                    self.update_trials(id, ejection, attempts, now);
                }
            }
        }
    }

    fn reevaluate_outlier(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        self.evaluate_outlier(id, Some(failure), now);
        if self.endpoints.get(id).is_some_and(|one| one.state().outlier().doubt().is_some()) {
            self.schedule_outlier_check(id, now, now);
        }
    }

    /// Ejects an endpoint for its results of requests, if another endpoint can serve them.
    fn try_eject(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        let Some(endpoint) = self.endpoints.get(id) else { return };
        let location = endpoint.location();
        let pool = &self.pools[location.pool()];
        let is_clear = endpoint.state().eligibility(endpoint.pool()) == Eligibility::Clear;
        if pool.counts().clear() - u32::from(is_clear) == 0 {
            // None is better: none is ejected, and those that were are no worse than the rest.
            return self.uneject_all(location.pool(), now);
        }
        if pool.can_evict(location.zone(), 1) {
            self.eject(id, failure, now);
        }
    }

    /// Takes a zone down as a whole if failures are spread over its endpoints.
    fn try_eject_zone(&mut self, pool: usize, zone: usize, failure: Failure, now: Instant) {
        let (state, pool_state) = (self.pools[pool].zone(zone), &self.pools[pool]);
        if state.is_down()
            || !pool_state.has_clear_outside(zone)
            || !pool_state.can_evict_zone(zone)
        {
            return;
        }
        let members = state.roster().ids().to_vec();
        let bad = members.iter().filter_map(|&id| self.endpoints.get(id));
        let bad: Vec<f32> = bad.map(|endpoint| endpoint.ratio().recent().bad()).collect();
        let (sum, most) = (bad.iter().sum::<f32>(), bad.iter().copied().fold(0.0, f32::max));
        let witnesses = bad.iter().filter(|&&bad| bad >= MIN_WITNESS_FAILURES).count() as u32;
        let is_spread = most < 0.7 * sum && witnesses >= MIN_ZONE_WITNESSES;
        if !is_spread {
            return;
        }
        let cause = ZoneFailureCause::new(failure, EvidenceSource::Traffic, witnesses);
        self.fail_zone(pool, zone, cause, now);
        for id in members {
            if self.endpoints.get(id).is_some_and(EndpointMachine::can_serve) {
                self.eject(id, failure, now);
            }
        }
    }

    fn eject(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let before = endpoint.verdict();
        let until = endpoint.eject(failure, now);
        let explained = endpoint.ratio_mut().take_recent(now);
        let location = endpoint.location();
        let probe_passes = endpoint.state().probe_verdict() == Health::Up;
        let subject = endpoint.subject();
        self.pools[location.pool()].ratios_mut().discount(location.zone(), explained, now);
        self.plan_outlier_check(id, until);
        self.apply_verdict_change(id, before, now);
        if probe_passes {
            self.push_event(Event::Divergence(Divergence::TrafficFails { subject, failure }));
        }
    }

    /// Returns all that traffic put down, under suspicion.
    fn uneject_all(&mut self, pool: usize, now: Instant) {
        if self.pools[pool].counts().ejected() == 0 {
            return;
        }
        let zones = self.pools[pool].zones().iter();
        let members: Vec<EndpointId> =
            zones.flat_map(|zone| zone.roster().ids().iter().copied()).collect();
        members.into_iter().for_each(|id| self.uneject(id, now));
    }

    /// Applies the trials of an ejected endpoint.
    fn update_trials(
        &mut self,
        id: EndpointId,
        ejection: Ejection,
        attempts: AttemptCounts,
        now: Instant,
    ) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let report = TrialReport::new(attempts, endpoint.stats().trial_count());
        let (ejection, schedule) = ejection.advance(report, now);
        if let Some(schedule) = schedule {
            let now_us = now.saturating_duration_since(self.epoch).as_micros() as u64;
            schedule.apply(endpoint.stats(), now_us);
        }
        endpoint.set_outlier(OutlierState::Ejected(ejection));
        let pool = endpoint.location().pool();
        self.update_eligibility(id, now);
        self.schedule_outlier_check(id, ejection.held_until().unwrap_or(now), now);
        // Where its zone is down it may be the one that the zone's return has waited for.
        let has_no_better_endpoint =
            ejection.is_on_trial() && self.pools[pool].counts().clear() == 0;
        if has_no_better_endpoint || ejection.is_proven(now) && self.can_return(id, now) {
            self.uneject(id, now);
        }
    }

    /// Returns an ejected endpoint: it receives repeatable requests until the doubt ends.
    pub(super) fn uneject(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let before = endpoint.verdict();
        if endpoint.uneject() {
            self.apply_verdict_change(id, before, now);
            self.schedule_outlier_check(id, now, now);
        }
    }

    /// The probes see a failure too: from now on they decide.
    pub(super) fn clear_outlier_state(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let (explained, location) = (endpoint.ratio_mut().take_recent(now), endpoint.location());
        endpoint.clear_outlier();
        self.pools[location.pool()].ratios_mut().discount(location.zone(), explained, now);
    }
}

/// The doubt that a score leaves, when `failure` was reported.
fn doubt_after(outlier: OutlierState, score: f32, failure: Option<Failure>) -> OutlierState {
    match (outlier, failure) {
        (OutlierState::Normal, Some(failure)) if score > SUSPECT_SCORE => {
            OutlierState::Doubted { failure }
        }
        (OutlierState::Doubted { .. }, _) if score < CLEAR_SCORE => OutlierState::Normal,
        (OutlierState::Doubted { .. }, Some(failure)) => OutlierState::Doubted { failure },
        (outlier, _) => outlier,
    }
}
