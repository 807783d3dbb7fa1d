//! The simulated world: endpoints that fail and recover, a network with a round trip, clients, and
//! the production director, driven as the control thread drives it.
//!
//! Of packets only losses are simulated, one for a whole exchange.

mod attempt_outcome;
mod attempts;
mod behavior;
mod clients;
mod control;
mod hosts;
mod probes;
mod requests;
mod settlement;
#[cfg(test)]
mod tests;

pub use behavior::{EndpointBehavior, ProbeFinding, ProbeResponse};
pub use clients::{ArrivalSpacing, FaultyRequests, OfferedLoad, SimulatedRequestCounts};
pub use probes::attempt_after;
pub use requests::RequestFault;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::director::{Director, Event, Input, ProbeTicket};
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::{Failure, ProbeOutcome};
use crate::logic::model::snapshot::Snapshot;
use crate::logic::routing::{RetrySpec, RouteTimeouts};

use super::event_queue::EventQueue;
use super::latency::LatencyModel;
use clients::SimulatedClients;
use control::ControlStall;
use hosts::SimulatedHost;
use probes::SimulatedProbe;
use requests::RequestStep;

/// The settings of one simulation.
#[derive(Clone, Debug)]
pub struct SimulationSettings {
    /// Equal seeds give equal runs.
    pub seed: u64,
    /// The minimum round trip to an endpoint.
    pub round_trip: Duration,
    /// A round trip takes longer by up to this share.
    pub round_trip_jitter: f64,
    /// The latency of endpoints without a behaviour of their own.
    pub latency: LatencyModel,
    /// The share, in 0..1, of probe attempts that get no answer.
    pub probe_loss: f64,
    /// The share, in 0..1, of exchanges with clients' requests that lose a packet, which is then
    /// retransmitted.
    pub traffic_loss: f64,
    /// The maximum delay of a probe result on its way to the director. Each is drawn for itself, so
    /// that results may overtake each other.
    pub max_report_delay: Duration,
    /// Times are rounded up to this: events within it belong to one turn of the director.
    pub time_granularity: Duration,
    /// The retry rules of every client's route.
    pub retry: RetrySpec,
    /// The timeouts of every client's route.
    pub timeouts: RouteTimeouts,
    /// Worker threads: each has its own connections and its own part of the retry budget.
    pub workers: usize,
}

impl Default for SimulationSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            round_trip: Duration::from_millis(1),
            round_trip_jitter: 0.1,
            latency: LatencyModel::Fixed(Duration::from_millis(1)),
            probe_loss: 0.0,
            traffic_loss: 0.0,
            max_report_delay: Duration::ZERO,
            time_granularity: Duration::from_nanos(1),
            retry: RetrySpec::default(),
            timeouts: RouteTimeouts::default(),
            workers: 1,
        }
    }
}

/// An observation, with its time.
#[derive(Clone, Debug)]
pub struct SimulationRecord {
    pub at: Instant,
    /// The turn of the director.
    pub step: u64,
    pub event: SimulationEvent,
}

/// An observation in the simulation.
#[derive(Clone, Debug)]
pub enum SimulationEvent {
    /// The director received a probe's result.
    ProbeFinished {
        endpoint: EndpointId,
        /// When the probe had started.
        started: Instant,
        outcome: ProbeOutcome,
    },
    /// The director received a failure that a request met.
    TrafficFailed {
        endpoint: EndpointId,
        failure: Failure,
    },
    /// The director emitted an event.
    Director(Event),
    /// A snapshot was published.
    SnapshotPublished(Arc<Snapshot>),
    ConnectionsCut {
        endpoint: EndpointId,
        failure: Failure,
    },
}

/// An event that is scheduled.
#[derive(Debug)]
enum ScheduledEvent {
    BehaviorChange(Box<(SocketAddr, EndpointBehavior)>),
    ProbeArrives { probe: u64, attempt: usize },
    ProbeRetry { probe: u64, attempt: usize, plan_version: u32 },
    ProbeEnds { probe: u64, plan_version: u32, outcome: ProbeOutcome },
    ProbeReport(EndpointId, ProbeTicket, ProbeOutcome),
    IdleClosed(EndpointId, SocketAddr),
    ControlResumes,
    Client(RequestStep),
}

#[derive(Debug)]
pub struct Simulation {
    settings: SimulationSettings,
    base: Instant,
    now: Instant,
    step_count: u64,
    rng: Rng,
    director: Director,
    snapshot: Arc<Snapshot>,
    events: EventQueue<ScheduledEvent>,
    hosts: BTreeMap<SocketAddr, SimulatedHost>,
    probes: BTreeMap<u64, SimulatedProbe>,
    next_probe: u64,
    clients: SimulatedClients,
    stall: Option<ControlStall>,
    log: Vec<SimulationRecord>,
}

impl Simulation {
    /// A simulation without pools and clients, whose time begins at `base`.
    pub fn new(base: Instant, settings: SimulationSettings) -> Self {
        let mut rng = Rng::with_seed(settings.seed);
        Self {
            base,
            now: base,
            step_count: 0,
            director: Director::new(base, rng.u64(..)),
            rng,
            settings,
            snapshot: Arc::default(),
            events: EventQueue::new(),
            hosts: BTreeMap::new(),
            probes: BTreeMap::new(),
            next_probe: 0,
            clients: SimulatedClients::default(),
            stall: None,
            log: Vec::new(),
        }
    }

