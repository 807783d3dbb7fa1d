//! What was to be expected of an incident: the closed form at once, the simulated distribution when a
//! thread of its own has it. Equal questions of one configuration are asked once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use crate::logic::id::Place;
use crate::logic::incident::Incident;
use crate::logic::outcome::{Failure, Layer, Reason};
use crate::logic::topology::PoolSpec;
use crate::sim::latency::Latency;
use crate::sim::predict::{self, Fault, Question, Row, Scope, Window};

use super::Note;
use super::record::{Predicted, Quantiles};

/// Trials of one question: enough for a 99th percentile.
const TRIALS: u32 = 400;

/// Questions that wait, and answers that are kept, at most.
const QUESTIONS: usize = 256;

/// What a round trip is taken to cost where none was measured.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// What is asked of the simulation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    generation: u64,
    pool: Arc<str>,
    is_zone: bool,
    fault: Fault,
    rate_rps: u32,
    round_trip_us: u32,
}

/// A question with all that is needed to answer it.
#[derive(Clone, Debug)]
struct Job {
    key: Key,
    spec: Arc<PoolSpec>,
    here: Option<Place>,
}

/// An answer, or who waits for it.
#[derive(Debug)]
enum State {
    Known(Option<Quantiles>),
    Awaited(Vec<u64>),
}

/// Who knows what was to be expected.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    generation: u64,
    states: HashMap<Key, State>,
    waiting: VecDeque<Job>,
    is_busy: bool,
}

/// What an incident is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub(super) generation: u64,
    pub(super) here: Option<&'a Place>,
    pub(super) pool: &'a Arc<PoolSpec>,
    pub(super) rate_rps: f64,
}

impl Oracle {
    /// What was to be expected of `incident`, as far as it is known. If the rest is being simulated,
    /// [`Oracle::answered`] gives `id` back.
    pub(super) fn ask(
        &mut self,
        id: u64,
        incident: &Incident,
        is_zone: bool,
        case: Case<'_>,
        notes: &SyncSender<Note>,
    ) -> Predicted {
        let fault = fault(incident.failure, incident.by_traffic);
        let round_trip = incident.round_trip.unwrap_or(ROUND_TRIP);
        let key = Key {
            generation: case.generation,
            pool: Arc::clone(&case.pool.name),
            is_zone,
            fault,
            rate_rps: ladder(case.rate_rps.max(0.0) as u64, false),
            round_trip_us: ladder(round_trip.as_micros() as u64, true).max(100),
        };
        let scope = if is_zone { Scope::Zone } else { Scope::Endpoint };
        let round_trip = Duration::from_micros(key.round_trip_us.into());
        let closed = predict::closed_form(case.pool, round_trip, (scope, fault));
        let us = |duration: Duration| duration.as_micros() as u64;
        let mut predicted = Predicted {
            fault: fault.as_str().to_owned(),
            rate_rps: (key.rate_rps > 0).then_some(key.rate_rps),
            closed_form_us: closed.map(|bounds| (us(bounds.best), us(bounds.worst))),
            simulated: None,
        };
        if case.generation != self.generation {
            self.generation = case.generation;
            self.states.retain(|_, state| matches!(state, State::Awaited(_)));
        }
        let has_room = self.states.len() < QUESTIONS;
        match self.states.get_mut(&key) {
            Some(State::Known(simulated)) => predicted.simulated = *simulated,
            Some(State::Awaited(ids)) => ids.push(id),
            None if has_room => {
                self.states.insert(key.clone(), State::Awaited(vec![id]));
                let (spec, here) = (Arc::clone(case.pool), case.here.cloned());
                self.waiting.push_back(Job { key, spec, here });
                self.work(notes);
            }
            None => {}
        }
        predicted
    }

    /// A question is answered: who waited for it.
    pub(super) fn answered(
        &mut self,
        key: &Key,
        simulated: Option<Quantiles>,
        notes: &SyncSender<Note>,
    ) -> Vec<u64> {
        self.is_busy = false;
        self.work(notes);
        let is_current = key.generation == self.generation;
        let state = if is_current {
            self.states.insert(key.clone(), State::Known(simulated))
        } else {
            self.states.remove(key)
        };
        match state {
            Some(State::Awaited(ids)) => ids,
            _ => Vec::new(),
        }
    }

    /// Numbers have changed by so much.
    pub(super) fn renumber(&mut self, shift: u64) {
        for state in self.states.values_mut() {
            if let State::Awaited(ids) = state {
                ids.iter_mut().for_each(|id| *id += shift);
            }
        }
    }

