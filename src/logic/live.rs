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

use super::balance::ewma::PeakEwma;
use super::breaker::{Gauges, Limit};
use super::casualty::{Casualties, Casualty, Count};

/// No trial is wanted.
const NEVER_US: u64 = u64::MAX;

/// One endpoint's counters. Each is an allocation of its own among larger ones: no two endpoints'
/// share a line, without the room that an alignment would take.
#[derive(Debug)]
pub struct Live {
    gauges: Gauges,
    trial_gap_us: AtomicU32,
    trial_at_us: AtomicU64,
    last_good_us: AtomicU64,
    last_failure_us: AtomicU64,
    waits_since_us: AtomicU64,
    answers: AtomicU64,
    timed: AtomicU64,
    took_us: AtomicU64,
    errors: AtomicU64,
    failed: AtomicU64,
    rescued: AtomicU64,
    late: AtomicU64,
    trials: AtomicU32,
    is_noted: AtomicBool,
    /// Written where the pool chooses by it.
    latency: PeakEwma,
    /// There once a client has seen a failure.
    casualties: OnceLock<Box<Count>>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            gauges: Gauges::default(),
            trial_gap_us: AtomicU32::new(0),
            trial_at_us: AtomicU64::new(NEVER_US),
            last_good_us: AtomicU64::new(0),
            last_failure_us: AtomicU64::new(0),
            waits_since_us: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            timed: AtomicU64::new(0),
            took_us: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rescued: AtomicU64::new(0),
            late: AtomicU64::new(0),
            trials: AtomicU32::new(0),
            is_noted: AtomicBool::new(false),
            latency: PeakEwma::default(),
            casualties: OnceLock::new(),
        }
    }
}

/// What the endpoints of one zone of a pool share, written by workers.
#[derive(Debug, Default)]
pub struct Kin {
    erred_us: AtomicU64,
}

impl Kin {
    /// One of them failed a request.
    pub fn erred(&self, now_us: u64) {
        self.erred_us.fetch_max(now_us, Relaxed);
    }

    /// When one of them did so last; zero if none has.
    #[must_use]
    pub fn erred_us(&self) -> u64 {
        self.erred_us.load(Relaxed)
    }
}

/// The counters of [`Live`] that the ledger reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests whose client saw the failure.
    pub failed: u64,
    /// Requests that met the failure and were answered well by another endpoint.
    pub rescued: u64,
    /// Rescued requests that were answered later than the pool's `late_after`.
    pub late: u64,
}

/// How many tries ended well and how many badly, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Answered well, to the last byte.
    pub good: u64,
    /// Ended by the endpoint's failure: a bad status, a cut answer, a connection lost, too slow.
    pub bad: u64,
}

impl Tries {
    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { good: self.good - before.good, bad: self.bad - before.bad }
    }
}

impl Live {
    /// Reads something of every line of memory that a look needs, for the sake of reading it.
    #[must_use]
    pub fn glance(&self) -> u64 {
        self.last_failure_us.load(Relaxed) + self.failed.load(Relaxed) + self.late.load(Relaxed)
    }

