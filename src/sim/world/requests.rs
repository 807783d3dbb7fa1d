//! Requests and their attempts, driven by the plan that the request path drives.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::logic::health::attempt_recorder::AttemptRecorder;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::Failure;
use crate::logic::model::pick_request::{ExcludedTargets, PickRequest, RetrySafety};
use crate::logic::model::snapshot::{EndpointStats, PoolView, Target};
use crate::logic::request::attribution::{AttemptPlace, RequestKey};
use crate::logic::request::request_plan::{AttemptTarget, RequestPlan, Resend};
use crate::logic::request::response_timeout::{ResponseTimeout, WaitLimit};
use crate::logic::request::retry::{BudgetShare, InFlightPolicy, RequestExposure};
use crate::logic::request::total_deadline::TotalDeadline;

use super::behavior::SimulatedReply;
use super::clients::SimulatedWorker;
use super::{ScheduledEvent, Simulation};

/// A request whose client waits.
#[derive(Debug)]
pub(super) struct SimulatedRequest {
    /// The index of its load stream.
    pub(super) stream: usize,
    /// The index of the worker that serves it.
    pub(super) worker: usize,
    pub(super) arrived: Instant,
    pub(super) plan: RequestPlan,
    /// The first endpoint that failed it: the incident that it belongs to.
    pub(super) first_failed_stats: Option<Arc<EndpointStats>>,
    /// An endpoint has read it, and may have executed it.
    pub(super) is_received: bool,
    /// The content of the request.
    pub(super) content: RequestContent,
    /// Attempts whose failures are settled when the request is over.
    pub(super) failed: Vec<FailedAttempt>,
    attempts: SmallVec<[SimulatedAttempt; 1]>,
    last_version: u32,
}

impl SimulatedRequest {
    pub(super) fn new(
        (stream, worker): (usize, usize),
        arrived: Instant,
        plan: RequestPlan,
        content: RequestContent,
    ) -> Self {
        Self {
            stream,
            worker,
            arrived,
            plan,
            first_failed_stats: None,
            is_received: false,
            content,
            failed: Vec::new(),
            attempts: SmallVec::new(),
            last_version: 0,
        }
    }

    /// Ends the attempts that the client waits for. Returns whether there were any.
    fn withdraw_attempts(&mut self) -> bool {
        let count = self.attempts.len();
        let failed = &mut self.failed;
        self.attempts.retain_mut(|attempt| {
            let is_kept = attempt.role == AttemptRole::Observed;
            if !is_kept {
                failed.extend(attempt.deferred.take());
                attempt.target.stats.request_ended();
            }
            is_kept
        });
        self.attempts.len() < count
    }

    /// A response goes to the client, and the race is over. If it proves the endpoint of a stalled
    /// original slow, the original is observed further unless it is beyond the slow bound already,
    /// and its failure is returned. A hedge is withdrawn.
    pub(super) fn end_race(&mut self, is_original_slow: bool) -> Option<FailedAttempt> {
        let mut deferred = None;
        let is_original = |one: &&mut SimulatedAttempt| one.role == AttemptRole::Original;
        if is_original_slow && let Some(original) = self.attempts.iter_mut().find(is_original) {
            let stats = &original.target.stats;
            self.first_failed_stats.get_or_insert_with(|| Arc::clone(stats));
            deferred = original.deferred.take();
            if !original.timer.as_ref().is_some_and(ResponseTimeout::is_slow) {
                original.role = AttemptRole::Observed;
                original.wait_limit = WaitLimit::Slow;
            }
        }
        // The race settles the failures of the losing attempts.
        let losers = self.attempts.iter_mut().filter(|one| one.role != AttemptRole::Observed);
        losers.for_each(|loser| loser.deferred = None);
        self.withdraw_attempts();
        deferred
    }

    /// The attempt that started beside a stalled one, if it is under way.
    pub(super) fn hedge(&self) -> Option<&SimulatedAttempt> {
        self.attempts.iter().find(|attempt| attempt.role == AttemptRole::Hedge)
    }

    pub(super) fn attempt_count(&self) -> usize {
        self.attempts.len()
    }

    /// Removes the attempt with this version.
    fn remove_attempt(&mut self, plan_version: u32) -> Option<SimulatedAttempt> {
        let index = self.attempts.iter().position(|one| one.plan_version == plan_version)?;
        Some(self.attempts.remove(index))
    }

    /// A number that no attempt of this request has had.
    fn next_version(&mut self) -> u32 {
        self.last_version += 1;
        self.last_version
    }
}

