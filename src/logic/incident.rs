//! The ledger: every failure from onset to restoration, and the gap that clients saw.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::id::{EndpointId, Place};
use super::outcome::Failure;
use super::snapshot::Tally;

/// Closed incidents that are kept; the oldest goes first.
pub const KEPT: usize = 1_000;

/// What an incident is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The endpoint's identity.
    pub endpoint: EndpointId,
    /// Its pool.
    pub pool: Arc<str>,
    /// Where it stands.
    pub place: Place,
    /// Its address.
    pub address: SocketAddr,
}

/// When what happened. The onset itself is not observed: it lies between the last good evidence
/// and the begin of the first bad, and is taken as the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// The last proof of life before the failure.
    pub last_good: Instant,
    /// When the exchange that became the first evidence began.
    pub first_bad: Instant,
    /// When the first evidence was in.
    pub suspect: Instant,
    /// When the verdict was made.
    pub verdict: Option<Instant>,
    /// When the snapshot that moves the traffic was published.
    pub shift: Option<Instant>,
    /// The last client-visible failure.
    pub last_failure: Option<Instant>,
    /// When it was put up again.
    pub restored: Option<Instant>,
}

impl Timeline {
    /// The estimated onset.
    #[must_use]
    pub fn onset(&self) -> Instant {
        self.last_good + self.first_bad.saturating_duration_since(self.last_good) / 2
    }

    /// From onset to verdict.
    #[must_use]
    pub fn detection(&self) -> Option<Duration> {
        Some(self.verdict?.saturating_duration_since(self.onset()))
    }

    /// The most that the detection can have taken: from the last proof of life.
    #[must_use]
    pub fn detection_at_most(&self) -> Option<Duration> {
        Some(self.verdict?.saturating_duration_since(self.last_good))
    }

    /// From onset to the last client-visible failure; zero if no client saw one.
    #[must_use]
    pub fn gap(&self) -> Duration {
        let last = self.last_failure;
        last.map_or(Duration::ZERO, |last| last.saturating_duration_since(self.onset()))
    }
}

/// One endpoint's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Counts up from 1.
    pub id: u64,
    /// Whose.
    pub subject: Arc<Subject>,
    /// What the verdict was made for (before it: the latest strike).
    pub failure: Failure,
    /// When what happened.
    pub timeline: Timeline,
    /// Requests touched so far.
    pub counts: Tally,
}

impl Incident {
    /// Whether the endpoint is back.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.timeline.restored.is_some()
    }
}

/// Incidents of endpoints in one zone and pool whose verdicts belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneIncident {
    /// The first member's identity.
    pub id: u64,
    /// The pool.
    pub pool: Arc<str>,
    /// The zone.
    pub place: Place,
    /// The first member's failure.
    pub failure: Failure,
    /// First onset, last verdict, last shift, last failure, last restoration.
    pub timeline: Timeline,
    /// Sums over the members.
    pub counts: Tally,
    /// The members, oldest first.
    pub members: Vec<u64>,
}

/// Open and closed incidents.
#[derive(Debug, Default)]
pub struct Ledger {
    next_id: u64,
    open: HashMap<EndpointId, Incident>,
    /// Verdicts that no published snapshot holds yet.
    unshifted: Vec<EndpointId>,
    closed: VecDeque<Incident>,
}

impl Ledger {
    /// Opens a file on an endpoint that has become suspect.
    pub fn suspect(
        &mut self,
        subject: &Arc<Subject>,
        failure: Failure,
        last_good: Instant,
        first_bad: Instant,
        now: Instant,
    ) {
        let timeline = Timeline {
            last_good: last_good.min(first_bad),
            first_bad,
            suspect: now,
            verdict: None,
            shift: None,
            last_failure: None,
            restored: None,
        };
        let incident = Incident {
            id: 0,
            subject: Arc::clone(subject),
            failure,
            timeline,
            counts: Tally::default(),
        };
        self.open.insert(subject.endpoint, incident);
    }

    /// The suspicion was not confirmed.
    pub fn clear(&mut self, endpoint: EndpointId) {
        self.open.remove(&endpoint);
    }

