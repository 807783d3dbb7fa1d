//! The course of one attempt: the connection, the request's way to the endpoint, and the wait.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::logic::health::latency_baseline::LatencyBounds;
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::request_plan::{AttemptEvent, ConnectBounds, ConnectTimeout, Decision};
use crate::logic::request::response_timeout::{
    AttemptTimeouts, ResponseTimeout, WaitLimit, WaitStep,
};
use crate::logic::request::retry::RequestExposure;
use crate::logic::routing::RouteTimeouts;

use super::behavior::RequestResponse;
use super::requests::{
    AttemptEnd, AttemptKey, AttemptRole, AttemptStage, RequestStep, SimulatedAttempt,
    SimulatedRequest,
};
use super::{EndpointBehavior, ScheduledEvent, Simulation};

/// The end of an attempt whose connection is torn down.
const RESET_END: AttemptEnd = AttemptEnd::Failed {
    failure: Failure::http(FailureReason::Reset),
    reached: RequestExposure::MaybeSent,
};

/// A lost SYN is retransmitted after this (RFC 6298 2.1), and each further one after twice as long.
const SYN_RETRANSMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The same for any later packet: the minimum of Linux.
const MIN_RETRANSMIT_TIMEOUT: Duration = Duration::from_millis(200);

/// Consecutive losses that are simulated; a real connection would not survive more.
const MAX_CONSECUTIVE_LOSSES: u32 = 12;

impl Simulation {
    /// The SYN has reached the endpoint.
    pub(super) fn on_syn_arrival(&mut self, key: AttemptKey) {
        let Some((address, started_at)) =
            self.attempt(key).map(|attempt| (attempt.target.address, attempt.started_at))
        else {
            return;
        };
        let Some(ConnectTimeout { timeout, reason }) = self.connect_timeout(key) else { return };
        let retransmit_delay = self.retransmit_delay(SYN_RETRANSMIT_TIMEOUT);
        let back = self.one_way();
        let behavior = &self.host_mut(address).behavior;
        let (is_refused, is_silent) =
            (*behavior == EndpointBehavior::Refused, *behavior == EndpointBehavior::BlackHole);
        let times_out_at = started_at + timeout;
        let answered_at = self.now + retransmit_delay + back;
        let reached = RequestExposure::NotSent;
        if is_silent || answered_at > times_out_at {
            let failure = Failure::connect(reason);
            self.schedule_end(key, times_out_at, AttemptEnd::Failed { failure, reached });
        } else if is_refused {
            let failure = Failure::connect(FailureReason::Refused);
            self.schedule_end(key, answered_at, AttemptEnd::Failed { failure, reached });
        } else {
            self.set_stage(key, AttemptStage::InTransit { sent_at: answered_at });
            let at = answered_at + self.one_way();
            self.schedule_event(at, ScheduledEvent::Client(RequestStep::RequestReceived(key)));
        }
    }

    /// How long the attempt waits for its connection.
    fn connect_timeout(&self, key: AttemptKey) -> Option<ConnectTimeout> {
        let request = self.clients.requests.get(&key.request)?;
        let attempt = self.attempt(key)?;
        let pool = &self.clients.streams[request.stream].load.pool;
        let view = self.snapshot.pools.iter().find(|view| view.spec.name == *pool)?;
        let LatencyBounds { stall, slow, .. } = self.latency_bounds(request, attempt);
        let bounds = ConnectBounds { stall, slow, timeout: self.settings.timeouts.connect };
        let retry_safety = self.retry_safety(request);
        Some(request.plan.connect_timeout(
            attempt.is_trial,
            bounds,
            &self.settings.retry,
            |excluded| view.has_alternative(attempt.target.id, excluded, retry_safety),
        ))
    }

    /// The endpoint has the whole request.
    pub(super) fn on_request_received(&mut self, key: AttemptKey) {
        let Some(address) = self.attempt(key).map(|attempt| attempt.target.address) else { return };
        let (retransmit_delay, back) =
            (self.retransmit_delay(MIN_RETRANSMIT_TIMEOUT), self.one_way());
        let fault = self.clients.requests.get(&key.request).and_then(|one| one.content.fault);
        let (response, is_received) = self.with_behavior(address, |behavior, usual, rng| {
            let service = behavior.sample_service_time(usual, rng);
            let is_received =
                !matches!(behavior, EndpointBehavior::Refused | EndpointBehavior::BlackHole);
            (behavior.request_response(service, fault, rng), is_received)
        });
        if let Some(request) = self.clients.requests.get_mut(&key.request) {
            request.is_received |= is_received;
        }
        self.start_timer(key);
        match response {
            RequestResponse::Answer { after, answer } => {
                let answered_at = self.now + after + retransmit_delay;
                let ends_at = answered_at + back;
                self.set_stage(key, AttemptStage::Received { answered_at, ends_at });
                self.schedule_timer(key);
                self.schedule_end(key, ends_at, AttemptEnd::Answered(answer));
            }
            RequestResponse::Reset => {
                self.set_stage(key, AttemptStage::Resolved);
                self.schedule_end(key, self.now + back, RESET_END);
            }
            RequestResponse::Silence => self.mark_silent(key),
        }
    }

    /// The delay that the lost packets of an exchange cause.
    fn retransmit_delay(&mut self, first: Duration) -> Duration {
        let loss = self.settings.traffic_loss;
        if loss <= 0.0 {
            return Duration::ZERO;
        }
        let losses = (0..MAX_CONSECUTIVE_LOSSES).take_while(|_| self.rng.f64() < loss).count();
        first * ((1 << losses) - 1)
    }

