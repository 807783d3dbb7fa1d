//! The ledger: every failure from onset to restoration, and the gap that clients saw.

pub mod client_failure;
pub mod grouping;
pub mod slo;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::model::id::{EndpointId, Locality};
use super::model::outcome::Failure;
use super::model::snapshot::FailoverCounts;
use client_failure::ClientFailures;

/// Closed incidents that are kept; the oldest goes first.
pub const MAX_CLOSED_INCIDENTS: usize = 1_000;

/// What an incident is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IncidentSubject {
    pub endpoint: EndpointId,
    pub pool: Arc<str>,
    pub locality: Locality,
    pub address: SocketAddr,
}

/// When what happened. The onset itself is not observed: it lies between the last good evidence
/// and the begin of the first bad, and is taken as the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncidentTimeline {
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

impl IncidentTimeline {
    pub fn onset(&self) -> Instant {
        self.last_good + self.first_bad.saturating_duration_since(self.last_good) / 2
    }

    /// From onset to verdict.
    pub fn detection_time(&self) -> Option<Duration> {
        Some(self.verdict?.saturating_duration_since(self.onset()))
    }

    /// The most that the detection can have taken: from the last proof of life.
    pub fn max_detection_time(&self) -> Option<Duration> {
        Some(self.verdict?.saturating_duration_since(self.last_good))
    }

    /// From onset to the last client-visible failure; zero if no client saw one.
    pub fn failover_gap(&self) -> Duration {
        let last = self.last_failure;
        last.map_or(Duration::ZERO, |last| last.saturating_duration_since(self.onset()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Counts up from 1.
    pub id: u64,
    pub subject: Arc<IncidentSubject>,
    /// What the verdict was made for (before it: the latest strike).
    pub failure: Failure,
    pub timeline: IncidentTimeline,
    /// Whether traffic made the verdict, and not probes.
    pub is_by_traffic: bool,
    /// About what the way there and back takes, if a probe has passed of late.
    pub round_trip: Option<Duration>,
    /// Requests touched so far.
    pub counts: FailoverCounts,
    /// Of those that failed, what their clients saw.
    pub client_failures: ClientFailures,
    pub end: Option<IncidentEnd>,
}

/// How an incident ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentEnd {
    /// The endpoint was put up again.
    Restored,
    /// The endpoint has gone from the configuration.
    Removed,
}

/// What a verdict was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictCause {
    /// What it was made for.
    pub failure: Failure,
    /// Whether traffic made it, and not probes.
    pub is_by_traffic: bool,
    /// About what the way there and back takes, if a probe has passed of late.
    pub round_trip: Option<Duration>,
}

/// What requests saw of an endpoint since its last proof of life while up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IncidentImpact {
    pub counts: FailoverCounts,
    /// Of those that failed, what their clients saw.
    pub client_failures: ClientFailures,
    /// The last failure that a client saw.
    pub last_failure: Option<Instant>,
}

impl Incident {
    /// Whether the endpoint is back.
    pub fn is_closed(&self) -> bool {
        self.timeline.restored.is_some()
    }
}

/// Open and closed incidents.
#[derive(Debug, Default)]
pub struct IncidentLedger {
    next_id: u64,
    open: HashMap<EndpointId, Incident>,
    /// Verdicts that no published snapshot holds yet.
    awaiting_shift: Vec<EndpointId>,
    closed: VecDeque<Incident>,
}

impl IncidentLedger {
    /// Opens a file on an endpoint that has become suspect.
    pub fn open_suspicion(
        &mut self,
        subject: &Arc<IncidentSubject>,
        failure: Failure,
        last_good: Instant,
        first_bad: Instant,
        now: Instant,
    ) {
        let timeline = IncidentTimeline {
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
            is_by_traffic: false,
            round_trip: None,
            counts: FailoverCounts::default(),
            client_failures: ClientFailures::default(),
            end: None,
        };
        self.open.insert(subject.endpoint, incident);
    }

    /// The suspicion was not confirmed.
    pub fn clear_suspicion(&mut self, endpoint: EndpointId) {
        self.open.remove(&endpoint);
    }

    /// The verdict makes it an incident.
    pub fn record_verdict(&mut self, endpoint: EndpointId, cause: VerdictCause, now: Instant) {
        if let Some(incident) = self.open.get_mut(&endpoint) {
            self.next_id += 1;
            incident.id = self.next_id;
            incident.failure = cause.failure;
            incident.is_by_traffic = cause.is_by_traffic;
            incident.round_trip = cause.round_trip;
            incident.timeline.verdict = Some(now);
            self.awaiting_shift.push(endpoint);
        }
    }

    /// Endpoints on which a suspicion or an incident is open.
    pub fn tracked_endpoints(&self) -> Vec<EndpointId> {
        self.open.keys().copied().collect()
    }

    /// Whether a suspicion or an incident is open.
    pub fn is_tracking(&self, endpoint: EndpointId) -> bool {
        self.open.contains_key(&endpoint)
    }

