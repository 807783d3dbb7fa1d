//! May a request be sent again, and where to?
//!
//! A request may go to another endpoint when no byte of it reached the first, whatever its method;
//! or when its method is idempotent, its body is still held, and nothing of a response has been
//! sent to the client. Never otherwise: a POST is never executed twice.

use std::time::{Duration, Instant};

use http::Method;

use super::outcome::{Class, Failure, Reason};
use super::route::RetrySpec;
use super::statuses;

/// Tries that never reached an endpoint do not count against `attempts`, but end here.
pub const UNSENT_TRIES: u32 = 16;

/// How much of a request an endpoint may have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Not one byte was handed to the network.
    Nothing,
    /// It may have been read, and so executed.
    Something,
}

/// What is known of a request after a failed try.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// How much of it the endpoint may have seen.
    pub reached: Reached,
    /// Its method is idempotent (RFC 9110 9.2.2).
    pub idempotent: bool,
    /// All of its body that was read from the client is still held.
    pub body_held: bool,
    /// The try was a trial of an endpoint that must prove itself: the request shall not pay for it.
    pub is_trial: bool,
    /// Tries that reached an endpoint, this one included where it did; trials are not counted.
    pub sent_tries: u32,
    /// All tries, this one included.
    pub tries: u32,
}

/// The answer, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// No byte reached an endpoint, or it was a trial: nobody pays for sending it again.
    Free,
    /// It may be sent again, and the budget pays.
    Budgeted,
    /// Never.
    No,
}

/// Whether the request may be sent to another endpoint.
#[must_use]
pub fn may_send_again(tried: &Tried, spec: &RetrySpec) -> Again {
    if spec.attempts <= 1 || tried.sent_tries >= spec.attempts || tried.tries >= UNSENT_TRIES {
        return Again::No;
    }
    match tried.reached {
        Reached::Something if tried.is_trial && tried.idempotent && tried.body_held => Again::Free,
        Reached::Nothing if tried.body_held => Again::Free,
        Reached::Something if tried.idempotent && tried.body_held => Again::Budgeted,
        _ => Again::No,
    }
}

/// Whether the method is idempotent by RFC 9110 9.2.2.
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Whether a request may be tried where an endpoint must prove itself: it can be sent again, and
/// all of its body, of `body_bytes` (`None` if that is not known), will be held.
#[must_use]
pub fn may_be_trial(idempotent: bool, body_bytes: Option<u64>, spec: &RetrySpec) -> bool {
    spec.attempts > 1
        && idempotent
        && body_bytes.is_some_and(|bytes| bytes <= spec.buffer_bytes as u64)
}

/// Whether an answer with `status` is one to ask for elsewhere, if that may be done at all.
#[must_use]
pub fn is_unwanted(status: u16, is_trial: bool, spec: &RetrySpec) -> bool {
    spec.statuses.has(status) || is_trial && statuses::SERVER_ERRORS.contains(&status)
}

/// Tries whose connections must open as fast as others answer.
const HASTY_TRIES: u32 = 2;

/// How long a connection may take to open, and what it is called when that is over.
///
/// While there are others to go to, no longer than a request would wait before it is called stalled
/// (`stall`): nothing has been sent, so that any request may leave. A lost packet is sent again after
/// a second only, and a host that is gone says nothing at all.
#[must_use]
pub fn connect_patience(
    tries: u32,
    stall: Duration,
    timeout: Duration,
    spec: &RetrySpec,
    has_other: impl FnOnce() -> bool,
) -> (Duration, Reason) {
    let is_hasty = tries <= HASTY_TRIES && stall < timeout && spec.attempts > 1 && has_other();
    if is_hasty { (stall, Reason::Stall) } else { (timeout, Reason::Timeout) }
}

/// What becomes of requests that wait for an endpoint whose verdict turns down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The endpoint answers, if wrongly: what runs may end well.
    Stay,
    /// It takes no new connections, but may end what it has begun (a graceful restart does): those
    /// that can be sent again are, the others stay.
    RepeatableLeave,
    /// It is silent: nothing will come.
    Leave,
}

