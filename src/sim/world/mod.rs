//! The world: endpoints that fail and heal, a network with a round trip, clients, and in the
//! middle the production director, driven as the control thread drives it.
//!
//! Two simplifications: packets are never lost but to an endpoint that is silent, and clients'
//! requests always find a pooled connection to an endpoint that has not closed it.

mod clients;
mod host;
mod probing;
#[cfg(test)]
mod tests;
mod trip;

pub use clients::{Counts, Offer, Spacing};
pub use host::{Behavior, Meeting};

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::director::{Director, Event, Input, Output, Ticket};
use crate::logic::id::EndpointId;
use crate::logic::outcome::{Failure, Outcome};
use crate::logic::retry::Waiting;
use crate::logic::route::{RetrySpec, RouteTable, Timeouts};
use crate::logic::snapshot::Snapshot;
use crate::logic::topology::Topology;

use super::queue::Queue;
use clients::Clients;
use host::Host;
use probing::Probe;
use trip::Step;

/// What holds for the whole of a world.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Equal seeds give equal runs.
    pub seed: u64,
    /// The least time from here to an endpoint and back.
    pub round_trip: Duration,
    /// A round trip takes longer by up to this share.
    pub round_trip_jitter: f64,
    /// How fast an endpoint answers of which nothing else was said.
    pub latency: Duration,
    /// Results of probes wait for up to this long before the director hears of them, each for
    /// itself: they may overtake each other.
    pub reorder: Duration,
    /// Times are rounded up to this: what happens within it is one turn of the director.
    pub grain: Duration,
    /// Of every client's route.
    pub retry: RetrySpec,
    /// Of every client's route.
    pub timeouts: Timeouts,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            round_trip: Duration::from_millis(1),
            round_trip_jitter: 0.1,
            latency: Duration::from_millis(1),
            reorder: Duration::ZERO,
            grain: Duration::from_nanos(1),
            retry: RetrySpec::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// Something that was seen, for whoever watches.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub at: Instant,
    /// In which turn of the director.
    pub turn: u64,
    /// What.
    pub what: What,
}

/// What can be seen.
#[derive(Clone, Debug)]
pub enum What {
    /// The director heard how a probe had ended.
    Probed {
        /// Whose.
        endpoint: EndpointId,
        /// When it had started.
        started: Instant,
        /// How it ended.
        outcome: Outcome,
    },
    /// The director told of something.
    Event(Event),
    /// A snapshot came into force.
    Published(Arc<Snapshot>),
    /// Connections were cut.
    Cut {
        /// Whose.
        endpoint: EndpointId,
        /// What for.
        failure: Failure,
    },
}

/// Something that is yet to happen.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Behaves { address: SocketAddr, behavior: Behavior },
    ProbeArrives(u64),
    ProbeEnds { probe: u64, fate: u32, outcome: Outcome },
    ProbeHeard { endpoint: EndpointId, ticket: Ticket, outcome: Outcome },
    IdleClosed(EndpointId),
    Client(Step),
}

/// The world.
#[derive(Debug)]
pub struct World {
    settings: Settings,
    base: Instant,
    now: Instant,
    turn: u64,
    rng: Rng,
    director: Director,
    snapshot: Arc<Snapshot>,
    queue: Queue<Happening>,
    hosts: HashMap<SocketAddr, Host>,
    probes: BTreeMap<u64, Probe>,
    next_probe: u64,
    clients: Clients,
    log: Vec<Mark>,
}

impl World {
    /// A world without pools and clients, whose time begins at `base`.
    #[must_use]
    pub fn new(base: Instant, settings: Settings) -> Self {
        let mut rng = Rng::with_seed(settings.seed);
        Self {
            settings,
            base,
            now: base,
            turn: 0,
            director: Director::new(base, rng.u64(..)),
            rng,
            snapshot: Arc::default(),
            queue: Queue::new(),
            hosts: HashMap::new(),
            probes: BTreeMap::new(),
            next_probe: 0,
            clients: Clients::default(),
            log: Vec::new(),
        }
    }

    /// Gives the director a topology to obey.
    pub fn configure(&mut self, topology: Topology) {
        let routes = Arc::<RouteTable>::default();
        self.begin_turn();
        self.director.handle(Input::Configure { topology, routes }, self.now);
        self.director.handle_timeout(self.now);
        self.obey();
    }

    /// Changes how an endpoint behaves at `at`, or now if that has passed.
    pub fn schedule(&mut self, at: Instant, address: SocketAddr, behavior: Behavior) {
        self.add(at, Happening::Behaves { address, behavior });
    }

