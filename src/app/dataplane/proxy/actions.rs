//! Route actions: forward to a pool with fallback and mirror, redirect, or respond directly.

use std::rc::Rc;
use std::time::Instant;

use http::header::{CONTENT_TYPE, EXPECT, HeaderValue, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::{Request, Response};
use hyper::body::Incoming;

use crate::logic::routing::{
    CompiledRoute, DirectResponse, FallbackAction, PoolRoute, RedirectAction, RouteAction,
    RouteSpec,
};
use crate::net::upstream::{RequestBody, discard_request_body};

use super::body::ProxyBody;
use super::client::Client;
use super::forward_request::{ForwardError, forward_request};
use super::local_reply_reason::LocalReplyReason;
use super::mirror;
use super::rate_limit;
use super::request_context::RequestContext;
use super::retry_loop::PriorAttempts;

/// Executes the action of the request's route.
pub(super) async fn run_action(
    context: &RequestContext<'_>,
    rule: &CompiledRoute,
    body: Incoming,
) -> Response<ProxyBody> {
    if let Some(record) = context.downstream.record {
        record.set_route(&rule.spec);
    }
    let mut response = match &rule.spec.action {
        RouteAction::Pools(_) => forward_to_pool(context, rule, body).await,
        RouteAction::Redirect(redirect) => {
            discard_body(context.request, body);
            redirect_response(context, redirect)
        }
        RouteAction::Respond(fixed) => {
            discard_body(context.request, body);
            let mut response = Response::default();
            apply_fixed(&mut response, fixed);
            response
        }
    };
    finish_response(&rule.spec, context.downstream.client, &mut response);
    response
}

/// A client that waits for 100 Continue has sent no body yet, so there is nothing to discard.
pub(super) fn discard_body(request: &Request<()>, body: Incoming) {
    if !request.headers().contains_key(EXPECT) {
        discard_request_body(body);
    }
}

fn redirect_response(
    context: &RequestContext<'_>,
    redirect: &RedirectAction,
) -> Response<ProxyBody> {
    let RequestContext { downstream, request, validated, .. } = *context;
    let location = redirect.location(request.uri(), validated.host, downstream.client.scheme());
    let Ok(location) = HeaderValue::try_from(location) else {
        return LocalReplyReason::BadPath.response();
    };
    let mut response = Response::new(ProxyBody::default());
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(LOCATION, location);
    response
}

fn apply_fixed(response: &mut Response<ProxyBody>, fixed: &DirectResponse) {
    if let Some(status) = fixed.status {
        *response.status_mut() = status;
    }
    if !fixed.body.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, fixed.content_type.clone());
    }
    *response.body_mut() = ProxyBody::whole(fixed.body.clone());
}

/// Applies the route's header changes to a response of any origin.
fn finish_response(spec: &RouteSpec, client: &Client, response: &mut Response<ProxyBody>) {
    if !spec.response_headers.is_empty() {
        spec.response_headers.apply(response.headers_mut());
    }
    if let Some(hsts) = spec.hsts.as_ref().filter(|_| client.is_tls()) {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
}

async fn forward_to_pool(
    context: &RequestContext<'_>,
    rule: &CompiledRoute,
    body: Incoming,
) -> Response<ProxyBody> {
    let RequestContext { worker, view, request, validated, .. } = *context;
    let Some(route) = worker.with_rng(|rng| rule.pick_pool(rng)) else {
        discard_body(request, body);
        return LocalReplyReason::NoRoute.response();
    };
    let downstream = context.downstream;
    if let Some(record) = downstream.record {
        record.set_pool(route);
    }
    if downstream.is_upgrade_required() && !rule.spec.is_websocket_allowed {
        return LocalReplyReason::UpgradeRefused.response();
    }
    if let Some(refusal) = rate_limit::check_rate(worker, view, route, downstream) {
        discard_body(request, body);
        return refusal;
    }
    let spec = &*rule.spec;
    let max_body_bytes = spec.max_body_bytes.unwrap_or(u64::MAX);
    if validated.content_length.is_some_and(|length| length > max_body_bytes) {
        view.pool(route).1.meter.record_error(LocalReplyReason::BodyTooLarge);
        discard_body(request, body);
        return LocalReplyReason::BodyTooLarge.response();
    }
    let mirror = mirror::select_route(worker, rule);
    let is_body_needed = spec.retry.attempts > 1 || mirror.is_some() || rule.fallback.is_some();
    let max_buffer_bytes = if is_body_needed { spec.retry.max_buffer_bytes } else { 0 };
    let mut outgoing = RequestBody::new(body, max_buffer_bytes, max_body_bytes);
    if let Some(record) = downstream.record {
        outgoing.set_read_counter(record.read_bytes());
    }
    let result = forward_request(context, route, &mut outgoing, PriorAttempts::new()).await;
    if let Some(mirror) = mirror {
        mirror::send_copy(context, mirror, &outgoing);
    }
    match result {
        Ok(response) => response,
        Err(error) => handle_forward_error(context, rule, route, error, &mut outgoing).await,
    }
}

/// Answers a request that its pool could not: by the fallback pool or response, or with the error.
async fn handle_forward_error(
    context: &RequestContext<'_>,
    rule: &CompiledRoute,
    route: &PoolRoute,
    mut error: ForwardError,
    outgoing: &mut RequestBody,
) -> Response<ProxyBody> {
    let RequestContext { worker, view, request, .. } = *context;
    let is_endpoint_fault = error.reason.is_endpoint_fault();
    let local = view.pool(route).1;
    let (mut final_route, mut final_view) = (route, view);
    let latest_view;
    if let Some(fallback) =
        rule.fallback.as_ref().filter(|_| is_endpoint_fault && error.can_fall_back)
    {
        local.meter.record_fallback();
        // The newest state of the pool: the request's view may be old by now.
        latest_view = Some(worker.view())
            .filter(|new| new.has_pool(fallback))
            .unwrap_or_else(|| Rc::clone(view));
        let context = RequestContext { view: &latest_view, ..*context };
        outgoing.rewind();
        let prior = PriorAttempts { began: Instant::now(), ..error.prior };
        match Box::pin(forward_request(&context, fallback, outgoing, prior)).await {
            Ok(response) => return response,
            Err(fallback_error) => error = fallback_error,
        }
        (final_route, final_view) = (fallback, &latest_view);
    }
    if !request.headers().contains_key(EXPECT) {
        outgoing.discard_rest();
    }
    let mut response = error.reason.response();
    if let Some(FallbackAction::Respond(fixed)) =
        rule.spec.fallback.as_ref().filter(|_| is_endpoint_fault)
    {
        final_view.pool(final_route).1.meter.record_fallback();
        apply_fixed(&mut response, fixed);
    }
    error.record_client_failure(worker, final_view, final_route, response.status());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::routing::{HostMatch, PathMatch};

    #[test]
    fn hsts_is_sent_over_tls_only() {
        let (name, action) = ("a", RouteAction::to_pool("web"));
        let mut spec = RouteSpec::new(name, HostMatch::Any, PathMatch::default(), action);
        spec.hsts = Some(HeaderValue::from_static("max-age=60"));
        let address = ([127, 0, 0, 1], 1).into();
        let mut client = Client::new(address, address);
        let has_hsts = |client: &Client| {
            let mut response = Response::default();
            finish_response(&spec, client, &mut response);
            response.headers().contains_key(STRICT_TRANSPORT_SECURITY)
        };
        assert!(!has_hsts(&client));
        client.tls = Some(Box::default());
        assert!(has_hsts(&client));
    }
}
