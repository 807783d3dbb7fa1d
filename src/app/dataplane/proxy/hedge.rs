//! Hedged requests: a stalled request is sent to a second endpoint, and the first good response
//! wins.
//!
//! The plan of the request decides on the hedge and on the winner; this module runs the attempts.

use std::rc::Rc;

use crate::app::dataplane::worker::{Worker, WorkerView};
use crate::logic::request::request_plan::{AttemptEvent, Decision};
use crate::logic::request::response_timeout::WaitLimit;
use crate::logic::request::retry::RequestExposure;
use crate::net::h1::ResponseHead;
use crate::net::upstream::RequestBody;

use super::attempt::{AttemptProgress, AttemptStart, attempt};
use super::attempt_error::{AttemptError, classify_error};
use super::attempt_guard::AttemptGuard;
use super::endpoint_selector::Selection;
use super::pending_response::PendingResponse;
use super::retry_loop::{ReportedAttempt, RetryLoop};
use super::started_response::StartedResponse;
use super::upstream_request::UpstreamRequest;

/// An attempt that has reached the stall bound.
pub(super) struct StalledAttempt {
    pub(super) guard: AttemptGuard,
    pub(super) zone: usize,
    pub(super) pending: Box<PendingResponse>,
}

/// The attempt that remains, and its result.
pub(super) struct HedgeOutcome {
    pub(super) view: Rc<WorkerView>,
    pub(super) guard: AttemptGuard,
    pub(super) zone: usize,
    pub(super) result: Result<StartedResponse, AttemptError>,
}

enum FirstFinished {
    Original(Result<ResponseHead, AttemptError>),
    Hedge(Box<Result<StartedResponse, AttemptError>>),
}

/// Sends the request to a second endpoint if one is available within the budget. Waits until one of
/// both has responded well or none is left.
pub(super) async fn hedge(
    retry_loop: &mut RetryLoop<'_>,
    view: Rc<WorkerView>,
    upstream: &UpstreamRequest<'_>,
    stalled: StalledAttempt,
) -> HedgeOutcome {
    let StalledAttempt { guard, zone, mut pending } = stalled;
    let Some((view, selection)) = select_hedge_endpoint(retry_loop, &view, &guard, zone) else {
        let head = wait_until_head(&mut pending, upstream, &guard).await;
        let result = head.map(|head| pending.into_started(head, &guard));
        return HedgeOutcome { view, guard, zone, result };
    };
    let Selection { guard: hedge_guard, zone: hedge_zone, source } = selection;
    let start = retry_loop.attempt_start(&view, &hedge_guard, source);
    let mut hedge_attempt = Box::pin(run_attempt(retry_loop.worker, upstream, &hedge_guard, start));
    let winner = tokio::select! {
        biased;
        head = wait_until_head(&mut pending, upstream, &guard) => FirstFinished::Original(head),
        result = &mut hedge_attempt => FirstFinished::Hedge(Box::new(result)),
    };
    match winner {
        FirstFinished::Original(head) => {
            let waited = pending.waited();
            let result = head.map(|head| pending.into_started(head, &guard));
            if wins_race(retry_loop, &ReportedAttempt { guard: &guard, zone }, &result) {
                drop(hedge_attempt);
                if guard.has_good_head() {
                    guard.on_original_won(waited, hedge_guard.began().elapsed());
                }
                return HedgeOutcome { view, guard, zone, result };
            }
            discard_loser(retry_loop, result, upstream, &guard);
            let result = hedge_attempt.await;
            HedgeOutcome { view, guard: hedge_guard, zone: hedge_zone, result }
        }
        FirstFinished::Hedge(result) => {
            let result = *result;
            drop(hedge_attempt);
            let reported = ReportedAttempt { guard: &hedge_guard, zone: hedge_zone };
            if wins_race(retry_loop, &reported, &result) {
                let hedge_waited = hedge_guard.began().elapsed();
                if hedge_guard.has_good_head() && hedge_guard.on_won_as_hedge(hedge_waited) {
                    retry_loop.first_failed.get_or_insert_with(|| Rc::clone(guard.connections()));
                    guard.on_hedge_won(hedge_guard.place());
                    pending.observe_in_background(guard);
                } else {
                    let _ = guard.take_failed_attempt();
                }
                return HedgeOutcome { view, guard: hedge_guard, zone: hedge_zone, result };
            }
            discard_loser(retry_loop, result, upstream, &hedge_guard);
            guard.on_hedge_failed();
            let head = wait_until_head(&mut pending, upstream, &guard).await;
            let result = head.map(|head| pending.into_started(head, &guard));
            HedgeOutcome { view, guard, zone, result }
        }
    }
}

