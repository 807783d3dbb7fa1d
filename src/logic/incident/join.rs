//! What belongs together: incidents of one place whose onsets lie together are one incident.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// What is looked at of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark<K> {
    /// Only what has the same is joined.
    pub key: K,
    /// When it began, in microseconds of any clock.
    pub onset_us: u64,
    /// Who it is about: two incidents of the same are two.
    pub member: u64,
}

/// Groups of at least `least` members, as indices into `marks`, each in the order of onsets: an onset
/// belongs to the group whose latest onset lies at most `window_us` before it, and that has not the
/// same member yet.
#[must_use]
pub fn groups<K: Hash + Eq>(marks: &[Mark<K>], window_us: u64, least: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..marks.len()).collect();
    order.sort_by_key(|&index| (marks[index].onset_us, index));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut last_of: HashMap<&K, usize> = HashMap::new();
    let mut present: HashSet<(usize, u64)> = HashSet::new();
    for index in order {
        let mark = &marks[index];
        let near = last_of.get(&mark.key).copied().filter(|&group| {
            let last = groups[group].last().map_or(0, |&last| marks[last].onset_us);
            mark.onset_us - last <= window_us && !present.contains(&(group, mark.member))
        });
        let group = near.unwrap_or_else(|| {
            last_of.insert(&mark.key, groups.len());
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(index);
        present.insert((group, mark.member));
    }
    groups.retain(|members| members.len() >= least);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark(key: &'static str, onset_us: u64, member: u64) -> Mark<&'static str> {
        Mark { key, onset_us, member }
    }

    #[test]
    fn a_zone_joins_what_fell_together_and_nothing_else() {
        let marks = [mark("a", 30, 2), mark("a", 0, 1), mark("b", 30, 3), mark("a", 60_000, 4)];
        assert_eq!(groups(&marks, 2_000, 2), [[1, 0]]);
        assert_eq!(groups(&marks, 2_000, 1).len(), 3);
    }

    #[test]
    fn an_endpoint_that_falls_twice_has_two_incidents() {
        let marks = [mark("a", 0, 1), mark("a", 10, 2), mark("a", 20, 1), mark("a", 30, 2)];
        assert_eq!(groups(&marks, 100, 2), [[0, 1], [2, 3]]);
    }

    proptest! {
        #[test]
        fn everything_is_in_one_group_of_its_key(
            all in prop::collection::vec((0_u8..3, 0_u64..1_000, 0_u64..4), 0..60),
            window in 0_u64..200,
        ) {
            let marks: Vec<Mark<u8>> = all
                .iter()
                .map(|&(key, onset_us, member)| Mark { key, onset_us, member })
                .collect();
            let groups = groups(&marks, window, 1);
            let mut seen: Vec<usize> = groups.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..marks.len()).collect::<Vec<_>>());
            for group in groups {
                prop_assert!(group.iter().all(|&one| marks[one].key == marks[group[0]].key));
                let near = |pair: &[usize]| {
                    marks[pair[1]].onset_us - marks[pair[0]].onset_us <= window
                };
                prop_assert!(group.windows(2).all(near));
            }
        }
    }
}
