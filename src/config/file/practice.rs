//! Drills that run on a schedule, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, TableShape};
use super::scalar::DurationText;

/// A scheduled drill in one zone at a time, so that failover is exercised before a real failure.
/// Times are in UTC.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Practice {
    /// The zones, as `region/zone`; each drill takes the next one.
    #[schemars(required, length(min = 1))]
    pub(in crate::config) zones: Option<Vec<Located<String>>>,
    /// The injected fault: `refused`, `reset`, `hang`, `slow=2s`, `status=503`, `error-rate=30%` or
    /// `cut`. Default: `refused`.
    pub(in crate::config) fault: Option<Located<String>>,
    /// The share of requests, from `1%` to `100%`. Default: `10%`.
    pub(in crate::config) share: Option<Located<String>>,
    /// The length of the drill, from 1s to 1h. Default: 30s.
    #[serde(rename = "for")]
    pub(in crate::config) length: Option<Located<DurationText>>,
    /// Restricts the drill to this pool. Default: every pool that has the zone.
    pub(in crate::config) pool: Option<Located<String>>,
    /// Restricts the drill to requests with this header, as `name=value`. Default: all requests.
    #[serde(rename = "match")]
    pub(in crate::config) matching: Option<Located<String>>,
    /// How many requests may fail before the drill is aborted: a share such as `1%` of the requests
    /// that it is expected to affect, or a number. Default: `1%`.
    pub(in crate::config) abort_budget: Option<Located<String>>,
    /// The period, from 1m to 7d, counted from the start of 1970. Either this or `at`.
    pub(in crate::config) every: Option<Located<DurationText>>,
    /// Times of the week, such as `Wed 10:30` or `Mon-Fri 09:00`.
    pub(in crate::config) at: Option<Vec<Located<String>>>,
    /// Windows such as `Mon-Fri 09:00-17:00`: a drill begins and ends inside one of them. Default:
    /// any time.
    pub(in crate::config) allowed: Option<Vec<Located<String>>>,
    /// Windows in which no drill begins or ends. Default: none.
    pub(in crate::config) blocked: Option<Vec<Located<String>>>,
}

impl TableShape for Practice {
    const EXPECTED: &str = "a table with `zones` and `every` or `at`";
}
