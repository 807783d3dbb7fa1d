//! Clients in a closed loop: each sends its next POST after the end of the last one. Three kinds of
//! clients share one sequence of numbers. No client sends a POST twice.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};

use crate::h2_client::SharedH2Connection;
use crate::keep_alive_connections::KeepAliveConnections;
use crate::layout::pool_name;
use crate::post::{IdempotencyPromise, Post};
use crate::sample::ClientResult;
use crate::sent_posts::{ClientKind, SentPost};

/// The timeout of a client.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);

const H2_CONNECTIONS: usize = 4;

/// Running clients; they stop when dropped.
pub(crate) struct SoakClients {
    /// The next number, and the last one.
    next_number: Arc<AtomicU64>,
    post_count: u64,
    thread: Option<JoinHandle<Vec<SentPost>>>,
}

impl SoakClients {
    /// Starts clients that send `count` POSTs to `proxy`.
    pub(crate) fn start(proxy: SocketAddr, seed: u64, count: u64) -> io::Result<Self> {
        let next_number = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&next_number);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("clients".to_owned()).spawn(move || {
            LocalSet::new().block_on(
                &runtime,
                SoakWorkload { proxy, seed, post_count: count, next_number: counter }.run(),
            )
        })?;
        Ok(Self { next_number, post_count: count, thread: Some(thread) })
    }

    /// The number of started POSTs.
    pub(crate) fn started_count(&self) -> u64 {
        self.next_number.load(Relaxed).min(self.post_count)
    }

    /// Whether all POSTs have ended.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Starts no more POSTs, waits for running ones, and returns all results.
    pub(crate) fn stop(mut self) -> Vec<SentPost> {
        self.stop_and_join()
    }

    fn stop_and_join(&mut self) -> Vec<SentPost> {
        self.next_number.fetch_max(self.post_count, Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for SoakClients {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}

/// The state that all clients share.
struct SoakWorkload {
    proxy: SocketAddr,
    seed: u64,
    post_count: u64,
    next_number: Arc<AtomicU64>,
}

impl SoakWorkload {
    async fn run(self) -> Vec<SentPost> {
        let mut http1_connections = Vec::new();
        for kind in [ClientKind::Kept, ClientKind::New] {
            http1_connections
                .push((kind, Rc::new(KeepAliveConnections::open(self.proxy, 0).await)));
        }
        let (workload, sent) = (Rc::new(self), Rc::new(RefCell::new(Vec::new())));
        let mut clients = JoinSet::new();
        let mut start = |kind: ClientKind, transport: PostTransport| {
            let (world, sent) = (Rc::clone(&workload), Rc::clone(&sent));
            clients.spawn_local(async move {
                while let Some(post) = world.next_post() {
                    let result = transport.send(kind, &post).await;
                    let (number, promise) = (post.number, post.promise);
                    sent.borrow_mut().push(SentPost { number, kind, promise, result });
                }
            });
        };
        for (kind, connections) in &http1_connections {
            for _ in 0..kind.client_count() {
                start(*kind, PostTransport::Http1(Rc::clone(connections)));
            }
        }
        for _ in 0..H2_CONNECTIONS {
            let connection = Rc::new(SharedH2Connection::new(workload.proxy));
            for _ in 0..ClientKind::Http2.client_count() / H2_CONNECTIONS {
                start(ClientKind::Http2, PostTransport::Http2(Rc::clone(&connection)));
            }
        }
        while clients.join_next().await.is_some() {}
        sent.take()
    }

    fn next_post(&self) -> Option<Post> {
        let number = self.next_number.fetch_add(1, Relaxed);
        (number < self.post_count).then(|| Post::generate(self.seed, number))
    }
}

enum PostTransport {
    Http1(Rc<KeepAliveConnections>),
    Http2(Rc<SharedH2Connection>),
}

impl PostTransport {
    async fn send(&self, kind: ClientKind, post: &Post) -> ClientResult {
        let exchange = async {
            match self {
                Self::Http1(kept) => {
                    let answer = kept.exchange(&http1_request(kind, post)).await.ok().flatten();
                    answer.and_then(|answer| answer.status())
                }
                Self::Http2(connection) => connection.exchange(post).await.ok(),
            }
        };
        match tokio::time::timeout(CLIENT_TIMEOUT, exchange).await {
            Ok(status) => status.map_or(ClientResult::Lost, ClientResult::Answered),
            Err(_) => ClientResult::TimedOut,
        }
    }
}

/// The bytes of the request over HTTP/1.1.
fn http1_request(kind: ClientKind, post: &Post) -> Vec<u8> {
    let (path, host, number) = (post.path(), pool_name(0), post.number);
    let key = match post.promise {
        IdempotencyPromise::None => String::new(),
        IdempotencyPromise::Unheard | IdempotencyPromise::Keyed => {
            format!("idempotency-key: \"{number}\"\r\n")
        }
    };
    let close = if kind == ClientKind::New { "connection: close\r\n" } else { "" };
    let length = post.body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{key}{close}\r\n"
    );
    [head.as_bytes(), post.body].concat()
}
