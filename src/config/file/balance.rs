//! How a pool's endpoints are chosen, and what stays with one of them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, LocatedTable, TableShape};
use super::scalar::{AgeText, DurationText, WholeNumber};

/// A method and its options.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Balance {
    /// `least_requests`: of two drawn by weight the one with fewer requests in flight; `peak_ewma`: the
    /// one that promises the shorter wait; `round_robin`: in turn, smoothly, by weight; `random`: by
    /// weight; `ring_hash` and `maglev`: by a `key`.
    #[schemars(required)]
    pub(in crate::config) method: Option<Located<String>>,
    /// With `ring_hash` and `maglev`: what of a request says where it goes. A request that has none
    /// goes as by `least_requests`.
    pub(in crate::config) key: Option<LocatedTable<HashKey>>,
    /// With `ring_hash` and `maglev`: an endpoint that has this part of the mean in flight takes no more
    /// keys, in per cent, from 101 to 1000. Default: there is no such bound.
    pub(in crate::config) max_load_percent: Option<Located<WholeNumber>>,
    /// With `ring_hash`: points on the ring for a unit of weight. More make shares more even, and the
    /// ring larger: beyond 131072 in a zone each unit has fewer. Default: 512.
    pub(in crate::config) points: Option<Located<WholeNumber>>,
}

/// What of a request says where it goes; one of these.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct HashKey {
    /// The first field of this name.
    pub(in crate::config) header: Option<Located<String>>,
    /// The cookie of this name.
    pub(in crate::config) cookie: Option<Located<String>>,
    /// `true`: the path, without the query.
    pub(in crate::config) path: Option<Located<bool>>,
    /// `true`: the client's address.
    pub(in crate::config) source: Option<Located<bool>>,
}

/// By what requests stay with an endpoint: one of `cookie`, `header` and `source`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Affinity {
    /// By a cookie of this name, which is set where a client has none. It is sealed: it tells clients
    /// nothing of endpoints, and leads nowhere if they change it.
    pub(in crate::config) cookie: Option<Located<String>>,
    /// By what this field holds: the same leads to the same endpoint.
    pub(in crate::config) header: Option<Located<String>>,
    /// `true`: by the client's address.
    pub(in crate::config) source: Option<Located<bool>>,
    /// With `cookie`: how long it lasts after it was last written, from 1s to 400d; it is written again
    /// in the second half of that. Default: as long as the client's session.
    pub(in crate::config) ttl: Option<Located<AgeText>>,
    /// With `cookie`: where clients go whose endpoint failed and is back: to the `first`, or they `stay`
    /// where they went. Default: `first`.
    pub(in crate::config) on_return: Option<Located<String>>,
    /// With `cookie`: how long an endpoint that is drained still gets its clients. Default: 10m.
    pub(in crate::config) drain: Option<Located<DurationText>>,
    /// With `cookie`: a file of secrets of 64 hexadecimal digits (`openssl rand -hex 32`), one a line. The
    /// first seals, all of them open. Default: a random one, which is kept in `state_dir`.
    pub(in crate::config) secret_file: Option<Located<String>>,
}

impl TableShape for Balance {
    const EXPECTED: &str = "a method such as \"round_robin\", or { method = \"ring_hash\", key = { header = \"x-user\" } }";
}

impl TableShape for HashKey {
    const EXPECTED: &str = "a table such as { header = \"x-user\" }";
}

impl TableShape for Affinity {
    const EXPECTED: &str = "a table such as { cookie = \"gapless\" }";
}
