//! Counters of the request path: written by one worker each, read when somebody asks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::logic::breaker::{Full, Limit, Scope};
use crate::logic::route::RouteSpec;
use crate::logic::slo::Slo;
use crate::logic::topology::PoolSpec;

use super::proxy::Reason;

/// Upper bounds of the duration buckets, in microseconds.
const BOUNDS_US: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// A route, and the pool that a way of it leads to.
type Way = (Arc<str>, Arc<str>);

type Read = fn(&PoolMeter) -> u64;

/// Counters that there is one of for each pool.
const COUNTERS: [(&str, &str, Read); 6] = [
    ("gapless_resends_total", "Requests sent to another endpoint.", |m| m.resends.load(Relaxed)),
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
pub struct Meters {
    by_pool: Mutex<BTreeMap<Arc<str>, Vec<Arc<PoolMeter>>>>,
    /// What objectives are measured by.
    by_way: Mutex<BTreeMap<Way, Vec<Arc<WayMeter>>>>,
    /// Requests beyond a route's rate, by route.
    limited: Mutex<BTreeMap<Arc<str>, Arc<AtomicU64>>>,
}

/// One worker's counters for requests of one route to one pool, where one of both has an objective.
/// Only that worker writes, so a write is a plain store.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct WayMeter {
    all: AtomicU64,
    failed: AtomicU64,
    slow_for_route: AtomicU64,
    slow_for_pool: AtomicU64,
}

/// What a [`WayMeter`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WayCounts {
    /// Requests that were answered or failed.
    pub all: u64,
    /// Those that ended in a server error, or in the middle.
    pub failed: u64,
    /// Of the others, those that were slower than the route's objective has it.
    pub slow_for_route: u64,
    /// Of the others, those that were slower than the pool's objective has it.
    pub slow_for_pool: u64,
}

impl WayMeter {
    /// A request was answered with this status after `elapsed`.
    pub fn answered(&self, status: u16, elapsed: Duration, route: &RouteSpec, pool: &PoolSpec) {
        bump(&self.all, 1);
        if is_failure(status) {
            return bump(&self.failed, 1);
        }
        let is_slow = |slo: Option<Slo>| {
            slo.and_then(|slo| slo.latency).is_some_and(|latency| elapsed > latency.under)
        };
        if is_slow(route.slo) {
            bump(&self.slow_for_route, 1);
        }
        if is_slow(pool.slo) {
            bump(&self.slow_for_pool, 1);
        }
    }

    /// An answer that had begun well ended in the middle.
    pub fn was_cut(&self) {
        bump(&self.failed, 1);
    }

    fn read(&self) -> WayCounts {
        WayCounts {
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
pub struct PoolMeter {
    classes: [AtomicU64; 5],
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
    resends: AtomicU64,
    hedges: AtomicU64,
    rescued: AtomicU64,
    fallbacks: AtomicU64,
    mirrored: AtomicU64,
    mirrors_dropped: AtomicU64,
    reasons: [AtomicU64; Reason::ALL.len()],
    limits: [[AtomicU64; Limit::ALL.len()]; Scope::ALL.len()],
    courses: [AtomicU64; Course::ALL.len()],
}

/// What becomes of a request to a pool whose clients stay with an endpoint by a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It had no cookie.
    New,
    /// It went where its cookie leads.
    Kept,
    /// Its endpoint does not serve: it has another one.
    Moved,
    /// Its first endpoint serves again.
    Returned,
    /// It went elsewhere for once.
    Away,
    /// Its cookie was forged, too old, or another pool's; it is counted among the new ones too.
    Refused,
}

impl Course {
    const ALL: [(Self, &str); 6] = [
        (Self::New, "new"),
        (Self::Kept, "kept"),
        (Self::Moved, "moved"),
        (Self::Returned, "returned"),
        (Self::Away, "away"),
        (Self::Refused, "refused"),
    ];
}

impl Default for PoolMeter {
    fn default() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            classes: std::array::from_fn(|_| AtomicU64::new(0)),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
            resends: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
            rescued: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            mirrored: AtomicU64::new(0),
            mirrors_dropped: AtomicU64::new(0),
            reasons: zeros(),
            limits: Default::default(),
            courses: Default::default(),
        }
    }
}

/// One more, by the only writer.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed) + by, Relaxed);
}

