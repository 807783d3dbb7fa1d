//! From a piece of evidence to its consequences.

use std::time::Instant;

use crate::logic::health::endpoint_health::{Health, HealthThresholds, HealthTransition};
use crate::logic::health::evidence::Evidence;
use crate::logic::health::recovery::Ramp;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::{Failure, FailureClass, FailureReason, ProbeOutcome};
use crate::logic::probing::probe::ProbeRole;
use crate::logic::probing::probe_schedule;

use super::endpoint::{EndpointLocation, EndpointState, WithheldReason};
use super::outlier::OutlierState;
use super::{Director, Divergence, Event, EvidenceSource, ProbeTicket};

impl Director {
    pub(super) fn on_probe_result(
        &mut self,
        id: EndpointId,
        ticket: ProbeTicket,
        outcome: ProbeOutcome,
        now: Instant,
    ) {
        self.observe_probe_outcome(outcome, now);
        let epoch = self.epoch;
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let since_epoch = ticket.started.saturating_duration_since(epoch);
        endpoint.probe_history.push(since_epoch, ticket.probe, outcome);
        let index = usize::from(ticket.probe);
        let Some(check) = endpoint.checks.get_mut(index) else { return };
        let evidence = check.timer.finish(ticket.trigger, outcome, endpoint.health, now);
        let is_gate = endpoint.pool.probes.get(index).is_some_and(|p| p.role == ProbeRole::Gate);
        let evidence = evidence.filter(|_| is_gate);
        match evidence {
            Some(Evidence::Pass) => {
                // An answer to a question asked before the last strike says nothing about now.
                let is_outdated =
                    endpoint.last_strike().is_some_and(|strike| ticket.started < strike);
                let is_degraded = matches!(outcome, ProbeOutcome::Degraded { .. });
                let is_changed =
                    std::mem::replace(&mut endpoint.is_degraded, is_degraded) != is_degraded;
                let zone = &self.pools[endpoint.location.pool].zones[endpoint.location.zone];
                let is_quiet = endpoint.is_fully_healthy() && !zone.is_down();
                if endpoint.checks.len() == 1 && !is_changed && is_quiet {
                    // Nearly all probes end here.
                    endpoint.on_probe_pass(ticket.started);
                    endpoint.reset_traffic_baseline();
                    self.release_aborts(id, ticket.started);
                    return self.schedule_probe(id);
                }
                endpoint.checks[index].has_passed |= !is_outdated;
                if !is_outdated
                    && endpoint.gate_probes().all(|gate| endpoint.checks[gate].has_passed)
                {
                    endpoint.checks.iter_mut().for_each(|check| check.has_passed = false);
                    self.apply_evidence(
                        id,
                        Evidence::Pass,
                        EvidenceSource::Probe,
                        ticket.started,
                        now,
                    );
                    self.release_aborts(id, ticket.started);
                }
            }
            Some(Evidence::Firm(failure)) => {
                endpoint.checks.iter_mut().for_each(|check| check.has_passed = false);
                // A lost packet is more likely than a dead endpoint that answers requests.
                let is_vouched = failure.class() == FailureClass::Silent
                    && endpoint.last_response(epoch).is_some_and(|answer| answer >= ticket.started);
                if !is_vouched {
                    self.apply_evidence(
                        id,
                        Evidence::Firm(failure),
                        EvidenceSource::Probe,
                        ticket.started,
                        now,
                    );
                }
            }
            Some(Evidence::Soft(_)) | None => {}
        }
        self.update_eligibility(id, now);
        self.schedule_probe(id);
    }

    pub(super) fn on_traffic_failure(
        &mut self,
        id: EndpointId,
        failure: Failure,
        attempt_started: Instant,
        now: Instant,
    ) {
        let Some(endpoint) = self.endpoints.get(id) else { return };
        if !endpoint.health.can_serve(true) {
            // Heard and done with: the probes judge.
            return self.evaluate_outlier(id, None, now);
        }
        // A try that began before the endpoint came back tells of the failure that is over.
        if endpoint.up_since.is_some_and(|since| attempt_started < since) {
            let seen = endpoint.stats.collect_attempts();
            if let Some(endpoint) = self.endpoints.get_mut(id) {
                endpoint.evaluated_attempts = seen;
            }
            return;
        }
        if !failure.is_response_failure() {
            // Two lost SYNs among thousands of answers are no outage: they are a reason to look.
            let is_vouched = failure.class() == FailureClass::Silent
                && endpoint.last_success(self.epoch).is_some_and(|good| good >= attempt_started);
            let evidence = match Evidence::from_traffic(failure) {
                Evidence::Firm(failure) if is_vouched => Evidence::Soft(failure),
                evidence => evidence,
            };
            self.apply_evidence(id, evidence, EvidenceSource::Traffic, attempt_started, now);
        }
        self.start_probe_burst(id, now);
        if failure.reason != FailureReason::Stall {
            self.evaluate_outlier(id, Some(failure), now);
        }
        self.schedule_probe(id);
    }

