//! The course of one attempt: the connection, the request's way to the endpoint, and the wait.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::request_plan::{ConnectBounds, ConnectPatience};
use crate::logic::request::retry::RequestExposure;

use super::behavior::RequestResponse;
use super::requests::{AttemptEnd, AttemptKey, AttemptStage, RequestStep};
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
        let Some(ConnectPatience { timeout, reason }) = self.connect_patience(key) else { return };
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
            let at = answered_at + self.one_way();
            self.schedule_event(at, ScheduledEvent::Client(RequestStep::RequestReceived(key)));
        }
    }

    /// How long the attempt waits for its connection.
    fn connect_patience(&self, key: AttemptKey) -> Option<ConnectPatience> {
        let request = self.clients.requests.get(&key.request)?;
        let attempt = self.attempt(key)?;
        let stream = &self.clients.streams[request.stream];
        let pools = &self.snapshot.pools;
        let view = pools.iter().find(|view| view.spec.name == stream.load.pool)?;
        let bounds = ConnectBounds {
            stall: stream.latency.stall_bound(),
            slow: stream.latency.slow_bound(),
            timeout: self.settings.timeouts.connect,
        };
        let retry_safety = self.retry_safety(request);
        Some(request.plan.connect_patience(
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
        let (response, is_received) = self.with_behavior(address, |behavior, usual, rng| {
            let service = behavior.sample_service_time(usual, rng);
            let is_received =
                !matches!(behavior, EndpointBehavior::Refused | EndpointBehavior::BlackHole);
            (behavior.request_response(service, rng), is_received)
        });
        if let Some(request) = self.clients.requests.get_mut(&key.request) {
            request.is_received |= is_received;
        }
        match response {
            RequestResponse::Answer { after, answer } => {
                let answered_at = self.now + after + retransmit_delay;
                self.set_stage(key, AttemptStage::Received { answered_at });
                self.schedule_bounds(key, answered_at + back);
                self.schedule_end(key, answered_at + back, AttemptEnd::Answered(answer));
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
            AttemptStage::Received { answered_at } => (is_reset || is_silent) && answered_at > now,
            // A process that goes on answers what it received meanwhile.
            AttemptStage::Silent => !is_silent,
            AttemptStage::Connecting | AttemptStage::InTransit | AttemptStage::Resolved => false,
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
        let Some(started_at) = self.attempt(key).map(|attempt| attempt.started_at) else { return };
        let end = started_at + self.settings.timeouts.response;
        self.schedule_bounds(key, end);
        let failure = Failure::http(FailureReason::Timeout);
        let reached = RequestExposure::MaybeSent;
        self.schedule_end(key, end, AttemptEnd::Failed { failure, reached });
    }

    /// Schedules the reports of a wait that lasts beyond the pool's bounds.
    fn schedule_bounds(&mut self, key: AttemptKey, end: Instant) {
        let Some(request) = self.clients.requests.get(&key.request) else { return };
        let Some(attempt) = self.attempt(key) else { return };
        let latency = &self.clients.streams[request.stream].latency;
        let (stall, slow) = (latency.stall_bound(), latency.slow_bound());
        let (started_at, has_stalled) = (attempt.started_at, attempt.has_stalled);
        if started_at + stall < end && !has_stalled {
            let step = RequestStep::StallBoundReached(key);
            self.schedule_event(started_at + stall, ScheduledEvent::Client(step));
        }
        if started_at + slow < end {
            let step = RequestStep::SlowBoundReached(key);
            self.schedule_event(started_at + slow, ScheduledEvent::Client(step));
        }
    }

    pub(super) fn on_stall_bound(&mut self, key: AttemptKey) {
        if let Some(attempt) = self.attempt_mut(key) {
            attempt.has_stalled = true;
            self.record_attempt_failure(key, Failure::http(FailureReason::Stall));
        }
    }

    /// The attempt counts as failed against its endpoint; a trial ends.
    pub(super) fn on_slow_bound(&mut self, key: AttemptKey) {
        let Some(is_trial) = self.attempt(key).map(|attempt| attempt.is_trial) else { return };
        let failure = Failure::http(FailureReason::Slow);
        if is_trial {
            let reached = RequestExposure::MaybeSent;
            self.on_attempt_end(key, AttemptEnd::Failed { failure, reached });
        } else {
            self.record_attempt_failure(key, failure);
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
