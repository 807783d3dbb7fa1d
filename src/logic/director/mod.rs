//! The machine that owns health, steering and the ledger, and does nothing itself.
//!
//! Its driver hands in what happened ([`Director::handle`], [`Director::handle_timeout`]), then
//! drains what is to be done ([`Director::poll_output`]) and sleeps until
//! [`Director::poll_timeout`]. All inputs handed in before the outputs are drained are one turn:
//! however many verdicts fall in it, one snapshot is published.

mod endpoint;
mod publish;
mod status;
#[cfg(test)]
mod suspects;
#[cfg(test)]
mod tests;

pub use status::{EndpointStatus, PoolStatus};

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::evidence::Evidence;
use super::health::{Change, Health, Thresholds};
use super::id::EndpointId;
use super::incident::{Incident, Ledger, Subject};
use super::outcome::{Failure, Outcome};
use super::route::RouteTable;
use super::schedule::{self, ProbeRow};
use super::snapshot::{PoolView, Snapshot};
use super::topology::{PoolSpec, Topology};
use endpoint::Endpoint;

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
        /// To be handed back with its outcome.
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
    /// The verdict is down: close the endpoint's idle connections, and have requests that wait for
    /// it sent again if the failure is one of the connection. Comes after the snapshot that no
    /// longer holds the endpoint, and not at all in panic, when there is nowhere better to go.
    Cut {
        /// Whose.
        endpoint: EndpointId,
        /// What the verdict was made for.
        failure: Failure,
    },
    /// Tell the operator.
    Event(Event),
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
    /// A verdict began an incident.
    IncidentBegan(Incident),
    /// An endpoint is back.
    IncidentEnded(Incident),
    /// Nothing in the pool is healthy any more (or something is again).
    Panic {
        /// The pool's name.
        pool: Arc<str>,
        /// Whether it began or ended.
        on: bool,
    },
}

/// The machine.
#[derive(Debug)]
pub struct Director {
    epoch: Instant,
    rng: Rng,
    topology: Topology,
    routes: Arc<RouteTable>,
    endpoints: HashMap<EndpointId, Endpoint>,
    by_address: HashMap<(Arc<str>, SocketAddr), EndpointId>,
    next_endpoint: u32,
    timers: BTreeSet<(Instant, EndpointId)>,
    ledger: Ledger,
    views: Vec<Arc<PoolView>>,
    stale_pools: BTreeSet<usize>,
    version: u64,
    cuts: Vec<(EndpointId, Failure)>,
    outputs: VecDeque<Output>,
}

impl Director {
    /// A director without any pool. `epoch` is the zero of the times in
    /// [`super::snapshot::Live`]; equal seeds and inputs give equal outputs.
    #[must_use]
    pub fn new(epoch: Instant, seed: u64) -> Self {
        Self {
            epoch,
            rng: Rng::with_seed(seed),
            topology: Topology::default(),
            routes: Arc::default(),
            endpoints: HashMap::new(),
            by_address: HashMap::new(),
            next_endpoint: 0,
            timers: BTreeSet::new(),
            ledger: Ledger::default(),
            views: Vec::new(),
            stale_pools: BTreeSet::new(),
            version: 0,
            cuts: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Configure { topology, routes } => self.configure(topology, routes, now),
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

    /// Starts every probe that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.timers.first() {
            if due > now {
                break;
            }
            self.timers.pop_first();
            let Some(endpoint) = self.endpoints.get_mut(&id) else { continue };
            endpoint.armed = None;
            let random = self.rng.f64();
            let detect = &endpoint.pool.detect;
            if let Some((row, timeout)) = endpoint.timer.start(now, endpoint.health, detect, random)
            {
                self.outputs.push_back(Output::Probe {
                    endpoint: id,
                    ticket: Ticket { row, started: now },
                    address: endpoint.subject.address,
                    pool: Arc::clone(&endpoint.pool),
                    timeout,
                });
            }
            self.arm(id);
        }
    }

