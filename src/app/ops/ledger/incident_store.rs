//! All incidents of the ledger, and which of them are not written to disk yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::app::ops::api::WallClock;
use crate::config::model::LedgerRetention;
use crate::logic::incident::Incident;
use crate::net::ledger_store::LedgerChange;

use super::joined_incidents;
use super::joined_incidents::IncidentEntry;
use super::record::{IncidentRecord, IncidentResolution};

/// Lower bound of the join window: onsets in one zone, or in zones of one region, that are this
/// close belong to one failure.
const MIN_JOIN_WINDOW: Duration = Duration::from_secs(2);

/// Limit of the incidents searched for others of the same zone. Incidents that began together have
/// adjacent numbers.
const MAX_NEIGHBOR_SCAN: usize = 100;

/// Pool and address of an endpoint.
pub(super) type LedgerEndpointKey = (String, String);

#[derive(Debug)]
pub(super) struct IncidentStore {
    clock: WallClock,
    records: BTreeMap<u64, IncidentRecord>,
    next_id: u64,
    /// Open incidents of this process: the director's number, and the ledger's.
    open_ids: HashMap<u64, u64>,
    /// Incidents that an earlier process left open and this one continues.
    adopted: HashMap<LedgerEndpointKey, u64>,
    dirty: BTreeSet<u64>,
    deleted: BTreeSet<u64>,
}

impl IncidentStore {
    pub(super) fn new(clock: WallClock) -> Self {
        Self {
            clock,
            records: BTreeMap::new(),
            next_id: 1,
            open_ids: HashMap::new(),
            adopted: HashMap::new(),
            dirty: BTreeSet::new(),
            deleted: BTreeSet::new(),
        }
    }

    /// Takes over the records of earlier processes. An open incident continues if `is_still_down`,
    /// else it ends as interrupted. Records of this process get new numbers behind the adopted
    /// ones; returns the difference.
    pub(super) fn adopt(
        &mut self,
        stored: Vec<IncidentRecord>,
        is_still_down: impl Fn(&LedgerEndpointKey) -> bool,
    ) -> u64 {
        let shift = stored.iter().map(|record| record.id).max().unwrap_or(0);
        let own_records = std::mem::take(&mut self.records);
        self.records.extend(stored.into_iter().map(|record| (record.id, record)));
        let still_open: Vec<u64> =
            self.records.values().filter(|r| r.is_open()).map(|r| r.id).collect();
        for id in still_open {
            let Some(record) = self.records.get_mut(&id) else { continue };
            let name = endpoint_key(record);
            if is_still_down(&name) {
                self.adopted.insert(name, id);
            } else {
                record.close(IncidentResolution::Interrupted, None);
                self.dirty.insert(id);
            }
        }
        for mut record in own_records.into_values() {
            record.id += shift;
            self.dirty.insert(record.id);
            self.records.insert(record.id, record);
        }
        self.open_ids.values_mut().for_each(|id| *id += shift);
        self.next_id += shift;
        shift
    }

    /// Ends adopted incidents as interrupted unless `is_still_down`.
    pub(super) fn retain_adopted(&mut self, is_still_down: impl Fn(&LedgerEndpointKey) -> bool) {
        let gone: Vec<LedgerEndpointKey> =
            self.adopted.keys().filter(|name| !is_still_down(name)).cloned().collect();
        for name in gone {
            self.end_adopted(&name, IncidentResolution::Interrupted, None);
        }
    }

    pub(super) fn has_adopted(&self) -> bool {
        !self.adopted.is_empty()
    }

    /// Ends the adopted incident of an endpoint, if there is one.
    pub(super) fn end_adopted(
        &mut self,
        name: &LedgerEndpointKey,
        resolution: IncidentResolution,
        at_us: Option<u64>,
    ) {
        if let Some(id) = self.adopted.remove(name) {
            self.update_record(id, |record| record.close(resolution, at_us));
        }
    }

