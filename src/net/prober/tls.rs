//! TLS of probes: configurations, handshakes, and late refusals of the client certificate.

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

use crate::logic::model::upstream_protocol::UpstreamTls;
use crate::logic::probing::probe::ProbeKind;
use crate::net::tls_client;

use super::connection::{CheckResult, PassedCheck};
use super::context::ProbeContext;
use super::progress::{AttemptFailure, ProbeProgress};
use super::stream::ProbeStream;

/// A refusal after the handshake is awaited for as long as the handshake took, within these
/// bounds.
const MIN_REFUSAL_WAIT: Duration = Duration::from_millis(2);
const MAX_REFUSAL_WAIT: Duration = Duration::from_millis(100);

/// The TLS configuration of each live probe; entries of dropped probes are removed.
#[derive(Debug, Default)]
pub(super) struct TlsConfigCache {
    configs: RefCell<Vec<(Weak<UpstreamTls>, Arc<ClientConfig>)>>,
}

impl TlsConfigCache {
    /// The TLS configuration for `probe`.
    pub(super) async fn get_or_build(
        &self,
        probe: &Arc<UpstreamTls>,
    ) -> Result<Arc<ClientConfig>, Error> {
        if let Some(config) = self.find(probe) {
            return Ok(config);
        }
        let mut config = tls_client::client_config(probe).await?;
        // An endpoint that resumes a session does not show its certificate.
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        let mut configs = self.configs.borrow_mut();
        configs.retain(|(probe, _)| probe.strong_count() > 0);
        configs.push((Arc::downgrade(probe), Arc::clone(&config)));
        Ok(config)
    }

    fn find(&self, probe: &Arc<UpstreamTls>) -> Option<Arc<ClientConfig>> {
        let configs = self.configs.borrow();
        let found = configs.iter().find(|(owner, _)| owner.as_ptr() == Arc::as_ptr(probe));
        found.map(|(_, config)| Arc::clone(config))
    }
}

/// Runs the TLS handshake on a new connection.
pub(super) async fn tls_handshake(
    context: &ProbeContext<'_>,
    progress: &ProbeProgress,
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, AttemptFailure> {
    let name = probe_server_name(context).ok_or(AttemptFailure::Local)?;
    let began = Instant::now();
    let connected = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
    progress.handshake_time.set(began.elapsed());
    connected.map_err(|error| progress.io_failure(&error))
}

/// The server name: that of the probe's TLS settings, its host, or the address.
fn probe_server_name(context: &ProbeContext<'_>) -> Option<ServerName<'static>> {
    let host = match &context.spec.kind {
        ProbeKind::Http(http) => http.host.as_deref(),
        ProbeKind::Grpc(grpc) => grpc.authority.as_deref(),
        ProbeKind::Tcp { .. } | ProbeKind::Tls => None,
    };
    let host = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let host = host.as_ref().map(|authority| authority.host().trim_matches(['[', ']']));
    let own = context.spec.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    tls_client::server_name(own.or(host), context.target.ip())
}

/// Waits briefly after the handshake: in TLS 1.3 an endpoint sends its refusal of the client
/// certificate after this side has completed the handshake.
pub(super) async fn await_refusal(
    progress: &ProbeProgress,
    mut stream: Box<ProbeStream>,
) -> CheckResult {
    let refusal_wait = progress.handshake_time.get().clamp(MIN_REFUSAL_WAIT, MAX_REFUSAL_WAIT);
    let mut byte = [0; 1];
    if let Ok(Err(error)) = timeout(refusal_wait, stream.read(&mut byte)).await
        && tls_client::tls_failure_reason(&error).is_some()
    {
        return Err(progress.io_failure(&error));
    }
    Ok(PassedCheck { is_degraded: false, transport: None })
}
