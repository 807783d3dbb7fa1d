//! One attempt at one endpoint.

use std::time::Instant;

use crate::app::dataplane::worker::Worker;
use crate::logic::request::response_timeout::{ResponseTimeout, WaitLimit};
use crate::net::upstream::{Checkout, ClientBodyError, Exchange, ReadyConnection, RequestBody};

use super::attempt_error::AttemptError;
use super::attempt_guard::AttemptGuard;
use super::connect::{self, ConnectContext, ConnectPlan};
use super::endpoint_selector::ConnectionSource;
use super::fault_injection::{self, AttemptFault, AttemptPath};
use super::forward::OutgoingHead;
use super::forward_h2;
use super::pending_response::PendingResponse;
use super::started_response::StartedResponse;
use super::upgrade_request;
use super::upstream_request::UpstreamRequest;

#[allow(clippy::large_enum_variant, reason = "the variant of nearly every request is not boxed")]
pub(super) enum AttemptProgress {
    ResponseStarted(StartedResponse),
    /// The response is late enough for a hedge at another endpoint.
    Stalled(Box<PendingResponse>),
}

/// The bounds of an attempt.
pub(super) struct AttemptStart {
    pub(super) connect: ConnectPlan,
    /// How long the response head is waited for without a hedge.
    pub(super) wait_limit: WaitLimit,
}

/// Connects (or reuses a connection) within the connect timeout, sends, and waits for the head.
pub(super) async fn attempt(
    worker: &Worker,
    upstream: &UpstreamRequest<'_>,
    outgoing: &mut RequestBody,
    guard: &AttemptGuard,
    start: AttemptStart,
) -> Result<AttemptProgress, AttemptError> {
    let AttemptStart { connect: ConnectPlan { source, connect_timeout }, wait_limit } = start;
    let connections = guard.connections();
    let path =
        AttemptPath { source, abort_epoch: connections.abort_epoch(), fault: AttemptFault::None };
    let AttemptPath { source, abort_epoch, fault } = match &connections.fault_injection {
        None => path,
        Some(injection) => fault_injection::inject(worker, injection, upstream, connections, path)?,
    };
    let (transport, ready_at) = match source {
        ConnectionSource::Immediate(Checkout::Idle(connection)) => {
            (ReadyConnection::H1(connection), guard.began())
        }
        ConnectionSource::Immediate(Checkout::H2Stream(permit)) => {
            (ReadyConnection::H2(permit), guard.began())
        }
        source @ (ConnectionSource::Immediate(Checkout::New(_) | Checkout::Pending(_))
        | ConnectionSource::Queued { .. }) => {
            let caller = upstream.downstream.client.caller();
            let context = ConnectContext { worker, connections, caller, abort_epoch };
            let plan = ConnectPlan { source, connect_timeout };
            // Boxed: it would make the future of every request large.
            (Box::pin(connect::open_connection(context, plan)).await?, Instant::now())
        }
    };
    let exchange = begin_exchange(worker, upstream, guard, transport)?;
    let mut response_timeout =
        ResponseTimeout::new(upstream.attempt_timeouts(guard, ready_at), ready_at);
    if exchange.is_sent() {
        response_timeout.on_request_sent(ready_at);
    }
    let is_repeatable = upstream.is_idempotent;
    let mut pending =
        PendingResponse { exchange, abort_epoch, response_timeout, is_repeatable, fault };
    match pending.wait_for_head(Some(upstream), outgoing, guard, wait_limit).await? {
        Some(head) => Ok(AttemptProgress::ResponseStarted(pending.into_started(head, guard))),
        None => Ok(AttemptProgress::Stalled(Box::new(pending))),
    }
}

/// Sends the head over `transport`; the body follows while the response is awaited.
fn begin_exchange(
    worker: &Worker,
    upstream: &UpstreamRequest<'_>,
    guard: &AttemptGuard,
    transport: ReadyConnection,
) -> Result<Exchange, AttemptError> {
    let span = guard.span();
    let framing = upstream.validated.framing;
    match transport {
        ReadyConnection::H1(connection) => Ok(worker.with_scratch(|head| {
            let switch_to = upstream.is_upgrade.then_some(upgrade_request::PROTOCOL);
            let outgoing_head = OutgoingHead {
                request: upstream.request,
                validated: upstream.validated,
                downstream: upstream.downstream,
                span: span.as_ref(),
                via: upstream.via,
                switch_to,
            };
            outgoing_head.write(head);
            let method = upstream.request.method().clone();
            let max_head_bytes = upstream.max_head_bytes;
            Exchange::begin_h1(connection, head, method, framing, max_head_bytes, switch_to)
        })?),
        ReadyConnection::H2(permit) => {
            let connections = guard.connections();
            let (scheme, address) = (connections.scheme(), connections.target.address);
            let request = forward_h2::build_request(upstream, span.as_ref(), scheme, address);
            // HTTP/2 cannot express a request that the client should not have sent.
            let request = request.ok_or(AttemptError::Client(ClientBodyError::Aborted))?;
            Ok(Exchange::begin_h2(permit, request, framing.is_some())?)
        }
    }
}
