//! How endpoints are spoken to: over TLS or in cleartext, in which version of HTTP, and whether they
//! are told whose connection it is.
//!
//! Certificates and keys are the bytes of their files, which the configuration has read and `net`
//! makes use of.

use std::fmt;
use std::sync::Arc;

/// How the endpoints of a pool are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamProtocol {
    /// Speak TLS, and how; absent, in cleartext.
    pub tls: Option<Arc<UpstreamTls>>,
    /// The version of HTTP.
    pub http_version: UpstreamHttpVersion,
    /// Begin each connection with the client's address, and how; it then serves no other client.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
}

/// The version of HTTP that is spoken to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamHttpVersion {
    #[default]
    H1,
    /// HTTP/2 (RFC 9113): with prior knowledge in cleartext, required of the endpoint over TLS.
    H2,
    /// What the endpoint chooses over TLS, HTTP/2 rather than HTTP/1.1; in cleartext HTTP/1.1.
    Auto,
}

impl UpstreamHttpVersion {
    /// What is offered over TLS (RFC 7301).
    pub fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::H1 => &[b"http/1.1"],
            Self::H2 => &[b"h2"],
            Self::Auto => &[b"h2", b"http/1.1"],
        }
    }
}

/// The versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    /// One line of text.
    V1,
    V2,
}

/// How TLS is spoken to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name that is asked for and that the certificate must have; absent, the host that is asked
    /// for, or else the address.
    pub server_name: Option<String>,
    /// Certificates in PEM of the issuers that are trusted; absent, the system's.
    pub roots: Option<Arc<[u8]>>,
    /// Shown to an endpoint that asks for one.
    pub client_certificate: Option<CertificateAndKey>,
    /// Whether the endpoint's certificate is checked at all.
    pub is_verification_enabled: bool,
    /// Protocols that are offered, the preferred one first (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}

/// A certificate of this side, with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateAndKey {
    /// The certificate and those above it, in PEM.
    pub chain: Arc<[u8]>,
    /// The private key, in PEM. Never shown.
    pub key: Arc<[u8]>,
}

impl fmt::Debug for CertificateAndKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_omits_private_key() {
        let bytes: Arc<[u8]> = Arc::from(&b"secret"[..]);
        let certificate = CertificateAndKey { chain: Arc::clone(&bytes), key: bytes };
        assert_eq!(format!("{certificate:?}"), "ClientCertificate { .. }");
    }
}
