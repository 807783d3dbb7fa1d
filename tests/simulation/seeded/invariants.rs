//! Invariants of everything that the director publishes and reports.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use gapless::logic::director::{Divergence, Event};
use gapless::logic::health::endpoint_health::{Health, HealthTransition};
use gapless::logic::model::id::EndpointId;
use gapless::logic::model::outcome::{FailureClass, ProbeOutcome};
use gapless::logic::model::snapshot::PoolView;
use gapless::sim::world::{Simulation, SimulationEvent, SimulationRecord};

/// The observed state of one endpoint.
#[derive(Default)]
struct ObservedEndpoint {
    /// Passes since the endpoint was new or went down.
    passes_since_down: u32,
    /// Passes needed to serve again: the least `up_after` since it went down.
    passes_needed: Option<u32>,
    has_been_up: bool,
    /// The endpoint went down and has returned.
    is_restored: bool,
    /// A verdict by traffic ends by traffic: the endpoint serves as a suspect without a pass.
    is_unejected: bool,
    /// Evidence against the endpoint since it was new or went down.
    strikes_since_down: u32,
}

/// The invariants and their memory.
pub(crate) struct InvariantChecker {
    endpoints: HashMap<EndpointId, ObservedEndpoint>,
    snapshot_version: u64,
    last_publish: Option<(u64, u64)>,
    /// Endpoints that went down after they had been up, with the time.
    pub(crate) verdicts: Vec<(EndpointId, Instant)>,
    downed_in_step: (u64, HashSet<EndpointId>),
    /// The last turn in which a panic ended.
    last_panic_end_step: Option<u64>,
    /// The last turn in which a zone fell.
    last_zone_down_step: Option<u64>,
    /// Endpoints that passed a probe in that turn.
    passed_in_step: (u64, HashSet<EndpointId>),
    /// Endpoints that serve without a pass since that turn; the end of the turn must justify them.
    serving_unproven: Vec<(u64, EndpointId)>,
    /// The last turn in which divergence was reported.
    last_divergence_step: Option<u64>,
    /// The pools as last published.
    published_pools: Vec<Arc<PoolView>>,
}

impl InvariantChecker {
    /// Starts to observe. Earlier events are checked too.
    pub(crate) fn new(simulation: &mut Simulation) -> Self {
        let mut checker = Self {
            endpoints: HashMap::new(),
            snapshot_version: 0,
            last_publish: None,
            verdicts: Vec::new(),
            downed_in_step: (0, HashSet::new()),
            last_panic_end_step: None,
            last_zone_down_step: None,
            passed_in_step: (0, HashSet::new()),
            serving_unproven: Vec::new(),
            last_divergence_step: None,
            published_pools: Vec::new(),
        };
        checker.check_new_records(simulation);
        checker
    }

    /// Checks all that happened since the last call.
    pub(crate) fn check_new_records(&mut self, simulation: &mut Simulation) {
        for record in simulation.take_log() {
            self.check_record(&record);
        }
        simulation.snapshot().pools.iter().for_each(|pool| self.check_not_empty(pool));
    }

