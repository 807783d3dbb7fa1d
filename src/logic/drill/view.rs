//! The part of a drill that workers see: which requests it takes, and how these are steered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fastrand::Rng;
use http::HeaderMap;

use crate::logic::model::id::Locality;
use crate::logic::model::snapshot::Snapshot;

use super::fault::DrillFault;
use super::id::DrillId;
use super::plan::{DrillPlan, SharePercent};

/// A running drill, as published to workers.
#[derive(Debug)]
pub struct DrillView {
    pub id: DrillId,
    pub plan: Arc<DrillPlan>,
    /// The fault is injected; before that the drill only warms up.
    pub is_failing: bool,
    /// Whether the drill covers each pool, in the order of the snapshot.
    pub pools: Vec<bool>,
    /// Counters of its requests.
    pub counters: Arc<DrillCounters>,
    /// The snapshot that steers its requests.
    pub snapshot: Arc<Snapshot>,
}

impl DrillView {
    /// Whether a request to this pool with these headers may be taken by the drill.
    pub fn is_selected(&self, pool: usize, headers: &HeaderMap) -> bool {
        self.pools.get(pool).is_some_and(|is_covered| *is_covered)
            && self.plan.header_match.as_ref().is_none_or(|matching| matching.is_match(headers))
    }

    /// The fault that is injected for this endpoint now, if any.
    pub fn fault_for(&self, place: &Locality, address: SocketAddr) -> Option<DrillFault> {
        let is_target = self.is_failing && self.plan.is_target(place, address);
        is_target.then_some(self.plan.fault)
    }
}

/// Samples a share of requests: exact over every hundred, at random inside, so that no periodic
/// pattern of requests can bias it.
#[derive(Clone, Debug, Default)]
pub struct ShareSampler {
    remaining: u32,
    remaining_hits: u32,
}

impl ShareSampler {
    /// Whether the next request is in the sample.
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

/// Counters of a drill's requests, written by workers.
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
    /// Counts an eligible request, which was taken (`is_sampled`) or not.
    pub fn record_request(&self, is_sampled: bool) {
        self.eligible.fetch_add(1, Relaxed);
        self.requests.fetch_add(u64::from(is_sampled), Relaxed);
    }

    /// Counts an attempt with an injected fault.
    pub fn record_fault(&self) {
        self.faulted.fetch_add(1, Relaxed);
    }

    /// Counts a failure that a client saw; `is_retryable` if the request could have been sent
    /// again.
    pub fn record_failure(&self, now_us: u64, is_retryable: bool) {
        self.failed.fetch_add(1, Relaxed);
        self.retryable.fetch_add(u64::from(is_retryable), Relaxed);
        self.last_failure_us.fetch_max(now_us, Relaxed);
    }

    /// Time of the last failure that a client saw, in microseconds since the epoch; zero for none.
    pub fn last_failure_us(&self) -> u64 {
        self.last_failure_us.load(Relaxed)
    }

    /// The counts so far, without rescues, which endpoint statistics hold.
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

/// Request counts of a drill since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrillCounts {
    /// Requests that the drill could have taken.
    pub eligible: u64,
    /// Requests that it took.
    pub requests: u64,
    /// Attempts with an injected fault.
    pub faulted: u64,
    /// Requests whose clients saw a failure.
    pub failed: u64,
    /// Failed requests that could have been sent again.
    pub retryable: u64,
    /// Requests that met the fault and succeeded at another endpoint.
    pub rescued: u64,
    /// Rescued requests that were answered late.
    pub late: u64,
}

impl DrillCounts {
    /// The counts after `before`.
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
