//! TLS towards endpoints: what a probe says of itself, made into what the library wants.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Error};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::logic::probe::ProbeKind;
use crate::logic::speech::TlsClient;
use crate::net::tls_client;

use super::{Ended, Passed, Progress, Question, Stream};

/// A refusal that comes after the handshake is waited for as long as the handshake took, within
/// these bounds.
const REFUSAL_AT_LEAST: Duration = Duration::from_millis(2);
const REFUSAL_AT_MOST: Duration = Duration::from_millis(100);

/// What was made of each probe's TLS, for as long as the probe lives.
#[derive(Debug, Default)]
pub(super) struct Configs {
    made: RefCell<Vec<(Weak<TlsClient>, Arc<ClientConfig>)>>,
}

impl Configs {
    /// What to speak TLS with.
    pub(super) async fn of(&self, probe: &Arc<TlsClient>) -> Result<Arc<ClientConfig>, Error> {
        if let Some(config) = self.find(probe) {
            return Ok(config);
        }
        let mut config = tls_client::config(probe).await?;
        // Who resumes a session does not show its certificate again.
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        let mut made = self.made.borrow_mut();
        made.retain(|(probe, _)| probe.strong_count() > 0);
        made.push((Arc::downgrade(probe), Arc::clone(&config)));
        Ok(config)
    }

    fn find(&self, probe: &Arc<TlsClient>) -> Option<Arc<ClientConfig>> {
        let made = self.made.borrow();
        let found = made.iter().find(|(known, _)| known.as_ptr() == Arc::as_ptr(probe));
        found.map(|(_, config)| Arc::clone(config))
    }
}

/// Shakes hands on a new connection.
pub(super) async fn shake_hands(
    question: &Question<'_>,
    progress: &Progress,
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Ended> {
    let name = server_name(question).ok_or(Ended::Ours)?;
    let began = Instant::now();
    let connected = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
    progress.handshake.set(began.elapsed());
    connected.map_err(|error| progress.broken(&error))
}

/// The name that is asked for: its own, that of the host, or the address.
fn server_name(question: &Question<'_>) -> Option<ServerName<'static>> {
    let host = match &question.spec.kind {
        ProbeKind::Http(http) => http.host.as_deref(),
        ProbeKind::Grpc(grpc) => grpc.authority.as_deref(),
        ProbeKind::Tcp { .. } | ProbeKind::Tls => None,
    };
    let host = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let host = host.as_ref().map(|authority| authority.host().trim_matches(['[', ']']));
    let own = question.spec.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    tls_client::server_name(own.or(host), question.target.ip())
}

/// Waits a moment after the handshake: in TLS 1.3 an endpoint that refuses our certificate, or the
/// lack of one, says so only when the handshake is over on our side.
pub(super) async fn await_refusal(progress: &Progress, mut stream: Box<Stream>) -> Passed {
    let patience = progress.handshake.get().clamp(REFUSAL_AT_LEAST, REFUSAL_AT_MOST);
    let mut word = [0; 1];
    if let Ok(Err(error)) = timeout(patience, stream.read(&mut word)).await
        && tls_client::reason_of(&error).is_some()
    {
        return Err(progress.broken(&error));
    }
    Ok((false, None))
}