    fn check_record(&mut self, record: &SimulationRecord) {
        let overdue = self.serving_unproven.iter().find(|(step, _)| *step < record.step);
        assert!(
            overdue.is_none(),
            "{overdue:?} serves without a pass since it was new or went down"
        );
        match &record.event {
            SimulationEvent::ProbeFinished { endpoint, outcome, .. } => {
                let observed = self.endpoints.entry(*endpoint).or_default();
                if outcome.latency().is_some() {
                    observed.passes_since_down += 1;
                    if self.passed_in_step.0 != record.step {
                        self.passed_in_step = (record.step, HashSet::new());
                    }
                    self.passed_in_step.1.insert(*endpoint);
                }
                observed.strikes_since_down += u32::from(matches!(outcome, ProbeOutcome::Fail(_)));
            }
            SimulationEvent::TrafficFailed { endpoint, .. } => {
                self.endpoints.entry(*endpoint).or_default().strikes_since_down += 1;
            }
            SimulationEvent::Director(Event::HealthChanged { subject, change, health }) => {
                self.check_health_change(subject.endpoint, *change, *health, record);
            }
            SimulationEvent::Director(Event::Panic { is_active: false, .. }) => {
                self.last_panic_end_step = Some(record.step);
            }
            SimulationEvent::Director(Event::ZoneVerdictChanged { verdict: Some(_), .. }) => {
                self.last_zone_down_step = Some(record.step);
            }
            SimulationEvent::Director(Event::Divergence(Divergence::ProbesFail {
                is_active: true,
                ..
            })) => {
                self.last_divergence_step = Some(record.step);
            }
            SimulationEvent::Director(_) => {}
            SimulationEvent::SnapshotPublished(snapshot) => {
                assert!(snapshot.version > self.snapshot_version, "versions increase");
                self.snapshot_version = snapshot.version;
                let last = self.last_publish.replace((record.step, snapshot.version));
                let last_step = last.map(|(turn, _)| turn);
                assert_ne!(last_step, Some(record.step), "one turn, one snapshot");
                for pool in &snapshot.pools {
                    self.check_published_pool(pool, record.step);
                }
                self.published_pools.clone_from(&snapshot.pools);
            }
            SimulationEvent::ConnectionsCut { endpoint, failure }
                if failure.class() == FailureClass::Silent =>
            {
                self.check_silent_abort(*endpoint, record.step);
            }
            SimulationEvent::ConnectionsCut { endpoint, .. } => {
                let (downed_step, downed) = &self.downed_in_step;
                let went_down_now = *downed_step == record.step && downed.contains(endpoint);
                let is_down =
                    self.endpoints.get(endpoint).is_some_and(|known| known.passes_needed.is_some());
                let can_abort_after_panic =
                    is_down && self.last_panic_end_step == Some(record.step);
                let is_zone_down_now = self.last_zone_down_step == Some(record.step);
                assert!(
                    went_down_now || can_abort_after_panic || is_zone_down_now,
                    "a cut follows a verdict or a panic's end"
                );
                let published = self.last_publish.map(|(step, _)| step);
                assert_eq!(published, Some(record.step), "a cut comes after the snapshot");
            }
        }
    }

    /// Requests leave a silent endpoint when another one of its pool has answered; no snapshot then
    /// holds it.
    fn check_silent_abort(&self, endpoint: EndpointId, step: u64) {
        let pool = self.published_pools.iter().find(|pool| pool.members.contains(&endpoint));
        let pool = pool.expect("an endpoint of a pool");
        let (passed_step, passed) = &self.passed_in_step;
        let is_alive = |id: &EndpointId| *id != endpoint && passed.contains(id);
        assert_eq!(*passed_step, step, "a silent endpoint is left when there is an answer");
        assert!(pool.members.iter().any(is_alive), "one of another endpoint");
        assert!(!pool.is_panicking, "a panic without any endpoint");
    }

    fn check_health_change(
        &mut self,
        endpoint: EndpointId,
        change: HealthTransition,
        health: Health,
        record: &SimulationRecord,
    ) {
        let observed = self.endpoints.entry(endpoint).or_default();
        match change {
            HealthTransition::WentDown => {
                let is_zone_down_now = self.last_zone_down_step == Some(record.step);
                let has_evidence = observed.strikes_since_down > 0 || is_zone_down_now;
                assert!(has_evidence, "{endpoint} went down, and nothing spoke against it");
                (observed.passes_since_down, observed.strikes_since_down) = (0, 0);
                observed.passes_needed = Some(u32::MAX);
                observed.is_unejected = false;
                observed.is_restored = false;
                if observed.has_been_up {
                    self.verdicts.push((endpoint, record.at));
                }
                if self.downed_in_step.0 != record.step {
                    self.downed_in_step = (record.step, HashSet::new());
                }
                self.downed_in_step.1.insert(endpoint);
                self.check_evict_budget(endpoint);
            }
            HealthTransition::Started => observed.has_been_up = true,
            HealthTransition::Restored => {
                observed.has_been_up = true;
                observed.is_restored = true;
                let is_proven = observed
                    .passes_needed
                    .is_none_or(|needed| observed.passes_since_down >= needed);
                let is_suspect = matches!(health, Health::Suspect { .. });
                // Where only probes fail, successful requests are the proof.
                let is_unejected = is_suspect || self.last_divergence_step == Some(record.step);
                assert!(
                    is_proven || is_unejected,
                    "{endpoint} is back without proof, and not doubted"
                );
                observed.is_unejected = is_unejected;
                self.serving_unproven.retain(|(_, id)| *id != endpoint || !is_unejected);
            }
            _ => {}
        }
    }

