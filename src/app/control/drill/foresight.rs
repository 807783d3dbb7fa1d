//! The prediction that a drill is held against, made on a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::control::Control;
use crate::logic::drill::{Fault, Forecast, Plan};
use crate::logic::id::Place;
use crate::logic::topology::{PoolSpec, ZoneSpec};
use crate::sim::latency::Latency;
use crate::sim::predict::{self, Question, Row, Scope, Unseen, Window};

/// Trials: a tail of one in a hundred is far enough, and soon there.
const TRIALS: u32 = 100;

/// From here to an endpoint and back, as `gapless predict` has it.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// Less than this many requests a second are no traffic.
const TRAFFIC_RPS: f64 = 0.5;

/// How nice the thread is: what is measured meanwhile comes first.
const NICE: i32 = 19;

/// What is to be predicted of one pool.
struct Asked {
    pool: Arc<PoolSpec>,
    zone: usize,
    rate_rps: f64,
}

impl Control {
    /// Has it made for the drill that is under way.
    pub(super) fn foretell(&self, concerned: &[(usize, Arc<PoolSpec>)]) {
        let drills = self.board.drills.borrow();
        let Some(run) = drills.running() else { return };
        let (id, plan) = (run.id, Arc::clone(&run.plan));
        // Where several pools are concerned each is taken to have an even part.
        let rate_rps = run.rate_rps * plan.share.part() / concerned.len().max(1) as f64;
        let asked: Vec<Asked> = concerned
            .iter()
            .filter_map(|(_, pool)| {
                let is_lost =
                    |zone: &ZoneSpec| zone.place == plan.lose && !zone.endpoints.is_empty();
                let zone = pool.zones.iter().position(is_lost)?;
                Some(Asked { pool: Arc::clone(pool), zone, rate_rps })
            })
            .collect();
        let here = self.running.topology.here.clone();
        let tell = self.drill.forecasts.0.clone();
        let base = Instant::now();
        let thread = std::thread::Builder::new().name("predict".to_owned()).spawn(move || {
            // On Linux a thread's own.
            let _ = rustix::process::setpriority_process(None, NICE);
            let _ = tell.send((id, forecast(&plan, here.as_ref(), &asked, base)));
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "no prediction: no thread can be made");
        }
    }
}

/// The largest over the pools.
fn forecast(plan: &Plan, here: Option<&Place>, asked: &[Asked], base: Instant) -> Forecast {
    let fault = fault(plan.fault);
    let scope = if plan.endpoint.is_some() { Scope::Endpoint } else { Scope::Zone };
    let rate_rps = asked.iter().map(|one| one.rate_rps).sum();
    let (median, p99, worst) = (None, None, None);
    let mut all = Forecast { class: fault.as_str(), rate_rps, median, p99, worst, unseen: None };
    for one in asked {
        let question = Question {
            trials: TRIALS,
            seed: 1,
            round_trip: ROUND_TRIP,
            rate_rps: Some(one.rate_rps).filter(|rate| *rate > TRAFFIC_RPS),
            latency: Latency::Fixed(predict::SERVICE),
            threads: 1,
        };
        let what = (one.zone, scope, fault);
        let row = predict::predict_zone(&one.pool, here, &question, what, base);
        all = larger(all, &row);
    }
    all
}

fn larger(all: Forecast, row: &Row) -> Forecast {
    match row.window {
        Window::Seen { spread, .. } if all.unseen.is_none() => {
            // In this order nothing is smaller than something.
            let closed = row.closed_form.filter(|_| row.traffic_rps.is_none());
            let worst = closed.map_or(spread.worst, |bounds| bounds.worst.max(spread.worst));
            Forecast {
                median: all.median.max(Some(spread.median)),
                p99: all.p99.max(Some(spread.p99)),
                worst: all.worst.max(Some(worst)),
                ..all
            }
        }
        Window::Seen { .. } => all,
        Window::Unseen(why) => {
            let unseen = Some(match why {
                Unseen::ProbePasses => "probe_passes",
                Unseen::NeedsTraffic => "needs_traffic",
                Unseen::NotNoticed => "not_noticed",
                Unseen::NeverUp => "never_up",
            });
            Forecast { median: None, p99: None, worst: None, unseen, ..all }
        }
    }
}

/// What `gapless predict` would be asked.
fn fault(fault: Fault) -> predict::Fault {
    match fault {
        Fault::Refused => predict::Fault::Refused,
        Fault::Reset => predict::Fault::Reset,
        Fault::Hang => predict::Fault::Hang,
        Fault::Slow { delay } => predict::Fault::Slow { delay },
        Fault::Status { .. } => predict::Fault::StatusAll,
        Fault::Errors { percent } => predict::Fault::Errors { percent },
        Fault::Cut => predict::Fault::Cut,
    }
}
