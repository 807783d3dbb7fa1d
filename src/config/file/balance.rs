//! Balancing and session affinity of a pool, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, LocatedTable, TableShape};
use super::scalar::{AgeText, DurationText, WholeNumber};

/// A balancing method and its options.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Balance {
    /// `least_requests`: of two endpoints drawn by weight, the one with fewer requests in flight;
    /// `peak_ewma`: of two, the one with the lower expected wait; `round_robin`: in turn, smoothly,
    /// by weight; `random`: by weight; `ring_hash` and `maglev`: by a hash of `key`.
    #[schemars(required)]
    #[schemars(extend("enum" = ["least_requests", "peak_ewma", "round_robin", "random", "ring_hash", "maglev"]))]
    pub(in crate::config) method: Option<Located<String>>,
    /// With `ring_hash` and `maglev`: the part of a request that is hashed. A request without it is
    /// balanced by `least_requests`.
    pub(in crate::config) key: Option<LocatedTable<HashKey>>,
    /// With `ring_hash` and `maglev`: an endpoint takes no more keys when its requests in flight
    /// exceed this percentage of the mean, from 101 to 1000. Default: no limit.
    pub(in crate::config) max_load_percent: Option<Located<WholeNumber>>,
    /// With `ring_hash`: points on the ring per unit of weight. More points make shares more even
    /// and the ring larger; a zone has at most 131072 points, so that each unit may get fewer.
    /// Default: 512.
    pub(in crate::config) points: Option<Located<WholeNumber>>,
}

/// The part of a request that is hashed: one of these keys.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct HashKey {
    /// The first header field of this name.
    pub(in crate::config) header: Option<Located<String>>,
    /// The cookie of this name.
    pub(in crate::config) cookie: Option<Located<String>>,
    /// `true`: the path, without the query.
    pub(in crate::config) path: Option<Located<bool>>,
    /// `true`: the client's address.
    pub(in crate::config) source: Option<Located<bool>>,
}

/// Session affinity: one of `cookie`, `header` and `source`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Affinity {
    /// By a cookie of this name, which is set for clients without one. The cookie is encrypted and
    /// authenticated: it reveals nothing about endpoints, and a changed one is ignored.
    pub(in crate::config) cookie: Option<Located<String>>,
    /// By the value of this header field: equal values go to the same endpoint.
    pub(in crate::config) header: Option<Located<String>>,
    /// `true`: by the client's address.
    pub(in crate::config) source: Option<Located<bool>>,
    /// With `cookie`: its lifetime after it was last set, from 1s to 400d; it is renewed in the
    /// second half of that time. Default: the session of the client.
    pub(in crate::config) ttl: Option<Located<AgeText>>,
    /// With `cookie`: the endpoint of a client after its first endpoint failed and returned: the
    /// `first`, or `stay` with the second. Default: `first`.
    #[schemars(extend("enum" = ["first", "stay"]))]
    pub(in crate::config) on_return: Option<Located<String>>,
    /// With `cookie`: how long a drained endpoint still gets requests of its clients. Default: 10m.
    pub(in crate::config) drain: Option<Located<DurationText>>,
    /// With `cookie`: a file of secrets of 64 hexadecimal digits (`openssl rand -hex 32`), one per
    /// line. The first encrypts, all of them decrypt. Default: a random secret, which is kept in
    /// `state_dir`.
    pub(in crate::config) secret_file: Option<Located<String>>,
}

impl TableShape for Balance {
    const EXPECTED: &str = "a method such as \"round_robin\", or { method = \"ring_hash\", key = { header = \"x-user\" } }";
    const WORDS: &[&str] = &["least_requests", "peak_ewma", "round_robin", "random"];
}

impl TableShape for HashKey {
    const EXPECTED: &str = "a table such as { header = \"x-user\" }";
}

impl TableShape for Affinity {
    const EXPECTED: &str = "a table such as { cookie = \"gapless\" }";
}
