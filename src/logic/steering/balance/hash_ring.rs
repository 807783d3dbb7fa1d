//! A ring of points (Karger et al., 1997): a key belongs to the first point at or after it.
//!
//! What is declared anew moves no key but those of who comes or goes. How many points a unit of weight
//! has says how even the shares are: with `p` of them they are off by `1/√p` on average.

use super::hash::mix;

/// Points of a ring, at most: beyond that each unit of weight has fewer of them.
const MAX_RING_POINTS: u64 = 1 << 17;

/// A bucket with points in it: the rest is the index of the first of them.
const HAS_POINTS: u32 = 1 << 31;

/// One member's points, ready to be looked up.
#[derive(Debug)]
pub(super) struct HashRing {
    /// By the first bits of a hash: whose the bucket is, or where its first point is. Nearly every
    /// look-up ends here, with one line of memory.
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
    /// A ring of `members`, each with its identity and weight, with so many points for a unit of
    /// weight. There must be at least one.
    pub(super) fn new(members: &[(u64, u32)], points: u32) -> Self {
        let weights: u64 = members.iter().map(|&(_, weight)| u64::from(weight)).sum();
        let mut points = u64::from(points);
        while points > 1 && points * weights > MAX_RING_POINTS {
            points /= 2;
        }
        // Where two points coincide the member with the lower identity has it, wherever it is listed.
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

    /// Whose a hash is.
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
