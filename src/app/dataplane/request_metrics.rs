//! Counters of the request path. Each worker writes sets of its own, so that a count is a plain
//! load and store without contention; a scrape sums them up.

mod pool;
mod route_pool;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::app::ops::metrics::{Collect, CounterFamily, FamilyWriter, HistogramBuckets, families};
use crate::logic::request::limits::{LimitKind, LimitScope};

use super::proxy::LocalReplyReason;

pub use pool::{AffinityOutcome, PoolMetrics};
pub use route_pool::{RoutePoolCounts, RoutePoolMetrics};

/// A route, and a pool that it leads to.
type RoutePoolKey = (Arc<str>, Arc<str>);

/// Selects a counter of a set.
type PoolCounter = fn(&PoolMetrics) -> &AtomicU64;

/// Families with one counter for each pool, and where they are read.
const POOL_COUNTERS: [(CounterFamily<1>, PoolCounter); 7] = [
    (families::RETRIES, |metrics| &metrics.retries),
    (families::HEDGES, |metrics| &metrics.hedges),
    (families::UNATTRIBUTED_FAILURES, |metrics| &metrics.unattributed),
    (families::RESCUES, |metrics| &metrics.rescued),
    (families::FALLBACKS, |metrics| &metrics.fallbacks),
    (families::MIRRORED, |metrics| &metrics.mirrored),
    (families::MIRRORS_DROPPED, |metrics| &metrics.mirrors_dropped),
];

/// All counters of an instance. A worker registers a set once and keeps it.
#[derive(Debug, Default)]
pub struct RequestMetrics {
    by_pool: Mutex<BTreeMap<Arc<str>, Vec<Arc<PoolMetrics>>>>,
    by_route_pool: Mutex<BTreeMap<RoutePoolKey, Vec<Arc<RoutePoolMetrics>>>>,
    /// Requests beyond a route's rate, by route.
    rate_limited: Mutex<BTreeMap<Arc<str>, Arc<AtomicU64>>>,
}

/// Adds to a counter that only the calling thread writes.
fn increment(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed) + by, Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RequestMetrics {
    /// A new set of counters for one worker and pool.
    pub fn register_pool(&self, pool: &Arc<str>) -> Arc<PoolMetrics> {
        let metrics = Arc::new(PoolMetrics::default());
        lock(&self.by_pool).entry(Arc::clone(pool)).or_default().push(Arc::clone(&metrics));
        metrics
    }

    /// The counter of requests beyond the rate of `route`, shared by all workers.
    pub fn rate_limited_counter(&self, route: &Arc<str>) -> Arc<AtomicU64> {
        Arc::clone(lock(&self.rate_limited).entry(Arc::clone(route)).or_default())
    }

    /// A new set of counters for one worker, route and pool.
    pub fn register_route_pool(&self, route: &Arc<str>, pool: &Arc<str>) -> Arc<RoutePoolMetrics> {
        let metrics = Arc::new(RoutePoolMetrics::default());
        let key = (Arc::clone(route), Arc::clone(pool));
        lock(&self.by_route_pool).entry(key).or_default().push(Arc::clone(&metrics));
        metrics
    }

    /// Counts since the start, by route and pool.
    pub fn route_pool_counts(&self) -> Vec<(RoutePoolKey, RoutePoolCounts)> {
        let sum = |sets: &[Arc<RoutePoolMetrics>]| {
            let counts = sets.iter().map(|metrics| metrics.read());
            counts.fold(RoutePoolCounts::default(), |sum, counts| sum + counts)
        };
        lock(&self.by_route_pool).iter().map(|(key, sets)| (key.clone(), sum(sets))).collect()
    }

    /// Requests answered since the start, by pool.
    pub fn answered_by_pool(&self) -> Vec<(Arc<str>, u64)> {
        let sum = |sets: &[Arc<PoolMetrics>]| sets.iter().map(|metrics| metrics.answered()).sum();
        lock(&self.by_pool).iter().map(|(pool, sets)| (Arc::clone(pool), sum(sets))).collect()
    }

    /// Requests to this pool answered since the start.
    pub fn answered(&self, pool: &str) -> u64 {
        let by_pool = lock(&self.by_pool);
        by_pool.get(pool).into_iter().flatten().map(|metrics| metrics.answered()).sum()
    }
}

