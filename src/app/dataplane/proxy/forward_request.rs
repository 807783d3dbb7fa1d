//! Forwards a request to a pool: from endpoint to endpoint until one responds or none is left.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use tokio::time::timeout;

use crate::app::dataplane::worker::{Worker, WorkerView};
use crate::logic::incident::client_failure::ClientFailure;
use crate::logic::model::topology::PoolSpec;
use crate::logic::request::retry::RequestExposure;
use crate::logic::routing::{PoolRoute, RouteSpec};
use crate::net::upstream::RequestBody;

use super::attempt::{AttemptProgress, attempt};
use super::attempt_error::{AttemptError, classify_error};
use super::body::ProxyBody;
use super::connect::ConnectPlan;
use super::endpoint_selector::Selection;
use super::grpc;
use super::hedge::{HedgeOutcome, StalledAttempt, hedge};
use super::local_reply_reason::LocalReplyReason;
use super::request_context::RequestContext;
use super::response::{build_response, upgrade_response};
use super::retry_loop::{EndpointAttemptFailure, PriorAttempts, RetryLoop};
use super::started_response::BodyProgress;
use super::upstream_request::UpstreamRequest;

/// A request that no endpoint of the pool answered.
pub(super) struct ForwardError {
    pub(super) reason: LocalReplyReason,
    pub(super) prior: PriorAttempts,
    /// The request may be sent to another pool: its body is buffered, and it reached no endpoint or
    /// is repeatable.
    pub(super) can_fall_back: bool,
    /// The view that steered the first attempt.
    steering_view: Rc<WorkerView>,
}

/// Forwards a request to the pool of `route`.
pub(super) async fn forward_request(
    context: &RequestContext<'_>,
    route: &PoolRoute,
    outgoing: &mut RequestBody,
    prior: PriorAttempts,
) -> Result<Response<ProxyBody>, ForwardError> {
    let RequestContext { worker, view, request, .. } = *context;
    let drawn = match prior.has_waiting_client {
        true => worker.draw_view(route, request.headers()),
        false => None,
    };
    let view = drawn.as_ref().unwrap_or(view);
    let (pool, local) = view.pool(route);
    let has_waiting_client = prior.has_waiting_client;
    let mut retry_loop = RetryLoop::new(context, view, route, prior);
    let upstream = upstream_request(context, view, &retry_loop, &pool.spec, has_waiting_client);
    local.retry_budget.borrow_mut().deposit(&route.spec.retry);
    let result = match total_timeout(&route.spec, request) {
        None => run_attempts(&mut retry_loop, view, &upstream, outgoing).await,
        // A dropped future withdraws the exchange that it awaits.
        Some((within, reason)) => {
            let left = within.saturating_sub(retry_loop.arrived.elapsed());
            let run = Box::pin(run_attempts(&mut retry_loop, view, &upstream, outgoing));
            timeout(left, run).await.unwrap_or(Err(reason))
        }
    };
    result.map_err(|reason| ForwardError {
        reason,
        // At a deadline an attempt is in progress that may have reached an endpoint, and no time is
        // left.
        can_fall_back: outgoing.is_replayable()
            && !reason.is_deadline()
            && (retry_loop.is_idempotent || retry_loop.sent_attempts == 0),
        prior: PriorAttempts {
            first_failed: retry_loop.first_failed.take(),
            arrived: retry_loop.arrived,
            began: retry_loop.began,
            has_waiting_client,
        },
        steering_view: Rc::clone(view),
    })
}

fn upstream_request<'a>(
    context: &RequestContext<'a>,
    view: &'a WorkerView,
    retry_loop: &RetryLoop<'a>,
    pool: &PoolSpec,
    has_waiting_client: bool,
) -> UpstreamRequest<'a> {
    let RequestContext { downstream, request, validated, .. } = *context;
    let RetryLoop { route, is_idempotent, .. } = *retry_loop;
    let is_upgrade =
        route.spec.is_websocket_allowed && validated.framing.is_none() && downstream.has_upgrade();
    UpstreamRequest {
        request,
        validated,
        downstream,
        via: &view.http_policy.headers.via_pseudonym,
        timeouts: route.spec.timeouts,
        // A gRPC call may be a stream of messages with pauses of any length.
        body_rate: match validated.framing {
            Some(_) if !grpc::is_grpc(request.headers()) => {
                view.http_policy.limits.min_body_rate_bytes
            }
            _ => 0,
        },
        max_head_bytes: pool.limits.max_response_head_bytes,
        is_idempotent,
        can_hedge: is_idempotent
            && validated.framing.is_none()
            && route.spec.retry.is_hedged
            && !is_upgrade,
        is_upgrade,
        interim_responses: has_waiting_client.then_some(&downstream.client.interim_responses),
        response_headers: &route.spec.response_headers,
    }
}

