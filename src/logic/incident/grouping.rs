//! Groups incidents of the same place whose onsets are close together.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// The properties of an incident that grouping needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnsetRecord<K> {
    /// Only incidents with equal keys are grouped.
    pub key: K,
    /// Onset in microseconds of any clock.
    pub onset_us: u64,
    /// The endpoint of the incident; a group contains each member once.
    pub member: u64,
}

/// Groups of at least `min_members` incidents, as indices into `onsets` in the order of onsets. An
/// incident joins its key's latest group if that group's last onset is at most `window_us` earlier.
/// A group that already contains the member is not joined.
pub fn group_by_onset<K: Hash + Eq>(
    onsets: &[OnsetRecord<K>],
    window_us: u64,
    min_members: usize,
) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..onsets.len()).collect();
    order.sort_by_key(|&index| (onsets[index].onset_us, index));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut last_of: HashMap<&K, usize> = HashMap::new();
    let mut present: HashSet<(usize, u64)> = HashSet::new();
    for index in order {
        let onset = &onsets[index];
        let near = last_of.get(&onset.key).copied().filter(|&group| {
            let last = groups[group].last().map_or(0, |&last| onsets[last].onset_us);
            onset.onset_us - last <= window_us && !present.contains(&(group, onset.member))
        });
        let group = near.unwrap_or_else(|| {
            last_of.insert(&onset.key, groups.len());
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(index);
        present.insert((group, onset.member));
    }
    groups.retain(|members| members.len() >= min_members);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn onset(key: &'static str, onset_us: u64, member: u64) -> OnsetRecord<&'static str> {
        OnsetRecord { key, onset_us, member }
    }

    #[test]
    fn onsets_of_one_key_within_window_are_grouped() {
        let onsets =
            [onset("a", 30, 2), onset("a", 0, 1), onset("b", 30, 3), onset("a", 60_000, 4)];
        assert_eq!(group_by_onset(&onsets, 2_000, 2), [[1, 0]]);
        assert_eq!(group_by_onset(&onsets, 2_000, 1).len(), 3);
    }

    #[test]
    fn member_with_two_onsets_is_in_two_groups() {
        let onsets = [onset("a", 0, 1), onset("a", 10, 2), onset("a", 20, 1), onset("a", 30, 2)];
        assert_eq!(group_by_onset(&onsets, 100, 2), [[0, 1], [2, 3]]);
    }

    proptest! {
        #[test]
        fn every_onset_is_in_exactly_one_group_of_its_key(
            all in prop::collection::vec((0_u8..3, 0_u64..1_000, 0_u64..4), 0..60),
            window in 0_u64..200,
        ) {
            let onsets: Vec<OnsetRecord<u8>> = all
                .iter()
                .map(|&(key, onset_us, member)| OnsetRecord { key, onset_us, member })
                .collect();
            let groups = group_by_onset(&onsets, window, 1);
            let mut grouped: Vec<usize> = groups.iter().flatten().copied().collect();
            grouped.sort_unstable();
            prop_assert_eq!(grouped, (0..onsets.len()).collect::<Vec<_>>());
            for group in groups {
                prop_assert!(group.iter().all(|&index| onsets[index].key == onsets[group[0]].key));
                let near = |pair: &[usize]| {
                    onsets[pair[1]].onset_us - onsets[pair[0]].onset_us <= window
                };
                prop_assert!(group.windows(2).all(near));
            }
        }
    }
}
