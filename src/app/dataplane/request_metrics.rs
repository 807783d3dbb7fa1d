//! Counters of the request path: written by one worker each, read when somebody asks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::logic::incident::slo::SloObjectives;
use crate::logic::model::topology::PoolSpec;
use crate::logic::request::limits::{LimitExceeded, LimitKind, LimitScope};
use crate::logic::routing::RouteSpec;

use super::proxy::LocalReplyReason;

/// Upper bounds of the duration buckets, in microseconds.
const BUCKET_BOUNDS_US: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// A route, and the pool that a way of it leads to.
type RoutePoolKey = (Arc<str>, Arc<str>);

type CounterReader = fn(&PoolMetrics) -> u64;

/// Counters that there is one of for each pool.
const COUNTERS: [(&str, &str, CounterReader); 6] = [
    ("gapless_resends_total", "Requests sent to another endpoint.", |m| m.retries.load(Relaxed)),
    (
        "gapless_hedges_total",
        "Requests sent to another endpoint while the first was silent.",
        |m| m.hedges.load(Relaxed),
    ),
    ("gapless_rescued_total", "Requests that met a failure and were answered well.", |m| {
        m.rescued.load(Relaxed)
    }),
    ("gapless_fallbacks_total", "Requests that this pool left to a fallback.", |m| {
        m.fallbacks.load(Relaxed)
    }),
    ("gapless_mirrored_total", "Copies of requests sent to this pool.", |m| {
        m.mirrored.load(Relaxed)
    }),
    ("gapless_mirrors_dropped_total", "Copies not sent, for want of room.", |m| {
        m.mirrors_dropped.load(Relaxed)
    }),
];

/// All meters of an instance, by pool.
#[derive(Debug, Default)]
pub struct RequestMetrics {
    by_pool: Mutex<BTreeMap<Arc<str>, Vec<Arc<PoolMetrics>>>>,
    /// What objectives are measured by.
    by_route_pool: Mutex<BTreeMap<RoutePoolKey, Vec<Arc<RoutePoolMetrics>>>>,
    /// Requests beyond a route's rate, by route.
    rate_limited: Mutex<BTreeMap<Arc<str>, Arc<AtomicU64>>>,
}

/// One worker's counters for requests of one route to one pool, where one of both has an objective.
/// Only that worker writes, so a write is a plain store.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RoutePoolMetrics {
    all: AtomicU64,
    failed: AtomicU64,
    slow_for_route: AtomicU64,
    slow_for_pool: AtomicU64,
}

/// What a [`WayMeter`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoutePoolCounts {
    /// Requests that were answered or failed.
    pub all: u64,
    /// Those that ended in a server error, or in the middle.
    pub failed: u64,
    /// Of the others, those that were slower than the route's objective has it.
    pub slow_for_route: u64,
    /// Of the others, those that were slower than the pool's objective has it.
    pub slow_for_pool: u64,
}

impl RoutePoolMetrics {
    /// A request was answered with this status after `elapsed`.
    pub fn record_response(
        &self,
        status: u16,
        elapsed: Duration,
        route: &RouteSpec,
        pool: &PoolSpec,
    ) {
        increment(&self.all, 1);
        if is_failure(status) {
            return increment(&self.failed, 1);
        }
        let is_slow = |slo: Option<SloObjectives>| {
            slo.and_then(|slo| slo.latency).is_some_and(|latency| elapsed > latency.threshold)
        };
        if is_slow(route.slo) {
            increment(&self.slow_for_route, 1);
        }
        if is_slow(pool.slo) {
            increment(&self.slow_for_pool, 1);
        }
    }

    /// An answer that had begun well ended in the middle.
    pub fn record_truncated(&self) {
        increment(&self.failed, 1);
    }

    fn read(&self) -> RoutePoolCounts {
        RoutePoolCounts {
            all: self.all.load(Relaxed),
            failed: self.failed.load(Relaxed),
            slow_for_route: self.slow_for_route.load(Relaxed),
            slow_for_pool: self.slow_for_pool.load(Relaxed),
        }
    }
}

/// A server error; 501 and 505 speak of the request.
fn is_failure(status: u16) -> bool {
    status >= 500 && !matches!(status, 501 | 505)
}

