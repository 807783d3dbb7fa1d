//! The protocol of connections to endpoints: TLS or cleartext, the HTTP version, and the PROXY
//! protocol.
//!
//! Certificates and keys are the bytes of their files: the configuration reads them, and `net`
//! parses them.

use std::fmt;
use std::sync::Arc;

/// The protocol settings of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamProtocol {
    /// TLS settings; `None` means cleartext.
    pub tls: Option<Arc<UpstreamTls>>,
    pub http_version: UpstreamHttpVersion,
    /// Send a PROXY protocol header with the client's address on each connection. Such a connection
    /// serves no other client.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
}

/// The HTTP version used towards endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamHttpVersion {
    #[default]
    H1,
    /// HTTP/2 (RFC 9113): with prior knowledge in cleartext, required of the endpoint over TLS.
    H2,
    /// Over TLS the endpoint chooses, and HTTP/2 is preferred; in cleartext HTTP/1.1.
    Auto,
}

impl UpstreamHttpVersion {
    /// The ALPN protocols to offer (RFC 7301).
    pub fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::H1 => &[b"http/1.1"],
            Self::H2 => &[b"h2"],
            Self::Auto => &[b"h2", b"http/1.1"],
        }
    }
}

/// Version of the PROXY protocol header (HAProxy, "The PROXY protocol", sections 2.1 and 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    /// The human-readable header, in one line of text.
    V1,
    V2,
}

/// TLS settings towards an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// SNI and the name that the certificate must have. `None` uses the requested host, or else the
    /// address.
    pub server_name: Option<String>,
    /// Issuer certificates in PEM; `None` uses the system's trust store.
    pub roots: Option<Arc<[u8]>>,
    /// Sent to an endpoint that requests a client certificate.
    pub client_certificate: Option<CertificateAndKey>,
    /// Whether the endpoint's certificate is verified.
    pub is_verification_enabled: bool,
    /// ALPN protocols to offer, the preferred one first (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}

/// A certificate chain with its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateAndKey {
    /// The certificate and its intermediates, in PEM.
    pub chain: Arc<[u8]>,
    /// The private key, in PEM. Never part of any output.
    pub key: Arc<[u8]>,
}

impl fmt::Debug for CertificateAndKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAndKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_omits_private_key() {
        let bytes: Arc<[u8]> = Arc::from(&b"secret"[..]);
        let certificate = CertificateAndKey { chain: Arc::clone(&bytes), key: bytes };
        assert_eq!(format!("{certificate:?}"), "CertificateAndKey { .. }");
    }
}
