//! Incidents as they are told: of endpoints, and joined to those of zones and regions.

use std::collections::BTreeMap;

use crate::logic::incident::join::{self, Mark};

use super::record::{Fate, Predicted, Record};

/// What an incident is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Several zones of one region.
    Region,
    /// Several endpoints of one zone.
    Zone,
    /// One endpoint.
    Endpoint,
}

impl Scope {
    /// The word used in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Zone => "zone",
            Self::Endpoint => "endpoint",
        }
    }
}

/// One incident. A joined one has the first onset of its members, their last verdict, shift, failure
/// and restoration, and the number of its first member.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it is of.
    pub scope: Scope,
    /// What is known of it.
    pub record: Record,
    /// The endpoints' incidents that were joined, by their numbers.
    pub members: Vec<u64>,
    /// The part of the pool's error budget of thirty days that its failures have used up.
    pub budget_share: Option<f64>,
}

impl Entry {
    /// An endpoint's incident.
    #[must_use]
    pub fn of_endpoint(record: &Record) -> Self {
        Self {
            scope: Scope::Endpoint,
            record: record.clone(),
            members: Vec::new(),
            budget_share: None,
        }
    }

    /// What was to be expected of its detection.
    #[must_use]
    pub fn predicted(&self) -> Option<&Predicted> {
        self.record.predicted.as_ref()
    }

    /// Whether its detection took longer than anything that was to be expected.
    #[must_use]
    pub fn left_prediction(&self) -> Option<bool> {
        Some(self.record.detection_us() > self.predicted()?.worst_us()?)
    }
}

/// Joins endpoints' incidents (oldest first) to those of zones: onsets of one pool and zone that lie
/// within `window_us` of each other.
#[must_use]
pub(super) fn zones(records: &[&Record], window_us: u64) -> Vec<Entry> {
    let mark = |record: &&Record| Mark {
        key: (record.pool.clone(), record.place.clone()),
        onset_us: record.onset_us(),
        member: hash(record.endpoint.as_deref().unwrap_or_default()),
    };
    let marks: Vec<_> = records.iter().map(mark).collect();
    let entry = |group: Vec<usize>| {
        let members: Vec<&Record> = group.iter().map(|&index| records[index]).collect();
        let mut record = joined(&members)?;
        record.place.clone_from(&members.first()?.place);
        // The prediction is that of the zone.
        record.predicted = members.iter().find_map(|member| member.predicted_zone.clone());
        let members = members.iter().map(|member| member.id).collect();
        Some(Entry { scope: Scope::Zone, record, members, budget_share: None })
    };
    join::groups(&marks, window_us, 2).into_iter().filter_map(entry).collect()
}

/// The same for zones of a region. Each of its zones is detected by itself, so what is to be expected
/// of the region is what is to be expected of the slowest of them.
#[must_use]
pub(super) fn regions(zones: &[Entry], window_us: u64) -> Vec<Entry> {
    let mark = |zone: &Entry| Mark {
        key: (zone.record.pool.clone(), zone.record.region().to_owned()),
        onset_us: zone.record.onset_us(),
        member: hash(&zone.record.place),
    };
    let marks: Vec<_> = zones.iter().map(mark).collect();
    let entry = |group: Vec<usize>| {
        let inside: Vec<&Entry> = group.iter().map(|&index| &zones[index]).collect();
        let records: Vec<&Record> = inside.iter().map(|zone| &zone.record).collect();
        let mut record = joined(&records)?;
        record.place = records.first()?.region().to_owned();
        let expected = records.iter().filter_map(|record| record.predicted.as_ref());
        record.predicted = expected.max_by_key(|predicted| predicted.worst_us()).cloned();
        let mut members: Vec<u64> = inside.iter().flat_map(|zone| zone.members.clone()).collect();
        members.sort_unstable();
        Some(Entry { scope: Scope::Region, record, members, budget_share: None })
    };
    join::groups(&marks, window_us, 2).into_iter().filter_map(entry).collect()
}

