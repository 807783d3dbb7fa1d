//! A request's whole way: from endpoint to endpoint until one answers or nothing is left.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderName;
use http::{Request, Response, StatusCode};
use tokio::time::timeout;

use crate::app::dataplane::worker::{PoolLocal, Worker, WorkerView};
use crate::logic::drill::DrillView;
use crate::logic::incident::client_failure::ClientFailure;
use crate::logic::model::outcome;
use crate::logic::model::pick_request::{ExcludedTargets, RetrySafety};
use crate::logic::model::topology::PoolSpec;
use crate::logic::request::breaker::PoolRequestPermit;
use crate::logic::request::retry;
use crate::logic::request::retry::{FailedAttempt, RequestExposure, RetryDecision};
use crate::logic::routing::{PoolRoute, RetrySpec, RouteSpec};
use crate::logic::steering;
use crate::logic::steering::affinity::AffinityRequest;
use crate::net::upstream::{Checkout, ConnectionPool, RequestBody};

use super::actions::RequestContext;
use super::affinity::{self, RequestAffinity};
use super::attempt::{
    AttemptError, AttemptProgress, BodyProgress, ConnectTimeout, StartedResponse, UpstreamRequest,
    attempt,
};
use super::attempt_guard::AttemptGuard;
use super::body::ProxyBody;
use super::downstream::Downstream;
use super::endpoint_selector::{ConnectionSource, EndpointSelector, Selection};
use super::grpc;
use super::hedge::{HedgeOutcome, StalledAttempt};
use super::local_reply::LocalReplyReason;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where a request has been, and what it met there.
pub(super) struct RetryLoop<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) route: &'a PoolRoute,
    pub(super) downstream: &'a Downstream<'a>,
    is_idempotent: bool,
    pub(super) arrived: Instant,
    /// When this trip began.
    began: Instant,
    pub(super) avoid: ExcludedTargets,
    pub(super) attempts: u32,
    pub(super) sent_attempts: u32,
    /// The first endpoint that failed it: the incident that it belongs to.
    pub(super) first_failed: Option<Rc<ConnectionPool>>,
    /// Counts it among the pool's requests, where those are limited.
    pub(super) pool_permit: Option<PoolRequestPermit>,
    /// Which way its pool leads it.
    steering_variant: usize,
    /// The hash of its key, where the pool wants one and it has one.
    hash_key: Option<u64>,
    /// Its cookie, where the pool's clients stay with an endpoint by one.
    pub(super) affinity: Option<Box<RequestAffinity>>,
}

/// Which way a request is led: as its route says, or by where its client is, or by its pool's policy.
fn steering_variant(
    view: &WorkerView,
    route: &PoolRoute,
    pool: &PoolSpec,
    (request, downstream): (&Request<()>, &Downstream<'_>),
) -> usize {
    match route.spec.steer {
        _ if pool.steer.extra_variants.is_empty() => 0,
        Some(policy) => pool.steer.variant_index(&steering::SteeringVariant::Policy(policy)),
        None if pool.steer.geography.is_empty() => 0,
        None => {
            pool.steer.variant_index_for(&downstream.location(&view.http_policy, request.headers()))
        }
    }
}

/// A try that failed.
struct EndpointAttemptFailure<'a> {
    guard: &'a AttemptGuard,
    /// The endpoint's zone, by its index in the pool.
    zone: usize,
    reached: RequestExposure,
}

/// What was before a trip.
pub(super) struct PriorAttempts {
    /// When the request arrived.
    pub(super) arrived: Instant,
    /// When this trip begins.
    pub(super) began: Instant,
    /// The first endpoint that failed it.
    pub(super) first_failed: Option<Rc<ConnectionPool>>,
    /// A client waits for the answer: a drill may take it, and interim answers go to that client.
    pub(super) has_waiting_client: bool,
}

impl PriorAttempts {
    /// Nothing was: the request has just arrived.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { arrived: now, began: now, first_failed: None, has_waiting_client: true }
    }

    /// A copy of a request begins, which no client waits for.
    pub(super) fn for_mirror() -> Self {
        Self { has_waiting_client: false, ..Self::new() }
    }
}

