//! The state of a request between its attempts. Carries out the decisions of its
//! [`RequestPlan`]: chooses endpoints, pays from the retry budget, and counts.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::Request;

use crate::app::dataplane::worker::{PoolLocal, Worker, WorkerView};
use crate::logic::health::latency_baseline::LatencyBounds;
use crate::logic::model::outcome::FailureReason;
use crate::logic::model::pick_request::{ExcludedTargets, RetrySafety};
use crate::logic::model::snapshot::PoolView;
use crate::logic::model::topology::PoolSpec;
use crate::logic::request::attribution::{AttemptPlace, RequestKey};
use crate::logic::request::breaker::PoolRequestPermit;
use crate::logic::request::request_plan::{
    AttemptEvent, AttemptTarget, BodyLength, ConnectBounds, ConnectTimeout, Decision, RequestPlan,
    RequestTraits, Resend,
};
use crate::logic::request::retry::{self, BudgetShare, RequestExposure};
use crate::logic::routing::PoolRoute;
use crate::logic::steering;
use crate::logic::steering::affinity::AffinityRequest;
use crate::net::upstream::{Checkout, ConnectionPool, RequestBody};

use super::affinity::{self, RequestAffinity};
use super::attempt::AttemptStart;
use super::attempt_guard::AttemptGuard;
use super::connect::ConnectPlan;
use super::downstream::Downstream;
use super::endpoint_selector::{ConnectionSource, EndpointSelector, Selection};
use super::failed_attempt::FailedAttempts;
use super::local_reply_reason::LocalReplyReason;
use super::request_context::RequestContext;
use super::started_response::StartedResponse;

/// The state of a request at one pool.
pub(super) struct RetryLoop<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) route: &'a PoolRoute,
    pub(super) downstream: &'a Downstream<'a>,
    pub(super) plan: RequestPlan,
    /// The request asks the endpoint to switch to another protocol.
    pub(super) is_upgrade: bool,
    pub(super) arrived: Instant,
    /// Start of the attempts at this pool; later than `arrived` for a fallback pool.
    pub(super) began: Instant,
    /// The first endpoint that failed the request. Its incident counts what the client sees.
    pub(super) first_failed: Option<Rc<ConnectionPool>>,
    /// Attempts whose failures are settled when the request is over.
    pub(super) failed: FailedAttempts<'a>,
    /// The key of the request, for attribution.
    key: RequestKey,
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

/// An attempt about which an event is reported to the plan.
#[derive(Clone, Copy)]
pub(super) struct ReportedAttempt<'a> {
    pub(super) guard: &'a AttemptGuard,
    /// Index of the endpoint's zone in the pool.
    pub(super) zone: usize,
}

