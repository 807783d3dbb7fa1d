//! All incidents that are kept, and what of them is not on the disk yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::app::api::Clock;
use crate::config::model::LedgerBounds;
use crate::logic::incident::Incident;
use crate::net::store::Change;

use super::entry::{self, Entry};
use super::record::{Fate, Record};

/// Onsets of one zone, or of zones of one region, that lie this close to each other belong together,
/// where no pool's probes are further apart.
const TOGETHER: Duration = Duration::from_secs(2);

/// Incidents that are looked at for others of the same zone: those that began together stand together.
const NEAR: usize = 100;

/// An endpoint by its pool and address.
pub(super) type Name = (String, String);

/// The book.
#[derive(Debug)]
pub(super) struct Book {
    clock: Clock,
    records: BTreeMap<u64, Record>,
    next: u64,
    /// Incidents of this process that are open: its number for them, and the book's.
    open: HashMap<u64, u64>,
    /// What an earlier process has left open and this one goes on with.
    adopted: HashMap<Name, u64>,
    /// To be written.
    dirty: BTreeSet<u64>,
    /// To be removed.
    forgotten: BTreeSet<u64>,
}

impl Book {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            records: BTreeMap::new(),
            next: 1,
            open: HashMap::new(),
            adopted: HashMap::new(),
            dirty: BTreeSet::new(),
            forgotten: BTreeSet::new(),
        }
    }

    /// Takes over what earlier processes have kept. What they left open goes on if `goes_on` says so,
    /// else it is interrupted. What this process has noted meanwhile gets numbers behind theirs, by
    /// what is returned.
    pub(super) fn adopt(&mut self, kept: Vec<Record>, goes_on: impl Fn(&Name) -> bool) -> u64 {
        let shift = kept.iter().map(|record| record.id).max().unwrap_or(0);
        let own = std::mem::take(&mut self.records);
        self.records.extend(kept.into_iter().map(|record| (record.id, record)));
        let left: Vec<u64> = self.records.values().filter(|r| r.is_open()).map(|r| r.id).collect();
        for id in left {
            let Some(record) = self.records.get_mut(&id) else { continue };
            let name = name_of(record);
            if goes_on(&name) {
                self.adopted.insert(name, id);
            } else {
                record.end(Fate::Interrupted, None);
                self.dirty.insert(id);
            }
        }
        for mut record in own.into_values() {
            record.id += shift;
            self.dirty.insert(record.id);
            self.records.insert(record.id, record);
        }
        self.open.values_mut().for_each(|id| *id += shift);
        self.next += shift;
        shift
    }

    /// What was adopted and is not among these is interrupted.
    pub(super) fn keep_adopted(&mut self, goes_on: impl Fn(&Name) -> bool) {
        let gone: Vec<Name> = self.adopted.keys().filter(|name| !goes_on(name)).cloned().collect();
        for name in gone {
            self.end_adopted(&name, Fate::Interrupted, None);
        }
    }

    pub(super) fn has_adopted(&self) -> bool {
        !self.adopted.is_empty()
    }

    /// Whether something that a predecessor left open is over now.
    pub(super) fn end_adopted(&mut self, name: &Name, fate: Fate, at_us: Option<u64>) {
        if let Some(id) = self.adopted.remove(name) {
            self.change(id, |record| record.end(fate, at_us));
        }
    }

    /// Notes an incident that has begun; its number.
    pub(super) fn begin(&mut self, incident: &Incident, now_us: u64) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut record = Record::new(incident, &self.clock, now_us);
        record.id = id;
        // It came back, and fell before anybody noticed.
        self.end_adopted(&name_of(&record), Fate::Interrupted, None);
        self.open.insert(incident.id, id);
        self.records.insert(id, record);
        self.dirty.insert(id);
        id
    }

    /// Notes how an incident has ended.
    pub(super) fn end(&mut self, incident: &Incident, now_us: u64) {
        let id = match self.open.remove(&incident.id) {
            Some(id) => id,
            // There was no room for the note that it has begun.
            None => {
                let id = self.begin(incident, now_us);
                self.open.remove(&incident.id);
                id
            }
        };
        let clock = self.clock;
        self.change(id, |record| record.update(incident, &clock, now_us));
    }

    /// Brings those that are open up to date. All of them are there: what is not has ended, and there
    /// was no room for the note.
    pub(super) fn see(&mut self, open: &[Incident], now_us: u64) {
        let clock = self.clock;
        for incident in open {
            let Some(&id) = self.open.get(&incident.id) else { continue };
            let Some(record) = self.records.get_mut(&id) else { continue };
            let before = (record.failed, record.rescued, record.late, record.shift_us);
            record.update(incident, &clock, now_us);
            if before != (record.failed, record.rescued, record.late, record.shift_us) {
                self.dirty.insert(id);
            }
        }
        if self.open.len() > open.len() {
            let here: BTreeSet<u64> = open.iter().map(|incident| incident.id).collect();
            let gone: Vec<u64> =
                self.open.keys().filter(|id| !here.contains(id)).copied().collect();
            for local in gone {
                if let Some(id) = self.open.remove(&local) {
                    self.change(id, |record| record.end(Fate::Interrupted, None));
                }
            }
        }
    }

    /// An endpoint, or all of a zone, has its whole share again.
    pub(super) fn ramp_ended(
        &mut self,
        (pool, place, address): (&str, &str, Option<&str>),
        at_us: u64,
    ) {
        let is_meant = |record: &&Record| {
            record.pool == pool
                && record.place == place
                && address.is_none_or(|address| record.endpoint.as_deref() == Some(address))
        };
        // The last of each endpoint: what fell again meanwhile has no such end.
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
            self.change(id, |record| record.ramp_full_us = Some(at_us));
        }
    }

    /// Changes one that is still there.
    pub(super) fn change(&mut self, id: u64, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.get_mut(&id) {
            change(record);
            self.dirty.insert(id);
        }
    }

    /// Whether another endpoint of the zone of this incident has one that began about then.
    pub(super) fn others_near(&self, id: u64, window_us: u64) -> Vec<u64> {
        let Some(one) = self.records.get(&id) else { return Vec::new() };
        let near = |other: &&Record| {
            other.pool == one.pool
                && other.place == one.place
                && other.id != id
                && one.onset_us().abs_diff(other.onset_us()) <= window_us
        };
        self.records.values().rev().take(NEAR).filter(near).map(|other| other.id).collect()
    }

    /// Lets go of what is too old or too much.
    pub(super) fn prune(&mut self, bounds: &LedgerBounds, now_us: u64) {
        let keep_us = u64::try_from(bounds.keep.as_micros()).unwrap_or(u64::MAX);
        let is_old = |record: &Record| {
            record.ended_us.is_some_and(|ended| ended.saturating_add(keep_us) < now_us)
        };
        let beyond = self.records.len().saturating_sub(bounds.at_most);
        let mut gone: BTreeSet<u64> = self.records.keys().take(beyond).copied().collect();
        gone.extend(self.records.values().filter(|record| is_old(record)).map(|record| record.id));
        for id in gone {
            self.records.remove(&id);
            self.dirty.remove(&id);
            self.forgotten.insert(id);
            self.open.retain(|_, open| *open != id);
            self.adopted.retain(|_, open| *open != id);
        }
    }

    /// Has everything written again.
    pub(super) fn soil(&mut self) {
        self.dirty.extend(self.records.keys());
    }

    /// What is to be written.
    pub(super) fn pending(&self) -> Change {
        let text = |id: &u64| Some((*id, serde_json::to_vec(self.records.get(id)?).ok()?));
        Change {
            incidents: self.dirty.iter().filter_map(text).collect(),
            forgotten: self.forgotten.iter().copied().collect(),
            budgets: None,
        }
    }

    /// It is written.
    pub(super) fn written(&mut self) {
        self.dirty.clear();
        self.forgotten.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.values()
    }
}

