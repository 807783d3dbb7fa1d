//! The only words that the request path writes: one endpoint's counters.
//!
//! Every worker adds to them without a lock; the director reads what came since it last looked.
//! Times are microseconds since the process's own epoch; zero means never.

use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
    fence,
};

use crate::logic::incident::client_failure::{ClientFailure, ClientFailureCounter, ClientFailures};
use crate::logic::request::limits::{LimitGauges, LimitKind};
use crate::logic::steering::balance::peak_ewma::PeakEwma;

/// No trial is wanted.
const NEVER_US: u64 = u64::MAX;

/// One endpoint's counters. Each is an allocation of its own among larger ones: no two endpoints'
/// share a line, without the room that an alignment would take.
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
    /// Written where the pool chooses by it.
    latency: PeakEwma,
    /// There once a client has seen a failure.
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

/// What the endpoints of one zone of a pool share, written by workers.
#[derive(Debug, Default)]
pub struct ZoneStats {
    last_error_us: AtomicU64,
}

impl ZoneStats {
    /// One of them failed a request.
    pub fn record_error(&self, now_us: u64) {
        self.last_error_us.fetch_max(now_us, Relaxed);
    }

    /// When one of them did so last; zero if none has.
    pub fn last_error_us(&self) -> u64 {
        self.last_error_us.load(Relaxed)
    }
}

/// The counters of [`Live`] that the ledger reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailoverCounts {
    /// Requests whose client saw the failure.
    pub failed: u64,
    /// Requests that met the failure and were answered well by another endpoint.
    pub rescued: u64,
    /// Rescued requests that were answered later than the pool's `late_after`.
    pub late: u64,
}

/// How many tries ended well and how many badly, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// Answered well, to the last byte.
    pub good: u64,
    /// Ended by the endpoint's failure: a bad status, a cut answer, a connection lost, too slow.
    pub bad: u64,
}

impl AttemptCounts {
    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { good: self.good - before.good, bad: self.bad - before.bad }
    }
}

impl EndpointStats {
    /// Reads something of every line of memory that a look needs, for the sake of reading it.
    pub fn prefetch(&self) -> u64 {
        self.last_failure_us.load(Relaxed) + self.failed.load(Relaxed) + self.late.load(Relaxed)
    }

    /// How much there is of what may be limited.
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

    /// A request begins, if fewer than `cap` are in flight.
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

    /// A request has ended.
    pub fn request_ended(&self) {
        if self.gauges.decrement(LimitKind::Requests) == 0 {
            self.waiting_since_us.store(0, Relaxed);
        }
    }

    /// The endpoint shows that it works: it began to answer, and not with an error.
    pub fn record_good_response(&self, now_us: u64) {
        self.last_good_us.store(now_us, Relaxed);
        self.waiting_since_us.store(0, Relaxed);
    }

    /// Whether a request that came before `us` is in flight, and none that came since the last good
    /// answer has been answered: the endpoint may have stopped.
    pub fn has_waited_since_before(&self, us: u64) -> bool {
        let since_us = self.waiting_since_us.load(Relaxed);
        since_us != 0 && since_us < us
    }

    /// A good answer began after `us` microseconds, where somebody wants to know.
    pub fn record_latency(&self, latency_us: u64, now_us: u64) {
        self.timed_responses.fetch_add(1, Relaxed);
        self.total_latency_us.fetch_add(latency_us, Relaxed);
        self.latency.observe(latency_us, now_us);
    }

    /// Answers that were timed, and what all of them took to begin, in microseconds.
    pub fn latency_totals(&self) -> (u64, u64) {
        (self.timed_responses.load(Relaxed), self.total_latency_us.load(Relaxed))
    }

    /// What it costs to wait here, by latency and what is in flight, in microseconds.
    pub fn cost(&self, now_us: u64) -> f64 {
        self.latency.cost(self.in_flight(), now_us)
    }

    /// A good answer came to its end.
    pub fn record_success(&self) {
        self.successes.fetch_add(1, Relaxed);
    }

    /// A try ended by the endpoint's failure. `true` if nobody has told control since it last
    /// looked: then the caller must.
    pub fn record_error(&self) -> bool {
        self.errors.fetch_add(1, Relaxed);
        // Neither side may miss the other: the flag is read after the count is there, and cleared
        // before the count is read.
        fence(SeqCst);
        !self.is_error_reported.load(Relaxed) && !self.is_error_reported.swap(true, AcqRel)
    }

    /// Control could not be told: the next failure must try again.
    pub fn clear_error_report(&self) {
        self.is_error_reported.store(false, SeqCst);
    }

    /// Control looks: what comes from now on must be told again.
    pub fn collect_attempts(&self) -> AttemptCounts {
        self.is_error_reported.store(false, SeqCst);
        fence(SeqCst);
        self.attempts()
    }