/// The content of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestContent {
    pub(super) key: RequestKey,
    /// The fault that every endpoint shows for it, if any.
    pub(super) fault: Option<RequestFault>,
}

/// How a request fails at every endpoint that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFault {
    /// It is answered with this status.
    Status(u16),
    /// Its connection is reset instead of an answer.
    Reset,
    /// Its response is truncated.
    Cut,
}

/// An attempt that failed after its request was sent.
#[derive(Clone, Debug)]
pub(super) struct FailedAttempt {
    pub(super) target: Target,
    pub(super) failure: Failure,
    pub(super) started_at: Instant,
    pub(super) is_trial: bool,
}

impl FailedAttempt {
    pub(super) fn place(&self) -> AttemptPlace {
        AttemptPlace { endpoint: self.target.id, zone: self.target.zone }
    }
}

/// One attempt of a request at one endpoint.
#[derive(Debug)]
pub(super) struct SimulatedAttempt {
    pub(super) target: Target,
    pub(super) started_at: Instant,
    /// The endpoint is on trial.
    pub(super) is_trial: bool,
    pub(super) role: AttemptRole,
    /// The evidence that the attempt gives.
    pub(super) recorder: Rc<AttemptRecorder>,
    pub(super) stage: AttemptStage,
    /// The wait for the response head, once the endpoint has the request.
    pub(super) timer: Option<ResponseTimeout>,
    pub(super) wait_limit: WaitLimit,
    /// A failure that counts once it is attributed to the endpoint.
    pub(super) deferred: Option<FailedAttempt>,
    /// Changes with what will become of the attempt: events of an older version are void.
    pub(super) plan_version: u32,
}

impl SimulatedAttempt {
    pub(super) fn place(&self) -> AttemptPlace {
        AttemptPlace { endpoint: self.target.id, zone: self.target.zone }
    }

    pub(super) fn failed_attempt(&self, failure: Failure) -> FailedAttempt {
        let Self { target, started_at, is_trial, .. } = self;
        FailedAttempt {
            target: target.clone(),
            failure,
            started_at: *started_at,
            is_trial: *is_trial,
        }
    }

    pub(super) fn plan_target(&self) -> AttemptTarget {
        let Target { id, zone, .. } = self.target;
        AttemptTarget { endpoint: id, zone, is_trial: self.is_trial }
    }
}

/// What an attempt is to its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptRole {
    Original,
    /// It started beside a stalled attempt.
    Hedge,
    /// Its hedge was faster: it continues until the slow bound, only to find out whether its
    /// endpoint is slow.
    Observed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptStage {
    Connecting,
    /// The request is on its way to the endpoint.
    InTransit {
        sent_at: Instant,
    },
    Received {
        answered_at: Instant,
        /// When the response reaches this side.
        ends_at: Instant,
    },
    /// The endpoint has the request and does not answer.
    Silent,
    /// The end is scheduled, whatever the endpoint does.
    Resolved,
}

/// One attempt, in the state in which an event was scheduled for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttemptKey {
    pub(super) request: u64,
    pub(super) plan_version: u32,
}

/// What happens next to a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum RequestStep {
    Arrives { stream: usize },
    SynArrives(AttemptKey),
    RequestReceived(AttemptKey),
    TimerExpires(AttemptKey),
    DeadlineReached { request: u64 },
    AttemptEnds(AttemptKey, AttemptEnd),
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum AttemptEnd {
    Answered(SimulatedReply),
    Failed { failure: Failure, reached: RequestExposure },
}

/// Why a request fails without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureCause {
    /// Its attempts failed, and none is left.
    Attempts,
    /// Its total deadline is reached.
    Deadline,
}

impl Simulation {
    pub(super) fn on_request_step(&mut self, step: RequestStep) {
        match step {
            RequestStep::Arrives { stream } => self.on_request_arrival(stream),
            RequestStep::SynArrives(attempt) => self.on_syn_arrival(attempt),
            RequestStep::RequestReceived(attempt) => self.on_request_received(attempt),
            RequestStep::TimerExpires(attempt) => self.on_timer(attempt),
            RequestStep::DeadlineReached { request } => self.on_deadline(request),
            RequestStep::AttemptEnds(attempt, end) => self.on_attempt_end(attempt, end),
        }
    }

