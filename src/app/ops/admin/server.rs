//! Accepts and serves connections to the admin listener and to the status listener.

use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{CONNECTION, HeaderValue};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connections::{ConnectionPlace, ConnectionTable};
use super::{admin_response, status_listener_response};
use crate::app::control::admin_state::AdminState;
use crate::app::ops::metrics::families;
use crate::logic::model::server_tls::DEFAULT_HANDSHAKE_TIMEOUT;
use crate::logic::overload::descriptor_pool::{MAX_ADMIN_CONNECTIONS, MAX_STATUS_CONNECTIONS};

/// A connection is closed after this time, whatever its state.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(60);

/// Time for requests that are already sent, after another process has taken over.
const HANDOVER_GRACE: Duration = Duration::from_millis(500);

/// Time to the next attempt after a failed accept, which mostly lacks descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Time within which a request head must arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorListener {
    /// The admin API.
    Admin,
    /// Metrics, health and status, for reading only.
    Status,
}

impl OperatorListener {
    /// The word in metrics and logs.
    fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Status => "status",
        }
    }

    fn max_connections(self) -> usize {
        match self {
            Self::Admin => MAX_ADMIN_CONNECTIONS,
            Self::Status => MAX_STATUS_CONNECTIONS,
        }
    }
}

/// Serves until the control thread ends, or until another process has taken over.
pub async fn serve(listener: TcpListener, kind: OperatorListener, admin_state: Rc<AdminState>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, listener = kind.as_str(), "listener cannot be used");
            return;
        }
    };
    let table = ConnectionTable::new(kind.max_connections());
    loop {
        let accepted = tokio::select! {
            biased;
            () = admin_state.handed_over.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (place, was_displaced) = ConnectionPlace::open(&table);
                if was_displaced {
                    families::ADMIN_CONNECTIONS_DISPLACED.with(&[kind.as_str()]).increment(1);
                }
                let connection = serve_connection(stream, kind, place, Rc::clone(&admin_state));
                admin_state.admin_connections.spawn_local(connection);
            }
            Err(error) => {
                tracing::warn!(%error, listener = kind.as_str(), "accept failed");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

/// Serves one connection until it ends, is too old or is displaced.
async fn serve_connection(
    stream: TcpStream,
    kind: OperatorListener,
    place: ConnectionPlace,
    admin_state: Rc<AdminState>,
) {
    let tls = match kind {
        OperatorListener::Admin => admin_state.admin_access.borrow().tls.clone(),
        OperatorListener::Status => None,
    };
    let place = Rc::new(place);
    let serving = async {
        match tls {
            None => serve_stream(stream, kind, &place, admin_state).await,
            Some(config) => {
                if let Some(stream) = accept_tls(stream, config).await {
                    serve_stream(stream, kind, &place, admin_state).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = place.displaced.cancelled() => {}
        // A client that does not read must not hold its place for ever.
        _ = timeout(MAX_CONNECTION_AGE, serving) => {}
    }
}

async fn accept_tls(
    stream: TcpStream,
    config: Arc<ServerConfig>,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let accepting = TlsAcceptor::from(config).accept(stream);
    timeout(DEFAULT_HANDSHAKE_TIMEOUT, accepting).await.ok()?.ok()
}

async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    kind: OperatorListener,
    place: &Rc<ConnectionPlace>,
    admin_state: Rc<AdminState>,
) {
    let handed_over = admin_state.handed_over.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (admin_state, place) = (Rc::clone(&admin_state), Rc::clone(place));
        async move {
            let _busy = place.begin_request();
            let mut response = match kind {
                OperatorListener::Admin => admin_response(&admin_state, request).await,
                OperatorListener::Status => status_listener_response(&admin_state, &request),
            };
            if admin_state.handed_over.is_cancelled() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    serve_until_handover(pin!(connection), &handed_over).await;
}

/// Serves a connection to its end. After a takeover that is the end of its running request.
async fn serve_until_handover<T, S>(
    mut connection: Pin<&mut http1::Connection<TokioIo<T>, S>>,
    handed_over: &CancellationToken,
) where
    T: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible>,
{
    tokio::select! {
        _ = connection.as_mut() => return,
        () = handed_over.cancelled() => {}
    }
    // Closing at once would fail a request that the client has just sent.
    if timeout(HANDOVER_GRACE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}
