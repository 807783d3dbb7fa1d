//! Where an endpoint stands: what it may be given, and what it counts in its zone.

use std::time::Instant;

use crate::logic::health::Health;
use crate::logic::id::EndpointId;
use crate::logic::recovery::FULL;
use crate::logic::tier::WEIGHT_ONE;

use super::Director;
use super::endpoint::{Bond, Endpoint, Seat};
use super::pools::{Entry, Standing};
use super::trust::{Stage, Trust};

/// Endpoints of a zone whose last resort is not worth a publication of its own.
const LARGE_ZONE: u32 = 64;

impl Director {
    /// Tells the zone where an endpoint stands now; its pool is published if that is news.
    pub(super) fn restand(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.roster.get(id) else { return };
        let Seat { pool, zone, position, .. } = endpoint.seat;
        let entry = entry(endpoint, now);
        let state = &mut self.pools[pool];
        let zone = &mut state.zones[zone];
        let old = std::mem::replace(&mut zone.entries[position as usize], entry);
        if old == entry {
            return;
        }
        zone.counts.swap(old, entry);
        state.counts.swap(old, entry);
        let is_drained = entry.standing == Standing::Drained;
        if is_drained {
            zone.drained_at.entry(id).or_insert(now);
        } else if entry.standing != Standing::Unknown {
            zone.drained_at.remove(&id);
        }
        // Who is drained may have clients of its own yet.
        let is_lost = is_drained && old.is_down != entry.is_down;
        let is_news = old.is_awaited != entry.is_awaited;
        if old.standing != entry.standing || old.weight != entry.weight || is_news || is_lost {
            zone.mark();
            // The last resort of a large zone that is down is published with whatever comes next: a
            // thousand verdicts in a zone that has left the traffic move nothing.
            let moves_nothing = zone.is_down()
                && zone.counts.all > LARGE_ZONE
                && state.counts.serving > 0
                && matches!(old.standing, Standing::Resort | Standing::Out)
                && matches!(entry.standing, Standing::Resort | Standing::Out);
            if !moves_nothing {
                self.stale.insert(pool);
            }
        }
    }
}

fn entry(endpoint: &Endpoint, now: Instant) -> Entry {
    let (left, left_capacity) = endpoint.bidden_share(now);
    let standing = if left == 0 { Standing::Drained } else { standing(endpoint) };
    let of =
        |weight: u32, part: u32| (u64::from(weight) * u64::from(part) / u64::from(FULL)) as u32;
    let (ramp, full) = (endpoint.ramp.share(endpoint.pool.recover.ramp, now), FULL);
    let kept = match &endpoint.pool.primary().degraded {
        Some(degraded) if endpoint.is_degraded => degraded.weight_percent,
        _ => 100,
    };
    let declared = endpoint.seat.weight * WEIGHT_ONE;
    let ramped = (u64::from(declared) * u64::from(ramp) / u64::from(full)) as u32;
    let weight = (u64::from(ramped) * u64::from(kept) / 100) as u32;
    Entry {
        standing,
        weight: of(weight, left).max(1),
        // An addition is no lost capacity, neither before its first pass nor while it grows.
        capacity: of(if endpoint.is_late_comer { ramped } else { declared }, left_capacity),
        // Whoever is drained takes nothing of what may be down.
        is_down: endpoint.is_down() && left > 0,
        is_ready: endpoint.is_ready(now),
        is_condemned: matches!(endpoint.trust, Trust::Condemned(_)),
        is_awaited: endpoint.is_awaited && standing == Standing::Clear,
    }
}

fn standing(endpoint: &Endpoint) -> Standing {
    match (endpoint.verdict(), endpoint.trust) {
        _ if endpoint.withheld.is_some() && endpoint.bond == Bond::Free && endpoint.serves() => {
            Standing::Clear
        }
        (Health::Unknown { .. }, _) if endpoint.pool.optimistic => Standing::Clear,
        (Health::Unknown { .. }, _) => Standing::Unknown,
        (Health::Down { .. }, Trust::Condemned(case)) => match case.stage {
            Stage::OnTrial { .. } => Standing::Trial,
            Stage::Held { .. } => Standing::Out,
        },
        (Health::Returning { passes, .. }, _) if passes >= endpoint.pool.detect.up_after => {
            Standing::Resort
        }
        (Health::Down { .. } | Health::Returning { .. }, _) => Standing::Out,
        (Health::Up | Health::Suspect { .. }, _) if endpoint.bond != Bond::Free => Standing::Resort,
        (Health::Suspect { .. }, Trust::Doubted { .. }) if endpoint.health == Health::Up => {
            Standing::Doubted
        }
        (Health::Suspect { .. }, _) => Standing::Suspect,
        (Health::Up, _) => Standing::Clear,
    }
}

impl Endpoint {
    pub(super) fn is_clear(&self) -> bool {
        standing(self) == Standing::Clear
    }
}
