//! The endpoint: this program in its own process. It reads commands from standard input, one word
//! per line, and acknowledges each when it has taken effect. It exits at the end of the input.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use crate::endpoint_tls;
use crate::fault_class::EndpointFault;
use crate::http1_message::{Http1Message, read_message};
use crate::layout::TLS_PORT;

/// The response time of a slow endpoint.
const SLOW_RESPONSE_TIME: Duration = Duration::from_secs(2);

/// The share of slow responses, and their latency.
const TAIL_FRACTION: f64 = 0.1;
const TAIL_RESPONSE_TIME: Duration = Duration::from_millis(800);

/// The share of errors of an endpoint with errors.
const ERROR_FRACTION: f64 = 0.3;

/// The acknowledgement of a command, and of the start.
pub(crate) const ACKNOWLEDGEMENT: &str = "done";

/// The response field with the address of the endpoint.
pub(crate) const SERVED_BY_HEADER: &str = "x-served-by";

/// The argument that makes this program an endpoint.
pub(crate) const ENDPOINT_COMMAND: &str = "endpoint";

/// The settings of an endpoint besides its address.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct EndpointSettings {
    /// The service time of a request.
    pub(crate) service: Duration,
    /// The directory of its certificates, if it serves probes over TLS too.
    pub(crate) certificates: Option<PathBuf>,
    /// The file for a line for each fully read POST, written before the response: the last segment
    /// of the path, and the microseconds since 1970.
    pub(crate) posts: Option<PathBuf>,
}

/// The current fault, as its index in [`EndpointFault::ALL`].
type CurrentFault = Arc<AtomicUsize>;

/// The state that all connections of the endpoint share.
struct EndpointService {
    address: SocketAddr,
    service_time: Duration,
    posts_file: Option<File>,
    current_fault: CurrentFault,
}

/// Serves on `address` until standard input ends; `setting` is an [`EndpointSettings`] as JSON.
pub(crate) fn main(address: &str, settings_json: &str) -> ExitCode {
    // A stopped process does not notice the end of its input.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    match serve(address, settings_json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("endpoint {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, settings_json: &str) -> io::Result<()> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let settings: EndpointSettings = serde_json::from_str(settings_json)?;
    let listen = |port: u16| {
        let listener = TcpListener::bind((address.ip(), port))?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>(listener)
    };
    let listener = listen(address.port())?;
    let tls = settings
        .certificates
        .map(|dir| Ok::<_, io::Error>((listen(TLS_PORT)?, endpoint_tls::read_acceptors(&dir)?)))
        .transpose()?;
    let append = |path: PathBuf| OpenOptions::new().create(true).append(true).open(path);
    let posts_file = settings.posts.map(append).transpose()?;
    let current_fault = CurrentFault::default();
    let command_fault = Arc::clone(&current_fault);
    std::thread::spawn(move || apply_commands(&command_fault));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let service = Rc::new(EndpointService {
        address,
        service_time: settings.service,
        posts_file,
        current_fault,
    });
    LocalSet::new().block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        if let Some((tls_listener, acceptors)) = tls {
            let tls_listener = tokio::net::TcpListener::from_std(tls_listener)?;
            tokio::task::spawn_local(serve_tls(tls_listener, acceptors, Rc::clone(&service)));
        }
        acknowledge();
        loop {
            let (stream, _) = listener.accept().await?;
            let service = Rc::clone(&service);
            tokio::task::spawn_local(async move {
                // The peer reports the errors of a connection.
                let _ = service.serve_connection(stream).await;
            });
        }
    })
}

/// Answers probes over TLS with success; the certificate may be the expired one.
async fn serve_tls(
    listener: tokio::net::TcpListener,
    acceptors: [TlsAcceptor; 2],
    service: Rc<EndpointService>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let has_expired = service.fault() == EndpointFault::Certificate;
        let acceptor = acceptors[usize::from(has_expired)].clone();
        let service = Rc::clone(&service);
        tokio::task::spawn_local(async move {
            let mut stream = acceptor.accept(stream).await?;
            let mut buffer = BytesMut::new();
            while let Some(message) = read_message(&mut stream, &mut buffer).await? {
                tokio::time::sleep(service.service_time).await;
                if !service.write_response(&mut stream, &message, "200 OK", "well\n").await? {
                    stream.shutdown().await?;
                    break;
                }
            }
            Ok::<_, io::Error>(())
        });
    }
}

