//! The search, in closed form.

use std::time::{Duration, Instant};

use crate::logic::outcome::Class;
use crate::logic::schedule::{BURST_PATIENCE, BURST_TIMEOUT_FLOOR};
use crate::logic::topology::{Detect, PoolSpec};
use crate::logic::window;

use super::{Constraint, Fault, Subject, Unseen, Wishes, predict};
use crate::sim::world::{Behavior, Meeting};

/// Strikes in a row that are tried. Never one: a single refused connection is no outage, and what is
/// known of losses says nothing of those.
const DOWN_AFTER: std::ops::RangeInclusive<u32> = 2..=5;

/// The share of failures that the closed form aims at: beyond the 99th percentile, so that the
/// simulator's, which is drawn, is below the target in nearly every case.
const AIM: f64 = 0.995;

/// First digits of the timeouts that are tried.
const DIGITS: [f64; 10] = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0];

/// The interval that is never exceeded, whatever the target.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// A window that meets a goal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) detect: Detect,
    pub(super) probes_per_second: f64,
    false_yearly: f64,
}

/// All windows of one pool.
pub(super) struct Space<'a> {
    subject: &'a Subject<'a>,
    /// What must be noticed in time: how it is seen, and the share to aim at for one endpoint.
    kinds: Vec<(Class, f64)>,
    /// What is asked for and never noticed.
    unseen: Vec<(Fault, Unseen)>,
    must_see_all: bool,
    false_yearly: f64,
    /// What a probe takes that is answered.
    answer: Duration,
    timeouts: Vec<Duration>,
}

impl<'a> Space<'a> {
    /// `false_yearly` is what this pool may have of false verdicts.
    pub(super) fn of(
        subject: &'a Subject<'a>,
        wishes: &Wishes,
        false_yearly: f64,
        base: Instant,
    ) -> Self {
        let (pool, question) = (subject.pool, &subject.question);
        let mut kinds: Vec<(Class, f64)> = Vec::new();
        let mut unseen = Vec::new();
        let largest = pool.zones.iter().map(|zone| zone.endpoints.len()).max().unwrap_or(1);
        for &fault in wishes.faults.iter().filter(|fault| fault.concerns(pool.primary())) {
            if let Some(why) = predict::unseen_by_probes(pool, question, fault, base) {
                unseen.push((fault, why));
                continue;
            }
            // Of endpoints that fall each for itself the last one counts.
            let is_whole = predict::falls_as_a_whole(pool, fault);
            let together = if is_whole { 1.0 } else { largest.max(1) as f64 };
            kinds.push((fault.class(), AIM.powf(1.0 / together)));
        }
        let answer = usual_probe(pool, question);
        let least = least_timeout(answer);
        let timeouts = timeouts(least, pool.detect.timeout);
        let must_see_all = wishes.must_see_all;
        Self { subject, kinds, unseen, must_see_all, false_yearly, answer, timeouts }
    }

    /// The window that meets `goal` at the least probing, with the fewest false verdicts of equal
    /// ones; or what is in the way.
    pub(super) fn choose(&self, goal: Duration) -> Result<Choice, Vec<Constraint>> {
        if self.kinds.is_empty() || self.must_see_all && !self.unseen.is_empty() {
            let in_the_way = |&(fault, why): &(Fault, Unseen)| Constraint::Unseen(fault, why);
            return Err(self.unseen.iter().map(in_the_way).collect());
        }
        let in_time: Vec<Choice> = DOWN_AFTER
            .flat_map(|down_after| self.timeouts.iter().map(move |&timeout| (down_after, timeout)))
            .filter_map(|(down_after, timeout)| self.fit(goal, down_after, timeout))
            .collect();
        if in_time.is_empty() {
            return Err(vec![Constraint::Timeout(self.timeouts[0])]);
        }
        let better = |a: &&Choice, b: &&Choice| {
            let interval = a.detect.interval.cmp(&b.detect.interval);
            interval.then(b.false_yearly.total_cmp(&a.false_yearly))
        };
        let quiet = in_time.iter().filter(|choice| choice.false_yearly < self.false_yearly);
        quiet.max_by(better).copied().ok_or_else(|| {
            let least = in_time.iter().map(|choice| choice.false_yearly).fold(f64::MAX, f64::min);
            vec![Constraint::FalseVerdicts(least)]
        })
    }

    /// The longest interval that meets `goal` with this timeout and so many strikes, if any does.
    fn fit(&self, goal: Duration, down_after: u32, timeout: Duration) -> Option<Choice> {
        let configured = self.subject.pool.detect;
        let detect = Detect {
            timeout,
            // Faster than the timeout is never needed: an endpoint has one probe at a time.
            fast_interval: configured.fast_interval.min(timeout),
            down_interval: configured.down_interval.max(timeout),
            down_after,
            ..configured
        };
        let longest = self.kinds.iter().map(|&(class, share)| {
            let rest = goal.checked_sub(window::confirmation(class, &detect, self.answer))?;
            Some(rest.div_f64(window::wait_share(share)))
        });
        let longest = longest.collect::<Option<Vec<_>>>()?.into_iter().min()?;
        let interval = plain(longest.min(LONGEST_INTERVAL));
        if interval < timeout {
            return None;
        }
        let detect = Detect { interval, ..detect };
        let worst = window::bounds(Class::Silent, &detect, timeout).worst;
        let target = configured.target.map(|_| worst.max(goal));
        let pool = PoolSpec { detect: Detect { target, ..detect }, ..self.subject.pool.clone() };
        Some(Choice {
            detect: pool.detect,
            probes_per_second: super::probes_per_second(&pool),
            false_yearly: super::false_yearly(&pool, self.subject),
        })
    }
}

/// What a probe takes that an endpoint answers as usual.
fn usual_probe(pool: &PoolSpec, question: &predict::Question) -> Duration {
    let usual = question.latency.exceeded_by(0.5);
    let healthy = Behavior::Healthy { latency: question.latency.clone() };
    match healthy.meets_probe(pool.primary(), usual) {
        Meeting::Answer { round_trips, service, .. } => question.round_trip * round_trips + service,
        Meeting::Silence(_) => usual,
    }
}

/// What has become ten times slower is not dead: as in a burst.
fn least_timeout(answer: Duration) -> Duration {
    let least = (answer * BURST_PATIENCE).max(BURST_TIMEOUT_FLOOR);
    Duration::from_millis(least.as_secs_f64().mul_add(1e3, 0.999) as u64)
}

/// The timeouts from `least` up to the configured one, or the default's half a second: beyond that
/// a probe would wait for what it is to call silence.
fn timeouts(least: Duration, configured: Duration) -> Vec<Duration> {
    let most = configured.max(Detect::default().timeout);
    let steps = (0..8).flat_map(|power| DIGITS.map(|digit| digit * 10f64.powi(power)));
    let steps = steps.map(|ms| Duration::from_secs_f64(ms / 1e3));
    let mut all: Vec<Duration> = steps.chain([configured]).filter(|t| *t <= most).collect();
    all.push(least);
    all.retain(|timeout| *timeout >= least);
    all.sort_unstable();
    all.dedup();
    all
}

/// The same with two digits, in whole milliseconds, and never longer.
fn plain(duration: Duration) -> Duration {
    let ms = duration.as_millis() as u64;
    let unit = 10u64.pow(ms.checked_ilog10().unwrap_or(0).saturating_sub(1));
    Duration::from_millis(ms / unit * unit)
}
