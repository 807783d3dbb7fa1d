//! Clients in a closed loop: each sends its next POST when the last one has come to its end. Three
//! kinds take from one row of numbers. None sends anything twice.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};

use crate::h2_client::Connection;
use crate::kept::Kept;
use crate::layout::pool_name;
use crate::post::{Post, Promise};
use crate::sample::End;
use crate::sent::{Kind, Sent};

/// A client that has waited this long goes away.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connections of HTTP/2.
const CONNECTIONS: usize = 4;

/// Clients at work; told to end when dropped.
pub(crate) struct Clients {
    /// Where the row of numbers is, and where it ends.
    next: Arc<AtomicU64>,
    count: u64,
    thread: Option<JoinHandle<Vec<Sent>>>,
}

impl Clients {
    /// Has `count` POSTs sent to `proxy`.
    pub(crate) fn start(proxy: SocketAddr, seed: u64, count: u64) -> io::Result<Self> {
        let next = Arc::new(AtomicU64::new(0));
        let row = Arc::clone(&next);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("clients".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, World { proxy, seed, count, row }.run())
        })?;
        Ok(Self { next, count, thread: Some(thread) })
    }

    /// How many POSTs were begun.
    pub(crate) fn begun(&self) -> u64 {
        self.next.load(Relaxed).min(self.count)
    }

    /// Whether all are done.
    pub(crate) fn are_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Begins no more, waits for what is under way, and returns all there was.
    pub(crate) fn stop(mut self) -> Vec<Sent> {
        self.end()
    }

    fn end(&mut self) -> Vec<Sent> {
        self.next.fetch_max(self.count, Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.end();
    }
}

/// What all clients share.
struct World {
    proxy: SocketAddr,
    seed: u64,
    count: u64,
    row: Arc<AtomicU64>,
}

impl World {
    async fn run(self) -> Vec<Sent> {
        let mut http1 = Vec::new();
        for kind in [Kind::Kept, Kind::New] {
            http1.push((kind, Rc::new(Kept::open(self.proxy, 0).await)));
        }
        let (world, sent) = (Rc::new(self), Rc::new(RefCell::new(Vec::new())));
        let mut clients = JoinSet::new();
        let mut start = |kind: Kind, by: By| {
            let (world, sent) = (Rc::clone(&world), Rc::clone(&sent));
            clients.spawn_local(async move {
                while let Some(post) = world.next() {
                    let end = by.send(kind, &post).await;
                    let (number, promise) = (post.number, post.promise);
                    sent.borrow_mut().push(Sent { number, kind, promise, end });
                }
            });
        };
        for (kind, kept) in &http1 {
            for _ in 0..kind.clients() {
                start(*kind, By::Http1(Rc::clone(kept)));
            }
        }
        for _ in 0..CONNECTIONS {
            let connection = Rc::new(Connection::new(world.proxy));
            for _ in 0..Kind::Http2.clients() / CONNECTIONS {
                start(Kind::Http2, By::Http2(Rc::clone(&connection)));
            }
        }
        while clients.join_next().await.is_some() {}
        sent.take()
    }

    fn next(&self) -> Option<Post> {
        let number = self.row.fetch_add(1, Relaxed);
        (number < self.count).then(|| Post::of(self.seed, number))
    }
}

/// The client's means.
enum By {
    Http1(Rc<Kept>),
    Http2(Rc<Connection>),
}

impl By {
    async fn send(&self, kind: Kind, post: &Post) -> End {
        let exchange = async {
            match self {
                Self::Http1(kept) => {
                    let answer = kept.exchange(&http1(kind, post)).await.ok().flatten();
                    answer.and_then(|answer| answer.status())
                }
                Self::Http2(connection) => connection.exchange(post).await.ok(),
            }
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(status) => status.map_or(End::Lost, End::Answered),
            Err(_) => End::TimedOut,
        }
    }
}

/// The request as it is sent over HTTP/1.1.
fn http1(kind: Kind, post: &Post) -> Vec<u8> {
    let (path, host, number) = (post.path(), pool_name(0), post.number);
    let key = match post.promise {
        Promise::None => String::new(),
        Promise::Unheard | Promise::Keyed => format!("idempotency-key: \"{number}\"\r\n"),
    };
    let close = if kind == Kind::New { "connection: close\r\n" } else { "" };
    let length = post.body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{key}{close}\r\n"
    );
    [head.as_bytes(), post.body].concat()
}
