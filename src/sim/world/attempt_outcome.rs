//! The end of an attempt: its evidence, and the next step of its request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::incident::client_failure::{ClientFailure, ClientFailureKind};
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::pool_latency::LatencySample;
use crate::logic::request::request_plan::{AttemptEvent, Decision, Resend};
use crate::logic::request::response_timeout::ResponseTimeout;
use crate::logic::request::retry::RequestExposure;
use crate::logic::request::server_errors;

use super::Simulation;
use super::behavior::SimulatedReply;
use super::requests::{
    AttemptEnd, AttemptKey, AttemptRole, FailureCause, SimulatedAttempt, SimulatedRequest,
};

/// The status of a good response.
const STATUS_OK: u16 = 200;

impl Simulation {
    pub(super) fn on_attempt_end(&mut self, key: AttemptKey, end: AttemptEnd) {
        let Some((mut attempt, mut request)) = self.take_attempt(key) else { return };
        if attempt.role == AttemptRole::Observed {
            // As on the request path: only slowness is of interest.
            if let AttemptEnd::Failed { failure, reached } = end
                && failure.reason == FailureReason::Slow
            {
                let _ = self.record_failure(&request, &mut attempt, failure, reached);
            }
            return self.keep_waiting(key.request, request);
        }
        match end {
            AttemptEnd::Failed { failure, reached } => {
                let failed = self.record_failure(&request, &mut attempt, failure, reached);
                request.failed.extend(failed);
                self.on_attempt_failed(key.request, request, &attempt, reached);
            }
            AttemptEnd::Answered(reply) => {
                self.record_latency(&request, &attempt);
                self.on_reply(key.request, request, attempt, reply);
            }
        }
    }

    fn on_reply(
        &mut self,
        id: u64,
        mut request: SimulatedRequest,
        mut attempt: SimulatedAttempt,
        reply: SimulatedReply,
    ) {
        let status = match reply {
            SimulatedReply::Good | SimulatedReply::Cut => STATUS_OK,
            SimulatedReply::Status(status) => status,
        };
        if reply != SimulatedReply::Cut {
            self.return_connection(request.worker, &attempt);
        }
        let now_us = self.elapsed_us(self.now);
        let is_failure = attempt.recorder.on_response_head(status, &attempt.target.stats, now_us);
        let failed = is_failure
            .then(|| attempt.failed_attempt(Failure::http(FailureReason::Status(status))));
        let event = AttemptEvent::HeadArrived { status, is_body_buffered: true };
        let decision = request.plan.handle(attempt.plan_target(), event, &self.settings.retry);
        if decision == Decision::Return {
            let is_good = !server_errors::is_endpoint_failure(status);
            let is_original_slow = is_good && self.settle_race(&request, &mut attempt);
            if let Some(failed) = request.end_race(is_original_slow) {
                self.count(&failed);
            }
        }
        if reply == SimulatedReply::Cut && decision == Decision::Return {
            let (failure, reached) =
                (Failure::http(FailureReason::Cut), RequestExposure::MaybeSent);
            let failed = self.record_failure(&request, &mut attempt, failure, reached);
            request.failed.extend(failed);
            return self.on_attempt_failed(id, request, &attempt, reached);
        }
        let is_good = attempt.recorder.on_response_complete(&attempt.target.stats);
        match decision {
            Decision::AwaitOther => {
                request.failed.extend(failed);
                let stats = &attempt.target.stats;
                request.first_failed_stats.get_or_insert_with(|| Arc::clone(stats));
                self.keep_waiting(id, request);
            }
            Decision::ResendOrReturn(resend) => {
                request.failed.extend(failed);
                if let Some(mut request) = self.try_resend(id, request, &attempt, resend) {
                    self.return_response(&mut request, &attempt, status);
                    self.keep_waiting(id, request);
                }
            }
            _ => {
                match failed {
                    Some(failed) => request.failed.push(failed),
                    None => {
                        self.settle_success(&mut request, attempt.place(), is_good);
                        // The late response is good.
                        request.failed.extend(attempt.deferred.take());
                    }
                }
                self.return_response(&mut request, &attempt, status);
                self.keep_waiting(id, request);
            }
        }
    }

    /// An attempt ended without a response: the request goes elsewhere, or fails.
    pub(super) fn on_attempt_failed(
        &mut self,
        id: u64,
        mut request: SimulatedRequest,
        attempt: &SimulatedAttempt,
        exposure: RequestExposure,
    ) {
        if attempt.role == AttemptRole::Observed {
            return self.keep_waiting(id, request);
        }
        let event = AttemptEvent::Failed { exposure, is_body_buffered: true };
        request.first_failed_stats.get_or_insert_with(|| Arc::clone(&attempt.target.stats));
        match request.plan.handle(attempt.plan_target(), event, &self.settings.retry) {
            Decision::AwaitOther => self.keep_waiting(id, request),
            Decision::ResendOrFail(resend) => {
                if let Some(mut request) = self.try_resend(id, request, attempt, resend) {
                    self.fail_request(&mut request, FailureCause::Attempts);
                    self.keep_waiting(id, request);
                }
            }
            _ => {
                self.fail_request(&mut request, FailureCause::Attempts);
                self.keep_waiting(id, request);
            }
        }
    }

