//! The admin listener: health, readiness, metrics, state, drills and orders; and the status
//! listener, which serves a part of it for reading only.

pub mod access;
mod connections;
mod drills;
mod guard;
mod orders;
mod routes;
mod server;
mod write_request;

pub use routes::{ADMIN_ROUTES, AdminResource, AdminRoute};
pub use server::{OperatorListener, serve};

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::logic::overload::memory_pressure::MemoryPressureLevel;

use super::api::{EndpointJson, PoolApiJson};
use super::collectors::{DrillMetrics, OrderMetrics};
use super::explain::json::ZoneExplanationJson;
use super::explain::{self, ExplainReply, query};
use super::ledger;
use super::ledger::query::{IncidentFormat, IncidentQuery};
use super::metrics::{Collect, families};
use super::status::StatusJson;
use super::{event_log, metrics, whatif};
use crate::app::control::admin_state::{AdminState, LifecyclePhase};
use crate::app::control::discovery::json::found_by_text;

/// Time for an answer of the ledger, which waits for the disk.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(5);

type AdminHttpResponse = Response<Full<Bytes>>;

/// The response of the admin listener.
async fn admin_response(admin_state: &AdminState, request: Request<Incoming>) -> AdminHttpResponse {
    let checked = guard::check(&request, &admin_state.admin_access.borrow());
    if let Err(refusal) = checked {
        families::ADMIN_REFUSALS.with(&[refusal.as_str()]).increment(1);
        let mut response = text_response(refusal.status(), refusal.reason());
        if refusal.status() == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        return response;
    }
    if write_request::is_write_below(&request, drills::DRILLS_PATH) {
        drills::drills_write_response(admin_state, request).await
    } else if write_request::is_write_below(&request, orders::ORDERS_PATH) {
        orders::orders_write_response(admin_state, request).await
    } else {
        handle_read(admin_state, &request).await
    }
}

/// The response of the status listener, which changes nothing and has any host.
fn status_listener_response<B>(
    admin_state: &AdminState,
    request: &Request<B>,
) -> AdminHttpResponse {
    if let Some(refusal) = reject_write(request) {
        return refusal;
    }
    match routes::find_resource(request.uri().path()) {
        Some(AdminResource::Health) => text_response(StatusCode::OK, "ok\n"),
        Some(AdminResource::Readiness) => ready_response(admin_state),
        Some(AdminResource::Metrics) => metrics_response(admin_state),
        Some(AdminResource::Status) => status_response(admin_state, request.uri().query()),
        _ => text_response(StatusCode::NOT_FOUND, "not found; the admin listener has the rest\n"),
    }
}

