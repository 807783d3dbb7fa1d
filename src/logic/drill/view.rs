//! What workers see of a drill: whom it takes, and where those then go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fastrand::Rng;
use http::HeaderMap;

use crate::logic::model::id::Locality;

use super::fault::DrillFault;
use super::plan::{DrillPlan, SharePercent};

/// A drill that is on.
#[derive(Debug)]
pub struct DrillView {
    /// Names it among all of this process.
    pub id: u64,
    pub plan: Arc<DrillPlan>,
    /// The zone seems to fail now; before that the lane only warms up.
    pub is_failing: bool,
    /// Which pools it concerns, in the order of the snapshot.
    pub pools: Vec<bool>,
    /// What comes of its requests.
    pub counters: Arc<DrillCounters>,
}

impl DrillView {
    /// Whether a request to this pool with these headers is one of those of which it takes a share.
    pub fn is_selected(&self, pool: usize, headers: &HeaderMap) -> bool {
        self.pools.get(pool).is_some_and(|is| *is)
            && self.plan.header_match.as_ref().is_none_or(|matching| matching.is_match(headers))
    }

    /// How this endpoint seems to fail now.
    pub fn fault_for(&self, place: &Locality, address: SocketAddr) -> Option<DrillFault> {
        let is_target = self.is_failing && self.plan.is_target(place, address);
        is_target.then_some(self.plan.fault)
    }
}

impl DrillPlan {
    /// Whether an endpoint there is one of those that seem to fail.
    pub fn is_target(&self, place: &Locality, address: SocketAddr) -> bool {
        *place == self.zone && self.endpoint.is_none_or(|only| only == address)
    }
}

/// Draws a share that is exact over every hundred, and that no rhythm of requests can dodge.
#[derive(Clone, Debug, Default)]
pub struct ShareSampler {
    remaining: u32,
    remaining_hits: u32,
}

impl ShareSampler {
    /// Whether the next one is drawn.
    pub fn is_sampled(&mut self, share: SharePercent, rng: &mut Rng) -> bool {
        if self.remaining == 0 {
            (self.remaining, self.remaining_hits) = (100, share.percent());
        }
        let is_sampled = rng.u32(..self.remaining) < self.remaining_hits;
        self.remaining -= 1;
        self.remaining_hits -= u32::from(is_sampled);
        is_sampled
    }
}

/// What comes of a lane's requests; written by workers.
#[derive(Debug, Default)]
pub struct DrillCounters {
    eligible: AtomicU64,
    requests: AtomicU64,
    faulted: AtomicU64,
    failed: AtomicU64,
    retryable: AtomicU64,
    last_failure_us: AtomicU64,
}

impl DrillCounters {
    /// A request came of which a share is taken; it was `drawn`, or not.
    pub fn record_request(&self, is_sampled: bool) {
        self.eligible.fetch_add(1, Relaxed);
        self.requests.fetch_add(u64::from(is_sampled), Relaxed);
    }

    /// A try met the fault.
    pub fn record_fault(&self) {
        self.faulted.fetch_add(1, Relaxed);
    }

    /// A client saw a failure; `resendable` if the request could have been sent again.
    pub fn record_failure(&self, now_us: u64, is_retryable: bool) {
        self.failed.fetch_add(1, Relaxed);
        self.retryable.fetch_add(u64::from(is_retryable), Relaxed);
        self.last_failure_us.fetch_max(now_us, Relaxed);
    }

    /// When a client last saw a failure, in microseconds since the epoch; zero is never.
    pub fn last_failure_us(&self) -> u64 {
        self.last_failure_us.load(Relaxed)
    }

    /// What there is so far, with no rescues.
    pub fn counts(&self) -> DrillCounts {
        DrillCounts {
            eligible: self.eligible.load(Relaxed),
            requests: self.requests.load(Relaxed),
            faulted: self.faulted.load(Relaxed),
            failed: self.failed.load(Relaxed),
            retryable: self.retryable.load(Relaxed),
            rescued: 0,
            late: 0,
        }
    }
}

/// Requests of a drill, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrillCounts {
    /// Those of which a share was taken.
    pub eligible: u64,
    /// Those that were taken.
    pub requests: u64,
    /// Tries that met the fault.
    pub faulted: u64,
    /// Those whose clients saw a failure.
    pub failed: u64,
    /// Of these, those that could have been sent again.
    pub retryable: u64,
    /// Those that met the fault and were answered well by another endpoint.
    pub rescued: u64,
    /// Of these, those that were answered late.
    pub late: u64,
}

impl DrillCounts {
    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            eligible: self.eligible - before.eligible,
            requests: self.requests - before.requests,
            faulted: self.faulted - before.faulted,
            failed: self.failed - before.failed,
            retryable: self.retryable - before.retryable,
            rescued: self.rescued - before.rescued,
            late: self.late - before.late,
        }
    }
}
