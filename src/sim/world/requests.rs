//! A request's way from endpoint to endpoint, as the request path goes it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::health::attempt_recorder::AttemptRecorder;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::model::pick_request::{ExcludedTargets, PickRequest, RetrySafety};
use crate::logic::model::snapshot::{EndpointStats, PoolView, Target};
use crate::logic::request::retry;
use crate::logic::request::retry::{InFlightPolicy, RequestExposure};

use super::behavior::{RequestResponse, SimulatedReply};
use super::{EndpointBehavior, ScheduledEvent, Simulation};

/// How a connection that is torn down ends a request.
const RESET_END: AttemptEnd = AttemptEnd::Failed {
    failure: Failure::http(FailureReason::Reset),
    reached: RequestExposure::MaybeSent,
};

/// A lost SYN is sent again after this (RFC 6298 2.1), and every further one after twice as long.
const SYN_RETRANSMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The same for any later packet: the least that Linux waits.
const MIN_RETRANSMIT_TIMEOUT: Duration = Duration::from_millis(200);

/// Losses in a row that are told apart; the connection would not live through more.
const MAX_CONSECUTIVE_LOSSES: u32 = 12;

#[derive(Debug)]
pub(super) struct SimulatedRequest {
    pub(super) stream: usize,
    pub(super) is_idempotent: bool,
    pub(super) arrived: Instant,
    pub(super) avoid: ExcludedTargets,
    pub(super) attempts: u32,
    pub(super) sent_attempts: u32,
    pub(super) first_failed_stats: Option<Arc<EndpointStats>>,
    /// A bad answer that is in hand, should no other endpoint take the request.
    pub(super) has_error_response: bool,
    /// Whose failure that answer is, if it is one.
    pub(super) error_response_stats: Option<Arc<EndpointStats>>,
    /// An endpoint got it that was not refusing it.
    is_received: bool,
    attempt: Option<SimulatedAttempt>,
    /// Counts changes of what will become of it: only the last one counts.
    plan_version: u32,
}

impl SimulatedRequest {
    pub(super) fn new(stream: usize, idempotent: bool, arrived: Instant) -> Self {
        Self {
            stream,
            is_idempotent: idempotent,
            arrived,
            avoid: ExcludedTargets::default(),
            attempts: 0,
            sent_attempts: 0,
            first_failed_stats: None,
            has_error_response: false,
            error_response_stats: None,
            is_received: false,
            attempt: None,
            plan_version: 0,
        }
    }
}

/// A request's stay at an endpoint.
#[derive(Clone, Debug)]
pub(super) struct SimulatedAttempt {
    pub(super) target: Target,
    pub(super) started_at: Instant,
    /// It is there because the endpoint is to prove itself.
    pub(super) is_trial: bool,
    /// What it says for or against the endpoint.
    pub(super) recorder: Rc<AttemptRecorder>,
    /// That it waits for long has been told.
    has_stalled: bool,
    stage: AttemptStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttemptStage {
    Connecting,
    InTransit,
    Received {
        answered_at: Instant,
    },
    /// The endpoint has it, and nothing comes of it.
    Silent,
    Resolved,
}

/// What happens next to a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum RequestStep {
    Arrives { stream: usize },
    SynArrives { request: u64, plan_version: u32 },
    RequestReceived { request: u64, plan_version: u32 },
    StallBoundReached { request: u64, plan_version: u32 },
    SlowBoundReached { request: u64, plan_version: u32 },
    AttemptEnds { request: u64, plan_version: u32, end: AttemptEnd },
}

/// How a try ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum AttemptEnd {
    Answered(SimulatedReply),
    Failed { failure: Failure, reached: RequestExposure },
}

impl Simulation {
    pub(super) fn on_request_step(&mut self, step: RequestStep) {
        match step {
            RequestStep::Arrives { stream } => self.on_request_arrival(stream),
            RequestStep::SynArrives { request, plan_version: fate } => {
                self.on_syn_arrival(request, fate);
            }
            RequestStep::RequestReceived { request, plan_version: fate } => {
                self.on_request_received(request, fate);
            }
            RequestStep::StallBoundReached { request, plan_version: fate } => {
                self.on_stall_bound(request, fate);
            }
            RequestStep::SlowBoundReached { request, plan_version: fate } => {
                self.on_slow_bound(request, fate);
            }
            RequestStep::AttemptEnds { request, plan_version: fate, end } => {
                if self.current_attempt(request, fate).is_some() {
                    self.on_attempt_end(request, end);
                }
            }
        }
    }