/// One worker's counters for one pool. Only that worker writes, so a write is a plain store.
#[derive(Debug)]
#[repr(align(128))]
pub struct PoolMetrics {
    classes: [AtomicU64; 5],
    buckets: [AtomicU64; BUCKET_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
    retries: AtomicU64,
    hedges: AtomicU64,
    rescued: AtomicU64,
    fallbacks: AtomicU64,
    mirrored: AtomicU64,
    mirrors_dropped: AtomicU64,
    reasons: [AtomicU64; LocalReplyReason::ALL.len()],
    limits: [[AtomicU64; LimitKind::ALL.len()]; LimitScope::ALL.len()],
    affinity_outcomes: [AtomicU64; AffinityOutcome::ALL.len()],
}

/// What becomes of a request to a pool whose clients stay with an endpoint by a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityOutcome {
    /// It had no cookie.
    NoCookie,
    /// It went where its cookie leads.
    Followed,
    /// Its endpoint does not serve: it has another one.
    Reassigned,
    /// Its first endpoint serves again.
    Returned,
    /// It went elsewhere for once.
    Diverted,
    /// Its cookie was forged, too old, or another pool's; it is counted among the new ones too.
    Refused,
}

impl AffinityOutcome {
    const ALL: [(Self, &str); 6] = [
        (Self::NoCookie, "new"),
        (Self::Followed, "kept"),
        (Self::Reassigned, "moved"),
        (Self::Returned, "returned"),
        (Self::Diverted, "away"),
        (Self::Refused, "refused"),
    ];
}

impl Default for PoolMetrics {
    fn default() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            classes: std::array::from_fn(|_| AtomicU64::new(0)),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
            rescued: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            mirrored: AtomicU64::new(0),
            mirrors_dropped: AtomicU64::new(0),
            reasons: zeros(),
            limits: Default::default(),
            affinity_outcomes: Default::default(),
        }
    }
}

/// One more, by the only writer.
fn increment(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed) + by, Relaxed);
}

impl PoolMetrics {
    /// A request was answered with this status after `elapsed`.
    pub fn record_response(&self, status: u16, elapsed: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        increment(&self.classes[class], 1);
        let us = elapsed.as_micros() as u64;
        let bucket = BUCKET_BOUNDS_US.partition_point(|&bound| bound < us);
        increment(&self.buckets[bucket], 1);
        increment(&self.sum_us, us);
    }

    /// An answer of the proxy's own.
    pub fn record_error(&self, reason: LocalReplyReason) {
        increment(&self.reasons[reason as usize], 1);
    }

    /// A limit kept a request away.
    pub fn record_limit(&self, full: LimitExceeded) {
        increment(&self.limits[full.scope as usize][full.limit as usize], 1);
    }

    /// What became of a request's cookie.
    pub fn record_affinity(&self, affinity_outcome: AffinityOutcome) {
        increment(&self.affinity_outcomes[affinity_outcome as usize], 1);
    }

    /// A request was sent again.
    pub fn record_retry(&self) {
        increment(&self.retries, 1);
    }

    /// A second endpoint was asked beside the first; counts as a resend too.
    pub fn record_hedge(&self) {
        increment(&self.hedges, 1);
    }

    /// A route fell back from this pool.
    pub fn record_fallback(&self) {
        increment(&self.fallbacks, 1);
    }

    /// A copy of a request was sent to this pool, or there was no room for it.
    pub fn record_mirror(&self, is_sent: bool) {
        increment(if is_sent { &self.mirrored } else { &self.mirrors_dropped }, 1);
    }

    /// A request that was sent again was answered well.
    pub fn record_rescue(&self) {
        increment(&self.rescued, 1);
    }
}

impl RequestMetrics {
    /// A new set of counters for one worker and pool. A worker asks once and keeps it.
    pub fn register_pool(&self, pool: &Arc<str>) -> Arc<PoolMetrics> {
        let metrics = Arc::new(PoolMetrics::default());
        let mut by_pool = self.by_pool.lock().unwrap_or_else(PoisonError::into_inner);
        by_pool.entry(Arc::clone(pool)).or_default().push(Arc::clone(&metrics));
        metrics
    }

