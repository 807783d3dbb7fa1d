//! Traffic: an open loop, spread over all pools. One request in five is a POST. The client keeps
//! its connections, and uses none that the proxy has closed.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::{JoinSet, LocalSet};

use crate::endpoint::SERVED_BY;
use crate::kept::Kept;
use crate::layout::pool_name;
use crate::sample::{End, Sample};
use crate::wire::Message;

/// Connections that are open from the start.
const CONNECTIONS: usize = 16;

/// Of so many requests one must not run twice.
const POST_EVERY: u64 = 5;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Pools that share it.
    pub(crate) pools: usize,
    /// Requests a second to each of them.
    pub(crate) rate_rps: f64,
    /// The time between two of them.
    pub(crate) pace: Pace,
    /// A client that has waited this long, from when its request was due, goes away.
    pub(crate) patience: Duration,
}

/// The time between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Always the same, and every fifth request is a POST: runs can be compared.
    Even,
    /// Exponential, as many independent clients make it and as the simulator takes it to come.
    Random,
}

/// Running traffic; ended when dropped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Sample>>>,
}

impl Load {
    /// Begins to send to `proxy`.
    pub(crate) fn start(proxy: SocketAddr, traffic: Traffic) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                let kept = Kept::open(proxy, CONNECTIONS).await;
                Client { traffic, kept, samples: RefCell::default() }.run(&until).await
            })
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Sends no more, waits for what is running, and returns all there was.
    pub(crate) fn stop(mut self) -> Vec<Sample> {
        self.end()
    }

    fn end(&mut self) -> Vec<Sample> {
        self.stop.store(true, Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

struct Client {
    traffic: Traffic,
    kept: Kept,
    samples: RefCell<Vec<Sample>>,
}

impl Client {
    async fn run(self, until: &AtomicBool) -> Vec<Sample> {
        let Traffic { pools, rate_rps, pace, .. } = self.traffic;
        let mean_gap = 1.0 / (rate_rps * pools as f64);
        let client = Rc::new(self);
        let mut running = JoinSet::new();
        let mut due = Instant::now();
        for number in 0.. {
            if until.load(Relaxed) {
                break;
            }
            let (gap, is_post) = match pace {
                Pace::Even => (mean_gap, number % POST_EVERY == POST_EVERY - 1),
                Pace::Random => {
                    (-(1.0 - fastrand::f64()).ln() * mean_gap, fastrand::u64(..POST_EVERY) == 0)
                }
            };
            due += Duration::from_secs_f64(gap);
            tokio::time::sleep_until(due.into()).await;
            let client = Rc::clone(&client);
            running.spawn_local(async move { client.request(number, due, is_post).await });
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
        client.samples.take()
    }

    async fn request(&self, number: u64, due: Instant, is_post: bool) {
        let sent_late = due.elapsed();
        let gives_up = due + self.traffic.patience;
        let answer = tokio::time::timeout_at(gives_up.into(), self.exchange(number, is_post)).await;
        let end = match &answer {
            Ok(Ok(Some(answer))) => answer.status().map_or(End::Lost, End::Answered),
            Ok(_) => End::Lost,
            Err(_) => End::TimedOut,
        };
        let answer = answer.ok().and_then(Result::ok).flatten();
        self.samples.borrow_mut().push(Sample {
            number,
            due,
            sent_late,
            ended: Instant::now(),
            ended_at: SystemTime::now(),
            is_post,
            end,
            served_by: answer.and_then(|answer| answer.header(SERVED_BY)?.parse().ok()),
        });
    }

    async fn exchange(&self, number: u64, is_post: bool) -> io::Result<Option<Message>> {
        let host = pool_name(fastrand::usize(..self.traffic.pools));
        let (method, body) =
            if is_post { ("POST", "content-length: 4\r\n\r\nbody") } else { ("GET", "\r\n") };
        let request = format!("{method} /work/{number} HTTP/1.1\r\nhost: {host}\r\n{body}");
        self.kept.exchange(request.as_bytes()).await
    }
}
