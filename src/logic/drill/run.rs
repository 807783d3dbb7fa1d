//! One drill from its begin to its outcome: it looks, warms the lane up, has the zone seem to fail,
//! and judges. It ends by itself; whoever asked for it need not live that long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::capacity::Room;
use super::lane::Counts;
use super::plan::Plan;

/// How long the load is looked at before anything happens.
const LOOK: Duration = Duration::from_secs(1);

/// How long a lane takes its share before the zone seems to fail: so its workers and its director have
/// something of their own to compare with.
const WARM: Duration = Duration::from_secs(1);

/// The prediction is waited for this long after the end.
const JUDGED_WITHIN: Duration = Duration::from_secs(60);

/// How often counts are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Samples kept, at most.
const SAMPLES: u32 = 300;

/// A verdict that is later than predicted by no more than this has not left the prediction: the
/// simulated world has neither a scheduler nor neighbours.
pub const LATE_BY: Duration = Duration::from_millis(100);

/// How a drill ended, in the words of AWS for practice runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
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

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Succeeded, Self::Failed, Self::Interrupted, Self::CapacityCheckFailed];

    /// The word used in output.
    #[must_use]
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
pub struct End {
    /// Which.
    pub outcome: Outcome,
    /// Why, in a sentence.
    pub why: String,
}

/// How far a drill has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The load is looked at.
    Looking {
        /// Until then.
        until: Instant,
    },
    /// The lane takes its share, and nothing fails.
    Warming {
        /// Until then.
        until: Instant,
    },
    /// The zone seems to fail.
    Failing {
        /// Until then.
        until: Instant,
    },
    /// It is over but for the prediction, which is still being made.
    Judging {
        /// Not after then.
        by: Instant,
    },
    /// It is over.
    Over(End),
}

impl Stage {
    /// The word used in output.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Looking { .. } => "looking",
            Self::Warming { .. } => "warming",
            Self::Failing { .. } => "failing",
            Self::Judging { .. } => "judging",
            Self::Over(_) => "over",
        }
    }
}

/// When what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
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

impl Timeline {
    /// From onset to verdict.
    #[must_use]
    pub fn detection(&self) -> Option<Duration> {
        Some(self.verdict?.saturating_duration_since(self.onset?))
    }

    /// From onset to the last failure that a client saw; zero if none did.
    #[must_use]
    pub fn gap(&self) -> Option<Duration> {
        let onset = self.onset?;
        Some(self.last_failure.map_or(Duration::ZERO, |last| last.saturating_duration_since(onset)))
    }
}

/// What a lane's director showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// An endpoint is suspect.
    Suspect,
    /// All that seems to fail has a verdict.
    Verdict,
    /// A snapshot was published.
    Published,
}

/// What was predicted: the largest over the pools that are concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// The kind of failure, as `gapless predict` calls it.
    pub class: &'static str,
    /// Requests a second with which it was predicted.
    pub rate_rps: f64,
    /// Half of the trials were noticed within this.
    pub median: Option<Duration>,
    /// All but a hundredth.
    pub p99: Option<Duration>,
    /// All.
    pub worst: Option<Duration>,
    /// Why there is no window, in a word.
    pub unseen: Option<&'static str>,
}

/// Counts at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// Since the onset.
    pub counts: Counts,
}

/// What is to be done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// See how much room there is, and say so by [`Run::looked`].
    Look,
    /// Open the lane, and make the prediction.
    Open,
    /// Have the zone seem to fail.
    Fail,
    /// Close the lane.
    Close,
    /// It is over: keep it.
    File,
}

/// A drill.
#[derive(Clone, Debug)]
pub struct Run {
    /// Counts up from 1.
    pub id: u64,
    /// What was asked for.
    pub plan: Arc<Plan>,
    /// How far it is.
    pub stage: Stage,
    /// When what happened.
    pub timeline: Timeline,
    /// The load, in requests a second over the pools that are concerned.
    pub rate_rps: f64,
    /// Failures that clients may see.
    pub allowed: u64,
    /// Since the onset.
    pub counts: Counts,
    /// Over its time.
    pub samples: Vec<Sample>,
    /// What was predicted.
    pub forecast: Option<Forecast>,
    before: Counts,
    end: Option<End>,
    todo: VecDeque<Todo>,
}

impl Run {
    /// Begins.
    #[must_use]
    pub fn begin(id: u64, plan: Arc<Plan>, now: Instant) -> Self {
        let timeline = Timeline {
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
            stage: Stage::Looking { until: now + LOOK },
            timeline,
            rate_rps: 0.0,
            allowed: 0,
            counts: Counts::default(),
            samples: Vec::new(),
            forecast: None,
            before: Counts::default(),
            end: None,
            todo: VecDeque::new(),
        }
    }

