//! The machine that owns health, steering and the ledger, and does nothing itself.
//!
//! Its driver hands in what happened ([`Director::handle`], [`Director::handle_timeout`]), then
//! drains what is to be done ([`Director::poll_output`]) and sleeps until
//! [`Director::poll_timeout`]. All inputs handed in before the outputs are drained are one turn:
//! however many verdicts fall in it, one snapshot is published.

mod aborts;
mod apply_evidence;
mod capacity_check;
mod configure;
mod driver;
mod eligibility;
mod endpoint;
mod endpoint_slab;
mod explain;
mod health_export;
mod health_import;
mod load;
mod orders;
mod outlier;
mod pools;
mod probe_history;
mod probe_scheduler;
mod publish;
mod status;
#[cfg(test)]
mod tests;
mod timing_wheel;
mod traffic_split;
mod zones;

pub use driver::DirectorDriver;
pub use endpoint::{EvidenceRecord, WithheldReason};
pub use explain::{
    Cadence, EjectionTrial, EndpointFacts, EvictionBudget, Explanation, HealthCounts, HoldDown,
    OutlierScore, ProbeFacts, ProbeStreak, Quorum, RegionFacts, ZoneFacts, ZoneMemberStatus,
    ZoneStatus,
};
pub use health_export::{
    EndpointHealthExport, HealthExport, OutlierExport, PoolHealthExport, ZoneHealthExport,
};
pub use orders::{AppliedCommand, CommandError, OperatorAction, OperatorCommand, OrderChange};
pub use pools::{Eligibility, ZoneVerdict};
pub use status::{EndpointStatus, PoolStatus};

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::health::endpoint_health::{Health, HealthTransition};
use super::incident::{Incident, IncidentEnd, IncidentLedger, IncidentSubject, VerdictCause};
use super::model::id::{EndpointId, Locality};
use super::model::outcome::{Failure, ProbeOutcome};
use super::model::snapshot::Snapshot;
use super::model::topology::{PoolSpec, Topology};
use super::orders::{OperatorOrder, OperatorOrders};
use super::probing::probe_schedule::ProbeTrigger;
use super::routing::RouteTable;
use endpoint_slab::EndpointSlab;
use pools::PoolState;
use probe_scheduler::ProbeScheduler;

#[derive(Debug)]
pub enum Input {
    /// A checked configuration is to be obeyed from now on.
    Configure {
        /// Pools, zones and endpoints.
        topology: Topology,
        /// Routes compiled against the same topology.
        routes: Arc<RouteTable>,
    },
    /// Endpoints have come or gone; all else is as it was configured.
    UpdateEndpoints(Topology),
    /// Another process leaves what it knows. Comes right after the first configuration, and before
    /// the first probe: who has proof of its own inherits nothing.
    ImportHealth(HealthExport),
    /// These orders were in force before. Comes before the first configuration.
    LoadOrders(Vec<OperatorOrder>),
    ProbeFinished {
        endpoint: EndpointId,
        /// As handed out with the probe.
        ticket: ProbeTicket,
        outcome: ProbeOutcome,
    },
    /// A request met a failure.
    TrafficFailed {
        endpoint: EndpointId,
        failure: Failure,
        /// When that try began.
        attempt_started: Instant,
    },
    /// The endpoint closed an idle connection. By itself no evidence, but a good time to look.
    IdleClosed { endpoint: EndpointId },
    /// The last snapshot is now what workers read.
    Published,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeTicket {
    /// Which of the pool's probes it is.
    pub probe: u8,
    /// Which row it belongs to.
    pub trigger: ProbeTrigger,
    pub started: Instant,
}

/// Something to be done.
#[derive(Debug)]
pub enum Output {
    StartProbe {
        endpoint: EndpointId,
        /// To be handed back with its outcome; says which of the pool's probes it is.
        ticket: ProbeTicket,
        address: SocketAddr,
        pool: Arc<PoolSpec>,
        timeout: Duration,
    },
    /// Store this; then hand in [`Input::Published`].
    Publish(Arc<Snapshot>),
    /// The verdict is down, on the endpoint or on its zone: close the endpoint's idle connections,
    /// and have requests that wait for it sent again if the failure is one of the connection. Comes
    /// after the snapshot that no longer holds the endpoint, and not at all in panic, when there is
    /// nowhere better to go.
    AbortRequests {
        endpoint: EndpointId,
        /// What the verdict was made for.
        failure: Failure,
    },
    /// The endpoint gets no new requests, because an operator has said so: close its idle connections.
    /// Comes after the snapshot that no longer holds it.
    Drained {
        endpoint: EndpointId,
        /// The time of what lasts there is up: end tunnels and answers that are on their way, and have
        /// requests that wait sent again if they can be.
        is_deadline_passed: bool,
    },
    Event(Event),
}

/// Where evidence comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceSource {
    Probe,
    Traffic,
    Correlation,
}