    /// What happens next, if it happens by `until`: one turn of the director. Without it time
    /// goes on to `until`, and the answer is `false`.
    pub fn turn(&mut self, until: Instant) -> bool {
        let due = self.director.poll_timeout();
        let next = [self.queue.next_at(), due].into_iter().flatten().min();
        let Some(at) = next.filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        self.begin_turn();
        while let Some(happening) = self.queue.pop_due(self.now) {
            self.happen(happening);
        }
        self.director.handle_timeout(self.now);
        self.obey();
        true
    }

    /// Lets time go on to `until`.
    pub fn run_until(&mut self, until: Instant) {
        while self.turn(until) {}
    }

    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Turns of the director so far.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turn
    }

    /// What requests steer by.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The machine in the middle.
    pub fn director(&mut self) -> &mut Director {
        &mut self.director
    }

    /// How an endpoint behaves now.
    #[must_use]
    pub fn behavior(&self, address: SocketAddr) -> Behavior {
        let healthy = Behavior::Healthy { latency: self.settings.latency };
        self.hosts.get(&address).map_or(healthy, |host| host.behavior)
    }

    /// What was seen since the last call.
    pub fn take_log(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.log)
    }

    fn begin_turn(&mut self) {
        self.turn += 1;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Behaves { address, behavior } => self.behaves(address, behavior),
            Happening::ProbeArrives(probe) => self.probe_arrives(probe),
            Happening::ProbeEnds { probe, fate, outcome } => self.probe_ends(probe, fate, outcome),
            Happening::ProbeHeard { endpoint, ticket, outcome } => {
                self.mark(What::Probed { endpoint, started: ticket.started, outcome });
                self.director.handle(Input::Probed { endpoint, ticket, outcome }, self.now);
            }
            Happening::IdleClosed(endpoint) => {
                self.director.handle(Input::IdleClosed { endpoint }, self.now);
            }
            Happening::Client(step) => self.client(step),
        }
    }

    /// Does what the director says, as the control thread does.
    fn obey(&mut self) {
        while let Some(output) = self.director.poll_output() {
            match output {
                Output::Probe { endpoint, ticket, address, pool, timeout } => {
                    self.start_probe(endpoint, ticket, address, pool, timeout);
                }
                Output::Publish(snapshot) => {
                    self.snapshot = Arc::clone(&snapshot);
                    self.mark(What::Published(snapshot));
                    self.director.handle(Input::Published, self.now);
                }
                Output::Cut { endpoint, failure } => {
                    self.mark(What::Cut { endpoint, failure });
                    self.cut(endpoint, Waiting::after(failure));
                }
                Output::Event(event) => self.mark(What::Event(event)),
            }
        }
    }

    fn behaves(&mut self, address: SocketAddr, behavior: Behavior) {
        let now = self.now;
        let host = self.hosts.entry(address).or_insert_with(|| Host::new(behavior, now));
        host.behavior = behavior;
        host.since = now;
        if behavior == Behavior::Refused {
            for (endpoint, until) in std::mem::take(&mut host.pooled) {
                if until > now {
                    let at = now + self.one_way();
                    self.add(at, Happening::IdleClosed(endpoint));
                }
            }
        }
        self.turn_probes(address, behavior);
        self.turn_requests(address, behavior);
    }

    /// The entry of an address; one that nothing was said of is healthy.
    fn host(&mut self, address: SocketAddr) -> &mut Host {
        let healthy = Behavior::Healthy { latency: self.settings.latency };
        self.hosts.entry(address).or_insert_with(|| Host::new(healthy, self.base))
    }

    fn add(&mut self, at: Instant, happening: Happening) {
        let grain_ns = self.settings.grain.as_nanos().max(1) as u64;
        let since_ns = at.max(self.now).saturating_duration_since(self.base).as_nanos() as u64;
        let rounded_ns = since_ns.div_ceil(grain_ns) * grain_ns;
        self.queue.add(self.base + Duration::from_nanos(rounded_ns), happening);
    }

    fn mark(&mut self, what: What) {
        self.log.push(Mark { at: self.now, turn: self.turn, what });
    }

    /// One round trip, with its jitter.
    fn round_trip(&mut self) -> Duration {
        let stretch = 1.0 + self.settings.round_trip_jitter * self.rng.f64();
        self.settings.round_trip.mul_f64(stretch)
    }

    fn one_way(&mut self) -> Duration {
        self.round_trip() / 2
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_micros() as u64
    }
}
