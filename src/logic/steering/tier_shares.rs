//! The share of each tier: Envoy's priority levels in exact arithmetic.

use super::{Overprovisioning, UNBOUNDED_SHARE};

/// The weights and the capacity of one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriorityLevel {
    /// Sum of the weights of all its endpoints.
    pub total: u64,
    /// Sum of the weights of the endpoints that serve.
    pub healthy: u64,
    /// Declared capacity in parts of the whole; [`UNBOUNDED_SHARE`] without a declaration.
    pub bound: u64,
}

impl Default for PriorityLevel {
    fn default() -> Self {
        Self { total: 0, healthy: 0, bound: UNBOUNDED_SHARE }
    }
}

impl PriorityLevel {
    /// The capacity in parts of `whole`: overprovisioned health, at most the declared bound.
    pub fn capacity(&self, over: Overprovisioning, whole: u64) -> u64 {
        if self.total == 0 {
            return 0;
        }
        let healthy_part =
            u128::from(self.healthy) * u128::from(over.hundredths()) * u128::from(whole)
                / (100 * u128::from(self.total));
        (healthy_part.min(u128::from(whole)) as u64).min(self.bound)
    }
}

/// The share of each tier, in parts of `whole`. The shares sum to `whole`, or all are zero when no
/// endpoint is healthy.
///
/// Each tier takes the remaining demand up to its capacity. When the sum of capacities is less than
/// `whole`, all are scaled up evenly. The rounding remainder goes to the first tier with capacity.
/// With a `whole` of 100 the results equal the integers of Envoy's `PriorityLoad`.
pub fn tier_shares(levels: &[PriorityLevel], over: Overprovisioning, whole: u64) -> Vec<u64> {
    let capacities: Vec<u64> = levels.iter().map(|level| level.capacity(over, whole)).collect();
    let sum: u128 = capacities.iter().map(|&part| u128::from(part)).sum();
    if sum == 0 {
        return shares_without_capacity(levels, whole);
    }
    let scale = sum.min(u128::from(whole));
    let mut remaining = whole;
    let mut shares: Vec<u64> = capacities
        .iter()
        .map(|&part| {
            let share = ((u128::from(part) * u128::from(whole) / scale) as u64).min(remaining);
            remaining -= share;
            share
        })
        .collect();
    if let Some(first) = capacities.iter().position(|&part| part > 0) {
        shares[first] += remaining;
    }
    shares
}

