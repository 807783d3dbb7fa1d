//! A sequential test of the share of failures: an endpoint that fails three of ten requests never
//! fails many in a row.
//!
//! Page's CUSUM over the log-likelihood ratio of "fails as often as usual" against "fails 30 % of
//! the time more" (E. S. Page, *Continuous Inspection Schemes*, 1954). Envoy compares success rates
//! over fixed intervals instead, and detects nothing before the interval ends; this test has no
//! interval, and about a dozen requests decide.

use std::time::{Duration, Instant};

use crate::logic::model::endpoint_stats::AttemptCounts;

/// A score above this is a verdict. Where failures are rare, four in a row reach it, or a dozen
/// requests of which 30 % fail.
pub const VERDICT_SCORE: f32 = 18.0;

/// A score above this is a doubt: one failure where failures are rare.
pub const SUSPECT_SCORE: f32 = 5.0;

/// A doubt ends below this.
pub const CLEAR_SCORE: f32 = 1.0;

/// The lowest baseline: no endpoint is expected to fail less often.
const MIN_BASELINE_RATIO: f64 = 0.001;

/// The test detects failures beyond this multiple of the baseline, because that varies.
const BASELINE_MULTIPLIER: f64 = 3.0;

/// The share of requests that a broken endpoint fails in addition.
const ADDED_FAILURE_RATIO: f64 = 0.3;

/// The decay time of scores and recent counts: failures hours apart must not add up.
const DECAY_TIME: Duration = Duration::from_secs(10);

/// The decay time of the baseline; a failure of seconds hardly changes it.
const BASELINE_DECAY_TIME: Duration = Duration::from_secs(300);

/// Good attempts that a ratio is smoothed with, so that a few failures make no baseline.
const PRIOR_ATTEMPTS: f64 = 100.0;

/// Failures of one batch that are applied one by one; of more only the average counts.
const MAX_STEPS: u64 = 64;

/// Good and bad attempts, exponentially decayed.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecayedCounts {
    good: f32,
    bad: f32,
}

impl DecayedCounts {
    fn decay(&mut self, elapsed: Duration, decay_time: Duration) {
        let factor = decay_factor(elapsed, decay_time);
        self.good *= factor;
        self.bad *= factor;
    }

    fn add(&mut self, attempts: AttemptCounts) {
        self.good += attempts.good as f32;
        self.bad += attempts.bad as f32;
    }

    /// The counts without `part`, never negative.
    #[must_use]
    pub fn minus(self, part: Self) -> Self {
        Self { good: (self.good - part.good).max(0.0), bad: (self.bad - part.bad).max(0.0) }
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { good: self.good + other.good, bad: self.bad + other.bad }
    }

    /// Recent bad attempts.
    pub fn bad(self) -> f32 {
        self.bad
    }

    /// The share that failed, shrunk towards zero while the attempts are few.
    pub fn smoothed_failure_ratio(self) -> f64 {
        f64::from(self.bad) / (f64::from(self.good + self.bad) + PRIOR_ATTEMPTS)
    }

    /// The share that failed; `None` without attempts.
    pub fn failure_ratio(self) -> Option<f64> {
        let all = self.good + self.bad;
        (all >= 0.5).then(|| f64::from(self.bad) / f64::from(all))
    }
}

/// The test of one endpoint or one zone.
#[derive(Clone, Copy, Debug)]
pub struct FailureRatioTest {
    score: f32,
    updated_at: Instant,
    recent: DecayedCounts,
    baseline: DecayedCounts,
    /// Attempts that are not yet part of the baseline: a running failure must not raise it.
    pending: DecayedCounts,
}

impl FailureRatioTest {
    pub fn new(now: Instant) -> Self {
        Self {
            score: 0.0,
            updated_at: now,
            recent: DecayedCounts::default(),
            baseline: DecayedCounts::default(),
            pending: DecayedCounts::default(),
        }
    }

