//! Forwards a request to a pool: makes attempts as the request's plan decides, until it returns a
//! response or fails the request.

use std::rc::Rc;
use std::time::Instant;

use http::{Response, StatusCode};
use tokio::time::timeout;

use crate::app::dataplane::worker::{Worker, WorkerView};
use crate::logic::incident::client_failure::ClientFailure;
use crate::logic::model::topology::PoolSpec;
use crate::logic::request::total_deadline::TotalDeadline;
use crate::logic::routing::PoolRoute;
use crate::net::upstream::RequestBody;

use super::attempt::{AttemptProgress, attempt};
use super::attempt_error::{AttemptError, classify_error};
use super::body::ProxyBody;
use super::endpoint_selector::Selection;
use super::grpc;
use super::hedge::{HedgeOutcome, StalledAttempt, hedge};
use super::local_reply_reason::LocalReplyReason;
use super::request_context::RequestContext;
use super::response::{build_response, upgrade_response};
use super::retry_loop::{PriorAttempts, ReportedAttempt, RetryLoop};
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
    let deadline =
        TotalDeadline::earliest(route.spec.timeouts.total, grpc::call_timeout(request.headers()));
    let result = match deadline {
        None => run_attempts(&mut retry_loop, view, &upstream, outgoing).await,
        // A dropped future withdraws the exchange that it awaits.
        Some(TotalDeadline { after, source }) => {
            let left = after.saturating_sub(retry_loop.arrived.elapsed());
            let run = Box::pin(run_attempts(&mut retry_loop, view, &upstream, outgoing));
            timeout(left, run).await.unwrap_or(Err(LocalReplyReason::from_deadline(source)))
        }
    };
    result.map_err(|reason| ForwardError {
        reason,
        // At a deadline an attempt is in progress that may have reached an endpoint, and no time is
        // left.
        can_fall_back: !reason.is_deadline()
            && retry_loop.plan.can_fall_back(outgoing.is_replayable()),
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
    let route = retry_loop.route;
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
        is_idempotent: retry_loop.plan.is_idempotent(),
        is_upgrade: retry_loop.is_upgrade,
        interim_responses: has_waiting_client.then_some(&downstream.client.interim_responses),
        response_headers: &route.spec.response_headers,
    }
}

async fn run_attempts(
    retry_loop: &mut RetryLoop<'_>,
    view: &Rc<WorkerView>,
    upstream: &UpstreamRequest<'_>,
    outgoing: &mut RequestBody,
) -> Result<Response<ProxyBody>, LocalReplyReason> {
    let route = retry_loop.route;
    let mut view = Rc::clone(view);
    let mut selection = retry_loop.select_first(&view)?;
    let mut last_reason = None;
    loop {
        let Selection { mut guard, mut zone, source } = selection;
        retry_loop.plan.start_attempt();
        let start = retry_loop.attempt_start(&view, &guard, source);
        let progress = attempt(retry_loop.worker, upstream, outgoing, &guard, start).await;
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
                    retry_loop.settle(&guard);
                    return Ok(upgrade_response(retry_loop, &view, started, guard));
                }
                Err(AttemptError::malformed())
            }
            Ok(started) => {
                let reported = ReportedAttempt { guard: &guard, zone };
                let next = retry_loop.next_after_response(&view, &reported, &started, outgoing);
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
                retry_loop.settle(&guard);
                let is_repeatable = retry_loop.plan.is_idempotent() && outgoing.is_replayable();
                return Ok(build_response(retry_loop, &view, received, guard, is_repeatable));
            }
            Err(AttemptError::LimitReached(full)) => {
                view.pool(route).1.meter.record_limit(full);
                return Err(last_reason.unwrap_or_else(|| LocalReplyReason::from_limit(full)));
            }
            Err(error) => classify_error(&error, &guard)?,
        };
        let reported = ReportedAttempt { guard: &guard, zone };
        let next = retry_loop.next_after_failure(&view, &reported, reached, outgoing);
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
