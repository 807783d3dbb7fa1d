//! The wait for a response head.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::Version;

use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::response_timeout::{ResponseTimeout, TimerEvent, WaitLimit, WaitStep};
use crate::logic::request::retry::RequestExposure;
use crate::net::h1::ResponseHead;
use crate::net::upstream::{AbortEpoch, ClientBodyError, Exchange, RequestBody};

use super::attempt_error::AttemptError;
use super::attempt_guard::AttemptGuard;
use super::fault_injection::AttemptFault;
use super::started_response::StartedResponse;
use super::upstream_request::UpstreamRequest;

/// A wait for a response head. Silence beyond the pool's bounds is reported as evidence. The wait
/// may then continue until the verdict or the timeout ends it.
pub(super) struct PendingResponse {
    pub(super) exchange: Exchange,
    pub(super) abort_epoch: AbortEpoch,
    pub(super) response_timeout: ResponseTimeout,
    pub(super) is_repeatable: bool,
    /// What a drill does to this attempt.
    pub(super) fault: AttemptFault,
}

impl PendingResponse {
    /// The head, or `None` at the stall bound if `wait_limit` pauses there; the wait can then be
    /// resumed. Interim heads go to the client of `upstream`.
    pub(super) async fn wait_for_head(
        &mut self,
        upstream: Option<&UpstreamRequest<'_>>,
        outgoing: &mut RequestBody,
        guard: &AttemptGuard,
        wait_limit: WaitLimit,
    ) -> Result<Option<ResponseHead>, AttemptError> {
        let Self { exchange, abort_epoch, response_timeout, is_repeatable, fault } = self;
        let mut timer = guard.timers().timer_at(response_timeout.due());
        poll_fn(|cx| {
            let head = match fault {
                AttemptFault::Delayed(delayed) => {
                    delayed.poll_head(exchange, outgoing, guard.connections(), cx)
                }
                AttemptFault::None | AttemptFault::Injected => exchange.poll_head(outgoing, cx),
            };
            let interim = exchange.take_interim_responses();
            if let Some((upstream, interim_responses)) =
                upstream.and_then(|upstream| Some((upstream, upstream.interim_responses?)))
                && !interim.is_empty()
                && upstream.request.version() == Version::HTTP_11
            {
                interim_responses.forward(interim, upstream.response_headers, upstream.via);
            }
            if let Poll::Ready(head) = head {
                return Poll::Ready(head.map(Some).map_err(AttemptError::from));
            }
            // An abort wakes every request that waits for a timer.
            if guard.connections().is_aborted_since(*abort_epoch, *is_repeatable) {
                let reached = fault.reached(exchange, guard.connections());
                return Poll::Ready(Err(AttemptError::Aborted { reached }));
            }
            if response_timeout.waiting_since().is_none()
                && exchange.is_sent()
                && let Some(event) = response_timeout.on_request_sent(Instant::now())
            {
                timer.reset(event);
            }
            while timer.poll(cx).is_ready() {
                let moved_bytes = outgoing.read_bytes() + exchange.written_bytes();
                let event = response_timeout.on_timer(
                    Instant::now(),
                    moved_bytes,
                    exchange.is_waiting_for_client(),
                );
                match on_timer_event(event, exchange.reached(), guard, wait_limit) {
                    Poll::Ready(result) => return Poll::Ready(result),
                    Poll::Pending => timer.reset(response_timeout.due()),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Another endpoint has responded: this attempt continues only to find out whether its endpoint
    /// is slow, and is withdrawn at the slow bound.
    pub(super) fn observe_in_background(mut self: Box<Self>, guard: AttemptGuard) {
        if self.response_timeout.is_slow() {
            return;
        }
        tokio::task::spawn_local(async move {
            let mut outgoing = RequestBody::empty();
            let head = self.wait_for_head(None, &mut outgoing, &guard, WaitLimit::Slow).await;
            if let Err(AttemptError::EndpointFailed { failure, reached }) = head
                && failure.reason == FailureReason::Slow
            {
                guard.record_failure(failure, reached);
            }
        });
    }

    /// The wait for the response head so far.
    pub(super) fn waited(&self) -> Duration {
        self.response_timeout.waiting_since().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Records the latency and the evidence of a head that has arrived.
    pub(super) fn into_started(self, head: ResponseHead, guard: &AttemptGuard) -> StartedResponse {
        let Self { exchange, abort_epoch, response_timeout, .. } = self;
        let now = Instant::now();
        // The time that a client takes to send its body says nothing about the endpoint.
        if let Some(since) = response_timeout.waiting_since() {
            guard.record_wait(now.saturating_duration_since(since), now);
        }
        guard.on_head(head.status.as_u16(), now);
        StartedResponse { head, exchange, abort_epoch }
    }
}

/// Applies an expiry of the attempt's timer: reports evidence, and ends the wait at its limit.
fn on_timer_event(
    event: TimerEvent,
    reached: RequestExposure,
    guard: &AttemptGuard,
    wait_limit: WaitLimit,
) -> Poll<Result<Option<ResponseHead>, AttemptError>> {
    match wait_limit.next_step(event) {
        WaitStep::Wait => Poll::Pending,
        WaitStep::Report(reason) => {
            guard.record_failure(Failure::http(reason), reached);
            guard.settle_slow();
            Poll::Pending
        }
        WaitStep::Pause => {
            guard.record_failure(Failure::http(FailureReason::Stall), reached);
            Poll::Ready(Ok(None))
        }
        WaitStep::Fail(reason) => {
            let failure = Failure::http(reason);
            Poll::Ready(Err(AttemptError::EndpointFailed { failure, reached }))
        }
        WaitStep::ClientIdle => {
            Poll::Ready(Err(AttemptError::Client(ClientBodyError::IdleTimeout)))
        }
    }
}
