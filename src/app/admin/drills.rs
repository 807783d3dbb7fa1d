//! `/api/v1/drills`: what there was, and the only thing that can be asked for by more than a GET.
//!
//! Nobody but this machine reaches the listener, which is on loopback. A page in a browser on it may
//! still send requests: so a write names its host by an address, comes from no other origin, and says
//! that it is JSON, which no page can do elsewhere without being asked first (and nobody answers that).

use std::time::{Duration, Instant};

use http::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue, LOCATION, ORIGIN};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{Answer, is_local_host, json, text, typed};
use crate::app::control::{Board, Phase};
use crate::app::drill::json::DrillJson;
use crate::app::drill::{self, Asked, Refusal};

/// Where they are.
pub(super) const ROOT: &str = "/api/v1/drills";

/// A drill is asked for in this many bytes at most.
const ASKED_BYTES: usize = 16 * 1024;

/// And within this time.
const ASKED_WITHIN: Duration = Duration::from_secs(5);

/// Whether it is to change anything here.
pub(super) fn is_write<B>(request: &Request<B>) -> bool {
    let is_read = *request.method() == Method::GET || *request.method() == Method::HEAD;
    !is_read && request.uri().path().starts_with(ROOT)
}

/// The number in the path behind the root, and what follows it.
fn id_in(path: &str) -> Option<(u64, &str)> {
    let rest = path.strip_prefix(ROOT)?.strip_prefix('/')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (id, rest) = rest.split_at(digits);
    Some((id.parse().ok()?, rest))
}

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
    let Some((id, rest)) = id_in(path) else {
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
    if !is_local_host(&request) {
        return text(StatusCode::FORBIDDEN, "the Host header must be an address or localhost\n");
    }
    if !is_same_origin(&request) {
        return text(StatusCode::FORBIDDEN, "not from another page\n");
    }
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    match (method, id_in(&path)) {
        (Method::POST, None) if path == ROOT => {
            let kind = request.headers().get(CONTENT_TYPE);
            if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
                return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/json\n");
            }
            let body = Limited::new(request.into_body(), ASKED_BYTES).collect();
            match timeout(ASKED_WITHIN, body).await {
                Ok(Ok(body)) => start(board, &body.to_bytes()),
                _ => text(StatusCode::BAD_REQUEST, "the request's body did not come\n"),
            }
        }
        (Method::DELETE, Some((id, ""))) => stop(board, id),
        _ => {
            let mut refusal =
                text(StatusCode::METHOD_NOT_ALLOWED, "GET, POST to begin, DELETE to stop\n");
            refusal
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, DELETE"));
            refusal
        }
    }
}

/// Browsers say where a page is from that writes.
fn is_same_origin<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    request.headers().get(ORIGIN).is_none_or(|origin| {
        origin.as_bytes().strip_prefix(b"http://").is_some_and(|origin| origin == host)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_others_cannot_write() {
        let from = |origin: Option<&str>| {
            let mut request = Request::builder().header(HOST, "127.0.0.1:9900");
            if let Some(origin) = origin {
                request = request.header(ORIGIN, origin);
            }
            is_same_origin(&request.body(()).expect("a request"))
        };
        assert!(from(None) && from(Some("http://127.0.0.1:9900")));
        assert!(!from(Some("http://evil.example")) && !from(Some("null")));
    }

    #[test]
    fn drills_are_named_by_numbers() {
        assert_eq!(id_in("/api/v1/drills/12"), Some((12, "")));
        assert_eq!(id_in("/api/v1/drills/12.html"), Some((12, ".html")));
        assert_eq!(id_in("/api/v1/drills"), None);
        assert_eq!(id_in("/api/v1/drills/x"), None);
    }
}