impl PoolMeter {
    /// A request was answered with this status after `elapsed`.
    pub fn answered(&self, status: u16, elapsed: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        bump(&self.classes[class], 1);
        let us = elapsed.as_micros() as u64;
        let bucket = BOUNDS_US.partition_point(|&bound| bound < us);
        bump(&self.buckets[bucket], 1);
        bump(&self.sum_us, us);
    }

    /// An answer of the proxy's own.
    pub fn refused(&self, reason: Reason) {
        bump(&self.reasons[reason as usize], 1);
    }

    /// A limit kept a request away.
    pub fn limited(&self, full: Full) {
        bump(&self.limits[full.scope as usize][full.limit as usize], 1);
    }

    /// What became of a request's cookie.
    pub fn steered(&self, course: Course) {
        bump(&self.courses[course as usize], 1);
    }

    /// A request was sent again.
    pub fn resent(&self) {
        bump(&self.resends, 1);
    }

    /// A second endpoint was asked beside the first; counts as a resend too.
    pub fn hedged(&self) {
        bump(&self.hedges, 1);
    }

    /// A route fell back from this pool.
    pub fn fell_back(&self) {
        bump(&self.fallbacks, 1);
    }

    /// A copy of a request was sent to this pool, or there was no room for it.
    pub fn mirrored(&self, is_sent: bool) {
        bump(if is_sent { &self.mirrored } else { &self.mirrors_dropped }, 1);
    }

    /// A request that was sent again was answered well.
    pub fn rescued(&self) {
        bump(&self.rescued, 1);
    }
}

impl Meters {
    /// A new set of counters for one worker and pool. A worker asks once and keeps it.
    #[must_use]
    pub fn meter(&self, pool: &Arc<str>) -> Arc<PoolMeter> {
        let meter = Arc::new(PoolMeter::default());
        let mut by_pool = self.by_pool.lock().unwrap_or_else(PoisonError::into_inner);
        by_pool.entry(Arc::clone(pool)).or_default().push(Arc::clone(&meter));
        meter
    }

    /// The counter of requests beyond the rate of `route`, for all workers. A worker asks once and
    /// keeps it.
    #[must_use]
    pub fn limited(&self, route: &Arc<str>) -> Arc<AtomicU64> {
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(limited.entry(Arc::clone(route)).or_default())
    }

    /// A new set of counters for one worker, route and pool. A worker asks once and keeps it.
    #[must_use]
    pub fn way(&self, route: &Arc<str>, pool: &Arc<str>) -> Arc<WayMeter> {
        let meter = Arc::new(WayMeter::default());
        let mut by_way = self.by_way.lock().unwrap_or_else(PoisonError::into_inner);
        let way = (Arc::clone(route), Arc::clone(pool));
        by_way.entry(way).or_default().push(Arc::clone(&meter));
        meter
    }

    /// What was counted so far, by route and pool.
    #[must_use]
    pub fn ways(&self) -> Vec<(Way, WayCounts)> {
        let by_way = self.by_way.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |meters: &[Arc<WayMeter>]| {
            meters.iter().map(|meter| meter.read()).fold(WayCounts::default(), |sum, one| {
                WayCounts {
                    all: sum.all + one.all,
                    failed: sum.failed + one.failed,
                    slow_for_route: sum.slow_for_route + one.slow_for_route,
                    slow_for_pool: sum.slow_for_pool + one.slow_for_pool,
                }
            })
        };
        by_way.iter().map(|(way, meters)| (way.clone(), sum(meters))).collect()
    }

    /// Requests answered so far, by pool.
    #[must_use]
    pub fn answered_by_pool(&self) -> Vec<(Arc<str>, u64)> {
        let by_pool = self.by_pool.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = |meter: &Arc<PoolMeter>| -> u64 {
            meter.classes.iter().map(|class| class.load(Relaxed)).sum()
        };
        let sum = |meters: &[Arc<PoolMeter>]| meters.iter().map(answered).sum();
        by_pool.iter().map(|(pool, meters)| (Arc::clone(pool), sum(meters))).collect()
    }

    fn render_limited(&self, page: &mut Page) {
        let limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        if limited.is_empty() {
            return;
        }
        let name = "gapless_rate_limited_total";
        page.head(name, "counter", "Requests beyond a route's rate.");
        for (route, count) in &*limited {
            // A route's name may be a path, with anything in it.
            let route = route.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(page.out, "{name}{{route=\"{route}\"}} {}", count.load(Relaxed));
        }
    }

