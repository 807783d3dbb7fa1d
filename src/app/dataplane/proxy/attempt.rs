//! One try at one endpoint.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::TRAILER;
use http::{Request, StatusCode, Version};
use tokio::time::sleep;

use crate::app::dataplane::worker::{PoolLocal, Worker};
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::limits::LimitExceeded;
use crate::logic::request::response_timeout::{AttemptTimeouts, ResponseTimeout, WaitLimit};
use crate::logic::request::retry::RequestExposure;
use crate::logic::routing::{HeaderMutations, RouteTimeouts};
use crate::net::h1::{Framing, ResponseHead};
use crate::net::trailers;
use crate::net::upstream::{
    AbortEpoch, Checkout, ClientBodyError, ConnectProgress, ConnectionPool, DownstreamAddresses,
    Exchange, ReadyConnection, ReceivedBody, RequestBody, ResponseBody, ResponseBodyError,
    UpstreamError, UpstreamTunnel,
};

use super::attempt_guard::AttemptGuard;
use super::downstream::Downstream;
use super::endpoint_selector::ConnectionSource;
use super::fault_injection;
use super::fault_injection::DrillEffect as DrillPart;
use super::interim_responses::InterimResponses;
use super::pending_response::PendingResponse;
use super::tunnel;
use super::validation::ValidatedRequest;
use super::{forward, forward_h2};

/// A response of known length up to this is passed on only when it is complete, so that one which
/// is cut can still be asked for elsewhere.
const MAX_BUFFERED_RESPONSE_BYTES: u64 = 64 * 1024;

/// What is asked, the same at every try.
pub(super) struct UpstreamRequest<'a> {
    pub(super) request: &'a Request<()>,
    pub(super) validated: &'a ValidatedRequest<'a>,
    pub(super) downstream: &'a Downstream<'a>,
    pub(super) via: &'a str,
    pub(super) timeouts: RouteTimeouts,
    /// Bytes of its body in a second, at least; zero is no bound.
    pub(super) body_rate: u64,
    pub(super) max_head_bytes: usize,
    /// Sending it twice does no harm.
    pub(super) is_idempotent: bool,
    /// It may be asked of two endpoints at once: it has no body, and its route allows it.
    pub(super) can_hedge: bool,
    /// The endpoint is asked to go on in another protocol.
    pub(super) is_upgrade: bool,
    /// Where interim answers to it go, if anybody wants them.
    pub(super) interim_responses: Option<&'a InterimResponses>,
    /// What its route changes of an answer's head.
    pub(super) response_headers: &'a HeaderMutations,
}

/// Why a try gave no response.
#[derive(Debug)]
pub(super) enum AttemptError {
    EndpointFailed {
        failure: Failure,
        reached: RequestExposure,
    },
    /// The endpoint's verdict turned down while its answer was awaited.
    Aborted {
        reached: RequestExposure,
    },
    Client(ClientBodyError),
    /// This process is out of something.
    LocalResources,
    /// A limit left no room for it for too long.
    LimitReached(LimitExceeded),
}

impl AttemptError {
    /// The endpoint's answer breaks the rules.
    pub(super) fn malformed() -> Self {
        let failure = Failure::http(FailureReason::Malformed);
        Self::EndpointFailed { failure, reached: RequestExposure::MaybeSent }
    }
}

impl From<UpstreamError> for AttemptError {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Endpoint { failure, reached } => {
                Self::EndpointFailed { failure, reached }
            }
            UpstreamError::Client(fault) => Self::Client(fault),
            UpstreamError::Local(_) => Self::LocalResources,
            UpstreamError::LimitReached(full) => Self::LimitReached(full),
        }
    }
}

/// An answer that has begun: its head, and the exchange that its body comes by.
pub(super) struct StartedResponse {
    pub(super) head: ResponseHead,
    pub(super) exchange: Exchange,
    pub(super) abort_epoch: AbortEpoch,
}

/// How far a try has come.
#[allow(clippy::large_enum_variant, reason = "what nearly every request gets is not boxed")]
pub(super) enum AttemptProgress {
    /// An answer has begun.
    ResponseStarted(StartedResponse),
    /// It has waited for so long that another endpoint may be asked beside it.
    Stalled(Box<PendingResponse>),
}

