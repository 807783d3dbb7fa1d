//! A drill's lane: a director that was given all that the real one knows, and hears only what the
//! lane's requests and probes meet.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::control::ControlLoop;
use crate::app::dataplane::shared::WorkerCommand;
use crate::logic::director::{Director, Event, Input, Output, ProbeTicket};
use crate::logic::drill::{
    DrillCounters, DrillCounts, DrillFault, DrillMilestone, DrillPlan, DrillView,
};
use crate::logic::health::endpoint_health::HealthTransition;
use crate::logic::model::endpoint_stats::EndpointStats;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason, ProbeOutcome};
use crate::logic::model::snapshot::{DrillOverlay, Snapshot};
use crate::logic::model::topology::{PoolSpec, Topology, ZoneSpec};
use crate::logic::orders::OperatorOrder;
use crate::logic::probing::probe::ProbeSpec;
use crate::logic::request::retry::InFlightPolicy;
use crate::net::prober::ProbeConnectionCache;
use crate::sim::world::{EndpointBehavior, ProbeFinding, ProbeResponse};

/// What a round trip of a probe is taken for that never leaves this process.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// Outputs of one turn, at most.
const MAX_TURN_OUTPUTS: usize = 4096;

/// A probe of the lane that has ended.
#[derive(Clone, Copy, Debug)]
pub(in crate::app::control) struct DrillProbeResult {
    drill: u64,
    endpoint: EndpointId,
    ticket: ProbeTicket,
    outcome: ProbeOutcome,
}

/// A lane that is open.
pub(in crate::app::control) struct DrillDirector {
    pub(super) id: u64,
    pub(super) director: Director,
    pub(super) tallies: Arc<DrillCounters>,
    /// The zone seems to fail now.
    pub(super) is_failing: bool,
    plan: Arc<DrillPlan>,
    /// Where in the configuration the lane's pools are.
    pools: Vec<usize>,
    /// What the lane's director published last.
    snapshot: Option<Arc<Snapshot>>,
    probe_states: HashMap<(EndpointId, u8), Rc<ProbeConnectionCache>>,
    /// Counters of what seems to fail.
    endpoint_stats: Vec<Arc<EndpointStats>>,
    /// What seems to fail and has no verdict yet.
    undetected: HashSet<(Arc<str>, SocketAddr)>,
}

impl DrillDirector {
    /// What workers see of it beside `all`.
    pub(super) fn drill_view(&self, all: &Snapshot) -> Option<DrillOverlay> {
        let drill_snapshot = self.snapshot.as_ref()?;
        let mut snapshot = Snapshot { drill: None, ..all.clone() };
        let mut is_in = vec![false; snapshot.pools.len()];
        for (&place, pool) in self.pools.iter().zip(&drill_snapshot.pools) {
            *snapshot.pools.get_mut(place)? = Arc::clone(pool);
            is_in[place] = true;
        }
        let view = Arc::new(DrillView {
            id: self.id,
            plan: Arc::clone(&self.plan),
            is_failing: self.is_failing,
            pools: is_in,
            counters: Arc::clone(&self.tallies),
        });
        Some(DrillOverlay { view, snapshot: Arc::new(snapshot) })
    }

    /// Its requests so far.
    pub(super) fn request_counts(&self) -> DrillCounts {
        let tallies = self.endpoint_stats.iter().map(|stats| stats.failover_counts());
        let (rescued, late) =
            tallies.fold((0, 0), |(r, l), tally| (r + tally.rescued, l + tally.late));
        DrillCounts { rescued, late, ..self.tallies.counts() }
    }

    /// Takes note of whose counters are to be read, which only a snapshot tells.
    fn collect_endpoint_stats(&mut self) {
        let Some(drill_snapshot) = &self.snapshot else { return };
        let hit = drill_snapshot.pools.iter().flat_map(|pool| {
            let zones = &pool.spec.zones;
            pool.targets().filter(|target| {
                let zone = zones.get(target.zone);
                zone.is_some_and(|zone| self.plan.is_target(&zone.locality, target.address))
            })
        });
        let mut new_stats: Vec<Arc<EndpointStats>> =
            hit.map(|target| Arc::clone(&target.stats)).collect();
        new_stats
            .retain(|stats| !self.endpoint_stats.iter().any(|known| Arc::ptr_eq(known, stats)));
        self.endpoint_stats.extend(new_stats);
    }