    /// How much there is of what may be limited.
    #[must_use]
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.gauges.get(Limit::Requests)
    }

    /// A request begins.
    pub fn enter(&self, now_us: u64) {
        self.gauges.add(Limit::Requests);
        self.waits(now_us);
    }

    /// A request begins, if fewer than `cap` are in flight.
    #[must_use]
    pub fn try_enter(&self, cap: Option<u32>, now_us: u64) -> bool {
        let has_room = self.gauges.take(Limit::Requests, cap);
        if has_room {
            self.waits(now_us);
        }
        has_room
    }

    fn waits(&self, now_us: u64) {
        if self.waits_since_us.load(Relaxed) == 0 {
            self.waits_since_us.store(now_us, Relaxed);
        }
    }

    /// A request has ended.
    pub fn leave(&self) {
        if self.gauges.sub(Limit::Requests) == 0 {
            self.waits_since_us.store(0, Relaxed);
        }
    }

    /// The endpoint shows that it works: it began to answer, and not with an error.
    pub fn good(&self, now_us: u64) {
        self.last_good_us.store(now_us, Relaxed);
        self.waits_since_us.store(0, Relaxed);
    }

    /// Whether a request that came before `us` is in flight, and none that came since the last good
    /// answer has been answered: the endpoint may have stopped.
    #[must_use]
    pub fn waits_since_before(&self, us: u64) -> bool {
        let since_us = self.waits_since_us.load(Relaxed);
        since_us != 0 && since_us < us
    }

    /// A good answer began after `us` microseconds, where somebody wants to know.
    pub fn took(&self, us: u64, now_us: u64) {
        self.timed.fetch_add(1, Relaxed);
        self.took_us.fetch_add(us, Relaxed);
        self.latency.observe(us, now_us);
    }

    /// Answers that were timed, and what all of them took to begin, in microseconds.
    #[must_use]
    pub fn timed(&self) -> (u64, u64) {
        (self.timed.load(Relaxed), self.took_us.load(Relaxed))
    }

    /// What it costs to wait here, by latency and what is in flight, in microseconds.
    #[must_use]
    pub fn cost(&self, now_us: u64) -> f64 {
        self.latency.cost(self.in_flight(), now_us)
    }

    /// A good answer came to its end.
    pub fn answered(&self) {
        self.answers.fetch_add(1, Relaxed);
    }

    /// A try ended by the endpoint's failure. `true` if nobody has told control since it last
    /// looked: then the caller must.
    #[must_use]
    pub fn erred(&self) -> bool {
        self.errors.fetch_add(1, Relaxed);
        // Neither side may miss the other: the flag is read after the count is there, and cleared
        // before the count is read.
        fence(SeqCst);
        !self.is_noted.load(Relaxed) && !self.is_noted.swap(true, AcqRel)
    }

    /// Control could not be told: the next failure must try again.
    pub fn untold(&self) {
        self.is_noted.store(false, SeqCst);
    }

    /// Control looks: what comes from now on must be told again.
    #[must_use]
    pub fn look(&self) -> Tries {
        self.is_noted.store(false, SeqCst);
        fence(SeqCst);
        self.tries()
    }

    /// How tries ended so far.
    #[must_use]
    pub fn tries(&self) -> Tries {
        Tries { good: self.answers.load(Acquire), bad: self.errors.load(Acquire) }
    }

    /// A client saw a failure of this endpoint.
    pub fn failed(&self, casualty: Casualty, now_us: u64) {
        self.casualties.get_or_init(Box::default).add(casualty);
        self.failed.fetch_add(1, Relaxed);
        self.last_failure_us.fetch_max(now_us, Relaxed);
    }

    /// A request that had failed here was answered well elsewhere.
    pub fn rescued(&self, late: bool) {
        self.rescued.fetch_add(1, Relaxed);
        if late {
            self.late.fetch_add(1, Relaxed);
        }
    }

    /// When the endpoint last answered a request well.
    #[must_use]
    pub fn last_good_us(&self) -> u64 {
        self.last_good_us.load(Relaxed)
    }

    /// When a client last saw a failure of this endpoint.
    #[must_use]
    pub fn last_failure_us(&self) -> u64 {
        self.last_failure_us.load(Relaxed)
    }

    /// What clients saw so far belongs to the past.
    pub fn settle_casualties(&self) {
        if let Some(count) = self.casualties.get() {
            count.settle();
        }
    }

    /// What clients saw since.
    #[must_use]
    pub fn casualties(&self) -> Casualties {
        self.casualties.get().map(|count| count.since()).unwrap_or_default()
    }

    /// What the ledger counts.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            failed: self.failed.load(Relaxed),
            rescued: self.rescued.load(Relaxed),
            late: self.late.load(Relaxed),
        }
    }

    /// Asks for trial requests, `gap_us` apart, the first one `from_us`.
    pub fn want_trials(&self, from_us: u64, gap_us: u32) {
        self.trial_gap_us.store(gap_us, Relaxed);
        self.trial_at_us.store(from_us, Relaxed);
    }

    /// Whether one is due that nobody has taken.
    #[must_use]
    pub fn is_trial_due(&self, now_us: u64) -> bool {
        self.trial_at_us.load(Relaxed) <= now_us
    }

    /// No more trials.
    pub fn end_trials(&self) {
        self.trial_at_us.store(NEVER_US, Relaxed);
    }

    /// Takes a trial if one is due: of all workers that ask, one gets it.
    #[must_use]
    pub fn take_trial(&self, now_us: u64) -> bool {
        let due_us = self.trial_at_us.load(Relaxed);
        let next_us = now_us + u64::from(self.trial_gap_us.load(Relaxed));
        due_us <= now_us
            && self.trial_at_us.compare_exchange(due_us, next_us, Relaxed, Relaxed).is_ok()
    }

    /// A trial that was taken is under way: there was room for it.
    pub fn tried(&self) {
        self.trials.fetch_add(1, Relaxed);
    }

    /// Trials taken since the process began.
    #[must_use]
    pub fn trials(&self) -> u32 {
        self.trials.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_is_told_once_between_two_looks() {
        let live = Live::default();
        assert!(live.erred());
        assert!(!live.erred());
        live.answered();
        assert_eq!(live.look(), Tries { good: 1, bad: 2 });
        assert!(live.erred());
    }

    #[test]
    fn who_keeps_requests_waiting_shows_it_until_it_answers_or_has_none() {
        let live = Live::default();
        live.enter(100);
        live.enter(200);
        assert!(!live.waits_since_before(100) && live.waits_since_before(101));
        live.leave();
        assert!(live.waits_since_before(101), "one is left");
        live.good(300);
        assert!(!live.waits_since_before(1_000));
        live.enter(400);
        assert!(!live.waits_since_before(400) && live.waits_since_before(401));
        live.leave();
        live.leave();
        assert!(!live.waits_since_before(1_000), "nobody waits");
    }

    #[test]
    fn a_trial_is_taken_by_one_and_then_rests() {
        let live = Live::default();
        assert!(!live.take_trial(1_000_000), "none is wanted");
        live.want_trials(500, 100);
        assert!(!live.take_trial(499));
        assert!(!live.is_trial_due(499) && live.is_trial_due(500));
        assert!(live.take_trial(500) && !live.take_trial(500));
        assert!(!live.take_trial(599) && live.take_trial(600));
        live.end_trials();
        assert!(!live.take_trial(1_000_000));
        assert_eq!(live.trials(), 0);
        live.tried();
        assert_eq!(live.trials(), 1);
    }
}
