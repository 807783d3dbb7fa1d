//! Turns an endpoint's response into the client's.

use std::time::Instant;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::app::dataplane::worker::WorkerView;
use crate::logic::incident::client_failure::{ClientFailure, ClientFailureKind};
use crate::net::upstream::ReceivedBody;

use super::affinity::CookieContext;
use super::attempt_guard::AttemptGuard;
use super::body::ProxyBody;
use super::retry_loop::RetryLoop;
use super::started_response::{StartedResponse, UpstreamResponse};
use super::tunnel::TunnelSetup;
use super::upgrade_request::set_upgrade_headers;
use super::via::add_via;

const ENDPOINT_HEADER: HeaderName = HeaderName::from_static("x-gapless-endpoint");
const ATTEMPTS_HEADER: HeaderName = HeaderName::from_static("x-gapless-attempts");

pub(super) fn build_response(
    retry_loop: &mut RetryLoop<'_>,
    view: &WorkerView,
    received: UpstreamResponse,
    mut guard: AttemptGuard,
    is_repeatable: bool,
) -> Response<ProxyBody> {
    let UpstreamResponse { head, body: received } = received;
    let (pool, local) = view.pool(retry_loop.route);
    let elapsed = retry_loop.arrived.elapsed();
    local.meter.record_response(head.status.as_u16(), elapsed);
    let (shared, route) = (&retry_loop.worker.shared, retry_loop.route);
    let route_meter = local.record_slo(shared, route, &pool.spec, head.status.as_u16(), elapsed);
    if retry_loop.route.spec.retry.statuses.contains(head.status.as_u16()) {
        guard.on_client_failure(ClientFailure { kind: ClientFailureKind::Status, is_repeatable });
    } else if let Some(failed_connections) = &retry_loop.first_failed
        && !head.status.is_server_error()
    {
        failed_connections.target.stats.record_rescue(elapsed > pool.spec.late_after);
        local.meter.record_rescue();
    }
    let mut headers = head.headers;
    set_affinity_cookie(retry_loop, view, &guard, head.status, &mut headers);
    let address = guard.connections().target.address;
    let body = match received {
        ReceivedBody::Complete(bytes) => ProxyBody::whole(bytes),
        ReceivedBody::Streaming(source) => {
            guard.hold_pool_permit(retry_loop.pool_permit.take());
            guard.set_route_meter(route_meter);
            ProxyBody::Stream { source, guard }
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = headers;
    add_via(response.headers_mut(), &view.http_policy.headers.via_pseudonym);
    if view.http_policy.headers.should_expose {
        if let Ok(value) = HeaderValue::try_from(address.to_string()) {
            response.headers_mut().insert(ENDPOINT_HEADER, value);
        }
        response
            .headers_mut()
            .insert(ATTEMPTS_HEADER, HeaderValue::from(retry_loop.plan.attempts()));
    }
    response
}

/// The 101 of an endpoint, with the tunnel that the client's connection then runs.
pub(super) fn upgrade_response(
    retry_loop: &mut RetryLoop<'_>,
    view: &WorkerView,
    started: StartedResponse,
    mut guard: AttemptGuard,
) -> Response<ProxyBody> {
    let (pool, local) = view.pool(retry_loop.route);
    let (mut head, endpoint, abort_epoch) = started.into_tunnel();
    set_affinity_cookie(retry_loop, view, &guard, head.status, &mut head.headers);
    let elapsed = retry_loop.arrived.elapsed();
    local.meter.record_response(head.status.as_u16(), elapsed);
    let (shared, route) = (&retry_loop.worker.shared, retry_loop.route);
    let _ = local.record_slo(shared, route, &pool.spec, head.status.as_u16(), elapsed);
    guard.on_complete();
    guard.hold_pool_permit(retry_loop.pool_permit.take());
    if let Some((upgrade, endpoint)) = retry_loop.downstream.take_upgrade().zip(endpoint) {
        let record = retry_loop.downstream.record.cloned();
        let idle = retry_loop.route.spec.timeouts.tunnel;
        let setup = TunnelSetup { upgrade, endpoint, guard, abort_epoch, idle, record };
        retry_loop.downstream.client.pending_tunnel.set(setup.run());
    }
    let mut response = Response::new(ProxyBody::whole(bytes::Bytes::new()));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    set_upgrade_headers(response.headers_mut());
    add_via(response.headers_mut(), &view.http_policy.headers.via_pseudonym);
    response
}

/// Sets the affinity cookie for the endpoint that responded, if it must change.
fn set_affinity_cookie(
    retry_loop: &RetryLoop<'_>,
    view: &WorkerView,
    guard: &AttemptGuard,
    status: StatusCode,
    headers: &mut HeaderMap,
) {
    if let Some(affinity) = &retry_loop.affinity {
        let (pool, local) = view.pool(retry_loop.route);
        let context = CookieContext {
            pool,
            meter: &local.meter,
            status,
            is_tls: retry_loop.downstream.origin.scheme == "https",
            is_tagged: view.tag().is_some(),
            now_us: retry_loop.worker.shared.micros(Instant::now()),
        };
        affinity.set_cookie(&context, guard, headers);
    }
}