    /// Has the next question answered, one at a time.
    fn work(&mut self, notes: &SyncSender<Note>) {
        if self.is_busy {
            return;
        }
        let Some(job) = self.waiting.pop_front() else { return };
        let (key, notes) = (job.key.clone(), notes.clone());
        let thread = std::thread::Builder::new().name("predict".to_owned());
        let started = thread.spawn(move || {
            // Whoever serves goes first: an incident is no time to take processors from them.
            let _ = rustix::process::nice(19);
            let simulated = simulate(&job);
            let _ = notes.send(Note::Predicted(job.key, simulated));
        });
        match started {
            Ok(_) => self.is_busy = true,
            Err(error) => {
                tracing::warn!(%error, "no thread for a prediction");
                self.states.remove(&key);
            }
        }
    }
}

impl Key {
    /// Whether it is about a whole zone.
    pub(super) fn is_zone(&self) -> bool {
        self.is_zone
    }
}

fn simulate(job: &Job) -> Option<Quantiles> {
    let Job { key, spec, here } = job;
    let question = Question {
        trials: TRIALS,
        seed: 1,
        round_trip: Duration::from_micros(key.round_trip_us.into()),
        rate_rps: (key.rate_rps > 0).then_some(f64::from(key.rate_rps)),
        latency: Latency::Fixed(predict::SERVICE),
        threads: 1,
    };
    let scope = if key.is_zone { Scope::Zone } else { Scope::Endpoint };
    let asked = (scope, key.fault);
    let Row { window, .. } =
        predict::predict_one(spec, here.as_ref(), &question, asked, Instant::now());
    let us = |duration: Duration| duration.as_micros() as u64;
    match window {
        Window::Seen { spread, .. } => Some(Quantiles {
            median_us: us(spread.median),
            p99_us: us(spread.p99),
            worst_us: us(spread.worst),
        }),
        Window::Unseen(_) => None,
    }
}

/// The simulated failure that is nearest to what was seen.
fn fault(failure: Failure, by_traffic: bool) -> Fault {
    match failure.reason {
        Reason::Refused | Reason::Unreachable => Fault::Refused,
        Reason::Timeout if failure.layer == Layer::Connect => Fault::BlackHole,
        Reason::Timeout | Reason::Stall => Fault::Hang,
        Reason::Slow => Fault::SLOW,
        Reason::Reset | Reason::Closed => Fault::Reset,
        Reason::Cut => Fault::Cut,
        Reason::Certificate(_) | Reason::Handshake => Fault::Certificate,
        Reason::Body | Reason::NotServing => Fault::WrongBody,
        Reason::Malformed | Reason::Status(_) | Reason::GrpcStatus(_) if by_traffic => {
            Fault::StatusTraffic
        }
        Reason::Malformed | Reason::Status(_) | Reason::GrpcStatus(_) => Fault::StatusAll,
    }
}

/// A number on the ladder 1, 2, 5, 10, 20 …, at most a million: what is about the same is simulated
/// once. More traffic and shorter ways make windows shorter, so rates are rounded down, ways up.
fn ladder(value: u64, up: bool) -> u32 {
    let mut step: u64 = 1;
    let mut below = 0;
    for factor in [2.0, 2.5, 2.0].into_iter().cycle().take(18) {
        if value < step || up && value == step {
            break;
        }
        below = step;
        step = (step as f64 * factor) as u64;
    }
    u32::try_from(if up { step } else { below }).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::outcome::CertificateFault;

    #[test]
    fn what_is_about_the_same_is_the_same() {
        let down: Vec<u32> = [0, 1, 3, 9, 10, 240, 9_999].map(|v| ladder(v, false)).to_vec();
        assert_eq!(down, [0, 1, 2, 5, 10, 200, 5_000]);
        let up: Vec<u32> = [0, 1, 3, 9, 10, 240, 9_999].map(|v| ladder(v, true)).to_vec();
        assert_eq!(up, [1, 1, 5, 10, 10, 500, 10_000]);
    }

    #[test]
    fn every_failure_has_its_simulated_one() {
        let http = |reason| Failure::http(reason);
        assert_eq!(fault(Failure::connect(Reason::Timeout), false), Fault::BlackHole);
        assert_eq!(fault(http(Reason::Timeout), false), Fault::Hang);
        assert_eq!(fault(http(Reason::Status(503)), false), Fault::StatusAll);
        assert_eq!(fault(http(Reason::Status(503)), true), Fault::StatusTraffic);
        let expired =
            Failure { layer: Layer::Tls, reason: Reason::Certificate(CertificateFault::Expired) };
        assert_eq!(fault(expired, false), Fault::Certificate);
    }
}
