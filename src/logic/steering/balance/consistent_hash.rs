//! Consistent hashing over the zones of a tier.
//!
//! Two steps lead from a key to an endpoint. The zone is found by weighted rendezvous among those of the
//! tier that take traffic, the endpoint in it by the zone's table. Tables hold all that is declared, so
//! a verdict rebuilds nothing: whoever meets an endpoint that takes no traffic (or no more, or that is
//! to be avoided) hashes again, and again, until one fits ("random jumps", Chen, Coleman and
//! Shrivastava, 2021: the keys of one that is lost are spread over all others). So an endpoint or a zone
//! that goes moves its own keys and no others, and when it is back exactly these come back; while it
//! ramps, a growing part of them.

use super::hash::{endpoint_hash, mix, rendezvous_distance};
use super::zone_hash_table::{FULL_HASH_FRACTION, RendezvousZone};
use crate::logic::steering::target::{Target, WEIGHT_ONE};
use crate::logic::steering::tier::Tier;

/// Hashes before all endpoints of a tier are gone through.
const MAX_REHASHES: u64 = 64;

/// The salts of what must not depend on each other.
const SALT_ZONE: u64 = 1 << 32;
const SALT_HASH_FRACTION: u64 = 2 << 32;
const SALT_TIER: u64 = 3 << 32;
const SALT_FALLBACK: u64 = 4 << 32;

/// How much an endpoint may have in flight so that a key goes there.
#[derive(Clone, Copy, Debug)]
pub(in crate::logic) struct LoadBound {
    max_in_flight_per_weight: f64,
}

impl LoadBound {
    /// `percent` of the mean, where `in_flight` requests are spread over `share` of a whole of 1.
    pub(in crate::logic) fn new(
        percent: u32,
        in_flight: u32,
        share: f64,
        tier: &Tier,
    ) -> Option<Self> {
        let expected = (f64::from(in_flight) + 1.0) * share * f64::from(percent) / 100.0;
        let per_weight = expected * f64::from(WEIGHT_ONE) / tier.endpoint_weight().max(1) as f64;
        (share > 0.0).then_some(Self { max_in_flight_per_weight: per_weight })
    }

    fn has_capacity(self, target: &Target) -> bool {
        f64::from(target.stats.in_flight())
            < (self.max_in_flight_per_weight * f64::from(target.weight)).ceil()
    }
}

/// Where a key stands in the whole of a pool's traffic, in parts of [`crate::logic::steering::WHOLE`]: it
/// stays in its tier for as long as shares do not change, and when they do only those keys move that
/// must.
pub(in crate::logic) fn key_position(key: u64) -> u64 {
    mix(key, SALT_TIER) >> 32
}

/// The endpoint of a key among those that fit; `None` if none does. One that has no room by `bound`
/// is passed by, unless nobody has any.
pub(in crate::logic) fn pick_by_key(
    tier: &Tier,
    key: u64,
    bound: Option<LoadBound>,
    is_match: impl Fn(&Target) -> bool,
) -> Option<&Target> {
    let has_capacity = |target: &Target| bound.is_none_or(|bound| bound.has_capacity(target));
    for n in 0..MAX_REHASHES {
        let hash = mix(key, n);
        let Some(target) = target_for_hash(tier, hash) else { continue };
        if has_capacity(target) && is_match(target) {
            return Some(target);
        }
    }
    let rendezvous_pick = |fits: &dyn Fn(&Target) -> bool| {
        let weighted_distance = |target: &Target| {
            let hash = mix(key ^ endpoint_hash(target.address), SALT_FALLBACK);
            rendezvous_distance(hash, f64::from(target.weight))
        };
        let some = tier.targets().filter(|target| fits(target));
        some.map(|target| (weighted_distance(target), target)).min_by(|a, b| a.0.total_cmp(&b.0))
    };
    let found = rendezvous_pick(&|target| is_match(target) && has_capacity(target))
        .or_else(|| rendezvous_pick(&is_match));
    found.map(|(_, target)| target)
}

/// Whose the hash is, if that one takes it.
fn target_for_hash(tier: &Tier, hash: u64) -> Option<&Target> {
    let cell = match tier.zones.as_slice() {
        [only] => only,
        cells => &cells[zone_index_for_hash(&tier.rendezvous_zones, hash)?],
    };
    let position = cell.hash_table()?.owner(hash);
    let hash_fraction = cell.hash_fraction(position)?;
    let is_taken = hash_fraction == FULL_HASH_FRACTION
        || (mix(hash, SALT_HASH_FRACTION) as u16) < hash_fraction;
    is_taken.then(|| cell.target(position))
}

fn zone_index_for_hash(zones: &[RendezvousZone], hash: u64) -> Option<usize> {
    let first = zones.first()?.weight;
    let zone_key_hash = |home: &RendezvousZone| mix(hash ^ home.zone_hash, SALT_ZONE);
    if zones.iter().all(|home| home.weight == first) {
        // The same as below, for a tenth of the time.
        let nearest = zones.iter().enumerate().max_by_key(|(_, home)| zone_key_hash(home));
        return nearest.map(|(index, _)| index);
    }
    let weighted_distance =
        |home: &RendezvousZone| rendezvous_distance(zone_key_hash(home), home.weight);
    let homes = zones.iter().map(weighted_distance).enumerate();
    homes.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index)
}
