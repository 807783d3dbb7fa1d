//! `/api/v1/drills`: what there was, is, and is to be.

use std::time::Instant;

use http::header::{HeaderValue, LOCATION};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use super::{Answer, change, json, text, typed};
use crate::app::control::{Board, Phase};
use crate::app::drill::json::DrillJson;
use crate::app::drill::{self, Asked, Refusal};

/// Where they are.
pub(super) const ROOT: &str = "/api/v1/drills";

/// Answers a GET.
pub(super) fn read(board: &Board, path: &str, query: &str) -> Answer {
    let (drills, now) = (board.drills.borrow(), Instant::now());
    let shown = |run| DrillJson::new(run, &board.clock, now);
    let is_text = query.split('&').any(|part| part == "format=text");
    if path == ROOT {
        let all = drills.all().map(shown);
        if is_text {
            return text(StatusCode::OK, &all.map(|one| drill::short(&one)).collect::<String>());
        }
        let all: Vec<_> = all
            .map(|mut one| {
                one.samples.clear();
                one
            })
            .collect();
        return json(&serde_json::json!({ "drills": all }));
    }
    let Some((id, rest)) = change::id_in(path, ROOT) else {
        return text(StatusCode::NOT_FOUND, "not found\n");
    };
    let Some(run) = drills.find(id) else {
        return text(StatusCode::NOT_FOUND, &format!("there is no drill {id}\n"));
    };
    match rest {
        "" if is_text => text(StatusCode::OK, &drill::report(&shown(run))),
        "" => json(&shown(run)),
        ".html" => {
            let page = drill::page(&shown(run));
            typed(StatusCode::OK, "text/html; charset=utf-8", page.into())
        }
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// Answers what is to change something.
pub(super) async fn write(board: &Board, request: Request<Incoming>) -> Answer {
    if let Some(refusal) = change::stranger(&request) {
        return refusal;
    }
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    match (method, change::id_in(&path, ROOT)) {
        (Method::POST, None) if path == ROOT => match change::body(request).await {
            Ok(body) => start(board, &body),
            Err(refusal) => refusal,
        },
        (Method::DELETE, Some((id, ""))) => stop(board, id),
        _ => change::not_allowed("GET, POST to begin, DELETE to stop\n"),
    }
}

fn start(board: &Board, body: &[u8]) -> Answer {
    let asked = serde_json::from_slice(body).map_err(|error| error.to_string());
    let plan = match asked.and_then(|asked: Asked| asked.plan()) {
        Ok(plan) => plan,
        Err(why) => return text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
    };
    if board.phase.get() == Phase::Stopping {
        return text(StatusCode::CONFLICT, "the process is on its way out\n");
    }
    let now = Instant::now();
    let mut drills = board.drills.borrow_mut();
    match drills.start(plan, &mut board.director.borrow_mut(), now) {
        Ok(id) => {
            board.drill_wake.notify_one();
            let begun = drills.find(id).map(|run| DrillJson::new(run, &board.clock, now));
            let mut answer = json(&begun);
            *answer.status_mut() = StatusCode::CREATED;
            if let Ok(place) = HeaderValue::try_from(format!("{ROOT}/{id}")) {
                answer.headers_mut().insert(LOCATION, place);
            }
            answer
        }
        Err(Refusal::Senseless(why)) => text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
        Err(Refusal::NotNow(why)) => text(StatusCode::CONFLICT, &format!("{why}\n")),
    }
}

fn stop(board: &Board, id: u64) -> Answer {
    let now = Instant::now();
    let mut drills = board.drills.borrow_mut();
    match drills.running_mut().filter(|run| run.id == id) {
        Some(run) => {
            run.interrupt("it was stopped".to_owned(), now);
            board.drill_wake.notify_one();
            json(&DrillJson::new(run, &board.clock, now))
        }
        None => text(StatusCode::NOT_FOUND, &format!("drill {id} is not under way\n")),
    }
}