/// Tries once: connects (or reuses) within `connect_timeout`, sends, and waits for the head.
pub(super) async fn attempt(
    worker: &Worker,
    local: &PoolLocal,
    upstream: &UpstreamRequest<'_>,
    outgoing: &mut RequestBody,
    guard: &AttemptGuard,
    (source, connect): (ConnectionSource, ConnectTimeout),
) -> Result<AttemptProgress, AttemptError> {
    let mut abort_epoch = guard.connections().abort_epoch();
    let (source, drill_effect) = match &guard.connections().fault_injection {
        None => (source, DrillPart::None),
        Some(injection) => fault_injection::inject(
            worker,
            injection,
            upstream,
            guard.connections(),
            (source, &mut abort_epoch),
        )?,
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
            // It would make the future of every request large.
            let connecting = open_connection(
                (worker, guard.connections()),
                caller,
                abort_epoch,
                connect,
                source,
            );
            let opened = Box::pin(connecting).await;
            if matches!(opened, Err(AttemptError::LocalResources)) {
                worker.warn_rate_limited(
                    "no connection can be opened: out of descriptors, ports or memory",
                );
            }
            (opened?, Instant::now())
        }
    };
    let span = guard.span();
    let exchange = match transport {
        ReadyConnection::H1(connection) => worker.with_scratch(|head| {
            let switch_to = upstream.is_upgrade.then_some(tunnel::PROTOCOL);
            let downstream = (upstream.downstream, span.as_ref());
            forward::write_request_head(
                head,
                upstream.request,
                upstream.validated,
                downstream,
                upstream.via,
                switch_to,
            );
            let method = upstream.request.method().clone();
            let framing = upstream.validated.framing;
            let at_most = upstream.max_head_bytes;
            Exchange::begin_h1(connection, head, method, framing, at_most, switch_to)
        })?,
        ReadyConnection::H2(permit) => {
            let target = &guard.connections().target;
            let scheme = guard.connections().scheme();
            let request =
                forward_h2::build_request(upstream, span.as_ref(), scheme, target.address);
            // What HTTP/2 has no words for, no client should have said.
            let request = request.ok_or(AttemptError::Client(ClientBodyError::Aborted))?;
            Exchange::begin_h2(permit, request, upstream.validated.framing.is_some())?
        }
    };
    let mut response_timeout = ResponseTimeout::new(upstream.attempt_timeouts(local), ready_at);
    if exchange.is_sent() {
        response_timeout.on_request_sent(ready_at);
    }
    let is_repeatable = upstream.is_idempotent;
    let mut pending =
        PendingResponse { exchange, abort_epoch, response_timeout, is_repeatable, drill_effect };
    let wait_limit = match (guard.is_trial(), upstream.can_hedge) {
        (true, _) => WaitLimit::Slow,
        (false, true) => WaitLimit::Stalled,
        (false, false) => WaitLimit::Timeout,
    };
    match pending.wait_for_head(Some(upstream), outgoing, guard, wait_limit).await? {
        Some(head) => {
            Ok(AttemptProgress::ResponseStarted(pending.into_started(head, local, guard)))
        }
        None => Ok(AttemptProgress::Stalled(Box::new(pending))),
    }
}

/// How long a connection may take to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectTimeout {
    pub(super) timeout: Duration,
    /// What it is called when that is over.
    pub(super) reason: FailureReason,
}

impl UpstreamRequest<'_> {
    fn is_h2(&self) -> bool {
        self.request.version() == Version::HTTP_2
    }

    /// Whether the client can take what follows a body.
    fn can_receive_trailers(&self) -> bool {
        self.is_h2() || trailers::has_te_trailers(self.request.headers())
    }

    fn attempt_timeouts(&self, local: &PoolLocal) -> AttemptTimeouts {
        let latency = local.latency.borrow();
        let (stall, slow) = (latency.stall_bound(), latency.slow_bound());
        let RouteTimeouts { response, idle, .. } = self.timeouts;
        AttemptTimeouts { stall, slow, response, idle, body_rate: self.body_rate }
    }
}

/// Opens a connection, or waits until one is free or may be opened, and until there is a descriptor for
/// it; each takes the timeout of `connect` at most.
async fn open_connection(
    (worker, connections): (&Worker, &Rc<ConnectionPool>),
    caller: DownstreamAddresses,
    abort_epoch: AbortEpoch,
    connect: ConnectTimeout,
    source: ConnectionSource,
) -> Result<ReadyConnection, AttemptError> {
    let cut = || AttemptError::Aborted { reached: RequestExposure::NotSent };
    let free = match source {
        ConnectionSource::Immediate(free) => free,
        ConnectionSource::Queued { pending, full } => tokio::select! {
            biased;
            free = connections.wait_for_connection() => {
                drop(pending);
                free
            }
            () = connections.wait_for_abort(abort_epoch, true) => return Err(cut()),
            () = sleep(connect.timeout) => return Err(AttemptError::LimitReached(full)),
        },
    };
    connections.prepare().await?;
    if matches!(free, Checkout::New(_)) && !worker.shared.descriptors.has_capacity() {
        tokio::select! {
            () = worker.free_descriptor(connect.timeout) => {}
            () = connections.wait_for_abort(abort_epoch, true) => return Err(cut()),
        }
    }
    let connect_stage = ConnectProgress::default();
    tokio::select! {
        biased;
        opened = connections.acquire(free, caller, &connect_stage, connect.timeout) => Ok(opened?),
        () = connections.wait_for_abort(abort_epoch, true) => Err(cut()),
        () = sleep(connect.timeout) => {
            let failure = Failure { reason: connect.reason, ..connect_stage.timeout_failure() };
            Err(AttemptError::EndpointFailed { failure, reached: RequestExposure::NotSent })
        }
    }
}