    /// Sends a new request to an endpoint of the current snapshot.
    pub(super) fn send_request(&mut self, id: u64, mut request: SimulatedRequest) {
        let deadline = TotalDeadline::earliest(self.settings.timeouts.total, None);
        match self.pick_target(&request) {
            Some(next) => {
                self.start_attempt_at(id, request, next, AttemptRole::Original);
                if let Some(TotalDeadline { after, .. }) = deadline {
                    let step = RequestStep::DeadlineReached { request: id };
                    self.schedule_event(self.now + after, ScheduledEvent::Client(step));
                }
            }
            None => self.fail_request(&mut request, FailureCause::Attempts),
        }
    }

    /// Another endpoint for the request, if the budget pays and an endpoint takes it.
    pub(super) fn grant_resend(
        &mut self,
        request: &SimulatedRequest,
        resend: Resend,
    ) -> Option<(Target, bool)> {
        let (key, now) = (request.content.key, self.now);
        let worker = self.worker(request);
        let share = match worker.failing.fails_everywhere(key, now) {
            true => BudgetShare::Half,
            false => BudgetShare::Whole,
        };
        if !worker.budget.can_grant(resend, share) {
            return None;
        }
        let next = self.pick_target(request)?;
        self.worker_mut(request).budget.try_grant(resend, share).then_some(next)
    }

    /// The worker that serves the request.
    pub(super) fn worker(&self, request: &SimulatedRequest) -> &SimulatedWorker {
        &self.clients.streams[request.stream].workers[request.worker]
    }

    pub(super) fn worker_mut(&mut self, request: &SimulatedRequest) -> &mut SimulatedWorker {
        &mut self.clients.streams[request.stream].workers[request.worker]
    }

    pub(super) fn start_attempt_at(
        &mut self,
        id: u64,
        mut request: SimulatedRequest,
        (target, is_trial): (Target, bool),
        role: AttemptRole,
    ) {
        if !request.plan.is_first_attempt() {
            let counts = &mut self.clients.counts;
            counts.resent_attempts += 1;
            counts.hedges += u64::from(role == AttemptRole::Hedge);
            counts.repeated_post += u64::from(request.is_received && !request.plan.is_idempotent());
        }
        self.clients.counts.trials += u64::from(is_trial);
        target.stats.request_started(self.elapsed_us(self.now));
        match role {
            AttemptRole::Original | AttemptRole::Observed => request.plan.start_attempt(),
            AttemptRole::Hedge => request.plan.start_hedge(),
        }
        let wait_limit = request.plan.wait_limit(is_trial);
        let key = AttemptKey { request: id, plan_version: request.next_version() };
        let now = self.now;
        let idle_key = (target.id, request.worker);
        let is_pooled = self.host_mut(target.address).check_out(idle_key, now);
        let (stage, step) = if is_pooled {
            (AttemptStage::InTransit { sent_at: now }, RequestStep::RequestReceived(key))
        } else {
            (AttemptStage::Connecting, RequestStep::SynArrives(key))
        };
        request.attempts.push(SimulatedAttempt {
            target,
            started_at: now,
            is_trial,
            role,
            recorder: Rc::default(),
            stage,
            timer: None,
            wait_limit,
            deferred: None,
            plan_version: key.plan_version,
        });
        self.clients.requests.insert(id, request);
        let at = now + self.one_way();
        self.schedule_event(at, ScheduledEvent::Client(step));
    }

    pub(super) fn retry_safety(&self, request: &SimulatedRequest) -> RetrySafety {
        let pools = &self.snapshot.pools;
        let pool = &self.clients.streams[request.stream].load.pool;
        let view = pools.iter().find(|view| view.spec.name == *pool);
        request.plan.retry_safety(self.elapsed_us(self.now), || {
            let baseline = view.and_then(|view| view.first_latency_baseline());
            let latency = &self.worker(request).latency;
            let bounds = baseline.map(|one| latency.bounds(one, request.content.key, self.now));
            bounds.map_or(Duration::ZERO, |bounds| bounds.nonrepeatable)
        })
    }