    /// Looks at once, unless it was looked at just now.
    pub(super) fn start_probe_burst(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        if endpoint.health.can_serve(true) {
            let min_gap = endpoint.pool.detect.fast_interval;
            endpoint.checks[0].timer.begin_burst(now, min_gap);
            self.schedule_probe(id);
        }
    }

    /// Puts one piece of evidence to the endpoint and draws the consequences.
    pub(super) fn apply_evidence(
        &mut self,
        id: EndpointId,
        evidence: Evidence,
        source: EvidenceSource,
        began: Instant,
        now: Instant,
    ) {
        let Some(endpoint) = self.endpoints.get(id) else { return };
        let detect = endpoint.pool.detect;
        let zone_is_down = {
            let EndpointLocation { pool, zone, .. } = endpoint.location;
            self.pools[pool].zones[zone].is_down()
        };
        let is_held_down = zone_is_down || endpoint.is_held_down(now);
        // Where its zone has fallen already, its own first strike says enough.
        let falls_with_zone = zone_is_down
            && matches!(evidence, Evidence::Firm(failure) if failure.is_connection_level());
        let down_after = if falls_with_zone { 1 } else { detect.down_after };
        let mut thresholds = HealthThresholds {
            down_after,
            up_after: if is_held_down { u32::MAX } else { detect.up_after },
        };
        let withheld_reason = match evidence {
            Evidence::Firm(failure) if should_go_down(endpoint.health, down_after) => {
                self.reason_to_withhold(id, failure, source, (began, now))
            }
            _ => None,
        };
        if withheld_reason.is_some() {
            thresholds.down_after = u32::MAX;
        }
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let before = endpoint.verdict();
        let change = endpoint.health.apply(evidence, thresholds);
        match evidence {
            Evidence::Pass => {
                self.pools[endpoint.location.pool].contradicted -=
                    u32::from(endpoint.is_contradicted);
                endpoint.on_probe_pass(began);
                endpoint.withheld = None;
            }
            Evidence::Soft(failure) => {
                endpoint.rare_mut().last_strike = Some(now);
                endpoint.record_evidence(now, source, failure);
            }
            Evidence::Firm(failure) => {
                endpoint.rare_mut().last_strike = Some(now);
                match change {
                    HealthTransition::WentDown => endpoint.record_cause(now, source, failure),
                    _ => endpoint.record_evidence(now, source, failure),
                }
                endpoint.withheld = withheld_reason;
            }
        }
        let is_first_pass_after_import =
            evidence == Evidence::Pass && std::mem::take(&mut endpoint.is_imported);
        if change == HealthTransition::Started || is_first_pass_after_import {
            let phase =
                probe_schedule::probe_phase(&endpoint.pool.name, &endpoint.address.to_string());
            endpoint.checks.iter_mut().for_each(|c| c.timer.set_phase(now, phase, detect.interval));
        }
        self.apply_verdict_change_since(id, before, began, now);
        self.apply_consequences(id, evidence, source, now);
    }

    /// What follows from a piece of evidence beyond the endpoint's own verdict.
    fn apply_consequences(
        &mut self,
        id: EndpointId,
        evidence: Evidence,
        source: EvidenceSource,
        now: Instant,
    ) {
        match evidence {
            Evidence::Pass => {
                self.clear_connection_strike(id);
                if let Some(pool) = self.endpoints.get(id).map(|endpoint| endpoint.location.pool) {
                    self.end_resolved_divergence(pool);
                }
                if let Some(endpoint) = self.endpoints.get_mut(id) {
                    // Only now: an incident that this pass ends has been given its counts.
                    endpoint.reset_traffic_baseline();
                }
                let _ = self.can_return(id, now);
            }
            Evidence::Firm(failure) => {
                if self.endpoints.get(id).is_some_and(|endpoint| endpoint.health.is_down()) {
                    self.clear_outlier_state(id, now);
                }
                if failure.is_connection_level()
                    && self.endpoints.get(id).is_some_and(EndpointState::has_been_up)
                {
                    self.correlate(id, failure, now);
                }
                // Silence is ambiguous and its next probe asks patiently; an answer is not.
                if source == EvidenceSource::Probe && failure.class() != FailureClass::Silent {
                    self.start_probe_burst(id, now);
                }
            }
            Evidence::Soft(_) => {}
        }
        self.update_eligibility(id, now);
    }

