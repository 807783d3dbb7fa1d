//! The plan of one request: which attempt comes next, and when the request is over.
//!
//! [`RequestPlan`] is the only place that decides on resends and hedges. It does no I/O and reads
//! no clock: its driver reports what an attempt met and carries out the [`Decision`]. The request
//! path and the simulator drive the same plan, so that a prediction applies the rules of
//! production.
//!
//! The rules: a request that may have reached an endpoint is sent again only if it is idempotent
//! (RFC 9110 9.2.2) and its body is still buffered; one that did not reach an endpoint may always
//! be sent again. A hedge (Dean and Barroso, "The Tail at Scale", 2013) covers silence before any
//! verdict; the retry budget pays for it, so that a pool that is slow as a whole is not loaded
//! twice.

use std::time::Duration;

use super::response_timeout::WaitLimit;
use super::retry::{BudgetShare, BudgetedResend, RequestExposure, RetryBudget};
use super::server_errors;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::FailureReason;
use crate::logic::model::pick_request::{ExcludedTargets, RetrySafety};
use crate::logic::routing::RetrySpec;

/// Attempts of one request, whatever they met: unsent attempts and trials do not count against
/// `attempts`, but end here.
pub const MAX_TOTAL_ATTEMPTS: u32 = 16;

/// Attempts whose connections must open within the stall bound.
const FAST_CONNECT_ATTEMPTS: u32 = 2;

/// The body of a request, as far as its head states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// The request has no body.
    Absent,
    Known {
        bytes: u64,
    },
    Unknown,
}

/// The properties of a request that the plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct RequestTraits {
    /// Sending it twice does no harm: by its method or by a trusted `Idempotency-Key`.
    pub is_idempotent: bool,
    pub body: BodyLength,
    /// It requests another protocol, and so is bound to one connection.
    pub is_upgrade: bool,
}

/// The endpoint of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptTarget {
    pub endpoint: EndpointId,
    /// The endpoint's zone, by its index in the pool.
    pub zone: usize,
    /// The endpoint is on trial: the attempt costs its request nothing.
    pub is_trial: bool,
}

/// What an attempt met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEvent {
    /// No response head came within the stall bound. Reported under [`WaitLimit::Stalled`] only.
    Stalled,
    /// A response head came, and nothing of the response has been sent to the client.
    HeadArrived { status: u16, is_body_buffered: bool },
    /// The attempt ended without a response: it failed, or the endpoint's verdict aborted it.
    Failed { exposure: RequestExposure, is_body_buffered: bool },
}

/// What the driver of a request does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Wait on for the attempt.
    Wait,
    /// Start a second attempt beside this one if the resend is possible; else wait on.
    Hedge(Resend),
    /// Pass the response to the client, unless the resend is possible.
    ResendOrReturn(Resend),
    /// The attempt is over: send the request elsewhere, or fail it if that is not possible.
    ResendOrFail(Resend),
    /// The attempt is over, and the other one of the race decides.
    AwaitOther,
    /// Pass the response to the client; another attempt in the race is abandoned.
    Return,
    /// Pass the response to the client: its endpoint has failed, but attempts are exhausted.
    ReturnFailure,
    /// The request fails.
    Fail,
}

/// The terms of a resend. It is possible if the budget can pay, and if an endpoint takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resend {
    /// The kind of resend that the retry budget counts; `None` after an attempt that did not reach
    /// its endpoint, and after a trial.
    pub payment: Option<BudgetedResend>,
    /// It may queue for a connection; a request that has a response to fall back on does not.
    pub can_queue: bool,
}

/// How long a connection may take to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectTimeout {
    pub timeout: Duration,
    /// The failure reason when the time is over.
    pub reason: FailureReason,
}

/// The durations that bound the opening of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectBounds {
    /// The pool's stall bound.
    pub stall: Duration,
    /// The pool's slow bound.
    pub slow: Duration,
    /// The route's connect timeout.
    pub timeout: Duration,
}

/// Attempts of a request that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Race {
    /// One at most.
    Single,
    /// The original and its hedge.
    Hedged,
}

/// The state of one request between its attempts.
#[derive(Clone, Debug)]
pub struct RequestPlan {
    is_idempotent: bool,
    can_hedge: bool,
    can_be_trial: bool,
    race: Race,
    /// All attempts so far.
    attempts: u32,
    /// Attempts that may have reached their endpoint, without trials.
    sent_attempts: u32,
    excluded: ExcludedTargets,
}

