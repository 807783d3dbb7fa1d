//! TLS with clients: the configuration of a listener as one of rustls, and the handshake.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{Error, ProtocolVersion, RootCertStore, ServerConfig, version};
use tokio_rustls::TlsAcceptor;

use super::certificate_resolver::CertificateResolver;
use super::forwarded_client_cert;
use crate::logic::model::server_tls::{ServerTls, TlsVersion};
use crate::net::client_stream::{ClientStream, WriteTimeoutStream};

const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Encrypts the session tickets of all listeners and workers, so that a session can be resumed on
/// another worker, and after a reload.
static SHARED_TICKETER: OnceLock<Arc<dyn ProducesTickets>> = OnceLock::new();

fn shared_ticketer() -> Result<Arc<dyn ProducesTickets>, Error> {
    if let Some(ticketer) = SHARED_TICKETER.get() {
        return Ok(Arc::clone(ticketer));
    }
    let ticketer = Ticketer::new()?;
    Ok(Arc::clone(SHARED_TICKETER.get_or_init(|| ticketer)))
}

/// The rustls configuration of a listener.
///
/// # Errors
/// When a certificate or key is unusable, or the system has no randomness.
pub fn server_config(tls: &ServerTls, is_http2_enabled: bool) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = match tls.min_version {
        TlsVersion::V12 => rustls::ALL_VERSIONS,
        TlsVersion::V13 => &[&version::TLS13],
    };
    let certificates = CertificateResolver::new(&tls.certificates, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?;
    let builder = match &tls.client_authority {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(
                CertificateDer::pem_slice_iter(&clients.roots).flatten(),
            );
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if clients.is_required { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|error| Error::General(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = if is_http2_enabled {
        vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()]
    } else {
        vec![ALPN_HTTP1.to_vec()]
    };
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Early data can be replayed (RFC 8470).
    config.max_early_data_size = 0;
    if tls.client_authority.is_some() {
        // A client that resumes a session does not show its certificate, which may be revoked, or
        // whose issuer may no longer be trusted.
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = shared_ticketer()?;
    }
    Ok(Arc::new(config))
}

/// A client connection after its handshake.
#[derive(Debug)]
pub struct AcceptedTls {
    pub stream: ClientStream,
    /// Whether HTTP/2 was negotiated by ALPN (RFC 7301).
    pub is_http2: bool,
    /// Other results of the handshake.
    pub session: TlsSession,
}

/// The results of a handshake that requests and logs use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSession {
    /// The TLS version in OpenSSL's notation: `TLSv1.3`.
    pub version: &'static str,
    /// The requested server name (RFC 6066 3), in lower case.
    pub server_name: Option<Box<str>>,
    /// The element of `x-forwarded-client-cert` for the client's verified certificate.
    pub client_identity: Option<Box<str>>,
}

/// Runs the TLS handshake with a client. The caller bounds the time.
///
/// # Errors
/// When the client closes the connection, or its TLS is malformed or not accepted.
pub async fn accept(
    config: Arc<ServerConfig>,
    stream: WriteTimeoutStream,
) -> io::Result<AcceptedTls> {
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let (_, session) = stream.get_ref();
    let is_http2 = session.alpn_protocol() == Some(ALPN_H2);
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    let client_identity = certificate
        .and_then(forwarded_client_cert::forwarded_client_cert)
        .map(String::into_boxed_str);
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "-",
    };
    let server_name = session.server_name().map(Box::from);
    let session = TlsSession { version, server_name, client_identity };
    Ok(AcceptedTls { stream: ClientStream::tls(stream), is_http2, session })
}