    /// A snapshot that holds all verdicts so far was published.
    pub fn record_shift(&mut self, now: Instant) {
        for endpoint in self.awaiting_shift.drain(..) {
            let incident = self.open.get_mut(&endpoint);
            if let Some(incident) = incident.filter(|one| one.timeline.verdict.is_some()) {
                incident.timeline.shift.get_or_insert(now);
            }
        }
    }

    /// Brings the counts of an open incident up to date.
    pub fn update_impact(&mut self, endpoint: EndpointId, impact: IncidentImpact) {
        if let Some(incident) = self.open.get_mut(&endpoint) {
            incident.counts = impact.counts;
            incident.client_failures = impact.client_failures;
            incident.timeline.last_failure = impact.last_failure;
        }
    }

    /// The endpoint is back or gone; its incident, if there was one.
    pub fn close(
        &mut self,
        endpoint: EndpointId,
        end: IncidentEnd,
        now: Instant,
    ) -> Option<Incident> {
        let mut incident = self.open.remove(&endpoint)?;
        incident.timeline.verdict?;
        incident.end = Some(end);
        incident.timeline.restored = Some(now);
        // Put down and taken back before anything was published: nothing moved in between.
        incident.timeline.shift.get_or_insert(now);
        if self.closed.len() >= MAX_CLOSED_INCIDENTS {
            self.closed.pop_front();
        }
        self.closed.push_back(incident.clone());
        Some(incident)
    }

    /// The open incident of an endpoint.
    pub fn open_incident(&self, endpoint: EndpointId) -> Option<&Incident> {
        self.open.get(&endpoint).filter(|incident| incident.id > 0)
    }

    /// Those that are open, oldest first.
    pub fn open_incidents(&self) -> Vec<Incident> {
        let running = self.open.values().filter(|incident| incident.id > 0);
        let mut all: Vec<Incident> = running.cloned().collect();
        all.sort_by_key(|incident| incident.id);
        all
    }

    /// All incidents, oldest first.
    pub fn all_incidents(&self) -> Vec<Incident> {
        let running = self.open.values().filter(|incident| incident.id > 0);
        let mut all: Vec<Incident> = self.closed.iter().chain(running).cloned().collect();
        all.sort_by_key(|incident| incident.id);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::outcome::FailureReason;

    fn subject(endpoint: u32, zone: &str) -> Arc<IncidentSubject> {
        Arc::new(IncidentSubject {
            endpoint: EndpointId::new(endpoint, 0),
            pool: "web".into(),
            locality: Locality::parse(&format!("r/{zone}")).expect("place"),
            address: SocketAddr::from(([127, 0, 0, 1], 9000 + endpoint as u16)),
        })
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const REFUSED: Failure = Failure::connect(FailureReason::Refused);
    const CAUSE: VerdictCause =
        VerdictCause { failure: REFUSED, is_by_traffic: false, round_trip: None };

    #[test]
    fn failover_gap_runs_from_estimated_onset_to_last_failure() {
        let t0 = Instant::now();
        let mut ledger = IncidentLedger::default();
        let a = subject(1, "a");
        ledger.open_suspicion(&a, REFUSED, t0, t0 + ms(100), t0 + ms(110));
        ledger.record_verdict(a.endpoint, CAUSE, t0 + ms(150));
        ledger.record_shift(t0 + ms(151));
        let counts = FailoverCounts { failed: 2, rescued: 7, late: 1 };
        let last_failure = Some(t0 + ms(140));
        ledger.update_impact(
            a.endpoint,
            IncidentImpact { counts, last_failure, ..IncidentImpact::default() },
        );
        let incident =
            ledger.close(a.endpoint, IncidentEnd::Restored, t0 + ms(900)).expect("incident");
        assert_eq!(incident.timeline.onset(), t0 + ms(50));
        assert_eq!(incident.timeline.detection_time(), Some(ms(100)));
        assert_eq!(incident.timeline.max_detection_time(), Some(ms(150)));
        assert_eq!(incident.timeline.failover_gap(), ms(90));
        assert_eq!(incident.timeline.shift, Some(t0 + ms(151)));
        assert_eq!(incident.counts, counts);
        assert!(ledger.open_incident(a.endpoint).is_none());
    }

    #[test]
    fn suspicion_without_verdict_is_not_an_incident() {
        let t0 = Instant::now();
        let mut ledger = IncidentLedger::default();
        let a = subject(1, "a");
        ledger.open_suspicion(&a, REFUSED, t0, t0, t0);
        assert!(ledger.all_incidents().is_empty());
        ledger.clear_suspicion(a.endpoint);
        assert!(ledger.close(a.endpoint, IncidentEnd::Restored, t0).is_none());
    }

    #[test]
    fn closed_incidents_are_bounded() {
        let t0 = Instant::now();
        let mut ledger = IncidentLedger::default();
        for endpoint in 0..MAX_CLOSED_INCIDENTS as u32 + 10 {
            let s = subject(endpoint % 100, "a");
            ledger.open_suspicion(&s, REFUSED, t0, t0, t0);
            ledger.record_verdict(s.endpoint, CAUSE, t0);
            ledger.close(s.endpoint, IncidentEnd::Restored, t0);
        }
        assert_eq!(ledger.all_incidents().len(), MAX_CLOSED_INCIDENTS);
    }
}