/// A body that is passed on only when it is complete.
pub(super) struct BufferingResponse {
    head: ResponseHead,
    body: Box<ResponseBody>,
    abort_epoch: AbortEpoch,
}

/// How much of an answer there is.
pub(super) enum BodyProgress {
    /// All that the client has to wait for.
    Ready(ResponseHead, ReceivedBody),
    Buffering(BufferingResponse),
}

impl StartedResponse {
    /// Whether the endpoint goes on in another protocol.
    pub(super) fn is_upgrade(&self) -> bool {
        self.head.status == StatusCode::SWITCHING_PROTOCOLS
    }

    /// The head, and the connection for that other protocol.
    pub(super) fn into_tunnel(self) -> (ResponseHead, Option<UpstreamTunnel>, AbortEpoch) {
        (self.head, self.exchange.into_tunnel(), self.abort_epoch)
    }

    /// Takes the body: all of it if it has arrived or may have to be asked for again, else as a
    /// stream.
    pub(super) fn receive_body(
        self,
        upstream: &UpstreamRequest<'_>,
        outgoing: &mut RequestBody,
        guard: &AttemptGuard,
    ) -> Result<BodyProgress, AttemptError> {
        let Self { mut head, exchange, abort_epoch } = self;
        if head.framing == Framing::Chunked && !upstream.can_receive_trailers() {
            head.headers.remove(TRAILER);
        }
        if exchange.has_complete_body(&head) {
            let whole = exchange.into_complete_body(&head, guard.connections());
            guard.on_complete();
            return Ok(BodyProgress::Ready(head, ReceivedBody::Complete(whole)));
        }
        let is_sent = exchange.is_sent();
        let rest = if is_sent { None } else { Some(outgoing.take_rest()) };
        let connections = Rc::clone(guard.connections());
        let idle = upstream.timeouts.idle;
        let mut body =
            ResponseBody::new(exchange, &head, rest, connections, idle, upstream.is_h2());
        if !is_sent {
            return Ok(BodyProgress::Ready(head, ReceivedBody::Streaming(body)));
        }
        if let Some(whole) = body.try_complete().map_err(body_error)? {
            guard.on_complete();
            return Ok(BodyProgress::Ready(head, ReceivedBody::Complete(whole)));
        }
        let is_small = body.remaining().is_some_and(|left| left <= MAX_BUFFERED_RESPONSE_BYTES);
        if is_small && upstream.is_idempotent && outgoing.is_replayable() {
            Ok(BodyProgress::Buffering(BufferingResponse { head, body, abort_epoch }))
        } else {
            Ok(BodyProgress::Ready(head, ReceivedBody::Streaming(body)))
        }
    }

    /// The request goes elsewhere, and nobody wants this answer.
    pub(super) fn discard(self, upstream: &UpstreamRequest<'_>, guard: &AttemptGuard) {
        let Self { head, exchange, .. } = self;
        // What is still being sent is ended by a reset.
        if exchange.is_sent() {
            let connections = Rc::clone(guard.connections());
            ResponseBody::new(exchange, &head, None, connections, upstream.timeouts.idle, false)
                .discard();
        }
    }
}

impl BufferingResponse {
    /// Waits for all of the body.
    pub(super) async fn complete(
        mut self,
        guard: &AttemptGuard,
    ) -> Result<(ResponseHead, ReceivedBody), AttemptError> {
        let whole: Result<Bytes, ResponseBodyError> = tokio::select! {
            biased;
            whole = self.body.collect() => whole,
            () = guard.connections().wait_for_abort(self.abort_epoch, true) => {
                return Err(AttemptError::Aborted { reached: RequestExposure::MaybeSent });
            }
        };
        let whole = whole.map_err(body_error)?;
        guard.on_complete();
        if self.body.has_trailers() {
            self.body.restore(whole);
            return Ok((self.head, ReceivedBody::Streaming(self.body)));
        }
        Ok((self.head, ReceivedBody::Complete(whole)))
    }
}

fn body_error(error: ResponseBodyError) -> AttemptError {
    match error {
        ResponseBodyError::Endpoint(reason) => AttemptError::EndpointFailed {
            failure: Failure::http(reason),
            reached: RequestExposure::MaybeSent,
        },
        ResponseBodyError::Client => AttemptError::Client(ClientBodyError::Aborted),
        ResponseBodyError::Drained => AttemptError::Aborted { reached: RequestExposure::MaybeSent },
    }
}
