//! The search for a window in closed form.

use std::time::{Duration, Instant};

use crate::logic::model::outcome::FailureClass;
use crate::logic::model::topology::{DetectionSpec, PoolSpec};
use crate::logic::probing::detection_window;
use crate::logic::probing::probe_schedule::{BURST_TIMEOUT_FLOOR, BURST_TIMEOUT_RTTS};

use super::{FaultKind, TuneConstraint, TuneGoals, TuneSubject, UndetectedReason, predict};
use crate::sim::world::{EndpointBehavior, ProbeResponse};

/// Numbers of strikes that are tried. Never one: a single refused connection is no outage, and
/// observed losses say nothing about those.
const DOWN_AFTER: std::ops::RangeInclusive<u32> = 2..=5;

/// The share of failures that the closed form aims at: above the 99th percentile, because the
/// simulated percentile is random.
const TARGET_SHARE: f64 = 0.995;

/// The share of the interval that may be spent on a longer timeout. A lost packet is a matter of
/// chance; a pause of the endpoint is not, and only a longer timeout tolerates it.
const TIMEOUT_SLACK: f64 = 0.1;

/// First digits of the timeouts that are tried.
const TIMEOUT_DIGITS: [f64; 10] = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0];

/// The maximum of the interval, whatever the target.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// A window that meets a goal.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowChoice {
    pub(super) detect: DetectionSpec,
    pub(super) probes_per_second: f64,
    false_verdicts_yearly: f64,
}

/// All possible windows of one pool.
pub(super) struct SearchSpace<'a> {
    subject: &'a TuneSubject<'a>,
    /// The classes of the faults to detect in time, with the share of failures to aim at per
    /// endpoint.
    fault_classes: Vec<(FailureClass, f64)>,
    /// The faults that no probe detects.
    undetected: Vec<(FaultKind, UndetectedReason)>,
    should_detect_all: bool,
    max_false_verdicts_yearly: f64,
    /// The duration of a probe that is answered.
    probe_time: Duration,
    timeouts: Vec<Duration>,
}

impl<'a> SearchSpace<'a> {
    /// `max_false_verdicts_yearly` is the bound for this pool.
    pub(super) fn new(
        subject: &'a TuneSubject<'a>,
        goals: &TuneGoals,
        max_false_verdicts_yearly: f64,
        base: Instant,
    ) -> Self {
        let (pool, input) = (subject.pool, &subject.input);
        let mut fault_classes: Vec<(FailureClass, f64)> = Vec::new();
        let mut undetected = Vec::new();
        let largest = pool.zones.iter().map(|zone| zone.endpoints.len()).max().unwrap_or(1);
        for &fault in
            goals.faults.iter().filter(|fault| fault.is_applicable_to(pool.primary_probe()))
        {
            if let Some(reason) = predict::undetected_by_probes(pool, input, fault, base) {
                undetected.push((fault, reason));
                continue;
            }
            // Where endpoints get their own verdicts, the last one of a zone counts.
            let has_zone_verdict = predict::has_zone_verdict(pool, fault);
            let independent_endpoints = if has_zone_verdict { 1.0 } else { largest.max(1) as f64 };
            fault_classes.push((fault.class(), TARGET_SHARE.powf(1.0 / independent_endpoints)));
        }
        let probe_time = typical_probe_time(pool, input);
        let least = min_timeout(probe_time);
        let timeouts = candidate_timeouts(least, pool.detect.timeout);
        Self {
            subject,
            fault_classes,
            undetected,
            should_detect_all: goals.should_detect_all,
            max_false_verdicts_yearly,
            probe_time,
            timeouts,
        }
    }

    /// The window that meets `goal` with the fewest probes, up to [`TIMEOUT_SLACK`], or the reasons
    /// why there is none.
    pub(super) fn choose_window(
        &self,
        goal: Duration,
    ) -> Result<WindowChoice, Vec<TuneConstraint>> {
        if self.fault_classes.is_empty() || self.should_detect_all && !self.undetected.is_empty() {
            let undetected_constraint = |&(fault, reason): &(FaultKind, UndetectedReason)| {
                TuneConstraint::Undetected(fault, reason)
            };
            return Err(self.undetected.iter().map(undetected_constraint).collect());
        }
        let candidates: Vec<WindowChoice> = DOWN_AFTER
            .flat_map(|down_after| self.timeouts.iter().map(move |&timeout| (down_after, timeout)))
            .filter_map(|(down_after, timeout)| self.fit_interval(goal, down_after, timeout))
            .collect();
        if candidates.is_empty() {
            return Err(vec![TuneConstraint::Timeout(self.timeouts[0])]);
        }
        let is_within_false_limit =
            |choice: &WindowChoice| choice.false_verdicts_yearly < self.max_false_verdicts_yearly;
        let acceptable = candidates.iter().filter(|choice| is_within_false_limit(choice));
        let Some(frugal) = acceptable.max_by_key(|choice| choice.detect.interval) else {
            let least = candidates
                .iter()
                .map(|choice| choice.false_verdicts_yearly)
                .fold(f64::MAX, f64::min);
            return Err(vec![TuneConstraint::FalseVerdicts(least)]);
        };
        // An interval is never shorter than its timeout.
        let DetectionSpec { interval, timeout, .. } = frugal.detect;
        let interval = round_down_two_digits(interval.mul_f64(1.0 - TIMEOUT_SLACK)).max(timeout);
        let with_interval = candidates.iter().filter(|choice| {
            choice.detect.interval >= interval && choice.detect.timeout <= interval
        });
        let with_longer_timeout = with_interval
            .map(|choice| self.evaluate_choice(goal, DetectionSpec { interval, ..choice.detect }));
        let better = |a: &WindowChoice, b: &WindowChoice| {
            let silent_time =
                |choice: &WindowChoice| choice.detect.timeout * choice.detect.down_after;
            silent_time(a)
                .cmp(&silent_time(b))
                .then(b.false_verdicts_yearly.total_cmp(&a.false_verdicts_yearly))
        };
        Ok(with_longer_timeout.filter(is_within_false_limit).max_by(better).unwrap_or(*frugal))
    }

