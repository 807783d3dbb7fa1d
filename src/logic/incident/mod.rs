//! Incidents: the ledger of failures from onset to restoration, with the gap that clients saw.
//!
//! Inputs: suspicions, verdicts, publications and counts from the director. Outputs: timelines
//! ([`IncidentTimeline`]) and counts. `slo` keeps objectives, `grouping` joins related incidents,
//! `client_failure` counts failures by kind. May use: `model`.

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

/// Upper bound on closed incidents; the oldest is dropped first.
pub const MAX_CLOSED_INCIDENTS: usize = 1_000;

/// The endpoint of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IncidentSubject {
    pub endpoint: EndpointId,
    pub pool: Arc<str>,
    pub locality: Locality,
    pub address: SocketAddr,
}

/// The moments of an incident. The onset is not observed. It lies between the last good evidence
/// and the start of the first bad exchange, and is estimated as the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncidentTimeline {
    /// The last proof of life before the failure.
    pub last_good: Instant,
    /// Start of the exchange that became the first evidence.
    pub first_bad: Instant,
    /// Arrival of the first evidence.
    pub suspect: Instant,
    pub verdict: Option<Instant>,
    /// The verdict on its zone, if that was first: it moved the endpoint's traffic.
    pub zone_verdict: Option<Instant>,
    /// Publication of the snapshot that moves the traffic.
    pub shift: Option<Instant>,
    /// The last client-visible failure.
    pub last_failure: Option<Instant>,
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

    /// Upper bound of the detection time: from the last proof of life to the verdict.
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
    /// Consecutive, from 1; 0 before the verdict.
    pub id: u64,
    pub subject: Arc<IncidentSubject>,
    /// The failure that the verdict is based on; before the verdict, the latest strike.
    pub failure: Failure,
    pub timeline: IncidentTimeline,
    /// Whether traffic decided the verdict, as opposed to probes.
    pub is_by_traffic: bool,
    /// Round-trip time from the last passed probe, if there is a recent one.
    pub round_trip: Option<Duration>,
    /// Affected requests so far.
    pub counts: FailoverCounts,
    /// The client-visible failures by kind.
    pub client_failures: ClientFailures,
    pub end: Option<IncidentEnd>,
}

/// The end of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentEnd {
    /// The endpoint was marked up again.
    Restored,
    /// The endpoint was removed from the configuration.
    Removed,
}

/// The evidence behind a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictCause {
    pub failure: Failure,
    /// Whether traffic decided the verdict, as opposed to probes.
    pub is_by_traffic: bool,
    /// Round-trip time from the last passed probe, if there is a recent one.
    pub round_trip: Option<Duration>,
    /// The time from which its zone is down, if it is.
    pub zone_down_since: Option<Instant>,
}

/// The effect on requests since the endpoint's last proof of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IncidentImpact {
    pub counts: FailoverCounts,
    /// The client-visible failures by kind.
    pub client_failures: ClientFailures,
    /// The last client-visible failure.
    pub last_failure: Option<Instant>,
}

impl Incident {
    /// Whether the endpoint is restored or removed.
    pub fn is_closed(&self) -> bool {
        self.timeline.restored.is_some()
    }
}

/// Open and closed incidents.
#[derive(Debug, Default)]
pub struct IncidentLedger {
    next_id: u64,
    open: HashMap<EndpointId, Incident>,
    /// Endpoints whose verdicts are not yet published.
    awaiting_shift: Vec<EndpointId>,
    closed: VecDeque<Incident>,
}

impl IncidentLedger {
    /// Starts to track an endpoint that has become suspect.
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
            zone_verdict: None,
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

    /// Drops a suspicion that no verdict has confirmed.
    pub fn clear_suspicion(&mut self, endpoint: EndpointId) {
        self.open.remove(&endpoint);
    }

    /// Turns the suspicion into an incident.
    pub fn record_verdict(&mut self, endpoint: EndpointId, cause: VerdictCause, now: Instant) {
        if let Some(incident) = self.open.get_mut(&endpoint) {
            self.next_id += 1;
            incident.id = self.next_id;
            incident.failure = cause.failure;
            incident.is_by_traffic = cause.is_by_traffic;
            incident.round_trip = cause.round_trip;
            incident.timeline.verdict = Some(now);
            incident.timeline.zone_verdict = cause.zone_down_since;
            self.awaiting_shift.push(endpoint);
        }
    }

    /// Endpoints with an open suspicion or incident, in no particular order.
    pub fn tracked_endpoints(&self) -> Vec<EndpointId> {
        self.open.keys().copied().collect()
    }

    /// Whether a suspicion or an incident is open.
    pub fn is_tracking(&self, endpoint: EndpointId) -> bool {
        self.open.contains_key(&endpoint)
    }

    /// Records the publication of a snapshot that contains all verdicts so far.
    pub fn record_shift(&mut self, now: Instant) {
        for endpoint in self.awaiting_shift.drain(..) {
            let incident = self.open.get_mut(&endpoint);
            if let Some(incident) = incident.filter(|incident| incident.timeline.verdict.is_some())
            {
                incident.timeline.shift.get_or_insert(now);
            }
        }
    }

    /// Updates the counts of an open incident.
    pub fn update_impact(&mut self, endpoint: EndpointId, impact: IncidentImpact) {
        if let Some(incident) = self.open.get_mut(&endpoint) {
            incident.counts = impact.counts;
            incident.client_failures = impact.client_failures;
            incident.timeline.last_failure = impact.last_failure;
        }
    }

    /// Closes the incident of a restored or removed endpoint and returns it, if there was a
    /// verdict.
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
        // The verdict was withdrawn before it was published, so no traffic has moved.
        incident.timeline.shift.get_or_insert(now);
        if self.closed.len() >= MAX_CLOSED_INCIDENTS {
            self.closed.pop_front();
        }
        self.closed.push_back(incident.clone());
        Some(incident)
    }

    pub fn open_incident(&self, endpoint: EndpointId) -> Option<&Incident> {
        self.open.get(&endpoint).filter(|incident| incident.id > 0)
    }

    /// Open incidents, the oldest first.
    pub fn open_incidents(&self) -> Vec<Incident> {
        let open = self.open.values().filter(|incident| incident.id > 0);
        let mut all: Vec<Incident> = open.cloned().collect();
        all.sort_by_key(|incident| incident.id);
        all
    }

    /// All incidents, the oldest first.
    pub fn all_incidents(&self) -> Vec<Incident> {
        let open = self.open.values().filter(|incident| incident.id > 0);
        let mut all: Vec<Incident> = self.closed.iter().chain(open).cloned().collect();
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
    const CAUSE: VerdictCause = VerdictCause {
        failure: REFUSED,
        is_by_traffic: false,
        round_trip: None,
        zone_down_since: None,
    };

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
