//! Water filling: divides an amount by weight over buckets with a bound.

/// A recipient of a part of the amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The parts are proportional to the weights.
    pub weight: u64,
    /// Upper bound of the part while another bucket is below its bound.
    pub bound: u64,
}

/// Divides `amount` by weight. What exceeds the bound of one bucket goes to the others by weight.
/// When all bounds are reached, the amount is divided in proportion to the bounds. The parts sum to
/// `amount`, unless all weights are zero.
pub fn water_fill(amount: u64, buckets: &[Bucket]) -> Vec<u64> {
    let mut parts = vec![0; buckets.len()];
    let mut open: Vec<usize> =
        (0..buckets.len()).filter(|&index| buckets[index].weight > 0).collect();
    let total_bound: u128 = open.iter().map(|&index| u128::from(buckets[index].bound)).sum();
    if total_bound < u128::from(amount) {
        fill_beyond_bounds(amount, buckets, &open, total_bound, &mut parts);
        return parts;
    }
    let mut remaining = amount;
    loop {
        let weight: u128 = open.iter().map(|&index| u128::from(buckets[index].weight)).sum();
        let proportional_part = |index: usize| {
            u128::from(remaining) * u128::from(buckets[index].weight) / weight.max(1)
        };
        let (full, rest): (Vec<usize>, Vec<usize>) = open
            .iter()
            .partition(|&&index| proportional_part(index) >= u128::from(buckets[index].bound));
        if full.is_empty() {
            open.iter().for_each(|&index| parts[index] = proportional_part(index) as u64);
            break;
        }
        for index in full {
            parts[index] = buckets[index].bound;
            remaining -= buckets[index].bound;
        }
        open = rest;
    }
    // The rounding remainder: less than one per bucket.
    let mut rest = amount - parts.iter().sum::<u64>();
    for (part, bucket) in parts.iter_mut().zip(buckets).filter(|(_, bucket)| bucket.weight > 0) {
        let more = rest.min(bucket.bound - *part);
        *part += more;
        rest -= more;
    }
    parts
}

fn fill_beyond_bounds(
    amount: u64,
    buckets: &[Bucket],
    open: &[usize],
    total_bound: u128,
    parts: &mut [u64],
) {
    for &index in open {
        let scaled =
            |part: u64, whole: u128| (u128::from(amount) * u128::from(part) / whole.max(1)) as u64;
        parts[index] = match total_bound {
            0 => {
                let weight = open.iter().map(|&index| u128::from(buckets[index].weight)).sum();
                scaled(buckets[index].weight, weight)
            }
            total_bound => scaled(buckets[index].bound, total_bound),
        };
    }
    let rest = amount - parts.iter().sum::<u64>();
    if let Some(&first) = open.first() {
        parts[first] += rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::steering::UNBOUNDED_SHARE;
    use proptest::prelude::*;

    fn buckets(pairs: &[(u64, u64)]) -> Vec<Bucket> {
        pairs.iter().map(|&(weight, bound)| Bucket { weight, bound }).collect()
    }

    #[test]
    fn excess_over_bound_is_divided_by_weight() {
        let without = [(1, UNBOUNDED_SHARE), (2, UNBOUNDED_SHARE), (1, UNBOUNDED_SHARE)];
        assert_eq!(water_fill(100, &buckets(&without)), [25, 50, 25]);
        assert_eq!(
            water_fill(100, &buckets(&[(1, UNBOUNDED_SHARE), (2, 20), (1, UNBOUNDED_SHARE)])),
            [40, 20, 40]
        );
        assert_eq!(
            water_fill(100, &buckets(&[(1, 30), (2, 20), (1, UNBOUNDED_SHARE)])),
            [30, 20, 50]
        );
        assert_eq!(
            water_fill(100, &buckets(&[(1, 30), (0, UNBOUNDED_SHARE), (1, 10)])),
            [75, 0, 25],
            "all bounds are reached"
        );
        assert_eq!(water_fill(100, &buckets(&[(1, 0), (3, 0)])), [25, 75], "all bounds are zero");
        assert_eq!(water_fill(100, &buckets(&[(0, 5)])), [0]);
        assert_eq!(water_fill(100, &[]), [0_u64; 0]);
    }

    proptest! {
        #[test]
        fn parts_sum_to_amount_and_respect_bounds(
            amount in 0u64..(1 << 32),
            pairs in prop::collection::vec((0u64..1_000_000, 0u64..(1 << 33)), 1..12),
        ) {
            let filled = buckets(&pairs);
            let parts = water_fill(amount, &filled);
            let has_weight = filled.iter().any(|bucket| bucket.weight > 0);
            prop_assert_eq!(parts.iter().sum::<u64>(), if has_weight { amount } else { 0 });
            let open = filled.iter().filter(|bucket| bucket.weight > 0);
            let has_room = open.map(|bucket| bucket.bound).sum::<u64>() >= amount;
            for (part, bucket) in parts.iter().zip(&filled) {
                prop_assert!(bucket.weight > 0 || *part == 0);
                prop_assert!(!has_room || *part <= bucket.bound);
            }
        }
    }
}
