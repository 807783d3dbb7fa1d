//! Records of requests and incidents, objectives and rates, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, LocatedTable, TableShape};
use super::scalar::{AgeText, DurationText, WholeNumber};

/// One line for each request, written when the request ends.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AccessLog {
    /// `stdout`, `off`, or the path of a file, which is reopened on USR1 and at a reload; a
    /// relative path starts at the directory of the configuration file. Default: `off`.
    pub(in crate::config) to: Option<Located<String>>,
    /// `json`, or `combined` for the format of Apache and nginx. Default: `json`.
    #[schemars(extend("enum" = ["json", "combined"]))]
    pub(in crate::config) format: Option<Located<String>>,
    /// Write `*` in place of the values in a query, which may be secrets. Default: true.
    pub(in crate::config) redact_query: Option<Located<bool>>,
    /// Request fields that are added to JSON lines; fields with credentials are not allowed.
    /// Default: none.
    pub(in crate::config) headers: Option<Vec<Located<String>>>,
}

/// The ledger of incidents. With `state_dir` it is kept across restarts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Ledger {
    /// How long an incident is kept after its end, at least 1h. Default: 90d.
    pub(in crate::config) keep: Option<Located<AgeText>>,
    /// The number of incidents that are kept; beyond it the oldest are deleted. Default: 10000.
    pub(in crate::config) max: Option<Located<WholeNumber>>,
}

/// A service level objective over thirty days. Budgets and burn rates are in `/metrics`, in
/// `/api/v1/slo` and in `gapless slo`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Slo {
    /// The share of requests that end neither in a server error nor incomplete, such as `99.95%`.
    /// Default: no objective.
    pub(in crate::config) availability: Option<Located<String>>,
    /// The latency objective for all other requests. Default: no objective.
    pub(in crate::config) latency: Option<LocatedTable<SloLatency>>,
}

/// The latency objective for requests that do not fail.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SloLatency {
    /// The share of requests that must meet `under`, such as `99%`.
    #[schemars(required)]
    pub(in crate::config) share: Option<Located<String>>,
    /// The longest time from a request's arrival to its response head.
    #[schemars(required)]
    pub(in crate::config) under: Option<Located<DurationText>>,
}

/// The rate limit of a route; requests beyond it are answered with 429.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rate {
    /// Requests per `per`, in the long run.
    #[schemars(required)]
    pub(in crate::config) requests: Option<Located<WholeNumber>>,
    /// The time that `requests` refers to. Default: 1s.
    pub(in crate::config) per: Option<Located<DurationText>>,
    /// Requests that are accepted at once after an idle time. Default: `requests`.
    pub(in crate::config) burst: Option<Located<WholeNumber>>,
    /// The scope of the limit: each `client` (an IPv4 address, or the /64 of an IPv6 address), or
    /// the whole `route`. Default: `client`.
    #[schemars(extend("enum" = ["client", "route"]))]
    pub(in crate::config) by: Option<Located<String>>,
}

impl TableShape for Rate {
    const EXPECTED: &str = "a table such as { requests = 100, per = \"1s\" }";
}

impl TableShape for Slo {
    const EXPECTED: &str = "a table such as { availability = \"99.9%\" }";
}

impl TableShape for SloLatency {
    const EXPECTED: &str = "a table such as { share = \"99%\", under = \"300ms\" }";
}

impl TableShape for Ledger {
    const EXPECTED: &str = "a table such as { keep = \"90d\" }";
}

impl TableShape for AccessLog {
    const EXPECTED: &str = "a table such as { to = \"stdout\" }";
}
