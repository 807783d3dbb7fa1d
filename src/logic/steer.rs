//! Tiers by place, and the share of each by what is healthy in it.

use super::id::Place;
use super::topology::PoolSpec;

/// The whole of a pool's traffic, as shares are counted.
pub const WHOLE: u64 = 1 << 32;

/// A tier carries this many times its healthy share before it spills: in tenths (1.4, as Envoy has
/// it), so one endpoint of four down moves nothing.
const OVERPROVISIONING_TENTHS: u128 = 14;

/// The weight of a tier: all of it, and what of it may serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierWeight {
    /// Sum of the weights of all endpoints.
    pub total: u64,
    /// Sum of the weights of the endpoints that serve.
    pub healthy: u64,
}

/// Groups the zones of a pool (as indices into it) into tiers, nearest first.
///
/// With `here`: own zone, the other zones of its region, then each further region in the order of
/// the file. Without: every zone is a tier of its own, in the order of the file.
#[must_use]
pub fn tiers(pool: &PoolSpec, here: Option<&Place>) -> Vec<Vec<usize>> {
    let Some(here) = here else {
        return (0..pool.zones.len()).map(|zone| vec![zone]).collect();
    };
    let mut own_zone = Vec::new();
    let mut own_region = Vec::new();
    let mut regions: Vec<(&str, Vec<usize>)> = Vec::new();
    for (index, zone) in pool.zones.iter().enumerate() {
        if zone.place == *here {
            own_zone.push(index);
        } else if zone.place.region == here.region {
            own_region.push(index);
        } else {
            match regions.iter_mut().find(|(name, _)| **name == *zone.place.region) {
                Some((_, zones)) => zones.push(index),
                None => regions.push((&zone.place.region, vec![index])),
            }
        }
    }
    let near = [own_zone, own_region].into_iter();
    let far = regions.into_iter().map(|(_, zones)| zones);
    near.chain(far).filter(|zones| !zones.is_empty()).collect()
}

/// The share of each tier, in parts of [`WHOLE`]; they add up to it, or are all zero when nothing
/// is healthy.
///
/// Each tier takes what is left, up to its capacity; when all capacities together do not reach the
/// whole, they are scaled up evenly. What rounding leaves goes to the first tier that serves.
#[must_use]
pub fn shares(tiers: &[TierWeight]) -> Vec<u64> {
    let capacity = |tier: &TierWeight| -> u64 {
        if tier.total == 0 {
            return 0;
        }
        let part = u128::from(tier.healthy) * OVERPROVISIONING_TENTHS * u128::from(WHOLE)
            / (10 * u128::from(tier.total));
        part.min(u128::from(WHOLE)) as u64
    };
    let capacities: Vec<u64> = tiers.iter().map(capacity).collect();
    let sum: u128 = capacities.iter().map(|&part| u128::from(part)).sum();
    if sum == 0 {
        return vec![0; tiers.len()];
    }
    let scale = sum.min(u128::from(WHOLE));
    let mut left = WHOLE;
    let mut shares: Vec<u64> = capacities
        .iter()
        .map(|&part| {
            let share = ((u128::from(part) * u128::from(WHOLE) / scale) as u64).min(left);
            left -= share;
            share
        })
        .collect();
    if let Some(first) = capacities.iter().position(|&part| part > 0) {
        shares[first] += left;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn per_cent(tiers: &[(u64, u64)]) -> Vec<u64> {
        let tiers: Vec<_> =
            tiers.iter().map(|&(healthy, total)| TierWeight { total, healthy }).collect();
        shares(&tiers).iter().map(|share| (share * 100 + WHOLE / 2) / WHOLE).collect()
    }

    /// Envoy's priority levels: "P0 at 50 % and P1 full → 70/30; 25/25 → 50/50".
    #[test]
    fn shares_are_those_of_envoys_priorities() {
        assert_eq!(per_cent(&[(100, 100), (100, 100)]), [100, 0]);
        assert_eq!(per_cent(&[(72, 100), (100, 100)]), [100, 0]);
        assert_eq!(per_cent(&[(50, 100), (100, 100)]), [70, 30]);
        assert_eq!(per_cent(&[(25, 100), (25, 100)]), [50, 50]);
        assert_eq!(per_cent(&[(25, 100), (25, 100), (20, 100)]), [36, 36, 29]);
        assert_eq!(per_cent(&[(0, 100), (100, 100)]), [0, 100]);
        assert_eq!(per_cent(&[(0, 3), (0, 3)]), [0, 0]);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_only_the_healthy_get_any(
            tiers in prop::collection::vec((0u64..50, 1u64..50), 1..8)
        ) {
            let tiers: Vec<_> = tiers.iter()
                .map(|&(healthy, total)| TierWeight { total, healthy: healthy.min(total) })
                .collect();
            let shares = shares(&tiers);
            let any = tiers.iter().any(|tier| tier.healthy > 0);
            prop_assert_eq!(shares.iter().sum::<u64>(), if any { WHOLE } else { 0 });
            for (tier, share) in tiers.iter().zip(&shares) {
                prop_assert!(tier.healthy > 0 || *share == 0);
            }
        }
    }
}
