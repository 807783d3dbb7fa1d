//! Turns results of probes and failures of requests into evidence, and applies it.

use std::time::Instant;

use super::endpoint::DatedEvidence;
use super::event::EvidenceSource;
use super::{Director, EndpointMachine, ProbeTicket};
use crate::logic::health::endpoint_health::{Health, HealthThresholds};
use crate::logic::health::evidence::Evidence;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::{Failure, FailureClass, FailureReason, ProbeOutcome};

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
        endpoint.probes_mut().history_mut().push(since_epoch, ticket.probe, outcome);
        if usize::from(ticket.probe) >= endpoint.probes().len() {
            return;
        }
        match endpoint.finish_probe(ticket.probe, ticket.trigger, outcome, now) {
            Some(Evidence::Pass) => {
                let location = endpoint.location();
                let zone = self.pools[location.pool()].zone(location.zone());
                if let ProbeOutcome::Pass { latency } = outcome {
                    zone.stats().latency().record_probe(latency);
                }
                let is_degraded = matches!(outcome, ProbeOutcome::Degraded { .. });
                let is_changed = endpoint.set_degraded(is_degraded);
                let is_quiet = endpoint.is_fully_healthy() && !zone.is_down();
                if endpoint.probes().len() == 1 && !is_changed && is_quiet {
                    // Nearly all probes end here.
                    endpoint.on_probe_pass(ticket.started);
                    endpoint.reset_impact();
                    self.release_aborts(id, ticket.started);
                    return self.schedule_probe(id);
                }
                if endpoint.complete_pass(ticket.probe, ticket.started) {
                    self.apply_probe_evidence(id, Evidence::Pass, ticket.started, now);
                    self.release_aborts(id, ticket.started);
                }
            }
            Some(Evidence::Firm(failure)) => {
                endpoint.probes_mut().reset_passes();
                // A lost packet is more likely than a dead endpoint that answers requests.
                let is_vouched = failure.class() == FailureClass::Silent
                    && endpoint.last_response(epoch).is_some_and(|answer| answer >= ticket.started);
                if !is_vouched {
                    self.apply_probe_evidence(id, Evidence::Firm(failure), ticket.started, now);
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
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        if endpoint.is_down_by_probes() {
            // The counters are read so that the next failure is reported again.
            return self.evaluate_outlier(id, None, now);
        }
        // An attempt that began before the endpoint came back belongs to the failure that is over.
        if endpoint.up_since().is_some_and(|since| attempt_started < since) {
            return endpoint.skip_new_attempts();
        }
        if !failure.is_response_failure() {
            // Two lost SYNs among thousands of answers are no outage: they start a burst of probes.
            let is_vouched = failure.class() == FailureClass::Silent
                && endpoint.last_success(self.epoch).is_some_and(|good| good >= attempt_started);
            let evidence = match Evidence::from_traffic(failure) {
                Evidence::Firm(failure) if is_vouched => Evidence::Soft(failure),
                evidence => evidence,
            };
            let source = EvidenceSource::Traffic;
            self.apply_evidence(id, DatedEvidence::new(evidence, source, attempt_started), now);
        }
        self.start_probe_burst(id, now);
        if failure.reason != FailureReason::Stall {
            self.evaluate_outlier(id, Some(failure), now);
        }
        self.schedule_probe(id);
    }

    fn apply_probe_evidence(
        &mut self,
        id: EndpointId,
        evidence: Evidence,
        probe_started: Instant,
        now: Instant,
    ) {
        let dated = DatedEvidence::new(evidence, EvidenceSource::Probe, probe_started);
        self.apply_evidence(id, dated, now);
    }

    /// Applies one piece of evidence to the endpoint, and its effects beyond the endpoint.
    fn apply_evidence(&mut self, id: EndpointId, dated: DatedEvidence, now: Instant) {
        let Some(endpoint) = self.endpoints.get(id) else { return };
        let (detect, location) = (endpoint.pool().detect, endpoint.location());
        let zone_is_down = self.pools[location.pool()].zone(location.zone()).is_down();
        let is_held_down = zone_is_down || endpoint.is_held_down(now);
        // If its zone is down already, its own first strike suffices.
        let falls_with_zone = zone_is_down
            && matches!(dated.evidence(), Evidence::Firm(failure) if failure.is_connection_level());
        let down_after = if falls_with_zone { 1 } else { detect.down_after };
        let mut thresholds = HealthThresholds {
            down_after,
            up_after: if is_held_down { u32::MAX } else { detect.up_after },
        };
        let withheld = match dated.evidence() {
            Evidence::Firm(failure)
                if should_go_down(endpoint.state().probe_verdict(), down_after) =>
            {
                self.reason_to_withhold(id, failure, dated, now)
            }
            _ => None,
        };
        if withheld.is_some() {
            thresholds.down_after = u32::MAX;
        }
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let before = endpoint.verdict();
        if endpoint.apply_evidence(dated, thresholds, withheld, now) {
            self.pools[location.pool()].divergence_mut().remove_contradicted();
        }
        self.apply_verdict_change_since(id, before, dated.began(), now);
        self.apply_consequences(id, dated, now);
    }

    /// The effects of a piece of evidence beyond the endpoint's own verdict.
    fn apply_consequences(&mut self, id: EndpointId, dated: DatedEvidence, now: Instant) {
        match dated.evidence() {
            Evidence::Pass => {
                self.clear_connection_strike(id);
                if let Some(location) = self.endpoints.get(id).map(EndpointMachine::location) {
                    self.end_resolved_divergence(location.pool());
                }
                if let Some(endpoint) = self.endpoints.get_mut(id) {
                    // Only now: an incident that this pass ends has been given its counts.
                    endpoint.reset_impact();
                }
                let _ = self.can_return(id, now);
            }
            Evidence::Firm(failure) => {
                let Some(endpoint) = self.endpoints.get(id) else { return };
                let has_been_up = endpoint.has_been_up();
                if endpoint.state().probe_verdict().is_down() {
                    self.clear_outlier_state(id, now);
                }
                if failure.is_connection_level() && has_been_up {
                    self.correlate(id, failure, now);
                }
                // Silence is ambiguous and its next probe waits for the whole timeout; an answer is
                // neither.
                if dated.source() == EvidenceSource::Probe
                    && failure.class() != FailureClass::Silent
                {
                    self.start_probe_burst(id, now);
                }
            }
            Evidence::Soft(_) => {}
        }
        self.update_eligibility(id, now);
    }
}

/// Whether one more strike makes the verdict.
fn should_go_down(health: Health, down_after: u32) -> bool {
    match health {
        Health::Up => down_after <= 1,
        Health::Suspect { strikes, .. } => strikes + 1 >= down_after,
        Health::Unknown { .. } | Health::Down { .. } | Health::Returning { .. } => false,
    }
}