    /// Adds an incident that has begun; returns its number.
    pub(super) fn begin_incident(&mut self, incident: &Incident, now_us: u64) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut record = IncidentRecord::new(incident, &self.clock, now_us);
        record.id = id;
        // The endpoint recovered and failed again without a note of its recovery.
        self.end_adopted(&endpoint_key(&record), IncidentResolution::Interrupted, None);
        self.open_ids.insert(incident.id, id);
        self.records.insert(id, record);
        self.dirty.insert(id);
        id
    }

    /// Records the end of an incident.
    pub(super) fn end_incident(&mut self, incident: &Incident, now_us: u64) {
        let id = match self.open_ids.remove(&incident.id) {
            Some(id) => id,
            // The queue was full when it began.
            None => {
                let id = self.begin_incident(incident, now_us);
                self.open_ids.remove(&incident.id);
                id
            }
        };
        let clock = self.clock;
        self.update_record(id, |record| record.update(incident, &clock, now_us));
    }

    /// Updates open incidents. `open` is complete: an incident that is missing has ended while the
    /// queue was full.
    pub(super) fn update_open(&mut self, open: &[Incident], now_us: u64) {
        let clock = self.clock;
        for incident in open {
            let Some(&id) = self.open_ids.get(&incident.id) else { continue };
            let Some(record) = self.records.get_mut(&id) else { continue };
            let before = (record.failed, record.rescued, record.late, record.shift_us);
            record.update(incident, &clock, now_us);
            if before != (record.failed, record.rescued, record.late, record.shift_us) {
                self.dirty.insert(id);
            }
        }
        if self.open_ids.len() > open.len() {
            let here: BTreeSet<u64> = open.iter().map(|incident| incident.id).collect();
            let gone: Vec<u64> =
                self.open_ids.keys().filter(|id| !here.contains(id)).copied().collect();
            for local in gone {
                if let Some(id) = self.open_ids.remove(&local) {
                    self.update_record(id, |record| {
                        record.close(IncidentResolution::Interrupted, None);
                    });
                }
            }
        }
    }

    /// Records the end of the ramp of an endpoint, or of a whole zone without an `address`.
    pub(super) fn ramp_ended(
        &mut self,
        (pool, place, address): (&str, &str, Option<&str>),
        at_us: u64,
    ) {
        let is_meant = |record: &&IncidentRecord| {
            record.pool == pool
                && record.place == place
                && address.is_none_or(|address| record.endpoint.as_deref() == Some(address))
        };
        // Only the last incident of each endpoint: earlier ones never reached their full share.
        let mut seen = BTreeSet::new();
        let mut over = Vec::new();
        for record in self.records.values().rev().filter(is_meant) {
            if seen.insert(record.endpoint.clone())
                && record.restored_us.is_some()
                && record.ramp_full_us.is_none()
            {
                over.push(record.id);
            }
            if address.is_some() {
                break;
            }
        }
        for id in over {
            self.update_record(id, |record| record.ramp_full_us = Some(at_us));
        }
    }

    /// Changes a record, if it still exists.
    pub(super) fn update_record(&mut self, id: u64, change: impl FnOnce(&mut IncidentRecord)) {
        if let Some(record) = self.records.get_mut(&id) {
            change(record);
            self.dirty.insert(id);
        }
    }

    /// Numbers of incidents of other endpoints of the same zone with an onset within `window_us`.
    pub(super) fn neighbors_of(&self, id: u64, window_us: u64) -> Vec<u64> {
        let Some(one) = self.records.get(&id) else { return Vec::new() };
        let is_near = |other: &&IncidentRecord| {
            other.pool == one.pool
                && other.place == one.place
                && other.id != id
                && one.onset_us().abs_diff(other.onset_us()) <= window_us
        };
        self.records
            .values()
            .rev()
            .take(MAX_NEIGHBOR_SCAN)
            .filter(is_near)
            .map(|other| other.id)
            .collect()
    }

    /// Drops incidents that exceed the retention time or the limit of incidents.
    pub(super) fn prune(&mut self, bounds: &LedgerRetention, now_us: u64) {
        let keep_us = u64::try_from(bounds.retention.as_micros()).unwrap_or(u64::MAX);
        let is_old = |record: &IncidentRecord| {
            record.ended_us.is_some_and(|ended| ended.saturating_add(keep_us) < now_us)
        };
        let beyond = self.records.len().saturating_sub(bounds.max_incidents);
        let mut gone: BTreeSet<u64> = self.records.keys().take(beyond).copied().collect();
        gone.extend(self.records.values().filter(|record| is_old(record)).map(|record| record.id));
        for id in gone {
            self.records.remove(&id);
            self.dirty.remove(&id);
            self.deleted.insert(id);
            self.open_ids.retain(|_, open| *open != id);
            self.adopted.retain(|_, open| *open != id);
        }
    }

    /// Marks all records for writing.
    pub(super) fn mark_all_dirty(&mut self) {
        self.dirty.extend(self.records.keys());
    }

    /// Changes since the last write.
    pub(super) fn pending_changes(&self) -> LedgerChange {
        let text = |id: &u64| Some((*id, serde_json::to_vec(self.records.get(id)?).ok()?));
        LedgerChange {
            incidents: self.dirty.iter().filter_map(text).collect(),
            removed_incidents: self.deleted.iter().copied().collect(),
            budgets: None,
        }
    }

    pub(super) fn mark_written(&mut self) {
        self.dirty.clear();
        self.deleted.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn records(&self) -> impl DoubleEndedIterator<Item = &IncidentRecord> + Clone {
        self.records.values()
    }
}

