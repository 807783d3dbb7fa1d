//! Maglev's table (Eisenbud et al., NSDI 2016). Its shares are more even than those of a ring; in
//! return, a change of members moves a few more keys.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hash::mix;

/// Table sizes: primes, each about twice the one before.
const TABLE_SIZES: [u32; 6] = [65_537, 131_071, 262_139, 524_287, 1_048_573, 4_194_301];

/// Minimum number of slots per member, which bounds the rounding error of shares.
const SLOTS_PER_MEMBER: usize = 100;

/// One member index per slot.
#[derive(Debug)]
pub(super) struct MaglevTable {
    slots: Box<[u32]>,
}

const EMPTY_SLOT: u32 = u32::MAX;

/// The order in which a member visits the slots.
struct Permutation {
    member_index: u32,
    position: u32,
    skip: u32,
    /// Virtual time between two turns of the member.
    turn_interval: u64,
}

/// The turn interval of a member of weight one.
const BASE_TURN_INTERVAL: u64 = 1 << 40;

impl MaglevTable {
    /// A table of `members` (hash and weight); at least one.
    pub(super) fn new(members: &[(u64, u32)]) -> Self {
        let min_size = members.len() * SLOTS_PER_MEMBER;
        let size = TABLE_SIZES.iter().copied().find(|&size| size as usize >= min_size);
        let size = size.unwrap_or(TABLE_SIZES[TABLE_SIZES.len() - 1]);
        let mut order: Vec<u32> = (0..members.len() as u32).collect();
        // The order of turns must not depend on the listed order.
        order.sort_unstable_by_key(|&index| members[index as usize].0);
        let permutation = |&index: &u32| {
            let (identity, weight) = members[index as usize];
            Permutation {
                member_index: index,
                position: (mix(identity, 0) % u64::from(size)) as u32,
                skip: (mix(identity, 1) % u64::from(size - 1)) as u32 + 1,
                turn_interval: BASE_TURN_INTERVAL / u64::from(weight),
            }
        };
        let mut permutations: Vec<Permutation> = order.iter().map(permutation).collect();
        // The member with the earliest turn is next; heavier members have shorter intervals.
        let mut turns: BinaryHeap<Reverse<(u64, usize)>> = permutations
            .iter()
            .enumerate()
            .map(|(rank, permutation)| Reverse((permutation.turn_interval, rank)))
            .collect();
        let mut slots = vec![EMPTY_SLOT; size as usize];
        for _ in 0..size {
            let Some(mut turn) = turns.peek_mut() else { break };
            let Reverse((due, rank)) = *turn;
            let permutation = &mut permutations[rank];
            *turn = Reverse((due + permutation.turn_interval, rank));
            while slots[permutation.position as usize] != EMPTY_SLOT {
                permutation.advance(size);
            }
            slots[permutation.position as usize] = permutation.member_index;
        }
        Self { slots: slots.into() }
    }

    /// The index of the member that owns the hash.
    pub(super) fn owner(&self, hash: u64) -> u32 {
        let slot = (u128::from(hash) * self.slots.len() as u128) >> 64;
        self.slots[slot as usize]
    }
}

impl Permutation {
    fn advance(&mut self, size: u32) {
        self.position += self.skip;
        if self.position >= size {
            self.position -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_sizes_are_primes() {
        for size in TABLE_SIZES {
            assert!((2..).take_while(|n| n * n <= size).all(|n| size % n != 0), "{size}");
        }
    }

    #[test]
    fn slots_are_allocated_by_weight() {
        let members: Vec<(u64, u32)> = (0..20).map(|n| (mix(n, 5), 1 + n as u32 % 4)).collect();
        let table = MaglevTable::new(&members);
        let mut counts = [0u32; 20];
        table.slots.iter().for_each(|&index| counts[index as usize] += 1);
        for (count, (_, weight)) in counts.iter().zip(&members) {
            let expected = f64::from(TABLE_SIZES[0]) * f64::from(*weight) / 50.0;
            assert!((f64::from(*count) - expected).abs() <= 4.0, "{count} and not {expected}");
        }
    }

    #[test]
    fn removed_member_moves_few_other_keys() {
        let members: Vec<(u64, u32)> = (0..12).map(|n| (mix(n, 5), 1)).collect();
        let (whole, without) = (MaglevTable::new(&members), MaglevTable::new(&members[..11]));
        let moved = (0..100_000).map(|n| mix(n, 9)).filter(|&hash| {
            let before = whole.owner(hash);
            before != 11 && without.owner(hash) != before
        });
        assert!(moved.count() < 5_000);
    }
}
