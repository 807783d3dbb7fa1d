//! Smooth weighted round robin: consecutive picks are spread over the endpoints.
//!
//! nginx keeps a credit per endpoint and scans all of them for each pick. Here a point steps
//! through the cumulative weights instead. The step is coprime to the total and close to its golden
//! section. So one round visits each unit of weight once (the shares are exact), and any part of a
//! round is spread nearly evenly (three-gap theorem).

use std::cell::RefCell;

use fastrand::Rng;
use smallvec::SmallVec;

/// A worker's round-robin position in each tier of a pool.
#[derive(Clone, Debug, Default)]
pub struct RoundRobinState(RefCell<SmallVec<[u64; 4]>>);

impl RoundRobinState {
    /// Advances the tier's position; the result is below `whole`. The first position is random, so
    /// that workers are not in step.
    pub(in crate::logic) fn next_point(
        &self,
        tier_index: usize,
        stride: u64,
        whole: u64,
        rng: &mut Rng,
    ) -> u64 {
        let mut points = self.0.borrow_mut();
        while points.len() <= tier_index {
            points.push(rng.u64(..));
        }
        let mut point = points[tier_index].saturating_add(stride);
        if point >= whole {
            point -= whole;
            if point >= whole {
                // The total weight has shrunk since the last call.
                point %= whole;
            }
        }
        points[tier_index] = point;
        point
    }
}

/// The step through a round of `whole` units: coprime to it, close to its golden section.
pub(in crate::logic) fn stride(whole: u64) -> u64 {
    if whole <= 2 {
        return 1;
    }
    let golden = ((u128::from(whole) * 0x9E37_79B9_7F4A_7C15) >> 64) as u64;
    (golden.max(1)..whole).find(|&step| gcd(step, whole) == 1).unwrap_or(1)
}

/// The greatest common divisor; the other argument if one is zero.
pub(in crate::logic) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_visits_each_unit_of_weight_once() {
        for whole in 1..200 {
            let (state, mut rng) = (RoundRobinState::default(), Rng::with_seed(whole));
            let mut visits = vec![0; whole as usize];
            for _ in 0..whole {
                visits[state.next_point(0, stride(whole), whole, &mut rng) as usize] += 1;
            }
            assert!(visits.iter().all(|&count| count == 1), "{whole}: {visits:?}");
        }
    }

    #[test]
    fn next_point_after_total_shrinks_is_within_total() {
        let (state, mut rng) = (RoundRobinState::default(), Rng::with_seed(7));
        for whole in [1_000_000, 3, 1, 77] {
            for _ in 0..100 {
                assert!(state.next_point(1, stride(whole), whole, &mut rng) < whole);
            }
        }
    }
}
