//! The prediction that a drill is compared with, simulated on a low-priority thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::logic::drill::{DrillFault, DrillId, DrillPlan, DrillPrediction, WARM_UP_TIME};
use crate::logic::model::id::Locality;
use crate::logic::model::topology::{PoolSpec, Topology, ZoneSpec};
use crate::sim::latency::LatencyModel;
use crate::sim::predict::{
    self, FaultCase, FaultScope, PredictedWindow, PredictionInput, PredictionRow, UndetectedReason,
};

/// Trials of the simulation: enough for a 99th percentile, and soon done.
const TRIALS: u32 = 100;

/// Assumed round trip to an endpoint, as in `gapless predict`.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// A lower rate, in requests per second, is simulated as no traffic.
const MIN_TRAFFIC_RPS: f64 = 0.5;

/// Niceness of the thread, so that it does not disturb the measurement.
const THREAD_NICENESS: i32 = 19;

/// A drill whose prediction is wanted.
pub struct PredictionTask {
    pub id: DrillId,
    pub plan: Arc<DrillPlan>,
    /// Load of the drill's pools in requests per second.
    pub load_rps: f64,
    /// Worker threads of this process.
    pub workers: usize,
}

/// The prediction for one pool.
struct PoolPredictionRequest {
    pool: Arc<PoolSpec>,
    zone: usize,
    rate_rps: f64,
    workers: usize,
}

/// Starts the simulation, which sends its result to `results`.
pub fn start(
    task: PredictionTask,
    topology: &Topology,
    results: UnboundedSender<(DrillId, DrillPrediction)>,
) {
    let PredictionTask { id, plan, load_rps, workers } = task;
    let covered = plan.covered_pools(topology);
    // Each of several pools is assumed to get an equal part of the load.
    let rate_rps = load_rps * plan.share.fraction() / covered.len().max(1) as f64;
    let requests: Vec<PoolPredictionRequest> = covered
        .into_iter()
        .filter_map(|pool| {
            let is_lost =
                |zone: &ZoneSpec| zone.locality == plan.zone && !zone.endpoints.is_empty();
            let zone = pool.spec.zones.iter().position(is_lost)?;
            Some(PoolPredictionRequest { pool: pool.spec, zone, rate_rps, workers })
        })
        .collect();
    let local = topology.local.clone();
    let base = Instant::now();
    let thread = std::thread::Builder::new().name("predict".to_owned()).spawn(move || {
        // Linux applies the priority to the calling thread only.
        let _ = rustix::process::setpriority_process(None, THREAD_NICENESS);
        let _ = results.send((id, predict_pools(&plan, local.as_ref(), &requests, base)));
    });
    if let Err(error) = thread {
        tracing::warn!(%error, "drill without a prediction: no thread can be started");
    }
}

/// The largest prediction of all pools.
fn predict_pools(
    plan: &DrillPlan,
    local: Option<&Locality>,
    requests: &[PoolPredictionRequest],
    base: Instant,
) -> DrillPrediction {
    let fault = predicted_fault(plan.fault);
    let scope = if plan.endpoint.is_some() { FaultScope::Endpoint } else { FaultScope::Zone };
    let nothing = DrillPrediction {
        class: fault.as_str(),
        rate_rps: requests.iter().map(|request| request.rate_rps).sum(),
        median: None,
        p99: None,
        worst: None,
        unpredicted_reason: None,
    };
    requests.iter().fold(nothing, |largest, request| {
        let input = PredictionInput {
            trials: TRIALS,
            seed: 1,
            round_trip: ROUND_TRIP,
            rate_rps: Some(request.rate_rps).filter(|rate| *rate > MIN_TRAFFIC_RPS),
            warm_up: Some(WARM_UP_TIME),
            latency: LatencyModel::Fixed(predict::DEFAULT_SERVICE_TIME),
            workers: request.workers,
            threads: 1,
        };
        let case = FaultCase { scope, fault };
        let row = predict::predict_zone_row(&request.pool, local, &input, request.zone, case, base);
        larger_prediction(largest, &row)
    })
}

fn larger_prediction(largest: DrillPrediction, row: &PredictionRow) -> DrillPrediction {
    match row.window {
        PredictedWindow::Detected { spread, .. } if largest.unpredicted_reason.is_none() => {
            // `None` is smaller than any duration.
            let closed = row.closed_form.filter(|_| row.traffic_rps.is_none());
            let worst = closed.map_or(spread.worst, |bounds| bounds.worst.max(spread.worst));
            DrillPrediction {
                median: largest.median.max(Some(spread.median)),
                p99: largest.p99.max(Some(spread.p99)),
                worst: largest.worst.max(Some(worst)),
                ..largest
            }
        }
        PredictedWindow::Detected { .. } => largest,
        PredictedWindow::Undetected(reason) => {
            let word = match reason {
                UndetectedReason::ProbePasses => "probe_passes",
                UndetectedReason::NeedsTraffic => "needs_traffic",
                UndetectedReason::NoVerdict => "not_noticed",
                UndetectedReason::NeverUp => "never_up",
            };
            DrillPrediction {
                median: None,
                p99: None,
                worst: None,
                unpredicted_reason: Some(word),
                ..largest
            }
        }
    }
}

/// The class of `gapless predict` that a fault belongs to.
fn predicted_fault(fault: DrillFault) -> predict::FaultKind {
    match fault {
        DrillFault::Refused => predict::FaultKind::Refused,
        DrillFault::Reset => predict::FaultKind::Reset,
        DrillFault::Hang => predict::FaultKind::Hang,
        DrillFault::Slow { delay } => predict::FaultKind::Slow { delay },
        DrillFault::Status { .. } => predict::FaultKind::StatusAll,
        DrillFault::ErrorRate { percent } => predict::FaultKind::Errors { percent },
        DrillFault::Cut => predict::FaultKind::Cut,
    }
}