    /// Sends a request to an endpoint of the current snapshot.
    pub(super) fn send_request(&mut self, id: u64, request: SimulatedRequest) {
        match self.pick_target(&request) {
            Some(next) => self.send_to_target(id, request, next),
            None => self.fail_request(&request),
        }
    }

    pub(super) fn send_to_target(
        &mut self,
        id: u64,
        mut request: SimulatedRequest,
        (target, is_trial): (Target, bool),
    ) {
        if request.attempts > 0 {
            let counts = &mut self.clients.counts;
            counts.resent_attempts += 1;
            counts.repeated_post += u64::from(request.is_received && !request.is_idempotent);
        }
        self.clients.counts.trials += u64::from(is_trial);
        target.stats.request_started(self.elapsed_us(self.now));
        request.attempts += 1;
        request.plan_version += 1;
        request.has_error_response = false;
        request.error_response_stats = None;
        let fate = request.plan_version;
        let now = self.now;
        let is_pooled = self.host_mut(target.address).check_out(target.id, now);
        let (stage, step) = if is_pooled {
            (
                AttemptStage::InTransit,
                RequestStep::RequestReceived { request: id, plan_version: fate },
            )
        } else {
            (AttemptStage::Connecting, RequestStep::SynArrives { request: id, plan_version: fate })
        };
        request.attempt = Some(SimulatedAttempt {
            target,
            started_at: now,
            is_trial,
            recorder: Rc::default(),
            has_stalled: false,
            stage,
        });
        self.clients.requests.insert(id, request);
        let at = now + self.one_way();
        self.schedule_event(at, ScheduledEvent::Client(step));
    }

    /// How long a request waits for its connection, and what it calls that.
    fn connect_timeout(
        &self,
        id: u64,
        attempt: &SimulatedAttempt,
    ) -> Option<(Duration, FailureReason)> {
        let request = self.clients.requests.get(&id)?;
        let stream = &self.clients.streams[request.stream];
        let timeout = self.settings.timeouts.connect;
        let (stall, slow) = stream.stall_and_slow_bounds();
        if attempt.is_trial {
            return Some((timeout.min(slow), FailureReason::Timeout));
        }
        let pools = &self.snapshot.pools;
        let view = pools.iter().find(|view| view.spec.name == stream.load.pool)?;
        let has_other =
            || view.has_alternative(attempt.target.id, &request.avoid, self.send_mode(request));
        let spec = &self.settings.retry;
        Some(retry::connect_timeout(request.attempts, stall, timeout, spec, has_other))
    }

    fn send_mode(&self, request: &SimulatedRequest) -> RetrySafety {
        if request.is_idempotent {
            return RetrySafety::Repeatable;
        }
        let doubt_bound = self.clients.streams[request.stream].latency.nonrepeatable_bound();
        RetrySafety::NotRepeatable {
            waiting_before_us: self
                .elapsed_us(self.now)
                .saturating_sub(doubt_bound.as_micros() as u64),
        }
    }

    /// Where a request goes next, and whether that is a trial.
    pub(super) fn pick_target(&mut self, request: &SimulatedRequest) -> Option<(Target, bool)> {
        let pool = &self.clients.streams[request.stream].load.pool;
        let pools = &self.snapshot.pools;
        let view: &Arc<PoolView> = pools.iter().find(|view| view.spec.name == *pool)?;
        let now_us = self.elapsed_us(self.now);
        let sending = self.send_mode(request);
        if request.attempts > 0 {
            let other = view.pick_alternative(&mut self.rng, &request.avoid, sending);
            return other.cloned().map(|target| (target, false));
        }
        let can_take_trial = request.is_idempotent && self.settings.retry.attempts > 1;
        let trial = can_take_trial.then(|| view.take_due_trial(now_us)).flatten();
        match trial {
            Some(target) => {
                target.stats.record_trial();
                Some((target.clone(), true))
            }
            None => {
                let wish = PickRequest { now_us, ..sending.into() };
                view.pick(&mut self.rng, wish).cloned().map(|target| (target, false))
            }
        }
    }

