//! Verdicts on zones and regions: they go down when their endpoints fail together, and return
//! together.

pub(crate) mod correlation;
pub(crate) mod failure_reports;

use std::time::Instant;

use super::event::{Event, EvidenceSource};
use super::{Director, EndpointMachine};
use crate::logic::health::endpoint_health::HealthTransition;
use crate::logic::health::recovery::Ramp;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::Failure;
use correlation::strikes_needed;
use failure_reports::{EndpointTransition, ZoneFailure};

/// Why a zone's verdict is down.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZoneFailureCause {
    failure: Failure,
    source: EvidenceSource,
    /// The number of endpoints with evidence against the zone.
    witnesses: u32,
}

impl ZoneFailureCause {
    pub(super) fn new(failure: Failure, source: EvidenceSource, witnesses: u32) -> Self {
        Self { failure, source, witnesses }
    }
}

impl Director {
    /// The connection of one more endpoint has failed: fails its zone, and its region, if the
    /// quorum is reached.
    pub(super) fn correlate(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        // A drained endpoint may be stopped by its operator.
        let Some(endpoint) = self.endpoints.get_mut(id).filter(|one| !one.is_drained()) else {
            return;
        };
        let (location, correlation) = (endpoint.location(), endpoint.pool().correlation);
        let is_first = endpoint.history_mut().record_connection_failure(now);
        let endpoints = &self.endpoints;
        let pool = &mut self.pools[location.pool()];
        let zone = pool.zone_mut(location.zone());
        if is_first {
            zone.correlation_mut().record_strike(id, now);
        }
        zone.correlation_mut().expire_strikes(correlation.window, now, |other, struck_at| {
            endpoints.get(other).is_some_and(|other| is_struck_since(other, struck_at))
        });
        let all = zone.roster().counts().all();
        let witnesses = zone.correlation().active_strikes();
        if zone.correlation().is_failing(all, &correlation)
            && pool.has_clear_outside(location.zone())
            && pool.can_evict_zone(location.zone())
        {
            let cause =
                ZoneFailureCause { failure, source: EvidenceSource::Correlation, witnesses };
            self.fail_zone(location.pool(), location.zone(), cause, now);
            self.correlate_region(location.pool(), location.zone(), cause, now);
        }
    }

    /// An endpoint has shown that its connections work again.
    pub(super) fn clear_connection_strike(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let location = endpoint.location();
        if let Some(struck_at) = endpoint.history_mut().take_connection_failure() {
            let zone = self.pools[location.pool()].zone_mut(location.zone());
            zone.correlation_mut().clear_strike(id, struck_at);
        }
    }

    /// The zone's verdict is down. Endpoints with evidence against them fall with it; the others
    /// are the last resort until each proves itself.
    pub(super) fn fail_zone(
        &mut self,
        pool: usize,
        zone: usize,
        cause: ZoneFailureCause,
        now: Instant,
    ) {
        let ZoneFailureCause { failure, source, witnesses } = cause;
        let recovery = self.pools[pool].spec().recovery;
        let state = self.pools[pool].zone_mut(zone);
        if state.is_down() {
            return;
        }
        state.correlation_mut().fail(failure, source, &recovery, now);
        state.set_ramp(Ramp::Full);
        let (members, place) = (state.roster().ids().to_vec(), state.place().clone());
        let struck = state.correlation().active_strikes();
        self.pools[pool].ratios_mut().restart_zone(zone);
        let mut transitions = Vec::with_capacity(struck as usize);
        for id in members {
            transitions.extend(self.fail_with_zone(id, (failure, source), now));
        }
        self.zone_failures.push(ZoneFailure::new(transitions, now));
        // Requests that leave must find a snapshot with this verdict, even where all
        // endpoints of the zone had been out before.
        self.publisher.mark_dirty(pool);
        let pool = self.pools[pool].spec().name.clone();
        let verdict = Some((failure, witnesses));
        self.push_event(Event::ZoneVerdictChanged { pool, place, verdict });
    }

