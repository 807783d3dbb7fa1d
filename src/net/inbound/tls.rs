//! TLS with clients: what the configuration says, made into what the library wants.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{Error, ProtocolVersion, RootCertStore, ServerConfig, version};
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificates;
use super::identity;
use crate::logic::front::{ServerTls, TlsVersion};
use crate::net::client::{Bounded, ClientStream};

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Seals the tickets of all listeners and workers, so that a session that one worker began can be
/// resumed at another, and after a reload.
static TICKETS: OnceLock<Arc<dyn ProducesTickets>> = OnceLock::new();

fn tickets() -> Result<Arc<dyn ProducesTickets>, Error> {
    if let Some(tickets) = TICKETS.get() {
        return Ok(Arc::clone(tickets));
    }
    let made = Ticketer::new()?;
    Ok(Arc::clone(TICKETS.get_or_init(|| made)))
}

/// What connections are accepted with.
///
/// # Errors
/// When a certificate or key cannot be used, or chance cannot be had from the system.
pub fn server_config(tls: &ServerTls, http2: bool) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = match tls.least {
        TlsVersion::V12 => rustls::ALL_VERSIONS,
        TlsVersion::V13 => &[&version::TLS13],
    };
    let certificates = Certificates::new(&tls.certificates, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?;
    let builder = match &tls.clients {
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
    config.alpn_protocols =
        if http2 { vec![H2.to_vec(), HTTP1.to_vec()] } else { vec![HTTP1.to_vec()] };
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Early data can be replayed (RFC 8470).
    config.max_early_data_size = 0;
    if tls.clients.is_some() {
        // Who resumes a session does not show its certificate again, which may be revoked or its
        // issuer no longer trusted.
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = tickets()?;
    }
    Ok(Arc::new(config))
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Accepted {
    /// What the client sends from now on.
    pub stream: ClientStream,
    /// Whether HTTP/2 was agreed on (RFC 7301).
    pub is_http2: bool,
    /// What else was agreed on.
    pub session: Session,
}

/// What a handshake has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The version of TLS, as OpenSSL names it: `TLSv1.3`.
    pub version: &'static str,
    /// Whom the client asked for (RFC 6066 3), in lower case.
    pub server_name: Option<Box<str>>,
    /// What the client's certificate says, where one was asked for and shown.
    pub identity: Option<Box<str>>,
}

/// Shakes hands with a client; as long as the client likes.
///
/// # Errors
/// When the client does not speak TLS, or not in a way that is accepted here, or goes away.
pub async fn accept(config: Arc<ServerConfig>, stream: Bounded) -> io::Result<Accepted> {
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let (_, session) = stream.get_ref();
    let is_http2 = session.alpn_protocol() == Some(H2);
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    let identity = certificate.and_then(identity::of).map(String::into_boxed_str);
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "-",
    };
    let server_name = session.server_name().map(Box::from);
    let session = Session { version, server_name, identity };
    Ok(Accepted { stream: ClientStream::tls(stream), is_http2, session })
}
