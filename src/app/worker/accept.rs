//! Accepts connections and serves HTTP/1.1 on them.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::app::proxy;
use crate::app::shared::Door;

use super::Worker;

/// Rest after a failed accept: out of descriptors, retrying at once would burn a core.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Counts a connection for as long as it lives.
struct Presence(Arc<AtomicUsize>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Accepts until `close`.
pub(super) async fn accept(worker: Rc<Worker>, door: Door, close: CancellationToken) {
    let listener = match TcpListener::from_std(door.listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(address = %door.name, %error, "listener lost");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = close.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let presence = Presence(Arc::clone(&door.connections));
                let at_most = worker.view().manners.limits.connections;
                if presence.0.fetch_add(1, Relaxed) >= at_most {
                    let _ = stream.set_zero_linger();
                    continue;
                }
                let task = serve(Rc::clone(&worker), stream, peer.ip(), presence);
                worker.tasks.spawn_local(task);
            }
            Err(error) => {
                tracing::warn!(address = %door.name, %error, "accept failed");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: std::net::IpAddr, _presence: Presence) {
    let _ = stream.set_nodelay(true);
    let view = worker.view();
    let limits = &view.manners.limits;
    let client: Rc<str> = peer.to_canonical().to_string().into();
    let service = service_fn(|request| {
        let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
        async move { Ok::<_, std::convert::Infallible>(proxy::handle(&worker, &client, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.header_count)
        .max_buf_size(limits.header_bytes)
        // One flat write is cheaper than a vectored one for the small answers that are most.
        .writev(false)
        .serve_connection(TokioIo::new(stream), service);
    drop(view);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = worker.stop_accepting.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "client connection ended early");
    }
}