impl ReportedAttempt<'_> {
    fn target(&self) -> AttemptTarget {
        AttemptTarget {
            endpoint: self.guard.connections().target.id,
            zone: self.zone,
            is_trial: self.guard.is_trial(),
        }
    }
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
        let RequestContext { worker, downstream, request, validated, .. } = *context;
        let (pool, local) = view.pool(route);
        let is_upgrade = route.spec.is_websocket_allowed
            && validated.framing.is_none()
            && downstream.has_upgrade();
        let body = match (validated.framing, validated.content_length) {
            (None, _) => BodyLength::Absent,
            (Some(_), Some(bytes)) => BodyLength::Known { bytes },
            (Some(_), None) => BodyLength::Unknown,
        };
        let spec = &route.spec.retry;
        let is_idempotent = retry::is_repeatable(request.method(), request.headers(), spec);
        Self {
            worker,
            route,
            downstream,
            plan: RequestPlan::new(RequestTraits { is_idempotent, body, is_upgrade }, spec),
            is_upgrade,
            arrived: prior.arrived,
            began: prior.began,
            first_failed: prior.first_failed,
            failed: FailedAttempts::new(worker),
            key: worker.shared.request_key(request.method(), validated.host, request.uri().path()),
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
        let now_us = self.worker.shared.micros(self.began);
        let retry_safety = self.retry_safety(pool, local, self.began);
        let request = AffinityRequest { retry_safety, now_us };
        let affinity_target = self.affinity.as_ref().and_then(|pin| pin.target(pool, request));
        let selector = EndpointSelector {
            worker: self.worker,
            pool,
            local,
            key: self.key,
            retry_safety,
            steering_variant: self.steering_variant,
            hash_key: self.hash_key,
            affinity_target,
            began: self.began,
            is_resend: false,
            can_wait: true,
            record: self.downstream.record,
            view,
        };
        if affinity_target.is_none()
            && let Some(comparison) = self.select_comparison(&selector)
        {
            return Ok(comparison);
        }
        if affinity_target.is_none()
            && !pool.trial_targets.is_empty()
            && self.plan.can_be_trial()
            && let Some(trial) = selector.select_trial()
        {
            return Ok(trial);
        }
        Ok(selector.select_first()?)
    }

    /// An endpoint outside the zone in which a request with the same key failed or was slow, if
    /// this request decides the attribution of that failure.
    fn select_comparison(&self, selector: &EndpointSelector<'_>) -> Option<Selection> {
        let local = selector.local;
        let failing = local.failing.borrow();
        let failed_at =
            if failing.is_empty() { None } else { failing.place_to_avoid(self.key, self.began) };
        drop(failing);
        let slow_at = || local.latency.borrow().place_to_avoid(self.key, self.began);
        let AttemptPlace { endpoint, zone } = failed_at.or_else(slow_at)?;
        let mut excluded = ExcludedTargets::default();
        excluded.exclude(endpoint, zone);
        selector.select_other(&excluded).ok()
    }

    fn fails_everywhere(&self, local: &PoolLocal, now: Instant) -> bool {
        let failing = local.failing.borrow();
        !failing.is_empty() && failing.fails_everywhere(self.key, now)
    }

    /// Whether a hedge can help: not if requests with the same key fail everywhere.
    pub(super) fn can_hedge(&self, view: &WorkerView) -> bool {
        !self.fails_everywhere(view.pool(self.route).1, Instant::now())
    }

    /// Settles the failures of the request, which the attempt of `guard` has ended.
    pub(super) fn settle(&mut self, guard: &AttemptGuard) {
        match guard.take_failed_attempt() {
            // The late response is good: the failures of the other attempts are their endpoints'.
            Some(slow) if guard.has_good_head() && slow.is_slow() => {
                self.failed.settle_rescued(guard.place());
                self.failed.push(Some(slow));
                self.failed.settle_failed();
            }
            Some(failed) => {
                self.failed.push(Some(failed));
                self.failed.settle_failed();
            }
            None => self.failed.settle_rescued(guard.place()),
        }
    }

    fn retry_safety(&self, pool: &PoolView, local: &PoolLocal, now: Instant) -> RetrySafety {
        self.plan.retry_safety(self.worker.shared.micros(now), || {
            let baseline = pool.first_latency_baseline();
            let bounds = baseline.map(|one| local.latency.borrow().bounds(one, self.key, now));
            bounds.map_or(Duration::ZERO, |bounds| bounds.nonrepeatable)
        })
    }

    /// The bounds of the attempt that the plan has just counted.
    pub(super) fn attempt_start(
        &self,
        view: &WorkerView,
        guard: &AttemptGuard,
        source: ConnectionSource,
    ) -> AttemptStart {
        let connect_timeout = self.connect_timeout(view, guard, &source);
        let wait_limit = self.plan.wait_limit(guard.is_trial());
        AttemptStart { connect: ConnectPlan { source, connect_timeout }, wait_limit }
    }

    fn connect_timeout(
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
        let LatencyBounds { stall, slow, .. } = guard.latency_bounds(guard.began());
        let bounds = ConnectBounds { stall, slow, timeout };
        let spec = &self.route.spec.retry;
        self.plan.connect_timeout(guard.is_trial(), bounds, spec, |excluded| {
            let retry_safety = self.retry_safety(pool, local, guard.began());
            pool.has_alternative(guard.connections().target.id, excluded, retry_safety)
        })
    }

    /// The plan's decision on what the attempt met.
    pub(super) fn handle(
        &mut self,
        attempt: &ReportedAttempt<'_>,
        event: AttemptEvent,
    ) -> Decision {
        self.plan.handle(attempt.target(), event, &self.route.spec.retry)
    }

    /// The newest view, unless a new configuration has moved the route's pool.
    fn latest_view(&self, old: &Rc<WorkerView>) -> Rc<WorkerView> {
        let new = self.worker.latest_view(old);
        if new.has_pool(self.route) { new } else { Rc::clone(old) }
    }

    /// The next endpoint if the response has a retryable status and another one may be tried;
    /// `None` if the response is passed on.
    pub(super) fn next_after_response(
        &mut self,
        view: &Rc<WorkerView>,
        attempt: &ReportedAttempt<'_>,
        started: &StartedResponse,
        outgoing: &mut RequestBody,
    ) -> Option<(Rc<WorkerView>, Selection)> {
        let status = started.head.status.as_u16();
        let is_body_buffered = outgoing.is_replayable();
        let event = AttemptEvent::HeadArrived { status, is_body_buffered };
        let resend = match self.handle(attempt, event) {
            Decision::ResendOrReturn(resend) => Some(resend),
            Decision::ReturnFailure => None,
            _ => return None,
        };
        self.record_failed_endpoint(attempt);
        let next = self.select_next(view, resend?)?;
        self.failed.push(attempt.guard.take_failed_attempt());
        outgoing.rewind();
        Some(next)
    }

    /// The next endpoint after a failed attempt, in the newest view; rewinds the body. `None` if
    /// the plan allows no resend, or no endpoint is left.
    pub(super) fn next_after_failure(
        &mut self,
        view: &Rc<WorkerView>,
        attempt: &ReportedAttempt<'_>,
        exposure: RequestExposure,
        outgoing: &mut RequestBody,
    ) -> Option<(Rc<WorkerView>, Selection)> {
        self.record_failed_endpoint(attempt);
        self.failed.push(attempt.guard.take_failed_attempt());
        let is_body_buffered = outgoing.is_replayable();
        let event = AttemptEvent::Failed { exposure, is_body_buffered };
        let Decision::ResendOrFail(resend) = self.handle(attempt, event) else { return None };
        let next = self.select_next(view, resend)?;
        outgoing.rewind();
        Some(next)
    }

    fn record_failed_endpoint(&mut self, attempt: &ReportedAttempt<'_>) {
        let connections = attempt.guard.connections();
        self.first_failed.get_or_insert_with(|| Rc::clone(connections));
        if let Some(affinity) = &self.affinity {
            affinity.record_failure(&connections.target);
        }
    }

    /// Another endpoint in the newest view, if one takes the request and the retry budget pays.
    pub(super) fn select_next(
        &self,
        old_view: &Rc<WorkerView>,
        resend: Resend,
    ) -> Option<(Rc<WorkerView>, Selection)> {
        let view = self.latest_view(old_view);
        let (pool, local) = view.pool(self.route);
        let now = Instant::now();
        let share = match self.fails_everywhere(local, now) {
            true => BudgetShare::Half,
            false => BudgetShare::Whole,
        };
        if !local.retry_budget.borrow().can_grant(resend, share) {
            return None;
        }
        let selector = EndpointSelector {
            worker: self.worker,
            pool,
            local,
            key: self.key,
            retry_safety: self.retry_safety(pool, local, now),
            steering_variant: self.steering_variant,
            hash_key: self.hash_key,
            affinity_target: None,
            began: now,
            is_resend: resend.payment.is_some(),
            can_wait: resend.can_queue,
            record: self.downstream.record,
            view: &view,
        };
        // Endpoint ids of a drill are invalid outside of it, and so are the excluded ones.
        let selection = if view.tag() != old_view.tag() {
            selector.select_first()
        } else {
            selector.select_other(self.plan.excluded())
        };
        let selection = selection.ok()?;
        if !local.retry_budget.borrow_mut().try_grant(resend, share) {
            return None;
        }
        local.meter.record_retry();
        Some((view, selection))
    }
}
