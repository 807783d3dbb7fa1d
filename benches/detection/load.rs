//! Traffic: an open loop with exponential gaps, as many independent clients make it and as the
//! simulator takes it to come, spread over all pools. One request in five is a POST.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

use crate::layout::pool_name;
use crate::wire::read_message;

/// A client that has waited this long goes away.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that are open from the start, and take turns: every worker is to have its share.
const CONNECTIONS: usize = 16;

/// The share of requests that must not run twice.
const POST_SHARE: f64 = 0.2;

/// What became of the requests.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Tally {
    /// Requests sent.
    pub(crate) sent: u64,
    /// GETs without an answer below 500.
    pub(crate) failed_get: u64,
    /// POSTs without one.
    pub(crate) failed_post: u64,
    /// The most by which a request went out later than it was due.
    pub(crate) late_ms: f64,
}

/// Running traffic; ended when dropped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Tally>>,
}

impl Load {
    /// Begins to send `rate_rps` requests a second to each pool behind `proxy`.
    pub(crate) fn start(proxy: SocketAddr, pools: usize, rate_rps: f64) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, run(proxy, pools, rate_rps, &until))
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Sends no more, and waits for what is running.
    pub(crate) fn stop(mut self) -> Tally {
        self.end()
    }

    fn end(&mut self) -> Tally {
        self.stop.store(true, Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

async fn run(proxy: SocketAddr, pools: usize, rate_rps: f64, until: &AtomicBool) -> Tally {
    let idle: Rc<RefCell<VecDeque<TcpStream>>> = Rc::default();
    for _ in 0..CONNECTIONS {
        // One that cannot be opened now is missed by the request that wants it.
        if let Ok(stream) = TcpStream::connect(proxy).await {
            idle.borrow_mut().push_back(stream);
        }
    }
    let tally: Rc<RefCell<Tally>> = Rc::default();
    let mut running = JoinSet::new();
    let mut due = Instant::now();
    while !until.load(Relaxed) {
        let gap_seconds = -(1.0 - fastrand::f64()).ln() / (rate_rps * pools as f64);
        due += Duration::from_secs_f64(gap_seconds);
        tokio::time::sleep_until(due.into()).await;
        let late_ms = due.elapsed().as_secs_f64() * 1e3;
        {
            let mut tally = tally.borrow_mut();
            tally.sent += 1;
            tally.late_ms = tally.late_ms.max(late_ms);
        }
        let (idle, tally) = (Rc::clone(&idle), Rc::clone(&tally));
        running.spawn_local(async move {
            let is_post = fastrand::f64() < POST_SHARE;
            let host = pool_name(fastrand::usize(..pools));
            let answer = tokio::time::timeout(PATIENCE, exchange(proxy, &host, is_post, &idle));
            if !matches!(answer.await, Ok(Ok(true))) {
                let mut tally = tally.borrow_mut();
                let failed = if is_post { &mut tally.failed_post } else { &mut tally.failed_get };
                *failed += 1;
            }
        });
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
    tally.take()
}

/// One request; whether it was answered well.
async fn exchange(
    proxy: SocketAddr,
    host: &str,
    is_post: bool,
    idle: &RefCell<VecDeque<TcpStream>>,
) -> std::io::Result<bool> {
    let kept = idle.borrow_mut().pop_front();
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(proxy).await?,
    };
    stream.set_nodelay(true)?;
    let request = if is_post {
        format!("POST /work HTTP/1.1\r\nhost: {host}\r\ncontent-length: 4\r\n\r\nbody")
    } else {
        format!("GET /work HTTP/1.1\r\nhost: {host}\r\n\r\n")
    };
    stream.write_all(request.as_bytes()).await?;
    let answer = read_message(&mut stream, &mut BytesMut::new()).await?;
    let Some(answer) = answer else { return Ok(false) };
    if answer.keeps {
        idle.borrow_mut().push_back(stream);
    }
    let status = answer.first_line.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    Ok(status.is_some_and(|status| status < 500))
}
