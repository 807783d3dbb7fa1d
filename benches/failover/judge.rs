//! What the samples of a cell come to, and whether that is good enough for gapless.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::posts::Executed;
use crate::sample::Sample;
use crate::scenario::Bound;

/// A good answer later than this is counted.
const LATE: Duration = Duration::from_millis(150);

/// A POST that is due by then is under way when the failure begins: signals take their time.
const UNDER_WAY: Duration = Duration::from_millis(5);

/// Who fails less than this before the heal had not stopped to.
const STILL: Duration = Duration::from_millis(500);

/// By how much nobody's clocks agree.
const SLACK_S: f64 = 0.002;

/// The rate for which bounds are given.
const RATE_OF_BOUNDS: f64 = 60.0;

/// The share of POSTs.
const POST_SHARE: f64 = 0.2;

/// When the failure began, and when its end did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    /// Just before the first endpoint failed.
    pub(crate) onset: Instant,
    /// Just after the first endpoint was healed.
    pub(crate) healed: Instant,
}

/// What clients saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// From the first request that failed or was late to the last, by when they were due.
    pub(crate) gap_s: f64,
    /// The same of those that failed.
    pub(crate) failing_s: f64,
    /// There were failures until the heal, or nearly.
    pub(crate) is_still_failing: bool,
    /// GETs without a good answer.
    pub(crate) failed_get: usize,
    /// POSTs without one.
    pub(crate) failed_post: usize,
    /// POSTs without one that were under way when the failure began.
    pub(crate) failed_post_under_way: usize,
    /// How many failed in which way.
    pub(crate) failures: BTreeMap<String, usize>,
    /// Good answers that came late.
    pub(crate) late: usize,
    /// The latest good answer.
    pub(crate) max_good_ms: f64,
    /// From the heal to the first answer of those that had failed.
    pub(crate) return_s: Option<f64>,
    /// From the onset to the last good answer of those that failed, by when the request was due.
    pub(crate) left_s: Option<f64>,
    /// POSTs that endpoints have read more than once.
    pub(crate) executed_twice: usize,
    /// Failed POSTs that an endpoint had read.
    pub(crate) executed_failed: usize,
    /// Those of them that it read after the client saw them fail.
    pub(crate) executed_later: usize,
    /// Requests that failed before anything did.
    pub(crate) failed_before: usize,
}

/// Sums up `samples`; `failing` says whether an endpoint was made to fail.
pub(crate) fn figures(
    samples: &[Sample],
    moments: Moments,
    failing: impl Fn(SocketAddr) -> bool,
    executed: &Executed,
) -> Figures {
    let (before, since): (Vec<&Sample>, Vec<&Sample>) =
        samples.iter().partition(|sample| sample.ended < moments.onset);
    let count = |of: &dyn Fn(&Sample) -> bool| since.iter().filter(|sample| of(sample)).count();
    let is_late = |sample: &Sample| sample.is_good() && sample.latency() > LATE;
    let failed: Vec<Instant> = dues(&since, |sample| !sample.is_good());
    let latest =
        since.iter().filter(|sample| sample.is_good()).map(|sample| sample.latency()).max();
    let of_failing: Vec<&&Sample> = since
        .iter()
        .filter(|sample| sample.is_good() && sample.served_by.is_some_and(&failing))
        .collect();
    let back = of_failing.iter().filter(|sample| sample.due >= moments.healed);
    let left = of_failing.iter().map(|sample| sample.due);
    let left = left.filter(|due| (moments.onset..moments.healed).contains(due)).max();
    let mut failures = BTreeMap::new();
    for sample in since.iter().filter(|sample| !sample.is_good()) {
        *failures.entry(sample.end.to_string()).or_insert(0) += 1;
    }
    let under_way = moments.onset + UNDER_WAY;
    let failed_post = |sample: &Sample| sample.is_post && !sample.is_good();
    Figures {
        gap_s: span_s(&dues(&since, |sample| !sample.is_good() || is_late(sample))),
        failing_s: span_s(&failed),
        is_still_failing: failed
            .iter()
            .any(|&due| due + STILL > moments.healed && due < moments.healed),
        failed_get: count(&|sample| !sample.is_post && !sample.is_good()),
        failed_post: count(&failed_post),
        failed_post_under_way: count(&|sample| failed_post(sample) && sample.due <= under_way),
        failures,
        late: count(&is_late),
        max_good_ms: latest.unwrap_or_default().as_secs_f64() * 1e3,
        return_s: back.map(|sample| seconds(moments.healed, sample.ended)).reduce(f64::min),
        left_s: left.map(|due| seconds(moments.onset, due)),
        executed_twice: executed.twice(),
        executed_failed: count(&|sample| failed_post(sample) && executed.has(sample.number)),
        executed_later: count(&|sample| {
            failed_post(sample) && executed.has_after(sample.number, sample.ended_at)
        }),
        failed_before: before.iter().filter(|sample| !sample.is_good()).count(),
    }
}

fn dues(samples: &[&Sample], of: impl Fn(&Sample) -> bool) -> Vec<Instant> {
    samples.iter().filter(|sample| of(sample)).map(|sample| sample.due).collect()
}

fn span_s(dues: &[Instant]) -> f64 {
    let ends = dues.iter().min().zip(dues.iter().max());
    ends.map_or(0.0, |(&first, &last)| seconds(first, last))
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

/// What of `figures` exceeds `bound` under `rate` requests a second, in words.
pub(crate) fn breaches(figures: &Figures, bound: &Bound, rate: f64) -> Vec<String> {
    let allowed = |at_60: f64| (at_60 * rate / RATE_OF_BOUNDS).ceil() as usize;
    let posts = allowed(bound.failed_post) + figures.failed_post_under_way;
    // POSTs that may fail lie so far apart.
    let between = posts.saturating_sub(1) as f64 / (rate * POST_SHARE);
    let counted = [
        ("failed GETs", figures.failed_get, allowed(bound.failed_get)),
        ("failed POSTs", figures.failed_post, posts),
        ("POSTs executed twice", figures.executed_twice, 0),
        ("requests failed before anything did", figures.failed_before, 0),
    ];
    let exceeded = counted.into_iter().filter(|(_, is, at_most)| is > at_most);
    let mut breaches: Vec<String> =
        exceeded.map(|(what, is, at_most)| format!("{is} {what}, at most {at_most}")).collect();
    let gap_s = bound.gap_s + between;
    if figures.failing_s > gap_s + SLACK_S {
        breaches.push(format!("failures over {:.3} s, at most {gap_s:.3} s", figures.failing_s));
    }
    if let (Some(left_s), Some(at_most)) = (figures.left_s, bound.left_s)
        && left_s > at_most
    {
        breaches.push(format!("asked for {left_s:.3} s, at most {at_most:.3} s"));
    }
    breaches
}
