//! The traffic of the demo: an open loop at a constant rate. Latency counts from the time when a
//! request was due, so that a stall also delays the requests behind it in the figures (no
//! coordinated omission).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::net::h1::{self, BodyDecoder, Decoded, ResponseHead};

/// A slower request counts as failed.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);

/// One request in five is a POST.
const POST_EVERY: u64 = 5;

/// The result of one request.
#[derive(Clone, Debug)]
pub(super) struct RequestSample {
    pub(super) ended: Instant,
    /// Time from when the request was due to its end.
    pub(super) latency: Duration,
    pub(super) is_post: bool,
    /// Whether the response has a status below 500.
    pub(super) is_success: bool,
    /// Whether the proxy sent it more than once.
    pub(super) is_retried: bool,
    pub(super) endpoint: Option<String>,
}

pub(super) struct LoadGenerator {
    samples: Arc<Mutex<Vec<RequestSample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LoadGenerator {
    /// Starts to send `rate` requests per second to `proxy`.
    pub(super) fn start(proxy: SocketAddr, rate: u32) -> std::io::Result<Self> {
        let (samples, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (samples_sink, stop_flag) = (Arc::clone(&samples), Arc::clone(&stop));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, run(proxy, rate, samples_sink, &stop_flag));
        })?;
        Ok(Self { samples, stop, thread: Some(thread) })
    }

    /// The samples from index `from` on.
    pub(super) fn samples(&self, from: usize) -> Vec<RequestSample> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.get(from..).map(<[RequestSample]>::to_vec).unwrap_or_default()
    }

    /// Stops sending, and waits for running requests.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for LoadGenerator {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn run(
    proxy: SocketAddr,
    rate: u32,
    sink: Arc<Mutex<Vec<RequestSample>>>,
    stop_flag: &AtomicBool,
) {
    let interval = Duration::from_secs(1) / rate.max(1);
    let idle: Rc<RefCell<Vec<TcpStream>>> = Rc::default();
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for number in 0u64.. {
        if stop_flag.load(Relaxed) {
            break;
        }
        let scheduled_at = started + interval.mul_f64(number as f64);
        tokio::time::sleep_until(scheduled_at.into()).await;
        let (idle, sink) = (Rc::clone(&idle), Arc::clone(&sink));
        running.spawn_local(async move {
            let sample = request(proxy, number, scheduled_at, &idle).await;
            sink.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        });
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}

async fn request(
    proxy: SocketAddr,
    number: u64,
    scheduled_at: Instant,
    idle: &RefCell<Vec<TcpStream>>,
) -> RequestSample {
    let is_post = number % POST_EVERY == POST_EVERY - 1;
    let exchange = async {
        let idle_stream = idle.borrow_mut().pop();
        let mut stream = match idle_stream {
            Some(stream) => stream,
            None => TcpStream::connect(proxy).await?,
        };
        let head = exchange(&mut stream, number, is_post).await?;
        if head.is_keep_alive {
            idle.borrow_mut().push(stream);
        }
        Ok::<_, std::io::Error>(head)
    };
    let outcome = tokio::time::timeout(CLIENT_TIMEOUT, exchange).await;
    let head = outcome.ok().and_then(Result::ok);
    let header = |name: &str| {
        let value = head.as_ref().and_then(|head| head.headers.get(name));
        value.and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    RequestSample {
        ended: Instant::now(),
        latency: scheduled_at.elapsed(),
        is_post,
        is_success: head.as_ref().is_some_and(|head| !head.status.is_server_error()),
        is_retried: header("x-gapless-attempts").is_some_and(|attempts| attempts != "1"),
        endpoint: header("x-gapless-endpoint"),
    }
}

async fn exchange(
    stream: &mut TcpStream,
    number: u64,
    is_post: bool,
) -> std::io::Result<ResponseHead> {
    let malformed = |_| std::io::Error::from(std::io::ErrorKind::InvalidData);
    let method = if is_post { Method::POST } else { Method::GET };
    let mut buffer = BytesMut::with_capacity(1024);
    h1::write_request_line(&mut buffer, &method, &format!("/demo/{number}"));
    h1::write_header(&mut buffer, "host", b"demo.example");
    if is_post {
        h1::write_header(&mut buffer, "content-length", b"4");
        buffer.extend_from_slice(b"\r\nbody");
    } else {
        buffer.extend_from_slice(b"\r\n");
    }
    stream.write_all(&buffer).await?;
    buffer.clear();
    let head = loop {
        match h1::parse_response(&mut buffer, &method).map_err(malformed)? {
            Some(head) => break head,
            None => read_some(stream, &mut buffer).await?,
        }
    };
    let mut decoder = BodyDecoder::new(head.framing);
    loop {
        match decoder.decode(&mut buffer).map_err(malformed)? {
            Decoded::End => return Ok(head),
            Decoded::Data(_) => {}
            Decoded::NeedMore => read_some(stream, &mut buffer).await?,
        }
    }
}

async fn read_some(stream: &mut TcpStream, buffer: &mut BytesMut) -> std::io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
