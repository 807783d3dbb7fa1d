//! What is written down of requests.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, LocatedTable, TableShape};
use super::scalar::{AgeText, DurationText, WholeNumber};

/// One line for each request, written when it is over.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AccessLog {
    /// `stdout`, `off`, or the path of a file, which is opened anew on USR1 and at a reload; a
    /// relative path begins where the configuration file is. Default: `off`.
    pub(in crate::config) to: Option<Located<String>>,
    /// `json`, or `combined` for the format of Apache and nginx. Default: `json`.
    pub(in crate::config) format: Option<Located<String>>,
    /// Write `*` in place of the values in a query; they may be secrets. Default: true.
    pub(in crate::config) redact_query: Option<Located<bool>>,
    /// Request fields that JSON lines have too; none that carries credentials. Default: none.
    pub(in crate::config) headers: Option<Vec<Located<String>>>,
}

/// The ledger of incidents. With `state_dir` it outlives the process.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Ledger {
    /// How long an incident is kept after its end, at least 1h. Default: 90d.
    pub(in crate::config) keep: Option<Located<AgeText>>,
    /// Incidents that are kept; beyond them the oldest go. Default: 10000.
    pub(in crate::config) max: Option<Located<WholeNumber>>,
}

/// A service level objective: what is promised over thirty days. Budgets and burn rates are in
/// `/metrics`, in `/api/v1/slo` and in `gapless slo`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Slo {
    /// The share of requests that do not end in a server error or in the middle, such as `99.95%`.
    /// Default: none is promised.
    pub(in crate::config) availability: Option<Located<String>>,
    /// How fast the others are answered. Default: nothing is promised.
    pub(in crate::config) latency: Option<LocatedTable<SloLatency>>,
}

/// How fast requests are answered that do not fail.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SloLatency {
    /// The share of them that must be, such as `99%`.
    #[schemars(required)]
    pub(in crate::config) share: Option<Located<String>>,
    /// From a request's arrival to its response's head.
    #[schemars(required)]
    pub(in crate::config) under: Option<Located<DurationText>>,
}

/// How many requests a route takes; more are answered with 429.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rate {
    /// Requests in each `per`, in the long run.
    #[schemars(required)]
    pub(in crate::config) requests: Option<Located<WholeNumber>>,
    /// The time in which they may come. Default: 1s.
    pub(in crate::config) per: Option<Located<DurationText>>,
    /// Requests that may come at once, where none came before. Default: `requests`.
    pub(in crate::config) burst: Option<Located<WholeNumber>>,
    /// Who shares them: each `client` has its own (an IPv4 address, or the /64 of an IPv6 one), or
    /// all of the `route` together. Default: `client`.
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