/// Incidents of regions, zones and endpoints, each oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IncidentReport {
    pub regions: Vec<IncidentEntry>,
    pub zones: Vec<IncidentEntry>,
    pub endpoints: Vec<IncidentEntry>,
}

impl IncidentReport {
    /// Joins incidents that belong together. `records` are oldest first; `interval` is the longest
    /// probe interval.
    pub fn from_records<'r>(
        records: impl Iterator<Item = &'r IncidentRecord>,
        interval: Duration,
    ) -> Self {
        let records: Vec<&IncidentRecord> = records.collect();
        let window_us = join_window_us(interval);
        let mut zones = joined_incidents::join_zones(&records, window_us);
        zones.sort_by_key(|zone| zone.record.id);
        let mut regions = joined_incidents::join_regions(&zones, window_us);
        regions.sort_by_key(|region| region.record.id);
        let endpoints = records.into_iter().map(IncidentEntry::of_endpoint).collect();
        Self { regions, zones, endpoints }
    }
}

impl IncidentReport {
    /// Sets each entry's share of its pool's error budget; `allowed` returns the failures that the
    /// budget allows.
    pub(super) fn set_budget_shares(&mut self, allowed: impl Fn(&str) -> Option<f64>) {
        let all = self.regions.iter_mut().chain(&mut self.zones).chain(&mut self.endpoints);
        for entry in all {
            let allowed = allowed(&entry.record.pool).filter(|allowed| *allowed > 0.0);
            entry.budget_share = allowed.map(|allowed| entry.record.failed as f64 / allowed);
        }
    }
}

/// The largest distance of onsets that belong together, in microseconds: two probe intervals.
pub(super) fn join_window_us(interval: Duration) -> u64 {
    u64::try_from((2 * interval).max(MIN_JOIN_WINDOW).as_micros()).unwrap_or(u64::MAX)
}