    /// The next endpoint of a request, and whether it is on trial.
    fn pick_target(&mut self, request: &SimulatedRequest) -> Option<(Target, bool)> {
        let pool = &self.clients.streams[request.stream].load.pool;
        let pools = &self.snapshot.pools;
        let view: &Arc<PoolView> = pools.iter().find(|view| view.spec.name == *pool)?;
        let now_us = self.elapsed_us(self.now);
        let retry_safety = self.retry_safety(request);
        if !request.plan.is_first_attempt() {
            let excluded = request.plan.excluded();
            let other = view.pick_alternative(&mut self.rng, excluded, retry_safety);
            return other.cloned().map(|target| (target, false));
        }
        let SimulatedWorker { failing, latency, .. } = self.worker(request);
        let key = request.content.key;
        let slow_at = || latency.place_to_avoid(key, self.now);
        let avoided = failing.place_to_avoid(key, self.now).or_else(slow_at);
        let comparison = avoided.and_then(|place| {
            let mut excluded = ExcludedTargets::default();
            excluded.exclude(place.endpoint, place.zone);
            view.pick_alternative(&mut self.rng, &excluded, retry_safety)
        });
        if let Some(target) = comparison {
            return Some((target.clone(), false));
        }
        let trial = request.plan.can_be_trial().then(|| view.take_due_trial(now_us)).flatten();
        match trial {
            Some(target) => {
                target.stats.record_trial();
                Some((target.clone(), true))
            }
            None => {
                let pick_request = PickRequest { now_us, ..retry_safety.into() };
                view.pick(&mut self.rng, pick_request).cloned().map(|target| (target, false))
            }
        }
    }

    /// The verdict on an endpoint is down: its idle connections close, and requests that wait for
    /// it go elsewhere as `policy` says.
    pub(super) fn abort_attempts(&mut self, endpoint: EndpointId, policy: InFlightPolicy) {
        let mut aborted = Vec::new();
        for (&id, request) in &self.clients.requests {
            for attempt in request.attempts.iter().filter(|one| one.target.id == endpoint) {
                let is_connected = attempt.stage != AttemptStage::Connecting;
                if policy.should_abort(request.plan.can_leave(is_connected)) {
                    let plan_version = attempt.plan_version;
                    aborted.push((AttemptKey { request: id, plan_version }, is_connected));
                }
            }
        }
        self.hosts.values_mut().for_each(|host| host.close_idle(endpoint));
        for (key, is_connected) in aborted {
            if let Some((mut attempt, mut request)) = self.take_attempt(key) {
                request.failed.extend(attempt.deferred.take());
                let exposure = if is_connected {
                    RequestExposure::MaybeSent
                } else {
                    RequestExposure::NotSent
                };
                self.on_attempt_failed(key.request, request, &attempt, exposure);
            }
        }
    }

    /// The total deadline is reached: attempts under way are withdrawn.
    fn on_deadline(&mut self, id: u64) {
        let Some(mut request) = self.clients.requests.remove(&id) else { return };
        let is_awaited = request.withdraw_attempts();
        if is_awaited {
            self.fail_request(&mut request, FailureCause::Deadline);
        }
        self.keep_waiting(id, request);
    }

    /// Puts a request back while any of its attempts continues.
    pub(super) fn keep_waiting(&mut self, id: u64, request: SimulatedRequest) {
        if !request.attempts.is_empty() {
            self.clients.requests.insert(id, request);
        }
    }

    /// The attempt, unless its course has changed since the key was made.
    pub(super) fn attempt(&self, key: AttemptKey) -> Option<&SimulatedAttempt> {
        let request = self.clients.requests.get(&key.request)?;
        request.attempts.iter().find(|attempt| attempt.plan_version == key.plan_version)
    }

    pub(super) fn attempt_mut(&mut self, key: AttemptKey) -> Option<&mut SimulatedAttempt> {
        let request = self.clients.requests.get_mut(&key.request)?;
        request.attempts.iter_mut().find(|attempt| attempt.plan_version == key.plan_version)
    }

    /// Ends an attempt, and takes its request out of those that wait.
    pub(super) fn take_attempt(
        &mut self,
        key: AttemptKey,
    ) -> Option<(SimulatedAttempt, SimulatedRequest)> {
        self.attempt(key)?;
        let mut request = self.clients.requests.remove(&key.request)?;
        let attempt = request.remove_attempt(key.plan_version)?;
        attempt.target.stats.request_ended();
        Some((attempt, request))
    }

    /// Voids the events of all attempts at the address whose stage matches. Returns their new keys.
    pub(super) fn replan_attempts(
        &mut self,
        address: SocketAddr,
        is_affected: impl Fn(AttemptStage) -> bool,
    ) -> Vec<AttemptKey> {
        let mut affected = Vec::new();
        for (&id, request) in &mut self.clients.requests {
            for index in 0..request.attempts.len() {
                let attempt = &request.attempts[index];
                if attempt.target.address == address && is_affected(attempt.stage) {
                    let plan_version = request.next_version();
                    request.attempts[index].plan_version = plan_version;
                    affected.push(AttemptKey { request: id, plan_version });
                }
            }
        }
        affected
    }
}