    /// When [`Director::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(due, _)| due)
    }

    /// The next thing to be done; `None` ends the turn.
    pub fn poll_output(&mut self) -> Option<Output> {
        if !self.stale_pools.is_empty() {
            let snapshot = self.rebuild();
            // Traffic moves before anybody is told.
            self.outputs.push_front(Output::Publish(snapshot));
        }
        self.outputs.pop_front().or_else(|| self.next_cut())
    }

    fn next_cut(&mut self) -> Option<Output> {
        while let Some((endpoint, failure)) = self.cuts.pop() {
            let pool =
                self.endpoints.get(&endpoint).and_then(|known| self.views.get(known.seat.pool));
            if pool.is_some_and(|pool| !pool.panic) {
                return Some(Output::Cut { endpoint, failure });
            }
        }
        None
    }

    /// Obeys a new topology; whatever keeps its pool and address keeps its health.
    fn configure(&mut self, topology: Topology, routes: Arc<RouteTable>, now: Instant) {
        let mut kept = HashMap::new();
        for (pool_index, pool) in topology.pools.iter().enumerate() {
            for (zone_index, zone) in pool.zones.iter().enumerate() {
                for spec in &zone.endpoints {
                    let key = (Arc::clone(&pool.name), spec.address);
                    let known = self.by_address.remove(&key);
                    let id = known.unwrap_or_else(|| {
                        self.next_endpoint += 1;
                        EndpointId(self.next_endpoint)
                    });
                    let subject = Subject {
                        endpoint: id,
                        pool: Arc::clone(&pool.name),
                        place: zone.place.clone(),
                        address: spec.address,
                    };
                    let seat =
                        endpoint::Seat { pool: pool_index, zone: zone_index, weight: spec.weight };
                    match self.endpoints.get_mut(&id) {
                        Some(endpoint) => endpoint.reseat(subject, seat, pool, now),
                        None => {
                            let endpoint = Endpoint::new(subject, seat, pool, now);
                            self.endpoints.insert(id, endpoint);
                        }
                    }
                    kept.insert(key, id);
                    self.arm(id);
                }
            }
        }
        let mut gone: Vec<EndpointId> = self.by_address.drain().map(|(_, id)| id).collect();
        gone.sort_unstable();
        for id in gone {
            self.retire(id, now);
        }
        self.by_address = kept;
        self.stale_pools.extend(0..topology.pools.len().max(1));
        self.topology = topology;
        self.routes = routes;
    }

    fn retire(&mut self, id: EndpointId, now: Instant) {
        self.tally(id);
        if let Some(incident) = self.ledger.restore(id, now) {
            self.event(Event::IncidentEnded(incident));
        }
        if let Some(armed) = self.endpoints.remove(&id).and_then(|endpoint| endpoint.armed) {
            self.timers.remove(&(armed, id));
        }
    }

    fn probed(&mut self, id: EndpointId, ticket: Ticket, outcome: Outcome, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        endpoint.remember(ticket, outcome);
        let evidence = endpoint.timer.finish(ticket.row, outcome, endpoint.health, now);
        if let Some(evidence) = evidence {
            // An answer to a question asked before the last strike says nothing about now.
            let outdated = evidence == Evidence::Pass
                && endpoint.last_strike.is_some_and(|strike| ticket.started < strike);
            if !outdated {
                self.weigh(id, evidence, ticket.started, now);
            }
        }
        self.arm(id);
    }

    fn traffic(&mut self, id: EndpointId, failure: Failure, began: Instant, now: Instant) {
        let Some(endpoint) = self.endpoints.get(&id) else { return };
        // A try that began before the endpoint came back tells of the failure that is over.
        if endpoint.up_since.is_some_and(|since| began < since) || !endpoint.health.serves(true) {
            return;
        }
        self.weigh(id, Evidence::from_traffic(failure), began, now);
        self.burst(id, now);
        self.arm(id);
    }

    /// Looks at once, unless it was looked at just now.
    fn burst(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        if endpoint.health.serves(true) {
            endpoint.timer.begin_burst(now, endpoint.pool.detect.fast_interval);
            self.arm(id);
        }
    }

    /// Puts one piece of evidence to the endpoint and draws the consequences.
    fn weigh(&mut self, id: EndpointId, evidence: Evidence, began: Instant, now: Instant) {
        let epoch = self.epoch;
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let detect = endpoint.pool.detect;
        let thresholds = Thresholds { down_after: detect.down_after, up_after: detect.up_after };
        let served = endpoint.serves();
        let change = endpoint.health.apply(evidence, thresholds);
        match evidence {
            Evidence::Pass => endpoint.proven(began),
            Evidence::Soft(_) | Evidence::Firm(_) => endpoint.last_strike = Some(now),
        }
        match change {
            Change::None => {}
            Change::Started => {
                endpoint.up_since = Some(now);
                let phase =
                    schedule::phase(&endpoint.subject.pool, &endpoint.subject.address.to_string());
                endpoint.timer.spread(now, phase, &detect);
            }
            _ => {
                if change == Change::Restored {
                    endpoint.up_since = Some(now);
                }
                endpoint.timer.repace(now, endpoint.health, &detect);
            }
        }
        endpoint.changed(change, now);
        let (subject, health) = (Arc::clone(&endpoint.subject), endpoint.health);
        let last_good = endpoint.last_good(epoch).unwrap_or(began);
        // A verdict on an endpoint that nothing was known of may be the one that begins a panic, and
        // a suspect has no traffic while there is another choice.
        let moves = matches!(change, Change::WentDown | Change::Suspected | Change::Cleared);
        if endpoint.serves() != served || moves {
            self.stale_pools.insert(endpoint.seat.pool);
        }
        self.record(&subject, evidence, change, (last_good, began, now));
        // Only now: an incident that this pass ends has been given its counts.
        if evidence == Evidence::Pass
            && let Some(endpoint) = self.endpoints.get_mut(&id)
        {
            endpoint.close_books();
        }
        if change != Change::None {
            self.event(Event::Health { subject, change, health });
        }
    }

    /// Keeps the ledger: `times` are the last good evidence, the begin of this one, and now.
    fn record(
        &mut self,
        subject: &Arc<Subject>,
        evidence: Evidence,
        change: Change,
        (last_good, began, now): (Instant, Instant, Instant),
    ) {
        let id = subject.endpoint;
        match (change, evidence) {
            (Change::Suspected, Evidence::Soft(failure) | Evidence::Firm(failure)) => {
                self.ledger.suspect(subject, failure, last_good, began, now);
            }
            (Change::Cleared, _) => self.ledger.clear(id),
            (Change::WentDown, Evidence::Soft(failure) | Evidence::Firm(failure)) => {
                // With `down_after = 1` the first strike is the verdict.
                if self.endpoints.get(&id).is_some_and(Endpoint::was_up) {
                    if !self.ledger.is_watching(id) {
                        self.ledger.suspect(subject, failure, last_good, began, now);
                    }
                    self.ledger.verdict(id, failure, now);
                }
                self.cuts.push((id, failure));
                self.tally(id);
                if let Some(incident) = self.ledger.open(id).cloned() {
                    self.event(Event::IncidentBegan(incident));
                }
            }
            (Change::Restored, _) => {
                self.tally(id);
                if let Some(incident) = self.ledger.restore(id, now) {
                    self.event(Event::IncidentEnded(incident));
                }
            }
            _ => {}
        }
    }

    /// Brings the counts of an endpoint's open incident up to date.
    fn tally(&mut self, id: EndpointId) {
        if let Some(endpoint) = self.endpoints.get(&id) {
            let (counts, last_failure) = endpoint.touched(self.epoch);
            self.ledger.count(id, counts, last_failure);
        }
    }

    fn arm(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let due = endpoint.timer.due();
        if due != endpoint.armed {
            if let Some(armed) = endpoint.armed {
                self.timers.remove(&(armed, id));
            }
            if let Some(due) = due {
                self.timers.insert((due, id));
            }
            endpoint.armed = due;
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
