//! Predicted detection windows of incidents: the closed form at once, simulated quantiles when a
//! background thread has them. Incidents with equal parameters and configuration share one
//! simulation.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use crate::logic::incident::Incident;
use crate::logic::model::id::Locality;
use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};
use crate::logic::model::topology::PoolSpec;
use crate::sim::latency::LatencyModel;
use crate::sim::predict::{
    self, FaultCase, FaultKind, FaultScope, PredictedWindow, PredictionInput, PredictionRow,
};

use super::LedgerMessage;
use super::record::{DetectionQuantiles, PredictedDetection};

/// Trials of one simulation: enough for a 99th percentile.
const PREDICTION_TRIALS: u32 = 400;

/// Limit of pending simulations and of kept results.
const MAX_PREDICTIONS: usize = 256;

/// Assumed round trip where none was measured.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(1);

/// Parameters of one simulation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PredictionKey {
    generation: u64,
    pool: Arc<str>,
    is_zone: bool,
    fault: FaultKind,
    rate_rps: u32,
    round_trip_us: u32,
}

/// A pending simulation with its inputs.
#[derive(Clone, Debug)]
struct PredictionJob {
    key: PredictionKey,
    spec: Arc<PoolSpec>,
    here: Option<Locality>,
    workers: usize,
}

/// A result, or the incidents that wait for it.
#[derive(Debug)]
enum PredictionState {
    Ready(Option<DetectionQuantiles>),
    Pending(Vec<u64>),
}

/// The cache, and the queue of simulations.
#[derive(Debug, Default)]
pub(super) struct PredictionCache {
    generation: u64,
    predictions: HashMap<PredictionKey, PredictionState>,
    waiting: VecDeque<PredictionJob>,
    is_busy: bool,
}

/// Circumstances of an incident that its prediction depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct PredictionContext<'a> {
    pub(super) generation: u64,
    pub(super) here: Option<&'a Locality>,
    pub(super) pool: &'a Arc<PoolSpec>,
    pub(super) rate_rps: f64,
    /// Worker threads of this process.
    pub(super) workers: usize,
}

impl PredictionCache {
    /// The prediction for `incident`, as far as it is known. If a simulation is pending,
    /// [`Self::complete`] returns `id` when it ends.
    pub(super) fn predict(
        &mut self,
        id: u64,
        incident: &Incident,
        is_zone: bool,
        case: PredictionContext<'_>,
        messages: &SyncSender<LedgerMessage>,
    ) -> PredictedDetection {
        let fault = simulated_fault(incident.failure, incident.is_by_traffic);
        let round_trip = incident.round_trip.unwrap_or(DEFAULT_ROUND_TRIP);
        let key = PredictionKey {
            generation: case.generation,
            pool: Arc::clone(&case.pool.name),
            is_zone,
            fault,
            rate_rps: round_to_ladder(case.rate_rps.max(0.0) as u64, false),
            round_trip_us: round_to_ladder(round_trip.as_micros() as u64, true).max(100),
        };
        let scope = if is_zone { FaultScope::Zone } else { FaultScope::Endpoint };
        let round_trip = Duration::from_micros(key.round_trip_us.into());
        let closed = predict::closed_form(case.pool, round_trip, FaultCase { scope, fault });
        let us = |duration: Duration| duration.as_micros() as u64;
        let mut predicted = PredictedDetection {
            fault: fault.as_str().to_owned(),
            rate_rps: (key.rate_rps > 0).then_some(key.rate_rps),
            closed_form_us: closed.map(|bounds| (us(bounds.best), us(bounds.worst))),
            simulated: None,
        };
        if case.generation != self.generation {
            self.generation = case.generation;
            self.predictions.retain(|_, state| matches!(state, PredictionState::Pending(_)));
        }
        let has_room = self.predictions.len() < MAX_PREDICTIONS;
        match self.predictions.get_mut(&key) {
            Some(PredictionState::Ready(simulated)) => predicted.simulated = *simulated,
            Some(PredictionState::Pending(ids)) => ids.push(id),
            None if has_room => {
                self.predictions.insert(key.clone(), PredictionState::Pending(vec![id]));
                let PredictionContext { workers, .. } = case;
                let (spec, here) = (Arc::clone(case.pool), case.here.cloned());
                self.waiting.push_back(PredictionJob { key, spec, here, workers });
                self.start_next_job(messages);
            }
            None => {}
        }
        predicted
    }

    /// Stores the result of a simulation; returns the incidents that wait for it.
    pub(super) fn complete(
        &mut self,
        key: &PredictionKey,
        simulated: Option<DetectionQuantiles>,
        messages: &SyncSender<LedgerMessage>,
    ) -> Vec<u64> {
        self.is_busy = false;
        self.start_next_job(messages);
        let is_current = key.generation == self.generation;
        let state = if is_current {
            self.predictions.insert(key.clone(), PredictionState::Ready(simulated))
        } else {
            self.predictions.remove(key)
        };
        match state {
            Some(PredictionState::Pending(ids)) => ids,
            _ => Vec::new(),
        }
    }

    /// Adds `shift` to the numbers of all waiting incidents.
    pub(super) fn shift_incident_ids(&mut self, shift: u64) {
        for state in self.predictions.values_mut() {
            if let PredictionState::Pending(ids) = state {
                ids.iter_mut().for_each(|id| *id += shift);
            }
        }
    }

