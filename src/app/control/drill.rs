//! Runs drills: starts and ends them, publishes their view, and lets their probes meet the fault.
//!
//! What a drill does next is decided by [`DrillRun`]; requests and evidence of the drill carry its
//! identity, and its director is driven like production's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::app::dataplane::shared::{
    FaultInjectionEnd, FaultInjectionStart, Publication, WorkerCommand,
};
use crate::app::ops::drill::DrillRefusal;
use crate::app::ops::drill::prediction::{self, PredictionTask};
use crate::app::ops::event_log;
use crate::app::runtime::scheduling_delay;
use crate::logic::director::{Event, Input, ProbeTicket};
use crate::logic::drill::{
    ActiveDrill, DrillAction, DrillFault, DrillId, DrillOrigin, DrillPrediction, DrillRun,
    DrillStage, LoadSampling, interruption_reason,
};
use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};
use crate::logic::model::snapshot::Snapshot;
use crate::logic::model::topology::{PoolSpec, ZoneSpec};
use crate::logic::probing::probe::ProbeSpec;
use crate::sim::world::{EndpointBehavior, ProbeFinding, ProbeResponse};

use super::{ControlLoop, TaskResults};

/// Practice that is due for longer than this, because the process was busy or asleep, is skipped.
const MAX_PRACTICE_DELAY_S: u64 = 60;

/// Assumed round trip of a probe that never leaves this process.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// State of drills that control keeps.
#[derive(Default)]
pub(super) struct DrillControlState {
    /// The drill that takes requests.
    active: Option<ActiveDrill>,
    /// The load measurement of the drill that is about to start.
    load_sampling: Option<LoadSampling>,
    /// The last snapshot of production's director.
    production_snapshot: Arc<Snapshot>,
    predictions: TaskResults<(DrillId, DrillPrediction)>,
    /// The scheduling delay of this process at the onset.
    delay_at_onset: Option<Duration>,
    /// When each practice of the configuration is due, in seconds since 1970.
    practice_due_s: Vec<Option<u64>>,
}

impl DrillControlState {
    /// Waits for the next prediction.
    pub(super) async fn next_prediction(&mut self) -> Option<(DrillId, DrillPrediction)> {
        self.predictions.receiver.recv().await
    }
}

/// Result that a fault gives to a probe.
#[derive(Clone, Copy)]
pub(super) struct InjectedProbeResult {
    pub(super) delay: Duration,
    /// `None` if the probe then runs for real.
    pub(super) failure: Option<Failure>,
}

fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl ControlLoop {
    /// Takes the snapshot of one director, and publishes both directors' snapshots to workers.
    pub(super) fn publish_snapshot(&mut self, drill: Option<DrillId>, snapshot: Arc<Snapshot>) {
        match (drill, &mut self.drill.active) {
            (None, _) => {
                event_log::record_snapshot(snapshot.version);
                self.drill.production_snapshot = snapshot;
            }
            (Some(_), Some(active)) => active.on_publish(snapshot),
            (Some(_), None) => {}
        }
        self.publish();
    }

    fn publish(&self) {
        let production = Arc::clone(&self.drill.production_snapshot);
        let drill = self.drill.active.as_ref().and_then(|active| active.view(&production));
        self.admin_state.shared.published.store(Arc::new(Publication { production, drill }));
    }

    /// Interrupts the drill if production shows an event that it must not run beside.
    pub(super) fn interrupt_drill_on_event(&self, event: &Event) {
        if let Some(reason) = interruption_reason(event) {
            self.interrupt_drill(reason);
        }
    }

    /// Interrupts the running drill, if any. Its injection ends later in the turn.
    fn interrupt_drill(&self, reason: String) {
        if let Some(run) = self.admin_state.drills.borrow_mut().running_mut() {
            run.interrupt(reason, Instant::now());
        }
    }

    /// Interrupts the running drill and ends its injection at once.
    pub(super) fn end_fault_injection(&mut self, reason: &str) {
        self.interrupt_drill(reason.to_owned());
        self.run_drill_turn();
    }

    /// When the running drill is due.
    pub(super) fn drill_deadline(&self, now: Instant) -> Option<Instant> {
        let drills = self.admin_state.drills.borrow();
        drills.running().and_then(|run| run.poll_timeout(now))
    }

    pub(super) fn on_prediction(&self, id: DrillId, prediction: DrillPrediction) {
        let mut drills = self.admin_state.drills.borrow_mut();
        if let Some(run) = drills.running_mut().filter(|run| run.id == id) {
            run.on_prediction(prediction);
        }
    }

    /// Takes an event of the drill's director. After one that shows a real failure, production's
    /// director probes the endpoint at once.
    pub(super) fn on_drill_event(&mut self, event: &Event) {
        let is_real = self.drill.active.as_mut().is_some_and(|active| active.on_event(event));
        let Event::IncidentBegan(incident) = event else { return };
        if !is_real {
            return;
        }
        let mut director = self.admin_state.director_mut();
        let endpoint = director.endpoints().into_iter().find_map(|status| {
            let (subject, failing) = (&status.subject, &incident.subject);
            let is_same = subject.pool == failing.pool && subject.address == failing.address;
            is_same.then_some(subject.endpoint)
        });
        if let Some(endpoint) = endpoint {
            director.handle(Input::IdleClosed { endpoint }, Instant::now());
        }
    }

    /// Passes to the running drill what its director has shown in this turn.
    pub(super) fn record_drill_progress(&mut self) {
        let Some(active) = &mut self.drill.active else { return };
        let progress = active.take_progress();
        if let Some(run) = self.admin_state.drills.borrow_mut().running_mut() {
            let had_verdict = run.timeline.verdict.is_some();
            run.on_progress(progress, Instant::now());
            if !had_verdict
                && run.timeline.verdict.is_some()
                && let Some(before) = self.drill.delay_at_onset
                && let Some(delay) = scheduling_delay::process_delay()
            {
                run.record_lateness(delay.saturating_sub(before));
            }
        }
    }

    /// Starts practice that is due, and does what the running drill needs.
    pub(super) fn run_drill_turn(&mut self) {
        self.start_due_practice();
        let now = Instant::now();
        if self.admin_state.drills.borrow().running().is_none() {
            return;
        }
        self.sample_load(now);
        self.sample_request_counts(now);
        loop {
            let action = {
                let mut drills = self.admin_state.drills.borrow_mut();
                let Some(run) = drills.running_mut() else { return };
                run.handle_timeout(now);
                run.poll_action()
            };
            match action {
                None => return,
                Some(DrillAction::CheckCapacity) => self.finish_load_sampling(now),
                Some(DrillAction::Start) => self.start_drill(now),
                Some(DrillAction::InjectFault) => {
                    if let Some(active) = &mut self.drill.active {
                        active.is_failing = true;
                    }
                    self.drill.delay_at_onset = scheduling_delay::process_delay();
                    self.publish();
                    self.start_fault_injection();
                }
                Some(DrillAction::Stop) => self.stop_drill(),
                Some(DrillAction::Store) => {
                    self.drill.load_sampling = None;
                    self.admin_state.drills.borrow_mut().finish_running();
                    return;
                }
            }
        }
    }

    fn start_fault_injection(&self) {
        let Some(active) = &self.drill.active else { return };
        let start = FaultInjectionStart {
            drill: active.id,
            closes_idle_connections: active.fault() == DrillFault::Refused,
        };
        self.listeners.broadcast(|| WorkerCommand::StartFaultInjection(start));
    }

    fn start_drill(&mut self, now: Instant) {
        let (id, plan, load_rps) = {
            let drills = self.admin_state.drills.borrow();
            let Some(run) = drills.running() else { return };
            (run.id, Arc::clone(&run.plan), run.rate_rps)
        };
        let shared = &self.admin_state.shared;
        let topology = &self.running_config.topology;
        let (active, director) = {
            let production = self.admin_state.director();
            let origin = DrillOrigin {
                director: &production,
                topology,
                epoch: shared.epoch,
                seed: shared.micros(now),
            };
            ActiveDrill::start(id, Arc::clone(&plan), &origin, now)
        };
        self.drill.active = Some(active);
        self.admin_state.directors.borrow_mut().start_drill(id, director);
        let workers = self.running_config.workers;
        let task = PredictionTask { id, plan, load_rps, workers };
        prediction::start(task, topology, self.drill.predictions.sender.clone());
        self.drive_directors();
    }

    fn stop_drill(&mut self) {
        let Some(active) = self.drill.active.take() else { return };
        if let Some(run) = self.admin_state.drills.borrow_mut().running_mut() {
            run.record_final_counts(active.request_counts(), self.last_failure(&active));
        }
        self.admin_state.directors.borrow_mut().end_drill();
        self.probe_connections.retain(|key, _| key.drill.is_none());
        // Workers must have production's snapshot before they resend the drill's requests.
        self.publish();
        let drills = self.admin_state.drills.borrow();
        let is_interrupted = drills.running().is_some_and(DrillRun::is_interrupted);
        let end = FaultInjectionEnd { drill: active.id, is_interrupted };
        self.listeners.broadcast(|| WorkerCommand::EndFaultInjection(end));
    }

    fn last_failure(&self, active: &ActiveDrill) -> Option<Instant> {
        let last_us = active.last_failure_us();
        let epoch = self.admin_state.shared.epoch;
        (last_us > 0).then(|| epoch + Duration::from_micros(last_us))
    }

    fn sample_request_counts(&self, now: Instant) {
        let Some(active) = &self.drill.active else { return };
        let last_failure = self.last_failure(active);
        if let Some(run) = self.admin_state.drills.borrow_mut().running_mut() {
            run.update_counts(active.request_counts(), last_failure, now);
        }
    }

    /// Takes a sample of the load if the running drill is measuring it.
    fn sample_load(&mut self, now: Instant) {
        let drills = self.admin_state.drills.borrow();
        let Some(run) = drills.running() else { return };
        if !matches!(run.stage, DrillStage::Measuring { .. }) {
            return;
        }
        let pools = run.plan.covered_pools(&self.running_config.topology);
        let answered = self.answered_count(pools.iter().map(|pool| &*pool.spec.name));
        let sampling =
            self.drill.load_sampling.get_or_insert_with(|| LoadSampling::new(answered, now));
        if sampling.is_sampling() {
            sampling.add_sample(&run.plan, &pools, &self.admin_state.director().endpoints());
        }
    }

    fn answered_count<'a>(&self, pools: impl Iterator<Item = &'a str>) -> u64 {
        pools.map(|pool| self.admin_state.shared.metrics.answered(pool)).sum()
    }

    /// Ends the load measurement and passes its result to the running drill.
    fn finish_load_sampling(&mut self, now: Instant) {
        // A measurement that is too short is continued: the drill repeats the action.
        let Some(sampling) = self.drill.load_sampling.take_if(|one| one.is_complete(now)) else {
            return;
        };
        let mut drills = self.admin_state.drills.borrow_mut();
        let Some(run) = drills.running_mut() else { return };
        let pools = run.plan.covered_pools(&self.running_config.topology);
        let answered = self.answered_count(pools.iter().map(|pool| &*pool.spec.name));
        let director = self.admin_state.director();
        let capacities = sampling.capacities(&run.plan, &pools, &director, now);
        run.on_capacity_measured(&capacities, sampling.rate_rps(answered, now), now);
    }

    /// Starts practice that is due, or records it as missed if it cannot start now.
    fn start_due_practice(&mut self) {
        let at_s = unix_now_s();
        for index in 0..self.drill.practice_due_s.len() {
            let Some(due_s) = self.drill.practice_due_s[index].filter(|due| *due <= at_s) else {
                continue;
            };
            let practice = &self.running_config.practice[index];
            let Some(plan) = practice.plan_at(due_s).cloned() else { continue };
            self.drill.practice_due_s[index] =
                practice.calendar.next_start_s(at_s, plan.length.as_secs());
            if at_s > due_s + MAX_PRACTICE_DELAY_S {
                continue;
            }
            let now = Instant::now();
            let mut drills = self.admin_state.drills.borrow_mut();
            let started = drills.start(plan.clone(), &mut self.admin_state.director_mut(), now);
            if let Err(DrillRefusal::Invalid(reason) | DrillRefusal::Conflict(reason)) = started {
                drills.record_missed(plan, reason, now);
            }
        }
    }

    /// Computes when the practice of a new configuration is due.
    pub(super) fn schedule_practice(&mut self) {
        let at_s = unix_now_s();
        let next = self.running_config.practice.iter().map(|practice| {
            let length_s = practice.plans.first().map_or(0, |plan| plan.length.as_secs());
            practice.calendar.next_start_s(at_s, length_s)
        });
        self.drill.practice_due_s = next.collect();
    }

    /// The result that the injected fault gives to a probe with this tag, if the endpoint seems to
    /// fail.
    pub(super) fn injected_probe_result(
        &self,
        drill: Option<DrillId>,
        address: SocketAddr,
        pool: &PoolSpec,
        (ticket, timeout): (ProbeTicket, Duration),
    ) -> Option<InjectedProbeResult> {
        let active = self.drill.active.as_ref().filter(|active| Some(active.id) == drill)?;
        let has_endpoint = |zone: &&ZoneSpec| zone.endpoints.iter().any(|e| e.address == address);
        let zone = pool.zones.iter().find(has_endpoint)?;
        let fault = active.fault_for(&zone.locality, address)?;
        let probe = &pool.probes[usize::from(ticket.probe)];
        Some(simulated_probe_result(fault, probe, timeout))
    }
}

/// Result of a probe of an endpoint that seems to fail, from the table of the simulated world, so
/// that prediction and drill use the same model.
fn simulated_probe_result(
    fault: DrillFault,
    probe: &ProbeSpec,
    timeout: Duration,
) -> InjectedProbeResult {
    let late = |layer| InjectedProbeResult {
        delay: timeout,
        failure: Some(Failure { layer, reason: FailureReason::Timeout }),
    };
    match fault_behavior(fault).probe_response(probe, Duration::ZERO) {
        ProbeResponse::Silence(layer) => late(layer),
        ProbeResponse::Answer { service_time, .. } if service_time >= timeout => {
            late(FailureLayer::Http)
        }
        ProbeResponse::Answer {
            round_trips,
            service_time,
            finding: ProbeFinding::Fail(failure),
        } => InjectedProbeResult {
            delay: ROUND_TRIP * round_trips + service_time,
            failure: Some(failure),
        },
        ProbeResponse::Answer { service_time, .. } => {
            InjectedProbeResult { delay: service_time, failure: None }
        }
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