impl Waiting {
    /// What the failure that made the verdict means for them.
    #[must_use]
    pub fn after(failure: Failure) -> Self {
        match failure.class() {
            Class::Silent => Self::Leave,
            Class::Refused | Class::Reset => Self::RepeatableLeave,
            // What shook hands before goes on.
            Class::BadStatus | Class::Tls => Self::Stay,
        }
    }

    /// Whether a request leaves that may be sent again, or may not.
    #[must_use]
    pub fn leaves(self, is_repeatable: bool) -> bool {
        match self {
            Self::Stay => false,
            Self::RepeatableLeave => is_repeatable,
            Self::Leave => true,
        }
    }
}

/// Seconds of traffic that earn the budget.
const WINDOW_SECONDS: u32 = 10;

/// A bound on resends as a share of the requests of the last ten seconds, after Finagle's
/// `RetryBudget`: a bucket that every request fills a little and every resend empties by one.
#[derive(Clone, Debug)]
pub struct Budget {
    /// In hundredths of a resend.
    balance: u64,
    filled: Instant,
}

impl Budget {
    /// A budget that holds its floor.
    #[must_use]
    pub fn new(spec: &RetrySpec, now: Instant) -> Self {
        Self { balance: floor(spec), filled: now }
    }

    /// What a share of the requests, in percent, has earned of it; the floor at least.
    #[must_use]
    pub fn portion(&self, percent: u32, spec: &RetrySpec) -> Self {
        let balance = (self.balance * u64::from(percent) / 100).max(floor(spec));
        Self { balance, filled: self.filled }
    }

    /// Counts a request in.
    pub fn earn(&mut self, spec: &RetrySpec) {
        self.balance += u64::from(spec.budget_percent);
    }

    /// Lets what is older than the window fade, and tops the floor up. Call once in a while.
    pub fn settle(&mut self, spec: &RetrySpec, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        self.filled = now;
        let keep = (-elapsed.as_secs_f64() / f64::from(WINDOW_SECONDS)).exp();
        let faded = (self.balance as f64 * keep) as u64;
        let refill = u64::from(spec.budget_floor) * 100 * elapsed.as_millis() as u64 / 1000;
        self.balance = if faded < floor(spec) { (faded + refill).min(floor(spec)) } else { faded };
    }

    /// Whether it could pay for one resend.
    #[must_use]
    pub fn can_spend(&self) -> bool {
        self.balance >= 100
    }

    /// Pays for one resend; `false` if the budget is spent.
    pub fn spend(&mut self) -> bool {
        match self.balance.checked_sub(100) {
            Some(rest) => {
                self.balance = rest;
                true
            }
            None => false,
        }
    }
}

fn floor(spec: &RetrySpec) -> u64 {
    u64::from(spec.budget_floor) * u64::from(WINDOW_SECONDS) * 100
}

