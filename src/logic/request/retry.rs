//! May a request be sent again, and where to?
//!
//! A request may go to another endpoint when no byte of it reached the first, whatever its method;
//! or when its method is idempotent, its body is still held, and nothing of a response has been
//! sent to the client. Never otherwise: a POST is never executed twice.

use std::time::{Duration, Instant};

use http::Method;

use super::server_errors;
use crate::logic::model::outcome::{Failure, FailureClass, FailureReason};
use crate::logic::routing::RetrySpec;

/// Tries that never reached an endpoint do not count against `attempts`, but end here.
pub const MAX_UNSENT_ATTEMPTS: u32 = 16;

/// How much of a request an endpoint may have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestExposure {
    /// Not one byte was handed to the network.
    NotSent,
    /// It may have been read, and so executed.
    MaybeSent,
}

/// What is known of a request after a failed try.
#[derive(Clone, Copy, Debug)]
pub struct FailedAttempt {
    /// How much of it the endpoint may have seen.
    pub exposure: RequestExposure,
    /// Its method is idempotent (RFC 9110 9.2.2).
    pub is_idempotent: bool,
    /// All of its body that was read from the client is still held.
    pub is_body_buffered: bool,
    /// The try was a trial of an endpoint that must prove itself: the request shall not pay for it.
    pub is_trial: bool,
    /// Tries that reached an endpoint, this one included where it did; trials are not counted.
    pub sent_attempts: u32,
    /// All tries, this one included.
    pub total_attempts: u32,
}

/// The answer, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// No byte reached an endpoint, or it was a trial: nobody pays for sending it again.
    Unbudgeted,
    /// It may be sent again, and the budget pays.
    Budgeted,
    Denied,
}

/// Whether the request may be sent to another endpoint.
pub fn retry_decision(attempt: &FailedAttempt, spec: &RetrySpec) -> RetryDecision {
    if spec.attempts <= 1
        || attempt.sent_attempts >= spec.attempts
        || attempt.total_attempts >= MAX_UNSENT_ATTEMPTS
    {
        return RetryDecision::Denied;
    }
    match attempt.exposure {
        RequestExposure::MaybeSent
            if attempt.is_trial && attempt.is_idempotent && attempt.is_body_buffered =>
        {
            RetryDecision::Unbudgeted
        }
        RequestExposure::NotSent if attempt.is_body_buffered => RetryDecision::Unbudgeted,
        RequestExposure::MaybeSent if attempt.is_idempotent && attempt.is_body_buffered => {
            RetryDecision::Budgeted
        }
        _ => RetryDecision::Denied,
    }
}

/// Whether the method is idempotent by RFC 9110 9.2.2.
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Whether a request may be tried where an endpoint must prove itself: it can be sent again, and
/// all of its body, of `body_bytes` (`None` if that is not known), will be held.
pub fn can_be_trial(is_idempotent: bool, body_bytes: Option<u64>, spec: &RetrySpec) -> bool {
    spec.attempts > 1
        && is_idempotent
        && body_bytes.is_some_and(|bytes| bytes <= spec.max_buffer_bytes as u64)
}

/// Whether an answer with `status` is one to ask for elsewhere, if that may be done at all.
pub fn is_retryable_status(status: u16, is_trial: bool, spec: &RetrySpec) -> bool {
    spec.statuses.contains(status) || is_trial && server_errors::SERVER_ERRORS.contains(&status)
}

/// Tries whose connections must open as fast as others answer.
const FAST_CONNECT_ATTEMPTS: u32 = 2;

/// How long a connection may take to open, and what it is called when that is over.
///
/// While there are others to go to, no longer than a request would wait before it is called stalled
/// (`stall`): nothing has been sent, so that any request may leave. A lost packet is sent again after
/// a second only, and a host that is gone says nothing at all.
pub fn connect_timeout(
    attempts: u32,
    stall: Duration,
    timeout: Duration,
    spec: &RetrySpec,
    has_other: impl FnOnce() -> bool,
) -> (Duration, FailureReason) {
    let is_fast =
        attempts <= FAST_CONNECT_ATTEMPTS && stall < timeout && spec.attempts > 1 && has_other();
    if is_fast { (stall, FailureReason::Stall) } else { (timeout, FailureReason::Timeout) }
}

/// What becomes of requests that wait for an endpoint whose verdict turns down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlightPolicy {
    /// The endpoint answers, if wrongly: what runs may end well.
    Keep,
    /// It takes no new connections, but may end what it has begun (a graceful restart does): those
    /// that can be sent again are, the others stay.
    AbortRepeatable,
    /// It is silent: nothing will come.
    AbortAll,
}

