//! The actions of a route, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Entries, Located, LocatedTable, TableShape};
use super::scalar::WholeNumber;

/// A pool and its share of a route's requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Share {
    /// The pool's name.
    #[schemars(required)]
    pub(in crate::config) pool: Option<Located<String>>,
    /// Its share, relative to the other pools, 0 to 1000. Default: 1.
    pub(in crate::config) weight: Option<Located<WholeNumber>>,
}

/// A redirect. Parts of the URL without a key stay as in the request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Redirect {
    /// Redirect to https. Without other keys the route matches only requests that arrive without
    /// TLS. Default: false.
    pub(in crate::config) to_https: Option<Located<bool>>,
    /// Redirect to this host, with `:port` if needed.
    pub(in crate::config) host: Option<Located<String>>,
    /// Redirect to this path, which may include a query.
    pub(in crate::config) path: Option<Located<String>>,
    /// Redirect to the path without this prefix.
    pub(in crate::config) strip_prefix: Option<Located<String>>,
    /// Redirect to the path with this prefix in place of the route's `path`.
    pub(in crate::config) replace_prefix: Option<Located<String>>,
    /// The status: 301, 302, 303, 307 or 308. Default: 302.
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub(in crate::config) status: Option<Located<WholeNumber>>,
}

/// A fixed response for the client.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Respond {
    /// The status, 200 to 599. Default: 200; in a `fallback`, the status of the error.
    pub(in crate::config) status: Option<Located<WholeNumber>>,
    /// The body, at most 64 KiB. Default: empty.
    pub(in crate::config) body: Option<Located<String>>,
    /// The type of the body. Default: `text/plain; charset=utf-8`.
    pub(in crate::config) content_type: Option<Located<String>>,
}

/// Changes to the host and path of requests to endpoints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rewrite {
    /// Replaces the route's `path`.
    pub(in crate::config) prefix: Option<Located<String>>,
    /// Replaces the Host. `x-forwarded-host` keeps the client's value.
    pub(in crate::config) host: Option<Located<String>>,
    /// Every match of this regular expression in the path is replaced with `to`.
    pub(in crate::config) regex: Option<Located<String>>,
    /// The replacement; `$1` and `${name}` stand for the matches of the groups.
    pub(in crate::config) to: Option<Located<String>>,
}

/// Changes to the header fields of a message: first `remove`, then `set`, then `add`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct HeaderChanges {
    /// Fields by name; existing fields of the name are replaced.
    pub(in crate::config) set: Option<Located<Entries<Located<String>>>>,
    /// Fields by name; existing fields of the name are kept.
    pub(in crate::config) add: Option<Located<Entries<Located<String>>>>,
    /// Names of fields that are removed.
    pub(in crate::config) remove: Option<Vec<Located<String>>>,
}

/// A pool that gets copies of requests; its responses are discarded.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Mirror {
    /// The pool's name.
    #[schemars(required)]
    pub(in crate::config) pool: Option<Located<String>>,
    /// The percentage of requests that are copied. Default: 100.
    pub(in crate::config) percent: Option<Located<WholeNumber>>,
}

/// The response when the route's own pool has no endpoint left to try: one of `pool`, `respond` and
/// `file`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Fallback {
    /// The name of another pool, for requests that may be sent again.
    pub(in crate::config) pool: Option<Located<String>>,
    /// A fixed response for the client.
    pub(in crate::config) respond: Option<LocatedTable<Respond>>,
    /// A file with the body of a fixed response, at most 64 KiB, relative to the configuration
    /// file. It is read together with the configuration; its extension determines the type of the
    /// body.
    pub(in crate::config) file: Option<Located<String>>,
}

impl TableShape for Share {
    const EXPECTED: &str = "a table such as { pool = \"web\", weight = 95 }";
}

impl TableShape for Redirect {
    const EXPECTED: &str = "a table such as { to_https = true }";
}

impl TableShape for Respond {
    const EXPECTED: &str = "a table such as { status = 503, body = \"sorry\" }";
}

impl TableShape for Rewrite {
    const EXPECTED: &str = "a table such as { prefix = \"/v2/\" }";
}

impl TableShape for HeaderChanges {
    const EXPECTED: &str = "a table such as { set = { x-env = \"live\" } }";
}

impl TableShape for Mirror {
    const EXPECTED: &str = "a table such as { pool = \"shadow\", percent = 10 }";
}

impl TableShape for Fallback {
    const EXPECTED: &str = "a table such as { pool = \"other\" }";
}