/// A trip that no endpoint's answer ended.
pub(super) struct ForwardError {
    pub(super) reason: LocalReplyReason,
    pub(super) prior: PriorAttempts,
    /// The request may be sent to another pool: its body is held, and it did not reach an endpoint or
    /// may reach another one.
    pub(super) can_fall_back: bool,
    /// The drill that took it.
    drill: Option<Arc<DrillView>>,
}

/// Serves a request that has a route to a pool.
pub(super) async fn forward_request(
    context: &RequestContext<'_>,
    route: &PoolRoute,
    outgoing: &mut RequestBody,
    prior: PriorAttempts,
) -> Result<Response<ProxyBody>, ForwardError> {
    let RequestContext { worker, view, downstream, request, validated } = *context;
    let view = match &view.drill_view {
        Some(drill_view) if prior.has_waiting_client => {
            worker.view_for_request(view, drill_view, route, request)
        }
        _ => view,
    };
    let (pool, local) = view.pool(route);
    let mut retry_loop = RetryLoop {
        worker,
        route,
        downstream,
        is_idempotent: is_repeatable(request, &route.spec.retry),
        arrived: prior.arrived,
        began: prior.began,
        avoid: ExcludedTargets::default(),
        attempts: 0,
        sent_attempts: 0,
        first_failed: prior.first_failed,
        pool_permit: None,
        steering_variant: steering_variant(view, route, &pool.spec, (request, downstream)),
        hash_key: affinity::hash_key(&pool.spec, request, downstream),
        affinity: RequestAffinity::from_request(pool, local, request.headers()),
    };
    let is_upgrade =
        route.spec.is_websocket_allowed && validated.framing.is_none() && downstream.has_upgrade();
    let upstream = UpstreamRequest {
        request,
        validated,
        downstream,
        via: &view.http_policy.headers.via_pseudonym,
        timeouts: route.spec.timeouts,
        // A call may be a stream of messages, of which nobody knows when they come.
        body_rate: match validated.framing {
            Some(_) if !grpc::is_grpc(request.headers()) => {
                view.http_policy.limits.min_body_rate_bytes
            }
            _ => 0,
        },
        max_head_bytes: pool.spec.limits.max_response_head_bytes,
        is_idempotent: retry_loop.is_idempotent,
        can_hedge: retry_loop.is_idempotent
            && validated.framing.is_none()
            && route.spec.retry.is_hedged
            && !is_upgrade,
        is_upgrade,
        interim_responses: prior.has_waiting_client.then_some(&downstream.client.interim_responses),
        response_headers: &route.spec.response_headers,
    };
    local.retry_budget.borrow_mut().deposit(&route.spec.retry);
    let result = match total_timeout(&route.spec, request) {
        None => retry_loop.run(view, &upstream, outgoing).await,
        // Who is dropped in the middle of an exchange withdraws it.
        Some((within, reason)) => {
            let left = within.saturating_sub(retry_loop.arrived.elapsed());
            let run = Box::pin(retry_loop.run(view, &upstream, outgoing));
            timeout(left, run).await.unwrap_or(Err(reason))
        }
    };
    result.map_err(|reason| ForwardError {
        reason,
        // At a deadline a try is under way, which may have reached somebody; and time is up.
        can_fall_back: outgoing.is_replayable()
            && !reason.is_deadline()
            && (retry_loop.is_idempotent || retry_loop.sent_attempts == 0),
        prior: PriorAttempts {
            first_failed: retry_loop.first_failed.take(),
            arrived: retry_loop.arrived,
            began: retry_loop.began,
            has_waiting_client: prior.has_waiting_client,
        },
        drill: view.drill.clone(),
    })
}

