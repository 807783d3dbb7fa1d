//! When is a share of failures too large? A sequential test, because an endpoint that fails three
//! of ten requests never fails many in a row.
//!
//! Page's CUSUM over the log-likelihood ratio of "fails as often as usual" against "fails 30 % of
//! the time more" (E. S. Page, *Continuous Inspection Schemes*, 1954): it needs no window length,
//! forgets good times at once, and about a dozen requests decide.

use std::time::{Duration, Instant};

use super::live::Tries;

/// A score above this is a verdict: with nothing usual against it, four failures in a row or a
/// dozen requests of which 30 % fail.
pub const GUILTY: f32 = 18.0;

/// A score above this is a doubt: one failure where failures are rare.
pub const DOUBT: f32 = 5.0;

/// A doubt ends below this.
pub const CLEARED: f32 = 1.0;

/// No endpoint is expected to fail less often than this.
const USUAL_AT_LEAST: f64 = 0.001;

/// What is usual varies: the test asks for more than this many times it.
const MARGIN: f64 = 3.0;

/// The share of requests that fail in addition, when something is broken.
const BROKEN_SHARE: f64 = 0.3;

/// Evidence loses its weight over this time: failures that lie hours apart are no row.
const MEMORY: Duration = Duration::from_secs(10);

/// What is usual is learnt over this time; a failure of seconds hardly changes it.
const USUAL_MEMORY: Duration = Duration::from_secs(300);

/// Requests that a ratio must rest on before it is believed against [`USUAL_AT_LEAST`].
const PRIOR_TRIES: f64 = 100.0;

/// Failures that are stepped through one by one; of more only the average counts.
const STEPS: u64 = 64;

/// Good and bad tries that fade with time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faded {
    good: f32,
    bad: f32,
}

impl Faded {
    fn fade(&mut self, elapsed: Duration, memory: Duration) {
        let keep = keep(elapsed, memory);
        self.good *= keep;
        self.bad *= keep;
    }

    fn add(&mut self, tries: Tries) {
        self.good += tries.good as f32;
        self.bad += tries.bad as f32;
    }

    /// What is left without `part`.
    #[must_use]
    pub fn without(self, part: Self) -> Self {
        Self { good: (self.good - part.good).max(0.0), bad: (self.bad - part.bad).max(0.0) }
    }

    /// Sum of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { good: self.good + other.good, bad: self.bad + other.bad }
    }

    /// Bad tries of late.
    #[must_use]
    pub fn bad(self) -> f32 {
        self.bad
    }

    /// The share that failed, drawn towards none while it rests on few.
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.bad) / (f64::from(self.good + self.bad) + PRIOR_TRIES)
    }

    /// The share that failed, as it is; `None` if nothing was tried.
    #[must_use]
    pub fn plain_share(self) -> Option<f64> {
        let all = self.good + self.bad;
        (all >= 0.5).then(|| f64::from(self.bad) / f64::from(all))
    }
}

/// What is held against one endpoint or one zone.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    score: f32,
    at: Instant,
    recent: Faded,
    usual: Faded,
    /// Not yet part of what is usual: what speaks against it now must not excuse it.
    pending: Faded,
}

impl Ratio {
    /// Nothing is known.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            score: 0.0,
            at: now,
            recent: Faded::default(),
            usual: Faded::default(),
            pending: Faded::default(),
        }
    }

    /// Weighs what was tried since the last call, of which `lately` counts as of late. `others` is
    /// how the rest of the pool fared of late: nobody is guilty of what happens to all.
    pub fn weigh(&mut self, tries: Tries, lately: Tries, others: Faded, now: Instant) -> f32 {
        self.fade(now);
        let usual = MARGIN * self.usual.share().max(others.share());
        let step = Step::against(usual.clamp(USUAL_AT_LEAST, 0.9));
        self.score = step.walk(self.score, tries);
        self.recent.add(lately);
        self.pending.add(tries);
        if self.score < CLEARED {
            self.settle();
        }
        self.score
    }

    /// Lets time pass.
    pub fn fade(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        if elapsed.is_zero() {
            return;
        }
        self.at = now;
        self.score *= keep(elapsed, MEMORY);
        self.recent.fade(elapsed, MEMORY);
        self.usual.fade(elapsed, USUAL_MEMORY);
    }

    /// What of tries since the last look is of late: a day of good answers must not stand for the
    /// last seconds.
    #[must_use]
    pub fn lately(&self, tries: Tries, now: Instant) -> Tries {
        let age = now.saturating_duration_since(self.at);
        let part = (MEMORY.as_secs_f64() / age.as_secs_f64().max(1e-9)).min(1.0);
        Tries { good: (tries.good as f64 * part) as u64, bad: tries.bad }
    }

    /// How much speaks against it now.
    #[must_use]
    pub fn score(&self) -> f32 {
        self.score
    }

    /// How it fared of late.
    #[must_use]
    pub fn recent(&self) -> Faded {
        self.recent
    }

    /// Begins anew at `score`. What is usual stays known, and what a verdict was made for has not
    /// become usual: who fails again is found as fast as the first time.
    pub fn restart(&mut self, score: f32) {
        self.score = score;
        self.recent = Faded::default();
        self.pending = Faded::default();
    }

    /// There is a verdict: takes out what was tried of late, which it explains.
    pub fn convict(&mut self, now: Instant) -> Faded {
        self.fade(now);
        self.pending = Faded::default();
        std::mem::take(&mut self.recent)
    }

    /// A part of what was tried of late is explained by the verdict on who failed: it is no excuse for
    /// others.
    pub fn explain(&mut self, part: Faded, now: Instant) {
        self.fade(now);
        self.recent = self.recent.without(part);
        self.pending = self.pending.without(part);
    }

    fn settle(&mut self) {
        self.usual = self.usual.with(self.pending);
        self.pending = Faded::default();
    }
}

