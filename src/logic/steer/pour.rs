//! An amount over vessels that hold only so much.

/// One of several that share an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vessel {
    /// What it gets is in proportion to this.
    pub weight: u64,
    /// But no more than this, while another has room.
    pub bound: u64,
}

/// Divides `amount` by weight; what one cannot hold goes to the others, again by weight. When all
/// are full, the rest is divided by what they hold. The parts add up to `amount`, unless nothing
/// weighs anything.
#[must_use]
pub fn pour(amount: u64, vessels: &[Vessel]) -> Vec<u64> {
    let mut parts = vec![0; vessels.len()];
    let mut open: Vec<usize> = (0..vessels.len()).filter(|&at| vessels[at].weight > 0).collect();
    let room: u128 = open.iter().map(|&at| u128::from(vessels[at].bound)).sum();
    if room < u128::from(amount) {
        overflow(amount, vessels, &open, room, &mut parts);
        return parts;
    }
    let mut left = amount;
    loop {
        let weight: u128 = open.iter().map(|&at| u128::from(vessels[at].weight)).sum();
        let even = |at: usize| u128::from(left) * u128::from(vessels[at].weight) / weight.max(1);
        let (full, rest): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&at| even(at) >= u128::from(vessels[at].bound));
        if full.is_empty() {
            open.iter().for_each(|&at| parts[at] = even(at) as u64);
            break;
        }
        for at in full {
            parts[at] = vessels[at].bound;
            left -= vessels[at].bound;
        }
        open = rest;
    }
    // What rounding leaves: less than one for each.
    let mut rest = amount - parts.iter().sum::<u64>();
    for (part, vessel) in parts.iter_mut().zip(vessels).filter(|(_, vessel)| vessel.weight > 0) {
        let more = rest.min(vessel.bound - *part);
        *part += more;
        rest -= more;
    }
    parts
}

fn overflow(amount: u64, vessels: &[Vessel], open: &[usize], room: u128, parts: &mut [u64]) {
    for &at in open {
        let part =
            |of: u64, whole: u128| (u128::from(amount) * u128::from(of) / whole.max(1)) as u64;
        parts[at] = match room {
            0 => {
                let weight = open.iter().map(|&at| u128::from(vessels[at].weight)).sum();
                part(vessels[at].weight, weight)
            }
            room => part(vessels[at].bound, room),
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
    use crate::logic::steer::UNBOUNDED;
    use proptest::prelude::*;

    fn vessels(of: &[(u64, u64)]) -> Vec<Vessel> {
        of.iter().map(|&(weight, bound)| Vessel { weight, bound }).collect()
    }

    #[test]
    fn what_one_cannot_hold_the_others_share_by_weight() {
        let without = [(1, UNBOUNDED), (2, UNBOUNDED), (1, UNBOUNDED)];
        assert_eq!(pour(100, &vessels(&without)), [25, 50, 25]);
        assert_eq!(pour(100, &vessels(&[(1, UNBOUNDED), (2, 20), (1, UNBOUNDED)])), [40, 20, 40]);
        assert_eq!(pour(100, &vessels(&[(1, 30), (2, 20), (1, UNBOUNDED)])), [30, 20, 50]);
        assert_eq!(
            pour(100, &vessels(&[(1, 30), (0, UNBOUNDED), (1, 10)])),
            [75, 0, 25],
            "all full"
        );
        assert_eq!(pour(100, &vessels(&[(1, 0), (3, 0)])), [25, 75], "no room at all");
        assert_eq!(pour(100, &vessels(&[(0, 5)])), [0]);
        assert_eq!(pour(100, &[]), [0_u64; 0]);
    }

    proptest! {
        #[test]
        fn parts_add_up_and_stay_within_bounds_while_there_is_room(
            amount in 0u64..(1 << 32),
            of in prop::collection::vec((0u64..1_000_000, 0u64..(1 << 33)), 1..12),
        ) {
            let vessels = vessels(&of);
            let parts = pour(amount, &vessels);
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