    /// The verdict makes it an incident.
    pub fn verdict(&mut self, endpoint: EndpointId, failure: Failure, now: Instant) {
        if let Some(incident) = self.open.get_mut(&endpoint) {
            self.next_id += 1;
            incident.id = self.next_id;
            incident.failure = failure;
            incident.timeline.verdict = Some(now);
            self.unshifted.push(endpoint);
        }
    }

    /// Endpoints on which a suspicion or an incident is open.
    #[must_use]
    pub fn watching(&self) -> Vec<EndpointId> {
        self.open.keys().copied().collect()
    }

    /// Whether a suspicion or an incident is open.
    #[must_use]
    pub fn is_watching(&self, endpoint: EndpointId) -> bool {
        self.open.contains_key(&endpoint)
    }

    /// A snapshot that holds all verdicts so far was published.
    pub fn shifted(&mut self, now: Instant) {
        for endpoint in self.unshifted.drain(..) {
            let incident = self.open.get_mut(&endpoint);
            if let Some(incident) = incident.filter(|one| one.timeline.verdict.is_some()) {
                incident.timeline.shift.get_or_insert(now);
            }
        }
    }

    /// Brings the counts of an open incident up to date.
    pub fn count(&mut self, endpoint: EndpointId, counts: Tally, last_failure: Option<Instant>) {
        if let Some(incident) = self.open.get_mut(&endpoint) {
            incident.counts = counts;
            incident.timeline.last_failure = last_failure;
        }
    }

    /// The endpoint is back (or gone from the configuration); its incident, if there was one.
    pub fn restore(&mut self, endpoint: EndpointId, now: Instant) -> Option<Incident> {
        let mut incident = self.open.remove(&endpoint)?;
        incident.timeline.verdict?;
        incident.timeline.restored = Some(now);
        // Put down and taken back before anything was published: nothing moved in between.
        incident.timeline.shift.get_or_insert(now);
        if self.closed.len() >= KEPT {
            self.closed.pop_front();
        }
        self.closed.push_back(incident.clone());
        Some(incident)
    }

    /// The open incident of an endpoint.
    #[must_use]
    pub fn open(&self, endpoint: EndpointId) -> Option<&Incident> {
        self.open.get(&endpoint).filter(|incident| incident.id > 0)
    }

    /// All incidents, oldest first.
    #[must_use]
    pub fn incidents(&self) -> Vec<Incident> {
        let running = self.open.values().filter(|incident| incident.id > 0);
        let mut all: Vec<Incident> = self.closed.iter().chain(running).cloned().collect();
        all.sort_by_key(|incident| incident.id);
        all
    }
}

/// Joins incidents (oldest first) of one pool and zone whose onsets lie within `window` of the
/// previous one's; what stands alone is left out.
#[must_use]
pub fn join_by_zone(incidents: &[Incident], window: Duration) -> Vec<ZoneIncident> {
    let mut sorted: Vec<&Incident> = incidents.iter().collect();
    sorted.sort_by_key(|incident| (incident.timeline.onset(), incident.id));
    let mut groups: Vec<Vec<&Incident>> = Vec::new();
    let mut last_of: HashMap<(&str, &Place), usize> = HashMap::new();
    for incident in sorted {
        let key = (&*incident.subject.pool, &incident.subject.place);
        let near = last_of.get(&key).copied().filter(|&group| {
            let last = groups[group].last().map(|member: &&Incident| member.timeline.onset());
            last.is_some_and(|last| incident.timeline.onset() <= last + window)
        });
        match near {
            Some(group) => groups[group].push(incident),
            None => {
                last_of.insert(key, groups.len());
                groups.push(vec![incident]);
            }
        }
    }
    groups
        .iter()
        .filter(|members| members.len() > 1)
        .filter_map(|members| joined(members))
        .collect()
}