    /// The counter of requests beyond the rate of `route`, for all workers. A worker asks once and
    /// keeps it.
    pub fn rate_limited_counter(&self, route: &Arc<str>) -> Arc<AtomicU64> {
        let mut limited = self.rate_limited.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(limited.entry(Arc::clone(route)).or_default())
    }

    /// A new set of counters for one worker, route and pool. A worker asks once and keeps it.
    pub fn register_route_pool(&self, route: &Arc<str>, pool: &Arc<str>) -> Arc<RoutePoolMetrics> {
        let metrics = Arc::new(RoutePoolMetrics::default());
        let mut by_way = self.by_route_pool.lock().unwrap_or_else(PoisonError::into_inner);
        let route_pool = (Arc::clone(route), Arc::clone(pool));
        by_way.entry(route_pool).or_default().push(Arc::clone(&metrics));
        metrics
    }

    /// What was counted so far, by route and pool.
    pub fn route_pool_counts(&self) -> Vec<(RoutePoolKey, RoutePoolCounts)> {
        let by_way = self.by_route_pool.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |metrics: &[Arc<RoutePoolMetrics>]| {
            metrics.iter().map(|metrics| metrics.read()).fold(
                RoutePoolCounts::default(),
                |sum, one| RoutePoolCounts {
                    all: sum.all + one.all,
                    failed: sum.failed + one.failed,
                    slow_for_route: sum.slow_for_route + one.slow_for_route,
                    slow_for_pool: sum.slow_for_pool + one.slow_for_pool,
                },
            )
        };
        by_way.iter().map(|(route_pool, metrics)| (route_pool.clone(), sum(metrics))).collect()
    }

    /// Requests answered so far, by pool.
    pub fn answered_by_pool(&self) -> Vec<(Arc<str>, u64)> {
        let by_pool = self.by_pool.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = |metrics: &Arc<PoolMetrics>| -> u64 {
            metrics.classes.iter().map(|class| class.load(Relaxed)).sum()
        };
        let sum = |metrics: &[Arc<PoolMetrics>]| metrics.iter().map(answered).sum();
        by_pool.iter().map(|(pool, metrics)| (Arc::clone(pool), sum(metrics))).collect()
    }

    fn render_rate_limited(&self, page: &mut CounterPage) {
        let limited = self.rate_limited.lock().unwrap_or_else(PoisonError::into_inner);
        if limited.is_empty() {
            return;
        }
        let name = "gapless_rate_limited_total";
        page.push_header(name, "counter", "Requests beyond a route's rate.");
        for (route, count) in &*limited {
            // A route's name may be a path, with anything in it.
            let route = route.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(page.out, "{name}{{route=\"{route}\"}} {}", count.load(Relaxed));
        }
    }

    /// Requests of this pool that were answered so far.
    pub fn answered(&self, pool: &str) -> u64 {
        let by_pool = self.by_pool.lock().unwrap_or_else(PoisonError::into_inner);
        let all = by_pool.get(pool).into_iter().flatten();
        all.flat_map(|metrics| &metrics.classes).map(|class| class.load(Relaxed)).sum()
    }

