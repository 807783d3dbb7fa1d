//! TLS towards endpoints: what a probe says of itself, made into what the library wants.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::logic::outcome::{CertificateFault, Reason};
use crate::logic::probe::{ProbeKind, TlsProbe};

use super::{Ended, Passed, Progress, Question, Stream};

/// A refusal that comes after the handshake is waited for as long as the handshake took, within
/// these bounds.
const REFUSAL_AT_LEAST: Duration = Duration::from_millis(2);
const REFUSAL_AT_MOST: Duration = Duration::from_millis(100);

/// The system's roots, read once.
static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();

/// What was made of each probe's TLS, for as long as the probe lives.
#[derive(Debug, Default)]
pub(super) struct Configs {
    made: RefCell<Vec<(Weak<TlsProbe>, Arc<ClientConfig>)>>,
}

impl Configs {
    /// What to speak TLS with.
    pub(super) async fn of(&self, probe: &Arc<TlsProbe>) -> Result<Arc<ClientConfig>, Error> {
        if let Some(config) = self.find(probe) {
            return Ok(config);
        }
        let roots = match &probe.roots {
            Some(pem) => Arc::new(roots_of(pem)),
            None => system_roots().await?,
        };
        let config = Arc::new(make(probe, roots)?);
        let mut made = self.made.borrow_mut();
        made.retain(|(probe, _)| probe.strong_count() > 0);
        made.push((Arc::downgrade(probe), Arc::clone(&config)));
        Ok(config)
    }

    fn find(&self, probe: &Arc<TlsProbe>) -> Option<Arc<ClientConfig>> {
        let made = self.made.borrow();
        let found = made.iter().find(|(known, _)| known.as_ptr() == Arc::as_ptr(probe));
        found.map(|(_, config)| Arc::clone(config))
    }
}

fn make(probe: &TlsProbe, roots: Arc<RootCertStore>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if probe.verify {
        builder.with_root_certificates(roots)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified { provider }))
    };
    let mut config = match &probe.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let broken = |_| Error::General("the client certificate cannot be read".to_owned());
            let chain = CertificateDer::pem_slice_iter(&client.chain);
            let chain = chain.collect::<Result<_, _>>().map_err(broken)?;
            let key = PrivateKeyDer::from_pem_slice(&client.key).map_err(broken)?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols.clone_from(&probe.alpn);
    // Who resumes a session does not show its certificate again.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots_of(pem: &[u8]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
    roots
}

async fn system_roots() -> Result<Arc<RootCertStore>, Error> {
    if let Some(roots) = SYSTEM.get() {
        return Ok(Arc::clone(roots));
    }
    // Hundreds of files, perhaps: other probes must not wait for them.
    let read = tokio::task::spawn_blocking(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!(errors = ?found.errors, "the system has no certificates to trust");
        }
        Arc::new(roots)
    });
    let roots = read.await.map_err(|error| Error::General(error.to_string()))?;
    Ok(Arc::clone(SYSTEM.get_or_init(|| roots)))
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
    match own.or(host) {
        Some(name) => ServerName::try_from(name.to_owned()).ok(),
        None => Some(IpAddr::into(question.target.ip())),
    }
}

/// Waits a moment after the handshake: in TLS 1.3 an endpoint that refuses our certificate, or the
/// lack of one, says so only when the handshake is over on our side.
pub(super) async fn await_refusal(progress: &Progress, mut stream: Box<Stream>) -> Passed {
    let patience = progress.handshake.get().clamp(REFUSAL_AT_LEAST, REFUSAL_AT_MOST);
    let mut word = [0; 1];
    if let Ok(Err(error)) = timeout(patience, stream.read(&mut word)).await
        && reason_of(&error).is_some()
    {
        return Err(progress.broken(&error));
    }
    Ok((false, None))
}

/// The reason that an error of TLS gives; `None` for an error of anything else.
pub(super) fn reason_of(error: &io::Error) -> Option<Reason> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(error) = error else { return Some(Reason::Handshake) };
    Some(Reason::Certificate(match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            CertificateFault::Expired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateFault::NotYetValid
        }
        CertificateError::UnknownIssuer => CertificateFault::UnknownIssuer,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateFault::WrongName
        }
        CertificateError::Revoked => CertificateFault::Revoked,
        _ => CertificateFault::Invalid,
    }))
}

/// Takes any certificate. That the endpoint has the key to it is still checked.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