/// Those of endpoints, of zones and of regions, each oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Joined zones.
    pub regions: Vec<Entry>,
    /// Joined endpoints.
    pub zones: Vec<Entry>,
    /// Single ones.
    pub endpoints: Vec<Entry>,
}

impl Told {
    /// Joins what belongs together, in records oldest first. `interval` is the longest between probes.
    #[must_use]
    pub fn of<'r>(records: impl Iterator<Item = &'r Record>, interval: Duration) -> Self {
        let records: Vec<&Record> = records.collect();
        let window_us = together_us(interval);
        let mut zones = entry::zones(&records, window_us);
        zones.sort_by_key(|zone| zone.record.id);
        let mut regions = entry::regions(&zones, window_us);
        regions.sort_by_key(|region| region.record.id);
        let endpoints = records.into_iter().map(Entry::of_endpoint).collect();
        Self { regions, zones, endpoints }
    }
}

impl Told {
    /// Says what part of its pool's budget each has used up; `allowed` gives the failures of that.
    pub(super) fn weigh(&mut self, allowed: impl Fn(&str) -> Option<f64>) {
        let all = self.regions.iter_mut().chain(&mut self.zones).chain(&mut self.endpoints);
        for entry in all {
            let allowed = allowed(&entry.record.pool).filter(|allowed| *allowed > 0.0);
            entry.budget_share = allowed.map(|allowed| entry.record.failed as f64 / allowed);
        }
    }
}

/// How close onsets must lie that belong together, in microseconds.
pub(super) fn together_us(interval: Duration) -> u64 {
    u64::try_from((2 * interval).max(TOGETHER).as_micros()).unwrap_or(u64::MAX)
}

