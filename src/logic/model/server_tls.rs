//! What a listener's TLS is made of: checked bytes and choices, not yet what a library wants.

use std::sync::Arc;
use std::time::Duration;

use super::upstream_protocol::CertificateAndKey;

/// How long a handshake may take unless the configuration says otherwise.
pub const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Never empty. The first one answers where no name matches.
    pub certificates: Vec<CertificateAndKey>,
    /// The lowest version that is spoken.
    pub min_version: TlsVersion,
    /// Which clients are asked for a certificate; absent, none is.
    pub client_authority: Option<ClientAuthority>,
    /// A handshake that takes longer is cut.
    pub handshake_timeout: Duration,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    V12,
    V13,
}

/// Who vouches for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthority {
    /// Certificates in PEM of the issuers that are trusted.
    pub roots: Arc<[u8]>,
    /// Whether a client without a certificate is turned away. One with a bad one always is.
    pub is_required: bool,
}