fn endpoint_key(record: &IncidentRecord) -> LedgerEndpointKey {
    (record.pool.clone(), record.endpoint.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;
    use std::time::Instant;

    use crate::logic::incident::client_failure::ClientFailures;
    use crate::logic::incident::{IncidentEnd, IncidentSubject, IncidentTimeline};
    use crate::logic::model::endpoint_stats::FailoverCounts;
    use crate::logic::model::id::{EndpointId, Locality};
    use crate::logic::model::outcome::{Failure, FailureReason};

    fn incident(id: u64, port: u16) -> Incident {
        let now = Instant::now();
        Incident {
            id,
            subject: Arc::new(IncidentSubject {
                endpoint: EndpointId::new(id as u32, 0),
                pool: "web".into(),
                locality: Locality::parse("r/a").expect("a place"),
                address: ([10, 0, 0, 1], port).into(),
            }),
            failure: Failure::connect(FailureReason::Refused),
            timeline: IncidentTimeline {
                last_good: now,
                first_bad: now,
                suspect: now,
                verdict: Some(now),
                zone_verdict: None,
                shift: None,
                last_failure: None,
                restored: None,
            },
            is_by_traffic: false,
            round_trip: None,
            counts: FailoverCounts::default(),
            client_failures: ClientFailures::default(),
            end: None,
        }
    }

    fn ended(incident: &Incident) -> Incident {
        let mut ended = incident.clone();
        ended.timeline.restored = Some(Instant::now());
        ended.end = Some(IncidentEnd::Restored);
        ended
    }

    fn incident_store() -> (IncidentStore, u64) {
        let clock = WallClock::read();
        (IncidentStore::new(clock), clock.unix_micros(Instant::now()))
    }

    fn stored_record(id: u64, endpoint: &str) -> IncidentRecord {
        let pool = "web".to_owned();
        IncidentRecord {
            id,
            pool,
            endpoint: Some(endpoint.into()),
            seen_us: 77,
            ..IncidentRecord::default()
        }
    }

    #[test]
    fn ids_after_restart_continue() {
        let (mut store, now_us) = incident_store();
        store.begin_incident(&incident(1, 1), now_us);
        store.mark_written();
        assert_eq!(store.adopt(vec![stored_record(7, "10.0.0.1:9")], |_| false), 7);
        store.end_incident(&ended(&incident(1, 1)), now_us);
        assert_eq!(store.begin_incident(&incident(2, 2), now_us), 9);
        let ids: Vec<u64> = store.records().map(|record| record.id).collect();
        assert_eq!(ids, [7, 8, 9]);
        assert_eq!(store.records[&7].ended, Some(IncidentResolution::Interrupted));
        assert_eq!(store.records[&7].ended_us, Some(77), "when something was last known");
        assert_eq!(store.records[&8].ended, Some(IncidentResolution::Restored));
        assert_eq!(store.pending_changes().incidents.len(), 3);
    }

    #[test]
    fn open_incident_after_takeover_is_adopted() {
        let (mut store, now_us) = incident_store();
        let still_open = vec![
            stored_record(1, "10.0.0.1:1"),
            stored_record(2, "10.0.0.1:2"),
            stored_record(3, "10.0.0.1:3"),
        ];
        store.adopt(still_open, |(_, address)| address != "10.0.0.1:3");
        assert_eq!(store.records[&3].ended, Some(IncidentResolution::Interrupted));
        assert!(store.has_adopted() && store.records[&1].is_open());
        let name = |address: &str| ("web".to_owned(), address.to_owned());
        store.end_adopted(&name("10.0.0.1:1"), IncidentResolution::Restored, Some(99));
        assert_eq!(store.records[&1].restored_us, Some(99));
        store.begin_incident(&incident(1, 2), now_us);
        assert_eq!(store.records[&2].ended, Some(IncidentResolution::Interrupted));
        assert!(!store.has_adopted());
    }

    #[test]
    fn dropped_messages_are_recovered_from_open_incidents() {
        let (mut store, now_us) = incident_store();
        store.end_incident(&ended(&incident(1, 1)), now_us);
        assert_eq!(
            store.records[&1].ended,
            Some(IncidentResolution::Restored),
            "the begin was lost"
        );
        store.begin_incident(&incident(2, 2), now_us);
        store.begin_incident(&incident(3, 3), now_us);
        store.update_open(&[incident(3, 3)], now_us);
        assert_eq!(
            store.records[&2].ended,
            Some(IncidentResolution::Interrupted),
            "the end was lost"
        );
        assert!(store.records[&3].is_open());
        store.update_open(&[incident(3, 3), incident(9, 9)], now_us);
        assert_eq!(store.len(), 3, "only a begin or an end makes one");
    }

    #[test]
    fn records_beyond_bounds_are_pruned() {
        let (mut store, now_us) = incident_store();
        for id in 1..=5 {
            store.begin_incident(&incident(id, id as u16), now_us);
            store.end_incident(&ended(&incident(id, id as u16)), now_us);
        }
        store.mark_written();
        let bounds = LedgerRetention { retention: Duration::from_secs(60), max_incidents: 3 };
        store.prune(&bounds, now_us);
        assert_eq!(store.pending_changes().removed_incidents, [1, 2]);
        store.begin_incident(&incident(6, 6), now_us);
        store.prune(&bounds, now_us + 61_000_000 + 1_000_000);
        let ids: Vec<u64> = store.records().map(|record| record.id).collect();
        assert_eq!(ids, [6], "what is open has no age");
    }

    #[test]
    fn ramp_end_updates_only_last_incident_of_endpoint() {
        let (mut store, now_us) = incident_store();
        for id in [1, 2] {
            store.begin_incident(&incident(id, 1), now_us);
            store.end_incident(&ended(&incident(id, 1)), now_us);
        }
        store.begin_incident(&incident(3, 2), now_us);
        store.ramp_ended(("web", "r/a", None), now_us + 5);
        let full: Vec<_> = store.records().map(|record| record.ramp_full_us).collect();
        assert_eq!(full, [None, Some(now_us + 5), None]);
    }
}
