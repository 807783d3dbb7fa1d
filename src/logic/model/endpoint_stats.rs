//! The counters of one endpoint, the only shared state that the request path writes.
//!
//! Workers update them without a lock; the director reads the difference since its last visit.
//! Times are microseconds since the process epoch; zero means never.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
    fence,
};
use std::sync::{Arc, OnceLock};

use crate::logic::health::latency_baseline::LatencyBaseline;
use crate::logic::incident::client_failure::{ClientFailure, ClientFailureCounter, ClientFailures};
use crate::logic::request::limits::{LimitGauges, LimitKind};
use crate::logic::steering::balance::peak_ewma::PeakEwma;

/// The due time while no trial requests are scheduled.
const NEVER_US: u64 = u64::MAX;

/// The counters of one endpoint. Each is a separate allocation next to larger ones. No two
/// endpoints share a cache line, which saves the padding of an alignment attribute.
#[derive(Debug)]
pub struct EndpointStats {
    gauges: LimitGauges,
    trial_gap_us: AtomicU32,
    next_trial_us: AtomicU64,
    last_good_us: AtomicU64,
    last_failure_us: AtomicU64,
    waiting_since_us: AtomicU64,
    successes: AtomicU64,
    timed_responses: AtomicU64,
    total_latency_us: AtomicU64,
    errors: AtomicU64,
    failed: AtomicU64,
    rescued: AtomicU64,
    late: AtomicU64,
    trials: AtomicU32,
    is_error_reported: AtomicBool,
    /// Written only where the pool balances by latency.
    latency: PeakEwma,
    /// Allocated at the first client-visible failure.
    client_failures: OnceLock<Box<ClientFailureCounter>>,
}

impl Default for EndpointStats {
    fn default() -> Self {
        Self {
            gauges: LimitGauges::default(),
            trial_gap_us: AtomicU32::new(0),
            next_trial_us: AtomicU64::new(NEVER_US),
            last_good_us: AtomicU64::new(0),
            last_failure_us: AtomicU64::new(0),
            waiting_since_us: AtomicU64::new(0),
            successes: AtomicU64::new(0),
            timed_responses: AtomicU64::new(0),
            total_latency_us: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rescued: AtomicU64::new(0),
            late: AtomicU64::new(0),
            trials: AtomicU32::new(0),
            is_error_reported: AtomicBool::new(false),
            latency: PeakEwma::default(),
            client_failures: OnceLock::new(),
        }
    }
}

/// Counters shared by the endpoints of one zone of a pool, written by workers.
#[derive(Debug, Default)]
pub struct ZoneStats {
    last_error_us: AtomicU64,
    latency: Arc<LatencyBaseline>,
}

impl ZoneStats {
    /// Counters of a zone, with the latency baseline of its region in the pool.
    pub fn with_latency(latency: Arc<LatencyBaseline>) -> Self {
        Self { last_error_us: AtomicU64::new(0), latency }
    }

    /// The usual latencies of the pool in the zone's region.
    pub fn latency(&self) -> &Arc<LatencyBaseline> {
        &self.latency
    }

    /// Records a failed request at an endpoint of the zone.
    pub fn record_error(&self, now_us: u64) {
        self.last_error_us.fetch_max(now_us, Relaxed);
    }

    /// Time of the zone's last failed request; zero if there is none.
    pub fn last_error_us(&self) -> u64 {
        self.last_error_us.load(Relaxed)
    }
}

/// The counters of [`EndpointStats`] that the ledger reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailoverCounts {
    /// Requests whose client saw the failure.
    pub failed: u64,
    /// Requests that met the failure and were answered by another endpoint.
    pub rescued: u64,
    /// Rescued requests that were answered later than the pool's `late_after`.
    pub late: u64,
}

/// Number of good and bad attempts since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// Complete responses without an error.
    pub good: u64,
    /// Attempts that the endpoint failed: bad status, cut response, lost connection, too slow.
    pub bad: u64,
}

impl AttemptCounts {
    /// The difference to an earlier count.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { good: self.good - before.good, bad: self.bad - before.bad }
    }
}

