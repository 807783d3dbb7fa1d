//! Accepts connections, sees what is spoken on them, and serves HTTP/1.1.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use metrics::counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::app::front::Front;
use crate::app::proxy;
use crate::app::shared::{Door, Shared};
use crate::config::model::Limits;
use crate::logic::pressure::Level;

use super::crowd::{Guest, Oldest, Order, Stay, Why};
use super::guarded::{Guarded, Served};
use super::opening::{self, Opened};
use super::{FULL_REST, Worker, http2};

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

/// What accepting at one listener goes by.
struct Gate<'a> {
    worker: &'a Rc<Worker>,
    /// Connections through this listener, over all workers.
    connections: &'a Arc<AtomicUsize>,
    front: &'a ArcSwap<Front>,
    /// Where connections come in, if that is one address.
    local: Option<SocketAddr>,
    /// Who goes first here, and of all the worker's connections.
    oldest: Oldest,
    oldest_of_all: Oldest,
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
    let mut gate = Gate {
        worker: &worker,
        connections: &door.connections,
        front: &door.front,
        // Where it listens on one address, every connection comes in there.
        local: listener.local_addr().ok().filter(|local| !local.ip().is_unspecified()),
        oldest: Oldest::default(),
        oldest_of_all: Oldest::default(),
    };
    loop {
        let accepted = tokio::select! {
            accepted = gate.accept(&listener) => accepted,
            () = close.cancelled() => break,
        };
        match accepted {
            Ok(accepted) => gate.admit(accepted),
            Err(_) => {
                worker.complain("a client cannot be accepted: out of descriptors or memory");
                sleep(ACCEPT_REST).await;
            }
        }
    }
    let Ok(listener) = listener.into_std() else { return };
    while gate.has_room()
        && let Ok((stream, peer)) = listener.accept()
    {
        let taken = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = taken {
            gate.admit((stream, peer));
        }
    }
}

impl Gate<'_> {
    fn has_room(&self) -> bool {
        let Shared { descriptors, pressure, .. } = &*self.worker.shared;
        descriptors.has_room_for_client() && pressure.level() < Level::Stop
    }

    /// The next client, once there are a descriptor and memory for it: until then the kernel holds it.
    async fn accept(&mut self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        while !self.has_room() {
            let Worker { crowd, shared, .. } = &**self.worker;
            if !shared.descriptors.has_room_for_client() {
                // The one that goes may want to say so first; meanwhile no other need go.
                crowd.shed(Why::Descriptors, None, &mut self.oldest_of_all, Instant::now());
            }
            let _ = timeout(FULL_REST, crowd.parted()).await;
        }
        listener.accept().await
    }

    /// Takes a client in, if there is room at its listener or somebody idle makes some.
    fn admit(&mut self, (stream, peer): (TcpStream, SocketAddr)) {
        let Self { worker, connections, front, .. } = *self;
        let Some(local) = self.local.or_else(|| stream.local_addr().ok()) else { return };
        let at_most = worker.view().manners.limits.connections;
        let now = Instant::now();
        if connections.fetch_add(1, Relaxed) >= at_most
            && !worker.crowd.shed(Why::Connections, Some(connections), &mut self.oldest, now)
        {
            connections.fetch_sub(1, Relaxed);
            counter!("gapless_client_connections_refused_total").increment(1);
            worker.complain("a client is turned away: `limits.connections` is reached");
            let _ = stream.set_zero_linger();
            return;
        }
        let descriptor = worker.shared.descriptors.client();
        let stay = worker.crowd.join(Arc::clone(connections), descriptor, now);
        let ends = (peer, local);
        let serving = serve(Rc::clone(worker), stream, ends, front.load_full(), stay);
        worker.tasks.spawn_local(serving);
    }
}

async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    ends: (SocketAddr, SocketAddr),
    front: Arc<Front>,
    stay: Stay,
) {
    // A socket that was passed may speak both versions of IP.
    let ends = (canonical(ends.0), canonical(ends.1));
    let limits = worker.view().manners.limits.clone();
    // One that was accepted on the way out still gets its one answer.
    let is_late = worker.is_leaving.get();
    let guest = stay.guest();
    let opened = tokio::select! {
        opened = opening::open(stream, ends, &front, &limits) => opened,
        () = last_look(guest, is_late || !opening::is_plain(&front)) => None,
    };
    drop(front);
    if worker.crowd.is_leaving() {
        guest.leave();
    }
    match opened {
        None => {}
        Some(opened) if opened.is_http2 => {
            // It would make the future of every connection large.
            Box::pin(http2::serve(worker, opened, guest, is_late, limits)).await;
        }
        Some(opened) => serve_http1(&worker, opened, guest, is_late, &limits).await,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Ends when nobody waits any more for a connection to begin.
async fn last_look(guest: &Guest, is_long: bool) {
    if guest.told().await == Order::Leave {
        sleep(if is_long { LATE_LOOK } else { LAST_LOOK }).await;
    }
}

/// HTTP/1.1 as it is spoken with clients.
pub(in crate::app) fn http1_builder(limits: &Limits, keep_alive: bool) -> http1::Builder {
    let mut builder = http1::Builder::new();
    if limits.header_count != HYPERS_HEADER_COUNT {
        builder.max_headers(limits.header_count);
    }
    // The connection's guest keeps the time of heads: a timer for each request would cost more than a
    // look at all connections does, and could not tell who begins no request from who does not end one.
    builder
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes)
        .keep_alive(keep_alive)
        // So that bodies are not copied; the stream makes one write of what is small.
        .writev(true);
    builder
}

async fn serve_http1(
    worker: &Rc<Worker>,
    opened: Opened,
    guest: &Rc<Guest>,
    is_late: bool,
    limits: &Limits,
) {
    let Opened { stream, client, since, .. } = opened;
    let peer = client.address;
    let service = service_fn(|request| {
        let leaving = Rc::clone(worker);
        let under_way = guest.begin();
        proxy::handle(Rc::clone(worker), Rc::clone(&client), request, move |mut response| {
            // To close without a word would hit whoever has just sent the next request.
            if leaving.is_leaving.get() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response.map(|body| Served::new(body, under_way))
        })
    });
    guest.watch(since);
    let stream = Guarded::new(stream, Arc::clone(guest.pulse()), client.early.share());
    let connection =
        http1_builder(limits, !is_late).serve_connection(stream, service).with_upgrades();
    let mut connection = pin!(connection);
    let ended = loop {
        let order = tokio::select! {
            biased;
            ended = poll_fn(|cx| {
                let ended = connection.as_mut().poll(cx);
                guest.rests();
                ended
            }) => break ended,
            order = guest.told() => order,
        };
        match order {
            // That is for a head which would come now, and hyper does not wait for one.
            Order::Go(Why::Head) => return,
            Order::Go(_) => connection.as_mut().graceful_shutdown(),
            Order::Leave => {
                let look = if is_late { LATE_LOOK } else { LAST_LOOK };
                // Nearly all of the time it would only make the future of every connection larger.
                match Box::pin(timeout(look, connection.as_mut())).await {
                    Ok(ended) => break ended,
                    Err(_) => connection.as_mut().graceful_shutdown(),
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "client connection ended early");
    }
    guest.busy();
    if let Some(tunnel) = client.sequel.take() {
        tunnel.await;
    }
}