    /// Changes an endpoint's behaviour at `at`, or now if that has passed.
    pub fn schedule(&mut self, at: Instant, address: SocketAddr, behavior: EndpointBehavior) {
        self.schedule_event(at, ScheduledEvent::BehaviorChange(Box::new((address, behavior))));
    }

    /// Changes the losses from now on; see [`SimulationSettings`].
    pub fn set_loss(&mut self, probe_loss: f64, traffic_loss: f64) {
        self.settings.probe_loss = probe_loss;
        self.settings.traffic_loss = traffic_loss;
    }

    /// Advances the time to `until`.
    pub fn run_until(&mut self, until: Instant) {
        while self.step_until(until) {}
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// The number of turns of the director so far.
    pub fn step_count(&self) -> u64 {
        self.step_count
    }

    /// The published snapshot.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The production director.
    pub fn director(&mut self) -> &mut Director {
        &mut self.director
    }

    /// The endpoint's current behaviour.
    pub fn behavior(&self, address: SocketAddr) -> EndpointBehavior {
        self.hosts.get(&address).map_or_else(|| self.healthy(), |host| host.behavior.clone())
    }

    /// The observations since the last call.
    pub fn take_log(&mut self) -> Vec<SimulationRecord> {
        std::mem::take(&mut self.log)
    }

    fn healthy(&self) -> EndpointBehavior {
        EndpointBehavior::Healthy { latency: self.settings.latency.clone() }
    }

    fn process_event(&mut self, event: ScheduledEvent) {
        match event {
            ScheduledEvent::BehaviorChange(change) => self.change_behavior(change.0, &change.1),
            ScheduledEvent::ProbeArrives { probe, attempt } => {
                self.on_probe_arrival(probe, attempt);
            }
            ScheduledEvent::ProbeRetry { probe, attempt, plan_version }
                if self.has_current_plan(probe, plan_version) =>
            {
                self.retry_probe(probe, attempt);
            }
            ScheduledEvent::ProbeEnds { probe, plan_version, outcome }
                if self.has_current_plan(probe, plan_version) =>
            {
                self.on_probe_end(probe, outcome);
            }
            ScheduledEvent::ProbeRetry { .. } | ScheduledEvent::ProbeEnds { .. } => {}
            ScheduledEvent::ProbeReport(endpoint, ticket, outcome) => {
                self.deliver_input(Input::ProbeFinished { endpoint, ticket, outcome });
            }
            ScheduledEvent::IdleClosed(endpoint, address) => {
                if let Some(host) = self.hosts.get_mut(&address) {
                    host.close_idle(endpoint);
                }
                self.deliver_input(Input::IdleClosed { endpoint });
            }
            ScheduledEvent::ControlResumes => self.resume_control(),
            ScheduledEvent::Client(step) => self.on_request_step(step),
        }
    }

    fn change_behavior(&mut self, address: SocketAddr, behavior: &EndpointBehavior) {
        let now = self.now;
        let host =
            self.hosts.entry(address).or_insert_with(|| SimulatedHost::new(behavior.clone()));
        host.behavior = behavior.clone();
        if *behavior == EndpointBehavior::Refused {
            for endpoint in host.endpoints_with_idle_connections(now) {
                let at = now + self.one_way();
                self.schedule_event(at, ScheduledEvent::IdleClosed(endpoint, address));
            }
        }
        self.apply_behavior_to_probes(address, behavior);
        self.apply_behavior_to_requests(address, behavior);
    }

    /// The host at an address; it is healthy unless a behaviour was set.
    fn host_mut(&mut self, address: SocketAddr) -> &mut SimulatedHost {
        let Self { hosts, settings, .. } = self;
        let healthy = || EndpointBehavior::Healthy { latency: settings.latency.clone() };
        hosts.entry(address).or_insert_with(|| SimulatedHost::new(healthy()))
    }

    /// Evaluates the current behaviour of the host at an address.
    fn with_behavior<T>(
        &mut self,
        address: SocketAddr,
        evaluate: impl FnOnce(&EndpointBehavior, &LatencyModel, &mut Rng) -> T,
    ) -> T {
        let Self { hosts, settings, rng, .. } = self;
        let healthy = || EndpointBehavior::Healthy { latency: settings.latency.clone() };
        let host = hosts.entry(address).or_insert_with(|| SimulatedHost::new(healthy()));
        evaluate(&host.behavior, &settings.latency, rng)
    }

    fn schedule_event(&mut self, at: Instant, event: ScheduledEvent) {
        let grain_ns = self.settings.time_granularity.as_nanos().max(1) as u64;
        if grain_ns == 1 {
            return self.events.push(at.max(self.now), event);
        }
        let since_ns = at.max(self.now).saturating_duration_since(self.base).as_nanos() as u64;
        let rounded_ns = since_ns.div_ceil(grain_ns) * grain_ns;
        self.events.push(self.base + Duration::from_nanos(rounded_ns), event);
    }

    fn record(&mut self, event: SimulationEvent) {
        self.log.push(SimulationRecord { at: self.now, step: self.step_count, event });
    }

    /// One round trip with its jitter.
    fn round_trip(&mut self) -> Duration {
        let jitter_factor = 1.0 + self.settings.round_trip_jitter * self.rng.f64();
        let least_ns = self.settings.round_trip.as_nanos() as f64;
        Duration::from_nanos((least_ns * jitter_factor) as u64)
    }

    fn one_way(&mut self) -> Duration {
        self.round_trip() / 2
    }

    fn elapsed_us(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_micros() as u64
    }
}
