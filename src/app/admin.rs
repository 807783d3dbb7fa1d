//! The operator's listener: health, readiness, metrics, state, drills, and orders.

mod change;
mod drills;
mod orders;

use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::logic::descriptors::OPERATOR;
use crate::logic::pressure::Level;

use super::api::{EndpointJson, PoolJson};
use super::control::{Board, Phase};
use super::discovery::json::found_by;
use super::explain::json::ZoneJson;
use super::explain::{self, Reply, query};
use super::ledger;
use super::ledger::query::{Form, Query};
use super::status::Status;
use super::{gauges, observe, whatif};

/// A connection is closed after this long, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// After another process has taken over: time for a request that is on its way.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// A request head must be in by then.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The ledger may be held up by a disk.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(5);

type Answer = Response<Full<Bytes>>;

/// Serves until the control thread ends, or another process does it.
pub async fn serve(listener: TcpListener, board: Rc<Board>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "admin listener lost");
            return;
        }
    };
    let places = Arc::new(tokio::sync::Semaphore::new(OPERATOR));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            () = board.left.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let board = Rc::clone(&board);
                let (visits, left) = (board.visits.clone(), board.left.clone());
                visits.spawn_local(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let board = Rc::clone(&board);
                        async move {
                            let mut answer = if change::is_write(&request, drills::ROOT) {
                                drills::write(&board, request).await
                            } else if change::is_write(&request, orders::ROOT) {
                                orders::write(&board, request).await
                            } else {
                                answer(&board, &request).await
                            };
                            if board.left.is_cancelled() {
                                let close = HeaderValue::from_static("close");
                                answer.headers_mut().insert(CONNECTION, close);
                            }
                            Ok::<_, Infallible>(answer)
                        }
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADER_TIMEOUT)
                        .serve_connection(TokioIo::new(stream), service);
                    // One that does not read must not hold its place for ever.
                    let _ = timeout(CONNECTION_TIMEOUT, until_left(pin!(connection), &left)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves a connection to its end, which comes soon once another process serves the operator.
async fn until_left<S>(
    mut connection: Pin<&mut http1::Connection<TokioIo<TcpStream>, S>>,
    left: &CancellationToken,
) where
    S: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible>,
{
    tokio::select! {
        _ = connection.as_mut() => return,
        () = left.cancelled() => {}
    }
    // To close at once would hit whoever has just asked.
    if timeout(LAST_LOOK, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn answer<B>(board: &Board, request: &Request<B>) -> Answer {
    if !is_local_host(request) {
        return text(StatusCode::FORBIDDEN, "the Host header must be an address or localhost\n");
    }
    if *request.method() != Method::GET && *request.method() != Method::HEAD {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(board),
        "/metrics" => metrics(board),
        "/api/v1/pools" => pools(board),
        "/api/v1/zones" => zones(board),
        "/api/v1/endpoints" => endpoints(board),
        "/api/v1/explain" => explain(board, request.uri().query().unwrap_or_default()),
        "/api/v1/incidents" => incidents(board, request.uri().query(), None).await,
        "/api/v1/incidents.csv" => incidents(board, request.uri().query(), Some(Form::Csv)).await,
        "/api/v1/whatif" => what_if(board, request.uri().query().unwrap_or_default()).await,
        "/api/v1/slo" => slo(board, request.uri().query()).await,
        "/api/v1/discovery" => json(&board.discovery.borrow().json(&board.clock, Instant::now())),
        "/api/v1/config" => json(&*board.config.borrow()),
        "/api/v1/process" => json(&*board.process.borrow()),
        "/api/v1/status" => status(board, request.uri().query()),
        path if path.starts_with(orders::ROOT) => {
            orders::read(board, path, request.uri().query().unwrap_or_default())
        }
        path if path.starts_with(drills::ROOT) => {
            drills::read(board, path, request.uri().query().unwrap_or_default())
        }
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// A page in a browser cannot be made to read the admin API by a name that resolves to loopback.
fn is_local_host<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn ready(board: &Board) -> Answer {
    // Whoever has taken over serves: nobody is to go elsewhere because this process ends.
    if board.phase.get() == Phase::Stopping && !board.left.is_cancelled() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    let unready = |why: &str| text(StatusCode::SERVICE_UNAVAILABLE, why);
    if !board.director.borrow().is_routable() {
        return unready("no endpoint can be chosen\n");
    }
    if board.director.borrow().is_blind() {
        return unready("blind: probes end without evidence, this process lacks resources\n");
    }
    let pressure = &board.shared.pressure;
    if let Some(bound) = pressure.bound().filter(|_| pressure.level() >= Level::Shed) {
        let percent = pressure.used() as f64 / bound as f64 * 100.0;
        return unready(&format!("overloaded: {percent:.0} % of `limits.memory` are used\n"));
    }
    if let Some(lag) = board.lag.late(Instant::now()) {
        let late_ms = observe::millis(lag);
        return unready(&format!("control is late: it woke {late_ms:.0} ms too late just now\n"));
    }
    text(StatusCode::OK, "ready\n")
}

fn metrics(board: &Board) -> Answer {
    let mut page = observe::recorder().map(|recorder| recorder.render()).unwrap_or_default();
    page.push_str(&gauges::render(&board.director.borrow(), Instant::now()));
    page.push_str(&gauges::orders(&board.director.borrow(), &board.keeper));
    page.push_str(&board.discovery.borrow().gauges(Instant::now()));
    page.push_str(&gauges::load(&board.shared));
    page.push_str(&gauges::drills(&board.drills.borrow(), &board.clock, Instant::now()));
    page.push_str(&board.shared.meters.render());
    page.push_str(&gauges::ledger(&board.ledger));
    page.push_str(&board.ledger.metrics());
    let dropped = board.shared.reports_dropped.load(Relaxed);
    page.push_str(
        "# HELP gapless_reports_dropped_total Failures that control had no room to hear of.\n",
    );
    page.push_str("# TYPE gapless_reports_dropped_total counter\n");
    page.push_str(&format!("gapless_reports_dropped_total {dropped}\n"));
    page.push_str("# HELP gapless_log_lines_dropped_total Lines of the log that nobody took.\n");
    page.push_str("# TYPE gapless_log_lines_dropped_total counter\n");
    page.push_str(&format!("gapless_log_lines_dropped_total {}\n", observe::lost_lines()));
    page.push_str(
        "# HELP gapless_access_log_lines_dropped_total Lines of the access log that were lost.\n",
    );
    page.push_str("# TYPE gapless_access_log_lines_dropped_total counter\n");
    let dropped = board.shared.access.dropped();
    page.push_str(&format!("gapless_access_log_lines_dropped_total {dropped}\n"));
    #[cfg(feature = "otlp")]
    page.push_str(&board.shared.otlp.metrics());
    typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page.into())
}

fn pools(board: &Board) -> Answer {
    let pools: Vec<PoolJson> = board.director.borrow().pools().iter().map(PoolJson::from).collect();
    json(&serde_json::json!({ "pools": pools }))
}

fn endpoints(board: &Board) -> Answer {
    let now = Instant::now();
    let all = board.director.borrow().endpoints();
    let endpoints: Vec<_> =
        all.iter().map(|status| EndpointJson::new(status, &board.clock, now)).collect();
    json(&serde_json::json!({ "endpoints": endpoints }))
}

fn zones(board: &Board) -> Answer {
    let now = Instant::now();
    let all = board.director.borrow().zones(now);
    let zones: Vec<_> = all.iter().map(|zone| ZoneJson::new(zone, &board.clock, now)).collect();
    json(&serde_json::json!({ "zones": zones }))
}

fn status(board: &Board, query: Option<&str>) -> Answer {
    let status = Status::of(board, Instant::now());
    match query {
        None | Some("" | "format=json") => json(&status),
        Some("format=text") => text(StatusCode::OK, &status.text()),
        Some(_) => text(StatusCode::BAD_REQUEST, "the only key is `format`: json or text\n"),
    }
}

fn explain(board: &Board, query: &str) -> Answer {
    let (director, discovery) = (board.director.borrow(), board.discovery.borrow());
    let found_by =
        |pool: &str, address| discovery.names_of(pool, address).into_iter().map(found_by).collect();
    match explain::answer((&director, &found_by), query, &board.clock, Instant::now()) {
        Reply::Text(page) => text(StatusCode::OK, &page),
        Reply::Json(value) => json(&value),
        Reply::Senseless(why) => text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
        Reply::Unknown(why) => text(StatusCode::NOT_FOUND, &format!("{why}\n")),
    }
}

async fn what_if(board: &Board, query: &str) -> Answer {
    let query = match whatif::query::Query::parse(query) {
        Ok(query) => query,
        Err(why) => return text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
    };
    let form = query.form;
    let begun = whatif::answer(&board.director.borrow(), query);
    let answer = match begun {
        Ok(answer) => answer.await,
        Err(why) => return text(StatusCode::NOT_FOUND, &format!("{why}\n")),
    };
    let Ok((holds, page)) = answer else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "no answer could be made\n");
    };
    let content_type = match form {
        query::Form::Json => "application/json",
        query::Form::Text => "text/plain; charset=utf-8",
    };
    typed(if holds { StatusCode::OK } else { StatusCode::CONFLICT }, content_type, page.into())
}

async fn incidents(board: &Board, query: Option<&str>, form: Option<Form>) -> Answer {
    let mut query = match Query::parse(query.unwrap_or_default()) {
        Ok(query) => query,
        Err(why) => return text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
    };
    query.form = form.unwrap_or(query.form);
    let open = board.director.borrow_mut().open_incidents();
    told(board.ledger.ask(query, open)).await
}

async fn slo(board: &Board, query: Option<&str>) -> Answer {
    let form = match query {
        None | Some("" | "format=json") => Form::Json,
        Some("format=text") => Form::Text,
        Some(_) => {
            return text(StatusCode::BAD_REQUEST, "the only key is `format`: json or text\n");
        }
    };
    let open = board.director.borrow_mut().open_incidents();
    told(board.ledger.ask_slo(form, open)).await
}

/// What the thread of the ledger answers.
async fn told(asked: Option<oneshot::Receiver<ledger::Reply>>) -> Answer {
    let reply = match asked {
        Some(reply) => timeout(LEDGER_TIMEOUT, reply).await.ok().and_then(Result::ok),
        None => None,
    };
    match reply {
        Some(ledger::Reply::Page(form, page)) => {
            let content_type = match form {
                Form::Json => "application/json",
                Form::Text => "text/plain; charset=utf-8",
                Form::Csv => "text/csv; charset=utf-8",
            };
            typed(StatusCode::OK, content_type, page.into())
        }
        Some(ledger::Reply::Senseless(why)) => text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the ledger is busy\n"),
    }
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec_pretty(value) {
        Ok(body) => typed(StatusCode::OK, "application/json", body.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: &str) -> Answer {
    typed(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(body.as_bytes()))
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_hosts_of_the_operator() {
        let with = |host: &str| {
            is_local_host(&Request::builder().header(HOST, host).body(()).expect("request"))
        };
        assert!(
            with("localhost:9900")
                && with("127.0.0.1:9900")
                && with("[::1]:9900")
                && with("LOCALHOST")
        );
        assert!(
            !with("evil.example")
                && !with("")
                && !with("localhost.evil.example")
                && !with("[evil]")
        );
    }
}