    /// Applies the attempts since the last call; `recent_attempts` is the part of them that counts
    /// as recent. `others` are the recent attempts of the rest of the pool: a failure that all
    /// share makes no verdict.
    pub fn apply_evidence(
        &mut self,
        attempts: AttemptCounts,
        recent_attempts: AttemptCounts,
        others: DecayedCounts,
        now: Instant,
    ) -> f32 {
        self.decay(now);
        let baseline = BASELINE_MULTIPLIER
            * self.baseline.smoothed_failure_ratio().max(others.smoothed_failure_ratio());
        let step = LogLikelihoodStep::for_baseline(baseline.clamp(MIN_BASELINE_RATIO, 0.9));
        self.score = step.accumulate(self.score, attempts);
        self.recent.add(recent_attempts);
        self.pending.add(attempts);
        if self.score < CLEAR_SCORE {
            self.commit_pending();
        }
        self.score
    }

    pub fn decay(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated_at);
        if elapsed.is_zero() {
            return;
        }
        self.updated_at = now;
        self.score *= decay_factor(elapsed, DECAY_TIME);
        self.recent.decay(elapsed, DECAY_TIME);
        self.baseline.decay(elapsed, BASELINE_DECAY_TIME);
    }

    /// The part of `attempts` that counts as recent: a day of good responses must not stand for the
    /// last seconds.
    pub fn recent_part(&self, attempts: AttemptCounts, now: Instant) -> AttemptCounts {
        let age = now.saturating_duration_since(self.updated_at);
        let part = (DECAY_TIME.as_secs_f64() / age.as_secs_f64().max(1e-9)).min(1.0);
        AttemptCounts { good: (attempts.good as f64 * part) as u64, bad: attempts.bad }
    }

    /// The score of the test.
    pub fn score(&self) -> f32 {
        self.score
    }

    /// The recent attempts.
    pub fn recent(&self) -> DecayedCounts {
        self.recent
    }

    /// Begins again at `score`. The baseline stays, without the failures of the verdict: the next
    /// failure is detected as fast as the first.
    pub fn restart(&mut self, score: f32) {
        self.score = score;
        self.recent = DecayedCounts::default();
        self.pending = DecayedCounts::default();
    }

    /// Removes the recent attempts, which a verdict explains.
    pub fn take_recent(&mut self, now: Instant) -> DecayedCounts {
        self.decay(now);
        self.pending = DecayedCounts::default();
        std::mem::take(&mut self.recent)
    }

    /// Removes attempts that the verdict on another endpoint explains: they must not raise the
    /// baseline of the others.
    pub fn exclude(&mut self, part: DecayedCounts, now: Instant) {
        self.decay(now);
        self.recent = self.recent.minus(part);
        self.pending = self.pending.minus(part);
    }

    fn commit_pending(&mut self) {
        self.baseline = self.baseline.plus(self.pending);
        self.pending = DecayedCounts::default();
    }
}

/// What one attempt adds to the score.
#[derive(Clone, Copy, Debug)]
struct LogLikelihoodStep {
    bad: f64,
    good: f64,
}

impl LogLikelihoodStep {
    fn for_baseline(baseline: f64) -> Self {
        let broken = baseline + (1.0 - baseline) * ADDED_FAILURE_RATIO;
        Self { bad: (broken / baseline).ln(), good: ((1.0 - broken) / (1.0 - baseline)).ln() }
    }

    /// The order of good and bad attempts in a batch is unknown: they are spread evenly.
    fn accumulate(self, score: f32, attempts: AttemptCounts) -> f32 {
        let mut score = f64::from(score);
        if attempts.bad == 0 {
            return (score + self.good * attempts.good as f64).max(0.0) as f32;
        }
        let steps = attempts.bad.min(MAX_STEPS);
        let (good, bad) = (attempts.good as f64 / steps as f64, attempts.bad as f64 / steps as f64);
        for _ in 0..steps {
            score = (score + self.good * good).max(0.0) + self.bad * bad.min(1.0);
        }
        score as f32
    }
}

