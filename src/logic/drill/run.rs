//! One drill from its begin to its outcome: it looks, warms the lane up, has the zone seem to fail,
//! and judges. It ends by itself; whoever asked for it need not live that long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::capacity::DrillCapacity;
use super::plan::DrillPlan;
use super::view::DrillCounts;

/// How long the load is looked at before anything happens.
const LOAD_MEASUREMENT_TIME: Duration = Duration::from_secs(1);

/// How long a lane takes its share before the zone seems to fail: so its workers and its director have
/// something of their own to compare with.
const WARM_UP_TIME: Duration = Duration::from_secs(1);

/// The prediction is waited for this long after the end.
const PREDICTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How often counts are looked at.
const COUNT_INTERVAL: Duration = Duration::from_millis(20);

/// Samples kept, at most.
const MAX_SAMPLES: u32 = 300;

/// A verdict that is later than predicted by no more than this has not left the prediction: the
/// simulated world has neither a scheduler nor neighbours.
pub const DETECTION_TOLERANCE: Duration = Duration::from_millis(100);

/// How a drill ended, in the words of AWS for practice runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillOutcome {
    /// It lasted as long as it should, and all was as predicted.
    Succeeded,
    /// What was measured left the prediction, clients saw failures of requests that could have been
    /// sent again, or it cost more than it may.
    Failed,
    /// It was stopped, or something real came in between.
    Interrupted,
    /// What would have been left could not have carried the load: nothing was done.
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

/// An outcome, and why it is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillConclusion {
    pub outcome: DrillOutcome,
    /// Why, in a sentence.
    pub reason: String,
}

/// How far a drill has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrillStage {
    /// The load is looked at.
    Measuring {
        until: Instant,
    },
    /// The lane takes its share, and nothing fails.
    Warming {
        until: Instant,
    },
    /// The zone seems to fail.
    Failing {
        until: Instant,
    },
    /// It is over but for the prediction, which is still being made.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillTimeline {
    /// It was asked for.
    pub began: Instant,
    /// The zone began to seem to fail: the onset, which here is known and not estimated.
    pub onset: Option<Instant>,
    /// An endpoint became suspect.
    pub suspect: Option<Instant>,
    /// The last of the endpoints had its verdict, or its zone had.
    pub verdict: Option<Instant>,
    /// The snapshot without them was published to the lane.
    pub shift: Option<Instant>,
    /// A client last saw a failure.
    pub last_failure: Option<Instant>,
    /// The lane was closed.
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

/// What a lane's director showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillMilestone {
    /// An endpoint is suspect.
    Suspect,
    /// All that seems to fail has a verdict.
    Verdict,
    /// A snapshot was published.
    Published,
}

/// What was predicted: the largest over the pools that are concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct DrillPrediction {
    /// The kind of failure, as `gapless predict` calls it.
    pub class: &'static str,
    /// Requests a second with which it was predicted.
    pub rate_rps: f64,
    /// Half of the trials were noticed within this.
    pub median: Option<Duration>,
    /// All but a hundredth.
    pub p99: Option<Duration>,
    pub worst: Option<Duration>,
    /// Why there is no window, in a word.
    pub unpredicted_reason: Option<&'static str>,
}

/// Counts at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillSample {
    pub at: Instant,
    pub counts: DrillCounts,
}

/// What is to be done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillAction {
    /// See how much room there is, and say so by [`Run::looked`].
    CheckCapacity,
    /// Open the lane, and make the prediction.
    Start,
    /// Have the zone seem to fail.
    InjectFault,
    Stop,
    /// It is over: keep it.
    Store,
}

#[derive(Clone, Debug)]
pub struct DrillRun {
    /// Counts up from 1.
    pub id: u64,
    /// What was asked for.
    pub plan: Arc<DrillPlan>,
    /// How far it is.
    pub stage: DrillStage,
    pub timeline: DrillTimeline,
    /// The load, in requests a second over the pools that are concerned.
    pub rate_rps: f64,
    /// Failures that clients may see.
    pub allowed: u64,
    pub counts: DrillCounts,
    pub samples: Vec<DrillSample>,
    pub prediction: Option<DrillPrediction>,
    baseline: DrillCounts,
    conclusion: Option<DrillConclusion>,
    actions: VecDeque<DrillAction>,
}

