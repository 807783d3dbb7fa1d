//! The endpoint of the demo: a small HTTP server in its own process that fails on demand. It reads
//! commands from standard input, and exits at its end.

use std::convert::Infallible;
use std::io::{self, BufRead};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::cli::EXIT_OK;

/// The duration of a request.
const SERVICE_TIME: Duration = Duration::from_millis(3);

/// Size limit of a request body.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The behaviour of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndpointMode {
    Healthy,
    Reset,
    BadStatus,
}

/// Serves on `address` until standard input ends; returns the exit code.
///
/// # Errors
/// If the address cannot be bound.
pub fn run_endpoint(address: SocketAddr) -> io::Result<u8> {
    // A stopped process does not notice the end of its input.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let listener = crate::net::listener::listen_on_reserved(address)?;
    println!("{}", listener.local_addr()?);
    let (mode_sender, mode) = watch::channel(EndpointMode::Healthy);
    std::thread::spawn(move || apply_commands(&mode_sender));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(listener, mode))?;
    Ok(EXIT_OK)
}

fn apply_commands(mode_sender: &watch::Sender<EndpointMode>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match line.as_str() {
            "well" => mode_sender.send_replace(EndpointMode::Healthy),
            "reset" => mode_sender.send_replace(EndpointMode::Reset),
            "bad-status" => mode_sender.send_replace(EndpointMode::BadStatus),
            _ => continue,
        };
    }
    std::process::exit(0);
}

async fn serve(listener: TcpListener, mode: watch::Receiver<EndpointMode>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(serve_connection(stream, mode.clone()));
    }
}

/// Serves one connection, or resets it when the mode becomes `Reset`.
async fn serve_connection(stream: TcpStream, mut mode: watch::Receiver<EndpointMode>) {
    let Ok(stream) = stream.into_std() else { return };
    let Ok(handle) = stream.try_clone() else { return };
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let _ = stream.set_nodelay(true);
    let modes = mode.clone();
    let service = service_fn(move |request| respond(request, *modes.borrow()));
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = mode.wait_for(|mode| *mode == EndpointMode::Reset) => {
            let _ = socket2::SockRef::from(&handle).set_linger(Some(Duration::ZERO));
        }
        _ = serving => {}
    }
}

async fn respond(
    request: Request<Incoming>,
    mode: EndpointMode,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_probe = request.uri().path() == "/healthz";
    let _ = http_body_util::Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await;
    if !is_probe {
        tokio::time::sleep(SERVICE_TIME).await;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(b"well\n")));
    if mode == EndpointMode::BadStatus {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        *response.body_mut() = Full::new(Bytes::from_static(b"unwell\n"));
    }
    Ok(response)
}