impl EndpointStats {
    pub fn gauges(&self) -> &LimitGauges {
        &self.gauges
    }

    pub fn in_flight(&self) -> u32 {
        self.gauges.get(LimitKind::Requests)
    }

    pub fn request_started(&self, now_us: u64) {
        self.gauges.increment(LimitKind::Requests);
        self.mark_waiting(now_us);
    }

    /// Starts a request if fewer than `limit` are in flight.
    pub fn try_start_request(&self, limit: Option<u32>, now_us: u64) -> bool {
        let is_admitted = self.gauges.try_acquire(LimitKind::Requests, limit);
        if is_admitted {
            self.mark_waiting(now_us);
        }
        is_admitted
    }

    fn mark_waiting(&self, now_us: u64) {
        if self.waiting_since_us.load(Relaxed) == 0 {
            self.waiting_since_us.store(now_us, Relaxed);
        }
    }

    pub fn request_ended(&self) {
        if self.gauges.decrement(LimitKind::Requests) == 0 {
            self.waiting_since_us.store(0, Relaxed);
        }
    }

    /// Records a response head without an error: proof that the endpoint works.
    pub fn record_good_response(&self, now_us: u64) {
        self.last_good_us.store(now_us, Relaxed);
        self.waiting_since_us.store(0, Relaxed);
    }

    /// Whether a request that started before `before_us` is still in flight and no response has
    /// arrived since: the endpoint may have stopped.
    pub fn has_waited_since_before(&self, before_us: u64) -> bool {
        let since_us = self.waiting_since_us.load(Relaxed);
        since_us != 0 && since_us < before_us
    }

    /// Records the time to first byte of a good response, in pools that track latency.
    pub fn record_latency(&self, latency_us: u64, now_us: u64) {
        self.timed_responses.fetch_add(1, Relaxed);
        self.total_latency_us.fetch_add(latency_us, Relaxed);
        self.latency.observe(latency_us, now_us);
    }

    /// Number of timed responses, and the sum of their times to first byte in microseconds.
    pub fn latency_totals(&self) -> (u64, u64) {
        (self.timed_responses.load(Relaxed), self.total_latency_us.load(Relaxed))
    }

    /// Expected wait here, in microseconds, from the latency average and the requests in flight.
    pub fn cost(&self, now_us: u64) -> f64 {
        self.latency.cost(self.in_flight(), now_us)
    }

    /// Records a complete response without an error.
    pub fn record_success(&self) {
        self.successes.fetch_add(1, Relaxed);
    }

    /// Records an attempt that the endpoint failed. Returns `true` if control has no pending report
    /// for this endpoint: the caller must then send one.
    pub fn record_error(&self) -> bool {
        self.errors.fetch_add(1, Relaxed);
        // The flag is read after the count is written, and cleared before the count is read. So
        // either the caller reports or the collector sees the count.
        fence(SeqCst);
        !self.is_error_reported.load(Relaxed) && !self.is_error_reported.swap(true, AcqRel)
    }

    /// Marks the report as not delivered, so that the next failure sends one again.
    pub fn clear_error_report(&self) {
        self.is_error_reported.store(false, SeqCst);
    }

    /// Reads the counts for control. Failures from now on need a new report.
    pub fn collect_attempts(&self) -> AttemptCounts {
        self.is_error_reported.store(false, SeqCst);
        fence(SeqCst);
        self.attempts()
    }

    pub fn attempts(&self) -> AttemptCounts {
        AttemptCounts { good: self.successes.load(Acquire), bad: self.errors.load(Acquire) }
    }

    pub fn record_client_failure(&self, failure: ClientFailure, now_us: u64) {
        self.client_failures.get_or_init(Box::default).record(failure);
        self.failed.fetch_add(1, Relaxed);
        self.last_failure_us.fetch_max(now_us, Relaxed);
    }

    /// Records a request that failed here and was answered by another endpoint.
    pub fn record_rescue(&self, is_late: bool) {
        self.rescued.fetch_add(1, Relaxed);
        if is_late {
            self.late.fetch_add(1, Relaxed);
        }
    }

