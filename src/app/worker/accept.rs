//! Accepts connections, sees what is spoken on them, and serves HTTP/1.1.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::app::front::Front;
use crate::app::proxy;
use crate::app::shared::Door;
use crate::config::model::Limits;

use super::opening::{self, Opened};
use super::{Worker, http2};

/// Rest after a failed accept: out of descriptors, retrying at once would burn a core.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// hyper's own limit of fields in a head. To be told of any, even that, costs it more for each
/// request: it then fills the room for all of them.
const HYPERS_HEADER_COUNT: usize = 100;

/// On the way out: time for a request that has arrived to be read. hyper closes a connection of
/// which it has read nothing yet, whatever the kernel holds of it.
pub(super) const LAST_LOOK: Duration = Duration::from_millis(50);

/// The same for a connection that was accepted on the way out: its first request may still be on
/// its way.
pub(super) const LATE_LOOK: Duration = Duration::from_secs(1);

/// Counts a connection for as long as it lives.
struct Presence(Arc<AtomicUsize>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Accepts until `close`, then what the kernel has completed before: to drop the listener would
/// reset those, unless another process has the same socket.
pub(super) async fn accept(worker: Rc<Worker>, door: Door, close: CancellationToken) {
    let listener = match TcpListener::from_std(door.listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(address = %door.name, %error, "listener lost");
            return;
        }
    };
    let (connections, front) = (door.connections, door.front);
    // Where it listens on one address, every connection comes in there.
    let local = listener.local_addr().ok().filter(|local| !local.ip().is_unspecified());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = close.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => admit(&worker, stream, (peer, local), &connections, &front),
            Err(_) => {
                worker.complain("a client cannot be accepted: out of descriptors or memory");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        let taken = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = taken {
            admit(&worker, stream, (peer, local), &connections, &front);
        }
    }
}

fn admit(
    worker: &Rc<Worker>,
    stream: TcpStream,
    (peer, local): (SocketAddr, Option<SocketAddr>),
    connections: &Arc<AtomicUsize>,
    front: &ArcSwap<Front>,
) {
    let presence = Presence(Arc::clone(connections));
    let at_most = worker.view().manners.limits.connections;
    if presence.0.fetch_add(1, Relaxed) >= at_most {
        let _ = stream.set_zero_linger();
        return;
    }
    let Some(local) = local.or_else(|| stream.local_addr().ok()) else { return };
    let ends = (peer, local);
    worker.tasks.spawn_local(serve(Rc::clone(worker), stream, ends, front.load_full(), presence));
}

async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    ends: (SocketAddr, SocketAddr),
    front: Arc<Front>,
    _presence: Presence,
) {
    // A socket that was passed may speak both versions of IP.
    let ends = (canonical(ends.0), canonical(ends.1));
    let limits = worker.view().manners.limits.clone();
    // One that was accepted on the way out still gets its one answer.
    let is_late = worker.is_leaving.get();
    let opened = tokio::select! {
        opened = opening::open(stream, ends, &front, &limits) => opened,
        () = last_look(&worker, is_late || !opening::is_plain(&front)) => None,
    };
    drop(front);
    match opened {
        None => {}
        Some(opened) if opened.is_http2 => {
            // It would make the future of every connection large.
            Box::pin(http2::serve(worker, opened, is_late, limits)).await;
        }
        Some(opened) => serve_http1(worker, opened, is_late, limits).await,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// On the way out: ends when nobody waits any more for a connection to begin.
async fn last_look(worker: &Worker, is_long: bool) {
    worker.stop_accepting.cancelled().await;
    tokio::time::sleep(if is_long { LATE_LOOK } else { LAST_LOOK }).await;
}

async fn serve_http1(worker: Rc<Worker>, opened: Opened, is_late: bool, limits: Limits) {
    let Opened { stream, client, .. } = opened;
    let peer = client.address;
    let service = service_fn(|request| {
        let leaving = Rc::clone(&worker);
        proxy::handle(Rc::clone(&worker), Rc::clone(&client), request, move |mut response| {
            // To close without a word would hit whoever has just sent the next request.
            if leaving.is_leaving.get() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        })
    });
    let mut builder = http1::Builder::new();
    if limits.header_count != HYPERS_HEADER_COUNT {
        builder.max_headers(limits.header_count);
    }
    let connection = builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes)
        .keep_alive(!is_late)
        // So that bodies are not copied; the stream makes one write of what is small.
        .writev(true)
        .serve_connection(stream, service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = worker.stop_accepting.cancelled() => {
            let look = if is_late { LATE_LOOK } else { LAST_LOOK };
            match tokio::time::timeout(look, connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "client connection ended early");
    }
    client.sequel.run().await;
}