    /// A verdict on a serving endpoint stays within the eviction budget.
    fn check_evict_budget(&self, endpoint: EndpointId) {
        if !self.endpoints[&endpoint].has_been_up {
            return;
        }
        let Some(pool) = self.published_pools.iter().find(|pool| pool.members.contains(&endpoint))
        else {
            return;
        };
        let is_down = |id: &&EndpointId| {
            self.endpoints
                .get(id)
                .is_some_and(|known| known.passes_needed.is_some() && !known.is_restored)
        };
        let down = pool.members.iter().filter(is_down).count();
        let evict = &pool.spec.eviction;
        let share = pool.members.len() * evict.max_down_percent as usize / 100;
        let allowed = share.max(1).min(evict.max_down_endpoints as usize);
        assert!(down <= allowed, "{endpoint} is one of {down} that are down, {allowed} may be");
    }

    fn check_published_pool(&mut self, pool: &PoolView, step: u64) {
        for id in &*pool.members {
            let observed = self.endpoints.entry(*id).or_default();
            observed.passes_needed =
                observed.passes_needed.map(|needed| needed.min(pool.spec.detect.up_after));
        }
        let targets: Vec<EndpointId> = pool.targets().map(|target| target.id).collect();
        let distinct: HashSet<_> = targets.iter().collect();
        assert_eq!(distinct.len(), targets.len(), "no endpoint is in two tiers");
        assert!(targets.iter().all(|id| pool.members.contains(id)));
        if pool.is_panicking {
            assert_eq!(targets.len(), pool.members.len(), "panic is everywhere");
        } else {
            for id in &targets {
                let observed = &self.endpoints[id];
                let is_proven = observed.passes_since_down >= observed.passes_needed.unwrap_or(1)
                    || observed.is_unejected;
                if !is_proven {
                    self.serving_unproven.push((step, *id));
                }
            }
        }
        let shares: u64 = pool.primary.tiers.iter().map(|tier| tier.share).sum();
        assert!(targets.is_empty() || shares > 0);
    }

    /// Once anything was decided, every pool has a target.
    fn check_not_empty(&self, pool: &PoolView) {
        let observed = |id: &EndpointId| self.endpoints.get(id);
        let has_verdict = |id: &EndpointId| {
            observed(id).is_some_and(|k| k.has_been_up || k.passes_needed.is_some())
        };
        let has_any_verdict = pool.members.iter().any(has_verdict);
        let is_empty = pool.targets().next().is_none();
        assert!(!is_empty || !has_any_verdict, "the pool {} is empty", pool.spec.name);
    }

    /// Checks that every verdict has its incident, and that its times are in order.
    pub(crate) fn check_incidents(&mut self, simulation: &mut Simulation) {
        self.check_new_records(simulation);
        let incidents = simulation.director().incidents();
        for (endpoint, at) in &self.verdicts {
            let matching = incidents.iter().find(|incident| {
                incident.subject.endpoint == *endpoint && incident.timeline.verdict == Some(*at)
            });
            let incident = matching.unwrap_or_else(|| panic!("no incident for {endpoint}"));
            let t = incident.timeline;
            assert!(t.onset() <= t.suspect, "{t:?}");
            assert!(t.suspect <= *at, "{t:?}");
            match t.shift {
                Some(shift) => assert!(*at <= shift, "{t:?}"),
                None => assert_eq!(t.restored, Some(*at), "only what is taken back at once: {t:?}"),
            }
            assert!(t.restored.is_none_or(|restored| restored >= *at), "{t:?}");
        }
        assert_eq!(incidents.len(), self.verdicts.len(), "no incident without a verdict");
    }
}
