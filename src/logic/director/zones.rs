//! Zones and regions as a whole: they fall when their endpoints fail together, and come back
//! together.

use std::time::Instant;

use crate::logic::health::{Change, Health};
use crate::logic::id::EndpointId;
use crate::logic::outcome::Failure;
use crate::logic::recovery::Ramp;

use super::endpoint::{Bond, Seat};
use super::pools::ZoneVerdict;
use super::roster::AT_ONCE;
use super::trust::Trust;
use super::{Director, Event, Source};

/// A zone that falls needs at least this many witnesses.
pub(super) const WITNESSES: u32 = 2;

/// Those who fell with their zone, of whom that has yet to be told: a large zone has many, and its
/// traffic moves before anybody is told.
#[derive(Debug)]
pub(super) struct Fall {
    fallen: Vec<Fallen>,
    at: Instant,
}

/// How the verdict on an endpoint has changed, and to what.
type Fallen = (EndpointId, Change, Health);

impl Director {
    /// The connection of one more endpoint has failed: does its zone fall?
    pub(super) fn correlate(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        // What is drained may be stopped by whoever has drained it.
        let Some(endpoint) = self.roster.get_mut(id).filter(|one| !one.is_drained()) else {
            return;
        };
        let seat = endpoint.seat;
        let correlate = endpoint.pool.correlate;
        let is_first = endpoint.struck().is_none();
        if is_first {
            endpoint.trouble_mut().struck = Some(now);
        }
        let zone = &mut self.pools[seat.pool].zones[seat.zone];
        if is_first {
            zone.strikes.push_back((now, id));
            zone.struck += 1;
        }
        while let Some(&(at, old)) = zone.strikes.front() {
            if at + correlate.window >= now {
                break;
            }
            zone.strikes.pop_front();
            let stands = self.roster.get(old).is_some_and(|other| other.struck() == Some(at));
            zone.struck -= u32::from(stands);
        }
        let needed = quorum(zone.counts.all, correlate.quorum_percent).max(WITNESSES);
        if zone.struck < needed || zone.is_down() {
            return;
        }
        let clear_elsewhere = self.pools[seat.pool].counts.clear
            > self.pools[seat.pool].zones[seat.zone].counts.clear;
        if clear_elsewhere && self.may_evict_zone(seat.pool, seat.zone) {
            self.zone_falls(seat.pool, seat.zone, failure, Source::Correlation, now);
            self.region_falls(seat.pool, seat.zone, failure, now);
        }
    }

    /// An endpoint has shown that its connections work again.
    pub(super) fn uncorrelate(&mut self, id: EndpointId) {
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        let seat = endpoint.seat;
        if endpoint.struck().is_some()
            && let Some(struck) = endpoint.trouble_mut().struck.take()
        {
            let zone = &mut self.pools[seat.pool].zones[seat.zone];
            let position = zone.strikes.iter().rposition(|strike| *strike == (struck, id));
            if position.and_then(|position| zone.strikes.remove(position)).is_some() {
                zone.struck -= 1;
            }
        }
    }

    /// The zone's verdict is down. Who has evidence against it falls with it; the rest is the last
    /// resort until each proves itself.
    pub(super) fn zone_falls(
        &mut self,
        pool: usize,
        zone: usize,
        failure: Failure,
        source: Source,
        now: Instant,
    ) {
        let recover = self.pools[pool].spec.recover;
        let state = &mut self.pools[pool].zones[zone];
        if state.is_down() {
            return;
        }
        let hold = recover.hold_down.max(state.flaps.fell(&recover, now));
        state.verdict = ZoneVerdict::Down { failure, source, since: now, held_until: now + hold };
        state.ramp = Ramp::Full;
        state.ratio.restart(0.0);
        let (members, struck, place) = (state.members.clone(), state.struck, state.place.clone());
        let name = self.pools[pool].spec.name.clone();
        let mut fallen = Vec::with_capacity(struck as usize);
        for some in members.chunks(AT_ONCE) {
            self.roster.warm(some.iter().copied());
            for &id in some {
                fallen.extend(self.fall_with_zone(id, (failure, source), now));
            }
        }
        self.falls.push(Fall { fallen, at: now });
        // Requests that are told to leave must find a snapshot that knows of this, even where everybody
        // in the zone had been out before.
        self.stale.insert(pool);
        self.event(Event::Zone { pool: name, place, verdict: Some((failure, struck)) });
    }