impl DrillRun {
    pub fn new(id: u64, plan: Arc<DrillPlan>, now: Instant) -> Self {
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
            baseline: DrillCounts::default(),
            conclusion: None,
            actions: VecDeque::new(),
        }
    }

    /// When [`Run::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            // Who has not seen enough looks on.
            DrillStage::Measuring { .. } => Some(now + COUNT_INTERVAL),
            DrillStage::Warming { until } | DrillStage::Failing { until } => {
                Some(until.min(now + COUNT_INTERVAL))
            }
            DrillStage::Evaluating { deadline: by } => Some(by),
            DrillStage::Finished(_) => None,
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<DrillAction> {
        self.actions.pop_front()
    }

    /// Goes on if it is time.
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

    /// There is so much room, and so much load in requests a second.
    pub fn on_capacity_measured(&mut self, capacity: &DrillCapacity, rate_rps: f64, now: Instant) {
        if !matches!(self.stage, DrillStage::Measuring { .. }) {
            return;
        }
        let share = self.plan.share;
        self.rate_rps = rate_rps;
        let expected = rate_rps * share.fraction() * self.plan.length.as_secs_f64();
        self.allowed = self.plan.failure_budget.allowed_failures(expected);
        if let Some(why) = capacity.shortage(share) {
            let conclusion =
                DrillConclusion { outcome: DrillOutcome::CapacityCheckFailed, reason: why };
            return self.finish(Some(conclusion), now);
        }
        self.stage = DrillStage::Warming { until: now + WARM_UP_TIME };
        self.actions.push_back(DrillAction::Start);
    }

    /// The lane's requests since it was opened, and when a client last saw one fail.
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
                    let why = "clients saw failures before anything was made to fail".to_owned();
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

    /// The lane's director showed this.
    pub fn record_milestone(&mut self, mark: DrillMilestone, now: Instant) {
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

    /// Something that is no drill came in between, somebody stopped it, or it costs too much.
    pub fn interrupt(&mut self, why: String, now: Instant) {
        self.finish(Some(DrillConclusion { outcome: DrillOutcome::Interrupted, reason: why }), now);
    }

    /// The prediction is made.
    pub fn on_prediction(&mut self, prediction: DrillPrediction) {
        self.prediction = Some(prediction);
        if matches!(self.stage, DrillStage::Evaluating { .. }) {
            self.conclude();
        }
    }

    /// The end of everything that anybody else notices.
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

    /// It lasted as long as it should: was it as predicted?
    fn evaluate(&self) -> DrillConclusion {
        let failure = |why: String| DrillConclusion { outcome: DrillOutcome::Failed, reason: why };
        let resendable = self.counts.retryable;
        if resendable > 0 {
            return failure(format!(
                "clients saw {resendable} failures of requests that could have been sent again"
            ));
        }
        let predicted = self.prediction.as_ref().and_then(|forecast| forecast.worst);
        let limit = predicted.map(|worst| worst + DETECTION_TOLERANCE);
        match (self.timeline.detection(), limit) {
            (Some(took), Some(limit)) if took > limit => failure(format!(
                "the verdict took {took:.0?}, and {limit:.0?} was the most predicted"
            )),
            (None, Some(limit)) if self.plan.length > limit => {
                failure(format!("no verdict came, and one was predicted within {limit:.0?}"))
            }
            (Some(took), Some(_)) => {
                let why = format!("the verdict took {took:.1?}, as predicted");
                DrillConclusion { outcome: DrillOutcome::Succeeded, reason: why }
            }
            (Some(took), None) => {
                let why = format!("the verdict took {took:.1?}; nothing was predicted");
                DrillConclusion { outcome: DrillOutcome::Succeeded, reason: why }
            }
            (None, limit) => {
                let why = match limit {
                    Some(_) => "it ended before a verdict had to come",
                    None => "no verdict came, and none was predicted",
                };
                let why = why.to_owned();
                DrillConclusion { outcome: DrillOutcome::Succeeded, reason: why }
            }
        }
    }
}