    /// Requests of this pool that were answered so far.
    #[must_use]
    pub fn answered(&self, pool: &str) -> u64 {
        let by_pool = self.by_pool.lock().unwrap_or_else(PoisonError::into_inner);
        let all = by_pool.get(pool).into_iter().flatten();
        all.flat_map(|meter| &meter.classes).map(|class| class.load(Relaxed)).sum()
    }

    /// The counters in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let by_pool = self.by_pool.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = Page { out: String::new() };
        let total = |meters: &[Arc<PoolMeter>], read: &dyn Fn(&PoolMeter) -> u64| -> u64 {
            meters.iter().map(|meter| read(meter)).sum()
        };
        page.head("gapless_requests_total", "counter", "Requests answered, by class of status.");
        for (pool, meters) in &*by_pool {
            for (class, name) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().enumerate() {
                let value = total(meters, &|meter| meter.classes[class].load(Relaxed));
                page.line("gapless_requests_total", pool, &format!(",code=\"{name}\""), value);
            }
        }
        page.head(
            "gapless_own_responses_total",
            "counter",
            "Answers of the proxy's own, by reason.",
        );
        for (pool, meters) in &*by_pool {
            for reason in Reason::ALL {
                let value = total(meters, &|meter| meter.reasons[reason as usize].load(Relaxed));
                let label = format!(",reason=\"{}\"", reason.as_str());
                page.line("gapless_own_responses_total", pool, &label, value);
            }
        }
        let name = "gapless_breaker_rejections_total";
        page.head(
            name,
            "counter",
            "Times that a limit kept a request from an endpoint or the pool.",
        );
        for (pool, meters) in &*by_pool {
            for (scope, limit) in Scope::ALL.iter().flat_map(|s| Limit::ALL.map(|l| (*s, l))) {
                let read = |m: &PoolMeter| m.limits[scope as usize][limit as usize].load(Relaxed);
                let labels = format!(",scope=\"{}\",limit=\"{}\"", scope.as_str(), limit.as_str());
                page.line(name, pool, &labels, total(meters, &read));
            }
        }
        let name = "gapless_affinity_total";
        page.head(name, "counter", "Requests by what became of the cookie by which clients stay.");
        for (pool, meters) in &*by_pool {
            for (course, word) in Course::ALL {
                let read = |m: &PoolMeter| m.courses[course as usize].load(Relaxed);
                page.line(name, pool, &format!(",outcome=\"{word}\""), total(meters, &read));
            }
        }
        for (name, help, read) in COUNTERS {
            page.head(name, "counter", help);
            for (pool, meters) in &*by_pool {
                page.line(name, pool, "", total(meters, &read));
            }
        }
        let name = "gapless_request_duration_seconds";
        page.head(name, "histogram", "From the request's head to the response's head.");
        for (pool, meters) in &*by_pool {
            page.histogram(name, pool, meters);
        }
        self.render_limited(&mut page);
        page.out
    }
}

struct Page {
    out: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, pool: &str, labels: &str, value: u64) {
        let _ = writeln!(self.out, "{name}{{pool=\"{pool}\"{labels}}} {value}");
    }

    fn histogram(&mut self, name: &str, pool: &str, meters: &[Arc<PoolMeter>]) {
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for index in 0..=BOUNDS_US.len() {
            count += meters.iter().map(|meter| meter.buckets[index].load(Relaxed)).sum::<u64>();
            let bound = BOUNDS_US.get(index).map_or_else(|| "+Inf".to_owned(), |&us| seconds(us));
            self.line(&bucket, pool, &format!(",le=\"{bound}\""), count);
        }
        let sum: u64 = meters.iter().map(|meter| meter.sum_us.load(Relaxed)).sum();
        let _ = writeln!(self.out, "{name}_sum{{pool=\"{pool}\"}} {}", seconds(sum));
        self.line(&format!("{name}_count"), pool, "", count);
    }
}

fn seconds(us: u64) -> String {
    format!("{}", us as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_summed_over_workers() {
        let meters = Meters::default();
        let pool: Arc<str> = "web".into();
        let (a, b) = (meters.meter(&pool), meters.meter(&pool));
        a.answered(200, Duration::from_micros(250));
        a.answered(503, Duration::from_micros(251));
        b.answered(200, Duration::from_secs(60));
        b.refused(Reason::NoEndpoint);
        let text = meters.render();
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
