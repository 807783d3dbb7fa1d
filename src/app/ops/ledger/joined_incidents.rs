//! Incidents of endpoints, and incidents of zones and regions joined from them.

use std::collections::BTreeMap;

use crate::logic::incident::grouping;
use crate::logic::incident::grouping::OnsetRecord;

use super::record::{IncidentRecord, IncidentResolution, PredictedDetection};

/// Scope of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IncidentScope {
    /// Several zones of one region.
    Region,
    /// Several endpoints of one zone.
    Zone,
    Endpoint,
}

impl IncidentScope {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Zone => "zone",
            Self::Endpoint => "endpoint",
        }
    }
}

/// One incident. A joined one has the number and the first onset of its members, and their last
/// shift, failure and restoration. Its verdict is the time at which all members were out of
/// service, by their own verdicts or their zone's.
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentEntry {
    pub scope: IncidentScope,
    /// The record, or the joined record of all members.
    pub record: IncidentRecord,
    /// Numbers of the joined incidents of endpoints, ascending.
    pub members: Vec<u64>,
    /// Share of the pool's error budget of thirty days that its failures used up.
    pub budget_share: Option<f64>,
}

impl IncidentEntry {
    pub fn of_endpoint(record: &IncidentRecord) -> Self {
        Self {
            scope: IncidentScope::Endpoint,
            record: record.clone(),
            members: Vec::new(),
            budget_share: None,
        }
    }

    /// The predicted detection window for its scope.
    pub fn predicted(&self) -> Option<&PredictedDetection> {
        self.record.predicted.as_ref()
    }

    /// Whether its detection took longer than every prediction; `None` without a prediction.
    pub fn has_exceeded_prediction(&self) -> Option<bool> {
        Some(self.record.min_detection_us() > self.predicted()?.worst_us()?)
    }
}

/// Joins incidents of endpoints (oldest first) to incidents of zones: same pool and zone, onsets
/// within `window_us` of each other.
pub(super) fn join_zones(records: &[&IncidentRecord], window_us: u64) -> Vec<IncidentEntry> {
    let mark = |record: &&IncidentRecord| OnsetRecord {
        key: (record.pool.clone(), record.place.clone()),
        onset_us: record.onset_us(),
        member: fnv1a(record.endpoint.as_deref().unwrap_or_default()),
    };
    let marks: Vec<_> = records.iter().map(mark).collect();
    let entry = |group: Vec<usize>| {
        let members: Vec<&IncidentRecord> = group.iter().map(|&index| records[index]).collect();
        let mut record = merge_records(&members)?;
        record.place.clone_from(&members.first()?.place);
        // A joined incident has the prediction for a zone.
        record.predicted = members.iter().find_map(|member| member.predicted_zone.clone());
        let members = members.iter().map(|member| member.id).collect();
        Some(IncidentEntry { scope: IncidentScope::Zone, record, members, budget_share: None })
    };
    grouping::group_by_onset(&marks, window_us, 2).into_iter().filter_map(entry).collect()
}

/// Joins incidents of zones to incidents of regions. Each zone is detected by itself, so the
/// prediction for the region is that of its slowest zone.
pub(super) fn join_regions(zones: &[IncidentEntry], window_us: u64) -> Vec<IncidentEntry> {
    let mark = |zone: &IncidentEntry| OnsetRecord {
        key: (zone.record.pool.clone(), zone.record.region().to_owned()),
        onset_us: zone.record.onset_us(),
        member: fnv1a(&zone.record.place),
    };
    let marks: Vec<_> = zones.iter().map(mark).collect();
    let entry = |group: Vec<usize>| {
        let member_zones: Vec<&IncidentEntry> = group.iter().map(|&index| &zones[index]).collect();
        let records: Vec<&IncidentRecord> = member_zones.iter().map(|zone| &zone.record).collect();
        let mut record = merge_records(&records)?;
        record.place = records.first()?.region().to_owned();
        let expected = records.iter().filter_map(|record| record.predicted.as_ref());
        record.predicted = expected.max_by_key(|predicted| predicted.worst_us()).cloned();
        let mut members: Vec<u64> =
            member_zones.iter().flat_map(|zone| zone.members.clone()).collect();
        members.sort_unstable();
        Some(IncidentEntry { scope: IncidentScope::Region, record, members, budget_share: None })
    };
    grouping::group_by_onset(&marks, window_us, 2).into_iter().filter_map(entry).collect()
}

