//! Zones and regions as a whole: they fall when their endpoints fail together, and come back
//! together.

use std::time::Instant;

use crate::logic::health::endpoint_health::{Health, HealthTransition};
use crate::logic::health::recovery::Ramp;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::Failure;

use super::endpoint::{EndpointLocation, ZoneRecovery};
use super::outlier::OutlierState;
use super::pools::ZoneVerdict;
use super::{Director, Event, EvidenceSource};

/// A zone that falls needs at least this many witnesses.
pub(super) const MIN_ZONE_STRIKES: u32 = 2;

/// Those who fell with their zone, of whom that has yet to be told: a large zone has many, and its
/// traffic moves before anybody is told.
#[derive(Debug)]
pub(super) struct ZoneFailure {
    transitions: Vec<EndpointTransition>,
    at: Instant,
}

/// How the verdict on an endpoint has changed, and to what.
type EndpointTransition = (EndpointId, HealthTransition, Health);

impl Director {
    /// The connection of one more endpoint has failed: does its zone fall?
    pub(super) fn correlate(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        // What is drained may be stopped by whoever has drained it.
        let Some(endpoint) = self.endpoints.get_mut(id).filter(|one| !one.is_drained()) else {
            return;
        };
        let location = endpoint.location;
        let correlate = endpoint.pool.correlation;
        let is_first = endpoint.first_connection_failure().is_none();
        if is_first {
            endpoint.rare_mut().first_connection_failure = Some(now);
        }
        let zone = &mut self.pools[location.pool].zones[location.zone];
        if is_first {
            zone.strikes.push_back((now, id));
            zone.active_strikes += 1;
        }
        while let Some(&(at, old)) = zone.strikes.front() {
            if at + correlate.window >= now {
                break;
            }
            zone.strikes.pop_front();
            let is_active = self
                .endpoints
                .get(old)
                .is_some_and(|other| other.first_connection_failure() == Some(at));
            zone.active_strikes -= u32::from(is_active);
        }
        let needed = quorum(zone.counts.all, correlate.quorum_percent).max(MIN_ZONE_STRIKES);
        if zone.active_strikes < needed || zone.is_down() {
            return;
        }
        let has_clear_elsewhere = self.pools[location.pool].counts.clear
            > self.pools[location.pool].zones[location.zone].counts.clear;
        if has_clear_elsewhere && self.can_evict_zone(location.pool, location.zone) {
            self.fail_zone(location.pool, location.zone, failure, EvidenceSource::Correlation, now);
            self.correlate_region(location.pool, location.zone, failure, now);
        }
    }

    /// An endpoint has shown that its connections work again.
    pub(super) fn clear_connection_strike(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let location = endpoint.location;
        if endpoint.first_connection_failure().is_some()
            && let Some(struck_at) = endpoint.rare_mut().first_connection_failure.take()
        {
            let zone = &mut self.pools[location.pool].zones[location.zone];
            let position = zone.strikes.iter().rposition(|strike| *strike == (struck_at, id));
            if position.and_then(|position| zone.strikes.remove(position)).is_some() {
                zone.active_strikes -= 1;
            }
        }
    }

    /// The zone's verdict is down. Who has evidence against it falls with it; the rest is the last
    /// resort until each proves itself.
    pub(super) fn fail_zone(
        &mut self,
        pool: usize,
        zone: usize,
        failure: Failure,
        source: EvidenceSource,
        now: Instant,
    ) {
        let recover = self.pools[pool].spec.recovery;
        let state = &mut self.pools[pool].zones[zone];
        if state.is_down() {
            return;
        }
        let hold = recover.hold_down.max(state.flaps.record_down(&recover, now));
        state.verdict = ZoneVerdict::Down { failure, source, since: now, held_until: now + hold };
        state.ramp = Ramp::Full;
        state.ratio.restart(0.0);
        let (members, struck, place) =
            (state.members.clone(), state.active_strikes, state.place.clone());
        let name = self.pools[pool].spec.name.clone();
        let mut transitions = Vec::with_capacity(struck as usize);
        for id in members {
            transitions.extend(self.fail_with_zone(id, (failure, source), now));
        }
        self.unreported_zone_failures.push(ZoneFailure { transitions, at: now });
        // Requests that are told to leave must find a snapshot that knows of this, even where everybody
        // in the zone had been out before.
        self.dirty_pools.insert(pool);
        self.push_event(Event::ZoneVerdictChanged {
            pool: name,
            place,
            verdict: Some((failure, struck)),
        });
    }