    /// What an event of the lane's director means for the drill; `Err` if it is of something real.
    fn on_event(&mut self, event: &Event) -> Result<Option<DrillMilestone>, String> {
        match event {
            Event::HealthChanged { subject, change: HealthTransition::Suspected, .. }
                if self.plan.is_target(&subject.locality, subject.address) =>
            {
                Ok(Some(DrillMilestone::Suspect))
            }
            Event::HealthChanged { subject, change: HealthTransition::WentDown, .. }
                if self.plan.is_target(&subject.locality, subject.address) =>
            {
                self.undetected.remove(&(Arc::clone(&subject.pool), subject.address));
                Ok(self.undetected.is_empty().then_some(DrillMilestone::Verdict))
            }
            Event::ZoneVerdictChanged { pool, place, verdict: Some(_) }
                if *place == self.plan.zone =>
            {
                self.undetected.retain(|(of, _)| of != pool);
                Ok(self.undetected.is_empty().then_some(DrillMilestone::Verdict))
            }
            Event::IncidentBegan(incident)
                if self.is_failing
                    && self
                        .plan
                        .is_target(&incident.subject.locality, incident.subject.address) =>
            {
                Ok(None)
            }
            other => super::drill_abort_reason(other).map_or(Ok(None), Err),
        }
    }
}

impl ControlLoop {
    pub(super) fn open_drill_director(&mut self, now: Instant) {
        let (id, plan) = {
            let drills = self.admin_state.drills.borrow();
            let Some(run) = drills.running() else { return };
            (run.id, Arc::clone(&run.plan))
        };
        let pools_in_plan = self.pools_in_plan(&plan);
        let epoch = self.admin_state.shared.epoch;
        let mut director = Director::new(epoch, self.admin_state.shared.micros(now) ^ id);
        let running = &self.running_config.topology;
        let topology = Topology {
            local: running.local.clone(),
            pools: pools_in_plan.iter().map(|(_, pool)| Arc::clone(pool)).collect(),
            probes_per_second: running.probes_per_second,
        };
        let real = self.admin_state.director.borrow();
        let is_pool_in_plan =
            |pool: &Arc<str>| pools_in_plan.iter().any(|(_, one)| one.name == *pool);
        let bears = |order: &&OperatorOrder| order.pool.as_ref().is_none_or(is_pool_in_plan);
        let orders = real.orders().iter().filter(bears).cloned().collect();
        director.handle(Input::LoadOrders(orders), now);
        director.handle(Input::Configure { topology, routes: Arc::default() }, now);
        director.handle(Input::ImportHealth(real.export_health()), now);
        let undetected = real.endpoints().into_iter().filter(|one| {
            let subject = &one.subject;
            one.is_in_service
                && is_pool_in_plan(&subject.pool)
                && plan.is_target(&subject.locality, subject.address)
        });
        let undetected =
            undetected.map(|one| (Arc::clone(&one.subject.pool), one.subject.address)).collect();
        drop(real);
        let pools = pools_in_plan.iter().map(|(place, _)| *place).collect();
        self.drill.drill_director = Some(DrillDirector {
            id,
            director,
            tallies: Arc::default(),
            is_failing: false,
            plan,
            pools,
            snapshot: None,
            probe_states: HashMap::new(),
            endpoint_stats: Vec::new(),
            undetected,
        });
        self.start_prediction(&pools_in_plan);
        self.apply_drill_outputs();
    }

    /// Does what the lane's director says.
    pub(super) fn apply_drill_outputs(&mut self) {
        let now = Instant::now();
        let Some(mut drill_director) = self.drill.drill_director.take() else { return };
        drill_director.director.handle_timeout(now);
        let (mut has_published, mut milestones, mut why) = (false, Vec::new(), None);
        for _ in 0..MAX_TURN_OUTPUTS {
            let Some(output) = drill_director.director.poll_output() else { break };
            match output {
                Output::StartProbe { endpoint, ticket, address, pool, timeout } => {
                    self.start_drill_probe(
                        &mut drill_director,
                        (endpoint, ticket),
                        (address, pool),
                        timeout,
                    );
                }
                Output::Publish(snapshot) => {
                    drill_director.snapshot = Some(snapshot);
                    drill_director.collect_endpoint_stats();
                    has_published = true;
                    self.drill.drill_director = Some(drill_director);
                    self.publish_snapshot(Arc::clone(&self.drill.published_snapshot));
                    let Some(back) = self.drill.drill_director.take() else { return };
                    drill_director = back;
                    drill_director.director.handle(Input::Published, Instant::now());
                }
                Output::AbortRequests { endpoint, failure } => {
                    let (drill, waiting) =
                        (drill_director.id, InFlightPolicy::for_failure(failure));
                    self.listeners.broadcast(|| WorkerCommand::AbortDrillEndpoint {
                        drill,
                        endpoint,
                        waiting,
                    });
                }
                // What is drained was so before; another order ends the drill.
                Output::Drained { .. } => {}
                Output::Event(event) => match drill_director.on_event(&event) {
                    Ok(mark) => milestones.extend(mark),
                    Err(real) => {
                        self.request_real_probe(&event);
                        why = why.or(Some(real));
                    }
                },
            }
        }
        self.drill.drill_director = Some(drill_director);
        let mut drills = self.admin_state.drills.borrow_mut();
        let Some(run) = drills.running_mut() else { return };
        let now = Instant::now();
        milestones.into_iter().for_each(|mark| run.record_milestone(mark, now));
        if has_published {
            run.record_milestone(DrillMilestone::Published, now);
        }
        if let Some(why) = why {
            run.interrupt(why, now);
        }
    }

