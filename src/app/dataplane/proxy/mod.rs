//! The request path: validate, route, select an endpoint, attempt, and retry elsewhere.
//!
//! It reads one snapshot per attempt and takes no lock. It writes only its endpoint's counters and,
//! on failure, one message to control.

mod actions;
mod affinity;
mod attempt;
mod attempt_error;
mod attempt_guard;
mod body;
mod client;
mod client_origin;
mod connect;
mod downstream;
mod endpoint_selector;
mod failed_attempt;
mod fault_injection;
mod forward;
mod forward_h2;
mod forward_request;
mod forwarded_header;
#[cfg(any(test, fuzzing))]
pub mod fuzz_support;
mod grpc;
mod grpc_status;
mod hedge;
mod interim_responses;
mod local_reply;
mod local_reply_reason;
mod mirror;
mod mirror_limiter;
mod path_normalisation;
mod pending_response;
mod pending_tunnel;
mod rate_limit;
mod request_context;
mod request_ids;
mod request_rewrite;
mod response;
mod retry_loop;
mod started_response;
mod tunnel;
mod upgrade_request;
mod upstream_request;
mod validation;
mod via;

pub use body::ProxyBody;
pub use client::Client;
pub use interim_responses::InterimResponses;
pub use local_reply::REASON_HEADER;
pub use local_reply_reason::LocalReplyReason;
pub use mirror_limiter::MirrorLimiter;
pub use pending_tunnel::{PendingTunnel, TunnelFuture};
pub use request_ids::{IdGenerator, SpanId, TraceIds, TraceParent};
pub use upgrade_request::adapt_upgrade_for_h2;

use std::convert::Infallible;
use std::rc::Rc;

use http::header::{ALLOW, HeaderValue};
use http::{Request, Response};
use hyper::body::{Body, Incoming};

use crate::config::model::TraceSampling;
use crate::logic::overload::memory_pressure::MemoryPressureLevel;
use crate::logic::routing::RouteRequest;

use self::request_context::RequestContext;
use self::validation::ValidatedRequest;

use super::access::{AccessRecord, RecordedRequest};
use super::worker::{Worker, WorkerView};

use self::downstream::Downstream;

/// Serves one request and passes the response to `finish`. Every failure becomes a response.
///
/// Whatever needs no await runs before the future is made, and `finish` runs inside of it. The
/// future is then small and need not be wrapped in another one.
pub fn handle<R>(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
    finish: impl FnOnce(Response<ProxyBody>) -> R,
) -> impl Future<Output = Result<R, Infallible>> {
    let view = worker.view();
    let call = grpc::GrpcCall::from_request(request.version(), request.headers());
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts, ());
    let normalised = match worker.shared.pressure.level() {
        MemoryPressureLevel::Shed | MemoryPressureLevel::Stop => Err(worker.record_overload()),
        MemoryPressureLevel::Calm | MemoryPressureLevel::Shrink => {
            path_normalisation::normalise_request(&mut request, &view.http_policy)
        }
    };
    // `cfg!` lets the compiler remove the sampling code without the feature.
    let is_sampled = cfg!(feature = "otlp")
        && view.http_policy.headers.sampling.is_some_and(|sampling| {
            let draw = || worker.with_rng(|rng| rng.u32(..TraceSampling::MAX_MILLIONTHS));
            request_ids::is_sampled(sampling, request.headers(), draw)
        });
    let record = AccessRecord::begin(&worker.record_sink, &view.http_policy, &client, is_sampled);
    let upgrade =
        upgrade_request::extract_upgrade(&mut request, || worker.with_rng(|rng| rng.u128(..)));
    let recorded = RecordedRequest { request, record };
    async move {
        let downstream =
            Downstream::new(&view.http_policy, &worker.id_generator, &client, &recorded)
                .with_upgrade(upgrade);
        let mut response = match normalised {
            Ok(()) => respond(&worker, &view, &downstream, &recorded.request, body).await,
            Err(reason) => {
                actions::discard_body(&recorded.request, body);
                reason.response()
            }
        };
        // A client of HTTP/2 would take any successful response for an open tunnel (RFC 8441 5).
        if downstream.is_upgrade_required() && response.status().is_success() {
            response = LocalReplyReason::UpgradeRefused.response();
        }
        downstream.add_request_id(&mut response);
        let response = match call {
            None => response,
            Some(call) => call.adapt_response(response),
        };
        Ok(finish(match &recorded.record {
            None => response,
            Some(record) => body::record_response(record, recorded.request.method(), response),
        }))
    }
}

async fn respond(
    worker: &Rc<Worker>,
    view: &Rc<WorkerView>,
    downstream: &Downstream<'_>,
    request: &Request<()>,
    body: Incoming,
) -> Response<ProxyBody> {
    let limits = &view.http_policy.limits;
    let validated = validation::validate(request).and_then(|validated| {
        validated.validate_h2(request, !body.is_end_stream(), limits.header_count)
    });
    let validated = match validated {
        Ok(validated) => validated,
        Err(reason) => {
            actions::discard_body(request, body);
            return reason.response();
        }
    };
    if request.uri().path() == "*" {
        return options_response();
    }
    let route_input = RouteRequest {
        host: &validation::route_host(validated.host),
        path: request.uri().path(),
        method: request.method(),
        headers: request.headers(),
        query: request.uri().query().unwrap_or_default(),
        is_tls: downstream.client.is_tls(),
    };
    let Some(rule) = view.snapshot.routes.find(&route_input) else {
        actions::discard_body(request, body);
        return LocalReplyReason::NoRoute.response();
    };
    if !request_rewrite::is_needed(&rule.spec) {
        let context = RequestContext { worker, view, downstream, request, validated: &validated };
        return actions::run_action(&context, rule, body).await;
    }
    let ValidatedRequest { client_host, framing, content_length: length, .. } = validated;
    let client_host = client_host.to_owned();
    let mut rewritten = request_rewrite::clone_head(request);
    request_rewrite::apply(&mut rewritten, &rule.spec);
    let host = rule.spec.rewrite.host.as_deref().unwrap_or(&client_host);
    #[cfg(feature = "otlp")]
    if let Some(record) = downstream.record {
        record.set_rewritten_target(rewritten.uri(), host);
    }
    let validated =
        &ValidatedRequest { host, client_host: &client_host, framing, content_length: length };
    let context = RequestContext { worker, view, downstream, request: &rewritten, validated };
    actions::run_action(&context, rule, body).await
}

/// `OPTIONS *` applies to the proxy itself (RFC 9110 9.3.7).
fn options_response() -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::whole(bytes::Bytes::new()));
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    response.headers_mut().insert(ALLOW, methods);
    response
}
