//! An endpoint that speaks HTTP/2 in cleartext by prior knowledge, on a thread of the bench.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, TcpListener as Listener};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::load_core::pin_to_load_core;

/// Streams on one connection, at most: as many as there are requests in flight.
const STREAMS_MAX: u32 = 1024;

static KILOBYTE: [u8; 1024] = [b'x'; 1024];

/// A running endpoint; it ends when dropped.
#[derive(Debug)]
pub(crate) struct H2cEndpoint {
    pub(crate) port: u16,
    stop: Option<DropGuard>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl H2cEndpoint {
    /// Starts one on the load's core, in the network namespace of the calling thread.
    pub(crate) fn start() -> io::Result<Self> {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("endpoint".to_owned()).spawn(move || {
            pin_to_load_core()?;
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener)?;
                stopped.run_until_cancelled(serve(listener)).await.unwrap_or(Ok(()))
            })
        })?;
        Ok(Self { port, stop: Some(stop.drop_guard()), thread: Some(thread) })
    }
}

impl Drop for H2cEndpoint {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // If it failed, so did the requests to it, and those are counted.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(STREAMS_MAX)
            .serve_connection(TokioIo::new(stream), service_fn(respond));
        tokio::spawn(connection);
    }
}

/// The same as `endpoint-nginx.conf` has at these paths.
async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"ok\n")));
    match request.uri().path() {
        "/1k" => *response.body_mut() = Full::new(Bytes::from_static(&KILOBYTE)),
        "/healthz" => {}
        "/check" => {
            if let Some(forwarded_for) = request.headers().get("x-forwarded-for") {
                response.headers_mut().insert("x-seen-forwarded-for", forwarded_for.clone());
            }
        }
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    Ok(response)
}
