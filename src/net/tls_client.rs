//! TLS towards endpoints: the configuration as one of rustls, and the meaning of its errors.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use crate::logic::model::outcome::{CertificateProblem, FailureReason};
use crate::logic::model::upstream_protocol::UpstreamTls;

/// The system's root certificates, read once.
static SYSTEM_ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();

/// The rustls configuration for `tls`, with rustls's default for session resumption.
///
/// # Errors
/// If a certificate or key is unusable, which the configuration check excludes.
pub(super) async fn client_config(tls: &UpstreamTls) -> Result<ClientConfig, Error> {
    let roots = match &tls.roots {
        Some(pem) => Arc::new(parse_roots(pem)),
        None => system_roots().await?,
    };
    build_config(tls, roots)
}

/// The server name to request: `name`, or the address.
pub(super) fn server_name(name: Option<&str>, address: IpAddr) -> Option<ServerName<'static>> {
    match name {
        Some(name) => ServerName::try_from(name.to_owned()).ok(),
        None => Some(address.into()),
    }
}

fn build_config(tls: &UpstreamTls, roots: Arc<RootCertStore>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if tls.is_verification_enabled {
        builder.with_root_certificates(roots)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NoCertificateVerification { provider }))
    };
    let mut config = match &tls.client_certificate {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let unreadable = |_| Error::General("the client certificate cannot be read".to_owned());
            let chain = CertificateDer::pem_slice_iter(&client.chain);
            let chain = chain.collect::<Result<_, _>>().map_err(unreadable)?;
            let key = PrivateKeyDer::from_pem_slice(&client.key).map_err(unreadable)?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols.clone_from(&tls.alpn);
    Ok(config)
}

fn parse_roots(pem: &[u8]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
    roots
}

async fn system_roots() -> Result<Arc<RootCertStore>, Error> {
    if let Some(roots) = SYSTEM_ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    // There may be hundreds of files: do not block the runtime.
    let read = tokio::task::spawn_blocking(load_system_roots);
    let roots = read.await.map_err(|error| Error::General(error.to_string()))?;
    Ok(Arc::clone(SYSTEM_ROOTS.get_or_init(|| roots)))
}

fn load_system_roots() -> Arc<RootCertStore> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        tracing::warn!(errors = ?loaded.errors, "no system root certificates found");
    }
    Arc::new(roots)
}

/// The rustls configuration of a command that waits for its response. `ca` holds the trusted
/// issuers in PEM; `None` stands for those of the system.
///
/// # Errors
/// If `ca` has no certificate.
pub fn blocking_config(ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, Error> {
    let roots = ca.map_or_else(load_system_roots, |pem| Arc::new(parse_roots(pem)));
    if ca.is_some() && roots.is_empty() {
        return Err(Error::General("the file of CA certificates has none".to_owned()));
    }
    let tls = UpstreamTls {
        server_name: None,
        roots: None,
        client_certificate: None,
        is_verification_enabled: true,
        alpn: vec![b"http/1.1".to_vec()],
    };
    build_config(&tls, roots).map(Arc::new)
}

/// The failure reason for a TLS error; `None` for an error of another kind.
pub(super) fn tls_failure_reason(error: &io::Error) -> Option<FailureReason> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(error) = error else { return Some(FailureReason::Handshake) };
    Some(FailureReason::Certificate(match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            CertificateProblem::Expired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateProblem::NotYetValid
        }
        CertificateError::UnknownIssuer => CertificateProblem::UnknownIssuer,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateProblem::WrongName
        }
        CertificateError::Revoked => CertificateProblem::Revoked,
        _ => CertificateProblem::Invalid,
    }))
}

/// Whether the peer refused this side's handshake, typically its client certificate. In TLS 1.3
/// the refusal arrives after this side has completed the handshake; the peer has then read nothing
/// that was sent after it.
pub(super) fn is_handshake_refusal(error: &io::Error) -> bool {
    let Some(Error::AlertReceived(alert)) = error.get_ref().and_then(|error| error.downcast_ref())
    else {
        return false;
    };
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure
    )
}

/// Accepts any certificate. That the endpoint has the key to it is still verified.
#[derive(Debug)]
struct NoCertificateVerification {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NoCertificateVerification {
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
