//! What control does for a drill: it gives the drill's lane a director of its own, and ends it whatever
//! becomes of who asked for it.

mod foresight;
mod lane;
mod look;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::app::shared::Command;
use crate::logic::director::{Event, Fate, Input};
use crate::logic::drill::{Forecast, Outcome, Stage, Todo};
use crate::logic::snapshot::Snapshot;

use super::Control;
use lane::{LaneProbed, OpenLane};
use look::Look;

/// How late practice may begin that was due while this process was busy or asleep.
const PRACTICE_LATE_S: u64 = 60;

type Queue<T> = (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>);

/// What control keeps for drills.
pub(super) struct DrillControl {
    /// The lane, while one is open.
    lane: Option<OpenLane>,
    /// What is seen before one is opened.
    look: Option<Look>,
    /// The last snapshot of the real director.
    published: Arc<Snapshot>,
    probes: Queue<LaneProbed>,
    /// Each with its drill.
    forecasts: Queue<(u64, Forecast)>,
    /// When practice is due, in the order of the configuration; seconds since 1970.
    practice: Vec<Option<u64>>,
}

impl Default for DrillControl {
    fn default() -> Self {
        Self {
            lane: None,
            look: None,
            published: Arc::default(),
            probes: mpsc::unbounded_channel(),
            forecasts: mpsc::unbounded_channel(),
            practice: Vec::new(),
        }
    }
}

/// Something of a drill that control was woken for.
pub(super) enum Drilled {
    /// A probe of the lane has ended.
    Probed(LaneProbed),
    /// A prediction is made.
    Foretold(u64, Forecast),
}

