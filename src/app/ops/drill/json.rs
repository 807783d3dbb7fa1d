//! Types of `/api/v1/drills` and of `--format json`. Field names are stable and end in their unit.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::app::ops::api::WallClock;
use crate::app::ops::event_log::millis;
use crate::logic::drill::{DrillPrediction, DrillRun, DrillStage, DrillTimeline};

#[derive(Debug, Serialize)]
pub struct DrillJson {
    /// Counts up from 1 since the process started.
    pub id: u64,
    /// `looking`, `warming`, `failing`, `judging` or `over`.
    pub stage: &'static str,
    /// `SUCCEEDED`, `FAILED`, `CAPACITY_CHECK_FAILED` or `INTERRUPTED`, once it is over.
    pub outcome: Option<&'static str>,
    /// Reason of the outcome.
    pub why: Option<String>,
    /// `hand` or `practice`.
    pub by: &'static str,
    /// The zone that appears to fail.
    pub zone: String,
    /// Only this endpoint of the zone.
    pub endpoint: Option<String>,
    /// Only this pool.
    pub pool: Option<String>,
    pub fault: String,
    /// Share of the eligible requests that the drill takes.
    pub share_percent: u32,
    /// Only requests with this header.
    #[serde(rename = "match")]
    pub matching: Option<String>,
    pub for_ms: f64,
    /// Time left in the current stage.
    pub left_ms: f64,
    /// Failures that the drill may cause, as ordered: a share or a number.
    pub abort_budget: String,
    /// The same as a number of requests.
    pub allowed_failures: u64,
    /// Requests per second over the affected pools, measured before the drill.
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
    /// Class of failure, as `gapless predict` names it.
    pub class: &'static str,
    /// Requests per second that the prediction assumes.
    pub traffic_rps: f64,
    /// Median of the detection window.
    pub median_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub worst_ms: Option<f64>,
    /// Word for the reason why there is no prediction.
    pub unseen: Option<&'static str>,
}

/// Durations from the onset, which a drill knows exactly.
#[derive(Debug, Serialize)]
pub struct DrillMeasurementJson {
    /// Until the first suspicion.
    pub suspect_ms: Option<f64>,
    /// Until the last verdict.
    pub detection_ms: Option<f64>,
    /// Until the snapshot without the zone.
    pub shift_ms: Option<f64>,
    /// Until the last failure that a client saw.
    pub gap_ms: Option<f64>,
    pub lasted_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct DrillRequestsJson {
    /// Requests that the drill could take.
    pub concerned: u64,
    /// Requests that the drill took.
    pub taken: u64,
    /// Taken requests in percent of the eligible ones.
    pub taken_percent: Option<f64>,
    /// Attempts that met the fault.
    pub met: u64,
    /// Requests whose clients saw a failure.
    pub failed: u64,
    /// Failed requests that a retry could have saved.
    pub resendable: u64,
    /// Requests that another endpoint answered well.
    pub rescued: u64,
    /// Rescued requests that were answered late.
    pub late: u64,
}

/// Counts at one time of the drill.
#[derive(Debug, Serialize)]
pub struct DrillSampleJson {
    pub at_ms: f64,
    /// Requests taken so far.
    pub taken: u64,
    /// Requests failed so far.
    pub failed: u64,
    /// Requests rescued so far.
    pub rescued: u64,
}

impl DrillJson {
    /// The state of a drill as of `now`.
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
            id: run.id.get(),
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
    /// Time of the request to start the drill.
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
