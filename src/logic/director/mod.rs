//! The machine that owns health, steering and the ledger, and does nothing itself.
//!
//! Its driver hands in what happened ([`Director::handle`], [`Director::handle_timeout`]), then
//! drains what is to be done ([`Director::poll_output`]) and sleeps until
//! [`Director::poll_timeout`]. All inputs handed in before the outputs are drained are one turn:
//! however many verdicts fall in it, one snapshot is published.

mod configure;
mod cuts;
mod divide;
mod endpoint;
mod explain;
mod flow;
mod inherit;
mod legacy;
mod orders;
mod pace;
mod past;
mod pools;
mod publish;
mod room;
mod roster;
mod stand;
mod status;
#[cfg(test)]
mod tests;
mod trust;
mod weigh;
mod wheel;
mod zones;

pub use endpoint::{Piece, Withheld};
pub use explain::{
    Budget, Cadence, Doubt, EndpointFacts, Explanation, Hold, Member, ProbeFacts, Quorum,
    RegionFacts, Row, StateCounts, Trial, What, ZoneFacts, ZoneStatus,
};
pub use legacy::{EndpointLegacy, Legacy, PoolLegacy, Sentence, ZoneLegacy};
pub use orders::{Denied, Fate, Granted, Verb, Wish};
pub use pools::{Standing, ZoneVerdict};
pub use status::{EndpointStatus, PoolStatus};

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::health::{Change, Health};
use super::id::{EndpointId, Place};
use super::incident::{Ended, Incident, Ledger, Ruling, Subject};
use super::operator::{Order, Orders};
use super::outcome::{Failure, Outcome};
use super::route::RouteTable;
use super::schedule::ProbeRow;
use super::snapshot::Snapshot;
use super::topology::{PoolSpec, Topology};
use pace::Pace;
use pools::PoolState;
use roster::Roster;

/// Something that happened.
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
    Rearrange(Topology),
    /// Another process leaves what it knows. Comes right after the first configuration, and before
    /// the first probe: who has proof of its own inherits nothing.
    Inherit(Legacy),
    /// These orders were in force before. Comes before the first configuration.
    Orders(Vec<Order>),
    /// A probe ended.
    Probed {
        /// Whose.
        endpoint: EndpointId,
        /// As handed out with the probe.
        ticket: Ticket,
        /// How it ended.
        outcome: Outcome,
    },
    /// A request met a failure.
    Traffic {
        /// Whose.
        endpoint: EndpointId,
        /// Which.
        failure: Failure,
        /// When that try began.
        began: Instant,
    },
    /// The endpoint closed an idle connection. By itself no evidence, but a good time to look.
    IdleClosed {
        /// Whose.
        endpoint: EndpointId,
    },
    /// The last snapshot is now what workers read.
    Published,
}

/// Names one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Which of the pool's probes it is.
    pub probe: u8,
    /// Which row it belongs to.
    pub row: ProbeRow,
    /// When it started.
    pub started: Instant,
}

/// Something to be done.
#[derive(Debug)]
pub enum Output {
    /// Start a probe.
    Probe {
        /// Whose.
        endpoint: EndpointId,
        /// To be handed back with its outcome; says which of the pool's probes it is.
        ticket: Ticket,
        /// The endpoint's address.
        address: SocketAddr,
        /// Says how.
        pool: Arc<PoolSpec>,
        /// Its bound.
        timeout: Duration,
    },
    /// Store this; then hand in [`Input::Published`].
    Publish(Arc<Snapshot>),
    /// The verdict is down, on the endpoint or on its zone: close the endpoint's idle connections,
    /// and have requests that wait for it sent again if the failure is one of the connection. Comes
    /// after the snapshot that no longer holds the endpoint, and not at all in panic, when there is
    /// nowhere better to go.
    Cut {
        /// Whose.
        endpoint: EndpointId,
        /// What the verdict was made for.
        failure: Failure,
    },
    /// The endpoint gets no new requests, because an operator has said so: close its idle connections.
    /// Comes after the snapshot that no longer holds it.
    Drained {
        /// Whose.
        endpoint: EndpointId,
        /// The time of what lasts there is up: end tunnels and answers that are on their way, and have
        /// requests that wait sent again if they can be.
        is_over: bool,
    },
    /// Tell the operator.
    Event(Event),
}

/// Where evidence comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An active probe.
    Probe,
    /// A live request.
    Traffic,
    /// Failures of neighbours.
    Correlation,
}

impl Source {
    /// The word used in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Traffic => "traffic",
            Self::Correlation => "correlation",
        }
    }

    /// Reads that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Probe, Self::Traffic, Self::Correlation].into_iter().find(|one| one.as_str() == word)
    }
}

