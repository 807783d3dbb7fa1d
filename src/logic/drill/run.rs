//! State machine of one drill: measure the load, warm up, inject the fault, compare with the
//! prediction. It ends by itself, even if the client that started it has gone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::id::DrillId;
use super::plan::DrillPlan;
use super::progress::{DrillMilestone, DrillProgress};
use super::view::DrillCounts;
use crate::logic::overload::remaining_capacity::PoolCapacity;

/// Time for which the load is measured first.
const LOAD_MEASUREMENT_TIME: Duration = Duration::from_secs(1);

/// Time for which the drill takes requests before it injects the fault: workers and the drill's
/// director need a baseline of their own.
pub const WARM_UP_TIME: Duration = Duration::from_secs(1);

/// Limit of the wait for the prediction after the end.
const PREDICTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Interval at which counts are read.
const COUNT_INTERVAL: Duration = Duration::from_millis(20);

/// Limit of the samples kept.
const MAX_SAMPLES: u32 = 300;

/// A verdict may be this much later than predicted: the simulation models neither the scheduler nor
/// other processes.
pub const DETECTION_TOLERANCE: Duration = Duration::from_millis(100);

/// How a drill ended. The words are those of AWS zonal autoshift practice runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillOutcome {
    /// It ran for its full length, and the measurements agree with the prediction.
    Succeeded,
    /// Detection was slower than predicted, or clients saw failures of retryable requests.
    Failed,
    /// It was stopped, exceeded its failure budget, or a real event intervened.
    Interrupted,
    /// The remaining endpoints could not have carried the load; no fault was injected.
    CapacityCheckFailed,
}

impl DrillOutcome {
    pub const ALL: [Self; 4] =
        [Self::Succeeded, Self::Failed, Self::Interrupted, Self::CapacityCheckFailed];

    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Interrupted => "INTERRUPTED",
            Self::CapacityCheckFailed => "CAPACITY_CHECK_FAILED",
        }
    }
}

/// An outcome with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillConclusion {
    pub outcome: DrillOutcome,
    /// One sentence.
    pub reason: String,
}

/// Progress of a drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrillStage {
    /// The load is being measured.
    Measuring {
        until: Instant,
    },
    /// The drill takes its share of the requests; no fault yet.
    Warming {
        until: Instant,
    },
    /// The fault is injected.
    Failing {
        until: Instant,
    },
    /// Injection has ended; the prediction is still being computed.
    Evaluating {
        deadline: Instant,
    },
    Finished(DrillConclusion),
}

impl DrillStage {
    /// The word used in output.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Measuring { .. } => "looking",
            Self::Warming { .. } => "warming",
            Self::Failing { .. } => "failing",
            Self::Evaluating { .. } => "judging",
            Self::Finished(_) => "over",
        }
    }
}

/// When each step of a drill happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillTimeline {
    /// The drill was started.
    pub began: Instant,
    /// The fault was injected: unlike that of a real incident, this onset is known exactly.
    pub onset: Option<Instant>,
    /// An endpoint became suspect.
    pub suspect: Option<Instant>,
    /// The last target endpoint got its verdict, or its zone did.
    pub verdict: Option<Instant>,
    /// The snapshot without the target endpoints was published to the drill's requests.
    pub shift: Option<Instant>,
    /// A client last saw a failure.
    pub last_failure: Option<Instant>,
    /// The drill stopped taking requests.
    pub ended: Option<Instant>,
}

impl DrillTimeline {
    /// From onset to verdict.
    pub fn detection(&self) -> Option<Duration> {
        Some(self.verdict?.saturating_duration_since(self.onset?))
    }

    /// From onset to the last failure that a client saw; zero if none did.
    pub fn failover_gap(&self) -> Option<Duration> {
        let onset = self.onset?;
        Some(self.last_failure.map_or(Duration::ZERO, |last| last.saturating_duration_since(onset)))
    }
}

/// Predicted detection window: the largest of the pools in the drill.
#[derive(Clone, Debug, PartialEq)]
pub struct DrillPrediction {
    /// Failure class, with the name that `gapless predict` uses.
    pub class: &'static str,
    /// Traffic of the simulation, in requests per second.
    pub rate_rps: f64,
    /// Median detection time of the trials.
    pub median: Option<Duration>,
    /// 99th percentile of the trials.
    pub p99: Option<Duration>,
    /// The slowest trial, or the closed form if that is larger.
    pub worst: Option<Duration>,
    /// Why there is no window, as a word for output.
    pub unpredicted_reason: Option<&'static str>,
}

/// Counts at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillSample {
    pub at: Instant,
    pub counts: DrillCounts,
}

/// What control has to do for the drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillAction {
    /// Check the remaining capacity and report it by [`DrillRun::on_capacity_measured`].
    CheckCapacity,
    /// Start the drill's director and the prediction; requests may be taken.
    Start,
    /// Make the target endpoints seem to fail.
    InjectFault,
    /// Stop taking requests and drop the drill's director.
    Stop,
    /// Store the finished drill.
    Store,
}

