//! The listeners for operators and for programs that watch the instance.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::TableShape;
use super::{CertificateFiles, Located, LocatedTable};

/// The listener for operators: API, metrics and dashboard.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Admin {
    /// `IP:PORT`, or `off`. An address that other machines can reach needs `tls` and `token_file`.
    /// Default: `127.0.0.1:9900`.
    pub(in crate::config) address: Option<Located<String>>,
    /// The certificate and its key: the listener serves over TLS only. Default: cleartext.
    pub(in crate::config) tls: Option<LocatedTable<CertificateFiles>>,
    /// A file with a token of 16 or more characters, which each request must carry as
    /// `Authorization: Bearer TOKEN`. Default: no token.
    pub(in crate::config) token_file: Option<Located<String>>,
}

/// A read-only listener: `/metrics`, `/readyz`, `/healthz` and `/api/v1/status`, for GET and HEAD.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Status {
    /// `IP:PORT`; any address of this machine, such as `0.0.0.0:9901`.
    #[schemars(required)]
    pub(in crate::config) address: Option<Located<String>>,
}

impl TableShape for Admin {
    const EXPECTED: &str = "a table such as { address = \"127.0.0.1:9900\" }";
}

impl TableShape for Status {
    const EXPECTED: &str = "a table such as { address = \"0.0.0.0:9901\" }";
}