impl InFlightPolicy {
    /// What the failure that made the verdict means for them.
    pub fn for_failure(failure: Failure) -> Self {
        match failure.class() {
            FailureClass::Silent => Self::AbortAll,
            FailureClass::Refused | FailureClass::Reset => Self::AbortRepeatable,
            // What shook hands before goes on.
            FailureClass::BadStatus | FailureClass::Tls => Self::Keep,
        }
    }

    /// Whether a request leaves that may be sent again, or may not.
    pub fn should_abort(self, is_repeatable: bool) -> bool {
        match self {
            Self::Keep => false,
            Self::AbortRepeatable => is_repeatable,
            Self::AbortAll => true,
        }
    }
}

/// Seconds of traffic that earn the budget.
const WINDOW_SECONDS: u32 = 10;

/// A bound on resends as a share of the requests of the last ten seconds, after Finagle's
/// `RetryBudget`: a bucket that every request fills a little and every resend empties by one.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    /// In hundredths of a resend.
    balance_percent: u64,
    updated_at: Instant,
}

impl RetryBudget {
    /// A budget that holds its floor.
    pub fn new(spec: &RetrySpec, now: Instant) -> Self {
        Self { balance_percent: floor_balance(spec), updated_at: now }
    }

    /// What a share of the requests, in percent, has earned of it; the floor at least.
    pub fn fraction(&self, percent: u32, spec: &RetrySpec) -> Self {
        let balance = (self.balance_percent * u64::from(percent) / 100).max(floor_balance(spec));
        Self { balance_percent: balance, updated_at: self.updated_at }
    }

    /// Counts a request in.
    pub fn deposit(&mut self, spec: &RetrySpec) {
        self.balance_percent += u64::from(spec.budget_percent);
    }

    /// Lets what is older than the window fade, and tops the floor up. Call once in a while.
    pub fn decay(&mut self, spec: &RetrySpec, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated_at);
        self.updated_at = now;
        let keep = (-elapsed.as_secs_f64() / f64::from(WINDOW_SECONDS)).exp();
        let faded = (self.balance_percent as f64 * keep) as u64;
        let refill =
            u64::from(spec.budget_floor_per_second) * 100 * elapsed.as_millis() as u64 / 1000;
        self.balance_percent = if faded < floor_balance(spec) {
            (faded + refill).min(floor_balance(spec))
        } else {
            faded
        };
    }

    /// Whether it could pay for one resend.
    pub fn can_withdraw(&self) -> bool {
        self.balance_percent >= 100
    }

    /// Pays for one resend; `false` if the budget is spent.
    pub fn try_withdraw(&mut self) -> bool {
        match self.balance_percent.checked_sub(100) {
            Some(rest) => {
                self.balance_percent = rest;
                true
            }
            None => false,
        }
    }
}

fn floor_balance(spec: &RetrySpec) -> u64 {
    u64::from(spec.budget_floor_per_second) * u64::from(WINDOW_SECONDS) * 100
}