fn decay_factor(elapsed: Duration, decay_time: Duration) -> f32 {
    (-elapsed.as_secs_f32() / decay_time.as_secs_f32()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    const NONE: DecayedCounts = DecayedCounts { good: 0.0, bad: 0.0 };

    /// Requests until the verdict; `None` if there is none.
    fn requests_until_verdict(
        share: f64,
        others: DecayedCounts,
        warmup_requests: u64,
        seed: u64,
        at_most: u64,
    ) -> Option<u64> {
        let mut now = Instant::now();
        let mut ratio = FailureRatioTest::new(now);
        let mut rng = Rng::with_seed(seed);
        for _ in 0..warmup_requests {
            now += Duration::from_millis(10);
            ratio.apply_evidence(
                AttemptCounts { good: 1, bad: 0 },
                AttemptCounts { good: 1, bad: 0 },
                others,
                now,
            );
        }
        (1..=at_most).find(|_| {
            now += Duration::from_millis(10);
            let bad = u64::from(rng.f64() < share);
            ratio.apply_evidence(
                AttemptCounts { good: 1 - bad, bad },
                AttemptCounts { good: 1 - bad, bad },
                others,
                now,
            ) > VERDICT_SCORE
        })
    }

    #[test]
    fn thirty_percent_failures_are_detected_in_a_dozen_requests() {
        let mut took: Vec<u64> = (0..500)
            .map(|seed| requests_until_verdict(0.3, NONE, 1_000, seed, 1_000).expect("decides"))
            .collect();
        took.sort_unstable();
        assert!((8..=16).contains(&took[250]), "median {}", took[250]);
        assert!(took[494] <= 60, "p99 {}", took[494]);
    }

    #[test]
    fn four_consecutive_failures_make_a_verdict() {
        assert_eq!(requests_until_verdict(1.0, NONE, 1_000, 1, 100), Some(4));
    }

    #[test]
    fn baseline_failure_ratio_makes_no_verdict() {
        for share in [0.002, 0.01, 0.02] {
            let usual = DecayedCounts { good: 980.0, bad: 1_000.0 * share as f32 };
            for seed in 0..20 {
                assert_eq!(
                    requests_until_verdict(share, usual, 0, seed, 100_000),
                    None,
                    "{share} {seed}"
                );
            }
        }
    }

    #[test]
    fn pool_wide_failures_make_no_verdict() {
        let others = DecayedCounts { good: 700.0, bad: 300.0 };
        for seed in 0..20 {
            assert_eq!(requests_until_verdict(0.3, others, 0, seed, 10_000), None, "{seed}");
        }
    }

    #[test]
    fn failures_far_apart_make_no_verdict() {
        let mut now = Instant::now();
        let mut ratio = FailureRatioTest::new(now);
        for _ in 0..1_000 {
            now += Duration::from_secs(60);
            let score = ratio.apply_evidence(
                AttemptCounts { good: 0, bad: 1 },
                AttemptCounts { good: 0, bad: 1 },
                NONE,
                now,
            );
            assert!(score < VERDICT_SCORE, "{score}");
        }
    }

    #[test]
    fn batched_attempts_score_like_single_ones() {
        let now = Instant::now();
        let mut ratio = FailureRatioTest::new(now);
        assert!(
            ratio.apply_evidence(
                AttemptCounts { good: 10_000, bad: 10 },
                AttemptCounts { good: 10_000, bad: 10 },
                NONE,
                now
            ) < VERDICT_SCORE
        );
        let mut ratio = FailureRatioTest::new(now);
        assert!(
            ratio.apply_evidence(
                AttemptCounts { good: 70, bad: 30 },
                AttemptCounts { good: 70, bad: 30 },
                NONE,
                now
            ) > VERDICT_SCORE
        );
    }
}
