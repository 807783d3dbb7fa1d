//! Traffic in an open loop, spread over all pools. One request in five is a POST. Connections are
//! kept; closed ones are never used.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::{JoinSet, LocalSet};

use crate::endpoint::SERVED_BY_HEADER;
use crate::http1_message::Http1Message;
use crate::keep_alive_connections::KeepAliveConnections;
use crate::layout::pool_name;
use crate::sample::{ClientResult, ClientSample};

/// Connections that are opened at the start.
const CONNECTIONS: usize = 16;

/// One of this many requests must not be executed twice.
const REQUESTS_PER_POST: u64 = 5;

#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadSettings {
    /// The number of pools.
    pub(crate) pools: usize,
    /// Requests per second to each pool.
    pub(crate) rate_rps: f64,
    /// The distribution of the time between two requests.
    pub(crate) arrivals: ArrivalPattern,
    /// The timeout of a client, from when its request was due.
    pub(crate) client_timeout: Duration,
}

/// The time between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArrivalPattern {
    /// Constant, and every fifth request is a POST: runs are comparable.
    Uniform,
    /// Exponential, as from many independent clients and as in the simulator.
    Exponential,
}

/// Running traffic; ended when dropped.
pub(crate) struct OpenLoopLoad {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<ClientSample>>>,
}

impl OpenLoopLoad {
    /// Starts to send to `proxy`.
    pub(crate) fn start(proxy: SocketAddr, traffic: LoadSettings) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                let connections = KeepAliveConnections::open(proxy, CONNECTIONS).await;
                OpenLoopClient { traffic, connections, samples: RefCell::default() }
                    .run(&until)
                    .await
            })
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops sending, waits for running requests, and returns all samples.
    pub(crate) fn stop(mut self) -> Vec<ClientSample> {
        self.stop_and_join()
    }

    fn stop_and_join(&mut self) -> Vec<ClientSample> {
        self.stop.store(true, Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for OpenLoopLoad {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}

struct OpenLoopClient {
    traffic: LoadSettings,
    connections: KeepAliveConnections,
    samples: RefCell<Vec<ClientSample>>,
}

impl OpenLoopClient {
    async fn run(self, until: &AtomicBool) -> Vec<ClientSample> {
        let LoadSettings { pools, rate_rps, arrivals: pace, .. } = self.traffic;
        let mean_gap = 1.0 / (rate_rps * pools as f64);
        let client = Rc::new(self);
        let mut running = JoinSet::new();
        let mut due = Instant::now();
        for number in 0.. {
            if until.load(Relaxed) {
                break;
            }
            let (gap, is_post) = match pace {
                ArrivalPattern::Uniform => {
                    (mean_gap, number % REQUESTS_PER_POST == REQUESTS_PER_POST - 1)
                }
                ArrivalPattern::Exponential => (
                    -(1.0 - fastrand::f64()).ln() * mean_gap,
                    fastrand::u64(..REQUESTS_PER_POST) == 0,
                ),
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
        let deadline = due + self.traffic.client_timeout;
        let response =
            tokio::time::timeout_at(deadline.into(), self.exchange(number, is_post)).await;
        let result = match &response {
            Ok(Ok(Some(answer))) => {
                answer.status().map_or(ClientResult::Lost, ClientResult::Answered)
            }
            Ok(_) => ClientResult::Lost,
            Err(_) => ClientResult::TimedOut,
        };
        let response = response.ok().and_then(Result::ok).flatten();
        self.samples.borrow_mut().push(ClientSample {
            number,
            due,
            send_delay: sent_late,
            ended: Instant::now(),
            ended_at: SystemTime::now(),
            is_post,
            result,
            served_by: response.and_then(|answer| answer.header(SERVED_BY_HEADER)?.parse().ok()),
        });
    }

    async fn exchange(&self, number: u64, is_post: bool) -> io::Result<Option<Http1Message>> {
        let host = pool_name(fastrand::usize(..self.traffic.pools));
        let (method, body) =
            if is_post { ("POST", "content-length: 4\r\n\r\nbody") } else { ("GET", "\r\n") };
        let request = format!("{method} /work/{number} HTTP/1.1\r\nhost: {host}\r\n{body}");
        self.connections.exchange(request.as_bytes()).await
    }
}
