//! The prediction that a drill is held against, made on a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::control::ControlLoop;
use crate::logic::drill::{DrillFault, DrillPlan, DrillPrediction};
use crate::logic::model::id::Locality;
use crate::logic::model::topology::{PoolSpec, ZoneSpec};
use crate::sim::latency::LatencyModel;
use crate::sim::predict::{
    self, FaultScope, PredictedWindow, PredictionInput, PredictionRow, UndetectedReason,
};

/// Trials: a tail of one in a hundred is far enough, and soon there.
const TRIALS: u32 = 100;

/// From here to an endpoint and back, as `gapless predict` has it.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// Less than this many requests a second are no traffic.
const MIN_TRAFFIC_RPS: f64 = 0.5;

/// How nice the thread is: what is measured meanwhile comes first.
const THREAD_NICENESS: i32 = 19;

/// What is to be predicted of one pool.
struct PoolPredictionRequest {
    pool: Arc<PoolSpec>,
    zone: usize,
    rate_rps: f64,
}

impl ControlLoop {
    /// Has it made for the drill that is under way.
    pub(super) fn start_prediction(&self, pools_in_plan: &[(usize, Arc<PoolSpec>)]) {
        let drills = self.admin_state.drills.borrow();
        let Some(run) = drills.running() else { return };
        let (id, plan) = (run.id, Arc::clone(&run.plan));
        // Where several pools are concerned each is taken to have an even part.
        let rate_rps = run.rate_rps * plan.share.fraction() / pools_in_plan.len().max(1) as f64;
        let requests: Vec<PoolPredictionRequest> = pools_in_plan
            .iter()
            .filter_map(|(_, pool)| {
                let is_lost =
                    |zone: &ZoneSpec| zone.locality == plan.zone && !zone.endpoints.is_empty();
                let zone = pool.zones.iter().position(is_lost)?;
                Some(PoolPredictionRequest { pool: Arc::clone(pool), zone, rate_rps })
            })
            .collect();
        let here = self.running_config.topology.local.clone();
        let sender = self.drill.predictions.0.clone();
        let base = Instant::now();
        let thread = std::thread::Builder::new().name("predict".to_owned()).spawn(move || {
            // On Linux a thread's own.
            let _ = rustix::process::setpriority_process(None, THREAD_NICENESS);
            let _ = sender.send((id, predict_pools(&plan, here.as_ref(), &requests, base)));
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "no prediction: no thread can be made");
        }
    }
}

/// The largest over the pools.
fn predict_pools(
    plan: &DrillPlan,
    here: Option<&Locality>,
    requests: &[PoolPredictionRequest],
    base: Instant,
) -> DrillPrediction {
    let fault = predicted_fault(plan.fault);
    let scope = if plan.endpoint.is_some() { FaultScope::Endpoint } else { FaultScope::Zone };
    let rate_rps = requests.iter().map(|one| one.rate_rps).sum();
    let (median, p99, worst) = (None, None, None);
    let mut all = DrillPrediction {
        class: fault.as_str(),
        rate_rps,
        median,
        p99,
        worst,
        unpredicted_reason: None,
    };
    for one in requests {
        let question = PredictionInput {
            trials: TRIALS,
            seed: 1,
            round_trip: ROUND_TRIP,
            rate_rps: Some(one.rate_rps).filter(|rate| *rate > MIN_TRAFFIC_RPS),
            latency: LatencyModel::Fixed(predict::DEFAULT_SERVICE_TIME),
            threads: 1,
        };
        let what = (one.zone, scope, fault);
        let row = predict::predict_zone_row(&one.pool, here, &question, what, base);
        all = larger_forecast(all, &row);
    }
    all
}

fn larger_forecast(all: DrillPrediction, row: &PredictionRow) -> DrillPrediction {
    match row.window {
        PredictedWindow::Detected { spread, .. } if all.unpredicted_reason.is_none() => {
            // In this order nothing is smaller than something.
            let closed = row.closed_form.filter(|_| row.traffic_rps.is_none());
            let worst = closed.map_or(spread.worst, |bounds| bounds.worst.max(spread.worst));
            DrillPrediction {
                median: all.median.max(Some(spread.median)),
                p99: all.p99.max(Some(spread.p99)),
                worst: all.worst.max(Some(worst)),
                ..all
            }
        }
        PredictedWindow::Detected { .. } => all,
        PredictedWindow::Undetected(why) => {
            let unseen = Some(match why {
                UndetectedReason::ProbePasses => "probe_passes",
                UndetectedReason::NeedsTraffic => "needs_traffic",
                UndetectedReason::NoVerdict => "not_noticed",
                UndetectedReason::NeverUp => "never_up",
            });
            DrillPrediction {
                median: None,
                p99: None,
                worst: None,
                unpredicted_reason: unseen,
                ..all
            }
        }
    }
}

/// What `gapless predict` would be asked.
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
