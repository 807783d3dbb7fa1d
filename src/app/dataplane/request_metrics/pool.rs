//! One worker's counters for one pool.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::app::dataplane::proxy::LocalReplyReason;
use crate::app::ops::metrics::families::REQUEST_BOUNDS_US;
use crate::logic::request::limits::{LimitExceeded, LimitKind, LimitScope};

use super::increment;

/// Classes of status, 1xx to 5xx.
pub(super) const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// One worker's counters for one pool. Only that worker writes, so a write is a plain store.
#[derive(Debug)]
#[repr(align(128))]
pub struct PoolMetrics {
    pub(super) classes: [AtomicU64; STATUS_CLASSES.len()],
    /// Not cumulative; the last one is beyond all bounds.
    pub(super) buckets: [AtomicU64; REQUEST_BOUNDS_US.len() + 1],
    pub(super) sum_us: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) hedges: AtomicU64,
    pub(super) rescued: AtomicU64,
    pub(super) unattributed: AtomicU64,
    pub(super) fallbacks: AtomicU64,
    pub(super) mirrored: AtomicU64,
    pub(super) mirrors_dropped: AtomicU64,
    pub(super) reasons: [AtomicU64; LocalReplyReason::ALL.len()],
    pub(super) limits: [[AtomicU64; LimitKind::ALL.len()]; LimitScope::ALL.len()],
    pub(super) affinity_outcomes: [AtomicU64; AffinityOutcome::ALL.len()],
}

/// Where a request to a pool with cookie affinity goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityOutcome {
    /// The request has no cookie; the response sets one.
    NoCookie,
    /// To the endpoint in its cookie.
    Followed,
    /// To another endpoint, and a new cookie names that one: the first does not serve.
    Reassigned,
    /// Back to the client's first endpoint, which serves again.
    Returned,
    /// To another endpoint for this request only; the cookie stays.
    Diverted,
    /// The cookie is forged, too old, or another pool's. The request counts as [`Self::NoCookie`]
    /// too.
    Refused,
}

impl AffinityOutcome {
    /// All of them, with the values of the label `outcome`.
    pub(super) const ALL: [(Self, &str); 6] = [
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
            classes: Default::default(),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
            rescued: AtomicU64::new(0),
            unattributed: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            mirrored: AtomicU64::new(0),
            mirrors_dropped: AtomicU64::new(0),
            reasons: zeros(),
            limits: Default::default(),
            affinity_outcomes: Default::default(),
        }
    }
}

impl PoolMetrics {
    /// Counts a response with this status, whose head came after `elapsed`.
    pub fn record_response(&self, status: u16, elapsed: Duration) {
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        increment(&self.classes[class], 1);
        let us = elapsed.as_micros() as u64;
        let bucket = REQUEST_BOUNDS_US.partition_point(|&bound| bound < us);
        increment(&self.buckets[bucket], 1);
        increment(&self.sum_us, us);
    }

    /// Counts an error response that the proxy made itself.
    pub fn record_error(&self, reason: LocalReplyReason) {
        increment(&self.reasons[reason as usize], 1);
    }

    /// Counts a limit that kept a request from an endpoint or the pool.
    pub fn record_limit(&self, full: LimitExceeded) {
        increment(&self.limits[full.scope as usize][full.limit as usize], 1);
    }

    /// Counts a request to a pool with cookie affinity.
    pub fn record_affinity(&self, affinity_outcome: AffinityOutcome) {
        increment(&self.affinity_outcomes[affinity_outcome as usize], 1);
    }

    /// Counts a request that is sent to another endpoint.
    pub fn record_retry(&self) {
        increment(&self.retries, 1);
    }

    /// Counts a hedge; the caller counts it as a retry too.
    pub fn record_hedge(&self) {
        increment(&self.hedges, 1);
    }

    /// Counts a request that its route's fallback answers instead of this pool.
    pub fn record_fallback(&self) {
        increment(&self.fallbacks, 1);
    }

    /// Counts a copy of a request: sent to this pool, or dropped because too many were in flight.
    pub fn record_mirror(&self, is_sent: bool) {
        increment(if is_sent { &self.mirrored } else { &self.mirrors_dropped }, 1);
    }

    /// Counts a retried request that was answered well.
    pub fn record_rescue(&self) {
        increment(&self.rescued, 1);
    }

    /// Counts failed attempts that are not attributed to their endpoints, because requests with the
    /// same key fail elsewhere too.
    pub fn record_unattributed(&self, attempts: usize) {
        increment(&self.unattributed, attempts as u64);
    }

    /// Responses of all classes.
    pub(super) fn answered(&self) -> u64 {
        self.classes.iter().map(|class| class.load(Relaxed)).sum()
    }
}
