//! A hash ring (Karger et al., 1997): a key belongs to the first point at or after its hash.
//!
//! A change of members moves only the keys of the members that come or go. With `p` points per unit
//! of weight the shares deviate by `1/√p` on average.

use super::hash::mix;

/// Upper bound on the points of a ring; beyond it each unit of weight gets fewer points.
const MAX_RING_POINTS: u64 = 1 << 17;

/// Set in a bucket that contains points; the other bits are the index of the first one.
const HAS_POINTS: u32 = 1 << 31;

/// The points of all members, indexed for lookup.
#[derive(Debug)]
pub(super) struct HashRing {
    /// Indexed by the first bits of a hash: the owner of the bucket, or its first point. Nearly
    /// every lookup ends here, after one cache line.
    buckets: Box<[u32]>,
    shift: u32,
    points: Box<[RingPoint]>,
}

#[derive(Clone, Copy, Debug)]
struct RingPoint {
    position: u32,
    owner: u32,
}

impl HashRing {
    /// A ring of `members` (hash and weight; at least one) with `points` per unit of weight.
    pub(super) fn new(members: &[(u64, u32)], points: u32) -> Self {
        let weights: u64 = members.iter().map(|&(_, weight)| u64::from(weight)).sum();
        let mut points = u64::from(points);
        while points > 1 && points * weights > MAX_RING_POINTS {
            points /= 2;
        }
        // The lower hash owns coinciding points, so that the listed order does not matter.
        let mut order: Vec<u32> = (0..members.len() as u32).collect();
        order.sort_unstable_by_key(|&index| members[index as usize].0);
        let mut placed = Vec::with_capacity((points * weights) as usize);
        for (rank, &index) in (0u64..).zip(&order) {
            let (identity, weight) = members[index as usize];
            let count = points * u64::from(weight);
            placed.extend((0..count).map(|n| mix(identity, n) >> 32 << 32 | rank));
        }
        placed.sort_unstable();
        let point = |&packed: &u64| RingPoint {
            position: (packed >> 32) as u32,
            owner: order[(packed & u64::from(u32::MAX)) as usize],
        };
        let points: Box<[RingPoint]> = placed.iter().map(point).collect();
        let bits = (2 * points.len()).next_power_of_two().ilog2().clamp(4, 30);
        let shift = 32 - bits;
        let mut first = 0;
        let buckets = (0u64..1 << bits).map(|bucket| {
            let (start, end) = (bucket << shift, (bucket + 1) << shift);
            while points.get(first).is_some_and(|point| u64::from(point.position) < start) {
                first += 1;
            }
            match points.get(first) {
                Some(point) if u64::from(point.position) < end => HAS_POINTS | first as u32,
                Some(point) => point.owner,
                None => points[0].owner,
            }
        });
        let buckets = buckets.collect();
        Self { buckets, shift, points }
    }

    /// The index of the member that owns the hash.
    pub(super) fn owner(&self, hash: u64) -> u32 {
        let position = (hash >> 32) as u32;
        let found = self.buckets[(position >> self.shift) as usize];
        if found & HAS_POINTS == 0 {
            return found;
        }
        let mut after = self.points[(found & !HAS_POINTS) as usize..].iter();
        after.find(|point| point.position >= position).unwrap_or(&self.points[0]).owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_by_bucket_equals_linear_scan() {
        let members: Vec<(u64, u32)> = (0..9).map(|n| (mix(n, 77), 1 + n as u32 % 3)).collect();
        for points in [1, 7, 160] {
            let ring = HashRing::new(&members, points);
            for n in 0..20_000 {
                let hash = mix(n, 3);
                let at = (hash >> 32) as u32;
                let plain = ring.points.iter().find(|point| point.position >= at);
                assert_eq!(ring.owner(hash), plain.unwrap_or(&ring.points[0]).owner);
            }
            assert_eq!(ring.owner(u64::MAX), ring.points[0].owner);
        }
    }

    #[test]
    fn removed_member_moves_only_its_own_keys() {
        let members: Vec<(u64, u32)> = (0..12).map(|n| (mix(n, 5), 1)).collect();
        let (whole, without) = (HashRing::new(&members, 512), HashRing::new(&members[..11], 512));
        for n in 0..50_000 {
            let hash = mix(n, 9);
            let before = whole.owner(hash);
            assert!(before == 11 || without.owner(hash) == before);
        }
    }

    #[test]
    fn ring_with_many_heavy_members_stays_within_max_points() {
        let members: Vec<(u64, u32)> = (0..2_000).map(|n| (mix(n, 5), 1 + n as u32 % 50)).collect();
        let ring = HashRing::new(&members, 512);
        assert!(ring.points.len() as u64 <= MAX_RING_POINTS, "{}", ring.points.len());
    }
}