    /// The lane found something real before anybody else did: the real director is to look at once.
    fn request_real_probe(&self, event: &Event) {
        let Event::IncidentBegan(incident) = event else { return };
        let mut director = self.admin_state.director.borrow_mut();
        let real = director.endpoints().into_iter().find(|one| {
            let subject = &one.subject;
            subject.pool == incident.subject.pool && subject.address == incident.subject.address
        });
        if let Some(real) = real {
            let endpoint = real.subject.endpoint;
            director.handle(Input::IdleClosed { endpoint }, Instant::now());
        }
    }

    /// A probe for the lane's director: what seems to fail is not asked, the rest is.
    fn start_drill_probe(
        &self,
        drill_director: &mut DrillDirector,
        (endpoint, ticket): (EndpointId, ProbeTicket),
        (address, pool): (SocketAddr, Arc<PoolSpec>),
        timeout: Duration,
    ) {
        let stands_there = |zone: &ZoneSpec| zone.endpoints.iter().any(|e| e.address == address);
        let zone = pool.zones.iter().find(|zone| stands_there(zone));
        let is_hit =
            zone.is_some_and(|zone| drill_director.plan.is_target(&zone.locality, address));
        let fault = (is_hit && drill_director.is_failing).then_some(drill_director.plan.fault);
        let probe_state =
            Rc::clone(drill_director.probe_states.entry((endpoint, ticket.probe)).or_default());
        let (prober, done, drill) =
            (Rc::clone(&self.prober), self.drill.probe_results.0.clone(), drill_director.id);
        tokio::task::spawn_local(async move {
            let probe = &pool.probes[usize::from(ticket.probe)];
            let (wait, staged) = fault
                .map_or((Duration::ZERO, None), |f| simulated_probe_outcome(f, probe, timeout));
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let outcome = match staged {
                Some(failure) => ProbeOutcome::Fail(failure),
                None => prober.probe(address, probe, timeout, &probe_state).await,
            };
            let _ = done.send(DrillProbeResult { drill, endpoint, ticket, outcome });
        });
    }

    pub(super) fn on_drill_probe_result(&mut self, probed: DrillProbeResult) {
        let DrillProbeResult { drill, endpoint, ticket, outcome } = probed;
        self.on_drill_report(drill, Input::ProbeFinished { endpoint, ticket, outcome });
    }
}

/// What a probe of an endpoint that seems to fail meets, by the same table as in the simulated world:
/// how long it waits, and what it ends with, unless it then finds all well.
fn simulated_probe_outcome(
    fault: DrillFault,
    probe: &ProbeSpec,
    timeout: Duration,
) -> (Duration, Option<Failure>) {
    let late = |layer| (timeout, Some(Failure { layer, reason: FailureReason::Timeout }));
    match fault_behavior(fault).probe_response(probe, Duration::ZERO) {
        ProbeResponse::Silence(layer) => late(layer),
        ProbeResponse::Answer { service_time: service, .. } if service >= timeout => {
            late(FailureLayer::Http)
        }
        ProbeResponse::Answer {
            round_trips,
            service_time: service,
            finding: ProbeFinding::Fail(failure),
        } => (ROUND_TRIP * round_trips + service, Some(failure)),
        ProbeResponse::Answer { service_time: service, .. } => (service, None),
    }
}

fn fault_behavior(fault: DrillFault) -> EndpointBehavior {
    match fault {
        DrillFault::Refused => EndpointBehavior::Refused,
        DrillFault::Reset => EndpointBehavior::Reset,
        DrillFault::Hang => EndpointBehavior::Hang,
        DrillFault::Slow { delay } => EndpointBehavior::Slow { latency: delay },
        DrillFault::Status { status } => EndpointBehavior::BadStatus { status },
        DrillFault::ErrorRate { percent } => {
            EndpointBehavior::Errors { share: f64::from(percent) / 100.0, status: 500 }
        }
        DrillFault::Cut => EndpointBehavior::Cut,
    }
}
