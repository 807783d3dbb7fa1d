//! `/api/v1/orders`: what operators have ordered, and the way to do so.

use std::time::{Duration, Instant};

use http::header::{HeaderValue, LOCATION};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{Answer, change, json, text};
use crate::app::control::{Board, Phase};
use crate::app::orders::{Asked, GrantedJson, OrderJson, keeper, line, told};
use crate::logic::director::{Denied, Granted};

/// Where they are.
pub(super) const ROOT: &str = "/api/v1/orders";

/// A disk may be slow; the order holds already.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// Answers a GET.
pub(super) fn read(board: &Board, path: &str, query: &str) -> Answer {
    let (director, now) = (board.director.borrow(), Instant::now());
    let orders = director.orders();
    let is_text = is_text(query);
    if path == ROOT {
        if is_text {
            let lines = orders.iter().map(|order| line(order, &board.clock, now) + "\n");
            let lines: String = lines.collect();
            let none = "no orders: nothing is drained, and weights are as declared\n";
            return text(StatusCode::OK, if lines.is_empty() { none } else { &lines });
        }
        let all: Vec<_> =
            orders.iter().map(|order| OrderJson::new(order, &board.clock, now)).collect();
        let durable = board.keeper.is_durable();
        return json(&serde_json::json!({ "orders": all, "durable": durable }));
    }
    match change::id_in(path, ROOT) {
        Some((id, "")) => match orders.find(id) {
            Some(order) if is_text => {
                text(StatusCode::OK, &(line(order, &board.clock, now) + "\n"))
            }
            Some(order) => json(&OrderJson::new(order, &board.clock, now)),
            None => text(StatusCode::NOT_FOUND, &format!("there is no order {id}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn is_text(query: &str) -> bool {
    query.split('&').any(|part| part == "format=text")
}

/// Answers what is to change something.
pub(super) async fn write(board: &Board, request: Request<Incoming>) -> Answer {
    if let Some(refusal) = change::stranger(&request) {
        return refusal;
    }
    let path = request.uri().path().to_owned();
    let is_text = is_text(request.uri().query().unwrap_or_default());
    let method = request.method().clone();
    let granted = match (method, change::id_in(&path, ROOT)) {
        (Method::POST, None) if path == ROOT => {
            let body = match change::body(request).await {
                Ok(body) => body,
                Err(refusal) => return refusal,
            };
            let asked = serde_json::from_slice(&body).map_err(|error| error.to_string());
            let now = Instant::now();
            match asked.and_then(|asked: Asked| asked.wish(now)) {
                Ok(wish) => {
                    change_it(board, |board| board.director.borrow_mut().operate(wish, now))
                }
                Err(why) => return text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
            }
        }
        (Method::DELETE, Some((id, ""))) => change_it(board, |board| {
            let lifted = board.director.borrow_mut().lift(id, Instant::now())?;
            Ok(Granted { lifted: vec![lifted], ..Granted::default() })
        }),
        _ => return change::not_allowed("GET, POST to order, DELETE to take back\n"),
    };
    match granted {
        Ok(granted) => answer(board, &granted, is_text).await,
        Err((status, why)) => text(status, &format!("{why}\n")),
    }
}

fn change_it(
    board: &Board,
    change: impl FnOnce(&Board) -> Result<Granted, Denied>,
) -> Result<Granted, (StatusCode, String)> {
    if board.phase.get() == Phase::Stopping {
        return Err((StatusCode::CONFLICT, "the process is on its way out".to_owned()));
    }
    if board.is_succeeded.get() {
        let why = "another process is about to take over: ask again in a moment";
        return Err((StatusCode::CONFLICT, why.to_owned()));
    }
    let granted = change(board).map_err(|denied| {
        let status = match denied {
            Denied::Unknown(_) => StatusCode::NOT_FOUND,
            Denied::Senseless(_) => StatusCode::BAD_REQUEST,
            Denied::NoRoom(_) => StatusCode::CONFLICT,
        };
        (status, denied.to_string())
    });
    // Control obeys, also where nothing has come of it.
    board.drill_wake.notify_one();
    granted
}

async fn answer(board: &Board, granted: &Granted, is_text: bool) -> Answer {
    let kept = keeper::kept(board.director.borrow().orders(), &board.clock);
    let durable = match board.keeper.keep(kept) {
        None => None,
        Some(done) => Some(timeout(WRITTEN_WITHIN, done).await == Ok(Ok(true))),
    };
    let now = Instant::now();
    let mut answer = if is_text {
        text(StatusCode::OK, &told(granted, durable, &board.clock, now))
    } else {
        json(&GrantedJson::new(granted, durable, &board.clock, now))
    };
    if let Some(order) = &granted.order {
        *answer.status_mut() = StatusCode::CREATED;
        if let Ok(place) = HeaderValue::try_from(format!("{ROOT}/{}", order.id)) {
            answer.headers_mut().insert(LOCATION, place);
        }
    }
    answer
}
