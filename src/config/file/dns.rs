//! How names of endpoints are looked up.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, TableShape};
use super::scalar::{DurationText, WholeNumber};

/// How names of endpoints are looked up.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Dns {
    /// The servers that are asked, as `IP:PORT` or `IP`. Default: those of the system's `resolv.conf`, with
    /// its search list and its file of hosts.
    pub(in crate::config) servers: Option<Vec<Located<String>>>,
    /// An answer must be there by then; a question is sent three times within it. Default: 2s.
    pub(in crate::config) timeout: Option<Located<DurationText>>,
    /// No record is asked for more often than this, whatever its TTL says. Default: 1s.
    pub(in crate::config) min_ttl: Option<Located<DurationText>>,
    /// Nor more seldom than this. Default: 5m.
    pub(in crate::config) max_ttl: Option<Located<DurationText>>,
    /// After a lookup that failed or found nothing it is tried again so much later; each further time
    /// twice as much. Default: 1s.
    pub(in crate::config) retry: Option<Located<DurationText>>,
    /// The longest that becomes; nor is a name looked up more seldom while an endpoint of it is down.
    /// Default: 30s.
    pub(in crate::config) retry_max: Option<Located<DurationText>>,
    /// Which addresses of a host are endpoints: `both`, `ipv4` or `ipv6`. Default: `both`.
    pub(in crate::config) family: Option<Located<String>>,
    /// What becomes of endpoints when DNS says that their name has none any more: `keep` leaves them in
    /// service while they are well; `obey` removes them. Default: `keep`.
    pub(in crate::config) empty: Option<Located<String>>,
    /// Addresses or targets taken of one answer, and endpoints of one name; the rest is left out.
    /// Default: 1000.
    pub(in crate::config) max_answers: Option<Located<WholeNumber>>,
    /// Networks such as `127.0.0.0/8` whose addresses may be endpoints' although they are this machine's
    /// (loopback) or next to it (link-local, a cloud's metadata). Default: none; others need not be named.
    pub(in crate::config) allow: Option<Vec<Located<String>>>,
}

impl TableShape for Dns {
    const EXPECTED: &str = "a table such as { servers = [\"10.0.0.53:53\"] }";
}
