//! A client for what no tool does as needed: full handshakes one after the other, and connections
//! that idle.

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
use crate::certificates::NAME;
use crate::parse::{LoadReport, Percentiles, answer_head};

/// From the connect to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Idle connections are opened so many at a time.
const OPENED_TOGETHER: usize = 16;
/// An answer longer than this is read in several steps.
const BUFFER_BYTES: usize = 4096;

/// A connection, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Where and how to ask.
#[derive(Clone)]
pub(crate) struct Client {
    /// On loopback.
    pub(crate) port: u16,
    /// Over TLS, if so.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The whole request.
    pub(crate) request: Arc<str>,
}

/// The head of a GET without anything that a server could want to look at twice.
pub(crate) fn get(path: &str, connection: &str) -> Arc<str> {
    format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: {connection}\r\n\r\n").into()
}

impl Client {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        Ok(Box::new(stream))
    }

    /// Sends the request and reads the answer; returns the length of the latter.
    async fn ask(&self, stream: &mut dyn Stream) -> io::Result<u64> {
        stream.write_all(self.request.as_bytes()).await?;
        stream.flush().await?;
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
        let answer_bytes = loop {
            if let Some(head) = answer_head(&buffer) {
                let head = head.map_err(io::Error::other)?;
                if head.status != 200 {
                    return Err(io::Error::other(format!("status {}", head.status)));
                }
                break head.answer_bytes;
            }
            read_more(stream, &mut buffer).await?;
        };
        let mut bytes = buffer.len();
        while bytes < answer_bytes {
            buffer.clear();
            bytes += read_more(stream, &mut buffer).await?;
        }
        Ok(bytes as u64)
    }

    /// One connection for one request, to the end that the proxy makes of it.
    async fn ask_once(&self) -> io::Result<u64> {
        let mut stream = self.connect().await?;
        let bytes = self.ask(&mut *stream).await?;
        // With or without TLS's own goodbye: the answer is complete.
        let _ = stream.read(&mut [0]).await;
        Ok(bytes)
    }

    async fn ask_until(self, deadline: Instant) -> (Vec<u64>, u64, u64) {
        let (mut latencies_us, mut bytes, mut errors) = (Vec::new(), 0, 0);
        loop {
            let began = Instant::now();
            if began >= deadline {
                return (latencies_us, bytes, errors);
            }
            match timeout(PATIENCE, self.ask_once()).await {
                Ok(Ok(length)) => {
                    latencies_us.push(micros(began.elapsed()));
                    bytes += length;
                }
                Ok(Err(_)) | Err(_) => errors += 1,
            }
        }
    }
}

async fn read_more(stream: &mut dyn Stream, buffer: &mut BytesMut) -> io::Result<usize> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        bytes => Ok(bytes),
    }
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Asks once per connection for so long, on as many connections as wrk holds in other cases.
pub(crate) fn reconnect(client: &Client, seconds: u64) -> io::Result<LoadReport> {
    runtime()?.block_on(async {
        let began = Instant::now();
        let deadline = began + Duration::from_secs(seconds);
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            clients.spawn(client.clone().ask_until(deadline));
        }
        let (mut latencies_us, mut response_bytes, mut errors) = (Vec::new(), 0, 0);
        while let Some(ended) = clients.join_next().await {
            let (of_one_us, bytes, failed) = ended.map_err(io::Error::other)?;
            latencies_us.extend(of_one_us);
            response_bytes += bytes;
            errors += failed;
        }
        let duration_us = micros(began.elapsed());
        let requests = latencies_us.len() as u64;
        let latency = Percentiles::of(latencies_us);
        Ok(LoadReport { requests, duration_us, response_bytes, errors, latency })
    })
}

/// Opens `count` connections, asks once on each, and holds them open for `meanwhile`.
pub(crate) fn hold<T>(
    client: &Client,
    count: usize,
    meanwhile: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let runtime = runtime()?;
    let held = runtime.block_on(async {
        let mut held = Vec::with_capacity(count);
        let mut opening = JoinSet::new();
        for _ in 0..count {
            if opening.len() >= OPENED_TOGETHER {
                held.extend(opened(&mut opening).await?);
            }
            let client = client.clone();
            opening.spawn(async move {
                let mut stream = client.connect().await?;
                client.ask(&mut *stream).await?;
                Ok(stream)
            });
        }
        while !opening.is_empty() {
            held.extend(opened(&mut opening).await?);
        }
        Ok::<_, io::Error>(held)
    })?;
    let found = meanwhile();
    drop(held);
    found
}

async fn opened(
    opening: &mut JoinSet<io::Result<Box<dyn Stream>>>,
) -> io::Result<Option<Box<dyn Stream>>> {
    let next = timeout(PATIENCE, opening.join_next()).await?;
    next.transpose().map_err(io::Error::other)?.transpose()
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
