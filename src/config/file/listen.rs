//! The listeners for clients, and their protocols.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::TableShape;
use super::{DurationText, Located, LocatedTable, SizeText};

/// One client-facing listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Listen {
    /// `IP:PORT`; port 0 takes any free port.
    #[schemars(required)]
    pub(in crate::config) address: Option<Located<String>>,
    /// Serve HTTP/2 too: over TLS to clients that negotiate it, in cleartext to clients with prior
    /// knowledge. Default: true.
    pub(in crate::config) http2: Option<Located<bool>>,
    /// Serve over TLS only. Default: cleartext.
    pub(in crate::config) tls: Option<LocatedTable<ListenTls>>,
    /// Accept connections only from proxies that send the client's address in the PROXY protocol.
    /// Default: clients connect directly.
    pub(in crate::config) proxy_protocol: Option<LocatedTable<ProxyProtocol>>,
}

/// TLS settings of a listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ListenTls {
    /// The certificates. The requested server name selects one by its names; without a match the
    /// first is used.
    #[schemars(required, length(min = 1))]
    pub(in crate::config) certificates: Option<Vec<LocatedTable<CertificateFiles>>>,
    /// The lowest accepted version, `1.2` or `1.3`. Default: `1.2`.
    #[schemars(extend("enum" = ["1.2", "1.3"]))]
    pub(in crate::config) min_version: Option<Located<String>>,
    /// A file of CA certificates in PEM: clients are asked for a certificate that one of these
    /// issued. Default: no client certificates.
    pub(in crate::config) client_ca: Option<Located<String>>,
    /// Whether a client certificate is `required` or `optional`. Default: `required`.
    #[schemars(extend("enum" = ["required", "optional"]))]
    pub(in crate::config) client_auth: Option<Located<String>>,
    /// The longest time for a handshake. Default: 10s.
    pub(in crate::config) handshake_timeout: Option<Located<DurationText>>,
}

/// A certificate and its private key.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CertificateFiles {
    /// A file in PEM: the certificate, then its intermediate certificates.
    #[schemars(required)]
    pub(in crate::config) certificate: Option<Located<String>>,
    /// A file in PEM with the private key.
    #[schemars(required)]
    pub(in crate::config) key: Option<Located<String>>,
}

/// The proxies that may send PROXY headers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ProxyProtocol {
    /// Networks and addresses of the proxies. Their connections must begin with the header;
    /// connections from elsewhere are refused.
    #[schemars(required, length(min = 1))]
    pub(in crate::config) from: Option<Vec<Located<String>>>,
    /// The longest header of version 2, without its first 16 bytes. TLVs with a client certificate
    /// take several KiB. At most 64 KiB less one byte. Default: 8KiB.
    pub(in crate::config) max_header: Option<Located<SizeText>>,
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