/// The refusal of methods other than GET and HEAD.
fn reject_write<B>(request: &Request<B>) -> Option<AdminHttpResponse> {
    if *request.method() == Method::GET || *request.method() == Method::HEAD {
        return None;
    }
    let mut refusal = text_response(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(refusal)
}

async fn handle_read<B>(admin_state: &AdminState, request: &Request<B>) -> AdminHttpResponse {
    if let Some(refusal) = reject_write(request) {
        return refusal;
    }
    let (path, query) = (request.uri().path(), request.uri().query());
    let Some(resource) = routes::find_resource(path) else {
        return text_response(StatusCode::NOT_FOUND, "not found\n");
    };
    let query_text = query.unwrap_or_default();
    match resource {
        AdminResource::Health => text_response(StatusCode::OK, "ok\n"),
        AdminResource::Readiness => ready_response(admin_state),
        AdminResource::Metrics => metrics_response(admin_state),
        AdminResource::Pools => pools_response(admin_state),
        AdminResource::Zones => zones_response(admin_state),
        AdminResource::Endpoints => endpoints_response(admin_state),
        AdminResource::Explain => explain_response(admin_state, query_text),
        AdminResource::Incidents => incidents_response(admin_state, query, None).await,
        AdminResource::IncidentsCsv => {
            incidents_response(admin_state, query, Some(IncidentFormat::Csv)).await
        }
        AdminResource::WhatIf => what_if_response(admin_state, query_text).await,
        AdminResource::Slo => slo_response(admin_state, query).await,
        AdminResource::Discovery => {
            let discovery = admin_state.discovery.borrow();
            json_response(&discovery.to_json(&admin_state.clock, Instant::now()))
        }
        AdminResource::Config => json_response(&*admin_state.config.borrow()),
        AdminResource::Process => json_response(&*admin_state.process.borrow()),
        AdminResource::Status => status_response(admin_state, query),
        AdminResource::Orders => orders::orders_get_response(admin_state, path, query_text),
        AdminResource::Drills => drills::drills_get_response(admin_state, path, query_text),
    }
}

fn ready_response(admin_state: &AdminState) -> AdminHttpResponse {
    // After a takeover the successor serves, so clients need not go elsewhere.
    if admin_state.phase.get() == LifecyclePhase::Stopping
        && !admin_state.handed_over.is_cancelled()
    {
        return text_response(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    let unready = |reason: &str| text_response(StatusCode::SERVICE_UNAVAILABLE, reason);
    if !admin_state.director().is_routable() {
        return unready("no endpoint can be chosen\n");
    }
    if admin_state.director().is_probing_impaired() {
        return unready("blind: probes end without evidence because the process lacks resources\n");
    }
    let pressure = &admin_state.shared.pressure;
    if let Some(bound) =
        pressure.limit_bytes().filter(|_| pressure.level() >= MemoryPressureLevel::Shed)
    {
        let percent = pressure.used_bytes() as f64 / bound as f64 * 100.0;
        return unready(&format!("overloaded: {percent:.0} % of `limits.memory` are used\n"));
    }
    if let Some(lag) = admin_state.lag.recent_lag(Instant::now()) {
        let late_ms = event_log::millis(lag);
        return unready(&format!("control is late: it woke {late_ms:.0} ms too late just now\n"));
    }
    text_response(StatusCode::OK, "ready\n")
}

fn metrics_response(admin_state: &AdminState) -> AdminHttpResponse {
    let AdminState { order_store, discovery, drills, clock, shared, ledger, .. } = admin_state;
    let (discovery, drills) = (discovery.borrow(), drills.borrow());
    let director = admin_state.director();
    let orders = OrderMetrics { director: &director, order_store };
    let drills = DrillMetrics { drills: &drills, clock };
    let collectors: [&dyn Collect; _] = [
        metrics::registry(),
        &*director,
        &orders,
        &*discovery,
        &**shared,
        &drills,
        &shared.metrics,
        ledger,
        &event_log::LogMetrics,
        #[cfg(feature = "otlp")]
        &*shared.traces,
    ];
    let page = metrics::render(Instant::now(), &collectors);
    typed_response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page.into())
}

fn pools_response(admin_state: &AdminState) -> AdminHttpResponse {
    let pools: Vec<PoolApiJson> =
        admin_state.director().pools().iter().map(PoolApiJson::from).collect();
    json_response(&serde_json::json!({ "pools": pools }))
}

fn endpoints_response(admin_state: &AdminState) -> AdminHttpResponse {
    let now = Instant::now();
    let all = admin_state.director().endpoints();
    let endpoints: Vec<_> =
        all.iter().map(|status| EndpointJson::new(status, &admin_state.clock, now)).collect();
    json_response(&serde_json::json!({ "endpoints": endpoints }))
}

fn zones_response(admin_state: &AdminState) -> AdminHttpResponse {
    let now = Instant::now();
    let all = admin_state.director().zones(now);
    let zones: Vec<_> =
        all.iter().map(|zone| ZoneExplanationJson::new(zone, &admin_state.clock, now)).collect();
    json_response(&serde_json::json!({ "zones": zones }))
}

fn status_response(admin_state: &AdminState, query: Option<&str>) -> AdminHttpResponse {
    let status = StatusJson::from_admin_state(admin_state, Instant::now());
    match query {
        None | Some("" | "format=json") => json_response(&status),
        Some("format=text") => text_response(StatusCode::OK, &status.render_text()),
        Some(_) => {
            text_response(StatusCode::BAD_REQUEST, "the only key is `format`: json or text\n")
        }
    }
}

fn explain_response(admin_state: &AdminState, query: &str) -> AdminHttpResponse {
    let (director, discovery) = (admin_state.director(), admin_state.discovery.borrow());
    let found_by = |pool: &str, address| {
        discovery.names_of(pool, address).into_iter().map(found_by_text).collect()
    };
    match explain::answer((&director, &found_by), query, &admin_state.clock, Instant::now()) {
        ExplainReply::Text(page) => text_response(StatusCode::OK, &page),
        ExplainReply::Json(value) => json_response(&value),
        ExplainReply::BadQuery(why) => text_response(StatusCode::BAD_REQUEST, &format!("{why}\n")),
        ExplainReply::UnknownName(why) => text_response(StatusCode::NOT_FOUND, &format!("{why}\n")),
    }
}

async fn what_if_response(admin_state: &AdminState, query: &str) -> AdminHttpResponse {
    let query = match whatif::query::WhatIfQuery::parse(query) {
        Ok(query) => query,
        Err(why) => return text_response(StatusCode::BAD_REQUEST, &format!("{why}\n")),
    };
    let format = query.format;
    let pending = whatif::answer(&admin_state.director(), query);
    let answer = match pending {
        Ok(answer) => answer.await,
        Err(why) => return text_response(StatusCode::NOT_FOUND, &format!("{why}\n")),
    };
    let Ok((holds, page)) = answer else {
        return text_response(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the simulation could not be started\n",
        );
    };
    let content_type = match format {
        query::ExplainFormat::Json => "application/json",
        query::ExplainFormat::Text => "text/plain; charset=utf-8",
    };
    typed_response(
        if holds { StatusCode::OK } else { StatusCode::CONFLICT },
        content_type,
        page.into(),
    )
}

async fn incidents_response(
    admin_state: &AdminState,
    query: Option<&str>,
    format: Option<IncidentFormat>,
) -> AdminHttpResponse {
    let mut query = match IncidentQuery::parse(query.unwrap_or_default()) {
        Ok(query) => query,
        Err(why) => return text_response(StatusCode::BAD_REQUEST, &format!("{why}\n")),
    };
    query.format = format.unwrap_or(query.format);
    let open = admin_state.director_mut().open_incidents();
    ledger_response(admin_state.ledger.query_incidents(query, open)).await
}

async fn slo_response(admin_state: &AdminState, query: Option<&str>) -> AdminHttpResponse {
    let format = match query {
        None | Some("" | "format=json") => IncidentFormat::Json,
        Some("format=text") => IncidentFormat::Text,
        Some(_) => {
            return text_response(
                StatusCode::BAD_REQUEST,
                "the only key is `format`: json or text\n",
            );
        }
    };
    let open = admin_state.director_mut().open_incidents();
    ledger_response(admin_state.ledger.query_slo(format, open)).await
}

/// The response for the answer of the ledger thread.
async fn ledger_response(
    pending_reply: Option<oneshot::Receiver<ledger::LedgerReply>>,
) -> AdminHttpResponse {
    let reply = match pending_reply {
        Some(reply) => timeout(LEDGER_TIMEOUT, reply).await.ok().and_then(Result::ok),
        None => None,
    };
    match reply {
        Some(ledger::LedgerReply::Rendered(form, page)) => {
            let content_type = match form {
                IncidentFormat::Json => "application/json",
                IncidentFormat::Text => "text/plain; charset=utf-8",
                IncidentFormat::Csv => "text/csv; charset=utf-8",
            };
            typed_response(StatusCode::OK, content_type, page.into())
        }
        Some(ledger::LedgerReply::BadQuery(why)) => {
            text_response(StatusCode::BAD_REQUEST, &format!("{why}\n"))
        }
        Some(ledger::LedgerReply::UnknownName(why)) => {
            text_response(StatusCode::NOT_FOUND, &format!("{why}\n"))
        }
        None => text_response(StatusCode::SERVICE_UNAVAILABLE, "the ledger is busy\n"),
    }
}

fn json_response(value: &impl Serialize) -> AdminHttpResponse {
    match serde_json::to_vec_pretty(value) {
        Ok(body) => typed_response(StatusCode::OK, "application/json", body.into()),
        Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn text_response(status: StatusCode, body: &str) -> AdminHttpResponse {
    typed_response(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(body.as_bytes()))
}

fn typed_response(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
) -> AdminHttpResponse {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