/// Probes and traffic disagree.
#[derive(Clone, Debug)]
pub enum Divergence {
    /// Probes fail in much of a pool while its traffic succeeds: their verdicts are withheld.
    ProbesFail {
        /// The pool's name.
        pool: Arc<str>,
        /// Whether it began or ended.
        on: bool,
    },
    /// Probes pass while traffic fails: traffic's verdict stands.
    TrafficFails {
        /// Whose.
        subject: Arc<Subject>,
        /// What requests got.
        failure: Failure,
    },
}

/// What an operator wants to be told.
#[derive(Clone, Debug)]
pub enum Event {
    /// The state of an endpoint changed.
    Health {
        /// Whose.
        subject: Arc<Subject>,
        /// How.
        change: Change,
        /// To what.
        health: Health,
    },
    /// The state of an endpoint, as another process has left it.
    Inherited {
        /// Whose.
        subject: Arc<Subject>,
        /// What.
        health: Health,
    },
    /// The verdict on a zone changed.
    Zone {
        /// The pool's name.
        pool: Arc<str>,
        /// The zone.
        place: Place,
        /// Down for this, by so many witnesses; or up again.
        verdict: Option<(Failure, u32)>,
    },
    /// A verdict was due and is not obeyed.
    Withheld {
        /// Whose.
        subject: Arc<Subject>,
        /// What it would have been made for.
        failure: Failure,
        /// Why not.
        why: Withheld,
    },
    /// Probes and traffic disagree.
    Divergence(Divergence),
    /// Probes end without evidence for want of this process's own resources (or do so no longer).
    Blind {
        /// Whether it began or ended.
        on: bool,
    },
    /// A verdict began an incident.
    IncidentBegan(Box<Incident>),
    /// An endpoint is back, or gone from the configuration.
    IncidentEnded(Box<Incident>),
    /// What came back has its whole share again.
    RampEnded {
        /// The pool's name.
        pool: Arc<str>,
        /// The zone.
        place: Place,
        /// The endpoint; `None` for all of the zone.
        address: Option<SocketAddr>,
    },
    /// The regions of a pool that is led by latency, the soonest first, when that has changed.
    Regions {
        /// The pool's name.
        pool: Arc<str>,
        /// The regions' names.
        order: Vec<Arc<str>>,
    },
    /// Something has become of an order.
    Order {
        /// Which.
        order: Order,
        /// What.
        fate: Fate,
    },
    /// Nothing in the pool is healthy any more (or something is again).
    Panic {
        /// The pool's name.
        pool: Arc<str>,
        /// Whether it began or ended.
        on: bool,
    },
}

/// Room for outputs that is kept after a turn that had very many.
const OUTPUTS_KEPT: usize = 1_024;

/// The machine.
#[derive(Debug)]
pub struct Director {
    epoch: Instant,
    now: Instant,
    rng: Rng,
    topology: Topology,
    routes: Arc<RouteTable>,
    roster: Roster,
    pools: Vec<PoolState>,
    pace: Pace,
    nominal_per_second: f64,
    /// Endpoints whose live counters are looked at again.
    watched: BTreeSet<(Instant, EndpointId)>,
    ramp_dues: BTreeSet<(Instant, usize)>,
    flow_dues: BTreeSet<(Instant, usize)>,
    ledger: Ledger,
    stale: BTreeSet<usize>,
    must_publish: bool,
    version: u64,
    cuts: Vec<(EndpointId, Failure)>,
    falls: Vec<zones::Fall>,
    sight: pace::Sight,
    outputs: VecDeque<Output>,
    orders: Orders,
    /// Endpoints whose share is going, or that something lasts at.
    bidden: Vec<EndpointId>,
    order_due: Option<Instant>,
}