    /// Starts the next pending simulation, unless one runs.
    fn start_next_job(&mut self, messages: &SyncSender<LedgerMessage>) {
        if self.is_busy {
            return;
        }
        let Some(job) = self.waiting.pop_front() else { return };
        let (key, messages) = (job.key.clone(), messages.clone());
        let thread = std::thread::Builder::new().name("predict".to_owned());
        let started = thread.spawn(move || {
            // Requests come first: an incident must not take processor time from the workers.
            let _ = rustix::process::nice(19);
            let simulated = simulate(&job);
            let _ = messages.send(LedgerMessage::Predicted(job.key, simulated));
        });
        match started {
            Ok(_) => self.is_busy = true,
            Err(error) => {
                tracing::warn!(%error, "prediction skipped: its thread cannot be started");
                self.predictions.remove(&key);
            }
        }
    }
}

impl PredictionKey {
    /// Whether it simulates the failure of a whole zone.
    pub(super) fn is_zone(&self) -> bool {
        self.is_zone
    }
}

fn simulate(job: &PredictionJob) -> Option<DetectionQuantiles> {
    let PredictionJob { key, spec, here, workers } = job;
    let question = PredictionInput {
        trials: PREDICTION_TRIALS,
        seed: 1,
        round_trip: Duration::from_micros(key.round_trip_us.into()),
        rate_rps: (key.rate_rps > 0).then_some(f64::from(key.rate_rps)),
        warm_up: None,
        latency: LatencyModel::Fixed(predict::DEFAULT_SERVICE_TIME),
        workers: *workers,
        threads: 1,
    };
    let scope = if key.is_zone { FaultScope::Zone } else { FaultScope::Endpoint };
    let case = FaultCase { scope, fault: key.fault };
    let PredictionRow { window, .. } =
        predict::predict_row(spec, here.as_ref(), &question, case, Instant::now());
    let us = |duration: Duration| duration.as_micros() as u64;
    match window {
        PredictedWindow::Detected { spread, .. } => Some(DetectionQuantiles {
            median_us: us(spread.median),
            p99_us: us(spread.p99),
            worst_us: us(spread.worst),
        }),
        PredictedWindow::Undetected(_) => None,
    }
}

/// The simulated fault that is closest to the failure.
fn simulated_fault(failure: Failure, by_traffic: bool) -> FaultKind {
    match failure.reason {
        FailureReason::Refused | FailureReason::Unreachable => FaultKind::Refused,
        FailureReason::Timeout if failure.layer == FailureLayer::Connect => FaultKind::BlackHole,
        FailureReason::Timeout | FailureReason::Stall => FaultKind::Hang,
        FailureReason::Slow => FaultKind::SLOW,
        FailureReason::Reset | FailureReason::Closed => FaultKind::Reset,
        FailureReason::Cut => FaultKind::Cut,
        FailureReason::Certificate(_) | FailureReason::Handshake => FaultKind::Certificate,
        FailureReason::Body | FailureReason::NotServing => FaultKind::WrongBody,
        FailureReason::Malformed | FailureReason::Status(_) | FailureReason::GrpcStatus(_)
            if by_traffic =>
        {
            FaultKind::StatusTraffic
        }
        FailureReason::Malformed | FailureReason::Status(_) | FailureReason::GrpcStatus(_) => {
            FaultKind::StatusAll
        }
    }
}

/// A number of the series 1, 2, 5, 10, 20 …, at most a million, so that similar parameters share
/// one simulation. More traffic and shorter round trips shorten the window; for a conservative
/// result rates are rounded down, round trips up.
fn round_to_ladder(value: u64, up: bool) -> u32 {
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
    use crate::logic::model::outcome::CertificateProblem;

    #[test]
    fn similar_rates_round_to_the_same_step() {
        let down: Vec<u32> =
            [0, 1, 3, 9, 10, 240, 9_999].map(|v| round_to_ladder(v, false)).to_vec();
        assert_eq!(down, [0, 1, 2, 5, 10, 200, 5_000]);
        let up: Vec<u32> = [0, 1, 3, 9, 10, 240, 9_999].map(|v| round_to_ladder(v, true)).to_vec();
        assert_eq!(up, [1, 1, 5, 10, 10, 500, 10_000]);
    }

    #[test]
    fn failures_all_map_to_a_simulated_fault() {
        let http = |reason| Failure::http(reason);
        assert_eq!(
            simulated_fault(Failure::connect(FailureReason::Timeout), false),
            FaultKind::BlackHole
        );
        assert_eq!(simulated_fault(http(FailureReason::Timeout), false), FaultKind::Hang);
        assert_eq!(simulated_fault(http(FailureReason::Status(503)), false), FaultKind::StatusAll);
        assert_eq!(
            simulated_fault(http(FailureReason::Status(503)), true),
            FaultKind::StatusTraffic
        );
        let expired = Failure {
            layer: FailureLayer::Tls,
            reason: FailureReason::Certificate(CertificateProblem::Expired),
        };
        assert_eq!(simulated_fault(expired, false), FaultKind::Certificate);
    }
}