    /// Applies the fall of a zone to one of its endpoints; returns the transition to report.
    fn fail_with_zone(
        &mut self,
        id: EndpointId,
        (failure, source): (Failure, EvidenceSource),
        now: Instant,
    ) -> Option<EndpointTransition> {
        let endpoint = self.endpoints.get_mut(id)?;
        let before = endpoint.verdict();
        let is_struck = endpoint.history().first_connection_failure().is_some();
        if endpoint.fall_with_zone(source, now) {
            self.aborts.push((id, failure));
        }
        let (transition, verdict) = self.apply_transition(id, before, now)?;
        if is_struck {
            self.clear_outlier_state(id, now);
        }
        self.update_eligibility(id, now);
        if transition == HealthTransition::None {
            return None;
        }
        self.endpoints.get_mut(id)?.set_report_pending(true);
        Some(EndpointTransition::new(id, transition, verdict))
    }

    /// Reports the transitions of zones that fell.
    pub(super) fn report_zone_failures(&mut self) {
        for failure in self.zone_failures.take() {
            let at = failure.at();
            for transition in failure.into_transitions() {
                let id = transition.id();
                let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
                endpoint.set_report_pending(false);
                let change = (transition.transition(), transition.verdict());
                self.report_transition(id, change, at, at);
                self.schedule_probe(id);
            }
        }
    }

    /// When enough zones of a region are down, the others become the last resort too.
    fn correlate_region(
        &mut self,
        pool: usize,
        zone: usize,
        cause: ZoneFailureCause,
        now: Instant,
    ) {
        let state = &self.pools[pool];
        let (zones, region) = (state.zones(), &state.zone(zone).place().region);
        let region_zones: Vec<usize> =
            (0..zones.len()).filter(|&zone| zones[zone].place().region == *region).collect();
        let down = region_zones.iter().filter(|&&zone| zones[zone].is_down()).count() as u32;
        let needed = strikes_needed(region_zones.len() as u32, &state.spec().correlation);
        let clear_inside: u32 =
            region_zones.iter().map(|&zone| zones[zone].roster().counts().clear()).sum();
        if down < needed || state.counts().clear() <= clear_inside {
            return;
        }
        for zone in region_zones {
            if self.pools[pool].can_evict_zone(zone) {
                self.fail_zone(pool, zone, cause, now);
            }
        }
    }

    /// Whether an endpoint that is ready may serve: if its zone is down, only with the zone.
    pub(super) fn can_return(&mut self, id: EndpointId, now: Instant) -> bool {
        self.update_eligibility(id, now);
        let Some(location) = self.endpoints.get(id).map(EndpointMachine::location) else {
            return false;
        };
        let zone = self.pools[location.pool()].zone(location.zone());
        !zone.is_down() || self.try_restore_zone(location.pool(), location.zone(), now)
    }

    /// Restores a zone that is down if its hold-down is over and enough of it is ready.
    fn try_restore_zone(&mut self, pool: usize, zone: usize, now: Instant) -> bool {
        let spec = self.pools[pool].spec().clone();
        let state = self.pools[pool].zone_mut(zone);
        let counts = state.roster().counts();
        let (ready, all) = (counts.ready(), counts.all());
        if !state.correlation().can_return(ready, all, &spec.correlation, now) {
            return false;
        }
        state.correlation_mut().restore();
        // Endpoints that have passed a probe serve already, so that their traffic does not move
        // twice.
        let serving_fraction = f64::from(counts.serving()) / f64::from(ready.max(1));
        state.set_ramp(Ramp::at_fraction(serving_fraction, spec.recovery.ramp, now));
        state.roster_mut().mark_dirty();
        let (members, place) = (state.roster().ids().to_vec(), state.place().clone());
        self.pools[pool].ratios_mut().restart_zone(zone);
        for id in members {
            let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
            let before = endpoint.verdict();
            endpoint.return_with_zone(now);
            let ejection = endpoint.state().outlier().ejection();
            self.apply_verdict_change(id, before, now);
            if ejection.is_some_and(|ejection| ejection.is_proven(now)) {
                self.uneject(id, now);
            }
        }
        self.publisher.mark_dirty(pool);
        self.schedule_ramp(pool, now);
        let pool = spec.name.clone();
        self.push_event(Event::ZoneVerdictChanged { pool, place, verdict: None });
        true
    }
}

/// Whether the connections of `endpoint` have failed since `struck_at`, without a pass.
pub(super) fn is_struck_since(endpoint: &EndpointMachine, struck_at: Instant) -> bool {
    endpoint.history().first_connection_failure() == Some(struck_at)
}