impl Collect for RequestMetrics {
    fn collect(&self, out: &mut FamilyWriter) {
        for (pool, sets) in &*lock(&self.by_pool) {
            PoolSum { pool, sets }.collect(out);
        }
        for (route, count) in &*lock(&self.rate_limited) {
            out.counter(families::RATE_LIMITED, [route], count.load(Relaxed));
        }
    }
}

/// The counters of one pool, summed over workers.
struct PoolSum<'a> {
    pool: &'a Arc<str>,
    sets: &'a [Arc<PoolMetrics>],
}

impl PoolSum<'_> {
    fn sum(&self, counter: impl Fn(&PoolMetrics) -> &AtomicU64) -> u64 {
        self.sets.iter().map(|metrics| counter(metrics).load(Relaxed)).sum()
    }
}

impl Collect for PoolSum<'_> {
    fn collect(&self, out: &mut FamilyWriter) {
        let pool = self.pool;
        for (index, class) in pool::STATUS_CLASSES.iter().enumerate() {
            let count = self.sum(|metrics| &metrics.classes[index]);
            out.counter(families::REQUESTS, [pool, class], count);
        }
        for reason in LocalReplyReason::ALL {
            let count = self.sum(|metrics| &metrics.reasons[reason as usize]);
            out.counter(families::OWN_RESPONSES, [pool, &reason.as_str()], count);
        }
        for scope in LimitScope::ALL {
            for limit in LimitKind::ALL {
                let count = self.sum(|metrics| &metrics.limits[scope as usize][limit as usize]);
                let labels: [&dyn std::fmt::Display; 3] = [pool, &scope.as_str(), &limit.as_str()];
                out.counter(families::BREAKER_REJECTIONS, labels, count);
            }
        }
        for (outcome, label) in AffinityOutcome::ALL {
            let count = self.sum(|metrics| &metrics.affinity_outcomes[outcome as usize]);
            out.counter(families::AFFINITY, [pool, &label], count);
        }
        for (family, counter) in POOL_COUNTERS {
            out.counter(family, [pool], self.sum(counter));
        }
        let buckets = HistogramBuckets {
            counts: (0..=families::REQUEST_BOUNDS_US.len())
                .map(|index| self.sum(|metrics| &metrics.buckets[index]))
                .collect(),
            sum: self.sum(|metrics| &metrics.sum_us) as f64 / 1e6,
        };
        out.histogram(families::REQUEST_DURATION, [pool], &buckets);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::app::ops::metrics::render;

    #[test]
    fn buckets_are_cumulative_and_summed_over_workers() {
        let metrics = RequestMetrics::default();
        let pool: Arc<str> = "web".into();
        let (a, b) = (metrics.register_pool(&pool), metrics.register_pool(&pool));
        a.record_response(200, Duration::from_micros(250));
        a.record_response(503, Duration::from_micros(251));
        b.record_response(200, Duration::from_secs(60));
        b.record_error(LocalReplyReason::NoEndpoint);
        let text = render(Instant::now(), &[&metrics]);
        for line in [
            "gapless_requests_total{pool=\"web\",code=\"2xx\"} 2",
            "gapless_requests_total{pool=\"web\",code=\"5xx\"} 1",
            "gapless_request_duration_seconds_bucket{pool=\"web\",le=\"0.00025\"} 1",
            "gapless_request_duration_seconds_bucket{pool=\"web\",le=\"30\"} 2",
            "gapless_request_duration_seconds_bucket{pool=\"web\",le=\"+Inf\"} 3",
            "gapless_request_duration_seconds_sum{pool=\"web\"} 60.000501",
            "gapless_request_duration_seconds_count{pool=\"web\"} 3",
            "gapless_own_responses_total{pool=\"web\",reason=\"no_endpoint\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }
}
