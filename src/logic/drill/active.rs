//! A drill that takes requests: forks the production director, watches the fork, and builds what
//! workers see.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::logic::director::{Director, Event, Input, OrderChange};
use crate::logic::health::endpoint_health::HealthTransition;
use crate::logic::model::endpoint_stats::EndpointStats;
use crate::logic::model::id::Locality;
use crate::logic::model::snapshot::Snapshot;
use crate::logic::model::topology::Topology;
use crate::logic::orders::OperatorOrder;

use super::fault::DrillFault;
use super::id::DrillId;
use super::plan::{CoveredPool, DrillPlan};
use super::progress::{DrillMilestone, DrillProgress};
use super::view::{DrillCounters, DrillCounts, DrillView};

/// A drill from the time that it takes requests to its end.
#[derive(Debug)]
pub struct ActiveDrill {
    pub id: DrillId,
    /// The fault is injected.
    pub is_failing: bool,
    counters: Arc<DrillCounters>,
    plan: Arc<DrillPlan>,
    /// Indices of the drill's pools in the configuration.
    pools: Vec<usize>,
    /// The last snapshot of the drill's director.
    snapshot: Option<Arc<Snapshot>>,
    /// Statistics of the target endpoints.
    endpoint_stats: Vec<Arc<EndpointStats>>,
    /// Target endpoints without a verdict, by pool.
    undetected: HashSet<(Arc<str>, SocketAddr)>,
    progress: DrillProgress,
}

/// The production state that a drill starts from.
pub struct DrillOrigin<'a> {
    pub director: &'a Director,
    pub topology: &'a Topology,
    /// The zero of times in microseconds.
    pub epoch: Instant,
    pub seed: u64,
}

impl ActiveDrill {
    /// Starts a drill. The returned director has the orders and the health of production's, in the
    /// pools of the drill only.
    pub fn start(
        id: DrillId,
        plan: Arc<DrillPlan>,
        origin: &DrillOrigin<'_>,
        now: Instant,
    ) -> (Self, Director) {
        let DrillOrigin { director: production, topology: running, epoch, seed } = *origin;
        let covered = plan.covered_pools(running);
        let topology = Topology {
            local: running.local.clone(),
            pools: covered.iter().map(|pool| Arc::clone(&pool.spec)).collect(),
            probes_per_second: running.probes_per_second,
        };
        let is_covered = |name: &Arc<str>| covered.iter().any(|pool| pool.spec.name == *name);
        let applies = |order: &&OperatorOrder| order.pool.as_ref().is_none_or(is_covered);
        let orders = production.orders().iter().filter(applies).cloned().collect();
        let mut director = Director::new(epoch, seed ^ id.get());
        director.handle(Input::LoadOrders(orders), now);
        director.handle(Input::Configure { topology, routes: Arc::default() }, now);
        director.handle(Input::ImportHealth(production.export_health()), now);
        let targets = production.endpoints().into_iter().filter(|status| {
            let subject = &status.subject;
            status.is_in_service
                && is_covered(&subject.pool)
                && plan.is_target(&subject.locality, subject.address)
        });
        let undetected = targets
            .map(|status| (Arc::clone(&status.subject.pool), status.subject.address))
            .collect();
        let drill = Self {
            id,
            is_failing: false,
            counters: Arc::default(),
            pools: covered.iter().map(|CoveredPool { index, .. }| *index).collect(),
            plan,
            snapshot: None,
            endpoint_stats: Vec::new(),
            undetected,
            progress: DrillProgress::default(),
        };
        (drill, director)
    }

    /// What workers see of the drill beside the `production` snapshot; `None` before the drill's
    /// director has published.
    pub fn view(&self, production: &Snapshot) -> Option<Arc<DrillView>> {
        let drill_snapshot = self.snapshot.as_ref()?;
        let mut snapshot = production.clone();
        let mut covered = vec![false; snapshot.pools.len()];
        for (&index, pool) in self.pools.iter().zip(&drill_snapshot.pools) {
            *snapshot.pools.get_mut(index)? = Arc::clone(pool);
            covered[index] = true;
        }
        Some(Arc::new(DrillView {
            id: self.id,
            plan: Arc::clone(&self.plan),
            is_failing: self.is_failing,
            pools: covered,
            counters: Arc::clone(&self.counters),
            snapshot: Arc::new(snapshot),
        }))
    }