/// The limit on all attempts together and the reason to report at its end: the route's timeout or
/// the client's deadline, whichever is shorter.
fn total_timeout(route: &RouteSpec, request: &Request<()>) -> Option<(Duration, LocalReplyReason)> {
    let route_timeout = route.timeouts.total.map(|total| (total, LocalReplyReason::TotalTimeout));
    let client_timeout = grpc::call_timeout(request.headers())
        .map(|time| (time, LocalReplyReason::DeadlineExceeded));
    route_timeout.into_iter().chain(client_timeout).min_by_key(|(within, _)| *within)
}

async fn run_attempts(
    retry_loop: &mut RetryLoop<'_>,
    view: &Rc<WorkerView>,
    upstream: &UpstreamRequest<'_>,
    outgoing: &mut RequestBody,
) -> Result<Response<ProxyBody>, LocalReplyReason> {
    let route = retry_loop.route;
    let mut view = Rc::clone(view);
    let mut selection = retry_loop.select_first(&view, upstream)?;
    let mut last_reason = None;
    loop {
        let Selection { mut guard, mut zone, source } = selection;
        retry_loop.attempts += 1;
        let connect_timeout = retry_loop.connect_timeout(&view, &guard, &source);
        let plan = ConnectPlan { source, connect_timeout };
        let local = view.pool(route).1;
        let progress = attempt(retry_loop.worker, local, upstream, outgoing, &guard, plan).await;
        let result = match progress {
            Ok(AttemptProgress::ResponseStarted(started)) => Ok(started),
            Ok(AttemptProgress::Stalled(pending)) => {
                let hedge_result;
                let stalled = StalledAttempt { guard, zone, pending };
                HedgeOutcome { view, guard, zone, result: hedge_result } =
                    Box::pin(hedge(retry_loop, view, upstream, stalled)).await;
                hedge_result
            }
            Err(error) => Err(error),
        };
        let body = match result {
            Ok(started) if started.is_upgrade() => {
                if retry_loop.downstream.is_upgrade_accepted(&started.head.headers) {
                    return Ok(upgrade_response(retry_loop, &view, started, guard));
                }
                Err(AttemptError::malformed())
            }
            Ok(started) => {
                let reached = RequestExposure::MaybeSent;
                let failed = EndpointAttemptFailure { guard: &guard, zone, reached };
                let next = retry_loop.next_after_response(&view, &started, &failed, outgoing);
                if let Some(next) = next {
                    started.discard(upstream, &guard);
                    (view, selection) = next;
                    continue;
                }
                started.receive_body(upstream, outgoing, &guard)
            }
            Err(error) => Err(error),
        };
        let received = match body {
            Ok(BodyProgress::Ready(received)) => Ok(received),
            Ok(BodyProgress::Buffering(buffering)) => buffering.complete(&guard).await,
            Err(error) => Err(error),
        };
        let (reason, reached) = match received {
            Ok(received) => {
                let is_repeatable = retry_loop.is_idempotent && outgoing.is_replayable();
                return Ok(build_response(retry_loop, &view, received, guard, is_repeatable));
            }
            Err(AttemptError::LimitReached(full)) => {
                view.pool(route).1.meter.record_limit(full);
                return Err(last_reason.unwrap_or_else(|| LocalReplyReason::from_limit(full)));
            }
            Err(error) => classify_error(&error, &guard)?,
        };
        let failed = EndpointAttemptFailure { guard: &guard, zone, reached };
        let next = retry_loop.next_after_failure(&view, &failed, true, outgoing);
        (view, selection) = next.ok_or(reason)?;
        last_reason = Some(reason);
    }
}

impl ForwardError {
    /// Counts the failure that the client sees as a response with `status`.
    pub(super) fn record_client_failure(
        &self,
        worker: &Worker,
        view: &WorkerView,
        route: &PoolRoute,
        status: StatusCode,
    ) {
        let (pool, local) = view.pool(route);
        let elapsed = self.prior.arrived.elapsed();
        let _ = local.record_slo(&worker.shared, route, &pool.spec, status.as_u16(), elapsed);
        if let Some(failure_kind) = self.reason.client_failure_kind() {
            let now_us = worker.shared.micros(Instant::now());
            if let Some(failed_connections) = &self.prior.first_failed {
                let client_failure =
                    ClientFailure { kind: failure_kind, is_repeatable: self.can_fall_back };
                failed_connections.target.stats.record_client_failure(client_failure, now_us);
            }
            self.steering_view.record_client_failure(now_us, self.can_fall_back);
        }
        local.meter.record_error(self.reason);
        local.meter.record_response(status.as_u16(), elapsed);
    }
}