    /// How tries ended so far.
    pub fn attempts(&self) -> AttemptCounts {
        AttemptCounts { good: self.successes.load(Acquire), bad: self.errors.load(Acquire) }
    }

    /// A client saw a failure of this endpoint.
    pub fn record_client_failure(&self, failure: ClientFailure, now_us: u64) {
        self.client_failures.get_or_init(Box::default).record(failure);
        self.failed.fetch_add(1, Relaxed);
        self.last_failure_us.fetch_max(now_us, Relaxed);
    }

    /// A request that had failed here was answered well elsewhere.
    pub fn record_rescue(&self, is_late: bool) {
        self.rescued.fetch_add(1, Relaxed);
        if is_late {
            self.late.fetch_add(1, Relaxed);
        }
    }

    /// When the endpoint last answered a request well.
    pub fn last_good_us(&self) -> u64 {
        self.last_good_us.load(Relaxed)
    }

    /// When a client last saw a failure of this endpoint.
    pub fn last_failure_us(&self) -> u64 {
        self.last_failure_us.load(Relaxed)
    }

    /// What clients saw so far belongs to the past.
    pub fn reset_client_failures(&self) {
        if let Some(count) = self.client_failures.get() {
            count.reset_baseline();
        }
    }

    /// What clients saw since.
    pub fn client_failures(&self) -> ClientFailures {
        self.client_failures.get().map(|count| count.since_baseline()).unwrap_or_default()
    }

    /// What the ledger counts.
    pub fn failover_counts(&self) -> FailoverCounts {
        FailoverCounts {
            failed: self.failed.load(Relaxed),
            rescued: self.rescued.load(Relaxed),
            late: self.late.load(Relaxed),
        }
    }

    /// Asks for trial requests, `gap_us` apart, the first one `from_us`.
    pub fn schedule_trials(&self, first_us: u64, gap_us: u32) {
        self.trial_gap_us.store(gap_us, Relaxed);
        self.next_trial_us.store(first_us, Relaxed);
    }

    /// Whether one is due that nobody has taken.
    pub fn is_trial_due(&self, now_us: u64) -> bool {
        self.next_trial_us.load(Relaxed) <= now_us
    }

    pub fn cancel_trials(&self) {
        self.next_trial_us.store(NEVER_US, Relaxed);
    }

    /// Takes a trial if one is due: of all workers that ask, one gets it.
    pub fn try_take_trial(&self, now_us: u64) -> bool {
        let due_us = self.next_trial_us.load(Relaxed);
        let next_us = now_us + u64::from(self.trial_gap_us.load(Relaxed));
        due_us <= now_us
            && self.next_trial_us.compare_exchange(due_us, next_us, Relaxed, Relaxed).is_ok()
    }

    /// A trial that was taken is under way: there was room for it.
    pub fn record_trial(&self) {
        self.trials.fetch_add(1, Relaxed);
    }

    /// Trials taken since the process began.
    pub fn trial_count(&self) -> u32 {
        self.trials.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_reported_once_between_collections() {
        let live = EndpointStats::default();
        assert!(live.record_error());
        assert!(!live.record_error());
        live.record_success();
        assert_eq!(live.collect_attempts(), AttemptCounts { good: 1, bad: 2 });
        assert!(live.record_error());
    }

    #[test]
    fn waiting_time_is_reset_by_response_or_when_idle() {
        let live = EndpointStats::default();
        live.request_started(100);
        live.request_started(200);
        assert!(!live.has_waited_since_before(100) && live.has_waited_since_before(101));
        live.request_ended();
        assert!(live.has_waited_since_before(101), "one is left");
        live.record_good_response(300);
        assert!(!live.has_waited_since_before(1_000));
        live.request_started(400);
        assert!(!live.has_waited_since_before(400) && live.has_waited_since_before(401));
        live.request_ended();
        live.request_ended();
        assert!(!live.has_waited_since_before(1_000), "nobody waits");
    }

    #[test]
    fn due_trial_is_taken_once_per_gap() {
        let live = EndpointStats::default();
        assert!(!live.try_take_trial(1_000_000), "none is wanted");
        live.schedule_trials(500, 100);
        assert!(!live.try_take_trial(499));
        assert!(!live.is_trial_due(499) && live.is_trial_due(500));
        assert!(live.try_take_trial(500) && !live.try_take_trial(500));
        assert!(!live.try_take_trial(599) && live.try_take_trial(600));
        live.cancel_trials();
        assert!(!live.try_take_trial(1_000_000));
        assert_eq!(live.trial_count(), 0);
        live.record_trial();
        assert_eq!(live.trial_count(), 1);
    }
}