/// Joins all fields except place and prediction.
fn merge_records(members: &[&IncidentRecord]) -> Option<IncidentRecord> {
    let first = *members.first()?;
    let least = |time: fn(&IncidentRecord) -> u64| members.iter().map(|member| time(member)).min();
    let latest = |time: fn(&IncidentRecord) -> Option<u64>| {
        members.iter().filter_map(|member| time(member)).max()
    };
    let sum = |count: fn(&IncidentRecord) -> u64| members.iter().map(|member| count(member)).sum();
    let mut failed_by = BTreeMap::new();
    for (failure_kind, count) in members.iter().flat_map(|member| &member.failed_by) {
        *failed_by.entry(failure_kind.clone()).or_default() += count;
    }
    // The joined incident is over when all members are, with the worst of their resolutions.
    let is_over = members.iter().all(|member| !member.is_open());
    let resolutions = [
        IncidentResolution::Interrupted,
        IncidentResolution::Removed,
        IncidentResolution::Restored,
    ];
    let worst = resolutions
        .into_iter()
        .find(|resolution| members.iter().any(|one| one.ended == Some(*resolution)));
    let ended = worst.filter(|_| is_over);
    let is_back = is_over && members.iter().all(|member| member.restored_us.is_some());
    let has_ramp = is_back && members.iter().all(|member| member.ramp_full_us.is_some());
    Some(IncidentRecord {
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
        verdict_us: latest(|member| Some(member.out_of_service_us()))?,
        zone_verdict_us: None,
        // A member that went down after its zone lost its traffic with the zone.
        shift_us: latest(|member| member.shift_us.filter(|_| !member.fell_after_zone()))
            .or_else(|| latest(|member| member.shift_us)),
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

/// Hash of the members (FNV-1a).
fn fnv1a(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn record(id: u64, place: &str, onset_us: u64) -> IncidentRecord {
        IncidentRecord {
            id,
            pool: "web".into(),
            place: place.into(),
            endpoint: Some(format!("10.0.0.{id}:80")),
            last_good_us: onset_us - 10,
            first_bad_us: onset_us + 10,
            verdict_us: onset_us + 100 * id,
            failed: id,
            failed_by: [("cut".to_owned(), id)].into(),
            ..IncidentRecord::default()
        }
    }

    #[test]
    fn endpoints_join_to_zone_and_zones_to_region() {
        let records = [
            record(1, "r/a", 1_000),
            record(2, "r/a", 1_500),
            record(3, "r/b", 1_600),
            record(4, "r/b", 1_700),
            record(5, "q/a", 1_700),
        ];
        let all: Vec<&IncidentRecord> = records.iter().collect();
        let zones = join_zones(&all, 2_000);
        assert_eq!(zones.len(), 2);
        assert_eq!((zones[0].members.as_slice(), zones[0].record.id), ([1, 2].as_slice(), 1));
        assert_eq!(zones[0].record.onset_us(), 1_000);
        assert_eq!(zones[0].record.verdict_us, 1_700, "the last one's");
        assert_eq!((zones[0].record.failed, zones[0].record.failed_by["cut"]), (3, 3));
        let regions = join_regions(&zones, 2_000);
        assert_eq!(regions.len(), 1);
        assert_eq!(regions[0].record.place, "r");
        assert_eq!(regions[0].members, [1, 2, 3, 4]);
        assert_eq!(regions[0].record.verdict_us, 2_100);
    }

    #[test]
    fn zone_verdict_decides_for_members_that_fall_later() {
        let mut records = [record(1, "r/a", 1_000), record(2, "r/a", 1_500)];
        (records[0].verdict_us, records[0].shift_us) = (1_100, Some(1_150));
        (records[1].verdict_us, records[1].shift_us) = (600_000, Some(600_000));
        records[1].zone_verdict_us = Some(1_100);
        let joined = join_zones(&records.iter().collect::<Vec<_>>(), 2_000).remove(0);
        assert_eq!((joined.record.verdict_us, joined.record.shift_us), (1_100, Some(1_150)));
    }

    #[test]
    fn joined_incident_ends_when_all_members_have_ended() {
        let mut records = [record(1, "r/a", 1_000), record(2, "r/a", 1_500)];
        records[0].close(IncidentResolution::Restored, Some(9_000));
        let joined = |records: &[IncidentRecord]| {
            join_zones(&records.iter().collect::<Vec<_>>(), 2_000).remove(0)
        };
        assert!(joined(&records).record.is_open());
        records[1].close(IncidentResolution::Restored, Some(8_000));
        let over = joined(&records).record;
        assert_eq!(
            (over.ended, over.restored_us),
            (Some(IncidentResolution::Restored), Some(9_000))
        );
        assert_eq!(over.restoration_us(), Some(8_000));
        records[1].close(IncidentResolution::Interrupted, None);
        let over = joined(&records).record;
        assert_eq!((over.ended, over.restored_us), (Some(IncidentResolution::Interrupted), None));
    }

    #[test]
    fn detection_beyond_worst_case_exceeds_prediction() {
        let mut one = record(1, "r/a", 1_000);
        let left =
            |record: &IncidentRecord| IncidentEntry::of_endpoint(record).has_exceeded_prediction();
        assert_eq!(left(&one), None, "nothing was predicted");
        let closed_form_us = Some((1, 99));
        one.predicted =
            Some(PredictedDetection { closed_form_us, ..PredictedDetection::default() });
        assert_eq!(left(&one), Some(false), "the failure may have begun after the onset");
        one.verdict_us = 1_110;
        assert_eq!(left(&one), Some(true));
        one.verdict_us = 1_109;
        assert_eq!(left(&one), Some(false));
    }
}
