//! What becomes of a route's requests, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Entries, Located, LocatedTable, TableShape};
use super::scalar::WholeNumber;

/// A pool and its part of a route's requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Share {
    /// The pool's name.
    #[schemars(required)]
    pub(in crate::config) pool: Option<Located<String>>,
    /// Its part, relative to the others', 0 to 1000. Default: 1.
    pub(in crate::config) weight: Option<Located<WholeNumber>>,
}

/// Where a client is sent. What is not said stays as it was asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Redirect {
    /// To https. If that is all, the route is only for requests that came without. Default: false.
    pub(in crate::config) to_https: Option<Located<bool>>,
    /// To this host, with `:port` if need be.
    pub(in crate::config) host: Option<Located<String>>,
    /// To this path, which may bring its own query.
    pub(in crate::config) path: Option<Located<String>>,
    /// To the path without this beginning.
    pub(in crate::config) strip_prefix: Option<Located<String>>,
    /// To the path with this in place of the route's own `path`.
    pub(in crate::config) replace_prefix: Option<Located<String>>,
    /// 301, 302, 303, 307 or 308. Default: 302.
    pub(in crate::config) status: Option<Located<WholeNumber>>,
}

/// A fixed answer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Respond {
    /// 200 to 599. Default: 200; in a `fallback`, that of the error.
    pub(in crate::config) status: Option<Located<WholeNumber>>,
    /// The body, 64 KiB at most. Default: empty.
    pub(in crate::config) body: Option<Located<String>>,
    /// What the body is. Default: `text/plain; charset=utf-8`.
    pub(in crate::config) content_type: Option<Located<String>>,
}

/// How endpoints are asked for something else than the client asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rewrite {
    /// In place of the route's own `path`.
    pub(in crate::config) prefix: Option<Located<String>>,
    /// In place of the Host. `x-forwarded-host` keeps the client's.
    pub(in crate::config) host: Option<Located<String>>,
    /// Every match of this regular expression in the path is replaced with `to`.
    pub(in crate::config) regex: Option<Located<String>>,
    /// What takes its place; `$1` and `${name}` stand for what its groups matched.
    pub(in crate::config) to: Option<Located<String>>,
}

/// What is done to the header fields of a message: first `remove`, then `set`, then `add`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct HeaderChanges {
    /// Fields by name, in place of what was there.
    pub(in crate::config) set: Option<Located<Entries<Located<String>>>>,
    /// Fields by name, beside what is there.
    pub(in crate::config) add: Option<Located<Entries<Located<String>>>>,
    /// Names of fields that are left out.
    pub(in crate::config) remove: Option<Vec<Located<String>>>,
}

/// A pool that gets copies of requests, and whose answers nobody sees.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Mirror {
    /// The pool's name.
    #[schemars(required)]
    pub(in crate::config) pool: Option<Located<String>>,
    /// Of a hundred requests, so many. Default: 100.
    pub(in crate::config) percent: Option<Located<WholeNumber>>,
}

/// What is left when the route's own pool has nothing left to try: one of `pool`, `respond` and
/// `file`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Fallback {
    /// Another pool, by its name, for requests that may be sent again.
    pub(in crate::config) pool: Option<Located<String>>,
    /// A fixed answer.
    pub(in crate::config) respond: Option<LocatedTable<Respond>>,
    /// A file with the body of a fixed answer, 64 KiB at most, relative to the configuration file. It
    /// is read when the configuration is; its ending says what it is.
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
