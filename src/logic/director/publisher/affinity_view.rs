//! The endpoints that receive the requests that are pinned to them.

use std::time::{Duration, Instant};

use crate::logic::director::pools::PoolState;
use crate::logic::director::pools::roster::ZoneRoster;
use crate::logic::model::snapshot::Target;
use crate::logic::steering::affinity::{AffinityIndex, AffinityZone, SessionAffinity};

/// `None` where the pool has no pins.
pub(super) fn build_affinity_index(
    pool: &mut PoolState,
    is_panicking: bool,
    epoch: Instant,
) -> Option<AffinityIndex> {
    let pins = pool.pins()?.clone();
    let drain_timeout = match pool.spec().affinity.as_deref() {
        Some(SessionAffinity::Cookie(cookie)) => cookie.drain_timeout,
        _ => Duration::ZERO,
    };
    let zones = pool.zones_mut().iter_mut().map(|zone| {
        let draining = draining_targets(zone.roster(), drain_timeout, epoch);
        if is_panicking {
            let all = zone.roster().undrained();
            return AffinityZone {
                any_request: all.clone(),
                repeatable_only: all,
                suspects: None,
                draining,
            };
        }
        let subsets = zone.roster_mut().subsets();
        AffinityZone {
            any_request: subsets.clear().cloned(),
            repeatable_only: subsets.eligible().cloned(),
            suspects: subsets.suspects().cloned(),
            draining,
        }
    });
    Some(AffinityIndex::new(&pins, zones.collect()))
}

/// Drained endpoints that keep their clients, each with the end of that period in microseconds
/// since the epoch.
fn draining_targets(
    roster: &ZoneRoster,
    drain_timeout: Duration,
    epoch: Instant,
) -> Vec<(Target, u64)> {
    let until_us =
        |since: Instant| (since + drain_timeout).saturating_duration_since(epoch).as_micros();
    let drained = roster.drained_targets();
    drained.map(|(target, since)| (target.clone(), until_us(since) as u64)).collect()
}
