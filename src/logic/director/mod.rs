//! The machine that owns health, steering and the ledger, and performs no I/O itself.
//!
//! Its driver hands in inputs ([`Director::handle`], [`Director::handle_timeout`]), drains the
//! effects ([`Director::poll_output`]) and sleeps until [`Director::poll_timeout`];
//! [`DirectorDriver`] is that loop. All inputs handed in before the outputs are drained are one
//! turn: however many verdicts fall in it, one snapshot is published.
//!
//! The director composes machines whose fields are private: one per endpoint (`endpoint`), the
//! failure ratios and trials (`outlier`), the verdicts on zones (`zones`), the probe scheduler
//! (`probing`), the orders (`orders`) and the publisher (`publisher`).

mod configure;
mod driver;
mod eligibility;
mod endpoint;
mod event;
mod evidence;
mod explain;
mod health_export;
mod health_import;
mod incidents;
mod io;
mod load;
mod orders;
mod outlier;
mod pools;
mod probing;
mod publisher;
mod ramps;
mod request_aborts;
mod shares;
mod status;
#[cfg(test)]
mod tests;
mod transitions;
mod withholding;
mod zones;

pub use driver::DirectorDriver;
pub use eligibility::Eligibility;
pub use endpoint::evidence_history::EvidenceRecord;
pub use endpoint::state::WithheldReason;
pub use event::{Divergence, Event, EvidenceSource, OrderChange};
pub use explain::{
    Cadence, EjectionTrial, EndpointFacts, Explanation, HealthCounts, HoldDown, OutlierScore,
    ProbeFacts, ProbeStreak, Quorum, RegionFacts, ZoneFacts, ZoneMemberStatus, ZoneStatus,
};
pub use health_export::{
    EndpointHealthExport, HealthExport, OutlierExport, PoolHealthExport, ZoneHealthExport,
};
pub use io::{Input, Output, ProbeTicket};
pub use orders::command::{AppliedCommand, CommandError, OperatorAction, OperatorCommand};
pub use status::{EndpointStatus, EvictionBudget, PoolStatus};
pub use zones::correlation::ZoneVerdict;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;

use super::incident::IncidentLedger;
use super::model::id::EndpointId;
use super::model::outcome::Failure;
use super::model::snapshot::Snapshot;
use super::model::topology::Topology;
use super::orders::OperatorOrders;
use endpoint::EndpointMachine;
use endpoint::slab::EndpointSlab;
use orders::book::OrderBook;
use outlier::checks::OutlierChecks;
use pools::PoolState;
use probing::monitor::ProbingMonitor;
use probing::scheduler::ProbeScheduler;
use publisher::{PanicChange, Publisher};
use zones::failure_reports::ZoneFailureReports;

/// Capacity for outputs that is kept after a turn that had very many.
const MAX_RETAINED_OUTPUTS: usize = 1_024;

#[derive(Debug)]
pub struct Director {
    epoch: Instant,
    now: Instant,
    rng: Rng,
    topology: Topology,
    endpoints: EndpointSlab,
    pools: Vec<PoolState>,
    probe_scheduler: ProbeScheduler,
    probing_monitor: ProbingMonitor,
    outlier_checks: OutlierChecks,
    zone_failures: ZoneFailureReports,
    /// When the growing shares of a pool are computed again.
    ramp_timers: BTreeSet<(Instant, usize)>,
    /// When the load of a pool is sampled again.
    load_timers: BTreeSet<(Instant, usize)>,
    order_book: OrderBook,
    ledger: IncidentLedger,
    publisher: Publisher,
    /// Endpoints whose requests are aborted once the snapshot is published.
    aborts: Vec<(EndpointId, Failure)>,
    outputs: VecDeque<Output>,
}

impl Director {
    /// A director without any pool. `epoch` is the zero of the times in
    /// [`super::model::endpoint_stats::EndpointStats`]; equal seeds and inputs give equal outputs.
    pub fn new(epoch: Instant, seed: u64) -> Self {
        Self {
            epoch,
            now: epoch,
            rng: Rng::with_seed(seed),
            topology: Topology::default(),
            endpoints: EndpointSlab::default(),
            pools: Vec::new(),
            probe_scheduler: ProbeScheduler::new(epoch),
            probing_monitor: ProbingMonitor::default(),
            outlier_checks: OutlierChecks::default(),
            zone_failures: ZoneFailureReports::default(),
            ramp_timers: BTreeSet::new(),
            load_timers: BTreeSet::new(),
            order_book: OrderBook::default(),
            ledger: IncidentLedger::default(),
            publisher: Publisher::default(),
            aborts: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Handles one input of the driver.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = now;
        match input {
            Input::Configure { topology, routes } => self.configure(topology, routes, now),
            Input::UpdateEndpoints(topology) => self.update_endpoints(topology, now),
            Input::ImportHealth(export) => self.import_health(export, now),
            Input::LoadOrders(orders) => {
                self.order_book = OrderBook::new(OperatorOrders::from_orders(orders));
            }
            Input::ProbeFinished { endpoint, ticket, outcome } => {
                self.on_probe_result(endpoint, ticket, outcome, now);
            }
            Input::TrafficFailed { endpoint, failure, attempt_started } => {
                self.on_traffic_failure(endpoint, failure, attempt_started, now);
            }
            Input::IdleClosed { endpoint } => self.start_probe_burst(endpoint, now),
            Input::Published => self.ledger.record_shift(now),
        }
    }

    /// Runs everything that is due: evaluates live counters, advances drains and ramps, samples
    /// loads and starts probes.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.run_outlier_checks(now);
        if self.order_book.is_due(now) {
            self.advance_orders(now);
        }
        self.advance_ramps(now);
        self.sample_loads(now);
        self.start_probes(now);
    }

    /// When [`Director::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ramp = self.ramp_timers.first().map(|&(due, _)| due);
        let load = self.load_timers.first().map(|&(due, _)| due);
        let timers = [
            self.probe_scheduler.next_timeout(),
            self.outlier_checks.next_timeout(),
            ramp,
            load,
            self.order_book.next_timeout(),
        ];
        timers.into_iter().flatten().min()
    }

    /// The next effect; `None` ends the turn.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.publisher.is_due() {
            // Traffic moves before anything is reported.
            return Some(Output::Publish(self.publish()));
        }
        self.report_zone_failures();
        if self.outputs.is_empty() && self.outputs.capacity() > MAX_RETAINED_OUTPUTS {
            self.outputs.shrink_to(MAX_RETAINED_OUTPUTS);
        }
        self.outputs.pop_front().or_else(|| self.next_abort())
    }

    fn publish(&mut self) -> Arc<Snapshot> {
        let publication = self.publisher.publish(&mut self.pools, self.epoch, self.now);
        for &change in publication.panic_changes() {
            self.on_panic_change(change);
        }
        publication.into_snapshot()
    }

    /// Adapts the probes of endpoints that are down. When a panic ends, better endpoints are
    /// available again: requests leave the endpoints that went down meanwhile.
    fn on_panic_change(&mut self, change: PanicChange) {
        let (pool, is_active) = (&self.pools[change.pool()], change.is_active());
        let (name, members) = (Arc::clone(&pool.spec().name), Arc::clone(pool.members()));
        for &id in &*members {
            let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
            let Some(failure) = endpoint.down_failure() else { continue };
            endpoint.reschedule_probes(self.now, is_active);
            if !is_active {
                self.aborts.push((id, failure));
            }
            self.schedule_probe(id);
        }
        self.push_event(Event::Panic { pool: name, is_active });
    }

    fn push_event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
