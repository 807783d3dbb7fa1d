//! Drills that are run by themselves.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, TableShape};
use super::scalar::DurationText;

/// A drill that is run by itself, one zone at a time, so that a failover never happens for the first
/// time. Times are in UTC.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Practice {
    /// The zones, as `region/zone`; one after the other.
    #[schemars(required, length(min = 1))]
    pub(in crate::config) zones: Option<Vec<Located<String>>>,
    /// How they seem to fail: `refused`, `reset`, `hang`, `slow=2s`, `status=503`, `error-rate=30%` or
    /// `cut`. Default: `refused`.
    pub(in crate::config) fault: Option<Located<String>>,
    /// Of how many requests, from `1%` to `100%`. Default: `10%`.
    pub(in crate::config) share: Option<Located<String>>,
    /// For how long, from 1s to 1h. Default: 30s.
    #[serde(rename = "for")]
    pub(in crate::config) length: Option<Located<DurationText>>,
    /// In this pool only. Default: in every pool that has the zone.
    pub(in crate::config) pool: Option<Located<String>>,
    /// Only of requests with this header, as `name=value`. Default: of all.
    #[serde(rename = "match")]
    pub(in crate::config) matching: Option<Located<String>>,
    /// How many requests may fail before it is given up: a share such as `1%` of those that it is
    /// expected to take, or a number. Default: `1%`.
    pub(in crate::config) abort_budget: Option<Located<String>>,
    /// Once in each such part of all time since 1970, from 1m to 7d. Either this or `at`.
    pub(in crate::config) every: Option<Located<DurationText>>,
    /// At these moments of each week, such as `Wed 10:30` or `Mon-Fri 09:00`.
    pub(in crate::config) at: Option<Vec<Located<String>>>,
    /// Begins and ends inside one of these, such as `Mon-Fri 09:00-17:00`. Default: at any time.
    pub(in crate::config) allowed: Option<Vec<Located<String>>>,
    /// Neither begins nor ends inside one of these. Default: none.
    pub(in crate::config) blocked: Option<Vec<Located<String>>>,
}

impl TableShape for Practice {
    const EXPECTED: &str = "a table with `zones` and `every` or `at`";
}