impl EvidenceSource {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Traffic => "traffic",
            Self::Correlation => "correlation",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        [Self::Probe, Self::Traffic, Self::Correlation].into_iter().find(|one| one.as_str() == word)
    }
}

/// Probes and traffic disagree.
#[derive(Clone, Debug)]
pub enum Divergence {
    /// Probes fail in much of a pool while its traffic succeeds: their verdicts are withheld.
    ProbesFail {
        pool: Arc<str>,
        /// Whether it began or ended.
        is_active: bool,
    },
    /// Probes pass while traffic fails: traffic's verdict stands.
    TrafficFails { subject: Arc<IncidentSubject>, failure: Failure },
}

/// What an operator wants to be told.
#[derive(Clone, Debug)]
pub enum Event {
    /// The state of an endpoint changed.
    HealthChanged { subject: Arc<IncidentSubject>, change: HealthTransition, health: Health },
    /// The state of an endpoint, as another process has left it.
    HealthImported { subject: Arc<IncidentSubject>, health: Health },
    /// The verdict on a zone changed.
    ZoneVerdictChanged {
        pool: Arc<str>,
        place: Locality,
        /// Down for this, by so many witnesses; or up again.
        verdict: Option<(Failure, u32)>,
    },
    /// A verdict was due and is not obeyed.
    VerdictWithheld {
        subject: Arc<IncidentSubject>,
        /// What it would have been made for.
        failure: Failure,
        reason: WithheldReason,
    },
    /// Probes and traffic disagree.
    Divergence(Divergence),
    /// Probes end without evidence for want of this process's own resources (or do so no longer).
    ProbingImpaired {
        /// Whether it began or ended.
        is_active: bool,
    },
    /// A verdict began an incident.
    IncidentBegan(Box<Incident>),
    /// An endpoint is back, or gone from the configuration.
    IncidentEnded(Box<Incident>),
    /// What came back has its whole share again.
    RampEnded {
        pool: Arc<str>,
        place: Locality,
        /// The endpoint; `None` for all of the zone.
        address: Option<SocketAddr>,
    },
    /// The regions of a pool that is led by latency, the soonest first, when that has changed.
    RegionOrderChanged { pool: Arc<str>, order: Vec<Arc<str>> },
    /// Something has become of an order.
    OrderChanged { order: OperatorOrder, change: OrderChange },
    /// Nothing in the pool is healthy any more (or something is again).
    Panic {
        pool: Arc<str>,
        /// Whether it began or ended.
        is_active: bool,
    },
}

/// Room for outputs that is kept after a turn that had very many.
const MAX_RETAINED_OUTPUTS: usize = 1_024;

#[derive(Debug)]
pub struct Director {
    epoch: Instant,
    now: Instant,
    rng: Rng,
    topology: Topology,
    routes: Arc<RouteTable>,
    endpoints: EndpointSlab,
    pools: Vec<PoolState>,
    probe_scheduler: ProbeScheduler,
    nominal_probes_per_second: f64,
    /// Endpoints whose live counters are looked at again.
    outlier_checks: BTreeSet<(Instant, EndpointId)>,
    ramp_timers: BTreeSet<(Instant, usize)>,
    load_timers: BTreeSet<(Instant, usize)>,
    ledger: IncidentLedger,
    dirty_pools: BTreeSet<usize>,
    should_publish: bool,
    version: u64,
    pending_aborts: Vec<(EndpointId, Failure)>,
    unreported_zone_failures: Vec<zones::ZoneFailure>,
    probing_state: probe_scheduler::ProbingState,
    outputs: VecDeque<Output>,
    orders: OperatorOrders,
    /// Endpoints whose share is going, or that something lasts at.
    draining: Vec<EndpointId>,
    order_timer: Option<Instant>,
}

impl Director {
    /// A director without any pool. `epoch` is the zero of the times in
    /// [`super::model::snapshot::Live`]; equal seeds and inputs give equal outputs.
    pub fn new(epoch: Instant, seed: u64) -> Self {
        Self {
            epoch,
            now: epoch,
            rng: Rng::with_seed(seed),
            topology: Topology::default(),
            routes: Arc::default(),
            endpoints: EndpointSlab::default(),
            pools: Vec::new(),
            probe_scheduler: ProbeScheduler::new(epoch),
            nominal_probes_per_second: 0.0,
            outlier_checks: BTreeSet::new(),
            ramp_timers: BTreeSet::new(),
            load_timers: BTreeSet::new(),
            ledger: IncidentLedger::default(),
            dirty_pools: BTreeSet::new(),
            should_publish: false,
            version: 0,
            pending_aborts: Vec::new(),
            unreported_zone_failures: Vec::new(),
            probing_state: probe_scheduler::ProbingState::default(),
            outputs: VecDeque::new(),
            orders: OperatorOrders::default(),
            draining: Vec::new(),
            order_timer: None,
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = now;
        match input {
            Input::Configure { topology, routes } => self.configure(topology, routes, now),
            Input::UpdateEndpoints(topology) => self.update_endpoints(topology, now),
            Input::ImportHealth(legacy) => self.import_health(legacy, now),
            Input::LoadOrders(orders) => self.orders = OperatorOrders::from_orders(orders),
            Input::ProbeFinished { endpoint, ticket, outcome } => {
                self.on_probe_result(endpoint, ticket, outcome, now);
            }
            Input::TrafficFailed { endpoint, failure, attempt_started: began } => {
                self.on_traffic_failure(endpoint, failure, began, now);
            }
            Input::IdleClosed { endpoint } => self.start_probe_burst(endpoint, now),
            Input::Published => self.ledger.record_shift(now),
        }
    }

    /// Does what is due: starts probes, looks at live counters, moves ramps on.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.run_outlier_checks(now);
        if self.order_timer.is_some_and(|due| due <= now) {
            self.advance_orders(now);
        }
        self.advance_ramps(now);
        self.sample_loads(now);
        self.start_probes(now);
    }

