//! Steady load on keep-alive connections that records every failure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::TestClient;

/// Clients that send one GET after another until they are stopped.
pub(crate) struct SteadyLoad {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<LoadSummary>>,
}

#[derive(Debug, Default)]
pub(crate) struct LoadSummary {
    pub(crate) sent: u64,
    /// Every result other than a 200 on a connection that stayed open.
    pub(crate) failures: Vec<String>,
    /// Responses with status 200, by endpoint.
    pub(crate) by_endpoint: BTreeMap<String, u64>,
    pub(crate) slowest: Duration,
}

impl SteadyLoad {
    /// Starts `clients` connections with a `pause` between requests.
    pub(crate) fn start(address: SocketAddr, clients: usize, pause: Duration) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |_| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || run_client(address, pause, &stop, &sent))
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, sent, clients }
    }

    /// Requests sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(SeqCst)
    }

    pub(crate) fn stop(self) -> LoadSummary {
        self.stop.store(true, SeqCst);
        let mut all = LoadSummary::default();
        for client in self.clients {
            let one = client.join().expect("a client that did not panic");
            all.sent += one.sent;
            all.failures.extend(one.failures);
            all.slowest = all.slowest.max(one.slowest);
            for (endpoint, count) in one.by_endpoint {
                *all.by_endpoint.entry(endpoint).or_default() += count;
            }
        }
        all
    }
}

fn run_client(
    address: SocketAddr,
    pause: Duration,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> LoadSummary {
    let mut tally = LoadSummary::default();
    let mut connection = None;
    while !stop.load(SeqCst) {
        tally.sent += 1;
        sent.fetch_add(1, SeqCst);
        let started = Instant::now();
        let opened = connection.take().map_or_else(|| TestClient::connect(address), Ok);
        let result = opened.and_then(|mut client| {
            let answer = client.exchange("GET", "/", &[], b"")?;
            Ok((client, answer))
        });
        tally.slowest = tally.slowest.max(started.elapsed());
        match result {
            Ok((client, answer)) if answer.status == 200 => {
                connection = Some(client);
                let endpoint = answer.field("x-gapless-endpoint").unwrap_or_default().to_owned();
                *tally.by_endpoint.entry(endpoint).or_default() += 1;
            }
            Ok((client, answer)) => {
                connection = Some(client);
                tally.failures.push(format!("{:?}", answer.status_and_reason()));
            }
            Err(error) => tally.failures.push(format!("{error:?} after {:?}", started.elapsed())),
        }
        std::thread::sleep(pause);
    }
    tally
}