    /// Why a verdict that is due must not be obeyed, if so.
    fn reason_to_withhold(
        &mut self,
        id: EndpointId,
        failure: Failure,
        source: EvidenceSource,
        (began, now): (Instant, Instant),
    ) -> Option<WithheldReason> {
        let epoch = self.epoch;
        let endpoint = self.endpoints.get_mut(id)?;
        // One that traffic has put down already takes nothing more from the budget.
        if endpoint.is_unknown() || endpoint.is_down() {
            return None;
        }
        let location = endpoint.location;
        // Requests must have been answered after the first probe of the row had failed.
        let since = match endpoint.health {
            Health::Suspect { .. } => endpoint.since,
            _ => began,
        };
        let has_responses = endpoint.last_response(epoch).is_some_and(|answer| answer >= since);
        let is_definitive = source == EvidenceSource::Probe
            && matches!(failure.class(), FailureClass::BadStatus | FailureClass::Tls)
            && endpoint.outlier == OutlierState::Normal;
        if is_definitive && has_responses && !endpoint.is_contradicted {
            endpoint.is_contradicted = true;
            self.pools[location.pool].contradicted += 1;
        }
        let is_contradicted =
            self.endpoints.get(id).is_some_and(|endpoint| endpoint.is_contradicted);
        let reason =
            if is_definitive && is_contradicted && self.should_ignore_probes(location.pool, now) {
                WithheldReason::Divergence
            } else if !self.can_evict(location, 1) {
                WithheldReason::Budget
            } else {
                return None;
            };
        let endpoint = self.endpoints.get(id)?;
        if endpoint.withheld != Some(reason) {
            let subject = endpoint.subject();
            self.pools[location.pool].withheld += 1;
            self.push_event(Event::VerdictWithheld { subject, failure, reason });
        }
        Some(reason)
    }

    /// Whether probes fail in so much of a pool, while its traffic succeeds, that they are not
    /// believed. When that begins, who was put down by them alone comes back.
    fn should_ignore_probes(&mut self, pool: usize, now: Instant) -> bool {
        let state = &mut self.pools[pool];
        let threshold = state.counts.all.div_ceil(2).max(2);
        if state.contradicted < threshold {
            return state.is_diverging;
        }
        if !std::mem::replace(&mut state.is_diverging, true) {
            let (name, members) = (state.spec.name.clone(), state.members.clone());
            self.push_event(Event::Divergence(Divergence::ProbesFail {
                pool: name,
                is_active: true,
            }));
            for &id in &*members {
                let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
                if endpoint.is_contradicted && endpoint.is_down() {
                    let before = endpoint.verdict();
                    endpoint.health.mark_up();
                    endpoint.withheld = Some(WithheldReason::Divergence);
                    endpoint.rare_mut().held_until = None;
                    self.apply_verdict_change(id, before, now);
                }
            }
        }
        true
    }

    /// Ends a divergence when less than half as many contradict as began it: a single endpoint that
    /// says of itself that it is not well is believed again.
    pub(super) fn end_resolved_divergence(&mut self, pool: usize) {
        let state = &mut self.pools[pool];
        let threshold = state.counts.all.div_ceil(2).max(2);
        if state.is_diverging && state.contradicted * 2 < threshold {
            state.is_diverging = false;
            let name = state.spec.name.clone();
            self.push_event(Event::Divergence(Divergence::ProbesFail {
                pool: name,
                is_active: false,
            }));
        }
    }

    /// Whether the eviction budget has room for `more` endpoints of a zone.
    pub(super) fn can_evict(&self, location: EndpointLocation, more: u32) -> bool {
        let pool = &self.pools[location.pool];
        let zone = &pool.zones[location.zone];
        let evict = &pool.spec.eviction;
        pool.counts.down + more
            <= evict.max_down_endpoints.min(percent_limit(pool.counts.all, evict.max_down_percent))
            && zone.counts.down + more
                <= percent_limit(zone.counts.all, evict.max_zone_down_percent)
    }

    /// The same for all of a zone that is not down yet.
    pub(super) fn can_evict_zone(&self, pool: usize, zone: usize) -> bool {
        let counts = self.pools[pool].zones[zone].counts;
        let location = EndpointLocation { pool, zone, position: 0, weight: 0 };
        self.can_evict(location, counts.all - counts.down)
    }

    pub(super) fn apply_verdict_change(&mut self, id: EndpointId, before: Health, now: Instant) {
        self.apply_verdict_change_since(id, before, now, now);
    }

