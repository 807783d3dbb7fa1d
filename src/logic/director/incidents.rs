//! The incident ledger: how changes of verdicts open, confirm and close incidents.

use std::sync::Arc;
use std::time::Instant;

use super::event::{Event, EvidenceSource};
use super::{Director, EndpointMachine};
use crate::logic::health::endpoint_health::{Health, HealthTransition};
use crate::logic::incident::{Incident, IncidentEnd, IncidentSubject, VerdictCause};
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::Failure;

impl Director {
    /// Records a change of a verdict: `times` are the last good evidence, the start of this one,
    /// and now.
    pub(super) fn record_incident(
        &mut self,
        subject: &Arc<IncidentSubject>,
        health: Health,
        change: HealthTransition,
        (last_good, began, now): (Instant, Instant, Instant),
    ) {
        let id = subject.endpoint;
        let is_drained = self.endpoints.get(id).is_some_and(EndpointMachine::is_drained);
        match (change, health) {
            // No request can have met it: a drained endpoint is about to be stopped, or repaired.
            (HealthTransition::Suspected, _) if is_drained => {}
            (HealthTransition::WentDown, Health::Down { failure }) if is_drained => {
                self.aborts.push((id, failure));
            }
            (HealthTransition::Suspected, Health::Suspect { failure, .. }) => {
                self.ledger.open_suspicion(subject, failure, last_good, began, now);
            }
            (HealthTransition::Cleared, _) => self.ledger.clear_suspicion(id),
            (HealthTransition::WentDown, Health::Down { failure }) => {
                // With `down_after = 1` the first strike is the verdict.
                if self.endpoints.get(id).is_some_and(EndpointMachine::has_been_up) {
                    if !self.ledger.is_tracking(id) {
                        self.ledger.open_suspicion(subject, failure, last_good, began, now);
                    }
                    let verdict_cause = self.verdict_cause(id, failure);
                    self.ledger.record_verdict(id, verdict_cause, now);
                    if !self.publisher.has_dirty_pools() {
                        // Its traffic moved earlier, with its zone's.
                        self.ledger.record_shift(self.now);
                    }
                }
                self.aborts.push((id, failure));
                self.update_incident_counts(id);
                if let Some(incident) = self.ledger.open_incident(id).cloned() {
                    self.push_event(Event::IncidentBegan(Box::new(incident)));
                }
            }
            (HealthTransition::Restored, _) => self.close_incident(id, IncidentEnd::Restored, now),
            _ => {}
        }
    }

    /// Closes the incident of an endpoint, if one is open.
    pub(super) fn close_incident(&mut self, id: EndpointId, end: IncidentEnd, now: Instant) {
        self.update_incident_counts(id);
        if let Some(incident) = self.ledger.close(id, end, now) {
            self.push_event(Event::IncidentEnded(Box::new(incident)));
        }
    }

    fn verdict_cause(&self, id: EndpointId, failure: Failure) -> VerdictCause {
        let endpoint = self.endpoints.get(id);
        let cause = endpoint.and_then(|endpoint| endpoint.history().cause());
        VerdictCause {
            failure,
            is_by_traffic: cause.is_some_and(|cause| cause.source == EvidenceSource::Traffic),
            round_trip: endpoint.and_then(|endpoint| endpoint.round_trip(self.epoch)),
            zone_down_since: endpoint.and_then(|endpoint| {
                let location = endpoint.location();
                self.pools[location.pool()].zone(location.zone()).correlation().down_since()
            }),
        }
    }

    fn update_incident_counts(&mut self, id: EndpointId) {
        if let Some(endpoint) = self.endpoints.get(id) {
            self.ledger.update_impact(id, endpoint.incident_impact(self.epoch));
        }
    }

    /// All incidents with counts up to date, oldest first.
    pub fn incidents(&mut self) -> Vec<Incident> {
        self.ledger.tracked_endpoints().into_iter().for_each(|id| self.update_incident_counts(id));
        self.ledger.all_incidents()
    }

    /// The open incidents, with counts up to date.
    pub fn open_incidents(&mut self) -> Vec<Incident> {
        self.ledger.tracked_endpoints().into_iter().for_each(|id| self.update_incident_counts(id));
        self.ledger.open_incidents()
    }
}