    /// When [`Run::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            // Who has not seen enough looks on.
            Stage::Looking { .. } => Some(now + LOOK_EVERY),
            Stage::Warming { until } | Stage::Failing { until } => {
                Some(until.min(now + LOOK_EVERY))
            }
            Stage::Judging { by } => Some(by),
            Stage::Over(_) => None,
        }
    }

    /// What is to be done next.
    pub fn poll_todo(&mut self) -> Option<Todo> {
        self.todo.pop_front()
    }

    /// Goes on if it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.stage {
            Stage::Looking { until } if until <= now && self.todo.is_empty() => {
                self.todo.push_back(Todo::Look);
            }
            Stage::Warming { until } if until <= now => {
                self.stage = Stage::Failing { until: now + self.plan.length };
                self.timeline.onset = Some(now);
                self.before = self.counts;
                self.counts = Counts::default();
                self.samples.push(Sample { at: now, counts: self.counts });
                self.todo.push_back(Todo::Fail);
            }
            Stage::Failing { until } if until <= now => self.close(None, now),
            Stage::Judging { by } if by <= now => self.judge(),
            _ => {}
        }
    }

    /// There is so much room, and so much load in requests a second.
    pub fn looked(&mut self, room: &Room, rate_rps: f64, now: Instant) {
        if !matches!(self.stage, Stage::Looking { .. }) {
            return;
        }
        let share = self.plan.share;
        self.rate_rps = rate_rps;
        let expected = rate_rps * share.part() * self.plan.length.as_secs_f64();
        self.allowed = self.plan.allowance.of(expected);
        if let Some(why) = room.shortage(share) {
            let end = End { outcome: Outcome::CapacityCheckFailed, why };
            return self.close(Some(end), now);
        }
        self.stage = Stage::Warming { until: now + WARM };
        self.todo.push_back(Todo::Open);
    }

    /// The lane's requests since it was opened, and when a client last saw one fail.
    pub fn count(&mut self, counts: Counts, last_failure: Option<Instant>, now: Instant) {
        match self.stage {
            Stage::Warming { .. } => {
                self.counts = counts;
                if counts.failed > self.allowed {
                    let why = "clients saw failures before anything was made to fail".to_owned();
                    self.interrupt(why, now);
                }
            }
            Stage::Failing { .. } => {
                self.counts = counts.since(self.before);
                if self.counts.failed > 0 {
                    self.timeline.last_failure = last_failure;
                }
                self.sample(now);
                if self.counts.failed > self.allowed {
                    let why = format!(
                        "{} requests failed, and {} may (`abort-budget`)",
                        self.counts.failed, self.allowed
                    );
                    self.interrupt(why, now);
                }
            }
            Stage::Looking { .. } | Stage::Judging { .. } | Stage::Over(_) => {}
        }
    }

    fn sample(&mut self, now: Instant) {
        let apart = (self.plan.length / SAMPLES).max(LOOK_EVERY);
        if self.samples.last().is_none_or(|last| now >= last.at + apart) {
            self.samples.push(Sample { at: now, counts: self.counts });
        }
    }

    /// The lane's director showed this.
    pub fn mark(&mut self, mark: Mark, now: Instant) {
        if !matches!(self.stage, Stage::Failing { .. }) {
            return;
        }
        let Timeline { suspect, verdict, shift, .. } = &mut self.timeline;
        match mark {
            Mark::Suspect => _ = suspect.get_or_insert(now),
            Mark::Verdict => _ = verdict.get_or_insert(now),
            Mark::Published if verdict.is_some() => _ = shift.get_or_insert(now),
            Mark::Published => {}
        }
    }

    /// Something that is no drill came in between, somebody stopped it, or it costs too much.
    pub fn interrupt(&mut self, why: String, now: Instant) {
        self.close(Some(End { outcome: Outcome::Interrupted, why }), now);
    }

    /// The prediction is made.
    pub fn foretold(&mut self, forecast: Forecast) {
        self.forecast = Some(forecast);
        if matches!(self.stage, Stage::Judging { .. }) {
            self.judge();
        }
    }

    /// The end of everything that anybody else notices.
    fn close(&mut self, end: Option<End>, now: Instant) {
        let is_open = match self.stage {
            Stage::Looking { .. } => false,
            Stage::Warming { .. } | Stage::Failing { .. } => true,
            Stage::Judging { .. } | Stage::Over(_) => return,
        };
        self.todo.clear();
        if is_open {
            self.todo.push_back(Todo::Close);
        }
        if self.timeline.onset.is_some() {
            self.samples.push(Sample { at: now, counts: self.counts });
        }
        self.timeline.ended = Some(now);
        self.end = end;
        self.stage = Stage::Judging { by: now + JUDGED_WITHIN };
        if self.end.is_some() || self.forecast.is_some() {
            self.judge();
        }
    }

    fn judge(&mut self) {
        let end = self.end.take().unwrap_or_else(|| self.verdict());
        self.stage = Stage::Over(end);
        self.todo.push_back(Todo::File);
    }

    /// It lasted as long as it should: was it as predicted?
    fn verdict(&self) -> End {
        let failed = |why: String| End { outcome: Outcome::Failed, why };
        let resendable = self.counts.resendable;
        if resendable > 0 {
            return failed(format!(
                "clients saw {resendable} failures of requests that could have been sent again"
            ));
        }
        let predicted = self.forecast.as_ref().and_then(|forecast| forecast.worst);
        let limit = predicted.map(|worst| worst + LATE_BY);
        match (self.timeline.detection(), limit) {
            (Some(took), Some(limit)) if took > limit => failed(format!(
                "the verdict took {took:.0?}, and {limit:.0?} was the most predicted"
            )),
            (None, Some(limit)) if self.plan.length > limit => {
                failed(format!("no verdict came, and one was predicted within {limit:.0?}"))
            }
            (Some(took), Some(_)) => {
                let why = format!("the verdict took {took:.1?}, as predicted");
                End { outcome: Outcome::Succeeded, why }
            }
            (Some(took), None) => {
                let why = format!("the verdict took {took:.1?}; nothing was predicted");
                End { outcome: Outcome::Succeeded, why }
            }
            (None, limit) => {
                let why = match limit {
                    Some(_) => "it ended before a verdict had to come",
                    None => "no verdict came, and none was predicted",
                };
                let why = why.to_owned();
                End { outcome: Outcome::Succeeded, why }
            }
        }
    }
}
