//! TLS settings of a listener: validated bytes and options, independent of the TLS library.

use std::sync::Arc;
use std::time::Duration;

use super::upstream_protocol::CertificateAndKey;

/// Default bound on the duration of a handshake.
pub const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS settings of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Never empty. The first one is sent when no server name matches.
    pub certificates: Vec<CertificateAndKey>,
    /// The lowest TLS version that is accepted.
    pub min_version: TlsVersion,
    /// Requests client certificates and verifies them; `None` requests none.
    pub client_authority: Option<ClientAuthority>,
    /// A longer handshake is aborted.
    pub handshake_timeout: Duration,
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    V12,
    V13,
}

/// The issuers of client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthority {
    /// Issuer certificates in PEM.
    pub roots: Arc<[u8]>,
    /// Whether a client without a certificate is rejected. A client with an invalid certificate
    /// always is.
    pub is_required: bool,
}