impl ForwardError {
    /// The client sees the failure, with `status`.
    pub(super) fn record_client_failure(
        &self,
        worker: &Worker,
        view: &WorkerView,
        route: &PoolRoute,
        status: StatusCode,
    ) {
        let (pool, local) = view.pool(route);
        let elapsed = self.prior.arrived.elapsed();
        let route_and_pool = (route, &*pool.spec);
        let _ = local.record_slo(&worker.shared, route_and_pool, status.as_u16(), elapsed);
        if let Some(failure_kind) = self.reason.client_failure_kind() {
            let now_us = worker.shared.micros(Instant::now());
            if let Some(failed_connections) = &self.prior.first_failed {
                let client_failure =
                    ClientFailure { kind: failure_kind, is_repeatable: self.can_fall_back };
                failed_connections.target.stats.record_client_failure(client_failure, now_us);
            }
            if let Some(drill) = &self.drill {
                drill.counters.record_failure(now_us, self.can_fall_back);
            }
        }
        local.meter.record_error(self.reason);
        local.meter.record_response(status.as_u16(), elapsed);
    }
}

/// How long all tries together may take, and what it is called when that is over: the route's bound or
/// the client's own, whichever comes first.
fn total_timeout(route: &RouteSpec, request: &Request<()>) -> Option<(Duration, LocalReplyReason)> {
    let route_timeout = route.timeouts.total.map(|total| (total, LocalReplyReason::TotalTimeout));
    let client_timeout = grpc::call_timeout(request.headers())
        .map(|time| (time, LocalReplyReason::DeadlineExceeded));
    route_timeout.into_iter().chain(client_timeout).min_by_key(|(within, _)| *within)
}

