//! Maglev's table (Eisenbud et al., NSDI 2016): as even as a table can be, for a few more keys that move
//! when something is declared anew.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hash::mix;

/// Sizes of tables: primes, each about twice the one before.
const SIZES: [u32; 6] = [65_537, 131_071, 262_139, 524_287, 1_048_573, 4_194_301];

/// A table has at least so many slots for each member, which bounds what rounding does to shares.
const SLOTS_PER_MEMBER: usize = 100;

/// Slots, each with the index of a member.
#[derive(Debug)]
pub(super) struct Maglev {
    slots: Box<[u32]>,
}

const FREE: u32 = u32::MAX;

/// A member's way through the slots.
struct Way {
    index: u32,
    at: u32,
    step: u32,
    /// Time from one of its turns to the next.
    between: u64,
}

/// A unit of the time that passes between two turns of a member, divided by its weight.
const BETWEEN: u64 = 1 << 40;

impl Maglev {
    /// A table of `members`, each with its identity and weight. There must be at least one.
    #[must_use]
    pub(super) fn new(members: &[(u64, u32)]) -> Self {
        let wanted = members.len() * SLOTS_PER_MEMBER;
        let size = SIZES.iter().copied().find(|&size| size as usize >= wanted);
        let size = size.unwrap_or(SIZES[SIZES.len() - 1]);
        let mut order: Vec<u32> = (0..members.len() as u32).collect();
        // The order of turns must not be that of the file.
        order.sort_unstable_by_key(|&index| members[index as usize].0);
        let way = |&index: &u32| {
            let (identity, weight) = members[index as usize];
            Way {
                index,
                at: (mix(identity, 0) % u64::from(size)) as u32,
                step: (mix(identity, 1) % u64::from(size - 1)) as u32 + 1,
                between: BETWEEN / u64::from(weight),
            }
        };
        let mut ways: Vec<Way> = order.iter().map(way).collect();
        // Whose turn it is: the heavier, the sooner again.
        let mut turns: BinaryHeap<Reverse<(u64, usize)>> =
            ways.iter().enumerate().map(|(rank, way)| Reverse((way.between, rank))).collect();
        let mut slots = vec![FREE; size as usize];
        for _ in 0..size {
            let Some(mut turn) = turns.peek_mut() else { break };
            let Reverse((due, rank)) = *turn;
            let way = &mut ways[rank];
            *turn = Reverse((due + way.between, rank));
            while slots[way.at as usize] != FREE {
                way.advance(size);
            }
            slots[way.at as usize] = way.index;
        }
        Self { slots: slots.into() }
    }

    /// Whose a hash is.
    pub(super) fn owner(&self, hash: u64) -> u32 {
        let slot = (u128::from(hash) * self.slots.len() as u128) >> 64;
        self.slots[slot as usize]
    }
}

impl Way {
    fn advance(&mut self, size: u32) {
        self.at += self.step;
        if self.at >= size {
            self.at -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_primes() {
        for size in SIZES {
            assert!((2..).take_while(|n| n * n <= size).all(|n| size % n != 0), "{size}");
        }
    }

    #[test]
    fn slots_are_shared_out_by_weight() {
        let members: Vec<(u64, u32)> = (0..20).map(|n| (mix(n, 5), 1 + n as u32 % 4)).collect();
        let table = Maglev::new(&members);
        let mut counts = [0u32; 20];
        table.slots.iter().for_each(|&index| counts[index as usize] += 1);
        for (count, (_, weight)) in counts.iter().zip(&members) {
            let expected = f64::from(SIZES[0]) * f64::from(*weight) / 50.0;
            assert!((f64::from(*count) - expected).abs() <= 4.0, "{count} and not {expected}");
        }
    }

    #[test]
    fn few_keys_move_beside_those_of_who_leaves() {
        let members: Vec<(u64, u32)> = (0..12).map(|n| (mix(n, 5), 1)).collect();
        let (whole, without) = (Maglev::new(&members), Maglev::new(&members[..11]));
        let moved = (0..100_000).map(|n| mix(n, 9)).filter(|&hash| {
            let before = whole.owner(hash);
            before != 11 && without.owner(hash) != before
        });
        assert!(moved.count() < 5_000);
    }
}
