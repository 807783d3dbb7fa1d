//! An amount over vessels that hold only so much.

/// One of several that share an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// What it gets is in proportion to this.
    pub weight: u64,
    /// But no more than this, while another has room.
    pub bound: u64,
}

/// Divides `amount` by weight; what one cannot hold goes to the others, again by weight. When all
/// are full, the rest is divided by what they hold. The parts add up to `amount`, unless nothing
/// weighs anything.
pub fn water_fill(amount: u64, buckets: &[Bucket]) -> Vec<u64> {
    let mut parts = vec![0; buckets.len()];
    let mut open: Vec<usize> = (0..buckets.len()).filter(|&at| buckets[at].weight > 0).collect();
    let total_bound: u128 = open.iter().map(|&at| u128::from(buckets[at].bound)).sum();
    if total_bound < u128::from(amount) {
        fill_beyond_bounds(amount, buckets, &open, total_bound, &mut parts);
        return parts;
    }
    let mut left = amount;
    loop {
        let weight: u128 = open.iter().map(|&at| u128::from(buckets[at].weight)).sum();
        let proportional_part =
            |at: usize| u128::from(left) * u128::from(buckets[at].weight) / weight.max(1);
        let (full, rest): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&at| proportional_part(at) >= u128::from(buckets[at].bound));
        if full.is_empty() {
            open.iter().for_each(|&at| parts[at] = proportional_part(at) as u64);
            break;
        }
        for at in full {
            parts[at] = buckets[at].bound;
            left -= buckets[at].bound;
        }
        open = rest;
    }
    // What rounding leaves: less than one for each.
    let mut rest = amount - parts.iter().sum::<u64>();
    for (part, vessel) in parts.iter_mut().zip(buckets).filter(|(_, vessel)| vessel.weight > 0) {
        let more = rest.min(vessel.bound - *part);
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
    for &at in open {
        let part =
            |of: u64, whole: u128| (u128::from(amount) * u128::from(of) / whole.max(1)) as u64;
        parts[at] = match total_bound {
            0 => {
                let weight = open.iter().map(|&at| u128::from(buckets[at].weight)).sum();
                part(buckets[at].weight, weight)
            }
            room => part(buckets[at].bound, room),
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

    fn buckets(of: &[(u64, u64)]) -> Vec<Bucket> {
        of.iter().map(|&(weight, bound)| Bucket { weight, bound }).collect()
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
            "all full"
        );
        assert_eq!(water_fill(100, &buckets(&[(1, 0), (3, 0)])), [25, 75], "no room at all");
        assert_eq!(water_fill(100, &buckets(&[(0, 5)])), [0]);
        assert_eq!(water_fill(100, &[]), [0_u64; 0]);
    }

    proptest! {
        #[test]
        fn parts_sum_to_amount_and_respect_bounds(
            amount in 0u64..(1 << 32),
            of in prop::collection::vec((0u64..1_000_000, 0u64..(1 << 33)), 1..12),
        ) {
            let vessels = buckets(&of);
            let parts = water_fill(amount, &vessels);
            let weighs = vessels.iter().any(|vessel| vessel.weight > 0);
            prop_assert_eq!(parts.iter().sum::<u64>(), if weighs { amount } else { 0 });
            let open = vessels.iter().filter(|vessel| vessel.weight > 0);
            let has_room = open.map(|vessel| vessel.bound).sum::<u64>() >= amount;
            for (part, vessel) in parts.iter().zip(&vessels) {
                prop_assert!(vessel.weight > 0 || *part == 0);
                prop_assert!(!has_room || *part <= vessel.bound);
            }
        }
    }
}