    /// Sends the request to another endpoint. Returns it if that is not possible.
    fn try_resend(
        &mut self,
        id: u64,
        mut request: SimulatedRequest,
        attempt: &SimulatedAttempt,
        resend: Resend,
    ) -> Option<SimulatedRequest> {
        request.first_failed_stats.get_or_insert_with(|| Arc::clone(&attempt.target.stats));
        match self.grant_resend(&request, resend) {
            Some(next) => {
                self.start_attempt_at(id, request, next, AttemptRole::Original);
                None
            }
            None => Some(request),
        }
    }

    /// Feeds the pool's bounds with the time to the response head.
    fn record_latency(&mut self, request: &SimulatedRequest, attempt: &SimulatedAttempt) {
        let sent_at = attempt.timer.as_ref().and_then(ResponseTimeout::waiting_since);
        let waited = self.now.saturating_duration_since(sent_at.unwrap_or(attempt.started_at));
        let is_racing = attempt.role == AttemptRole::Hedge || request.hedge().is_some();
        let sample = self.latency_sample(request, attempt, waited);
        self.worker_mut(request).latency.on_response(&sample, is_racing);
    }

    /// The attempt is the first to be answered. Returns whether it is a hedge that proves the
    /// endpoint of the original slow.
    fn settle_race(&mut self, request: &SimulatedRequest, winner: &mut SimulatedAttempt) -> bool {
        let waited = self.now.saturating_duration_since(winner.started_at);
        let sample = self.latency_sample(request, winner, waited);
        if winner.role == AttemptRole::Hedge {
            return self.worker_mut(request).latency.on_hedge_won(&sample);
        }
        if let Some(hedge) = request.hedge() {
            let hedge_waited = self.now.saturating_duration_since(hedge.started_at);
            self.worker_mut(request).latency.on_original_won(&sample, hedge_waited);
            winner.deferred = None;
        }
        false
    }

    fn latency_sample<'a>(
        &self,
        request: &SimulatedRequest,
        attempt: &'a SimulatedAttempt,
        waited: Duration,
    ) -> LatencySample<'a> {
        LatencySample {
            baseline: attempt.target.zone_stats.latency(),
            key: request.content.key,
            place: attempt.place(),
            scope: self.comparison_scope(request.stream),
            waited,
            now: self.now,
            now_us: self.elapsed_us(self.now),
        }
    }

    fn return_connection(&mut self, worker: usize, attempt: &SimulatedAttempt) {
        let now = self.now;
        let pools = &self.snapshot.pools;
        let owning_pool = pools.iter().find(|view| view.members.contains(&attempt.target.id));
        if let Some(limits) = owning_pool.map(|view| view.spec.limits) {
            let owner = (attempt.target.id, worker);
            self.host_mut(attempt.target.address).check_in(owner, &limits, now);
        }
    }

    /// The client receives the endpoint's response.
    fn return_response(
        &mut self,
        request: &mut SimulatedRequest,
        attempt: &SimulatedAttempt,
        status: u16,
    ) {
        let failed = std::mem::take(&mut request.failed);
        self.settle_failed(request, &failed);
        if status < 500 {
            return self.on_success(request);
        }
        self.clients.counts.error_responses += 1;
        if self.settings.retry.statuses.contains(status) {
            let client_failure = ClientFailure {
                kind: ClientFailureKind::Status,
                is_repeatable: request.plan.is_idempotent(),
            };
            attempt.target.stats.record_client_failure(client_failure, self.elapsed_us(self.now));
        }
    }

    fn on_success(&mut self, request: &SimulatedRequest) {
        self.clients.counts.answered += 1;
        let Some(failed_stats) = &request.first_failed_stats else { return };
        let is_late = self.is_late(request, self.now);
        failed_stats.record_rescue(is_late);
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

    /// The client receives a failure of the proxy's own making.
    pub(super) fn fail_request(&mut self, request: &mut SimulatedRequest, cause: FailureCause) {
        let failed = std::mem::take(&mut request.failed);
        self.settle_failed(request, &failed);
        let is_idempotent = request.plan.is_idempotent();
        let counts = &mut self.clients.counts;
        *(if is_idempotent { &mut counts.failed_get } else { &mut counts.failed_post }) += 1;
        if let Some(failed_stats) = &request.first_failed_stats {
            let client_failure = match cause {
                FailureCause::Attempts => ClientFailure {
                    kind: ClientFailureKind::Reset,
                    is_repeatable: request.plan.can_fall_back(true),
                },
                FailureCause::Deadline => {
                    ClientFailure { kind: ClientFailureKind::Deadline, is_repeatable: false }
                }
            };
            failed_stats.record_client_failure(client_failure, self.elapsed_us(self.now));
        }
    }
}
