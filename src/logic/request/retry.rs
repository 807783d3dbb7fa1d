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
            // Connections with a handshake continue.
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

/// The window of the budget, in seconds: the decay time of its counts.
const WINDOW_SECONDS: f64 = 10.0;

/// A bound on resends: a share of the requests of the last ten seconds, or a rate where that is
/// more. Hedges have a smaller share of their own, so that they add little load to a pool that is
/// slow as a whole. Dean and Barroso ("The Tail at Scale", 2013) suggest 5 %.
///
/// Finagle's `RetryBudget` adds the rate to the share instead, so that the sum exceeds both
/// figures. The rate applies to the instance: each worker has an equal part.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    /// All resends, hedges included.
    resends: BudgetAccount,
    hedges: BudgetAccount,
    /// Resends that are always possible within the window.
    floor: f64,
    updated_at: Instant,
}

/// The part of the budget that a resend may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetShare {
    Whole,
    /// For a request whose key fails everywhere. The other half is kept for requests that a retry
    /// may rescue.
    Half,
}

/// The kind of a budgeted resend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetedResend {
    Retry,
    Hedge,
}

/// What recent requests have earned and recent resends have spent, decayed.
#[derive(Clone, Copy, Debug, Default)]
struct BudgetAccount {
    earned: f64,
    spent: f64,
}

impl BudgetAccount {
    fn deposit(&mut self, percent: u32) {
        self.earned += f64::from(percent) / 100.0;
    }

    /// Whether one more resend fits into this part of the limit.
    fn can_withdraw(self, floor: f64, part: f64) -> bool {
        let limit = self.earned.max(floor) * part;
        // A floor that is divided among many workers is at least one resend.
        let limit = if floor > 0.0 { limit.max(1.0) } else { limit };
        // Sums of hundredths are not exact.
        self.spent + 1.0 <= limit + 1e-6
    }

    fn decay(&mut self, factor: f64) {
        self.earned *= factor;
        self.spent *= factor;
    }

    fn fraction(self, percent: u32) -> Self {
        Self { earned: self.earned * f64::from(percent) / 100.0, spent: 0.0 }
    }
}

impl RetryBudget {
    /// The budget of one of `workers` workers, before any request.
    pub fn new(spec: &RetrySpec, workers: usize, now: Instant) -> Self {
        Self {
            resends: BudgetAccount::default(),
            hedges: BudgetAccount::default(),
            floor: floor(spec, workers),
            updated_at: now,
        }
    }

    /// Applies changed settings; the accounts stay.
    pub fn configure(&mut self, spec: &RetrySpec, workers: usize) {
        self.floor = floor(spec, workers);
    }

    /// An unspent budget with this percentage of the earned resends, and the same floor.
    pub fn fraction(&self, percent: u32) -> Self {
        Self {
            resends: self.resends.fraction(percent),
            hedges: self.hedges.fraction(percent),
            ..*self
        }
    }

    /// Counts a request.
    pub fn deposit(&mut self, spec: &RetrySpec) {
        self.resends.deposit(spec.budget_percent);
        self.hedges.deposit(spec.hedge_percent);
    }

    /// Decays what is older than the window. To be called every [`DECAY_INTERVAL`] or less often.
    pub fn decay(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated_at);
        self.updated_at = now;
        let factor = (-elapsed.as_secs_f64() / WINDOW_SECONDS).exp();
        self.resends.decay(factor);
        self.hedges.decay(factor);
    }

    /// Whether the budget can pay for one resend.
    pub fn can_withdraw(&self, resend: BudgetedResend, share: BudgetShare) -> bool {
        let part = match share {
            BudgetShare::Whole => 1.0,
            BudgetShare::Half => 0.5,
        };
        self.resends.can_withdraw(self.floor, part)
            && (resend == BudgetedResend::Retry || self.hedges.can_withdraw(self.floor, part))
    }

    /// Pays for one resend; `false` if the budget is spent.
    pub fn try_withdraw(&mut self, resend: BudgetedResend, share: BudgetShare) -> bool {
        if !self.can_withdraw(resend, share) {
            return false;
        }
        self.resends.spent += 1.0;
        if resend == BudgetedResend::Hedge {
            self.hedges.spent += 1.0;
        }
        true
    }
}