impl DrillControl {
    /// Waits for either.
    pub(super) async fn next(&mut self) -> Drilled {
        tokio::select! {
            Some(probed) = self.probes.1.recv() => Drilled::Probed(probed),
            Some((id, forecast)) = self.forecasts.1.recv() => Drilled::Foretold(id, forecast),
            else => std::future::pending().await,
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Control {
    /// Stores what requests steer by: with the drill's lane beside it, if one is open.
    pub(super) fn publish(&mut self, snapshot: Arc<Snapshot>) {
        self.drill.published = Arc::clone(&snapshot);
        let lane = self.drill.lane.as_ref().and_then(|lane| lane.view(&snapshot));
        let all = match lane {
            None => snapshot,
            Some(lane) => Arc::new(Snapshot { drill: Some(lane), ..Snapshot::clone(&snapshot) }),
        };
        self.board.shared.snapshot.store(all);
    }

    /// The real director says something: what is no drill ends one.
    pub(super) fn drill_hears(&self, event: &Event) {
        if let Some(why) = real(event) {
            self.interrupt_drill(&why);
        }
    }

    /// Ends the drill that is under way, if any; what is to be done for that follows in the turn.
    pub(super) fn interrupt_drill(&self, why: &str) {
        if let Some(run) = self.board.drills.borrow_mut().running_mut() {
            run.interrupt(why.to_owned(), Instant::now());
        }
    }

    /// Ends it, and does at once what that takes.
    pub(super) fn end_drill(&mut self, why: &str) {
        self.interrupt_drill(why);
        self.drill_turn();
    }

    /// When the drill wants to be looked at.
    pub(super) fn drill_due(&self, now: Instant) -> Option<Instant> {
        let drills = self.board.drills.borrow();
        let run = drills.running().and_then(|run| run.poll_timeout(now));
        let lane = self.drill.lane.as_ref().and_then(|lane| lane.director.poll_timeout());
        [run, lane].into_iter().flatten().min()
    }

    /// What woke control.
    pub(super) fn drilled(&mut self, drilled: Drilled) {
        match drilled {
            Drilled::Probed(probed) => self.lane_probed(probed),
            Drilled::Foretold(id, forecast) => {
                let mut drills = self.board.drills.borrow_mut();
                if let Some(run) = drills.running_mut().filter(|run| run.id == id) {
                    run.foretold(forecast);
                }
            }
        }
    }

    /// Goes on with the drill that is under way, and begins practice that is due.
    pub(super) fn drill_turn(&mut self) {
        self.practise();
        while let Ok(probed) = self.drill.probes.1.try_recv() {
            self.lane_probed(probed);
        }
        self.lane_turn();
        let now = Instant::now();
        if self.board.drills.borrow().running().is_none() {
            return;
        }
        self.look_on(now);
        self.count(now);
        loop {
            let todo = {
                let mut drills = self.board.drills.borrow_mut();
                let Some(run) = drills.running_mut() else { return };
                run.handle_timeout(now);
                run.poll_todo()
            };
            match todo {
                None => return,
                Some(Todo::Look) => self.looked(now),
                Some(Todo::Open) => self.open_lane(now),
                Some(Todo::Fail) => {
                    if let Some(lane) = &mut self.drill.lane {
                        lane.is_failing = true;
                    }
                    self.publish(Arc::clone(&self.drill.published));
                }
                Some(Todo::Close) => self.close_lane(),
                Some(Todo::File) => {
                    self.drill.look = None;
                    self.board.drills.borrow_mut().file_running();
                    return;
                }
            }
        }
    }

    fn count(&self, now: Instant) {
        let Some(lane) = &self.drill.lane else { return };
        let shared = &self.board.shared;
        let last_us = lane.tallies.last_failure_us();
        let last = (last_us > 0).then(|| shared.epoch + Duration::from_micros(last_us));
        if let Some(run) = self.board.drills.borrow_mut().running_mut() {
            run.count(lane.counts(), last, now);
        }
    }

    fn close_lane(&mut self) {
        let Some(lane) = self.drill.lane.take() else { return };
        // First the snapshot, so that whoever leaves the lane finds the way.
        self.publish(Arc::clone(&self.drill.published));
        let drills = self.board.drills.borrow();
        let is_interrupted = drills.running().is_some_and(|run| match &run.stage {
            Stage::Over(end) => end.outcome == Outcome::Interrupted,
            _ => false,
        });
        self.doors.tell(|| Command::EndLane { drill: lane.id, is_interrupted });
    }

    /// Practice that is due begins, or is written down as missed.
    fn practise(&mut self) {
        let at_s = now_s();
        for index in 0..self.drill.practice.len() {
            let Some(due_s) = self.drill.practice[index].filter(|due| *due <= at_s) else {
                continue;
            };
            let practice = &self.running.practice[index];
            let plan = practice.plan_at(due_s).cloned();
            let Some(plan) = plan else { continue };
            self.drill.practice[index] = practice.timetable.next(at_s, plan.length.as_secs());
            if at_s > due_s + PRACTICE_LATE_S {
                continue;
            }
            let now = Instant::now();
            let mut director = self.board.director.borrow_mut();
            let mut drills = self.board.drills.borrow_mut();
            if let Err(refusal) = drills.start(plan.clone(), &mut director, now) {
                let (super::Refusal::Senseless(why) | super::Refusal::NotNow(why)) = refusal;
                drills.missed(plan, why, now);
            }
        }
    }

    /// A new configuration may have other practice.
    pub(super) fn plan_practice(&mut self) {
        let at_s = now_s();
        let next = self.running.practice.iter().map(|practice| {
            let lasting_s = practice.plans.first().map_or(0, |plan| plan.length.as_secs());
            practice.timetable.next(at_s, lasting_s)
        });
        self.drill.practice = next.collect();
    }

    /// A worker's report of the lane's requests.
    pub(super) fn lane_reported(&mut self, drill: u64, input: Input) {
        let lane = self.drill.lane.as_mut().filter(|lane| lane.id == drill);
        if let Some(lane) = lane {
            lane.director.handle(input, Instant::now());
        }
    }
}

/// What an event says that no drill should go on beside.
fn real(event: &Event) -> Option<String> {
    match event {
        Event::IncidentBegan(incident) => {
            let subject = &incident.subject;
            Some(format!(
                "a real incident: {} in {} is down ({})",
                subject.address, subject.place, incident.failure
            ))
        }
        Event::Zone { pool, place, verdict: Some((failure, _)) } => {
            Some(format!("a real incident: zone {place} of pool {pool} is down ({failure})"))
        }
        Event::Panic { pool, on: true } => Some(format!("pool {pool} is in panic")),
        Event::Order { order, fate: Fate::Given | Fate::Lifted } => {
            Some(format!("an operator's order: {order}"))
        }
        Event::Blind { on: true } => Some("probes end without evidence".to_owned()),
        _ => None,
    }
}