fn name_of(record: &Record) -> Name {
    (record.pool.clone(), record.endpoint.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;
    use std::time::Instant;

    use crate::logic::casualty::Casualties;
    use crate::logic::id::{EndpointId, Place};
    use crate::logic::incident::{Ended, Subject, Timeline};
    use crate::logic::live::Tally;
    use crate::logic::outcome::{Failure, Reason};

    fn incident(id: u64, port: u16) -> Incident {
        let now = Instant::now();
        Incident {
            id,
            subject: Arc::new(Subject {
                endpoint: EndpointId::new(id as u32, 0),
                pool: "web".into(),
                place: Place::parse("r/a").expect("a place"),
                address: ([10, 0, 0, 1], port).into(),
            }),
            failure: Failure::connect(Reason::Refused),
            timeline: Timeline {
                last_good: now,
                first_bad: now,
                suspect: now,
                verdict: Some(now),
                shift: None,
                last_failure: None,
                restored: None,
            },
            by_traffic: false,
            round_trip: None,
            counts: Tally::default(),
            casualties: Casualties::default(),
            ended: None,
        }
    }

    fn ended(incident: &Incident) -> Incident {
        let mut ended = incident.clone();
        ended.timeline.restored = Some(Instant::now());
        ended.ended = Some(Ended::Restored);
        ended
    }

    fn book() -> (Book, u64) {
        let clock = Clock::read();
        (Book::new(clock), clock.micros(Instant::now()))
    }

    fn kept(id: u64, endpoint: &str) -> Record {
        let pool = "web".to_owned();
        Record { id, pool, endpoint: Some(endpoint.into()), seen_us: 77, ..Record::default() }
    }

    #[test]
    fn numbers_go_on_where_an_earlier_process_stopped() {
        let (mut book, now_us) = book();
        book.begin(&incident(1, 1), now_us);
        book.written();
        assert_eq!(book.adopt(vec![kept(7, "10.0.0.1:9")], |_| false), 7);
        book.end(&ended(&incident(1, 1)), now_us);
        assert_eq!(book.begin(&incident(2, 2), now_us), 9);
        let ids: Vec<u64> = book.records().map(|record| record.id).collect();
        assert_eq!(ids, [7, 8, 9]);
        assert_eq!(book.records[&7].ended, Some(Fate::Interrupted));
        assert_eq!(book.records[&7].ended_us, Some(77), "when something was last known");
        assert_eq!(book.records[&8].ended, Some(Fate::Restored));
        assert_eq!(book.pending().incidents.len(), 3);
    }

    #[test]
    fn who_takes_over_goes_on_with_what_was_left_open() {
        let (mut book, now_us) = book();
        let left = vec![kept(1, "10.0.0.1:1"), kept(2, "10.0.0.1:2"), kept(3, "10.0.0.1:3")];
        book.adopt(left, |(_, address)| address != "10.0.0.1:3");
        assert_eq!(book.records[&3].ended, Some(Fate::Interrupted));
        assert!(book.has_adopted() && book.records[&1].is_open());
        let name = |address: &str| ("web".to_owned(), address.to_owned());
        book.end_adopted(&name("10.0.0.1:1"), Fate::Restored, Some(99));
        assert_eq!(book.records[&1].restored_us, Some(99));
        book.begin(&incident(1, 2), now_us);
        assert_eq!(book.records[&2].ended, Some(Fate::Interrupted));
        assert!(!book.has_adopted());
    }

    #[test]
    fn notes_that_had_no_room_are_made_up_for() {
        let (mut book, now_us) = book();
        book.end(&ended(&incident(1, 1)), now_us);
        assert_eq!(book.records[&1].ended, Some(Fate::Restored), "the begin was lost");
        book.begin(&incident(2, 2), now_us);
        book.begin(&incident(3, 3), now_us);
        book.see(&[incident(3, 3)], now_us);
        assert_eq!(book.records[&2].ended, Some(Fate::Interrupted), "the end was lost");
        assert!(book.records[&3].is_open());
        book.see(&[incident(3, 3), incident(9, 9)], now_us);
        assert_eq!(book.len(), 3, "only a begin or an end makes one");
    }

    #[test]
    fn what_is_too_old_or_too_much_goes() {
        let (mut book, now_us) = book();
        for id in 1..=5 {
            book.begin(&incident(id, id as u16), now_us);
            book.end(&ended(&incident(id, id as u16)), now_us);
        }
        book.written();
        let bounds = LedgerBounds { keep: Duration::from_secs(60), at_most: 3 };
        book.prune(&bounds, now_us);
        assert_eq!(book.pending().forgotten, [1, 2]);
        book.begin(&incident(6, 6), now_us);
        book.prune(&bounds, now_us + 61_000_000 + 1_000_000);
        let ids: Vec<u64> = book.records().map(|record| record.id).collect();
        assert_eq!(ids, [6], "what is open has no age");
    }

    #[test]
    fn a_ramp_ends_the_last_incident_of_its_endpoint_only() {
        let (mut book, now_us) = book();
        for id in [1, 2] {
            book.begin(&incident(id, 1), now_us);
            book.end(&ended(&incident(id, 1)), now_us);
        }
        book.begin(&incident(3, 2), now_us);
        book.ramp_ended(("web", "r/a", None), now_us + 5);
        let full: Vec<_> = book.records().map(|record| record.ramp_full_us).collect();
        assert_eq!(full, [None, Some(now_us + 5), None]);
    }
}