impl RetryLoop<'_> {
    async fn run(
        &mut self,
        view: &Rc<WorkerView>,
        upstream: &UpstreamRequest<'_>,
        outgoing: &mut RequestBody,
    ) -> Result<Response<ProxyBody>, LocalReplyReason> {
        let mut view = Rc::clone(view);
        let mut selection = self.select_first(&view, upstream)?;
        let mut last_reason = None;
        loop {
            let (_, local) = view.pool(self.route);
            let Selection { mut guard, mut zone, source } = selection;
            self.attempts += 1;
            let connect_timeout = self.connect_timeout(&view, &guard, &source);
            let source = (source, connect_timeout);
            let result = match attempt(self.worker, local, upstream, outgoing, &guard, source).await
            {
                Ok(AttemptProgress::ResponseStarted(started)) => Ok(started),
                Ok(AttemptProgress::Stalled(pending)) => {
                    let hedge_result;
                    let stalled = StalledAttempt { guard, zone, pending };
                    HedgeOutcome { view, guard, zone, result: hedge_result } =
                        Box::pin(self.hedge(view, upstream, stalled)).await;
                    hedge_result
                }
                Err(error) => Err(error),
            };
            let (_, local) = view.pool(self.route);
            let body = match result {
                Ok(started)
                    if started.is_upgrade()
                        && !self.downstream.is_upgrade_accepted(&started.head.headers) =>
                {
                    Err(AttemptError::malformed())
                }
                Ok(started) if started.is_upgrade() => {
                    return Ok(self.upgrade_response(&view, started, guard));
                }
                Ok(started) => {
                    if self.should_retry_response(&started, &guard, outgoing) {
                        let failed = EndpointAttemptFailure {
                            guard: &guard,
                            zone,
                            reached: RequestExposure::MaybeSent,
                        };
                        if let Some(other) =
                            self.next_after_failure(&view, &failed, false, outgoing)
                        {
                            started.discard(upstream, &guard);
                            (view, selection) = other;
                            continue;
                        }
                    }
                    started.receive_body(upstream, outgoing, &guard)
                }
                Err(error) => Err(error),
            };
            let received = match body {
                Ok(BodyProgress::Ready(head, received)) => Ok((head, received)),
                Ok(BodyProgress::Buffering(pending)) => pending.complete(&guard).await,
                Err(error) => Err(error),
            };
            let (reason, reached) = match received {
                Ok((head, received)) => {
                    let is_repeatable = self.is_idempotent && outgoing.is_replayable();
                    return Ok(self.build_response(&view, (head, received), guard, is_repeatable));
                }
                Err(AttemptError::LimitReached(full)) => {
                    local.meter.record_limit(full);
                    return Err(last_reason.unwrap_or_else(|| LocalReplyReason::from_limit(full)));
                }
                Err(error) => classify_error(&error, &guard)?,
            };
            let failed = EndpointAttemptFailure { guard: &guard, zone, reached };
            let other = self.next_after_failure(&view, &failed, true, outgoing);
            (view, selection) = other.ok_or(reason)?;
            last_reason = Some(reason);
        }
    }

    /// Where the request goes first: if it can be sent again, to an endpoint that must prove itself.
    fn select_first(
        &mut self,
        view: &WorkerView,
        upstream: &UpstreamRequest<'_>,
    ) -> Result<Selection, LocalReplyReason> {
        let (pool, local) = view.pool(self.route);
        let pool_permit =
            PoolRequestPermit::try_acquire(&pool.spec.limits.circuit_breakers, &pool.stats);
        self.pool_permit = pool_permit.map_err(|full| {
            local.meter.record_limit(full);
            LocalReplyReason::from_limit(full)
        })?;
        if self.pool_permit.is_none() && pool.spec.has_request_counting() {
            self.pool_permit = Some(PoolRequestPermit::acquire_unlimited(&pool.stats));
        }
        let sending = self.sending(local, self.began);
        let now_us = self.worker.shared.micros(self.began);
        let asking = AffinityRequest { retry_safety: sending, now_us };
        let affinity_target = self.affinity.as_ref().and_then(|pinned| pinned.target(pool, asking));
        let selector = EndpointSelector {
            worker: self.worker,
            pool,
            local,
            sending,
            steering_variant: self.steering_variant,
            hash_key: self.hash_key,
            affinity_target,
            began: self.began,
            is_resend: false,
            can_wait: true,
            record: self.downstream.record,
            drill: view.drill.as_ref(),
        };
        if affinity_target.is_none() && !pool.trial_targets.is_empty() {
            let body_bytes =
                upstream.validated.framing.map_or(Some(0), |_| upstream.validated.content_length);
            if retry::can_be_trial(self.is_idempotent, body_bytes, &self.route.spec.retry)
                && let Some(trial) = selector.select_trial()
            {
                return Ok(trial);
            }
        }
        Ok(selector.select_first()?)
    }

    fn sending(&self, local: &PoolLocal, now: Instant) -> RetrySafety {
        if self.is_idempotent {
            return RetrySafety::Repeatable;
        }
        let doubt = local.latency.borrow().nonrepeatable_bound();
        RetrySafety::NotRepeatable {
            waiting_before_us: self.worker.shared.micros(now.checked_sub(doubt).unwrap_or(now)),
        }
    }

    /// How long a connection may take to open.
    pub(super) fn connect_timeout(
        &self,
        view: &WorkerView,
        guard: &AttemptGuard,
        source: &ConnectionSource,
    ) -> ConnectTimeout {
        let timeout = self.route.spec.timeouts.connect;
        if !matches!(source, ConnectionSource::Immediate(Checkout::New(_))) {
            return ConnectTimeout { timeout, reason: outcome::FailureReason::Timeout };
        }
        let (pool, local) = view.pool(self.route);
        let latency = local.latency.borrow();
        if guard.is_trial() {
            let timeout = timeout.min(latency.slow_bound());
            return ConnectTimeout { timeout, reason: outcome::FailureReason::Timeout };
        }
        let endpoint_id = guard.connections().target.id;
        let has_other =
            || pool.has_alternative(endpoint_id, &self.avoid, self.sending(local, guard.began()));
        let (stall, spec) = (latency.stall_bound(), &self.route.spec.retry);
        let (timeout, reason) =
            retry::connect_timeout(self.attempts, stall, timeout, spec, has_other);
        ConnectTimeout { timeout, reason }
    }

    /// The newest view, unless a new configuration has moved the route's pool.
    fn latest_view(&self, old: &Rc<WorkerView>) -> Rc<WorkerView> {
        let new = self.worker.latest_view_like(old);
        if new.has_pool(self.route) { new } else { Rc::clone(old) }
    }

    /// Whether the answer is one to ask for elsewhere, and the request one that may be sent again.
    fn should_retry_response(
        &self,
        started: &StartedResponse,
        guard: &AttemptGuard,
        outgoing: &RequestBody,
    ) -> bool {
        let status = started.head.status.as_u16();
        self.is_idempotent
            && outgoing.is_replayable()
            && retry::is_retryable_status(status, guard.is_trial(), &self.route.spec.retry)
    }

    /// After a try that failed: where the request goes next, in the newest view, and its body
    /// begins anew. `None` if it may go nowhere, or there is nothing to go to.
    fn next_after_failure(
        &mut self,
        view: &Rc<WorkerView>,
        failed: &EndpointAttemptFailure<'_>,
        may_wait: bool,
        outgoing: &mut RequestBody,
    ) -> Option<(Rc<WorkerView>, Selection)> {
        let &EndpointAttemptFailure { guard, zone, reached } = failed;
        let connections = guard.connections();
        self.first_failed.get_or_insert_with(|| Rc::clone(connections));
        self.avoid.exclude(connections.target.id, zone);
        if let Some(affinity) = &self.affinity {
            affinity.record_failure(&connections.target);
        }
        self.sent_attempts += u32::from(reached == RequestExposure::MaybeSent && !guard.is_trial());
        let tried = FailedAttempt {
            exposure: reached,
            is_idempotent: self.is_idempotent,
            is_body_buffered: outgoing.is_replayable(),
            is_trial: guard.is_trial(),
            sent_attempts: self.sent_attempts,
            total_attempts: self.attempts,
        };
        let again = retry::retry_decision(&tried, &self.route.spec.retry);
        let other = self.select_next(view, again, may_wait)?;
        outgoing.rewind();
        Some(other)
    }

    /// Another endpoint in the newest view, if there is one to go to and the budget pays.
    pub(super) fn select_next(
        &self,
        view: &Rc<WorkerView>,
        again: RetryDecision,
        may_wait: bool,
    ) -> Option<(Rc<WorkerView>, Selection)> {
        let old = view;
        let view = self.latest_view(old);
        let (pool, local) = view.pool(self.route);
        let is_budgeted = match again {
            RetryDecision::Denied => return None,
            RetryDecision::Budgeted if !local.retry_budget.borrow().can_withdraw() => return None,
            RetryDecision::Budgeted => true,
            RetryDecision::Unbudgeted => false,
        };
        let now = Instant::now();
        let selector = EndpointSelector {
            worker: self.worker,
            pool,
            local,
            sending: self.sending(local, now),
            steering_variant: self.steering_variant,
            hash_key: self.hash_key,
            affinity_target: None,
            began: now,
            is_resend: is_budgeted,
            can_wait: may_wait,
            record: self.downstream.record,
            drill: view.drill.as_ref(),
        };
        // Where a drill ends, its identities of endpoints do.
        let has_drill_ended = old.drill.is_some() && view.drill.is_none();
        let selection = if has_drill_ended {
            selector.select_first()
        } else {
            selector.select_other(&self.avoid)
        };
        let selection = selection.ok()?;
        if is_budgeted && !local.retry_budget.borrow_mut().try_withdraw() {
            return None;
        }
        local.meter.record_retry();
        Some((view, selection))
    }
}

