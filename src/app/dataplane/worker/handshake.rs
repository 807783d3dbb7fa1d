//! The start of a connection: PROXY protocol header, TLS handshake, and the choice of HTTP/1.1 or
//! HTTP/2.
//!
//! It runs in the connection's own task; each step has its timeout.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

use crate::app::dataplane::listener_config::ListenerConfig;
use crate::app::dataplane::proxy::Client;
use crate::app::ops::metrics::families;
use crate::config::model::ServerLimits;
use crate::logic::model::server_tls::DEFAULT_HANDSHAKE_TIMEOUT;
use crate::net::client_stream::{ClientStream, WriteTimeoutStream};
use crate::net::inbound::tls::AcceptedTls;
use crate::net::inbound::{preface, proxy_protocol, tls};
use crate::net::upstream::DownstreamAddresses;

/// A connection that is ready for requests.
pub(super) struct AcceptedConnection {
    pub(super) stream: ClientStream,
    pub(super) client: Rc<Client>,
    pub(super) is_http2: bool,
    /// Start of the wait for the first request.
    pub(super) waiting_since: Instant,
}

/// Whether the connection starts with a request.
pub(super) fn is_plaintext(listener_config: &ListenerConfig) -> bool {
    listener_config.tls.is_none() && listener_config.listen.proxy_protocol.is_none()
}

/// Prepares an accepted connection from `peer` to `local`; `None` if it is refused or closed.
pub(super) async fn establish(
    mut stream: TcpStream,
    addresses: DownstreamAddresses,
    listener_config: &ListenerConfig,
    limits: &ServerLimits,
) -> Option<AcceptedConnection> {
    let began = Instant::now();
    let DownstreamAddresses { remote: peer, local } = addresses;
    let mut client = Client::new(peer, local);
    if let Some(accepted) = &listener_config.listen.proxy_protocol {
        if !accepted.from.iter().any(|network| network.contains(peer.ip())) {
            return refuse(&stream, peer, "not one of the proxies that may connect here");
        }
        // Boxed, because its state would enlarge the future of every connection.
        let reading = Box::pin(proxy_protocol::read_header(&mut stream, accepted.max_bytes));
        match timeout(limits.header_timeout, reading).await {
            Ok(Ok(Some(addresses))) => client = Client::new(addresses.client, addresses.local),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return refuse(&stream, peer, &error.to_string()),
            Err(_) => {
                return refuse(&stream, peer, "the header of the PROXY protocol took too long");
            }
        }
    }
    if let Some(config) = &listener_config.tls {
        let handshake_timeout = listener_config
            .listen
            .tls
            .as_ref()
            .map_or(DEFAULT_HANDSHAKE_TIMEOUT, |tls| tls.handshake_timeout);
        let accepting =
            tls::accept(Arc::clone(config), WriteTimeoutStream::new(stream, limits.write_timeout));
        return Box::pin(tls_handshake(accepting, handshake_timeout, client)).await;
    }
    let (is_http2, prefix) = if listener_config.listen.has_http2 {
        // The header timeout includes the preface.
        let until = began + limits.header_timeout;
        match timeout_at(until.into(), preface::sniff_http_version(&mut stream)).await {
            Ok(Ok(Some(started))) => (started.is_http2, started.prefix),
            _ => return None,
        }
    } else {
        (false, Bytes::new())
    };
    let stream = ClientStream::plain(WriteTimeoutStream::new(stream, limits.write_timeout), prefix);
    Some(AcceptedConnection { stream, client: Rc::new(client), is_http2, waiting_since: began })
}

async fn tls_handshake(
    accepting: impl Future<Output = io::Result<AcceptedTls>>,
    handshake_timeout: Duration,
    client: Client,
) -> Option<AcceptedConnection> {
    let peer = client.address;
    let result = match timeout(handshake_timeout, accepting).await {
        Ok(Ok(AcceptedTls { stream, is_http2, session })) => {
            count_handshake("ok");
            let client = Rc::new(Client { tls: Some(Box::new(session)), ..client });
            return Some(AcceptedConnection {
                stream,
                client,
                is_http2,
                waiting_since: Instant::now(),
            });
        }
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "handshake failed");
            "failed"
        }
        Err(_) => "timeout",
    };
    count_handshake(result);
    None
}

fn count_handshake(result: &'static str) {
    families::TLS_HANDSHAKES.with(&[result]).increment(1);
}

/// Resets the connection without reading what it has sent.
fn refuse(stream: &TcpStream, peer: SocketAddr, reason: &str) -> Option<AcceptedConnection> {
    families::PROXY_PROTOCOL_REFUSED.handle().increment(1);
    tracing::debug!(%peer, reason, "connection refused");
    let _ = stream.set_zero_linger();
    None
}
