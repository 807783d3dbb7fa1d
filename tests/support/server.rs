//! Servers on their own thread for TLS, HTTP/2 and gRPC, which the plain endpoint does not speak.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// A cleartext or TLS stream.
pub(crate) trait ConnectionIo: AsyncRead + AsyncWrite + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + 'static> ConnectionIo for T {}

type ServeFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Handles one connection; called on the server's thread.
pub(crate) type ConnectionHandler = Arc<dyn Fn(Box<dyn ConnectionIo>) -> ServeFuture + Send + Sync>;

/// A server; ends when dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    pub(crate) fn start_cleartext(serve: ConnectionHandler) -> Self {
        Self::start(None, serve)
    }

    pub(crate) fn start_tls(config: Arc<ServerConfig>, serve: ConnectionHandler) -> Self {
        Self::start(Some(config.into()), serve)
    }

    fn start(tls: Option<TlsAcceptor>, serve: ConnectionHandler) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = listener.local_addr().expect("bound");
        let accepted = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel();
        let open = Arc::new(AtomicUsize::new(0));
        let (count, opened) = (Arc::clone(&accepted), Arc::clone(&open));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let accepting = async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    count.fetch_add(1, SeqCst);
                    opened.fetch_add(1, SeqCst);
                    let (tls, serve) = (tls.clone(), Arc::clone(&serve));
                    let opened = Arc::clone(&opened);
                    tokio::task::spawn_local(async move {
                        serve_connection(stream, tls, serve).await;
                        opened.fetch_sub(1, SeqCst);
                    });
                }
            };
            tokio::task::LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    () = accepting => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, accepted, open, stop: Some(stop), thread: Some(thread) }
    }

    /// Connections accepted so far.
    pub(crate) fn accepted_count(&self) -> usize {
        self.accepted.load(SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn open_connection_count(&self) -> usize {
        self.open.load(SeqCst)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve_connection(stream: TcpStream, tls: Option<TlsAcceptor>, serve: ConnectionHandler) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve(Box::new(stream)).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(Box::new(stream)).await;
            }
        }
    }
}

/// Any handler of a connection.
pub(crate) fn connection_handler<F, Fut>(serve: F) -> ConnectionHandler
where
    F: Fn(Box<dyn ConnectionIo>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    Arc::new(move |io| Box::pin(serve(io)))
}

/// Reads requests without bodies, and answers each with these bytes.
pub(crate) fn http1_handler(answer: &str) -> ConnectionHandler {
    let answer: Arc<[u8]> = answer.as_bytes().into();
    connection_handler(move |mut io| {
        let answer = Arc::clone(&answer);
        async move {
            let mut input = BytesMut::new();
            loop {
                while let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
                    drop(input.split_to(end + 4));
                    if io.write_all(&answer).await.is_err() || io.flush().await.is_err() {
                        return;
                    }
                }
                if io.read_buf(&mut input).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        }
    })
}

/// A 200 over HTTP/1.1 with this body and these further header lines.
pub(crate) fn ok_response(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// An HTTP/2 server by hyper.
pub(crate) fn http2_handler(
    answer: impl Fn(Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> ConnectionHandler {
    let answer = Arc::new(answer);
    connection_handler(move |io| {
        let answer = Arc::clone(&answer);
        async move {
            let service = hyper::service::service_fn(move |request| {
                let response = answer(request);
                async move { Ok::<_, Infallible>(response) }
            });
            let builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
            let _ = builder.serve_connection(TokioIo::new(io), service).await;
        }
    })
}

/// Runs tasks on the current thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}

/// How a gRPC server answers a health check.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GrpcHealth {
    /// A message with this `ServingStatus`.
    ServingStatus(u8),
    /// No message, and this status of the call.
    CallStatus(&'static str),
}

/// A gRPC health server: `health` gives the status of a service by its name.
pub(crate) fn grpc_health_handler(health: fn(&str) -> GrpcHealth) -> ConnectionHandler {
    connection_handler(move |io| async move {
        let Ok(mut connection) = h2::server::handshake(io).await else { return };
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::task::spawn_local(serve_health_check(request, respond, health));
        }
    })
}

async fn serve_health_check(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    health: fn(&str) -> GrpcHealth,
) {
    let is_check = request.uri().path() == "/grpc.health.v1.Health/Check"
        && request.headers()["content-type"] == "application/grpc"
        && request.headers()["te"] == "trailers";
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        message.extend_from_slice(&piece);
    }
    // A prefix of five bytes, and the name with its key and length.
    let service = message.get(7..).map(|name| String::from_utf8_lossy(name).into_owned());
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    match health(&service.unwrap_or_default()) {
        GrpcHealth::ServingStatus(status) if is_check => {
            let Ok(mut stream) = respond.send_response(response, false) else { return };
            let mut message = BytesMut::new();
            message.put_slice(&[0, 0, 0, 0, 2, 8, status]);
            let _ = stream.send_data(message.freeze(), false);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = stream.send_trailers(trailers);
        }
        GrpcHealth::ServingStatus(_) => drop(respond.send_response(Response::new(()), true)),
        GrpcHealth::CallStatus(status) => {
            response.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
            let _ = respond.send_response(response, true);
        }
    }
}