    /// The counters in Prometheus' text format.
    pub fn render(&self) -> String {
        let by_pool = self.by_pool.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = CounterPage { out: String::new() };
        let total = |meters: &[Arc<PoolMetrics>], read: &dyn Fn(&PoolMetrics) -> u64| -> u64 {
            meters.iter().map(|metrics| read(metrics)).sum()
        };
        page.push_header(
            "gapless_requests_total",
            "counter",
            "Requests answered, by class of status.",
        );
        for (pool, metrics) in &*by_pool {
            for (class, name) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().enumerate() {
                let value = total(metrics, &|metrics| metrics.classes[class].load(Relaxed));
                page.push_sample(
                    "gapless_requests_total",
                    pool,
                    &format!(",code=\"{name}\""),
                    value,
                );
            }
        }
        page.push_header(
            "gapless_own_responses_total",
            "counter",
            "Answers of the proxy's own, by reason.",
        );
        for (pool, metrics) in &*by_pool {
            for reason in LocalReplyReason::ALL {
                let value =
                    total(metrics, &|metrics| metrics.reasons[reason as usize].load(Relaxed));
                let label = format!(",reason=\"{}\"", reason.as_str());
                page.push_sample("gapless_own_responses_total", pool, &label, value);
            }
        }
        let name = "gapless_breaker_rejections_total";
        page.push_header(
            name,
            "counter",
            "Times that a limit kept a request from an endpoint or the pool.",
        );
        for (pool, metrics) in &*by_pool {
            for (scope, limit) in
                LimitScope::ALL.iter().flat_map(|s| LimitKind::ALL.map(|l| (*s, l)))
            {
                let read = |m: &PoolMetrics| m.limits[scope as usize][limit as usize].load(Relaxed);
                let labels = format!(",scope=\"{}\",limit=\"{}\"", scope.as_str(), limit.as_str());
                page.push_sample(name, pool, &labels, total(metrics, &read));
            }
        }
        let name = "gapless_affinity_total";
        page.push_header(
            name,
            "counter",
            "Requests by what became of the cookie by which clients stay.",
        );
        for (pool, metrics) in &*by_pool {
            for (affinity_outcome, label) in AffinityOutcome::ALL {
                let read =
                    |m: &PoolMetrics| m.affinity_outcomes[affinity_outcome as usize].load(Relaxed);
                page.push_sample(
                    name,
                    pool,
                    &format!(",outcome=\"{label}\""),
                    total(metrics, &read),
                );
            }
        }
        for (name, help, read) in COUNTERS {
            page.push_header(name, "counter", help);
            for (pool, metrics) in &*by_pool {
                page.push_sample(name, pool, "", total(metrics, &read));
            }
        }
        let name = "gapless_request_duration_seconds";
        page.push_header(name, "histogram", "From the request's head to the response's head.");
        for (pool, metrics) in &*by_pool {
            page.push_histogram(name, pool, metrics);
        }
        self.render_rate_limited(&mut page);
        page.out
    }
}

struct CounterPage {
    out: String,
}

impl CounterPage {
    fn push_header(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn push_sample(&mut self, name: &str, pool: &str, labels: &str, value: u64) {
        let _ = writeln!(self.out, "{name}{{pool=\"{pool}\"{labels}}} {value}");
    }

    fn push_histogram(&mut self, name: &str, pool: &str, metrics: &[Arc<PoolMetrics>]) {
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for index in 0..=BUCKET_BOUNDS_US.len() {
            count +=
                metrics.iter().map(|metrics| metrics.buckets[index].load(Relaxed)).sum::<u64>();
            let bound = BUCKET_BOUNDS_US
                .get(index)
                .map_or_else(|| "+Inf".to_owned(), |&us| seconds_text(us));
            self.push_sample(&bucket, pool, &format!(",le=\"{bound}\""), count);
        }
        let sum: u64 = metrics.iter().map(|metrics| metrics.sum_us.load(Relaxed)).sum();
        let _ = writeln!(self.out, "{name}_sum{{pool=\"{pool}\"}} {}", seconds_text(sum));
        self.push_sample(&format!("{name}_count"), pool, "", count);
    }
}

fn seconds_text(us: u64) -> String {
    format!("{}", us as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_summed_over_workers() {
        let metrics = RequestMetrics::default();
        let pool: Arc<str> = "web".into();
        let (a, b) = (metrics.register_pool(&pool), metrics.register_pool(&pool));
        a.record_response(200, Duration::from_micros(250));
        a.record_response(503, Duration::from_micros(251));
        b.record_response(200, Duration::from_secs(60));
        b.record_error(LocalReplyReason::NoEndpoint);
        let text = metrics.render();
        for line in [
            "gapless_requests_total{pool=\"web\",code=\"2xx\"} 2",
            "gapless_requests_total{pool=\"web\",code=\"5xx\"} 1",
            "gapless_request_duration_seconds_bucket{pool=\"web\",le=\"0.00025\"} 1",
            "gapless_request_duration_seconds_bucket{pool=\"web\",le=\"30\"} 2",
            "gapless_request_duration_seconds_bucket{pool=\"web\",le=\"+Inf\"} 3",
            "gapless_request_duration_seconds_count{pool=\"web\"} 3",
            "gapless_own_responses_total{pool=\"web\",reason=\"no_endpoint\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
