//! Serves HTTP/1.1 (RFC 9112) to a client.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::time::timeout;

use crate::app::dataplane::proxy;
use crate::config::model::ServerLimits;

use super::client_connections::{
    ClientConnection, CloseReason, ConnectionCommand, DRAIN_GRACE, LATE_CONNECTION_DRAIN_GRACE,
};
use super::handshake::AcceptedConnection;
use super::state::Worker;
use super::tracked_stream::{TrackedBody, TrackedStream};

/// hyper's default limit of fields in a head. Any explicit value, even this one, makes hyper
/// initialise an array of that size for each request.
const HYPER_DEFAULT_MAX_HEADERS: usize = 100;

/// The settings for HTTP/1.1 clients.
pub(in crate::app) fn http1_builder(limits: &ServerLimits, keep_alive: bool) -> http1::Builder {
    let mut builder = http1::Builder::new();
    if limits.header_count != HYPER_DEFAULT_MAX_HEADERS {
        builder.max_headers(limits.header_count);
    }
    // [`ClientConnection`] enforces the header timeout. A timer for each request would cost more
    // than a periodic scan, and could not distinguish idle connections from slow heads.
    builder
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes)
        .keep_alive(keep_alive)
        // Avoids copies of bodies; the stream coalesces small writes.
        .writev(true);
    builder
}

pub(super) async fn serve(
    worker: &Rc<Worker>,
    accepted: AcceptedConnection,
    client_connection: &Rc<ClientConnection>,
    is_late: bool,
    limits: &ServerLimits,
) {
    let AcceptedConnection { stream, client, waiting_since, .. } = accepted;
    let peer = client.address;
    let service = service_fn(|request| {
        let service_worker = Rc::clone(worker);
        let active_request = client_connection.begin_request();
        proxy::handle(Rc::clone(worker), Rc::clone(&client), request, move |mut response| {
            // Without the header, a client might send its next request on a connection that closes.
            if service_worker.is_draining.get()
                && response.status() != StatusCode::SWITCHING_PROTOCOLS
            {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response.map(|body| TrackedBody::new(body, active_request))
        })
    });
    client_connection.start_timing(waiting_since);
    let stream = TrackedStream::new(
        stream,
        Arc::clone(client_connection.activity()),
        client.interim_responses.share(),
    );
    let connection =
        http1_builder(limits, !is_late).serve_connection(stream, service).with_upgrades();
    let mut connection = pin!(connection);
    let ended = loop {
        let command = tokio::select! {
            biased;
            ended = poll_fn(|cx| {
                let ended = connection.as_mut().poll(cx);
                client_connection.on_pending();
                ended
            }) => break ended,
            command = client_connection.next_command() => command,
        };
        match command {
            // hyper would still wait for the head whose time is up.
            ConnectionCommand::Close(CloseReason::HeaderTimeout) => return,
            ConnectionCommand::Close(_) => connection.as_mut().graceful_shutdown(),
            ConnectionCommand::Drain => {
                let grace = if is_late { LATE_CONNECTION_DRAIN_GRACE } else { DRAIN_GRACE };
                // Boxed: rarely needed, and it would make the future of every connection larger.
                match Box::pin(timeout(grace, connection.as_mut())).await {
                    Ok(ended) => break ended,
                    Err(_) => connection.as_mut().graceful_shutdown(),
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "client connection ended early");
    }
    client_connection.set_busy();
    if let Some(tunnel) = client.pending_tunnel.take() {
        tunnel.await;
    }
}
