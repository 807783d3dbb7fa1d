//! Serves HTTP/2 (RFC 9113): bounds on streams, on those that are reset, and on silence.

mod activity;

use std::rc::Rc;
use std::time::Duration;

use http::header::CONNECTION;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, sleep_until, timeout};

use crate::app::proxy;
use crate::config::model::Limits;

use self::activity::{Activity, Answering, Streams};
use super::Worker;
use super::accept::{LAST_LOOK, LATE_LOOK};
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

/// A connection without requests is closed after this long. HTTP/1.1 has the header timeout for
/// that; but whoever speaks HTTP/2 means to keep its one connection.
const IDLE: Duration = Duration::from_secs(300);

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

/// Serves until the client goes, is silent for too long, or the worker drains.
pub(super) async fn serve(worker: Rc<Worker>, opened: Opened, is_late: bool, limits: Limits) {
    let Opened { stream, client, .. } = opened;
    let activity = Rc::new(Activity::new(limits.write_timeout));
    let peer = client.address;
    let service = service_fn(|request| {
        let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
        let stream = activity.begin();
        proxy::handle(worker, client, request, move |mut response| {
            // Streams end by themselves; a connection that is to be closed says so by GOAWAY.
            response.headers_mut().remove(CONNECTION);
            response.map(|body| Answering::new(body, stream))
        })
    });
    let streams = Streams::new(Rc::clone(&activity), worker.tasks.clone());
    let connection = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BYTES)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(RESET_BY_US)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    let mut phase = Phase::Serving;
    let mut look = Instant::now() + limits.header_timeout;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = worker.leaving.cancelled(), if phase == Phase::Serving => {
                // Told to go before its preface is read, hyper would drop it with all that it has sent.
                let is_young = is_late || !activity.has_begun();
                let last = if is_young { LATE_LOOK } else { LAST_LOOK };
                if let Ok(ended) = timeout(last, connection.as_mut()).await {
                    break ended;
                }
                phase = Phase::Leaving { since: Instant::now() };
            }
            () = activity.abused() => {
                tracing::debug!(%peer, "connection cut: its client resets nearly all requests");
                return;
            }
            () = sleep_until(look) => {
                let idle = if activity.has_begun() { IDLE } else { limits.header_timeout };
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
            Phase::Serving if activity.has_begun() => activity.idle_until(IDLE),
            Phase::Serving => activity.idle_until(limits.header_timeout),
            Phase::Leaving { .. } => {
                connection.as_mut().graceful_shutdown();
                activity.idle_until(FAREWELL).max(Instant::now() + FAREWELL)
            }
        };
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "client connection ended early");
    }
}
