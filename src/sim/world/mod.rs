//! The world: endpoints that fail and heal, a network with a round trip, clients, and in the
//! middle the production director, driven as the control thread drives it.
//!
//! It is a world of one worker. Of packets only losses are told, one for a whole exchange.

mod behavior;
mod clients;
mod control;
mod host;
mod outcome;
mod probing;
#[cfg(test)]
mod tests;
mod trip;

pub use behavior::{Behavior, Finding, Meeting};
pub use clients::{Counts, Offer, Spacing};
pub use probing::attempt_after;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::director::{Director, Event, Input, Ticket};
use crate::logic::id::EndpointId;
use crate::logic::outcome::{Failure, Outcome};
use crate::logic::route::{RetrySpec, Timeouts};
use crate::logic::snapshot::Snapshot;

use super::latency::Latency;
use super::queue::Queue;
use clients::Clients;
use control::Stall;
use host::Host;
use probing::Probe;
use trip::Step;

/// What holds for the whole of a world.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Equal seeds give equal runs.
    pub seed: u64,
    /// The least time from here to an endpoint and back.
    pub round_trip: Duration,
    /// A round trip takes longer by up to this share.
    pub round_trip_jitter: f64,
    /// How fast an endpoint answers of which nothing else was said.
    pub latency: Latency,
    /// The share, in 0..1, of a probe's attempts that get no answer.
    pub probe_loss: f64,
    /// The share, in 0..1, of the exchanges with clients' requests that lose a packet, which is
    /// then sent again.
    pub traffic_loss: f64,
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
            latency: Latency::Fixed(Duration::from_millis(1)),
            probe_loss: 0.0,
            traffic_loss: 0.0,
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
    /// The director heard of a failure that a request met.
    Met {
        /// Whose.
        endpoint: EndpointId,
        /// Which.
        failure: Failure,
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
#[derive(Debug)]
enum Happening {
    Behaves(Box<(SocketAddr, Behavior)>),
    ProbeArrives { probe: u64, attempt: usize },
    ProbeAgain { probe: u64, attempt: usize, fate: u32 },
    ProbeEnds { probe: u64, fate: u32, outcome: Outcome },
    ProbeHeard(EndpointId, Ticket, Outcome),
    IdleClosed(EndpointId, SocketAddr),
    ControlWakes,
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
    hosts: BTreeMap<SocketAddr, Host>,
    probes: BTreeMap<u64, Probe>,
    next_probe: u64,
    clients: Clients,
    stall: Option<Stall>,
    log: Vec<Mark>,
}

impl World {
    /// A world without pools and clients, whose time begins at `base`.
    #[must_use]
    pub fn new(base: Instant, settings: Settings) -> Self {
        let mut rng = Rng::with_seed(settings.seed);
        Self {
            base,
            now: base,
            turn: 0,
            director: Director::new(base, rng.u64(..)),
            rng,
            settings,
            snapshot: Arc::default(),
            queue: Queue::new(),
            hosts: BTreeMap::new(),
            probes: BTreeMap::new(),
            next_probe: 0,
            clients: Clients::default(),
            stall: None,
            log: Vec::new(),
        }
    }

    /// Changes how an endpoint behaves at `at`, or now if that has passed.
    pub fn schedule(&mut self, at: Instant, address: SocketAddr, behavior: Behavior) {
        self.add(at, Happening::Behaves(Box::new((address, behavior))));
    }

    /// Changes how many packets are lost from now on, as [`Settings`] has it.
    pub fn lose(&mut self, probe_loss: f64, traffic_loss: f64) {
        self.settings.probe_loss = probe_loss;
        self.settings.traffic_loss = traffic_loss;
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
        self.hosts.get(&address).map_or_else(|| self.healthy(), |host| host.behavior.clone())
    }

    /// What was seen since the last call.
    pub fn take_log(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.log)
    }

    fn healthy(&self) -> Behavior {
        Behavior::Healthy { latency: self.settings.latency.clone() }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Behaves(change) => self.behaves(change.0, &change.1),
            Happening::ProbeArrives { probe, attempt } => self.probe_arrives(probe, attempt),
            Happening::ProbeAgain { probe, attempt, fate } if self.is_planned(probe, fate) => {
                self.probe_again(probe, attempt);
            }
            Happening::ProbeEnds { probe, fate, outcome } if self.is_planned(probe, fate) => {
                self.probe_ends(probe, outcome);
            }
            Happening::ProbeAgain { .. } | Happening::ProbeEnds { .. } => {}
            Happening::ProbeHeard(endpoint, ticket, outcome) => {
                self.tell(Input::Probed { endpoint, ticket, outcome });
            }
            Happening::IdleClosed(endpoint, address) => {
                if let Some(host) = self.hosts.get_mut(&address) {
                    host.close_idle(endpoint);
                }
                self.tell(Input::IdleClosed { endpoint });
            }
            Happening::ControlWakes => self.wake_control(),
            Happening::Client(step) => self.client(step),
        }
    }

    fn behaves(&mut self, address: SocketAddr, behavior: &Behavior) {
        let now = self.now;
        let host = self.hosts.entry(address).or_insert_with(|| Host::new(behavior.clone()));
        host.behavior = behavior.clone();
        if *behavior == Behavior::Refused {
            for endpoint in host.watchers(now) {
                let at = now + self.one_way();
                self.add(at, Happening::IdleClosed(endpoint, address));
            }
        }
        self.turn_probes(address, behavior);
        self.turn_requests(address, behavior);
    }

    /// The entry of an address; one that nothing was said of is healthy.
    fn host(&mut self, address: SocketAddr) -> &mut Host {
        let Self { hosts, settings, .. } = self;
        let healthy = || Behavior::Healthy { latency: settings.latency.clone() };
        hosts.entry(address).or_insert_with(|| Host::new(healthy()))
    }

    /// Asks whoever is at an address what it does now.
    fn behave<T>(
        &mut self,
        address: SocketAddr,
        ask: impl FnOnce(&Behavior, &Latency, &mut Rng) -> T,
    ) -> T {
        let Self { hosts, settings, rng, .. } = self;
        let healthy = || Behavior::Healthy { latency: settings.latency.clone() };
        let host = hosts.entry(address).or_insert_with(|| Host::new(healthy()));
        ask(&host.behavior, &settings.latency, rng)
    }

    fn add(&mut self, at: Instant, happening: Happening) {
        let grain_ns = self.settings.grain.as_nanos().max(1) as u64;
        if grain_ns == 1 {
            return self.queue.add(at.max(self.now), happening);
        }
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
        let least_ns = self.settings.round_trip.as_nanos() as f64;
        Duration::from_nanos((least_ns * stretch) as u64)
    }

    fn one_way(&mut self) -> Duration {
        self.round_trip() / 2
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_micros() as u64
    }
}
