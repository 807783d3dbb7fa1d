//! How the names of endpoints are resolved.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, TableShape};
use super::scalar::{DurationText, WholeNumber};

/// How the names of endpoints are resolved.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Dns {
    /// The DNS servers, as `IP:PORT` or `IP`. Default: the servers in the system's `resolv.conf`,
    /// with its search list and the hosts file.
    pub(in crate::config) servers: Option<Vec<Located<String>>>,
    /// Time for an answer; the query is sent three times within it. Default: 2s.
    pub(in crate::config) timeout: Option<Located<DurationText>>,
    /// The shortest time between two queries for a record, whatever its TTL is. Default: 1s.
    pub(in crate::config) min_ttl: Option<Located<DurationText>>,
    /// The longest time between two queries for a record. Default: 5m.
    pub(in crate::config) max_ttl: Option<Located<DurationText>>,
    /// Time until the next query after a lookup that failed or found nothing; it doubles with each
    /// further failure. Default: 1s.
    pub(in crate::config) retry: Option<Located<DurationText>>,
    /// The maximum of `retry`; also the longest time between two queries for a name while one of
    /// its endpoints is down. Default: 30s.
    pub(in crate::config) retry_max: Option<Located<DurationText>>,
    /// Which addresses of a host are endpoints: `both`, `ipv4` or `ipv6`. Default: `both`.
    #[schemars(extend("enum" = ["both", "ipv4", "ipv6"]))]
    pub(in crate::config) family: Option<Located<String>>,
    /// What happens to endpoints when DNS has no address for their name any more: `keep` leaves
    /// them in service while they are healthy; `obey` removes them. Default: `keep`.
    #[schemars(extend("enum" = ["keep", "obey"]))]
    pub(in crate::config) empty: Option<Located<String>>,
    /// The most addresses or targets used from one answer, and endpoints of one name; the rest is
    /// ignored. Default: 1000.
    pub(in crate::config) max_answers: Option<Located<WholeNumber>>,
    /// Networks such as `127.0.0.0/8` whose addresses are accepted from DNS although they are
    /// loopback or link-local (such as the metadata service of a cloud). Other networks need no
    /// entry. Default: none.
    pub(in crate::config) allow: Option<Vec<Located<String>>>,
}

impl TableShape for Dns {
    const EXPECTED: &str = "a table such as { servers = [\"10.0.0.53:53\"] }";
}
