//! The figures of a cell's samples, and whether they meet the bounds for gapless.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::executed_posts::ExecutedPosts;
use crate::sample::ClientSample;
use crate::scenario::FailoverBound;

/// A slower good response counts as late.
const LATE_THRESHOLD: Duration = Duration::from_millis(150);

/// A POST that is due within this time after the onset counts as in flight: signals take time.
const IN_FLIGHT_MARGIN: Duration = Duration::from_millis(5);

/// Failures within this time before the heal mean that the system was still failing.
const STILL_FAILING_MARGIN: Duration = Duration::from_millis(500);

/// The tolerance for differences between clocks.
const CLOCK_TOLERANCE_S: f64 = 0.002;

/// The rate for which bounds are given.
const BOUNDS_RATE_RPS: f64 = 60.0;

/// The share of POSTs.
const POST_FRACTION: f64 = 0.2;

/// The start of the failure and of the recovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultInterval {
    /// Just before the first endpoint failed.
    pub(crate) onset: Instant,
    /// Just after the first endpoint was healed.
    pub(crate) healed: Instant,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct FailoverFigures {
    /// From the first request that failed or was late to the last, by when they were due.
    pub(crate) gap_s: f64,
    /// From the first request that failed to the last, by when they were due.
    pub(crate) failing_s: f64,
    /// Whether requests failed until shortly before the heal.
    pub(crate) is_still_failing: bool,
    /// GETs without a good response.
    pub(crate) failed_get: usize,
    pub(crate) failed_post: usize,
    /// Failed POSTs that were in flight when the failure began.
    pub(crate) failed_post_under_way: usize,
    /// The number of failures by kind.
    pub(crate) failures: BTreeMap<String, usize>,
    /// Good responses that were late.
    pub(crate) late: usize,
    /// The latency of the slowest good response.
    pub(crate) max_good_ms: f64,
    /// From the heal to the first response of an endpoint that had failed.
    pub(crate) return_s: Option<f64>,
    /// From the onset to the last good response of a failing endpoint, by when the request was due.
    pub(crate) left_s: Option<f64>,
    /// POSTs that endpoints executed more than once.
    pub(crate) executed_twice: usize,
    /// Failed POSTs that an endpoint executed.
    pub(crate) executed_failed: usize,
    /// Failed POSTs that an endpoint executed after the client saw the failure.
    pub(crate) executed_later: usize,
    /// Requests that failed before the onset.
    pub(crate) failed_before: usize,
}

/// Computes the figures of `samples`; `is_failing_endpoint` selects the endpoints that were made to
/// fail.
pub(crate) fn compute_figures(
    samples: &[ClientSample],
    interval: FaultInterval,
    is_failing_endpoint: impl Fn(SocketAddr) -> bool,
    executed_posts: &ExecutedPosts,
) -> FailoverFigures {
    let (before_onset, since_onset): (Vec<&ClientSample>, Vec<&ClientSample>) =
        samples.iter().partition(|sample| sample.ended < interval.onset);
    let count = |predicate: &dyn Fn(&ClientSample) -> bool| {
        since_onset.iter().filter(|sample| predicate(sample)).count()
    };
    let is_late = |sample: &ClientSample| sample.is_good() && sample.latency() > LATE_THRESHOLD;
    let failed: Vec<Instant> = due_times(&since_onset, |sample| !sample.is_good());
    let max_latency =
        since_onset.iter().filter(|sample| sample.is_good()).map(|sample| sample.latency()).max();
    let from_failing: Vec<&&ClientSample> = since_onset
        .iter()
        .filter(|sample| sample.is_good() && sample.served_by.is_some_and(&is_failing_endpoint))
        .collect();
    let after_heal = from_failing.iter().filter(|sample| sample.due >= interval.healed);
    let served_due_times = from_failing.iter().map(|sample| sample.due);
    let last_served_due =
        served_due_times.filter(|due| (interval.onset..interval.healed).contains(due)).max();
    let mut failures = BTreeMap::new();
    for sample in since_onset.iter().filter(|sample| !sample.is_good()) {
        *failures.entry(sample.result.to_string()).or_insert(0) += 1;
    }
    let in_flight_until = interval.onset + IN_FLIGHT_MARGIN;
    let is_failed_post = |sample: &ClientSample| sample.is_post && !sample.is_good();
    FailoverFigures {
        gap_s: span_s(&due_times(&since_onset, |sample| !sample.is_good() || is_late(sample))),
        failing_s: span_s(&failed),
        is_still_failing: failed
            .iter()
            .any(|&due| due + STILL_FAILING_MARGIN > interval.healed && due < interval.healed),
        failed_get: count(&|sample| !sample.is_post && !sample.is_good()),
        failed_post: count(&is_failed_post),
        failed_post_under_way: count(&|sample| {
            is_failed_post(sample) && sample.due <= in_flight_until
        }),
        failures,
        late: count(&is_late),
        max_good_ms: max_latency.unwrap_or_default().as_secs_f64() * 1e3,
        return_s: after_heal
            .map(|sample| seconds_between(interval.healed, sample.ended))
            .reduce(f64::min),
        left_s: last_served_due.map(|due| seconds_between(interval.onset, due)),
        executed_twice: executed_posts.repeated_count(),
        executed_failed: count(&|sample| {
            is_failed_post(sample) && executed_posts.has_number(sample.number)
        }),
        executed_later: count(&|sample| {
            is_failed_post(sample)
                && executed_posts.has_execution_after(sample.number, sample.ended_at)
        }),
        failed_before: before_onset.iter().filter(|sample| !sample.is_good()).count(),
    }
}

fn due_times(samples: &[&ClientSample], predicate: impl Fn(&ClientSample) -> bool) -> Vec<Instant> {
    samples.iter().filter(|sample| predicate(sample)).map(|sample| sample.due).collect()
}

fn span_s(due_times: &[Instant]) -> f64 {
    let first_and_last = due_times.iter().min().zip(due_times.iter().max());
    first_and_last.map_or(0.0, |(&first, &last)| seconds_between(first, last))
}

fn seconds_between(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

/// The figures that exceed `bound` at `rate` requests per second, in words.
pub(crate) fn breaches(figures: &FailoverFigures, bound: &FailoverBound, rate: f64) -> Vec<String> {
    let allowed = |at_60: f64| (at_60 * rate / BOUNDS_RATE_RPS).ceil() as usize;
    let max_failed_posts = allowed(bound.failed_post) + figures.failed_post_under_way;
    // The allowed failed POSTs span at least this time.
    let post_interval_s = max_failed_posts.saturating_sub(1) as f64 / (rate * POST_FRACTION);
    let count_limits = [
        ("failed GETs", figures.failed_get, allowed(bound.failed_get)),
        ("failed POSTs", figures.failed_post, max_failed_posts),
        ("POSTs executed twice", figures.executed_twice, 0),
        ("requests failed before anything did", figures.failed_before, 0),
    ];
    let exceeded = count_limits.into_iter().filter(|(_, is, at_most)| is > at_most);
    let mut breaches: Vec<String> =
        exceeded.map(|(what, is, at_most)| format!("{is} {what}, at most {at_most}")).collect();
    let gap_s = bound.gap_s + post_interval_s;
    if figures.failing_s > gap_s + CLOCK_TOLERANCE_S {
        breaches.push(format!("failures over {:.3} s, at most {gap_s:.3} s", figures.failing_s));
    }
    if let (Some(left_s), Some(at_most)) = (figures.left_s, bound.left_s)
        && left_s > at_most
    {
        breaches.push(format!("in use for {left_s:.3} s, at most {at_most:.3} s"));
    }
    breaches
}