/// What one try adds to the score.
#[derive(Clone, Copy, Debug)]
struct Step {
    bad: f64,
    good: f64,
}

impl Step {
    fn against(usual: f64) -> Self {
        let broken = usual + (1.0 - usual) * BROKEN_SHARE;
        Self { bad: (broken / usual).ln(), good: ((1.0 - broken) / (1.0 - usual)).ln() }
    }

    /// The order of good and bad tries between two looks is not known: they are spread evenly.
    fn walk(self, score: f32, tries: Tries) -> f32 {
        let mut score = f64::from(score);
        if tries.bad == 0 {
            return (score + self.good * tries.good as f64).max(0.0) as f32;
        }
        let steps = tries.bad.min(STEPS);
        let (good, bad) = (tries.good as f64 / steps as f64, tries.bad as f64 / steps as f64);
        for _ in 0..steps {
            score = (score + self.good * good).max(0.0) + self.bad * bad.min(1.0);
        }
        score as f32
    }
}

fn keep(elapsed: Duration, memory: Duration) -> f32 {
    (-elapsed.as_secs_f32() / memory.as_secs_f32()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    const NONE: Faded = Faded { good: 0.0, bad: 0.0 };

    /// Requests until the verdict; `None` if it does not come.
    fn decides(share: f64, others: Faded, warm: u64, seed: u64, at_most: u64) -> Option<u64> {
        let mut now = Instant::now();
        let mut ratio = Ratio::new(now);
        let mut rng = Rng::with_seed(seed);
        for _ in 0..warm {
            now += Duration::from_millis(10);
            ratio.weigh(Tries { good: 1, bad: 0 }, Tries { good: 1, bad: 0 }, others, now);
        }
        (1..=at_most).find(|_| {
            now += Duration::from_millis(10);
            let bad = u64::from(rng.f64() < share);
            ratio.weigh(Tries { good: 1 - bad, bad }, Tries { good: 1 - bad, bad }, others, now)
                > GUILTY
        })
    }

    #[test]
    fn about_a_dozen_requests_decide_on_thirty_per_cent() {
        let mut took: Vec<u64> =
            (0..500).map(|seed| decides(0.3, NONE, 1_000, seed, 1_000).expect("decides")).collect();
        took.sort_unstable();
        assert!((8..=16).contains(&took[250]), "median {}", took[250]);
        assert!(took[494] <= 60, "p99 {}", took[494]);
    }

    #[test]
    fn four_failures_in_a_row_decide() {
        assert_eq!(decides(1.0, NONE, 1_000, 1, 100), Some(4));
    }

    #[test]
    fn what_is_usual_is_no_fault() {
        for share in [0.002, 0.01, 0.02] {
            let usual = Faded { good: 980.0, bad: 1_000.0 * share as f32 };
            for seed in 0..20 {
                assert_eq!(decides(share, usual, 0, seed, 100_000), None, "{share} {seed}");
            }
        }
    }

    #[test]
    fn nobody_is_guilty_of_what_happens_to_all() {
        let others = Faded { good: 700.0, bad: 300.0 };
        for seed in 0..20 {
            assert_eq!(decides(0.3, others, 0, seed, 10_000), None, "{seed}");
        }
    }

    #[test]
    fn failures_that_lie_far_apart_are_no_row() {
        let mut now = Instant::now();
        let mut ratio = Ratio::new(now);
        for _ in 0..1_000 {
            now += Duration::from_secs(60);
            let score =
                ratio.weigh(Tries { good: 0, bad: 1 }, Tries { good: 0, bad: 1 }, NONE, now);
            assert!(score < GUILTY, "{score}");
        }
    }

    #[test]
    fn a_batch_counts_as_its_tries_would() {
        let now = Instant::now();
        let mut ratio = Ratio::new(now);
        assert!(
            ratio.weigh(
                Tries { good: 10_000, bad: 10 },
                Tries { good: 10_000, bad: 10 },
                NONE,
                now
            ) < GUILTY
        );
        let mut ratio = Ratio::new(now);
        assert!(
            ratio.weigh(Tries { good: 70, bad: 30 }, Tries { good: 70, bad: 30 }, NONE, now)
                > GUILTY
        );
    }
}