    /// Draws the consequences of a change of an endpoint's verdict; the evidence for it began at
    /// `began`.
    pub(super) fn apply_verdict_change_since(
        &mut self,
        id: EndpointId,
        before: Health,
        began: Instant,
        now: Instant,
    ) {
        let Some((change, after)) = self.apply_transition(id, before, now) else { return };
        self.update_eligibility(id, now);
        if change != HealthTransition::None {
            if self.endpoints.get(id).is_some_and(|endpoint| endpoint.is_report_pending) {
                self.report_zone_failures();
            }
            self.report_transition(id, (change, after), began, now);
        }
        self.schedule_probe(id);
    }

    /// Tells the ledger and the operator how an endpoint's verdict has changed.
    pub(super) fn report_transition(
        &mut self,
        id: EndpointId,
        (change, health): (HealthTransition, Health),
        began: Instant,
        now: Instant,
    ) {
        let Some(endpoint) = self.endpoints.get(id) else { return };
        let subject = endpoint.subject();
        let last_good = endpoint.last_success(self.epoch).unwrap_or(began);
        self.record_incident(&subject, health, change, (last_good, began, now));
        self.push_event(Event::HealthChanged { subject, change, health });
    }

    /// What a change of an endpoint's verdict, if it is one, does to the endpoint itself; gives the
    /// change and the verdict.
    pub(super) fn apply_transition(
        &mut self,
        id: EndpointId,
        before: Health,
        now: Instant,
    ) -> Option<(HealthTransition, Health)> {
        let endpoint = self.endpoints.get_mut(id)?;
        let after = endpoint.verdict();
        let change = HealthTransition::from_states(before, after);
        endpoint.on_health_change(change, now);
        let location = endpoint.location;
        match change {
            HealthTransition::WentDown => {
                if !matches!(endpoint.outlier, OutlierState::Ejected(_)) && endpoint.has_been_up() {
                    let recover = endpoint.pool.recovery;
                    let rare = endpoint.rare_mut();
                    rare.held_until = Some(now + rare.flaps.record_down(&recover, now));
                }
                endpoint.ramp = Ramp::Full;
                (endpoint.is_late_addition, endpoint.is_awaiting_first_request) = (false, false);
                endpoint.checks.iter_mut().for_each(|check| check.timer.cancel_burst());
            }
            HealthTransition::Restored => {
                endpoint.up_since = Some(now);
                endpoint.evaluated_attempts = endpoint.stats.collect_attempts();
                self.start_ramp(id, now);
            }
            HealthTransition::Started => {
                endpoint.up_since = Some(now);
                if self.pools[location.pool].counts.serving > 0 && self.is_late_addition(id) {
                    self.start_ramp(id, now);
                }
            }
            _ => {}
        }
        let in_panic = self.pools[location.pool].is_in_panic();
        if !matches!(change, HealthTransition::None | HealthTransition::Started) {
            self.endpoints.get_mut(id)?.reschedule_probes(now, in_panic);
        }
        Some((change, after))
    }

    /// Whether the endpoint joined a pool that others had served before.
    fn is_late_addition(&self, id: EndpointId) -> bool {
        let Some(endpoint) = self.endpoints.get(id) else { return false };
        endpoint.is_late_addition
    }

    fn start_ramp(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let EndpointLocation { pool, zone, .. } = endpoint.location;
        let state = &mut self.pools[pool];
        let is_zone_recovering = state.zones[zone].ramp.is_growing() || state.zones[zone].is_down();
        if is_zone_recovering || state.is_in_panic() || endpoint.pool.recovery.ramp.is_zero() {
            return;
        }
        endpoint.ramp = Ramp::Since(now);
        // A small share of little traffic may be long in coming, and what comes first may be one that
        // cannot be sent again.
        let now_us = now.saturating_duration_since(self.epoch).as_micros() as u64;
        endpoint.stats.schedule_trials(now_us, u32::MAX);
        endpoint.is_awaiting_first_request = true;
        state.ramping.push(id);
        self.schedule_ramp(pool, now);
    }
}

fn should_go_down(health: Health, down_after: u32) -> bool {
    match health {
        Health::Up => down_after <= 1,
        Health::Suspect { strikes, .. } => strikes + 1 >= down_after,
        Health::Unknown { .. } | Health::Down { .. } | Health::Returning { .. } => false,
    }
}

/// At least one, unless it is none: a budget that rounds to nothing would evict nobody.
pub(super) fn percent_limit(all: u32, percent: u32) -> u32 {
    let limit = (u64::from(all) * u64::from(percent) / 100) as u32;
    if percent > 0 { limit.max(1) } else { 0 }
}
