//! What control does for a drill: it gives the drill's lane a director of its own, and ends it whatever
//! becomes of who asked for it.

mod drill_director;
mod load_sampling;
mod prediction;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::app::dataplane::shared::WorkerCommand;
use crate::app::ops::drill::DrillRefusal;
use crate::logic::director::{Event, Input, OrderChange};
use crate::logic::drill::{DrillAction, DrillOutcome, DrillPrediction, DrillStage};
use crate::logic::model::snapshot::Snapshot;

use super::ControlLoop;
use drill_director::{DrillDirector, DrillProbeResult};
use load_sampling::LoadSampling;

/// How late practice may begin that was due while this process was busy or asleep.
const MAX_PRACTICE_DELAY_S: u64 = 60;

type UnboundedChannel<T> = (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>);

/// What control keeps for drills.
pub(super) struct DrillControlState {
    /// The lane, while one is open.
    drill_director: Option<DrillDirector>,
    /// What is seen before one is opened.
    load_sampling: Option<LoadSampling>,
    /// The last snapshot of the real director.
    published_snapshot: Arc<Snapshot>,
    probe_results: UnboundedChannel<DrillProbeResult>,
    /// Each with its drill.
    predictions: UnboundedChannel<(u64, DrillPrediction)>,
    /// When practice is due, in the order of the configuration; seconds since 1970.
    practice_due_s: Vec<Option<u64>>,
}

impl Default for DrillControlState {
    fn default() -> Self {
        Self {
            drill_director: None,
            load_sampling: None,
            published_snapshot: Arc::default(),
            probe_results: mpsc::unbounded_channel(),
            predictions: mpsc::unbounded_channel(),
            practice_due_s: Vec::new(),
        }
    }
}

/// Something of a drill that control was woken for.
pub(super) enum DrillInput {
    /// A probe of the lane has ended.
    ProbeEnded(DrillProbeResult),
    /// A prediction is made.
    Predicted(u64, DrillPrediction),
}

impl DrillControlState {
    pub(super) async fn next_input(&mut self) -> DrillInput {
        tokio::select! {
            Some(probed) = self.probe_results.1.recv() => DrillInput::ProbeEnded(probed),
            Some((id, forecast)) = self.predictions.1.recv() => DrillInput::Predicted(id, forecast),
            else => std::future::pending().await,
        }
    }
}

fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl ControlLoop {
    /// Stores what requests steer by: with the drill's lane beside it, if one is open.
    pub(super) fn publish_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.drill.published_snapshot = Arc::clone(&snapshot);
        let drill_view =
            self.drill.drill_director.as_ref().and_then(|lane| lane.drill_view(&snapshot));
        let all = match drill_view {
            None => snapshot,
            Some(drill_view) => {
                Arc::new(Snapshot { drill: Some(drill_view), ..Snapshot::clone(&snapshot) })
            }
        };
        self.admin_state.shared.snapshot.store(all);
    }

    /// The real director says something: what is no drill ends one.
    pub(super) fn abort_drill_on_event(&self, event: &Event) {
        if let Some(why) = drill_abort_reason(event) {
            self.interrupt_drill(&why);
        }
    }

    /// Ends the drill that is under way, if any; what is to be done for that follows in the turn.
    pub(super) fn interrupt_drill(&self, why: &str) {
        if let Some(run) = self.admin_state.drills.borrow_mut().running_mut() {
            run.interrupt(why.to_owned(), Instant::now());
        }
    }

    /// Ends it, and does at once what that takes.
    pub(super) fn end_drill_now(&mut self, why: &str) {
        self.interrupt_drill(why);
        self.run_drill_turn();
    }

    /// When the drill wants to be looked at.
    pub(super) fn drill_deadline(&self, now: Instant) -> Option<Instant> {
        let drills = self.admin_state.drills.borrow();
        let run = drills.running().and_then(|run| run.poll_timeout(now));
        let director_due =
            self.drill.drill_director.as_ref().and_then(|lane| lane.director.poll_timeout());
        [run, director_due].into_iter().flatten().min()
    }

    pub(super) fn on_drill_input(&mut self, drilled: DrillInput) {
        match drilled {
            DrillInput::ProbeEnded(probed) => self.on_drill_probe_result(probed),
            DrillInput::Predicted(id, forecast) => {
                let mut drills = self.admin_state.drills.borrow_mut();
                if let Some(run) = drills.running_mut().filter(|run| run.id == id) {
                    run.on_prediction(forecast);
                }
            }
        }
    }

    /// Goes on with the drill that is under way, and begins practice that is due.
    pub(super) fn run_drill_turn(&mut self) {
        self.start_due_practice();
        while let Ok(probed) = self.drill.probe_results.1.try_recv() {
            self.on_drill_probe_result(probed);
        }
        self.apply_drill_outputs();
        let now = Instant::now();
        if self.admin_state.drills.borrow().running().is_none() {
            return;
        }
        self.sample_load(now);
        self.sample_drill_counts(now);
        loop {
            let todo = {
                let mut drills = self.admin_state.drills.borrow_mut();
                let Some(run) = drills.running_mut() else { return };
                run.handle_timeout(now);
                run.poll_action()
            };
            match todo {
                None => return,
                Some(DrillAction::CheckCapacity) => self.finish_load_sampling(now),
                Some(DrillAction::Start) => self.open_drill_director(now),
                Some(DrillAction::InjectFault) => {
                    if let Some(drill_director) = &mut self.drill.drill_director {
                        drill_director.is_failing = true;
                    }
                    self.publish_snapshot(Arc::clone(&self.drill.published_snapshot));
                }
                Some(DrillAction::Stop) => self.close_drill_director(),
                Some(DrillAction::Store) => {
                    self.drill.load_sampling = None;
                    self.admin_state.drills.borrow_mut().finish_running();
                    return;
                }
            }
        }
    }

    fn sample_drill_counts(&self, now: Instant) {
        let Some(drill_director) = &self.drill.drill_director else { return };
        let shared = &self.admin_state.shared;
        let last_us = drill_director.tallies.last_failure_us();
        let last = (last_us > 0).then(|| shared.epoch + Duration::from_micros(last_us));
        if let Some(run) = self.admin_state.drills.borrow_mut().running_mut() {
            run.update_counts(drill_director.request_counts(), last, now);
        }
    }

    fn close_drill_director(&mut self) {
        let Some(drill_director) = self.drill.drill_director.take() else { return };
        // First the snapshot, so that whoever leaves the lane finds the way.
        self.publish_snapshot(Arc::clone(&self.drill.published_snapshot));
        let drills = self.admin_state.drills.borrow();
        let is_interrupted = drills.running().is_some_and(|run| match &run.stage {
            DrillStage::Finished(end) => end.outcome == DrillOutcome::Interrupted,
            _ => false,
        });
        self.listeners
            .broadcast(|| WorkerCommand::EndDrill { drill: drill_director.id, is_interrupted });
    }

    /// Practice that is due begins, or is written down as missed.
    fn start_due_practice(&mut self) {
        let at_s = unix_now_s();
        for index in 0..self.drill.practice_due_s.len() {
            let Some(due_s) = self.drill.practice_due_s[index].filter(|due| *due <= at_s) else {
                continue;
            };
            let practice = &self.running_config.practice[index];
            let plan = practice.plan_at(due_s).cloned();
            let Some(plan) = plan else { continue };
            self.drill.practice_due_s[index] =
                practice.calendar.next_start_s(at_s, plan.length.as_secs());
            if at_s > due_s + MAX_PRACTICE_DELAY_S {
                continue;
            }
            let now = Instant::now();
            let mut director = self.admin_state.director.borrow_mut();
            let mut drills = self.admin_state.drills.borrow_mut();
            if let Err(refusal) = drills.start(plan.clone(), &mut director, now) {
                let (DrillRefusal::Invalid(why) | DrillRefusal::Conflict(why)) = refusal;
                drills.record_missed(plan, why, now);
            }
        }
    }

    /// A new configuration may have other practice.
    pub(super) fn schedule_practice(&mut self) {
        let at_s = unix_now_s();
        let next = self.running_config.practice.iter().map(|practice| {
            let lasting_s = practice.plans.first().map_or(0, |plan| plan.length.as_secs());
            practice.calendar.next_start_s(at_s, lasting_s)
        });
        self.drill.practice_due_s = next.collect();
    }

    /// A worker's report of the lane's requests.
    pub(super) fn on_drill_report(&mut self, drill: u64, input: Input) {
        let drill_director = self.drill.drill_director.as_mut().filter(|lane| lane.id == drill);
        if let Some(drill_director) = drill_director {
            drill_director.director.handle(input, Instant::now());
        }
    }
}

/// What an event says that no drill should go on beside.
fn drill_abort_reason(event: &Event) -> Option<String> {
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