    /// The SYN is at the endpoint.
    fn on_syn_arrival(&mut self, id: u64, plan_version: u32) {
        let Some(attempt) = self.current_attempt(id, plan_version) else { return };
        let Some((timeout, reason)) = self.connect_timeout(id, &attempt) else { return };
        let retransmit_delay = self.retransmit_delay(SYN_RETRANSMIT_TIMEOUT);
        let back = self.one_way();
        let behavior = &self.host_mut(attempt.target.address).behavior;
        let (is_refused, is_silent) =
            (*behavior == EndpointBehavior::Refused, *behavior == EndpointBehavior::BlackHole);
        let times_out_at = attempt.started_at + timeout;
        let answered_at = self.now + retransmit_delay + back;
        let reached = RequestExposure::NotSent;
        if is_silent || answered_at > times_out_at {
            let failure = Failure::connect(reason);
            self.schedule_end(id, times_out_at, AttemptEnd::Failed { failure, reached });
        } else if is_refused {
            let failure = Failure::connect(FailureReason::Refused);
            self.schedule_end(id, answered_at, AttemptEnd::Failed { failure, reached });
        } else {
            let at = answered_at + self.one_way();
            self.schedule_event(
                at,
                ScheduledEvent::Client(RequestStep::RequestReceived { request: id, plan_version }),
            );
        }
    }

    fn on_request_received(&mut self, id: u64, plan_version: u32) {
        let Some(attempt) = self.current_attempt(id, plan_version) else { return };
        let (retransmit_delay, back) =
            (self.retransmit_delay(MIN_RETRANSMIT_TIMEOUT), self.one_way());
        let (reply, is_received) =
            self.with_behavior(attempt.target.address, |behavior, usual, rng| {
                let service = behavior.sample_service_time(usual, rng);
                let is_received =
                    !matches!(behavior, EndpointBehavior::Refused | EndpointBehavior::BlackHole);
                (behavior.request_response(service, rng), is_received)
            });
        self.update_request(id, |request| request.is_received |= is_received);
        match reply {
            RequestResponse::Answer { after, answer } => {
                let answered_at = self.now + after + retransmit_delay;
                self.set_stage(id, AttemptStage::Received { answered_at });
                self.schedule_bounds(id, &attempt, answered_at + back);
                self.schedule_end(id, answered_at + back, AttemptEnd::Answered(answer));
            }
            RequestResponse::Reset => {
                self.set_stage(id, AttemptStage::Resolved);
                self.schedule_end(id, self.now + back, RESET_END);
            }
            RequestResponse::Silence => self.mark_silent(id, &attempt),
        }
    }

    /// What the packets that an exchange loses cost it.
    fn retransmit_delay(&mut self, first: Duration) -> Duration {
        let loss = self.settings.traffic_loss;
        if loss <= 0.0 {
            return Duration::ZERO;
        }
        let losses = (0..MAX_CONSECUTIVE_LOSSES).take_while(|_| self.rng.f64() < loss).count();
        first * ((1 << losses) - 1)
    }

    /// Requests that the endpoint has received and not answered meet its new behaviour.
    pub(super) fn apply_behavior_to_requests(
        &mut self,
        address: SocketAddr,
        behavior: &EndpointBehavior,
    ) {
        let is_reset = matches!(behavior, EndpointBehavior::Refused | EndpointBehavior::Reset);
        let is_silent = matches!(behavior, EndpointBehavior::Hang | EndpointBehavior::BlackHole);
        let now = self.now;
        let is_affected = |attempt: &SimulatedAttempt| match attempt.stage {
            AttemptStage::Received { answered_at } => (is_reset || is_silent) && answered_at > now,
            // A process that goes on answers what it has been asked meanwhile.
            AttemptStage::Silent => !is_silent,
            AttemptStage::Connecting | AttemptStage::InTransit | AttemptStage::Resolved => false,
        };
        let affected_attempt = |request: &SimulatedRequest| {
            request
                .attempt
                .clone()
                .filter(|visit| visit.target.address == address && is_affected(visit))
        };
        let requests = self.clients.requests.iter();
        let affected: Vec<(u64, SimulatedAttempt)> =
            requests.filter_map(|(&id, request)| Some((id, affected_attempt(request)?))).collect();
        for (id, attempt) in affected {
            self.update_request(id, |request| request.plan_version += 1);
            if is_reset {
                self.set_stage(id, AttemptStage::Resolved);
                let at = now + self.one_way();
                self.schedule_end(id, at, RESET_END);
            } else if is_silent {
                self.mark_silent(id, &attempt);
            } else if let Some(fate) =
                self.clients.requests.get(&id).map(|request| request.plan_version)
            {
                self.on_request_received(id, fate);
            }
        }
    }

    /// Nothing comes back: the wait becomes evidence, and much later the request ends.
    fn mark_silent(&mut self, id: u64, attempt: &SimulatedAttempt) {
        self.set_stage(id, AttemptStage::Silent);
        let end = attempt.started_at + self.settings.timeouts.response;
        self.schedule_bounds(id, attempt, end);
        let failure = Failure::http(FailureReason::Timeout);
        self.schedule_end(
            id,
            end,
            AttemptEnd::Failed { failure, reached: RequestExposure::MaybeSent },
        );
    }

