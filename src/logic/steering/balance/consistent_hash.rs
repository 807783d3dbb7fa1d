//! Consistent hashing over the zones of a tier.
//!
//! Two steps lead from a key to an endpoint. Weighted rendezvous hashing chooses among the tier's
//! zones, and the zone's table chooses the endpoint. Tables hold every declared endpoint, so a
//! verdict rebuilds nothing. A lookup that finds an endpoint without traffic hashes again until one
//! matches ("random jumps", Chen, Coleman and Shrivastava, 2021). This spreads the keys of a lost
//! endpoint over all others. Only the keys of the lost endpoint or zone move, exactly these return,
//! and a ramp returns a growing part of them.

use super::hash::{endpoint_hash, mix, rendezvous_distance};
use super::zone_hash_table::{FULL_HASH_FRACTION, RendezvousZone};
use crate::logic::steering::target::{Target, WEIGHT_ONE};
use crate::logic::steering::tier::Tier;

/// Rehashes before the rendezvous over all endpoints of the tier.
const MAX_REHASHES: u64 = 64;

/// Salts of independent hashes of the same key.
const SALT_ZONE: u64 = 1 << 32;
const SALT_HASH_FRACTION: u64 = 2 << 32;
const SALT_TIER: u64 = 3 << 32;
const SALT_FALLBACK: u64 = 4 << 32;

/// The requests in flight beyond which an endpoint takes no further keys.
#[derive(Clone, Copy, Debug)]
pub(in crate::logic) struct LoadBound {
    max_in_flight_per_weight: f64,
}

impl LoadBound {
    /// `percent` of the mean load per weight, when `share` (0..1) of `in_flight` requests is in the
    /// tier.
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

/// The position of a key in a pool's traffic, in parts of [`FULL_SHARE`]. A key stays in its tier
/// while the shares are stable, and a change of shares moves only the keys it must.
///
/// [`FULL_SHARE`]: crate::logic::steering::FULL_SHARE
pub(in crate::logic) fn key_position(key: u64) -> u64 {
    mix(key, SALT_TIER) >> 32
}

/// The endpoint of a key among the matching ones; `None` if none matches. Endpoints beyond `bound`
/// are skipped while any other is below it.
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
    let rendezvous_pick = |is_match: &dyn Fn(&Target) -> bool| {
        let weighted_distance = |target: &Target| {
            let hash = mix(key ^ endpoint_hash(target.address), SALT_FALLBACK);
            rendezvous_distance(hash, f64::from(target.weight))
        };
        let matching = tier.targets().filter(|target| is_match(target));
        matching
            .map(|target| (weighted_distance(target), target))
            .min_by(|a, b| a.0.total_cmp(&b.0))
    };
    let found = rendezvous_pick(&|target| is_match(target) && has_capacity(target))
        .or_else(|| rendezvous_pick(&is_match));
    found.map(|(_, target)| target)
}

/// The owner of the hash, unless its ramp or its state leaves this hash to others.
fn target_for_hash(tier: &Tier, hash: u64) -> Option<&Target> {
    let zone = match tier.zones.as_slice() {
        [zone] => zone,
        zones => &zones[zone_index_for_hash(&tier.rendezvous_zones, hash)?],
    };
    let position = zone.hash_table()?.owner(hash);
    let hash_fraction = zone.hash_fraction(position)?;
    let is_taken = hash_fraction == FULL_HASH_FRACTION
        || (mix(hash, SALT_HASH_FRACTION) as u16) < hash_fraction;
    is_taken.then(|| zone.target(position))
}

fn zone_index_for_hash(zones: &[RendezvousZone], hash: u64) -> Option<usize> {
    let first = zones.first()?.weight;
    let zone_key_hash = |zone: &RendezvousZone| mix(hash ^ zone.zone_hash, SALT_ZONE);
    if zones.iter().all(|zone| zone.weight == first) {
        // Equal weights allow a comparison of hashes, ten times faster than the logarithms below.
        let nearest = zones.iter().enumerate().max_by_key(|(_, zone)| zone_key_hash(zone));
        return nearest.map(|(index, _)| index);
    }
    let weighted_distance =
        |zone: &RendezvousZone| rendezvous_distance(zone_key_hash(zone), zone.weight);
    let distances = zones.iter().map(weighted_distance).enumerate();
    distances.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index)
}
