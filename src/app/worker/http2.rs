//! Serves HTTP/2 (RFC 9113): bounds on streams, on those that are reset, and on silence.

mod activity;

use std::rc::Rc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{Response, StatusCode};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep_until, timeout};

use crate::app::proxy::{self, Client, ProxyBody};
use crate::config::model::Limits;
use crate::net::gathered::{Gathered, Poured};

use self::activity::{Activity, Answering, Streams};
use super::Worker;
use super::accept::{LAST_LOOK, LATE_LOOK};
use super::crowd::{Guest, Order};
use super::opening::Opened;

/// Requests at once on one connection; Envoy's bound at the edge, as are both windows.
const STREAMS: u32 = 100;

/// What a client may send of one request body before it is read.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The same for all of a connection: sixteen stalled streams leave room for others.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// What is buffered of one answer.
const SEND_BYTES: usize = 64 * 1024;

/// Streams that a client resets before they were looked at, at once (CVE-2023-44487).
const RESET_UNSEEN: usize = 20;

/// Streams that a client makes us reset, in the life of a connection (CVE-2025-8671).
const RESET_BY_US: usize = 256;

/// After the last request on a connection that is to end: time for what is on its way. Some clients
/// never say that they have heard of it.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// GOAWAY is sent: the requests that came before it end.
    Leaving {
        since: Instant,
    },
}

/// With the bounds that are the same for everybody, and heads of `header_bytes` at most.
fn builder(streams: Streams, header_bytes: usize) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BYTES)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(RESET_BY_US)
        .enable_connect_protocol();
    builder
}

/// What the connection is told. Where HTTP/1.1 says in its next answer that it is the last, HTTP/2 has
/// GOAWAY for that at once.
async fn order(worker: &Worker, guest: &Guest) -> Order {
    tokio::select! {
        order = guest.told() => order,
        () = worker.leaving.cancelled() => Order::Leave,
    }
}

/// Serves until the client goes, is silent for too long, or is told to go.
pub(super) async fn serve(
    worker: Rc<Worker>,
    opened: Opened,
    guest: &Rc<Guest>,
    is_late: bool,
    limits: Limits,
) {
    let Opened { stream, client, since, .. } = opened;
    let Limits { header_timeout, idle_timeout, write_timeout, .. } = limits;
    let activity = Rc::new(Activity::new(Rc::clone(guest), write_timeout, since.into()));
    let peer = client.address;
    let streams = Streams::new(Rc::clone(&activity), worker.tasks.clone());
    let service = service_fn(|request| {
        let (asking, streams) = (Rc::clone(&client), streams.clone());
        let stream = activity.begin();
        // hyper and the runtime hand the future on some times before it runs: its box only.
        Box::pin(proxy::handle(
            Rc::clone(&worker),
            Rc::clone(&client),
            request,
            move |mut response| {
                adapt(&mut response, &asking, &streams);
                response.map(|body| Answering::new(body, stream))
            },
        ))
    });
    let stream = Gathered::new(TokioIo::new(stream));
    let connection = builder(streams.clone(), limits.header_bytes)
        .serve_connection(TokioIo::new(stream.clone()), service);
    let connection = Poured::new(connection, stream);
    let mut connection = std::pin::pin!(connection);
    let mut phase = Phase::Serving;
    let mut look = activity.idle_until(header_timeout);
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            order = order(&worker, guest), if phase == Phase::Serving => {
                if order == Order::Leave {
                    // Told to go before its preface is read, hyper would drop it with all that it
                    // has sent.
                    let is_young = is_late || !activity.has_begun();
                    let last = if is_young { LATE_LOOK } else { LAST_LOOK };
                    if let Ok(ended) = timeout(last, connection.as_mut()).await {
                        break ended;
                    }
                }
                phase = Phase::Leaving { since: Instant::now() };
            }
            () = activity.abused() => {
                tracing::debug!(%peer, "connection cut: its client resets nearly all requests");
                return;
            }
            () = sleep_until(look) => {
                let idle = if activity.has_begun() { idle_timeout } else { header_timeout };
                let now = Instant::now();
                match phase {
                    Phase::Serving if activity.is_idle_for(idle, now) => {
                        phase = Phase::Leaving { since: now };
                    }
                    Phase::Leaving { since }
                        if now >= since + FAREWELL && activity.is_idle_for(FAREWELL, now) => return,
                    Phase::Serving | Phase::Leaving { .. } => {}
                }
            }
        }
        look = match phase {
            Phase::Serving if activity.has_begun() => activity.idle_until(idle_timeout),
            Phase::Serving => activity.idle_until(header_timeout),
            Phase::Leaving { .. } => {
                connection.as_mut().writer().graceful_shutdown();
                activity.idle_until(FAREWELL).max(Instant::now() + FAREWELL)
            }
        };
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "client connection ended early");
    }
}

/// Says an answer as HTTP/2 says it.
fn adapt(response: &mut Response<ProxyBody>, client: &Client, streams: &Streams) {
    // Streams end by themselves; a connection that is to be closed says so by GOAWAY.
    response.headers_mut().remove(CONNECTION);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        proxy::connected(response);
        if let Some(tunnel) = client.sequel.take() {
            streams.carry(tunnel);
        }
    }
}