/// How often [`Budget::settle`] is worth calling.
pub const SETTLE_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(reached: Reached, idempotent: bool, body_held: bool, tries: u32) -> Tried {
        Tried { reached, idempotent, body_held, is_trial: false, sent_tries: tries, tries }
    }

    #[test]
    fn a_post_that_may_have_been_read_is_never_sent_again() {
        let spec = RetrySpec::default();
        for body_held in [true, false] {
            let after = tried(Reached::Something, false, body_held, 1);
            assert_eq!(may_send_again(&after, &spec), Again::No);
        }
    }

    #[test]
    fn what_never_left_is_sent_again_whatever_its_method() {
        let spec = RetrySpec::default();
        for idempotent in [true, false] {
            let after = tried(Reached::Nothing, idempotent, true, 1);
            assert_eq!(may_send_again(&after, &spec), Again::Free);
        }
    }

    #[test]
    fn nothing_is_sent_again_without_its_whole_body() {
        let spec = RetrySpec::default();
        for reached in [Reached::Nothing, Reached::Something] {
            assert_eq!(may_send_again(&tried(reached, true, false, 1), &spec), Again::No);
        }
    }

    #[test]
    fn a_trial_costs_its_request_nothing() {
        let spec = RetrySpec { attempts: 2, ..RetrySpec::default() };
        let trial =
            Tried { is_trial: true, sent_tries: 0, ..tried(Reached::Something, true, true, 1) };
        assert_eq!(may_send_again(&trial, &spec), Again::Free);
        let next = tried(Reached::Something, true, true, 1);
        assert_eq!(may_send_again(&Tried { tries: 2, ..next }, &spec), Again::Budgeted);
    }

    #[test]
    fn a_trial_is_a_request_that_can_be_sent_again_whole() {
        let spec = RetrySpec { buffer_bytes: 10, ..RetrySpec::default() };
        assert!(may_be_trial(true, Some(0), &spec));
        assert!(may_be_trial(true, Some(10), &spec));
        assert!(!may_be_trial(true, Some(11), &spec));
        assert!(!may_be_trial(true, None, &spec), "of unknown length");
        assert!(!may_be_trial(false, Some(0), &spec));
        let never = RetrySpec { attempts: 1, ..spec };
        assert!(!may_be_trial(true, Some(0), &never));
    }

    #[test]
    fn a_connection_is_awaited_for_long_only_where_nobody_else_is_left() {
        let spec = RetrySpec::default();
        let (stall, timeout) = (Duration::from_millis(50), Duration::from_secs(1));
        let patience = |tries, others| connect_patience(tries, stall, timeout, &spec, || others);
        assert_eq!(patience(1, true), (stall, Reason::Stall));
        assert_eq!(patience(1, false), (timeout, Reason::Timeout));
        assert_eq!(patience(3, true), (timeout, Reason::Timeout), "all seem to be slow");
        let never = RetrySpec { attempts: 1, ..spec };
        assert_eq!(
            connect_patience(1, stall, timeout, &never, || true),
            (timeout, Reason::Timeout)
        );
    }

    #[test]
    fn unwanted_are_the_listed_statuses_and_any_server_error_of_a_trial() {
        let spec = RetrySpec::default();
        assert!(is_unwanted(503, false, &spec) && !is_unwanted(501, false, &spec));
        assert!(is_unwanted(501, true, &spec) && !is_unwanted(404, true, &spec));
        let off = RetrySpec { statuses: statuses::ServerErrors::NONE, ..spec };
        assert!(!is_unwanted(503, false, &off));
    }

    #[test]
    fn who_leaves_with_a_verdict_depends_on_what_it_was_made_for() {
        let leave = |failure| {
            let waiting = Waiting::after(failure);
            (waiting.leaves(true), waiting.leaves(false))
        };
        assert_eq!(leave(Failure::http(Reason::Timeout)), (true, true));
        assert_eq!(leave(Failure::connect(Reason::Refused)), (true, false));
        assert_eq!(leave(Failure::http(Reason::Reset)), (true, false));
        assert_eq!(leave(Failure::http(Reason::Status(503))), (false, false));
    }

    #[test]
    fn attempts_bound_the_tries_that_reached_somebody() {
        let spec = RetrySpec { attempts: 2, ..RetrySpec::default() };
        assert_eq!(
            may_send_again(&tried(Reached::Something, true, true, 1), &spec),
            Again::Budgeted
        );
        assert_eq!(may_send_again(&tried(Reached::Something, true, true, 2), &spec), Again::No);
        let unsent = Tried { sent_tries: 0, ..tried(Reached::Nothing, false, true, 9) };
        assert_eq!(may_send_again(&unsent, &spec), Again::Free);
        let hopeless = Tried { tries: UNSENT_TRIES, ..unsent };
        assert_eq!(may_send_again(&hopeless, &spec), Again::No);
        let never = RetrySpec { attempts: 1, ..spec };
        assert_eq!(may_send_again(&unsent, &never), Again::No);
    }

    #[test]
    fn budget_is_a_share_with_a_floor() {
        let spec = RetrySpec { budget_percent: 20, budget_floor: 1, ..RetrySpec::default() };
        let t0 = Instant::now();
        let mut budget = Budget::new(&spec, t0);
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
        for _ in 0..1000 {
            budget.earn(&spec);
        }
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 200);
        budget.settle(&spec, t0 + Duration::from_secs(3));
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 3);
        budget.settle(&spec, t0 + Duration::from_secs(300));
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 10);
    }
}