fn apply_commands(current_fault: &CurrentFault) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if let Some(fault) = EndpointFault::ALL.iter().position(|fault| fault.command() == line) {
            current_fault.store(fault, SeqCst);
            acknowledge();
        }
    }
    std::process::exit(0);
}

fn acknowledge() {
    let mut out = io::stdout().lock();
    // Without a reader of the acknowledgement, no bench waits for it.
    let _ = writeln!(out, "{ACKNOWLEDGEMENT}").and_then(|()| out.flush());
}

impl EndpointService {
    fn fault(&self) -> EndpointFault {
        EndpointFault::ALL[self.current_fault.load(SeqCst)]
    }

    async fn serve_connection(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = BytesMut::new();
        while let Some(message) = read_message(&mut stream, &mut buffer).await? {
            self.record_post(message.first_line())?;
            if self.fault() == EndpointFault::None {
                tokio::time::sleep(self.service_time).await;
            }
            if !self.respond(&mut stream, &message).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A fully read POST counts as executed.
    fn record_post(&self, request_line: &str) -> io::Result<()> {
        let Some(mut posts) = self.posts_file.as_ref() else { return Ok(()) };
        let Some(path) = request_line.strip_prefix("POST ") else { return Ok(()) };
        let id = path.split(' ').next().and_then(|path| path.rsplit('/').next());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // One write per line, because all endpoints append to the same file. Lines have 32 bytes,
        // because SIGKILL may tear a write that spans two pages.
        let line = format!("{:0>10} {:020}\n", id.unwrap_or_default(), now.as_micros());
        posts.write_all(line.as_bytes())
    }

    /// Answers; returns whether the connection stays open.
    async fn respond(&self, stream: &mut TcpStream, message: &Http1Message) -> io::Result<bool> {
        let is_probe = message.first_line().contains(" /healthz ");
        let (status, body) = match self.fault() {
            EndpointFault::Reset => {
                stream.set_zero_linger()?;
                return Ok(false);
            }
            EndpointFault::Cut if !is_probe => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\n").await?;
                stream.write_all(&[b'.'; 32]).await?;
                return Ok(false);
            }
            EndpointFault::StatusAll => ("503 Service Unavailable", "unwell\n"),
            EndpointFault::StatusTraffic if !is_probe => ("503 Service Unavailable", "unwell\n"),
            EndpointFault::Errors30 if !is_probe && fastrand::f64() < ERROR_FRACTION => {
                ("500 Internal Server Error", "unlucky\n")
            }
            EndpointFault::WrongBody if is_probe => ("200 OK", "maintenance\n"),
            EndpointFault::Slow => {
                tokio::time::sleep(SLOW_RESPONSE_TIME).await;
                ("200 OK", "well\n")
            }
            EndpointFault::Tail10 if fastrand::f64() < TAIL_FRACTION => {
                tokio::time::sleep(TAIL_RESPONSE_TIME).await;
                ("200 OK", "well\n")
            }
            EndpointFault::None
            | EndpointFault::Tail10
            | EndpointFault::StatusTraffic
            | EndpointFault::Errors30
            | EndpointFault::Cut
            | EndpointFault::WrongBody
            | EndpointFault::Certificate => ("200 OK", "well\n"),
        };
        self.write_response(stream, message, status, body).await
    }

    async fn write_response(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        message: &Http1Message,
        status: &str,
        body: &str,
    ) -> io::Result<bool> {
        let connection = if message.is_keep_alive { "" } else { "connection: close\r\n" };
        let (length, address) = (body.len(), self.address);
        let response = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{SERVED_BY_HEADER}: {address}\r\n\
             {connection}\r\n{body}"
        );
        stream.write_all(response.as_bytes()).await?;
        stream.flush().await?;
        Ok(message.is_keep_alive)
    }
}
