//! `/api/v1/orders`: lists, gives and lifts operators' orders.

use std::time::{Duration, Instant};

use http::header::{HeaderValue, LOCATION};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{AdminHttpResponse, json_response, text_response, write_request};
use crate::app::control::admin_state::{AdminState, LifecyclePhase};
use crate::app::control::orders::{
    GrantedJson, OrderJson, OrderRequestBody, granted_text, order_line, order_store,
};
use crate::logic::director::{AppliedCommand, CommandError};

pub(super) const ORDERS_PATH: &str = "/api/v1/orders";

/// Time for the order to reach the disk. It is already in force.
const SAVE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn orders_get_response(
    admin_state: &AdminState,
    path: &str,
    query: &str,
) -> AdminHttpResponse {
    let (director, now) = (admin_state.director(), Instant::now());
    let orders = director.orders();
    let is_text = is_text_requested(query);
    if path == ORDERS_PATH {
        if is_text {
            let lines =
                orders.iter().map(|order| order_line(order, &admin_state.clock, now) + "\n");
            let lines: String = lines.collect();
            let none = "no orders: nothing is drained, and weights are as declared\n";
            return text_response(StatusCode::OK, if lines.is_empty() { none } else { &lines });
        }
        let all: Vec<_> =
            orders.iter().map(|order| OrderJson::new(order, &admin_state.clock, now)).collect();
        let durable = admin_state.order_store.is_durable();
        return json_response(&serde_json::json!({ "orders": all, "durable": durable }));
    }
    match write_request::id_in_path(path, ORDERS_PATH) {
        Some((id, "")) => match orders.find(id) {
            Some(order) if is_text => {
                text_response(StatusCode::OK, &(order_line(order, &admin_state.clock, now) + "\n"))
            }
            Some(order) => json_response(&OrderJson::new(order, &admin_state.clock, now)),
            None => text_response(StatusCode::NOT_FOUND, &format!("there is no order {id}\n")),
        },
        _ => text_response(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn is_text_requested(query: &str) -> bool {
    query.split('&').any(|part| part == "format=text")
}

/// Gives or lifts an order.
pub(super) async fn orders_write_response(
    admin_state: &AdminState,
    request: Request<Incoming>,
) -> AdminHttpResponse {
    let path = request.uri().path().to_owned();
    let is_text = is_text_requested(request.uri().query().unwrap_or_default());
    let method = request.method().clone();
    let granted = match (method, write_request::id_in_path(&path, ORDERS_PATH)) {
        (Method::POST, None) if path == ORDERS_PATH => {
            let body = match write_request::read_body(request).await {
                Ok(body) => body,
                Err(refusal) => return refusal,
            };
            let request = serde_json::from_slice(&body).map_err(|error| error.to_string());
            let now = Instant::now();
            match request.and_then(|body: OrderRequestBody| body.to_command(now)) {
                Ok(command) => apply_change(admin_state, |state| {
                    state.director_mut().execute_command(command, now)
                }),
                Err(why) => return text_response(StatusCode::BAD_REQUEST, &format!("{why}\n")),
            }
        }
        (Method::DELETE, Some((id, ""))) => apply_change(admin_state, |state| {
            let lifted = state.director_mut().lift_order(id, Instant::now())?;
            Ok(AppliedCommand { lifted: vec![lifted], ..AppliedCommand::default() })
        }),
        _ => return write_request::method_not_allowed("GET, POST to order, DELETE to lift\n"),
    };
    match granted {
        Ok(granted) => granted_response(admin_state, &granted, is_text).await,
        Err((status, why)) => text_response(status, &format!("{why}\n")),
    }
}

fn apply_change(
    admin_state: &AdminState,
    change: impl FnOnce(&AdminState) -> Result<AppliedCommand, CommandError>,
) -> Result<AppliedCommand, (StatusCode, String)> {
    if admin_state.phase.get() == LifecyclePhase::Stopping {
        return Err((StatusCode::CONFLICT, "the process is stopping".to_owned()));
    }
    if admin_state.is_handing_over.get() {
        let why = "another process is about to take over: repeat the request in a moment";
        return Err((StatusCode::CONFLICT, why.to_owned()));
    }
    let granted = change(admin_state).map_err(|error| {
        let status = match error {
            CommandError::UnknownTarget(_) => StatusCode::NOT_FOUND,
            CommandError::Invalid(_) => StatusCode::BAD_REQUEST,
            CommandError::InsufficientCapacity(_) => StatusCode::CONFLICT,
        };
        (status, error.to_string())
    });
    // Wakes the control loop, which takes the director's outputs; also after an error.
    admin_state.drill_wake.notify_one();
    granted
}

async fn granted_response(
    admin_state: &AdminState,
    granted: &AppliedCommand,
    is_text: bool,
) -> AdminHttpResponse {
    let stored = order_store::to_stored_orders(admin_state.director().orders(), &admin_state.clock);
    let durable = match admin_state.order_store.save(stored) {
        None => None,
        Some(done) => Some(timeout(SAVE_TIMEOUT, done).await == Ok(Ok(true))),
    };
    let now = Instant::now();
    let mut answer = if is_text {
        text_response(StatusCode::OK, &granted_text(granted, durable, &admin_state.clock, now))
    } else {
        json_response(&GrantedJson::new(granted, durable, &admin_state.clock, now))
    };
    if let Some(order) = &granted.order {
        *answer.status_mut() = StatusCode::CREATED;
        if let Ok(location) = HeaderValue::try_from(format!("{ORDERS_PATH}/{}", order.id)) {
            answer.headers_mut().insert(LOCATION, location);
        }
    }
    answer
}