/// One drill, from its start to its conclusion.
#[derive(Clone, Debug)]
pub struct DrillRun {
    pub id: DrillId,
    pub plan: Arc<DrillPlan>,
    pub stage: DrillStage,
    pub timeline: DrillTimeline,
    /// Measured load of the pools in the drill, in requests per second.
    pub rate_rps: f64,
    /// Number of failures that clients may see.
    pub allowed: u64,
    pub counts: DrillCounts,
    pub samples: Vec<DrillSample>,
    pub prediction: Option<DrillPrediction>,
    /// The scheduling delay of this process from the onset to the verdict.
    lateness: Duration,
    baseline: DrillCounts,
    conclusion: Option<DrillConclusion>,
    actions: VecDeque<DrillAction>,
}

impl DrillRun {
    pub fn new(id: DrillId, plan: Arc<DrillPlan>, now: Instant) -> Self {
        let timeline = DrillTimeline {
            began: now,
            onset: None,
            suspect: None,
            verdict: None,
            shift: None,
            last_failure: None,
            ended: None,
        };
        Self {
            id,
            plan,
            stage: DrillStage::Measuring { until: now + LOAD_MEASUREMENT_TIME },
            timeline,
            rate_rps: 0.0,
            allowed: 0,
            counts: DrillCounts::default(),
            samples: Vec::new(),
            prediction: None,
            lateness: Duration::ZERO,
            baseline: DrillCounts::default(),
            conclusion: None,
            actions: VecDeque::new(),
        }
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            // Also after `until`, if the measurement was too short.
            DrillStage::Measuring { .. } => Some(now + COUNT_INTERVAL),
            DrillStage::Warming { until } | DrillStage::Failing { until } => {
                Some(until.min(now + COUNT_INTERVAL))
            }
            DrillStage::Evaluating { deadline: by } => Some(by),
            DrillStage::Finished(_) => None,
        }
    }

    pub fn poll_action(&mut self) -> Option<DrillAction> {
        self.actions.pop_front()
    }

    /// Enters the next stage if it is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.stage {
            DrillStage::Measuring { until } if until <= now && self.actions.is_empty() => {
                self.actions.push_back(DrillAction::CheckCapacity);
            }
            DrillStage::Warming { until } if until <= now => {
                self.stage = DrillStage::Failing { until: now + self.plan.length };
                self.timeline.onset = Some(now);
                self.baseline = self.counts;
                self.counts = DrillCounts::default();
                self.samples.push(DrillSample { at: now, counts: self.counts });
                self.actions.push_back(DrillAction::InjectFault);
            }
            DrillStage::Failing { until } if until <= now => self.finish(None, now),
            DrillStage::Evaluating { deadline: by } if by <= now => self.conclude(),
            _ => {}
        }
    }

    /// Takes the result of the capacity check; `rate_rps` is the load in requests per second.
    pub fn on_capacity_measured(&mut self, pools: &[PoolCapacity], rate_rps: f64, now: Instant) {
        if !matches!(self.stage, DrillStage::Measuring { .. }) {
            return;
        }
        let share = self.plan.share;
        self.rate_rps = rate_rps;
        let expected = rate_rps * share.fraction() * self.plan.length.as_secs_f64();
        self.allowed = self.plan.failure_budget.allowed_failures(expected);
        if let Some(reason) = pools.iter().find_map(|pool| pool.shortage(share.fraction())) {
            let conclusion = DrillConclusion { outcome: DrillOutcome::CapacityCheckFailed, reason };
            return self.finish(Some(conclusion), now);
        }
        self.stage = DrillStage::Warming { until: now + WARM_UP_TIME };
        self.actions.push_back(DrillAction::Start);
    }

    /// Takes the counts as of an interruption: the last sample is up to 20 ms older. A drill that
    /// ends in time has been judged by the sample of the same turn, and keeps it.
    pub fn record_final_counts(&mut self, counts: DrillCounts, last_failure: Option<Instant>) {
        if !self.is_interrupted() {
            return;
        }
        self.counts = counts.since(self.baseline);
        if self.counts.failed > 0 {
            self.timeline.last_failure = last_failure;
        }
    }

    /// Takes the counts since the drill began to take requests, and the time of the last failure
    /// that a client saw.
    pub fn update_counts(
        &mut self,
        counts: DrillCounts,
        last_failure: Option<Instant>,
        now: Instant,
    ) {
        match self.stage {
            DrillStage::Warming { .. } => {
                self.counts = counts;
                if counts.failed > self.allowed {
                    let why = "clients saw failures before the fault was injected".to_owned();
                    self.interrupt(why, now);
                }
            }
            DrillStage::Failing { .. } => {
                self.counts = counts.since(self.baseline);
                if self.counts.failed > 0 {
                    self.timeline.last_failure = last_failure;
                }
                self.record_sample(now);
                if self.counts.failed > self.allowed {
                    let why = format!(
                        "{} requests failed, and {} may (`abort-budget`)",
                        self.counts.failed, self.allowed
                    );
                    self.interrupt(why, now);
                }
            }
            DrillStage::Measuring { .. }
            | DrillStage::Evaluating { .. }
            | DrillStage::Finished(_) => {}
        }
    }

    fn record_sample(&mut self, now: Instant) {
        let min_interval = (self.plan.length / MAX_SAMPLES).max(COUNT_INTERVAL);
        if self.samples.last().is_none_or(|last| now >= last.at + min_interval) {
            self.samples.push(DrillSample { at: now, counts: self.counts });
        }
    }

    /// Takes what one turn of the drill's director showed. Its snapshot counts as published after
    /// the verdicts of the same turn.
    pub fn on_progress(&mut self, progress: DrillProgress, now: Instant) {
        let DrillProgress { milestones, has_published, interruption } = progress;
        let published = has_published.then_some(DrillMilestone::Published);
        for milestone in milestones.into_iter().chain(published) {
            self.record_milestone(milestone, now);
        }
        if let Some(reason) = interruption {
            self.interrupt(reason, now);
        }
    }

    pub(super) fn record_milestone(&mut self, mark: DrillMilestone, now: Instant) {
        if !matches!(self.stage, DrillStage::Failing { .. }) {
            return;
        }
        let DrillTimeline { suspect, verdict, shift, .. } = &mut self.timeline;
        match mark {
            DrillMilestone::Suspect => _ = suspect.get_or_insert(now),
            DrillMilestone::Verdict => _ = verdict.get_or_insert(now),
            DrillMilestone::Published if verdict.is_some() => _ = shift.get_or_insert(now),
            DrillMilestone::Published => {}
        }
    }

    /// Records the scheduling delay of this process from the onset to the verdict.
    pub fn record_lateness(&mut self, lateness: Duration) {
        self.lateness = lateness;
    }

    pub fn is_interrupted(&self) -> bool {
        matches!(&self.stage, DrillStage::Finished(end) if end.outcome == DrillOutcome::Interrupted)
    }

    /// Ends the drill early: it was stopped, its budget is spent, or a real event intervened.
    pub fn interrupt(&mut self, reason: String, now: Instant) {
        self.finish(Some(DrillConclusion { outcome: DrillOutcome::Interrupted, reason }), now);
    }

    pub fn on_prediction(&mut self, prediction: DrillPrediction) {
        self.prediction = Some(prediction);
        if matches!(self.stage, DrillStage::Evaluating { .. }) {
            self.conclude();
        }
    }

    /// Ends the injection; only the evaluation may remain.
    fn finish(&mut self, conclusion: Option<DrillConclusion>, now: Instant) {
        let is_active = match self.stage {
            DrillStage::Measuring { .. } => false,
            DrillStage::Warming { .. } | DrillStage::Failing { .. } => true,
            DrillStage::Evaluating { .. } | DrillStage::Finished(_) => return,
        };
        self.actions.clear();
        if is_active {
            self.actions.push_back(DrillAction::Stop);
        }
        if self.timeline.onset.is_some() {
            self.samples.push(DrillSample { at: now, counts: self.counts });
        }
        self.timeline.ended = Some(now);
        self.conclusion = conclusion;
        self.stage = DrillStage::Evaluating { deadline: now + PREDICTION_TIMEOUT };
        if self.conclusion.is_some() || self.prediction.is_some() {
            self.conclude();
        }
    }

    fn conclude(&mut self) {
        let conclusion = self.conclusion.take().unwrap_or_else(|| self.evaluate());
        self.stage = DrillStage::Finished(conclusion);
        self.actions.push_back(DrillAction::Store);
    }

    /// Compares the measurements of a drill of full length with its prediction.
    fn evaluate(&self) -> DrillConclusion {
        let failure = |reason| DrillConclusion { outcome: DrillOutcome::Failed, reason };
        let success = |reason| DrillConclusion { outcome: DrillOutcome::Succeeded, reason };
        let retryable = self.counts.retryable;
        if retryable > 0 {
            return failure(format!(
                "clients saw {retryable} failures of requests that could have been sent again"
            ));
        }
        let predicted = self.prediction.as_ref().and_then(|prediction| prediction.worst);
        let limit = predicted.map(|worst| worst + DETECTION_TOLERANCE);
        match (self.timeline.detection(), limit) {
            (Some(took), Some(limit)) if took > limit && took - limit <= self.lateness => {
                success(format!(
                    "the verdict took {took:.0?}: this machine was late by up to {:.0?}, and at \
                     most {limit:.0?} was predicted",
                    self.lateness
                ))
            }
            (Some(took), Some(limit)) if took > limit => failure(format!(
                "the verdict took {took:.0?}, and at most {limit:.0?} was predicted"
            )),
            (None, Some(limit)) if self.plan.length > limit => {
                failure(format!("no verdict came, and one was predicted within {limit:.0?}"))
            }
            (Some(took), Some(_)) => success(format!("the verdict took {took:.1?}, as predicted")),
            (Some(took), None) => {
                success(format!("the verdict took {took:.1?}; nothing was predicted"))
            }
            (None, Some(_)) => success("it ended before a verdict was due".to_owned()),
            (None, None) => success("no verdict came, and none was predicted".to_owned()),
        }
    }
}