impl RequestPlan {
    /// The plan of a request that has just arrived at a route with `spec`.
    pub fn new(traits: RequestTraits, spec: &RetrySpec) -> Self {
        let RequestTraits { is_idempotent, body, is_upgrade } = traits;
        let has_bufferable_body = match body {
            BodyLength::Absent => true,
            BodyLength::Known { bytes } => bytes <= spec.max_buffer_bytes as u64,
            BodyLength::Unknown => false,
        };
        Self {
            is_idempotent,
            can_hedge: is_idempotent && body == BodyLength::Absent && spec.is_hedged && !is_upgrade,
            can_be_trial: spec.attempts > 1 && is_idempotent && has_bufferable_body,
            race: Race::Single,
            attempts: 0,
            sent_attempts: 0,
            excluded: ExcludedTargets::default(),
        }
    }

    /// Whether sending the request twice does no harm.
    pub fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    /// Whether the first attempt may be a trial: the request can be sent again if it fails.
    pub fn can_be_trial(&self) -> bool {
        self.can_be_trial
    }

    /// The number of attempts so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether no attempt has started.
    pub fn is_first_attempt(&self) -> bool {
        self.attempts == 0
    }

    /// The endpoints and zones that the next attempt avoids.
    pub fn excluded(&self) -> &ExcludedTargets {
        &self.excluded
    }

    /// Whether an attempt leaves an endpoint that ends its idle connections but may finish what it
    /// has begun. Before its connection is open every request does.
    pub fn can_leave(&self, is_connected: bool) -> bool {
        self.is_idempotent || !is_connected
    }

    /// The requirements on the next endpoint. `nonrepeatable_bound` is the age of an unanswered
    /// request beyond which its endpoint receives no request that must not run twice.
    pub fn retry_safety(
        &self,
        now_us: u64,
        nonrepeatable_bound: impl FnOnce() -> Duration,
    ) -> RetrySafety {
        if self.is_idempotent {
            return RetrySafety::Repeatable;
        }
        let bound_us = nonrepeatable_bound().as_micros() as u64;
        RetrySafety::NotRepeatable { waiting_before_us: now_us.saturating_sub(bound_us) }
    }

    /// Counts an attempt that starts.
    pub fn start_attempt(&mut self) {
        self.attempts += 1;
    }

    /// Counts a hedge that starts beside the stalled attempt.
    pub fn start_hedge(&mut self) {
        self.attempts += 1;
        // The stalled attempt was sent; the hedge counts if it fails.
        self.sent_attempts += 1;
        self.race = Race::Hedged;
    }

    /// The bound up to which the attempt that has just started is waited for.
    pub fn wait_limit(&self, is_trial: bool) -> WaitLimit {
        match (is_trial, self.race) {
            (true, _) => WaitLimit::Slow,
            (false, Race::Single) if self.can_hedge => WaitLimit::Stalled,
            (false, _) => WaitLimit::Timeout,
        }
    }

    /// How long the connection of the attempt that has just started may take to open.
    ///
    /// While there are alternatives, no longer than the stall bound: nothing has been sent, so that
    /// any request may go elsewhere. A lost SYN is retransmitted after 1 s only (RFC 6298 2.1), and
    /// a dead host does not answer at all. After `FAST_CONNECT_ATTEMPTS` all endpoints seem slow.
    pub fn connect_timeout(
        &self,
        is_trial: bool,
        bounds: ConnectBounds,
        spec: &RetrySpec,
        has_other: impl FnOnce(&ExcludedTargets) -> bool,
    ) -> ConnectTimeout {
        let ConnectBounds { stall, slow, timeout } = bounds;
        if is_trial {
            return ConnectTimeout { timeout: timeout.min(slow), reason: FailureReason::Timeout };
        }
        let is_fast = self.attempts <= FAST_CONNECT_ATTEMPTS
            && stall < timeout
            && spec.attempts > 1
            && has_other(&self.excluded);
        if is_fast {
            ConnectTimeout { timeout: stall, reason: FailureReason::Stall }
        } else {
            ConnectTimeout { timeout, reason: FailureReason::Timeout }
        }
    }