    /// A wait that goes beyond the pool's bounds before `end` will be told.
    fn schedule_bounds(&mut self, id: u64, attempt: &SimulatedAttempt, end: Instant) {
        let Some(request) = self.clients.requests.get(&id) else { return };
        let (stall, slow) = self.clients.streams[request.stream].stall_and_slow_bounds();
        let fate = request.plan_version;
        if attempt.started_at + stall < end && !attempt.has_stalled {
            let step = RequestStep::StallBoundReached { request: id, plan_version: fate };
            self.schedule_event(attempt.started_at + stall, ScheduledEvent::Client(step));
        }
        if attempt.started_at + slow < end {
            let step = RequestStep::SlowBoundReached { request: id, plan_version: fate };
            self.schedule_event(attempt.started_at + slow, ScheduledEvent::Client(step));
        }
    }

    fn on_stall_bound(&mut self, id: u64, plan_version: u32) {
        if let Some(attempt) = self.current_attempt(id, plan_version) {
            self.update_attempt(id, |attempt| attempt.has_stalled = true);
            self.record_failure(&attempt, Failure::http(FailureReason::Stall));
        }
    }

    /// As good as failed: it counts against the endpoint, and ends a trial.
    fn on_slow_bound(&mut self, id: u64, plan_version: u32) {
        let Some(attempt) = self.current_attempt(id, plan_version) else { return };
        let failure = Failure::http(FailureReason::Slow);
        if attempt.is_trial {
            self.on_attempt_end(
                id,
                AttemptEnd::Failed { failure, reached: RequestExposure::MaybeSent },
            );
        } else {
            self.record_failure(&attempt, failure);
        }
    }

    /// The verdict on an endpoint is down: its idle connections are closed, and whoever waits for
    /// it goes elsewhere.
    pub(super) fn abort_attempts(&mut self, endpoint: EndpointId, waiting: InFlightPolicy) {
        let aborted_at = |request: &SimulatedRequest| {
            let attempt = request.attempt.as_ref().filter(|visit| visit.target.id == endpoint)?;
            let is_sent = attempt.stage != AttemptStage::Connecting;
            let is_aborted = waiting.should_abort(request.is_idempotent || !is_sent);
            is_aborted.then_some(if is_sent {
                RequestExposure::MaybeSent
            } else {
                RequestExposure::NotSent
            })
        };
        let requests = self.clients.requests.iter();
        let aborted: Vec<(u64, RequestExposure)> =
            requests.filter_map(|(&id, request)| Some((id, aborted_at(request)?))).collect();
        self.hosts.values_mut().for_each(|host| host.close_idle(endpoint));
        for (id, reached) in aborted {
            if let Some((attempt, request)) = self.take_attempt(id) {
                self.retry_elsewhere(id, request, &attempt, reached);
            }
        }
    }

    /// The stay of a request, unless its fate has changed since.
    fn current_attempt(&self, id: u64, plan_version: u32) -> Option<SimulatedAttempt> {
        self.clients
            .requests
            .get(&id)
            .filter(|request| request.plan_version == plan_version)?
            .attempt
            .clone()
    }

    pub(super) fn take_attempt(&mut self, id: u64) -> Option<(SimulatedAttempt, SimulatedRequest)> {
        let mut request = self.clients.requests.remove(&id)?;
        let attempt = request.attempt.take()?;
        attempt.target.stats.request_ended();
        Some((attempt, request))
    }

    fn update_request(&mut self, id: u64, how: impl FnOnce(&mut SimulatedRequest)) {
        if let Some(request) = self.clients.requests.get_mut(&id) {
            how(request);
        }
    }

    fn update_attempt(&mut self, id: u64, how: impl FnOnce(&mut SimulatedAttempt)) {
        self.update_request(id, |request| {
            if let Some(attempt) = &mut request.attempt {
                how(attempt);
            }
        });
    }

    fn set_stage(&mut self, id: u64, stage: AttemptStage) {
        self.update_attempt(id, |attempt| attempt.stage = stage);
    }

    fn schedule_end(&mut self, id: u64, at: Instant, end: AttemptEnd) {
        let Some(fate) = self.clients.requests.get(&id).map(|request| request.plan_version) else {
            return;
        };
        self.schedule_event(
            at,
            ScheduledEvent::Client(RequestStep::AttemptEnds {
                request: id,
                plan_version: fate,
                end,
            }),
        );
    }
}
