//! Counts that latency and availability objectives are measured from, by route and pool.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::logic::incident::slo::SloObjectives;
use crate::logic::model::topology::PoolSpec;
use crate::logic::routing::RouteSpec;

use super::increment;

/// One worker's counters for requests of one route to one pool, at least one of which has an
/// objective. Only that worker writes, so a write is a plain store.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RoutePoolMetrics {
    all: AtomicU64,
    failed: AtomicU64,
    slow_for_route: AtomicU64,
    slow_for_pool: AtomicU64,
}

/// Values of [`RoutePoolMetrics`], of one worker or summed over workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoutePoolCounts {
    /// Requests that were answered or failed.
    pub all: u64,
    /// Of all, those whose response was a server error or was truncated.
    pub failed: u64,
    /// Of those that did not fail, the ones slower than the route's objective.
    pub slow_for_route: u64,
    /// Of those that did not fail, the ones slower than the pool's objective.
    pub slow_for_pool: u64,
}

impl Add for RoutePoolCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            all: self.all + other.all,
            failed: self.failed + other.failed,
            slow_for_route: self.slow_for_route + other.slow_for_route,
            slow_for_pool: self.slow_for_pool + other.slow_for_pool,
        }
    }
}

impl RoutePoolMetrics {
    /// Counts a response with this status, whose head came after `elapsed`.
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

    /// Counts a response as failed that [`Self::record_response`] counted as good: its body ended
    /// early.
    pub fn record_truncated(&self) {
        increment(&self.failed, 1);
    }

    pub(super) fn read(&self) -> RoutePoolCounts {
        RoutePoolCounts {
            all: self.all.load(Relaxed),
            failed: self.failed.load(Relaxed),
            slow_for_route: self.slow_for_route.load(Relaxed),
            slow_for_pool: self.slow_for_pool.load(Relaxed),
        }
    }
}

/// Server errors, except those that the request itself causes: 501 (method) and 505 (HTTP version).
fn is_failure(status: u16) -> bool {
    status >= 500 && !matches!(status, 501 | 505)
}