/// The second endpoint, if the plan allows a hedge.
fn select_hedge_endpoint(
    retry_loop: &mut RetryLoop<'_>,
    view: &Rc<WorkerView>,
    guard: &AttemptGuard,
    zone: usize,
) -> Option<(Rc<WorkerView>, Selection)> {
    let stalled = ReportedAttempt { guard, zone };
    if !retry_loop.can_hedge(view) {
        return None;
    }
    let Decision::Hedge(resend) = retry_loop.handle(&stalled, AttemptEvent::Stalled) else {
        return None;
    };
    let (view, selection) = retry_loop.select_next(view, resend)?;
    retry_loop.plan.start_hedge();
    guard.on_hedge_started();
    selection.guard.set_hedge();
    view.pool(retry_loop.route).1.meter.record_hedge();
    Some((view, selection))
}

/// Whether the result ends the race; else the other attempt decides.
fn wins_race(
    retry_loop: &mut RetryLoop<'_>,
    attempt: &ReportedAttempt<'_>,
    result: &Result<StartedResponse, AttemptError>,
) -> bool {
    // A hedged request has no body.
    let is_body_buffered = true;
    let event = match result {
        Ok(started) => {
            AttemptEvent::HeadArrived { status: started.head.status.as_u16(), is_body_buffered }
        }
        Err(_) => AttemptEvent::Failed { exposure: RequestExposure::MaybeSent, is_body_buffered },
    };
    retry_loop.handle(attempt, event) == Decision::Return
}

/// One attempt has failed; the other continues.
fn discard_loser(
    retry_loop: &mut RetryLoop<'_>,
    result: Result<StartedResponse, AttemptError>,
    upstream: &UpstreamRequest<'_>,
    guard: &AttemptGuard,
) {
    retry_loop.first_failed.get_or_insert_with(|| Rc::clone(guard.connections()));
    match result {
        Ok(started) => started.discard(upstream, guard),
        Err(error) => {
            // The reason does not matter: the other attempt may still respond.
            let _ = classify_error(&error, guard);
        }
    }
    retry_loop.failed.push(guard.take_failed_attempt());
}

/// Makes an attempt without a stall bound.
async fn run_attempt(
    worker: &Worker,
    upstream: &UpstreamRequest<'_>,
    guard: &AttemptGuard,
    start: AttemptStart,
) -> Result<StartedResponse, AttemptError> {
    match attempt(worker, upstream, &mut RequestBody::empty(), guard, start).await? {
        AttemptProgress::ResponseStarted(started) => Ok(started),
        AttemptProgress::Stalled(mut pending) => {
            let head = wait_until_head(&mut pending, upstream, guard).await?;
            Ok(pending.into_started(head, guard))
        }
    }
}

/// Waits for the head without a stall bound.
async fn wait_until_head(
    pending: &mut PendingResponse,
    upstream: &UpstreamRequest<'_>,
    guard: &AttemptGuard,
) -> Result<ResponseHead, AttemptError> {
    let mut outgoing = RequestBody::empty();
    loop {
        if let Some(head) =
            pending.wait_for_head(Some(upstream), &mut outgoing, guard, WaitLimit::Timeout).await?
        {
            return Ok(head);
        }
    }
}