    /// What follows from what the attempt at `target` met.
    pub fn handle(
        &mut self,
        target: AttemptTarget,
        event: AttemptEvent,
        spec: &RetrySpec,
    ) -> Decision {
        match event {
            AttemptEvent::Stalled => self.on_stalled(target, spec),
            AttemptEvent::HeadArrived { status, is_body_buffered } => {
                if !is_retryable_status(status, target.is_trial, spec) {
                    self.race = Race::Single;
                    return Decision::Return;
                }
                if self.leave_race(target) {
                    return Decision::AwaitOther;
                }
                if !(self.is_idempotent && is_body_buffered) {
                    return Decision::Return;
                }
                let exposure = RequestExposure::MaybeSent;
                match self.end_attempt(target, exposure, is_body_buffered, spec) {
                    Some(terms) => Decision::ResendOrReturn(Resend { can_queue: false, ..terms }),
                    None => Decision::ReturnFailure,
                }
            }
            AttemptEvent::Failed { exposure, is_body_buffered } => {
                if self.leave_race(target) {
                    return Decision::AwaitOther;
                }
                match self.end_attempt(target, exposure, is_body_buffered, spec) {
                    Some(terms) => Decision::ResendOrFail(terms),
                    None => Decision::Fail,
                }
            }
        }
    }

    /// Whether the request may go to another pool after it has failed here.
    pub fn can_fall_back(&self, is_body_buffered: bool) -> bool {
        is_body_buffered && (self.is_idempotent || self.sent_attempts == 0)
    }

    fn on_stalled(&mut self, target: AttemptTarget, spec: &RetrySpec) -> Decision {
        if !self.can_hedge || self.race == Race::Hedged || target.is_trial {
            return Decision::Wait;
        }
        self.exclude(target);
        let exposure = RequestExposure::MaybeSent;
        match self.resend_terms(exposure, false, true, self.sent_attempts + 1, spec) {
            Some(_) => {
                Decision::Hedge(Resend { payment: Some(BudgetedResend::Hedge), can_queue: false })
            }
            None => Decision::Wait,
        }
    }

    /// Ends the race if there is one: the attempt at `target` has lost it.
    fn leave_race(&mut self, target: AttemptTarget) -> bool {
        if self.race == Race::Single {
            return false;
        }
        self.race = Race::Single;
        self.exclude(target);
        true
    }

    /// Counts an attempt that gave no good response; on what terms the request is sent again, if at
    /// all.
    fn end_attempt(
        &mut self,
        target: AttemptTarget,
        exposure: RequestExposure,
        is_body_buffered: bool,
        spec: &RetrySpec,
    ) -> Option<Resend> {
        self.exclude(target);
        let is_counted = exposure == RequestExposure::MaybeSent && !target.is_trial;
        self.sent_attempts += u32::from(is_counted);
        self.resend_terms(exposure, target.is_trial, is_body_buffered, self.sent_attempts, spec)
    }

    fn resend_terms(
        &self,
        exposure: RequestExposure,
        is_trial: bool,
        is_body_buffered: bool,
        sent_attempts: u32,
        spec: &RetrySpec,
    ) -> Option<Resend> {
        let is_exhausted = spec.attempts <= 1
            || sent_attempts >= spec.attempts
            || self.attempts >= MAX_TOTAL_ATTEMPTS;
        let may_run_twice = exposure == RequestExposure::MaybeSent;
        if is_exhausted || !is_body_buffered || may_run_twice && !self.is_idempotent {
            return None;
        }
        let is_budgeted = may_run_twice && !is_trial;
        Some(Resend { payment: is_budgeted.then_some(BudgetedResend::Retry), can_queue: true })
    }

    fn exclude(&mut self, target: AttemptTarget) {
        if !self.excluded.endpoints.contains(&target.endpoint) {
            self.excluded.exclude(target.endpoint, target.zone);
        }
    }
}

impl RetryBudget {
    /// Whether the budget can pay for the resend.
    pub fn can_grant(&self, resend: Resend, share: BudgetShare) -> bool {
        resend.payment.is_none_or(|payment| self.can_withdraw(payment, share))
    }

    /// Pays for the resend; `false` if the budget is spent.
    pub fn try_grant(&mut self, resend: Resend, share: BudgetShare) -> bool {
        resend.payment.is_none_or(|payment| self.try_withdraw(payment, share))
    }
}

/// Whether a response with `status` is not passed on while another endpoint may be tried.
fn is_retryable_status(status: u16, is_trial: bool, spec: &RetrySpec) -> bool {
    spec.statuses.contains(status) || is_trial && server_errors::SERVER_ERRORS.contains(&status)
}

#[cfg(test)]
mod tests;