    /// Time of the last good response.
    pub fn last_good_us(&self) -> u64 {
        self.last_good_us.load(Relaxed)
    }

    /// Time of the last client-visible failure.
    pub fn last_failure_us(&self) -> u64 {
        self.last_failure_us.load(Relaxed)
    }

    /// Starts a new count of client-visible failures.
    pub fn reset_client_failures(&self) {
        if let Some(count) = self.client_failures.get() {
            count.reset_baseline();
        }
    }

    /// Client-visible failures since the last reset.
    pub fn client_failures(&self) -> ClientFailures {
        self.client_failures.get().map(|count| count.since_baseline()).unwrap_or_default()
    }

    pub fn failover_counts(&self) -> FailoverCounts {
        FailoverCounts {
            failed: self.failed.load(Relaxed),
            rescued: self.rescued.load(Relaxed),
            late: self.late.load(Relaxed),
        }
    }

    /// Schedules trial requests from `first_us` on, `gap_us` apart.
    pub fn schedule_trials(&self, first_us: u64, gap_us: u32) {
        self.trial_gap_us.store(gap_us, Relaxed);
        self.next_trial_us.store(first_us, Relaxed);
    }

    /// Whether a trial is due that no worker has claimed.
    pub fn is_trial_due(&self, now_us: u64) -> bool {
        self.next_trial_us.load(Relaxed) <= now_us
    }

    pub fn cancel_trials(&self) {
        self.next_trial_us.store(NEVER_US, Relaxed);
    }

    /// Claims a due trial; exactly one of the competing workers succeeds.
    pub fn try_take_trial(&self, now_us: u64) -> bool {
        let due_us = self.next_trial_us.load(Relaxed);
        let next_us = now_us + u64::from(self.trial_gap_us.load(Relaxed));
        due_us <= now_us
            && self.next_trial_us.compare_exchange(due_us, next_us, Relaxed, Relaxed).is_ok()
    }

    /// Counts a claimed trial whose request was sent.
    pub fn record_trial(&self) {
        self.trials.fetch_add(1, Relaxed);
    }

    /// Trials sent since the process began.
    pub fn trial_count(&self) -> u32 {
        self.trials.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_reported_once_between_collections() {
        let stats = EndpointStats::default();
        assert!(stats.record_error());
        assert!(!stats.record_error());
        stats.record_success();
        assert_eq!(stats.collect_attempts(), AttemptCounts { good: 1, bad: 2 });
        assert!(stats.record_error());
    }

    #[test]
    fn waiting_time_is_reset_by_response_or_when_idle() {
        let stats = EndpointStats::default();
        stats.request_started(100);
        stats.request_started(200);
        assert!(!stats.has_waited_since_before(100) && stats.has_waited_since_before(101));
        stats.request_ended();
        assert!(stats.has_waited_since_before(101), "one request is still in flight");
        stats.record_good_response(300);
        assert!(!stats.has_waited_since_before(1_000));
        stats.request_started(400);
        assert!(!stats.has_waited_since_before(400) && stats.has_waited_since_before(401));
        stats.request_ended();
        stats.request_ended();
        assert!(!stats.has_waited_since_before(1_000), "no request waits");
    }

    #[test]
    fn due_trial_is_taken_once_per_gap() {
        let stats = EndpointStats::default();
        assert!(!stats.try_take_trial(1_000_000), "no trial is scheduled");
        stats.schedule_trials(500, 100);
        assert!(!stats.try_take_trial(499));
        assert!(!stats.is_trial_due(499) && stats.is_trial_due(500));
        assert!(stats.try_take_trial(500) && !stats.try_take_trial(500));
        assert!(!stats.try_take_trial(599) && stats.try_take_trial(600));
        stats.cancel_trials();
        assert!(!stats.try_take_trial(1_000_000));
        assert_eq!(stats.trial_count(), 0);
        stats.record_trial();
        assert_eq!(stats.trial_count(), 1);
    }
}
