//! Faults that a drill injects into an attempt. They happen in this process; the endpoint sees
//! nothing.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::Method;
use tokio::time::{Sleep, sleep};

use crate::app::dataplane::worker::Worker;
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::retry::RequestExposure;
use crate::net::h1::ResponseHead;
use crate::net::upstream::{
    AbortEpoch, Checkout, ConnectionPool, Exchange, FaultEffect, FaultInjection, InjectedReply,
    RequestBody, UpstreamError,
};

use super::attempt_error::AttemptError;
use super::endpoint_selector::ConnectionSource;
use super::upstream_request::UpstreamRequest;

/// The effect of a drill on an exchange.
#[derive(Debug)]
pub(super) enum AttemptFault {
    /// There is no drill, or it spares this exchange.
    None,
    Injected,
    /// The response is delayed.
    Delayed(Box<DelayedResponse>),
}

/// A response that is delayed.
#[derive(Debug)]
pub(super) struct DelayedResponse {
    timer: Pin<Box<Sleep>>,
    head: Option<ResponseHead>,
}

/// How an attempt reaches its endpoint.
pub(super) struct AttemptPath {
    pub(super) source: ConnectionSource,
    /// Aborts of the endpoint after this end the attempt.
    pub(super) abort_epoch: AbortEpoch,
    pub(super) fault: AttemptFault,
}

/// Applies the drill's current fault to an attempt. A fault that replaces the connection returns
/// the real one to the pool.
///
/// Requests that must not run twice ignore full aborts at a target: a verdict of the drill must not
/// end what the endpoint really executes.
#[cold]
pub(super) fn inject(
    worker: &Worker,
    injection: &FaultInjection,
    upstream: &UpstreamRequest<'_>,
    connections: &Rc<ConnectionPool>,
    mut path: AttemptPath,
) -> Result<AttemptPath, AttemptError> {
    if injection.is_target && !upstream.is_idempotent {
        // The endpoint really executes these requests, so they run to their end.
        path.abort_epoch = path.abort_epoch.ignoring_full_aborts();
    }
    let Some(fault) = injection.fault.get().filter(|_| !injection.is_finished.get()) else {
        return Ok(path);
    };
    let is_plain_get =
        upstream.request.method() == Method::GET && upstream.validated.framing.is_none();
    let chance = worker.with_rng(fastrand::Rng::f64);
    let effect = fault.effect(upstream.is_idempotent, is_plain_get && !upstream.is_upgrade, chance);
    let reply = match effect {
        FaultEffect::Passthrough => return Ok(path),
        FaultEffect::Delayed(delay) => {
            injection.tallies.record_fault();
            let delayed = DelayedResponse { timer: Box::pin(sleep(delay)), head: None };
            return Ok(AttemptPath { fault: AttemptFault::Delayed(Box::new(delayed)), ..path });
        }
        FaultEffect::Refused => {
            injection.tallies.record_fault();
            return_connection(connections, path.source);
            let failure = Failure::connect(FailureReason::Refused);
            return Err(AttemptError::EndpointFailed {
                failure,
                reached: RequestExposure::NotSent,
            });
        }
        FaultEffect::Reset => InjectedReply::Reset,
        FaultEffect::Silent => InjectedReply::Silence,
        FaultEffect::Status(status) => InjectedReply::with_status(status),
        FaultEffect::Truncated => InjectedReply::truncated(),
    };
    injection.tallies.record_fault();
    return_connection(connections, path.source);
    let injected = connections.inject_reply(reply);
    Ok(AttemptPath {
        source: ConnectionSource::Immediate(Checkout::Idle(injected)),
        abort_epoch: connections.abort_epoch(),
        fault: AttemptFault::Injected,
    })
}

/// An open connection survives the drill.
fn return_connection(connections: &Rc<ConnectionPool>, source: ConnectionSource) {
    if let ConnectionSource::Immediate(Checkout::Idle(connection)) = source {
        connections.put_idle(connection);
    }
}

impl AttemptFault {
    /// How much of the request an endpoint may have seen. The drill simulates exposure while it is
    /// on; once it is over, a request with an injected fault counts as not sent.
    pub(super) fn reached(
        &self,
        exchange: &Exchange,
        connections: &ConnectionPool,
    ) -> RequestExposure {
        match self {
            Self::Injected if connections.is_injection_over() => RequestExposure::NotSent,
            _ => exchange.reached(),
        }
    }
}

impl DelayedResponse {
    /// The response head, not before the delay has passed or the drill has ended.
    pub(super) fn poll_head(
        &mut self,
        exchange: &mut Exchange,
        outgoing: &mut RequestBody,
        connections: &ConnectionPool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        if self.head.is_none() {
            self.head = Some(ready!(exchange.poll_head(outgoing, cx))?);
        }
        if !connections.is_injection_over() {
            ready!(self.timer.as_mut().poll(cx));
        }
        self.head.take().map_or(Poll::Pending, |head| Poll::Ready(Ok(head)))
    }
}
