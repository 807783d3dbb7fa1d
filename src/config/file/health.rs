//! The tables that say when much is down at once, and how it comes back.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, TableShape};
use super::scalar::{DurationText, PercentText, WholeNumber};

/// How this instance probes, over all pools.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ProbeBudget {
    /// ProbeBudget that may start in a second, over all pools. When the periods ask for more, all of them
    /// stretch alike; a suspect is probed whatever this says. Default: 10000.
    pub(in crate::config) per_second: Option<Located<WholeNumber>>,
}

/// When a zone is down as a whole, and when it returns. A region is down when that share of its
/// zones is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Correlate {
    /// The share of a zone's endpoints, at least two, whose connections must fail within `window`,
    /// as a percentage; or `off`. Default: 60.
    pub(in crate::config) quorum_percent: Option<Located<PercentText>>,
    /// The time within which they must fail. Default: 2s.
    pub(in crate::config) window: Option<Located<DurationText>>,
    /// The zone returns when this share of its endpoints is healthy, as a percentage. Default: 50.
    pub(in crate::config) return_percent: Option<Located<WholeNumber>>,
}

/// How what was down comes back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Recover {
    /// What goes down again soon after its return stays down at least this long, and twice as long
    /// each time. Default: 1s.
    pub(in crate::config) hold_down: Option<Located<DurationText>>,
    /// No hold-down is longer; the same time halves the count of earlier verdicts. Default: 60s.
    pub(in crate::config) hold_down_max: Option<Located<DurationText>>,
    /// The share of what returns grows to the whole over this time; `0s` gives it all at once.
    /// Default: 10s.
    pub(in crate::config) ramp: Option<Located<DurationText>>,
}

/// How much may be down at once: a verdict that would exceed it is withheld.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Evict {
    /// Endpoints of the pool. Default: no limit.
    pub(in crate::config) endpoints: Option<Located<WholeNumber>>,
    /// Of all endpoints of the pool, as a percentage; at least one, unless it is 0. Default: 100.
    pub(in crate::config) percent: Option<Located<WholeNumber>>,
    /// Of the endpoints of one zone, as a percentage; at least one, unless it is 0. Default: 100.
    pub(in crate::config) zone_percent: Option<Located<WholeNumber>>,
    /// When less than this share of the pool serves, all of it does (panic), as a percentage. With 0
    /// that is so only when nothing is left. Default: 0.
    pub(in crate::config) panic_percent: Option<Located<WholeNumber>>,
}

impl TableShape for ProbeBudget {
    const EXPECTED: &str = "a table such as { per_second = 10000 }";
}

impl TableShape for Correlate {
    const EXPECTED: &str = "a table such as { quorum_percent = 60 }";
}

impl TableShape for Recover {
    const EXPECTED: &str = "a table such as { ramp = \"10s\" }";
}

impl TableShape for Evict {
    const EXPECTED: &str = "a table such as { percent = 50 }";
}
