//! What becomes of a try: what counts against its endpoint, what control hears, and whether the
//! request goes on.

use std::sync::Arc;
use std::time::Instant;

use crate::logic::director::Input;
use crate::logic::incident::client_failure::{ClientFailure, ClientFailureKind};
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::retry;
use crate::logic::request::retry::{FailedAttempt, RequestExposure, RetryDecision};

use super::Simulation;
use super::behavior::SimulatedReply;
use super::requests::{AttemptEnd, SimulatedAttempt, SimulatedRequest};

/// The status of an answer that is as it should be.
const STATUS_OK: u16 = 200;

impl Simulation {
    /// A try has come to its end.
    pub(super) fn on_attempt_end(&mut self, id: u64, end: AttemptEnd) {
        let Some((attempt, request)) = self.take_attempt(id) else { return };
        match end {
            AttemptEnd::Failed { failure, reached } => {
                self.record_failure(&attempt, failure);
                self.retry_elsewhere(id, request, &attempt, reached);
            }
            AttemptEnd::Answered(answer) => {
                self.record_latency(&request, &attempt);
                match answer {
                    SimulatedReply::Status(status) if status >= 500 => {
                        self.return_connection(&attempt);
                        self.on_error_response(id, request, &attempt, status);
                    }
                    SimulatedReply::Good | SimulatedReply::Status(_) => {
                        self.return_connection(&attempt);
                        self.record_head(&attempt, STATUS_OK);
                        attempt.recorder.on_response_complete(&attempt.target.stats);
                        self.on_success(&request);
                    }
                    SimulatedReply::Cut => {
                        self.record_head(&attempt, STATUS_OK);
                        self.record_failure(&attempt, Failure::http(FailureReason::Cut));
                        self.retry_elsewhere(id, request, &attempt, RequestExposure::MaybeSent);
                    }
                }
            }
        }
    }

    pub(super) fn record_failure(&mut self, attempt: &SimulatedAttempt, failure: Failure) {
        if attempt.recorder.on_failure(failure, &attempt.target.stats) {
            self.report_failure(attempt, failure);
        }
    }

    /// The endpoint began to answer.
    fn record_head(&mut self, attempt: &SimulatedAttempt, status: u16) {
        if attempt.recorder.on_response_head(
            status,
            &attempt.target.stats,
            self.elapsed_us(self.now),
        ) {
            self.report_failure(attempt, Failure::http(FailureReason::Status(status)));
        }
    }

    fn report_failure(&mut self, attempt: &SimulatedAttempt, failure: Failure) {
        if !attempt.is_trial && failure.reason != FailureReason::Stall {
            attempt.target.zone_stats.record_error(self.elapsed_us(self.now));
        }
        let endpoint = attempt.target.id;
        self.deliver_input(Input::TrafficFailed {
            endpoint,
            failure,
            attempt_started: attempt.started_at,
        });
    }

    /// How long an answer took, for the pool's bounds.
    fn record_latency(&mut self, request: &SimulatedRequest, attempt: &SimulatedAttempt) {
        let waited = self.now.saturating_duration_since(attempt.started_at);
        self.clients.streams[request.stream].latency.record(waited);
    }

    fn return_connection(&mut self, attempt: &SimulatedAttempt) {
        let now = self.now;
        let pools = &self.snapshot.pools;
        let owning_pool = pools.iter().find(|view| view.members.contains(&attempt.target.id));
        if let Some(limits) = owning_pool.map(|view| view.spec.limits) {
            self.host_mut(attempt.target.address).check_in(attempt.target.id, &limits, now);
        }
    }

    fn on_success(&mut self, request: &SimulatedRequest) {
        self.clients.counts.answered += 1;
        let Some(met) = &request.first_failed_stats else { return };
        let is_late = self.is_late(request, self.now);
        met.record_rescue(is_late);
        let counts = &mut self.clients.counts;
        counts.rescued += 1;
        counts.late += u64::from(is_late);
    }

    fn is_late(&self, request: &SimulatedRequest, now: Instant) -> bool {
        let pool = &self.clients.streams[request.stream].load.pool;
        let view = self.snapshot.pools.iter().find(|view| view.spec.name == *pool);
        let elapsed = now.saturating_duration_since(request.arrived);
        view.is_some_and(|view| elapsed > view.spec.late_after)
    }

    /// An error page is an answer, which the client gets if nobody else may be asked.
    fn on_error_response(
        &mut self,
        id: u64,
        mut request: SimulatedRequest,
        attempt: &SimulatedAttempt,
        status: u16,
    ) {
        self.record_head(attempt, status);
        attempt.recorder.on_response_complete(&attempt.target.stats);
        let spec = self.settings.retry;
        if spec.statuses.contains(status) {
            request.error_response_stats = Some(Arc::clone(&attempt.target.stats));
        }
        request.has_error_response = true;
        if request.is_idempotent && retry::is_retryable_status(status, attempt.is_trial, &spec) {
            self.retry_elsewhere(id, request, attempt, RequestExposure::MaybeSent);
        } else {
            self.fail_request(&request);
        }
    }

    /// A request that got nothing from an endpoint goes to another one, if it may.
    pub(super) fn retry_elsewhere(
        &mut self,
        id: u64,
        mut request: SimulatedRequest,
        attempt: &SimulatedAttempt,
        reached: RequestExposure,
    ) {
        request.first_failed_stats.get_or_insert_with(|| Arc::clone(&attempt.target.stats));
        request.avoid.exclude(attempt.target.id, attempt.target.zone);
        request.sent_attempts +=
            u32::from(reached == RequestExposure::MaybeSent && !attempt.is_trial);
        let tried = FailedAttempt {
            exposure: reached,
            is_idempotent: request.is_idempotent,
            is_body_buffered: true,
            is_trial: attempt.is_trial,
            sent_attempts: request.sent_attempts,
            total_attempts: request.attempts,
        };
        let retry_decision = retry::retry_decision(&tried, &self.settings.retry);
        let next =
            if retry_decision == RetryDecision::Denied { None } else { self.pick_target(&request) };
        let budget = &mut self.clients.streams[request.stream].budget;
        match next {
            Some(next) if retry_decision == RetryDecision::Unbudgeted || budget.try_withdraw() => {
                self.send_to_target(id, request, next);
            }
            _ => self.fail_request(&request),
        }
    }

    /// The client sees the failure: the bad answer, or one of the proxy's own.
    pub(super) fn fail_request(&mut self, request: &SimulatedRequest) {
        let counts = &mut self.clients.counts;
        if request.has_error_response {
            counts.error_responses += 1;
            if let Some(live) = &request.error_response_stats {
                let casualty = ClientFailure {
                    kind: ClientFailureKind::Status,
                    is_repeatable: request.is_idempotent,
                };
                live.record_client_failure(casualty, self.elapsed_us(self.now));
            }
            return;
        }
        let failed =
            if request.is_idempotent { &mut counts.failed_get } else { &mut counts.failed_post };
        *failed += 1;
        if let Some(met) = &request.first_failed_stats {
            let casualty = ClientFailure {
                kind: ClientFailureKind::Reset,
                is_repeatable: request.is_idempotent,
            };
            met.record_client_failure(casualty, self.elapsed_us(self.now));
        }
    }
}