/// No tier has capacity: the first tier with a healthy endpoint takes all traffic.
fn shares_without_capacity(levels: &[PriorityLevel], whole: u64) -> Vec<u64> {
    let mut shares = vec![0; levels.len()];
    if let Some(first) = levels.iter().position(|level| level.healthy > 0) {
        shares[first] = whole;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::steering::FULL_SHARE;
    use proptest::prelude::*;

    fn level(healthy: u64, total: u64) -> PriorityLevel {
        PriorityLevel { total, healthy, ..PriorityLevel::default() }
    }

    fn percent_shares(tiers: &[(u64, u64)]) -> Vec<u64> {
        let levels: Vec<PriorityLevel> =
            tiers.iter().map(|&(healthy, total)| level(healthy, total)).collect();
        tier_shares(&levels, Overprovisioning::default(), 100)
    }

    fn exact_percent_shares(tiers: &[(u64, u64)]) -> Vec<f64> {
        let levels: Vec<PriorityLevel> =
            tiers.iter().map(|&(healthy, total)| level(healthy, total)).collect();
        let shares = tier_shares(&levels, Overprovisioning::default(), FULL_SHARE);
        shares.iter().map(|&share| (share as f64 / FULL_SHARE as f64 * 1e4).round() / 1e2).collect()
    }

    /// Expected values of Envoy's load balancer in whole per cent, rounding remainders included.
    #[test]
    fn percent_shares_match_envoy_priority_load() {
        assert_eq!(percent_shares(&[(100, 100), (100, 100)]), [100, 0]);
        assert_eq!(percent_shares(&[(72, 100), (100, 100)]), [100, 0]);
        assert_eq!(percent_shares(&[(71, 100), (100, 100)]), [99, 1]);
        assert_eq!(percent_shares(&[(50, 100), (100, 100)]), [70, 30]);
        assert_eq!(percent_shares(&[(25, 100), (100, 100)]), [35, 65]);
        assert_eq!(percent_shares(&[(25, 100), (25, 100)]), [50, 50]);
        assert_eq!(percent_shares(&[(25, 100), (25, 100), (20, 100)]), [37, 35, 28]);
        assert_eq!(percent_shares(&[(0, 100), (100, 100)]), [0, 100]);
        assert_eq!(percent_shares(&[(0, 3), (0, 3)]), [0, 0]);
    }

    #[test]
    fn exact_shares_have_no_rounding_remainder() {
        assert_eq!(exact_percent_shares(&[(100, 100), (100, 100)]), [100.0, 0.0]);
        assert_eq!(exact_percent_shares(&[(71, 100), (100, 100)]), [99.4, 0.6]);
        assert_eq!(exact_percent_shares(&[(50, 100), (100, 100)]), [70.0, 30.0]);
        assert_eq!(exact_percent_shares(&[(25, 100), (25, 100)]), [50.0, 50.0]);
        assert_eq!(exact_percent_shares(&[(25, 100), (25, 100), (20, 100)]), [35.71, 35.71, 28.57]);
        assert_eq!(exact_percent_shares(&[(2, 3), (3, 3)]), [93.33, 6.67]);
    }

    #[test]
    fn tier_over_its_bound_spills_while_still_healthy() {
        let over = Overprovisioning::default();
        let bounded = |bound| PriorityLevel { bound, ..level(3, 3) };
        assert_eq!(tier_shares(&[bounded(40), level(3, 3)], over, 100), [40, 60]);
        assert_eq!(
            tier_shares(&[bounded(40), bounded(20)], over, 100),
            [67, 33],
            "demand exceeds capacity"
        );
        assert_eq!(
            tier_shares(&[bounded(0), bounded(0)], over, 100),
            [100, 0],
            "no tier has capacity"
        );
    }

    proptest! {
        #[test]
        fn shares_sum_to_total_and_only_healthy_tiers_get_any(
            tiers in prop::collection::vec(
                (0u64..50, 1u64..50, prop::option::of(0..FULL_SHARE)), 1..8,
            ),
        ) {
            let levels: Vec<PriorityLevel> = tiers.iter()
                .map(|&(healthy, total, bound)| PriorityLevel {
                    total,
                    healthy: healthy.min(total),
                    bound: bound.unwrap_or(UNBOUNDED_SHARE),
                })
                .collect();
            let shares = tier_shares(&levels, Overprovisioning::default(), FULL_SHARE);
            let any = levels.iter().any(|level| level.healthy > 0);
            prop_assert_eq!(shares.iter().sum::<u64>(), if any { FULL_SHARE } else { 0 });
            for (level, share) in levels.iter().zip(&shares) {
                prop_assert!(level.healthy > 0 || *share == 0);
            }
        }

        /// Adding one endpoint moves at most its overprovisioned share.
        #[test]
        fn one_endpoint_moves_at_most_its_own_share(
            tiers in prop::collection::vec((0u64..50, 1u64..50), 1..8),
            at in any::<prop::sample::Index>(),
            weight in 1u64..10,
        ) {
            let over = Overprovisioning::default();
            let mut levels: Vec<PriorityLevel> = tiers.iter()
                .map(|&(healthy, total)| level(healthy.min(total), total))
                .collect();
            let at = at.index(levels.len());
            levels[at].total += weight;
            let without = tier_shares(&levels, over, FULL_SHARE);
            levels[at].healthy += weight;
            let with = tier_shares(&levels, over, FULL_SHARE);
            prop_assume!(without.iter().any(|&share| share > 0));
            let changes = with.iter().zip(&without).map(|(a, b)| a.abs_diff(*b));
            let moved = changes.sum::<u64>() / 2;
            // Below full capacity, all capacities are scaled up.
            let capacity = |levels: &[PriorityLevel]| -> f64 {
                let sum: u64 = levels.iter().map(|level| level.capacity(over, FULL_SHARE)).sum();
                (sum as f64 / FULL_SHARE as f64).min(1.0)
            };
            levels[at].healthy -= weight;
            let scale = 1.0 / capacity(&levels);
            let own = weight as f64 / levels[at].total as f64 * 1.4 * scale;
            prop_assert!(moved as f64 / FULL_SHARE as f64 <= own + 1e-6, "{with:?} {without:?}");
        }
    }
}
