//! The effects of a change of an endpoint's verdict: ramp, publication, probes and reports.

use std::time::Instant;

use super::Director;
use super::event::Event;
use super::pools::member::MemberState;
use crate::logic::health::endpoint_health::{Health, HealthTransition};
use crate::logic::model::id::EndpointId;

impl Director {
    /// Updates the state of an endpoint in its zone; its pool is published if that has changed.
    pub(super) fn update_eligibility(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get(id) else { return };
        let (location, state) = (endpoint.location(), MemberState::of(endpoint, now));
        if self.pools[location.pool()].replace_member(location, state, now) {
            self.publisher.mark_dirty(location.pool());
        }
    }

    pub(super) fn apply_verdict_change(&mut self, id: EndpointId, before: Health, now: Instant) {
        self.apply_verdict_change_since(id, before, now, now);
    }

    /// Applies the effects of a verdict that was `before`; its evidence began at `began`.
    pub(super) fn apply_verdict_change_since(
        &mut self,
        id: EndpointId,
        before: Health,
        began: Instant,
        now: Instant,
    ) {
        let Some((transition, verdict)) = self.apply_transition(id, before, now) else { return };
        self.update_eligibility(id, now);
        if transition != HealthTransition::None {
            if self.endpoints.get(id).is_some_and(|endpoint| endpoint.is_report_pending()) {
                self.report_zone_failures();
            }
            self.report_transition(id, (transition, verdict), began, now);
        }
        self.schedule_probe(id);
    }

    /// Reports a change of an endpoint's verdict to the ledger and to operators.
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

    /// Applies a change of an endpoint's verdict to the endpoint itself; returns the transition and
    /// the verdict.
    pub(super) fn apply_transition(
        &mut self,
        id: EndpointId,
        before: Health,
        now: Instant,
    ) -> Option<(HealthTransition, Health)> {
        let endpoint = self.endpoints.get_mut(id)?;
        let (transition, verdict) = endpoint.settle_verdict(before, now);
        let pool = endpoint.location().pool();
        let has_joined_late =
            endpoint.is_late_addition() && self.pools[pool].counts().serving() > 0;
        let is_ramp_due = match transition {
            HealthTransition::Restored => true,
            HealthTransition::Started => has_joined_late,
            _ => false,
        };
        if is_ramp_due {
            self.start_ramp(id, now);
        }
        let in_panic = self.pools[pool].is_in_panic();
        if !matches!(transition, HealthTransition::None | HealthTransition::Started) {
            self.endpoints.get_mut(id)?.reschedule_probes(now, in_panic);
        }
        Some((transition, verdict))
    }

    /// Lets the share of an endpoint grow, unless its zone returns as a whole or the pool needs all
    /// it has.
    fn start_ramp(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let location = endpoint.location();
        let pool = &mut self.pools[location.pool()];
        let zone = pool.zone(location.zone());
        let is_zone_recovering = zone.ramp().is_growing() || zone.is_down();
        if is_zone_recovering || pool.is_in_panic() || endpoint.pool().recovery.ramp.is_zero() {
            return;
        }
        endpoint.start_ramp(self.epoch, now);
        pool.ramping_mut().push(id);
        self.schedule_ramp(location.pool(), now);
    }
}