/// All in one; place and prediction are the caller's affair.
fn joined(members: &[&Record]) -> Option<Record> {
    let first = *members.first()?;
    let least = |time: fn(&Record) -> u64| members.iter().map(|member| time(member)).min();
    let latest =
        |time: fn(&Record) -> Option<u64>| members.iter().filter_map(|member| time(member)).max();
    let sum = |count: fn(&Record) -> u64| members.iter().map(|member| count(member)).sum();
    let mut failed_by = BTreeMap::new();
    for (sight, count) in members.iter().flat_map(|member| &member.failed_by) {
        *failed_by.entry(sight.clone()).or_default() += count;
    }
    // It is over when all of it is, and how the worst of it is.
    let is_over = members.iter().all(|member| !member.is_open());
    let fates = [Fate::Interrupted, Fate::Removed, Fate::Restored];
    let worst = fates.into_iter().find(|fate| members.iter().any(|one| one.ended == Some(*fate)));
    let ended = worst.filter(|_| is_over);
    let is_back = is_over && members.iter().all(|member| member.restored_us.is_some());
    let has_ramp = is_back && members.iter().all(|member| member.ramp_full_us.is_some());
    Some(Record {
        id: members.iter().map(|member| member.id).min()?,
        pool: first.pool.clone(),
        place: String::new(),
        endpoint: None,
        class: first.class.clone(),
        reason: first.reason.clone(),
        by_traffic: first.by_traffic,
        last_good_us: least(|member| member.last_good_us)?,
        first_bad_us: least(|member| member.first_bad_us)?,
        suspect_us: least(|member| member.suspect_us)?,
        verdict_us: latest(|member| Some(member.verdict_us))?,
        shift_us: latest(|member| member.shift_us),
        last_failure_us: latest(|member| member.last_failure_us),
        restored_us: latest(|member| member.restored_us).filter(|_| is_back),
        ramp_full_us: latest(|member| member.ramp_full_us).filter(|_| has_ramp),
        ended,
        ended_us: latest(|member| member.ended_us).filter(|_| is_over),
        seen_us: latest(|member| Some(member.seen_us))?,
        failed: sum(|member| member.failed),
        failed_repeatable: sum(|member| member.failed_repeatable),
        failed_by,
        rescued: sum(|member| member.rescued),
        late: sum(|member| member.late),
        predicted: None,
        predicted_zone: None,
    })
}

/// Tells members apart (FNV-1a).
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn record(id: u64, place: &str, onset_us: u64) -> Record {
        Record {
            id,
            pool: "web".into(),
            place: place.into(),
            endpoint: Some(format!("10.0.0.{id}:80")),
            last_good_us: onset_us - 10,
            first_bad_us: onset_us + 10,
            verdict_us: onset_us + 100 * id,
            failed: id,
            failed_by: [("cut".to_owned(), id)].into(),
            ..Record::default()
        }
    }

    #[test]
    fn endpoints_make_a_zone_and_zones_a_region() {
        let records = [
            record(1, "r/a", 1_000),
            record(2, "r/a", 1_500),
            record(3, "r/b", 1_600),
            record(4, "r/b", 1_700),
            record(5, "q/a", 1_700),
        ];
        let all: Vec<&Record> = records.iter().collect();
        let zones = zones(&all, 2_000);
        assert_eq!(zones.len(), 2);
        assert_eq!((zones[0].members.as_slice(), zones[0].record.id), ([1, 2].as_slice(), 1));
        assert_eq!(zones[0].record.onset_us(), 1_000);
        assert_eq!(zones[0].record.verdict_us, 1_700, "the last one's");
        assert_eq!((zones[0].record.failed, zones[0].record.failed_by["cut"]), (3, 3));
        let regions = regions(&zones, 2_000);
        assert_eq!(regions.len(), 1);
        assert_eq!(regions[0].record.place, "r");
        assert_eq!(regions[0].members, [1, 2, 3, 4]);
        assert_eq!(regions[0].record.verdict_us, 2_100);
    }

    #[test]
    fn what_is_joined_is_over_when_all_of_it_is() {
        let mut records = [record(1, "r/a", 1_000), record(2, "r/a", 1_500)];
        records[0].end(Fate::Restored, Some(9_000));
        let joined =
            |records: &[Record]| zones(&records.iter().collect::<Vec<_>>(), 2_000).remove(0);
        assert!(joined(&records).record.is_open());
        records[1].end(Fate::Restored, Some(8_000));
        let over = joined(&records).record;
        assert_eq!((over.ended, over.restored_us), (Some(Fate::Restored), Some(9_000)));
        assert_eq!(over.restoration_us(), Some(8_000));
        records[1].end(Fate::Interrupted, None);
        let over = joined(&records).record;
        assert_eq!((over.ended, over.restored_us), (Some(Fate::Interrupted), None));
    }

    #[test]
    fn reality_leaves_the_prediction_when_it_takes_longer_than_the_worst() {
        let mut one = record(1, "r/a", 1_000);
        let left = |record: &Record| Entry::of_endpoint(record).left_prediction();
        assert_eq!(left(&one), None, "nothing was predicted");
        let closed_form_us = Some((1, 99));
        one.predicted = Some(Predicted { closed_form_us, ..Predicted::default() });
        assert_eq!(left(&one), Some(true));
        one.verdict_us = 1_099;
        assert_eq!(left(&one), Some(false));
    }
}
