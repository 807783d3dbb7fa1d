//! The state of a request between its attempts, and the choice of the next endpoint.

use std::rc::Rc;
use std::time::Instant;

use http::Request;
use http::header::HeaderName;

use crate::app::dataplane::worker::{PoolLocal, Worker, WorkerView};
use crate::logic::model::outcome::FailureReason;
use crate::logic::model::pick_request::{ExcludedTargets, RetrySafety};
use crate::logic::model::topology::PoolSpec;
use crate::logic::request::breaker::PoolRequestPermit;
use crate::logic::request::retry;
use crate::logic::request::retry::{FailedAttempt, RequestExposure, RetryDecision};
use crate::logic::routing::{PoolRoute, RetrySpec};
use crate::logic::steering;
use crate::logic::steering::affinity::AffinityRequest;
use crate::net::upstream::{Checkout, ConnectionPool, RequestBody};

use super::affinity::{self, RequestAffinity};
use super::attempt_guard::AttemptGuard;
use super::connect::ConnectTimeout;
use super::downstream::Downstream;
use super::endpoint_selector::{ConnectionSource, EndpointSelector, Selection};
use super::local_reply_reason::LocalReplyReason;
use super::request_context::RequestContext;
use super::started_response::StartedResponse;
use super::upstream_request::UpstreamRequest;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The state of a request at one pool.
pub(super) struct RetryLoop<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) route: &'a PoolRoute,
    pub(super) downstream: &'a Downstream<'a>,
    pub(super) is_idempotent: bool,
    pub(super) arrived: Instant,
    /// Start of the attempts at this pool; later than `arrived` for a fallback pool.
    pub(super) began: Instant,
    pub(super) avoid: ExcludedTargets,
    pub(super) attempts: u32,
    pub(super) sent_attempts: u32,
    /// The first endpoint that failed the request. Its incident counts what the client sees.
    pub(super) first_failed: Option<Rc<ConnectionPool>>,
    /// Counts the request among those of the pool, if the pool limits or counts them.
    pub(super) pool_permit: Option<PoolRequestPermit>,
    /// Index of the steering variant of the pool.
    steering_variant: usize,
    /// Hash of the request's key, if the pool balances by one and the request has it.
    hash_key: Option<u64>,
    /// The request's affinity cookie, if the pool uses cookie affinity.
    pub(super) affinity: Option<Box<RequestAffinity>>,
}

/// Chosen by the route's policy, by the client's location, or by the pool's policy, in this order.
fn steering_variant(
    view: &WorkerView,
    route: &PoolRoute,
    pool: &PoolSpec,
    request: &Request<()>,
    downstream: &Downstream<'_>,
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

/// An attempt that failed.
pub(super) struct EndpointAttemptFailure<'a> {
    pub(super) guard: &'a AttemptGuard,
    /// Index of the endpoint's zone in the pool.
    pub(super) zone: usize,
    /// How much of the request the endpoint may have seen.
    pub(super) reached: RequestExposure,
}

/// The history of a request before its attempts at a pool.
pub(super) struct PriorAttempts {
    pub(super) arrived: Instant,
    /// Start of the attempts at this pool.
    pub(super) began: Instant,
    /// The first endpoint that failed the request.
    pub(super) first_failed: Option<Rc<ConnectionPool>>,
    /// A client waits for the response: a drill may select the request, and interim responses are
    /// forwarded. False for a mirrored request.
    pub(super) has_waiting_client: bool,
}

impl PriorAttempts {
    /// The history of a request that has just arrived.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { arrived: now, began: now, first_failed: None, has_waiting_client: true }
    }

    /// The history of a mirrored request.
    pub(super) fn for_mirror() -> Self {
        Self { has_waiting_client: false, ..Self::new() }
    }
}

impl<'a> RetryLoop<'a> {
    /// Begins the attempts of the request at the pool of `route`.
    pub(super) fn new(
        context: &RequestContext<'a>,
        view: &WorkerView,
        route: &'a PoolRoute,
        prior: PriorAttempts,
    ) -> Self {
        let RequestContext { worker, downstream, request, .. } = *context;
        let (pool, local) = view.pool(route);
        Self {
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
            steering_variant: steering_variant(view, route, &pool.spec, request, downstream),
            hash_key: affinity::hash_key(&pool.spec, request, downstream),
            affinity: RequestAffinity::from_request(pool, local, request.headers()),
        }
    }
}

impl RetryLoop<'_> {
    /// The first endpoint; an endpoint that is on trial, if one is due and the request can be
    /// repeated.
    pub(super) fn select_first(
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
            view,
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

    pub(super) fn connect_timeout(
        &self,
        view: &WorkerView,
        guard: &AttemptGuard,
        source: &ConnectionSource,
    ) -> ConnectTimeout {
        let timeout = self.route.spec.timeouts.connect;
        if !matches!(source, ConnectionSource::Immediate(Checkout::New(_))) {
            return ConnectTimeout { timeout, reason: FailureReason::Timeout };
        }
        let (pool, local) = view.pool(self.route);
        let latency = local.latency.borrow();
        if guard.is_trial() {
            let timeout = timeout.min(latency.slow_bound());
            return ConnectTimeout { timeout, reason: FailureReason::Timeout };
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
        let new = self.worker.latest_view(old);
        if new.has_pool(self.route) { new } else { Rc::clone(old) }
    }

    /// Where the request goes next if the response has a retryable status; `None` if the response
    /// is passed on.
    pub(super) fn next_after_response(
        &mut self,
        view: &Rc<WorkerView>,
        started: &StartedResponse,
        failed: &EndpointAttemptFailure<'_>,
        outgoing: &mut RequestBody,
    ) -> Option<(Rc<WorkerView>, Selection)> {
        let (status, is_trial) = (started.head.status.as_u16(), failed.guard.is_trial());
        let should_retry = self.is_idempotent
            && outgoing.is_replayable()
            && retry::is_retryable_status(status, is_trial, &self.route.spec.retry);
        if should_retry { self.next_after_failure(view, failed, false, outgoing) } else { None }
    }

    /// The next endpoint after a failed attempt, in the newest view; rewinds the body. `None` if
    /// the request may not be sent again, or no endpoint is left.
    pub(super) fn next_after_failure(
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

    /// Another endpoint in the newest view, if there is one and the retry budget allows it.
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
            view: &view,
        };
        // Endpoint ids of a drill are invalid outside of it, and so is `avoid`.
        let selection = if view.tag() != old.tag() {
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

/// Whether the request may be executed twice: its method is idempotent, or it has an idempotency
/// key (draft-ietf-httpapi-idempotency-key-header) that its route accepts.
fn is_repeatable(request: &Request<()>, spec: &RetrySpec) -> bool {
    retry::is_idempotent(request.method())
        || spec.is_idempotency_key_trusted && request.headers().contains_key(IDEMPOTENCY_KEY)
}
