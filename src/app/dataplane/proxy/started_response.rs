//! A response whose head has arrived: its body is passed on whole, buffered or streamed.

use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;
use http::header::TRAILER;

use crate::logic::model::outcome::Failure;
use crate::logic::request::retry::RequestExposure;
use crate::net::h1::{Framing, ResponseHead};
use crate::net::upstream::{
    AbortEpoch, ClientBodyError, Exchange, ReceivedBody, RequestBody, ResponseBody,
    ResponseBodyError, UpstreamTunnel,
};

use super::attempt_error::AttemptError;
use super::attempt_guard::AttemptGuard;
use super::upstream_request::UpstreamRequest;

/// A repeatable request's response of known length up to this is passed on only when complete, so
/// that a truncated one can be requested again.
const MAX_BUFFERED_RESPONSE_BYTES: u64 = 64 * 1024;

/// The head of a response, and the exchange that its body arrives by.
pub(super) struct StartedResponse {
    pub(super) head: ResponseHead,
    pub(super) exchange: Exchange,
    pub(super) abort_epoch: AbortEpoch,
}

/// A response whose body is buffered until it is complete.
pub(super) struct BufferingResponse {
    head: ResponseHead,
    body: Box<ResponseBody>,
    abort_epoch: AbortEpoch,
}

/// A response that can be passed on to the client.
pub(super) struct UpstreamResponse {
    pub(super) head: ResponseHead,
    pub(super) body: ReceivedBody,
}

impl UpstreamResponse {
    fn complete(head: ResponseHead, body: Bytes) -> Self {
        Self { head, body: ReceivedBody::Complete(body) }
    }

    fn streaming(head: ResponseHead, body: Box<ResponseBody>) -> Self {
        Self { head, body: ReceivedBody::Streaming(body) }
    }
}

pub(super) enum BodyProgress {
    /// Everything that the client waits for has arrived.
    Ready(UpstreamResponse),
    Buffering(BufferingResponse),
}

impl StartedResponse {
    /// Whether the endpoint switches to another protocol.
    pub(super) fn is_upgrade(&self) -> bool {
        self.head.status == StatusCode::SWITCHING_PROTOCOLS
    }

    /// The head, and the connection in that other protocol.
    pub(super) fn into_tunnel(self) -> (ResponseHead, Option<UpstreamTunnel>, AbortEpoch) {
        (self.head, self.exchange.into_tunnel(), self.abort_epoch)
    }

    /// Takes the body: whole if it has arrived, buffered if it may have to be requested again,
    /// otherwise as a stream.
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
            let complete = exchange.into_complete_body(&head, guard.connections());
            guard.on_complete();
            return Ok(BodyProgress::Ready(UpstreamResponse::complete(head, complete)));
        }
        let is_sent = exchange.is_sent();
        let rest = if is_sent { None } else { Some(outgoing.take_rest()) };
        let connections = Rc::clone(guard.connections());
        let idle = upstream.timeouts.idle;
        let mut body =
            ResponseBody::new(exchange, &head, rest, connections, idle, upstream.is_h2());
        if !is_sent {
            return Ok(BodyProgress::Ready(UpstreamResponse::streaming(head, body)));
        }
        if let Some(complete) = body.try_complete().map_err(body_error)? {
            guard.on_complete();
            return Ok(BodyProgress::Ready(UpstreamResponse::complete(head, complete)));
        }
        let is_small =
            body.remaining().is_some_and(|remaining| remaining <= MAX_BUFFERED_RESPONSE_BYTES);
        if is_small && upstream.is_idempotent && outgoing.is_replayable() {
            Ok(BodyProgress::Buffering(BufferingResponse { head, body, abort_epoch }))
        } else {
            Ok(BodyProgress::Ready(UpstreamResponse::streaming(head, body)))
        }
    }

    /// Drops the response of a request that goes to another endpoint.
    pub(super) fn discard(self, upstream: &UpstreamRequest<'_>, guard: &AttemptGuard) {
        let Self { head, exchange, .. } = self;
        // A request body in transit is ended by a reset instead.
        if exchange.is_sent() {
            let connections = Rc::clone(guard.connections());
            ResponseBody::new(exchange, &head, None, connections, upstream.timeouts.idle, false)
                .discard();
        }
    }
}

impl BufferingResponse {
    /// Waits for the whole body.
    pub(super) async fn complete(
        mut self,
        guard: &AttemptGuard,
    ) -> Result<UpstreamResponse, AttemptError> {
        let complete: Result<Bytes, ResponseBodyError> = tokio::select! {
            biased;
            complete = self.body.collect() => complete,
            () = guard.connections().wait_for_abort(self.abort_epoch, true) => {
                return Err(AttemptError::Aborted { reached: RequestExposure::MaybeSent });
            }
        };
        let complete = complete.map_err(body_error)?;
        guard.on_complete();
        if self.body.has_trailers() {
            self.body.restore(complete);
            return Ok(UpstreamResponse::streaming(self.head, self.body));
        }
        Ok(UpstreamResponse::complete(self.head, complete))
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
