//! What `/api/v1/drills` and `--format json` print: stable names, units in them.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::app::ops::api::WallClock;
use crate::app::ops::event_log::millis;
use crate::logic::drill::{DrillPrediction, DrillRun, DrillStage, DrillTimeline};

#[derive(Debug, Serialize)]
pub struct DrillJson {
    /// Counts up from 1 since the process began.
    pub id: u64,
    /// `looking`, `warming`, `failing`, `judging` or `over`.
    pub stage: &'static str,
    /// How it ended, once it is over.
    pub outcome: Option<&'static str>,
    /// Why it is that.
    pub why: Option<String>,
    /// `hand` or `practice`.
    pub by: &'static str,
    /// The zone that seems to fail.
    pub zone: String,
    /// Of it, this endpoint only.
    pub endpoint: Option<String>,
    /// In this pool only.
    pub pool: Option<String>,
    pub fault: String,
    /// Of how many requests.
    pub share_percent: u32,
    /// Of those only that have this header.
    #[serde(rename = "match")]
    pub matching: Option<String>,
    pub for_ms: f64,
    /// What is left of that, or of what comes before.
    pub left_ms: f64,
    /// What it may cost.
    pub abort_budget: String,
    /// The same as a number of requests.
    pub allowed_failures: u64,
    /// Requests a second over the pools that are concerned, before anything happened.
    pub load_rps: f64,
    pub timeline: DrillTimelineJson,
    pub predicted: Option<DrillPredictionJson>,
    pub measured: DrillMeasurementJson,
    pub requests: DrillRequestsJson,
    pub samples: Vec<DrillSampleJson>,
}

#[derive(Debug, Serialize)]
pub struct DrillTimelineJson {
    began: String,
    onset: Option<String>,
    suspect: Option<String>,
    verdict: Option<String>,
    shift: Option<String>,
    last_failure: Option<String>,
    ended: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct DrillPredictionJson {
    /// As `gapless predict` calls it.
    pub class: &'static str,
    /// Requests a second with which it was predicted.
    pub traffic_rps: f64,
    /// Of the detection window.
    pub median_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub worst_ms: Option<f64>,
    /// Why there is none, in a word.
    pub unseen: Option<&'static str>,
}

/// From the onset, which is known exactly.
#[derive(Debug, Serialize)]
pub struct DrillMeasurementJson {
    /// To the first suspicion.
    pub suspect_ms: Option<f64>,
    /// To the last verdict.
    pub detection_ms: Option<f64>,
    /// To the snapshot without the zone.
    pub shift_ms: Option<f64>,
    /// To the last failure that a client saw.
    pub gap_ms: Option<f64>,
    pub lasted_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct DrillRequestsJson {
    /// Those of which a share was taken.
    pub concerned: u64,
    /// Those that were taken.
    pub taken: u64,
    /// What part that is.
    pub taken_percent: Option<f64>,
    /// Tries that met the fault.
    pub met: u64,
    /// Those whose clients saw a failure.
    pub failed: u64,
    /// Of these, those that could have been sent again.
    pub resendable: u64,
    /// Those that another endpoint answered well.
    pub rescued: u64,
    /// Of these, those that were answered late.
    pub late: u64,
}

/// Counts at one time.
#[derive(Debug, Serialize)]
pub struct DrillSampleJson {
    pub at_ms: f64,
    /// Requests that were taken.
    pub taken: u64,
    /// Those whose clients saw a failure.
    pub failed: u64,
    /// Those that were rescued.
    pub rescued: u64,
}

impl DrillJson {
    /// A drill, as of `now`.
    pub fn new(run: &DrillRun, clock: &WallClock, now: Instant) -> Self {
        let plan = &*run.plan;
        let (outcome, why) = match &run.stage {
            DrillStage::Finished(end) => (Some(end.outcome.as_str()), Some(end.reason.clone())),
            _ => (None, None),
        };
        let remaining = match run.stage {
            DrillStage::Measuring { until }
            | DrillStage::Warming { until }
            | DrillStage::Failing { until } => until.saturating_duration_since(now),
            DrillStage::Evaluating { .. } | DrillStage::Finished(_) => Duration::ZERO,
        };
        let DrillTimeline { onset, .. } = run.timeline;
        let since = |at: Option<Instant>| Some(millis(at?.saturating_duration_since(onset?)));
        let counts = run.counts;
        let percent = counts.requests as f64 * 100.0 / counts.eligible.max(1) as f64;
        Self {
            id: run.id,
            stage: run.stage.as_str(),
            outcome,
            why,
            by: if plan.is_manual { "hand" } else { "practice" },
            zone: plan.zone.to_string(),
            endpoint: plan.endpoint.map(|endpoint| endpoint.to_string()),
            pool: plan.pool.as_ref().map(|pool| pool.to_string()),
            fault: plan.fault.to_string(),
            share_percent: plan.share.percent(),
            matching: plan.header_match.as_ref().map(|matching| matching.to_string()),
            for_ms: millis(plan.length),
            left_ms: millis(remaining),
            abort_budget: plan.failure_budget.to_string(),
            allowed_failures: run.allowed,
            load_rps: run.rate_rps,
            timeline: DrillTimelineJson::new(&run.timeline, clock),
            predicted: run.prediction.as_ref().map(DrillPredictionJson::from),
            measured: DrillMeasurementJson {
                suspect_ms: since(run.timeline.suspect),
                detection_ms: since(run.timeline.verdict),
                shift_ms: since(run.timeline.shift),
                gap_ms: run.timeline.failover_gap().map(millis),
                lasted_ms: since(run.timeline.ended),
            },
            requests: DrillRequestsJson {
                concerned: counts.eligible,
                taken: counts.requests,
                taken_percent: (counts.eligible > 0).then_some(percent),
                met: counts.faulted,
                failed: counts.failed,
                resendable: counts.retryable,
                rescued: counts.rescued,
                late: counts.late,
            },
            samples: run
                .samples
                .iter()
                .filter_map(|sample| {
                    Some(DrillSampleJson {
                        at_ms: since(Some(sample.at))?,
                        taken: sample.counts.requests,
                        failed: sample.counts.failed,
                        rescued: sample.counts.rescued,
                    })
                })
                .collect(),
        }
    }
}

impl DrillTimelineJson {
    /// When it was asked for.
    pub fn began(&self) -> &str {
        &self.began
    }

    fn new(timeline: &DrillTimeline, clock: &WallClock) -> Self {
        let text = |at: Option<Instant>| at.map(|at| clock.to_rfc3339(at));
        Self {
            began: clock.to_rfc3339(timeline.began),
            onset: text(timeline.onset),
            suspect: text(timeline.suspect),
            verdict: text(timeline.verdict),
            shift: text(timeline.shift),
            last_failure: text(timeline.last_failure),
            ended: text(timeline.ended),
        }
    }
}

impl From<&DrillPrediction> for DrillPredictionJson {
    fn from(forecast: &DrillPrediction) -> Self {
        Self {
            class: forecast.class,
            traffic_rps: forecast.rate_rps,
            median_ms: forecast.median.map(millis),
            p99_ms: forecast.p99.map(millis),
            worst_ms: forecast.worst.map(millis),
            unseen: forecast.unpredicted_reason,
        }
    }
}
