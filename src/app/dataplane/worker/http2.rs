//! Serves HTTP/2 (RFC 9113), with limits on streams, resets and idle time.

mod stream_tracker;

use std::rc::Rc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{Response, StatusCode};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep_until, timeout};

use crate::app::dataplane::proxy;
use crate::app::dataplane::proxy::{Client, ProxyBody};
use crate::config::model::ServerLimits;
use crate::net::write_coalescer::{FlushAfterPoll, WriteCoalescer};

use self::stream_tracker::{H2StreamBody, StreamExecutor, StreamTracker};
use super::client_connections::{
    ClientConnection, ConnectionCommand, DRAIN_GRACE, LATE_CONNECTION_DRAIN_GRACE,
};
use super::handshake::AcceptedConnection;
use super::state::Worker;

/// Limit of concurrent streams; Envoy's value for edge proxies, as are both windows.
const MAX_CONCURRENT_STREAMS: u32 = 100;

/// Bytes of one request body that a client may send ahead.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The same for a whole connection: sixteen stalled streams do not block the others.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Limit of buffered bytes of one response.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Limit of streams that the client has reset before they are accepted (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;

/// Limit of streams that the client makes this server reset, per connection (CVE-2025-8671).
const MAX_LOCAL_RESETS: usize = 256;

/// Time after the last request for data in flight. Some clients never react to GOAWAY.
const GOAWAY_GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum H2ConnectionPhase {
    Serving,
    /// GOAWAY is sent; requests that came before it finish.
    ShuttingDown {
        since: Instant,
    },
}

/// The fixed limits, and heads of at most `header_bytes`.
fn builder(streams: StreamExecutor, header_bytes: usize) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .enable_connect_protocol();
    builder
}

/// The next command. A drain applies at once: HTTP/1.1 announces the close in its next response,
/// HTTP/2 in a GOAWAY.
async fn next_command(worker: &Worker, client_connection: &ClientConnection) -> ConnectionCommand {
    tokio::select! {
        command = client_connection.next_command() => command,
        () = worker.drain_token.cancelled() => ConnectionCommand::Drain,
    }
}

/// Serves until the client disconnects, is idle for too long, or a command ends the connection.
pub(super) async fn serve(
    worker: Rc<Worker>,
    accepted: AcceptedConnection,
    client_connection: &Rc<ClientConnection>,
    is_late: bool,
    limits: ServerLimits,
) {
    let AcceptedConnection { stream, client, waiting_since: since, .. } = accepted;
    let ServerLimits { header_timeout, idle_timeout, write_timeout, .. } = limits;
    let tracker =
        Rc::new(StreamTracker::new(Rc::clone(client_connection), write_timeout, since.into()));
    let peer = client.address;
    let streams = StreamExecutor::new(Rc::clone(&tracker), worker.tasks.clone());
    let service = service_fn(|request| {
        let (response_client, streams) = (Rc::clone(&client), streams.clone());
        let stream = tracker.start_stream();
        // Boxed: hyper and the runtime move the future several times before it runs.
        Box::pin(proxy::handle(
            Rc::clone(&worker),
            Rc::clone(&client),
            request,
            move |mut response| {
                adapt_response(&mut response, &response_client, &streams);
                response.map(|body| H2StreamBody::new(body, stream))
            },
        ))
    });
    let stream = WriteCoalescer::new(TokioIo::new(stream));
    let connection = builder(streams.clone(), limits.header_bytes)
        .serve_connection(TokioIo::new(stream.clone()), service);
    let connection = FlushAfterPoll::new(connection, stream);
    let mut connection = std::pin::pin!(connection);
    let mut phase = H2ConnectionPhase::Serving;
    let mut next_check = tracker.idle_until(header_timeout);
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            command = next_command(&worker, client_connection), if phase == H2ConnectionPhase::Serving => {
                if command == ConnectionCommand::Drain {
                    // A shutdown before the preface is read would make hyper drop the requests that
                    // were sent with it.
                    let is_new = is_late || !tracker.has_started();
                    let grace = if is_new { LATE_CONNECTION_DRAIN_GRACE } else { DRAIN_GRACE };
                    if let Ok(ended) = timeout(grace, connection.as_mut()).await {
                        break ended;
                    }
                }
                phase = H2ConnectionPhase::ShuttingDown { since: Instant::now() };
            }
            () = tracker.wait_for_abuse() => {
                tracing::debug!(%peer, "connection cut: its client resets nearly all requests");
                return;
            }
            () = sleep_until(next_check) => {
                let idle = if tracker.has_started() { idle_timeout } else { header_timeout };
                let now = Instant::now();
                match phase {
                    H2ConnectionPhase::Serving if tracker.is_idle_for(idle, now) => {
                        phase = H2ConnectionPhase::ShuttingDown { since: now };
                    }
                    H2ConnectionPhase::ShuttingDown { since }
                        if now >= since + GOAWAY_GRACE && tracker.is_idle_for(GOAWAY_GRACE, now) => return,
                    H2ConnectionPhase::Serving | H2ConnectionPhase::ShuttingDown { .. } => {}
                }
            }
        }
        next_check = match phase {
            H2ConnectionPhase::Serving if tracker.has_started() => tracker.idle_until(idle_timeout),
            H2ConnectionPhase::Serving => tracker.idle_until(header_timeout),
            H2ConnectionPhase::ShuttingDown { .. } => {
                connection.as_mut().writer().graceful_shutdown();
                tracker.idle_until(GOAWAY_GRACE).max(Instant::now() + GOAWAY_GRACE)
            }
        };
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "client connection ended early");
    }
}

/// Turns a response into its HTTP/2 form.
fn adapt_response(response: &mut Response<ProxyBody>, client: &Client, streams: &StreamExecutor) {
    // HTTP/2 announces a close by GOAWAY instead.
    response.headers_mut().remove(CONNECTION);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        proxy::adapt_upgrade_for_h2(response);
        if let Some(tunnel) = client.pending_tunnel.take() {
            streams.spawn_tunnel(tunnel);
        }
    }
}
