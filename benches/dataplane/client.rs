//! A client for loads that no tool offers: consecutive full handshakes, and idle connections.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::case::CONNECTIONS;
use crate::certificates::SERVER_NAME;
use crate::parse::{LoadReport, Percentiles, parse_response_head};

/// Time limit from the connect to the end of the response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of idle connections that are opened concurrently.
const CONNECT_BATCH: usize = 16;
/// Size of the read buffer; a longer response is read in several steps.
const BUFFER_BYTES: usize = 4096;

/// A connection, with or without TLS.
pub(crate) trait BenchStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> BenchStream for S {}

/// The target of requests.
#[derive(Clone)]
pub(crate) struct BenchClient {
    pub(crate) port: u16,
    /// The TLS settings, if the request is sent over TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) request: Arc<str>,
}

/// The head of a plain GET.
pub(crate) fn get_request(path: &str, connection: &str) -> Arc<str> {
    format!("GET {path} HTTP/1.1\r\nHost: {SERVER_NAME}\r\nConnection: {connection}\r\n\r\n").into()
}

impl BenchClient {
    async fn connect(&self) -> io::Result<Box<dyn BenchStream>> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        Ok(Box::new(stream))
    }

    /// Sends the request, reads the response, and returns its length.
    async fn exchange(&self, stream: &mut dyn BenchStream) -> io::Result<u64> {
        stream.write_all(self.request.as_bytes()).await?;
        stream.flush().await?;
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
        let response_bytes = loop {
            if let Some(head) = parse_response_head(&buffer) {
                let head = head.map_err(io::Error::other)?;
                if head.status != 200 {
                    return Err(io::Error::other(format!("status {}", head.status)));
                }
                break head.response_bytes;
            }
            read_more(stream, &mut buffer).await?;
        };
        let mut bytes = buffer.len();
        while bytes < response_bytes {
            buffer.clear();
            bytes += read_more(stream, &mut buffer).await?;
        }
        Ok(bytes as u64)
    }

    /// Sends one request on a new connection and reads until the proxy closes it.
    async fn exchange_once(&self) -> io::Result<u64> {
        let mut stream = self.connect().await?;
        let bytes = self.exchange(&mut *stream).await?;
        // The response is complete with or without a `close_notify`.
        let _ = stream.read(&mut [0]).await;
        Ok(bytes)
    }

    async fn exchange_until(self, deadline: Instant) -> (Vec<u64>, u64, u64) {
        let (mut latencies_us, mut bytes, mut errors) = (Vec::new(), 0, 0);
        loop {
            let started = Instant::now();
            if started >= deadline {
                return (latencies_us, bytes, errors);
            }
            match timeout(REQUEST_TIMEOUT, self.exchange_once()).await {
                Ok(Ok(length)) => {
                    latencies_us.push(micros(started.elapsed()));
                    bytes += length;
                }
                Ok(Err(_)) | Err(_) => errors += 1,
            }
        }
    }
}

async fn read_more(stream: &mut dyn BenchStream, buffer: &mut BytesMut) -> io::Result<usize> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        bytes => Ok(bytes),
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Sends one request per connection for `duration`, with as many concurrent connections as wrk has
/// in other cases.
pub(crate) fn run_reconnects(client: &BenchClient, seconds: u64) -> io::Result<LoadReport> {
    runtime()?.block_on(async {
        let started = Instant::now();
        let deadline = started + Duration::from_secs(seconds);
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            clients.spawn(client.clone().exchange_until(deadline));
        }
        let (mut latencies_us, mut response_bytes, mut errors) = (Vec::new(), 0, 0);
        while let Some(finished) = clients.join_next().await {
            let (client_latencies_us, bytes, failed) = finished.map_err(io::Error::other)?;
            latencies_us.extend(client_latencies_us);
            response_bytes += bytes;
            errors += failed;
        }
        let duration_us = micros(started.elapsed());
        let requests = latencies_us.len() as u64;
        let latency = Percentiles::from_latencies(latencies_us);
        Ok(LoadReport { requests, duration_us, response_bytes, errors, latency })
    })
}

/// Opens `count` connections, sends one request on each, and keeps them open while `meanwhile`
/// runs.
pub(crate) fn hold_idle<T>(
    client: &BenchClient,
    count: usize,
    while_held: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let runtime = runtime()?;
    let connections = runtime.block_on(async {
        let mut connections = Vec::with_capacity(count);
        let mut opening = JoinSet::new();
        for _ in 0..count {
            if opening.len() >= CONNECT_BATCH {
                connections.extend(next_opened(&mut opening).await?);
            }
            let client = client.clone();
            opening.spawn(async move {
                let mut stream = client.connect().await?;
                client.exchange(&mut *stream).await?;
                Ok(stream)
            });
        }
        while !opening.is_empty() {
            connections.extend(next_opened(&mut opening).await?);
        }
        Ok::<_, io::Error>(connections)
    })?;
    let result = while_held();
    drop(connections);
    result
}

async fn next_opened(
    opening: &mut JoinSet<io::Result<Box<dyn BenchStream>>>,
) -> io::Result<Option<Box<dyn BenchStream>>> {
    let next = timeout(REQUEST_TIMEOUT, opening.join_next()).await?;
    next.transpose().map_err(io::Error::other)?.transpose()
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