    /// The longest interval that meets `goal` with this timeout and number of strikes, if any does.
    fn fit_interval(
        &self,
        goal: Duration,
        down_after: u32,
        timeout: Duration,
    ) -> Option<WindowChoice> {
        let configured = self.subject.pool.detect;
        let detect = DetectionSpec {
            timeout,
            // An endpoint has one probe at a time, so that no interval below the timeout has an
            // effect.
            fast_interval: configured.fast_interval.min(timeout),
            down_interval: configured.down_interval.max(timeout),
            down_after,
            ..configured
        };
        let longest = self.fault_classes.iter().map(|&(class, share)| {
            let rest = goal.checked_sub(detection_window::confirmation_time(
                class,
                &detect,
                self.probe_time,
            ))?;
            Some(rest.div_f64(detection_window::probe_wait_quantile(share)))
        });
        let longest = longest.collect::<Option<Vec<_>>>()?.into_iter().min()?;
        let interval = round_down_two_digits(longest.min(MAX_INTERVAL));
        if interval < timeout {
            return None;
        }
        Some(self.evaluate_choice(goal, DetectionSpec { interval, ..detect }))
    }

    /// Evaluates these parameters.
    fn evaluate_choice(&self, goal: Duration, detect: DetectionSpec) -> WindowChoice {
        let worst =
            detection_window::detection_bounds(FailureClass::Silent, &detect, detect.timeout).worst;
        let target = detect.target.map(|_| worst.max(goal));
        let pool =
            PoolSpec { detect: DetectionSpec { target, ..detect }, ..self.subject.pool.clone() };
        WindowChoice {
            detect: pool.detect,
            probes_per_second: super::probes_per_second(&pool),
            false_verdicts_yearly: super::false_verdicts_yearly(&pool, self.subject),
        }
    }
}

/// The duration of a probe that an endpoint answers with its usual latency.
fn typical_probe_time(pool: &PoolSpec, input: &predict::PredictionInput) -> Duration {
    let usual = input.latency.upper_quantile(0.5);
    let healthy = EndpointBehavior::Healthy { latency: input.latency.clone() };
    match healthy.probe_response(pool.primary_probe(), usual) {
        ProbeResponse::Answer { round_trips, service_time: service, .. } => {
            input.round_trip * round_trips + service
        }
        ProbeResponse::Silence(_) => usual,
    }
}

/// An endpoint that has become ten times slower is not down; the same factor holds for a burst.
fn min_timeout(probe_time: Duration) -> Duration {
    let least = (probe_time * BURST_TIMEOUT_RTTS).max(BURST_TIMEOUT_FLOOR);
    Duration::from_millis(least.as_secs_f64().mul_add(1e3, 0.999) as u64)
}

/// The timeouts from `least` up to the configured one, or the default of half a second: a longer
/// one only delays the verdict on silence.
fn candidate_timeouts(least: Duration, configured: Duration) -> Vec<Duration> {
    let most = configured.max(DetectionSpec::default().timeout);
    let steps = (0..8).flat_map(|power| TIMEOUT_DIGITS.map(|digit| digit * 10f64.powi(power)));
    let steps = steps.map(|ms| Duration::from_secs_f64(ms / 1e3));
    let mut all: Vec<Duration> = steps.chain([configured]).filter(|t| *t <= most).collect();
    all.push(least);
    all.retain(|timeout| *timeout >= least);
    all.sort_unstable();
    all.dedup();
    all
}

/// Rounds down to two digits, in whole milliseconds.
fn round_down_two_digits(duration: Duration) -> Duration {
    let ms = duration.as_millis() as u64;
    let unit = 10u64.pow(ms.checked_ilog10().unwrap_or(0).saturating_sub(1));
    Duration::from_millis(ms / unit * unit)
}
