//! What comes before the first request: for whom a proxy connects, the handshake of TLS, and the
//! choice between HTTP/1.1 and HTTP/2. All of it in the connection's own task, each within its time.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::counter;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

use crate::app::front::Front;
use crate::app::proxy::Client;
use crate::config::model::Limits;
use crate::logic::front::HANDSHAKE_TIMEOUT;
use crate::net::client::{Bounded, ClientStream};
use crate::net::inbound::tls::Accepted;
use crate::net::inbound::{preface, proxy, tls};

/// A connection on which requests are to come.
pub(super) struct Opened {
    pub(super) stream: ClientStream,
    pub(super) client: Rc<Client>,
    pub(super) is_http2: bool,
    /// Since when its first request is awaited.
    pub(super) since: Instant,
}

/// Whether nothing but a request can come first.
pub(super) fn is_plain(front: &Front) -> bool {
    front.tls.is_none() && front.listen.proxy_protocol.is_none()
}

/// Opens an accepted connection from `peer` to `local`; `None` if it is refused, or goes away.
pub(super) async fn open(
    mut stream: TcpStream,
    (peer, local): (SocketAddr, SocketAddr),
    front: &Front,
    limits: &Limits,
) -> Option<Opened> {
    let since = Instant::now();
    let mut client = Client::new(peer, local);
    if let Some(from) = &front.listen.proxy_protocol {
        if !from.iter().any(|network| network.contains(peer.ip())) {
            return refuse(&stream, peer, "not one of the proxies that may connect here");
        }
        // With its buffers it would make the future of every connection large.
        let reading = Box::pin(proxy::read(&mut stream));
        match timeout(limits.header_timeout, reading).await {
            Ok(Ok(Some(ends))) => client = Client::new(ends.client, ends.local),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return refuse(&stream, peer, &error.to_string()),
            Err(_) => {
                return refuse(&stream, peer, "the header of the PROXY protocol took too long");
            }
        }
    }
    if let Some(config) = &front.tls {
        let within =
            front.listen.tls.as_ref().map_or(HANDSHAKE_TIMEOUT, |tls| tls.handshake_timeout);
        let accepting = tls::accept(Arc::clone(config), Bounded::new(stream, limits.write_timeout));
        return Box::pin(handshake(accepting, within, client)).await;
    }
    let (is_http2, read) = if front.listen.http2 {
        // What is left of the time that the head has.
        let until = since + limits.header_timeout;
        match timeout_at(until.into(), preface::sniff(&mut stream)).await {
            Ok(Ok(Some(begun))) => (begun.is_http2, begun.read),
            _ => return None,
        }
    } else {
        (false, Bytes::new())
    };
    let stream = ClientStream::plain(Bounded::new(stream, limits.write_timeout), read);
    Some(Opened { stream, client: Rc::new(client), is_http2, since })
}

async fn handshake(
    accepting: impl Future<Output = io::Result<Accepted>>,
    within: Duration,
    client: Client,
) -> Option<Opened> {
    let peer = client.address;
    let result = match timeout(within, accepting).await {
        Ok(Ok(Accepted { stream, is_http2, session })) => {
            count("ok");
            let client = Rc::new(Client { tls: Some(Box::new(session)), ..client });
            return Some(Opened { stream, client, is_http2, since: Instant::now() });
        }
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "handshake failed");
            "failed"
        }
        Err(_) => "timeout",
    };
    count(result);
    None
}

fn count(result: &'static str) {
    counter!("gapless_tls_handshakes_total", "result" => result).increment(1);
}

/// Resets the connection: whatever it has sent is not read.
fn refuse(stream: &TcpStream, peer: SocketAddr, why: &str) -> Option<Opened> {
    counter!("gapless_proxy_protocol_refused_total").increment(1);
    tracing::debug!(%peer, why, "connection refused");
    let _ = stream.set_zero_linger();
    None
}