fn joined(members: &[&Incident]) -> Option<ZoneIncident> {
    let first = *members.first()?;
    let times = || members.iter().map(|member| member.timeline);
    let timeline = Timeline {
        last_good: times().map(|t| t.last_good).min()?,
        first_bad: times().map(|t| t.first_bad).min()?,
        suspect: times().map(|t| t.suspect).min()?,
        verdict: times().filter_map(|t| t.verdict).max(),
        shift: times().filter_map(|t| t.shift).max(),
        last_failure: times().filter_map(|t| t.last_failure).max(),
        restored: if times().all(|t| t.restored.is_some()) {
            times().filter_map(|t| t.restored).max()
        } else {
            None
        },
    };
    let sum = |field: fn(&Tally) -> u64| members.iter().map(|member| field(&member.counts)).sum();
    Some(ZoneIncident {
        id: first.id,
        pool: Arc::clone(&first.subject.pool),
        place: first.subject.place.clone(),
        failure: first.failure,
        timeline,
        counts: Tally {
            failed: sum(|c| c.failed),
            rescued: sum(|c| c.rescued),
            late: sum(|c| c.late),
        },
        members: members.iter().map(|member| member.id).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::outcome::Reason;

    fn subject(endpoint: u32, zone: &str) -> Arc<Subject> {
        Arc::new(Subject {
            endpoint: EndpointId::new(endpoint, 0),
            pool: "web".into(),
            place: Place::parse(&format!("r/{zone}")).expect("place"),
            address: SocketAddr::from(([127, 0, 0, 1], 9000 + endpoint as u16)),
        })
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const REFUSED: Failure = Failure::connect(Reason::Refused);

    #[test]
    fn the_gap_is_from_the_middle_of_the_bracket_to_the_last_failure() {
        let t0 = Instant::now();
        let mut ledger = Ledger::default();
        let a = subject(1, "a");
        ledger.suspect(&a, REFUSED, t0, t0 + ms(100), t0 + ms(110));
        ledger.verdict(a.endpoint, REFUSED, t0 + ms(150));
        ledger.shifted(t0 + ms(151));
        let counts = Tally { failed: 2, rescued: 7, late: 1 };
        ledger.count(a.endpoint, counts, Some(t0 + ms(140)));
        let incident = ledger.restore(a.endpoint, t0 + ms(900)).expect("incident");
        assert_eq!(incident.timeline.onset(), t0 + ms(50));
        assert_eq!(incident.timeline.detection(), Some(ms(100)));
        assert_eq!(incident.timeline.detection_at_most(), Some(ms(150)));
        assert_eq!(incident.timeline.gap(), ms(90));
        assert_eq!(incident.timeline.shift, Some(t0 + ms(151)));
        assert_eq!(incident.counts, counts);
        assert!(ledger.open(a.endpoint).is_none());
    }

    #[test]
    fn suspicion_without_a_verdict_is_no_incident() {
        let t0 = Instant::now();
        let mut ledger = Ledger::default();
        let a = subject(1, "a");
        ledger.suspect(&a, REFUSED, t0, t0, t0);
        assert!(ledger.incidents().is_empty());
        ledger.clear(a.endpoint);
        assert!(ledger.restore(a.endpoint, t0).is_none());
    }

    #[test]
    fn a_zone_joins_what_fell_together_and_nothing_else() {
        let t0 = Instant::now();
        let mut ledger = Ledger::default();
        for (endpoint, zone, at) in [(1, "a", 0), (2, "a", 30), (3, "b", 30), (4, "a", 60_000)] {
            let s = subject(endpoint, zone);
            let at = t0 + ms(at);
            ledger.suspect(&s, REFUSED, at, at, at);
            ledger.verdict(s.endpoint, REFUSED, at + ms(5));
        }
        ledger.restore(EndpointId::new(1, 0), t0 + ms(500));
        let zones = join_by_zone(&ledger.incidents(), ms(2_000));
        assert_eq!(zones.len(), 1);
        assert_eq!(zones[0].members, [1, 2]);
        assert_eq!(zones[0].timeline.verdict, Some(t0 + ms(35)));
        assert_eq!(zones[0].timeline.restored, None, "one member is still down");
    }

    #[test]
    fn the_ledger_is_bounded() {
        let t0 = Instant::now();
        let mut ledger = Ledger::default();
        for endpoint in 0..KEPT as u32 + 10 {
            let s = subject(endpoint % 100, "a");
            ledger.suspect(&s, REFUSED, t0, t0, t0);
            ledger.verdict(s.endpoint, REFUSED, t0);
            ledger.restore(s.endpoint, t0);
        }
        assert_eq!(ledger.incidents().len(), KEPT);
    }
}