    /// When [`Director::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let outlier_check = self.outlier_checks.first().map(|&(due, _)| due);
        let ramp = self.ramp_timers.first().map(|&(due, _)| due);
        let load = self.load_timers.first().map(|&(due, _)| due);
        [self.probe_scheduler.next_timeout(), outlier_check, ramp, load, self.order_timer]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to be done; `None` ends the turn.
    pub fn poll_output(&mut self) -> Option<Output> {
        if !self.dirty_pools.is_empty() || self.should_publish {
            self.should_publish = false;
            // Traffic moves before anybody is told.
            return Some(Output::Publish(self.rebuild_snapshot()));
        }
        self.report_zone_failures();
        if self.outputs.is_empty() && self.outputs.capacity() > MAX_RETAINED_OUTPUTS {
            self.outputs.shrink_to(MAX_RETAINED_OUTPUTS);
        }
        self.outputs.pop_front().or_else(|| self.next_abort())
    }

    /// Keeps the ledger: `times` are the last good evidence, the begin of this one, and now.
    fn record_incident(
        &mut self,
        subject: &Arc<IncidentSubject>,
        health: Health,
        change: HealthTransition,
        (last_good, began, now): (Instant, Instant, Instant),
    ) {
        let id = subject.endpoint;
        let is_drained = self.endpoints.get(id).is_some_and(endpoint::EndpointState::is_drained);
        match (change, health) {
            // Nobody can have met it: who is drained is about to be stopped, or repaired.
            (HealthTransition::Suspected, _) if is_drained => {}
            (HealthTransition::WentDown, Health::Down { failure }) if is_drained => {
                self.pending_aborts.push((id, failure));
            }
            (HealthTransition::Suspected, Health::Suspect { failure, .. }) => {
                self.ledger.open_suspicion(subject, failure, last_good, began, now);
            }
            (HealthTransition::Cleared, _) => self.ledger.clear_suspicion(id),
            (HealthTransition::WentDown, Health::Down { failure }) => {
                // With `down_after = 1` the first strike is the verdict.
                if self.endpoints.get(id).is_some_and(endpoint::EndpointState::has_been_up) {
                    if !self.ledger.is_tracking(id) {
                        self.ledger.open_suspicion(subject, failure, last_good, began, now);
                    }
                    let verdict_cause = self.verdict_cause(id, failure);
                    self.ledger.record_verdict(id, verdict_cause, now);
                    if self.dirty_pools.is_empty() {
                        // Its traffic has moved before, with its zone's.
                        self.ledger.record_shift(self.now);
                    }
                }
                self.pending_aborts.push((id, failure));
                self.update_incident_counts(id);
                if let Some(incident) = self.ledger.open_incident(id).cloned() {
                    self.push_event(Event::IncidentBegan(Box::new(incident)));
                }
            }
            (HealthTransition::Restored, _) => {
                self.update_incident_counts(id);
                if let Some(incident) = self.ledger.close(id, IncidentEnd::Restored, now) {
                    self.push_event(Event::IncidentEnded(Box::new(incident)));
                }
            }
            _ => {}
        }
    }

    /// What is known of a verdict besides its time.
    fn verdict_cause(&self, id: EndpointId, failure: Failure) -> VerdictCause {
        let endpoint = self.endpoints.get(id);
        let cause = endpoint.and_then(endpoint::EndpointState::cause);
        VerdictCause {
            failure,
            is_by_traffic: cause.is_some_and(|cause| cause.source == EvidenceSource::Traffic),
            round_trip: endpoint.and_then(|endpoint| endpoint.round_trip(self.epoch)),
        }
    }

    /// Brings the counts of an endpoint's open incident up to date.
    fn update_incident_counts(&mut self, id: EndpointId) {
        if let Some(endpoint) = self.endpoints.get(id) {
            self.ledger.update_impact(id, endpoint.incident_impact(self.epoch));
        }
    }

    fn push_event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