/// How often [`Budget::settle`] is worth calling.
pub const DECAY_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn failed_attempt(
        reached: RequestExposure,
        idempotent: bool,
        body_held: bool,
        tries: u32,
    ) -> FailedAttempt {
        FailedAttempt {
            exposure: reached,
            is_idempotent: idempotent,
            is_body_buffered: body_held,
            is_trial: false,
            sent_attempts: tries,
            total_attempts: tries,
        }
    }

    #[test]
    fn sent_post_is_never_resent() {
        let spec = RetrySpec::default();
        for body_held in [true, false] {
            let after = failed_attempt(RequestExposure::MaybeSent, false, body_held, 1);
            assert_eq!(retry_decision(&after, &spec), RetryDecision::Denied);
        }
    }

    #[test]
    fn unsent_request_is_resent_for_any_method() {
        let spec = RetrySpec::default();
        for idempotent in [true, false] {
            let after = failed_attempt(RequestExposure::NotSent, idempotent, true, 1);
            assert_eq!(retry_decision(&after, &spec), RetryDecision::Unbudgeted);
        }
    }

    #[test]
    fn request_without_buffered_body_is_not_resent() {
        let spec = RetrySpec::default();
        for reached in [RequestExposure::NotSent, RequestExposure::MaybeSent] {
            assert_eq!(
                retry_decision(&failed_attempt(reached, true, false, 1), &spec),
                RetryDecision::Denied
            );
        }
    }

    #[test]
    fn failed_trial_is_retried_without_budget() {
        let spec = RetrySpec { attempts: 2, ..RetrySpec::default() };
        let trial = FailedAttempt {
            is_trial: true,
            sent_attempts: 0,
            ..failed_attempt(RequestExposure::MaybeSent, true, true, 1)
        };
        assert_eq!(retry_decision(&trial, &spec), RetryDecision::Unbudgeted);
        let next = failed_attempt(RequestExposure::MaybeSent, true, true, 1);
        assert_eq!(
            retry_decision(&FailedAttempt { total_attempts: 2, ..next }, &spec),
            RetryDecision::Budgeted
        );
    }

    #[test]
    fn trial_requires_idempotent_bufferable_request() {
        let spec = RetrySpec { max_buffer_bytes: 10, ..RetrySpec::default() };
        assert!(can_be_trial(true, Some(0), &spec));
        assert!(can_be_trial(true, Some(10), &spec));
        assert!(!can_be_trial(true, Some(11), &spec));
        assert!(!can_be_trial(true, None, &spec), "of unknown length");
        assert!(!can_be_trial(false, Some(0), &spec));
        let never = RetrySpec { attempts: 1, ..spec };
        assert!(!can_be_trial(true, Some(0), &never));
    }

    #[test]
    fn connect_timeout_is_short_while_alternatives_exist() {
        let spec = RetrySpec::default();
        let (stall, timeout) = (Duration::from_millis(50), Duration::from_secs(1));
        let timeout_for = |tries, others| connect_timeout(tries, stall, timeout, &spec, || others);
        assert_eq!(timeout_for(1, true), (stall, FailureReason::Stall));
        assert_eq!(timeout_for(1, false), (timeout, FailureReason::Timeout));
        assert_eq!(timeout_for(3, true), (timeout, FailureReason::Timeout), "all seem to be slow");
        let never = RetrySpec { attempts: 1, ..spec };
        assert_eq!(
            connect_timeout(1, stall, timeout, &never, || true),
            (timeout, FailureReason::Timeout)
        );
    }

    #[test]
    fn retryable_statuses_include_any_server_error_of_a_trial() {
        let spec = RetrySpec::default();
        assert!(is_retryable_status(503, false, &spec) && !is_retryable_status(501, false, &spec));
        assert!(is_retryable_status(501, true, &spec) && !is_retryable_status(404, true, &spec));
        let off = RetrySpec { statuses: server_errors::ServerErrors::NONE, ..spec };
        assert!(!is_retryable_status(503, false, &off));
    }

    #[test]
    fn in_flight_policy_follows_failure_class() {
        let leave = |failure| {
            let waiting = InFlightPolicy::for_failure(failure);
            (waiting.should_abort(true), waiting.should_abort(false))
        };
        assert_eq!(leave(Failure::http(FailureReason::Timeout)), (true, true));
        assert_eq!(leave(Failure::connect(FailureReason::Refused)), (true, false));
        assert_eq!(leave(Failure::http(FailureReason::Reset)), (true, false));
        assert_eq!(leave(Failure::http(FailureReason::Status(503))), (false, false));
    }

    #[test]
    fn attempts_limit_counts_only_sent_attempts() {
        let spec = RetrySpec { attempts: 2, ..RetrySpec::default() };
        assert_eq!(
            retry_decision(&failed_attempt(RequestExposure::MaybeSent, true, true, 1), &spec),
            RetryDecision::Budgeted
        );
        assert_eq!(
            retry_decision(&failed_attempt(RequestExposure::MaybeSent, true, true, 2), &spec),
            RetryDecision::Denied
        );
        let unsent = FailedAttempt {
            sent_attempts: 0,
            ..failed_attempt(RequestExposure::NotSent, false, true, 9)
        };
        assert_eq!(retry_decision(&unsent, &spec), RetryDecision::Unbudgeted);
        let exhausted = FailedAttempt { total_attempts: MAX_UNSENT_ATTEMPTS, ..unsent };
        assert_eq!(retry_decision(&exhausted, &spec), RetryDecision::Denied);
        let never = RetrySpec { attempts: 1, ..spec };
        assert_eq!(retry_decision(&unsent, &never), RetryDecision::Denied);
    }

    #[test]
    fn retry_budget_is_a_percentage_with_a_floor() {
        let spec =
            RetrySpec { budget_percent: 20, budget_floor_per_second: 1, ..RetrySpec::default() };
        let t0 = Instant::now();
        let mut budget = RetryBudget::new(&spec, t0);
        assert_eq!((0..100).filter(|_| budget.try_withdraw()).count(), 10);
        for _ in 0..1000 {
            budget.deposit(&spec);
        }
        assert_eq!((0..1000).filter(|_| budget.try_withdraw()).count(), 200);
        budget.decay(&spec, t0 + Duration::from_secs(3));
        assert_eq!((0..1000).filter(|_| budget.try_withdraw()).count(), 3);
        budget.decay(&spec, t0 + Duration::from_secs(300));
        assert_eq!((0..1000).filter(|_| budget.try_withdraw()).count(), 10);
    }
}