/// Whether sending it twice does no harm: by its method, or because its route accepts the keys by which
/// an endpoint recognises what it has done already (draft-ietf-httpapi-idempotency-key-header).
fn is_repeatable(request: &Request<()>, spec: &RetrySpec) -> bool {
    retry::is_idempotent(request.method())
        || spec.is_idempotency_key_trusted && request.headers().contains_key(IDEMPOTENCY_KEY)
}

/// The reason that a request fails with if it cannot go on, and how much of it the endpoint may have
/// seen; `Err` if it cannot go on in any case. What is the endpoint's failure is counted.
pub(super) fn classify_error(
    error: &AttemptError,
    guard: &AttemptGuard,
) -> Result<(LocalReplyReason, RequestExposure), LocalReplyReason> {
    match *error {
        AttemptError::EndpointFailed { failure, reached } => {
            guard.record_failure(failure);
            Ok((LocalReplyReason::from_failure(failure), reached))
        }
        AttemptError::Aborted { reached } => Ok((LocalReplyReason::EndpointDown, reached)),
        AttemptError::Client(fault) => Err(LocalReplyReason::from_client_fault(fault)),
        AttemptError::LocalResources => Err(LocalReplyReason::LocalLimit),
        AttemptError::LimitReached(full) => Err(LocalReplyReason::from_limit(full)),
    }
}