impl Director {
    /// A director without any pool. `epoch` is the zero of the times in
    /// [`super::snapshot::Live`]; equal seeds and inputs give equal outputs.
    #[must_use]
    pub fn new(epoch: Instant, seed: u64) -> Self {
        Self {
            epoch,
            now: epoch,
            rng: Rng::with_seed(seed),
            topology: Topology::default(),
            routes: Arc::default(),
            roster: Roster::default(),
            pools: Vec::new(),
            pace: Pace::new(epoch),
            nominal_per_second: 0.0,
            watched: BTreeSet::new(),
            ramp_dues: BTreeSet::new(),
            flow_dues: BTreeSet::new(),
            ledger: Ledger::default(),
            stale: BTreeSet::new(),
            must_publish: false,
            version: 0,
            cuts: Vec::new(),
            falls: Vec::new(),
            sight: pace::Sight::default(),
            outputs: VecDeque::new(),
            orders: Orders::default(),
            bidden: Vec::new(),
            order_due: None,
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = now;
        match input {
            Input::Configure { topology, routes } => self.configure(topology, routes, now),
            Input::Rearrange(topology) => self.rearrange(topology, now),
            Input::Inherit(legacy) => self.inherit(legacy, now),
            Input::Orders(orders) => self.orders = Orders::of(orders),
            Input::Probed { endpoint, ticket, outcome } => {
                self.probed(endpoint, ticket, outcome, now);
            }
            Input::Traffic { endpoint, failure, began } => {
                self.traffic(endpoint, failure, began, now);
            }
            Input::IdleClosed { endpoint } => self.burst(endpoint, now),
            Input::Published => self.ledger.shifted(now),
        }
    }

    /// Does what is due: starts probes, looks at live counters, moves ramps on.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.watch_due(now);
        if self.order_due.is_some_and(|due| due <= now) {
            self.orders_on(now);
        }
        self.ramp_on(now);
        self.look_at_flows(now);
        self.start_probes(now);
    }

    /// When [`Director::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let watch = self.watched.first().map(|&(due, _)| due);
        let ramp = self.ramp_dues.first().map(|&(due, _)| due);
        let flow = self.flow_dues.first().map(|&(due, _)| due);
        [self.pace.due(), watch, ramp, flow, self.order_due].into_iter().flatten().min()
    }

    /// The next thing to be done; `None` ends the turn.
    pub fn poll_output(&mut self) -> Option<Output> {
        if !self.stale.is_empty() || self.must_publish {
            self.must_publish = false;
            // Traffic moves before anybody is told.
            return Some(Output::Publish(self.rebuild()));
        }
        self.tell_falls();
        if self.outputs.is_empty() && self.outputs.capacity() > OUTPUTS_KEPT {
            self.outputs.shrink_to(OUTPUTS_KEPT);
        }
        self.outputs.pop_front().or_else(|| self.next_cut())
    }

    /// Keeps the ledger: `times` are the last good evidence, the begin of this one, and now.
    fn record(
        &mut self,
        subject: &Arc<Subject>,
        health: Health,
        change: Change,
        (last_good, began, now): (Instant, Instant, Instant),
    ) {
        let id = subject.endpoint;
        let is_drained = self.roster.get(id).is_some_and(endpoint::Endpoint::is_drained);
        match (change, health) {
            // Nobody can have met it: who is drained is about to be stopped, or repaired.
            (Change::Suspected, _) if is_drained => {}
            (Change::WentDown, Health::Down { failure }) if is_drained => {
                self.cuts.push((id, failure));
            }
            (Change::Suspected, Health::Suspect { failure, .. }) => {
                self.ledger.suspect(subject, failure, last_good, began, now);
            }
            (Change::Cleared, _) => self.ledger.clear(id),
            (Change::WentDown, Health::Down { failure }) => {
                // With `down_after = 1` the first strike is the verdict.
                if self.roster.get(id).is_some_and(endpoint::Endpoint::was_up) {
                    if !self.ledger.is_watching(id) {
                        self.ledger.suspect(subject, failure, last_good, began, now);
                    }
                    let ruling = self.ruling(id, failure);
                    self.ledger.verdict(id, ruling, now);
                    if self.stale.is_empty() {
                        // Its traffic has moved before, with its zone's.
                        self.ledger.shifted(self.now);
                    }
                }
                self.cuts.push((id, failure));
                self.tally(id);
                if let Some(incident) = self.ledger.open(id).cloned() {
                    self.event(Event::IncidentBegan(Box::new(incident)));
                }
            }
            (Change::Restored, _) => {
                self.tally(id);
                if let Some(incident) = self.ledger.close(id, Ended::Restored, now) {
                    self.event(Event::IncidentEnded(Box::new(incident)));
                }
            }
            _ => {}
        }
    }

    /// What is known of a verdict besides its time.
    fn ruling(&self, id: EndpointId, failure: Failure) -> Ruling {
        let endpoint = self.roster.get(id);
        let cause = endpoint.and_then(endpoint::Endpoint::cause);
        Ruling {
            failure,
            by_traffic: cause.is_some_and(|cause| cause.source == Source::Traffic),
            round_trip: endpoint.and_then(|endpoint| endpoint.round_trip(self.epoch)),
        }
    }

    /// Brings the counts of an endpoint's open incident up to date.
    fn tally(&mut self, id: EndpointId) {
        if let Some(endpoint) = self.roster.get(id) {
            self.ledger.count(id, endpoint.touched(self.epoch));
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
