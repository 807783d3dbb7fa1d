//! `/api/v1/drills`: lists, starts and stops drills.

use std::time::Instant;

use http::header::{HeaderValue, LOCATION};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use super::{AdminHttpResponse, json_response, text_response, typed_response, write_request};
use crate::app::control::admin_state::{AdminState, LifecyclePhase};
use crate::app::ops::drill;
use crate::app::ops::drill::json::DrillJson;
use crate::app::ops::drill::{DrillRefusal, DrillRequest};

pub(super) const DRILLS_PATH: &str = "/api/v1/drills";

pub(super) fn drills_get_response(
    admin_state: &AdminState,
    path: &str,
    query: &str,
) -> AdminHttpResponse {
    let (drills, now) = (admin_state.drills.borrow(), Instant::now());
    let shown = |run| DrillJson::new(run, &admin_state.clock, now);
    let is_text = query.split('&').any(|part| part == "format=text");
    if path == DRILLS_PATH {
        let all = drills.all_runs().map(shown);
        if is_text {
            return text_response(
                StatusCode::OK,
                &all.map(|one| drill::summary_line(&one)).collect::<String>(),
            );
        }
        let all: Vec<_> = all
            .map(|mut one| {
                one.samples.clear();
                one
            })
            .collect();
        return json_response(&serde_json::json!({ "drills": all }));
    }
    let Some((id, rest)) = write_request::id_in_path(path, DRILLS_PATH) else {
        return text_response(StatusCode::NOT_FOUND, "not found\n");
    };
    let Some(run) = drills.find(id) else {
        return text_response(StatusCode::NOT_FOUND, &format!("there is no drill {id}\n"));
    };
    match rest {
        "" if is_text => text_response(StatusCode::OK, &drill::render_report(&shown(run))),
        "" => json_response(&shown(run)),
        ".html" => {
            let page = drill::render_html(&shown(run));
            typed_response(StatusCode::OK, "text/html; charset=utf-8", page.into())
        }
        _ => text_response(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// Starts or stops a drill.
pub(super) async fn drills_write_response(
    admin_state: &AdminState,
    request: Request<Incoming>,
) -> AdminHttpResponse {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    match (method, write_request::id_in_path(&path, DRILLS_PATH)) {
        (Method::POST, None) if path == DRILLS_PATH => {
            match write_request::read_body(request).await {
                Ok(body) => start_drill(admin_state, &body),
                Err(refusal) => refusal,
            }
        }
        (Method::DELETE, Some((id, ""))) => stop_drill(admin_state, id),
        _ => write_request::method_not_allowed("GET, POST to start, DELETE to stop\n"),
    }
}

fn start_drill(admin_state: &AdminState, body: &[u8]) -> AdminHttpResponse {
    let request = serde_json::from_slice(body).map_err(|error| error.to_string());
    let plan = match request.and_then(|request: DrillRequest| request.to_plan()) {
        Ok(plan) => plan,
        Err(why) => return text_response(StatusCode::BAD_REQUEST, &format!("{why}\n")),
    };
    if admin_state.phase.get() == LifecyclePhase::Stopping {
        return text_response(StatusCode::CONFLICT, "the process is stopping\n");
    }
    let now = Instant::now();
    let mut drills = admin_state.drills.borrow_mut();
    match drills.start(plan, &mut admin_state.director_mut(), now) {
        Ok(id) => {
            admin_state.drill_wake.notify_one();
            let started =
                drills.find(id.get()).map(|run| DrillJson::new(run, &admin_state.clock, now));
            let mut answer = json_response(&started);
            *answer.status_mut() = StatusCode::CREATED;
            if let Ok(location) = HeaderValue::try_from(format!("{DRILLS_PATH}/{id}")) {
                answer.headers_mut().insert(LOCATION, location);
            }
            answer
        }
        Err(DrillRefusal::Invalid(why)) => {
            text_response(StatusCode::BAD_REQUEST, &format!("{why}\n"))
        }
        Err(DrillRefusal::Conflict(why)) => {
            text_response(StatusCode::CONFLICT, &format!("{why}\n"))
        }
    }
}

fn stop_drill(admin_state: &AdminState, id: u64) -> AdminHttpResponse {
    let now = Instant::now();
    let mut drills = admin_state.drills.borrow_mut();
    match drills.running_mut().filter(|run| run.id.get() == id) {
        Some(run) => {
            run.interrupt("it was stopped".to_owned(), now);
            admin_state.drill_wake.notify_one();
            json_response(&DrillJson::new(run, &admin_state.clock, now))
        }
        None => text_response(StatusCode::NOT_FOUND, &format!("drill {id} does not run\n")),
    }
}