    /// The fault of the drill.
    pub fn fault(&self) -> DrillFault {
        self.plan.fault
    }

    /// The fault that is injected for this endpoint now, if any.
    pub fn fault_for(&self, place: &Locality, address: SocketAddr) -> Option<DrillFault> {
        let is_hit = self.is_failing && self.plan.is_target(place, address);
        is_hit.then_some(self.plan.fault)
    }

    /// Counts of the drill's requests so far.
    pub fn request_counts(&self) -> DrillCounts {
        let failovers = self.endpoint_stats.iter().map(|stats| stats.failover_counts());
        let (rescued, late) =
            failovers.fold((0, 0), |(rescued, late), one| (rescued + one.rescued, late + one.late));
        DrillCounts { rescued, late, ..self.counters.counts() }
    }

    /// Time of the last failure that a client saw, in microseconds since the epoch; zero for none.
    pub fn last_failure_us(&self) -> u64 {
        self.counters.last_failure_us()
    }

    /// Takes a snapshot of the drill's director.
    pub fn on_publish(&mut self, snapshot: Arc<Snapshot>) {
        // Only snapshots lead to the statistics of endpoints.
        for pool in &snapshot.pools {
            let zones = &pool.spec.zones;
            for target in pool.targets() {
                let is_hit = zones
                    .get(target.zone)
                    .is_some_and(|zone| self.plan.is_target(&zone.locality, target.address));
                let is_known =
                    || self.endpoint_stats.iter().any(|known| Arc::ptr_eq(known, &target.stats));
                if is_hit && !is_known() {
                    self.endpoint_stats.push(Arc::clone(&target.stats));
                }
            }
        }
        self.snapshot = Some(snapshot);
        self.progress.has_published = true;
    }

    /// Takes an event of the drill's director. Returns whether it shows a real failure, which
    /// production's director may not have seen yet.
    pub fn on_event(&mut self, event: &Event) -> bool {
        match event {
            Event::HealthChanged { subject, change: HealthTransition::Suspected, .. }
                if self.plan.is_target(&subject.locality, subject.address) =>
            {
                self.progress.milestones.push(DrillMilestone::Suspect);
            }
            Event::HealthChanged { subject, change: HealthTransition::WentDown, .. }
                if self.plan.is_target(&subject.locality, subject.address) =>
            {
                self.undetected.remove(&(Arc::clone(&subject.pool), subject.address));
                self.record_verdict();
            }
            Event::ZoneVerdictChanged { pool, place, verdict: Some(_) }
                if *place == self.plan.zone =>
            {
                self.undetected.retain(|(of_pool, _)| of_pool != pool);
                self.record_verdict();
            }
            Event::IncidentBegan(incident)
                if self
                    .fault_for(&incident.subject.locality, incident.subject.address)
                    .is_some() => {}
            other => {
                let Some(reason) = interruption_reason(other) else { return false };
                self.progress.interruption.get_or_insert(reason);
                return true;
            }
        }
        false
    }

    fn record_verdict(&mut self) {
        if self.undetected.is_empty() {
            self.progress.milestones.push(DrillMilestone::Verdict);
        }
    }

    /// What the director has shown since the last call.
    pub fn take_progress(&mut self) -> DrillProgress {
        std::mem::take(&mut self.progress)
    }
}

/// Why a drill ends on this event of production, if it does.
pub fn interruption_reason(event: &Event) -> Option<String> {
    match event {
        Event::IncidentBegan(incident) => {
            let subject = &incident.subject;
            Some(format!(
                "a real incident: {} in {} is down ({})",
                subject.address, subject.locality, incident.failure
            ))
        }
        Event::ZoneVerdictChanged { pool, place, verdict: Some((failure, _)) } => {
            Some(format!("a real incident: zone {place} of pool {pool} is down ({failure})"))
        }
        Event::Panic { pool, is_active: true } => Some(format!("pool {pool} is in panic")),
        Event::OrderChanged { order, change: OrderChange::Given | OrderChange::Lifted } => {
            Some(format!("an operator's order: {order}"))
        }
        Event::ProbingImpaired { is_active: true } => {
            Some("probes end without evidence".to_owned())
        }
        _ => None,
    }
}