    /// Applies the new behaviour of an endpoint to the requests that it has not answered.
    pub(super) fn apply_behavior_to_requests(
        &mut self,
        address: SocketAddr,
        behavior: &EndpointBehavior,
    ) {
        let is_reset = matches!(behavior, EndpointBehavior::Refused | EndpointBehavior::Reset);
        let is_silent = matches!(behavior, EndpointBehavior::Hang | EndpointBehavior::BlackHole);
        let now = self.now;
        let affected = self.replan_attempts(address, |stage| match stage {
            AttemptStage::Received { answered_at, .. } => {
                (is_reset || is_silent) && answered_at > now
            }
            // A process that resumes answers what it received meanwhile.
            AttemptStage::Silent => !is_silent,
            AttemptStage::Connecting | AttemptStage::InTransit { .. } | AttemptStage::Resolved => {
                false
            }
        });
        for key in affected {
            if is_reset {
                self.set_stage(key, AttemptStage::Resolved);
                let at = now + self.one_way();
                self.schedule_end(key, at, RESET_END);
            } else if is_silent {
                self.mark_silent(key);
            } else {
                self.on_request_received(key);
            }
        }
    }

    /// No response comes: the wait becomes evidence, and the response timeout ends it.
    fn mark_silent(&mut self, key: AttemptKey) {
        self.set_stage(key, AttemptStage::Silent);
        self.schedule_timer(key);
    }

    /// Starts the wait for the response head. Its bounds count from when the request was sent.
    fn start_timer(&mut self, key: AttemptKey) {
        let Some(request) = self.clients.requests.get(&key.request) else { return };
        let Some(attempt) = self.attempt(key) else { return };
        let LatencyBounds { stall, slow, .. } = self.latency_bounds(request, attempt);
        let RouteTimeouts { response, idle, .. } = self.settings.timeouts;
        let timeouts = AttemptTimeouts { stall, slow, response, idle, body_rate: 0 };
        let Some(attempt) = self.attempt_mut(key) else { return };
        if let AttemptStage::InTransit { sent_at } = attempt.stage {
            let mut timer = ResponseTimeout::new(timeouts, sent_at);
            timer.on_request_sent(sent_at);
            attempt.timer = Some(timer);
        }
    }

    /// The bounds on the wait for the attempt's response.
    fn latency_bounds(
        &self,
        request: &SimulatedRequest,
        attempt: &SimulatedAttempt,
    ) -> LatencyBounds {
        let baseline = attempt.target.zone_stats.latency();
        self.worker(request).latency.bounds(baseline, request.content.key, self.now)
    }

    /// Schedules the next expiry of the attempt's timer, if no response comes before it.
    fn schedule_timer(&mut self, key: AttemptKey) {
        let Some(attempt) = self.attempt(key) else { return };
        let Some(due) = attempt.timer.as_ref().map(ResponseTimeout::due) else { return };
        let is_needed = match attempt.stage {
            AttemptStage::Received { ends_at, .. } => due < ends_at,
            AttemptStage::Silent => true,
            AttemptStage::Connecting | AttemptStage::InTransit { .. } | AttemptStage::Resolved => {
                false
            }
        };
        if is_needed {
            self.schedule_event(due, ScheduledEvent::Client(RequestStep::TimerExpires(key)));
        }
    }

    pub(super) fn on_timer(&mut self, key: AttemptKey) {
        let now = self.now;
        let Some(attempt) = self.attempt_mut(key) else { return };
        let Some(timer) = &mut attempt.timer else { return };
        let event = timer.on_timer(now, 0, false);
        match attempt.wait_limit.next_step(event) {
            WaitStep::Wait | WaitStep::ClientIdle => {}
            WaitStep::Report(reason) => self.record_attempt_failure(key, Failure::http(reason)),
            WaitStep::Pause => {
                attempt.wait_limit = WaitLimit::Timeout;
                self.record_attempt_failure(key, Failure::http(FailureReason::Stall));
                self.consider_hedge(key);
            }
            WaitStep::Fail(reason) => {
                let (failure, reached) = (Failure::http(reason), RequestExposure::MaybeSent);
                return self.on_attempt_end(key, AttemptEnd::Failed { failure, reached });
            }
        }
        self.schedule_timer(key);
    }

    /// Starts a second attempt beside a stalled one, if the plan allows it.
    fn consider_hedge(&mut self, key: AttemptKey) {
        let Some(target) = self.attempt(key).map(SimulatedAttempt::plan_target) else { return };
        let Some(mut request) = self.clients.requests.remove(&key.request) else { return };
        let decision = match self.fails_everywhere(&request) {
            true => Decision::Wait,
            false => request.plan.handle(target, AttemptEvent::Stalled, &self.settings.retry),
        };
        let next = match decision {
            Decision::Hedge(resend) => self.grant_resend(&request, resend),
            _ => None,
        };
        match next {
            Some(next) => self.start_attempt_at(key.request, request, next, AttemptRole::Hedge),
            None => self.keep_waiting(key.request, request),
        }
    }

    fn set_stage(&mut self, key: AttemptKey, stage: AttemptStage) {
        if let Some(attempt) = self.attempt_mut(key) {
            attempt.stage = stage;
        }
    }

    fn schedule_end(&mut self, key: AttemptKey, at: Instant, end: AttemptEnd) {
        let step = RequestStep::AttemptEnds(key, end);
        self.schedule_event(at, ScheduledEvent::Client(step));
    }
}