    /// What its zone's fall does to one endpoint; gives what is to be told of it.
    fn fall_with_zone(
        &mut self,
        id: EndpointId,
        (failure, source): (Failure, Source),
        now: Instant,
    ) -> Option<Fallen> {
        let endpoint = self.roster.get_mut(id)?;
        let before = endpoint.verdict();
        let falls_too = endpoint.struck().is_some();
        match endpoint.health {
            Health::Suspect { failure, .. } if falls_too => {
                endpoint.health = Health::Down { failure };
                endpoint.blame(now, source, failure);
            }
            Health::Up | Health::Suspect { .. } => {
                endpoint.bond = Bond::Unproven(now);
                self.cuts.push((id, failure));
            }
            Health::Unknown { .. } | Health::Down { .. } | Health::Returning { .. } => {}
        }
        let (change, health) = self.take_effect(id, before, now)?;
        if falls_too {
            self.acquit(id, now);
        }
        self.restand(id, now);
        if change == Change::None {
            return None;
        }
        self.roster.get_mut(id)?.is_untold = true;
        Some((id, change, health))
    }

    /// Makes up for what zones that fell have left untold.
    pub(super) fn tell_falls(&mut self) {
        for Fall { fallen, at } in std::mem::take(&mut self.falls) {
            for some in fallen.chunks(AT_ONCE) {
                self.roster.warm(some.iter().map(|&(id, ..)| id));
                for &(id, change, health) in some {
                    let Some(endpoint) = self.roster.get_mut(id) else { continue };
                    endpoint.is_untold = false;
                    self.tell(id, (change, health), at, at);
                    self.arm(id);
                }
            }
        }
    }

    /// When enough zones of a region are down, the others are the last resort too.
    fn region_falls(&mut self, pool: usize, zone: usize, failure: Failure, now: Instant) {
        let state = &self.pools[pool];
        let region = state.zones[zone].place.region.clone();
        let inside: Vec<usize> =
            (0..state.zones.len()).filter(|&z| state.zones[z].place.region == region).collect();
        let down = inside.iter().filter(|&&z| state.zones[z].is_down()).count() as u32;
        let needed = quorum(inside.len() as u32, state.spec.correlate.quorum_percent);
        let clear_inside: u32 = inside.iter().map(|&z| state.zones[z].counts.clear).sum();
        if down < needed.max(WITNESSES) || state.counts.clear <= clear_inside {
            return;
        }
        for zone in inside {
            if self.may_evict_zone(pool, zone) {
                self.zone_falls(pool, zone, failure, Source::Correlation, now);
            }
        }
    }

    /// Whether an endpoint that is ready may serve: if its zone is down, only with the zone.
    pub(super) fn may_return(&mut self, id: EndpointId, now: Instant) -> bool {
        self.restand(id, now);
        let Some(Seat { pool, zone, .. }) = self.roster.get(id).map(|endpoint| endpoint.seat)
        else {
            return false;
        };
        !self.pools[pool].zones[zone].is_down() || self.zone_returns(pool, zone, now)
    }

    /// Brings a zone back if its hold-down is over and enough of it is ready.
    pub(super) fn zone_returns(&mut self, pool: usize, zone: usize, now: Instant) -> bool {
        let share = self.pools[pool].spec.correlate.return_percent;
        let length = self.pools[pool].spec.recover.ramp;
        let state = &mut self.pools[pool].zones[zone];
        let ZoneVerdict::Down { held_until, .. } = state.verdict else { return true };
        if now < held_until || state.counts.ready < quorum(state.counts.all, share).max(1) {
            return false;
        }
        state.verdict = ZoneVerdict::Up;
        // Those that have proved themselves serve already: their traffic does not go and come back.
        let part = f64::from(state.counts.serving) / f64::from(state.counts.ready.max(1));
        state.ramp = Ramp::part(part, length, now);
        state.ratio.restart(0.0);
        state.mark();
        let (members, place) = (state.members.clone(), state.place.clone());
        let name = self.pools[pool].spec.name.clone();
        for (index, &id) in members.iter().enumerate() {
            if index % AT_ONCE == 0 {
                let some = members[index..].iter().take(AT_ONCE);
                self.roster.warm(some.copied());
            }
            let Some(endpoint) = self.roster.get_mut(id) else { continue };
            let before = endpoint.verdict();
            if matches!(endpoint.health, Health::Returning { .. }) && endpoint.is_ready(now) {
                endpoint.health.release();
            }
            endpoint.bond = Bond::Free;
            let is_acquitted =
                matches!(endpoint.trust, Trust::Condemned(case) if case.is_proven(now));
            self.settle(id, before, now);
            if is_acquitted {
                self.readmit(id, now);
            }
        }
        self.stale.insert(pool);
        self.ramps(pool, now);
        self.event(Event::Zone { pool: name, place, verdict: None });
        true
    }
}

/// How many of `all` make `percent` per cent.
pub(super) fn quorum(all: u32, percent: u32) -> u32 {
    (u64::from(all) * u64::from(percent)).div_ceil(100) as u32
}