/// A worker's part of the resends that are always possible within the window.
fn floor(spec: &RetrySpec, workers: usize) -> f64 {
    f64::from(spec.budget_floor_per_second) * WINDOW_SECONDS / workers.max(1) as f64
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

    const WHOLE: BudgetShare = BudgetShare::Whole;

    fn grants(budget: &mut RetryBudget, share: BudgetShare) -> usize {
        (0..1000).filter(|_| budget.try_withdraw(BudgetedResend::Retry, share)).count()
    }

    #[test]
    fn retry_budget_is_a_percentage_with_a_floor() {
        let spec =
            RetrySpec { budget_percent: 20, budget_floor_per_second: 1, ..RetrySpec::default() };
        let t0 = Instant::now();
        let mut budget = RetryBudget::new(&spec, 1, t0);
        assert_eq!(grants(&mut budget, WHOLE), 10);
        for _ in 0..1000 {
            budget.deposit(&spec);
        }
        assert_eq!(grants(&mut budget, WHOLE), 190, "the floor is part of the share");
        budget.decay(t0 + Duration::from_secs(300));
        assert_eq!(grants(&mut budget, WHOLE), 10);
        budget.decay(t0 + Duration::from_secs(303));
        assert_eq!(grants(&mut budget, WHOLE), 2, "one a second, while it decays");
        assert_eq!(grants(&mut RetryBudget::new(&spec, 2, t0), WHOLE), 5, "each worker has a part");
        assert_eq!(grants(&mut RetryBudget::new(&spec, 64, t0), WHOLE), 1, "of one at least");
        assert_eq!(grants(&mut RetryBudget::new(&spec, 64, t0), BudgetShare::Half), 1);
    }

    #[test]
    fn retries_stay_in_the_share_of_the_requests() {
        let spec = RetrySpec::default();
        let t0 = Instant::now();
        let mut budget = RetryBudget::new(&spec, 1, t0);
        let mut retries = 0;
        for n in 1..=10_000u64 {
            budget.decay(t0 + Duration::from_millis(10 * n));
            budget.deposit(&spec);
            retries += u64::from(budget.try_withdraw(BudgetedResend::Retry, WHOLE));
        }
        assert!((1_900..=2_100).contains(&retries), "{retries}");
    }

    #[test]
    fn hedges_have_a_smaller_share_of_the_budget() {
        let spec = RetrySpec { budget_floor_per_second: 0, ..RetrySpec::default() };
        let mut budget = RetryBudget::new(&spec, 1, Instant::now());
        (0..1000).for_each(|_| budget.deposit(&spec));
        let hedge = |budget: &mut RetryBudget| budget.try_withdraw(BudgetedResend::Hedge, WHOLE);
        assert_eq!((0..1000).filter(|_| hedge(&mut budget)).count(), 50);
        assert_eq!(grants(&mut budget, WHOLE), 150, "they are resends as well");
        let floor = RetrySpec { budget_floor_per_second: 1, hedge_percent: 0, ..spec };
        let mut budget = RetryBudget::new(&floor, 1, Instant::now());
        assert_eq!((0..1000).filter(|_| hedge(&mut budget)).count(), 10, "the floor is theirs");
    }

    #[test]
    fn requests_that_fail_everywhere_spend_half_of_the_budget() {
        let spec = RetrySpec { budget_floor_per_second: 1, ..RetrySpec::default() };
        let mut budget = RetryBudget::new(&spec, 1, Instant::now());
        assert_eq!(grants(&mut budget, BudgetShare::Half), 5);
        assert_eq!(grants(&mut budget, WHOLE), 5);
    }
}
