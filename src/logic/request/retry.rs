//! The terms of resends: what an endpoint may have seen of a request, which requests are
//! repeatable, what a verdict does to requests in flight, and the budget. [`super::request_plan`]
//! decides by them.

use std::time::{Duration, Instant};

use http::Method;
use http::header::{HeaderMap, HeaderName};

use crate::logic::model::outcome::{Failure, FailureClass};
use crate::logic::routing::RetrySpec;

/// How much of a request an endpoint may have received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestExposure {
    /// No byte was handed to the network.
    NotSent,
    /// The endpoint may have read it, and so executed it.
    MaybeSent,
}

/// By this key an endpoint recognises a request that it has executed already
/// (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Whether sending the request twice does no harm: by its method, or because its route trusts the
/// `Idempotency-Key` that it carries.
pub fn is_repeatable(method: &Method, headers: &HeaderMap, spec: &RetrySpec) -> bool {
    is_idempotent(method)
        || spec.is_idempotency_key_trusted && headers.contains_key(IDEMPOTENCY_KEY)
}

/// Whether the method is idempotent by RFC 9110 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// What happens to requests that wait for an endpoint whose verdict turns down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlightPolicy {
    /// The endpoint responds, if wrongly: requests in flight may still succeed.
    Keep,
    /// The endpoint accepts no connections, but may finish what it has begun (as in a graceful
    /// restart): requests that can be sent again are, the others stay.
    AbortRepeatable,
    /// The endpoint is silent: no response will come.
    AbortAll,
}

impl InFlightPolicy {
    /// The policy for the failure that made the verdict.
    pub fn for_failure(failure: Failure) -> Self {
        match failure.class() {
            FailureClass::Silent => Self::AbortAll,
            FailureClass::Refused | FailureClass::Reset => Self::AbortRepeatable,
            // Connections with a handshake go on.
            FailureClass::BadStatus | FailureClass::Tls => Self::Keep,
        }
    }

    /// Whether a request is aborted, depending on whether it can be sent again.
    pub fn should_abort(self, is_repeatable: bool) -> bool {
        match self {
            Self::Keep => false,
            Self::AbortRepeatable => is_repeatable,
            Self::AbortAll => true,
        }
    }
}

/// Seconds of traffic that the budget is a share of.
const WINDOW_SECONDS: u32 = 10;

/// A bound on resends as a share of the requests of the last ten seconds, with a floor. After
/// Finagle's `RetryBudget`: a bucket that every request fills a little and every resend empties by
/// one.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    /// In hundredths of a resend.
    balance_percent: u64,
    updated_at: Instant,
}

impl RetryBudget {
    /// A budget at its floor.
    pub fn new(spec: &RetrySpec, now: Instant) -> Self {
        Self { balance_percent: floor_balance(spec), updated_at: now }
    }

    /// The part of the budget that this percentage of the requests has earned; at least the floor.
    pub fn fraction(&self, percent: u32, spec: &RetrySpec) -> Self {
        let balance = (self.balance_percent * u64::from(percent) / 100).max(floor_balance(spec));
        Self { balance_percent: balance, updated_at: self.updated_at }
    }

    /// Counts a request.
    pub fn deposit(&mut self, spec: &RetrySpec) {
        self.balance_percent += u64::from(spec.budget_percent);
    }

    /// Decays what is older than the window, and refills up to the floor. To be called at
    /// [`DECAY_INTERVAL`] or more.
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

    /// Whether the budget can pay for one resend.
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

/// The interval at which [`RetryBudget::decay`] has an effect.
pub const DECAY_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::logic::model::outcome::FailureReason;

    #[test]
    fn idempotency_key_counts_only_where_it_is_trusted() {
        let spec = RetrySpec::default();
        let trusting = RetrySpec { is_idempotency_key_trusted: true, ..spec };
        let none = HeaderMap::new();
        let keyed = HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_static("k"))]);
        assert!(is_repeatable(&Method::GET, &none, &spec));
        assert!(!is_repeatable(&Method::POST, &keyed, &spec));
        assert!(!is_repeatable(&Method::POST, &none, &trusting));
        assert!(is_repeatable(&Method::POST, &keyed, &trusting));
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
