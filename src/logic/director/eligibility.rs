//! Where an endpoint stands: what it may be given, and what it counts in its zone.

use std::time::Instant;

use crate::logic::health::endpoint_health::Health;
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::model::id::EndpointId;
use crate::logic::steering::target::WEIGHT_ONE;

use super::Director;
use super::endpoint::{EndpointLocation, EndpointState, ZoneRecovery};
use super::outlier::{EjectionStage, OutlierState};
use super::pools::{Eligibility, MemberState};

/// Endpoints of a zone whose last resort is not worth a publication of its own.
const LARGE_ZONE: u32 = 64;

impl Director {
    /// Tells the zone where an endpoint stands now; its pool is published if that is news.
    pub(super) fn update_eligibility(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get(id) else { return };
        let EndpointLocation { pool, zone, position, .. } = endpoint.location;
        let member_state = member_state(endpoint, now);
        let state = &mut self.pools[pool];
        let zone = &mut state.zones[zone];
        let old = std::mem::replace(&mut zone.member_states[position as usize], member_state);
        if old == member_state {
            return;
        }
        zone.counts.replace(old, member_state);
        state.counts.replace(old, member_state);
        let is_drained = member_state.eligibility == Eligibility::Drained;
        if is_drained {
            zone.drained_at.entry(id).or_insert(now);
        } else if member_state.eligibility != Eligibility::Unknown {
            zone.drained_at.remove(&id);
        }
        // Who is drained may have clients of its own yet.
        let is_health_changed = is_drained && old.is_down != member_state.is_down;
        let is_first_request_changed =
            old.is_awaiting_first_request != member_state.is_awaiting_first_request;
        if old.eligibility != member_state.eligibility
            || old.weight != member_state.weight
            || is_first_request_changed
            || is_health_changed
        {
            zone.mark_dirty();
            // The last resort of a large zone that is down is published with whatever comes next: a
            // thousand verdicts in a zone that has left the traffic move nothing.
            let has_no_effect = zone.is_down()
                && zone.counts.all > LARGE_ZONE
                && state.counts.serving > 0
                && matches!(old.eligibility, Eligibility::LastResort | Eligibility::Out)
                && matches!(member_state.eligibility, Eligibility::LastResort | Eligibility::Out);
            if !has_no_effect {
                self.dirty_pools.insert(pool);
            }
        }
    }
}

fn member_state(endpoint: &EndpointState, now: Instant) -> MemberState {
    let (left, left_capacity) = endpoint.ordered_share(now);
    let eligibility = if left == 0 { Eligibility::Drained } else { eligibility(endpoint) };
    let of = |weight: u32, part: u32| {
        (u64::from(weight) * u64::from(part) / u64::from(FULL_SHARE_PERMILLE)) as u32
    };
    let (ramp, full) =
        (endpoint.ramp.share_permille(endpoint.pool.recovery.ramp, now), FULL_SHARE_PERMILLE);
    let degraded_percent = match &endpoint.pool.primary_probe().degraded {
        Some(degraded) if endpoint.is_degraded => degraded.weight_percent,
        _ => 100,
    };
    let declared = endpoint.location.weight * WEIGHT_ONE;
    let ramped = (u64::from(declared) * u64::from(ramp) / u64::from(full)) as u32;
    let weight = (u64::from(ramped) * u64::from(degraded_percent) / 100) as u32;
    MemberState {
        eligibility,
        weight: of(weight, left).max(1),
        // An addition is no lost capacity, neither before its first pass nor while it grows.
        capacity: of(if endpoint.is_late_addition { ramped } else { declared }, left_capacity),
        // Whoever is drained takes nothing of what may be down.
        is_down: endpoint.is_down() && left > 0,
        is_ready: endpoint.is_ready(now),
        is_ejected: matches!(endpoint.outlier, OutlierState::Ejected(_)),
        is_awaiting_first_request: endpoint.is_awaiting_first_request
            && eligibility == Eligibility::Clear,
    }
}

fn eligibility(endpoint: &EndpointState) -> Eligibility {
    match (endpoint.verdict(), endpoint.outlier) {
        _ if endpoint.withheld.is_some()
            && endpoint.zone_recovery == ZoneRecovery::Independent
            && endpoint.can_serve() =>
        {
            Eligibility::Clear
        }
        (Health::Unknown { .. }, _) if endpoint.pool.is_optimistic => Eligibility::Clear,
        (Health::Unknown { .. }, _) => Eligibility::Unknown,
        (Health::Down { .. }, OutlierState::Ejected(case)) => match case.stage {
            EjectionStage::OnTrial { .. } => Eligibility::Trial,
            EjectionStage::Held { .. } => Eligibility::Out,
        },
        (Health::Returning { passes, .. }, _) if passes >= endpoint.pool.detect.up_after => {
            Eligibility::LastResort
        }
        (Health::Down { .. } | Health::Returning { .. }, _) => Eligibility::Out,
        (Health::Up | Health::Suspect { .. }, _)
            if endpoint.zone_recovery != ZoneRecovery::Independent =>
        {
            Eligibility::LastResort
        }
        (Health::Suspect { .. }, OutlierState::Doubted { .. }) if endpoint.health == Health::Up => {
            Eligibility::Doubted
        }
        (Health::Suspect { .. }, _) => Eligibility::Suspect,
        (Health::Up, _) => Eligibility::Clear,
    }
}

impl EndpointState {
    pub(super) fn is_clear(&self) -> bool {
        eligibility(self) == Eligibility::Clear
    }
}