    /// What its zone's fall does to one endpoint; gives what is to be told of it.
    fn fail_with_zone(
        &mut self,
        id: EndpointId,
        (failure, source): (Failure, EvidenceSource),
        now: Instant,
    ) -> Option<EndpointTransition> {
        let endpoint = self.endpoints.get_mut(id)?;
        let before = endpoint.verdict();
        let is_struck = endpoint.first_connection_failure().is_some();
        match endpoint.health {
            Health::Suspect { failure, .. } if is_struck => {
                endpoint.health = Health::Down { failure };
                endpoint.record_cause(now, source, failure);
            }
            Health::Up | Health::Suspect { .. } => {
                endpoint.zone_recovery = ZoneRecovery::Unproven(now);
                self.pending_aborts.push((id, failure));
            }
            Health::Unknown { .. } | Health::Down { .. } | Health::Returning { .. } => {}
        }
        let (change, health) = self.apply_transition(id, before, now)?;
        if is_struck {
            self.clear_outlier_state(id, now);
        }
        self.update_eligibility(id, now);
        if change == HealthTransition::None {
            return None;
        }
        self.endpoints.get_mut(id)?.is_report_pending = true;
        Some((id, change, health))
    }

    /// Makes up for what zones that fell have left untold.
    pub(super) fn report_zone_failures(&mut self) {
        for ZoneFailure { transitions, at } in std::mem::take(&mut self.unreported_zone_failures) {
            for (id, change, health) in transitions {
                let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
                endpoint.is_report_pending = false;
                self.report_transition(id, (change, health), at, at);
                self.schedule_probe(id);
            }
        }
    }

    /// When enough zones of a region are down, the others are the last resort too.
    fn correlate_region(&mut self, pool: usize, zone: usize, failure: Failure, now: Instant) {
        let state = &self.pools[pool];
        let region = state.zones[zone].place.region.clone();
        let region_zones: Vec<usize> =
            (0..state.zones.len()).filter(|&z| state.zones[z].place.region == region).collect();
        let down = region_zones.iter().filter(|&&z| state.zones[z].is_down()).count() as u32;
        let needed = quorum(region_zones.len() as u32, state.spec.correlation.quorum_percent);
        let clear_inside: u32 = region_zones.iter().map(|&z| state.zones[z].counts.clear).sum();
        if down < needed.max(MIN_ZONE_STRIKES) || state.counts.clear <= clear_inside {
            return;
        }
        for zone in region_zones {
            if self.can_evict_zone(pool, zone) {
                self.fail_zone(pool, zone, failure, EvidenceSource::Correlation, now);
            }
        }
    }

    /// Whether an endpoint that is ready may serve: if its zone is down, only with the zone.
    pub(super) fn can_return(&mut self, id: EndpointId, now: Instant) -> bool {
        self.update_eligibility(id, now);
        let Some(EndpointLocation { pool, zone, .. }) =
            self.endpoints.get(id).map(|endpoint| endpoint.location)
        else {
            return false;
        };
        !self.pools[pool].zones[zone].is_down() || self.try_restore_zone(pool, zone, now)
    }

    /// Brings a zone back if its hold-down is over and enough of it is ready.
    pub(super) fn try_restore_zone(&mut self, pool: usize, zone: usize, now: Instant) -> bool {
        let share = self.pools[pool].spec.correlation.return_percent;
        let length = self.pools[pool].spec.recovery.ramp;
        let state = &mut self.pools[pool].zones[zone];
        let ZoneVerdict::Down { held_until, .. } = state.verdict else { return true };
        if now < held_until || state.counts.ready < quorum(state.counts.all, share).max(1) {
            return false;
        }
        state.verdict = ZoneVerdict::Up;
        // Those that have proved themselves serve already: their traffic does not go and come back.
        let serving_fraction =
            f64::from(state.counts.serving) / f64::from(state.counts.ready.max(1));
        state.ramp = Ramp::at_fraction(serving_fraction, length, now);
        state.ratio.restart(0.0);
        state.mark_dirty();
        let (members, place) = (state.members.clone(), state.place.clone());
        let name = self.pools[pool].spec.name.clone();
        for id in members {
            let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
            let before = endpoint.verdict();
            if matches!(endpoint.health, Health::Returning { .. }) && endpoint.is_ready(now) {
                endpoint.health.mark_up();
            }
            endpoint.zone_recovery = ZoneRecovery::Independent;
            let is_ejection_over =
                matches!(endpoint.outlier, OutlierState::Ejected(case) if case.is_proven(now));
            self.apply_verdict_change(id, before, now);
            if is_ejection_over {
                self.uneject(id, now);
            }
        }
        self.dirty_pools.insert(pool);
        self.schedule_ramp(pool, now);
        self.push_event(Event::ZoneVerdictChanged { pool: name, place, verdict: None });
        true
    }
}

/// How many of `all` make `percent` per cent.
pub(super) fn quorum(all: u32, percent: u32) -> u32 {
    (u64::from(all) * u64::from(percent)).div_ceil(100) as u32
}
