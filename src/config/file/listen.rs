//! Where clients connect, and how they may speak there.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::TableShape;
use super::{DurationText, Located, LocatedTable};

/// One client-facing listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Listen {
    /// `IP:PORT`; port 0 takes any free port.
    #[schemars(required)]
    pub(in crate::config) address: Option<Located<String>>,
    /// Serve HTTP/2 too: over TLS to who negotiates it, in cleartext to who begins with it.
    /// Default: true.
    pub(in crate::config) http2: Option<Located<bool>>,
    /// Serve over TLS, and only so. Default: cleartext.
    pub(in crate::config) tls: Option<LocatedTable<ListenTls>>,
    /// Take connections only from proxies that say, in the PROXY protocol, for whom. Default:
    /// clients connect themselves.
    pub(in crate::config) proxy_protocol: Option<LocatedTable<ProxyProtocol>>,
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ListenTls {
    /// The names in each certificate decide whom it answers; the first answers where none matches.
    #[schemars(required, length(min = 1))]
    pub(in crate::config) certificates: Option<Vec<LocatedTable<CertificateFiles>>>,
    /// The lowest version that is spoken, `1.2` or `1.3`. Default: `1.2`.
    pub(in crate::config) min_version: Option<Located<String>>,
    /// A file of certificates in PEM: clients are asked for a certificate that one of these issued.
    /// Default: they are not asked.
    pub(in crate::config) client_ca: Option<Located<String>>,
    /// Whether a client without a certificate is turned away: `required` or `optional`. Default:
    /// `required`.
    pub(in crate::config) client_auth: Option<Located<String>>,
    /// A handshake that takes longer is cut. Default: 10s.
    pub(in crate::config) handshake_timeout: Option<Located<DurationText>>,
}

/// A certificate and the key to it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CertificateFiles {
    /// A file in PEM: the certificate, then those above it.
    #[schemars(required)]
    pub(in crate::config) certificate: Option<Located<String>>,
    /// A file in PEM with its private key.
    #[schemars(required)]
    pub(in crate::config) key: Option<Located<String>>,
}

/// Who may say for whom a connection is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ProxyProtocol {
    /// Networks and addresses of the proxies. Their connections must begin with the header;
    /// connections from elsewhere are refused.
    #[schemars(required, length(min = 1))]
    pub(in crate::config) from: Option<Vec<Located<String>>>,
}

impl TableShape for Listen {
    const EXPECTED: &str = "a table such as { address = \"0.0.0.0:8080\" }";
}

impl TableShape for ListenTls {
    const EXPECTED: &str =
        "a table such as { certificates = [{ certificate = \"a.pem\", key = \"a.key\" }] }";
}

impl TableShape for CertificateFiles {
    const EXPECTED: &str = "a table such as { certificate = \"a.pem\", key = \"a.key\" }";
}

impl TableShape for ProxyProtocol {
    const EXPECTED: &str = "a table such as { from = [\"10.0.0.0/8\"] }";
}
