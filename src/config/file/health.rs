//! The tables for correlated failures, recovery, and limits on what may be down.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, TableShape};
use super::scalar::{DurationText, PercentText, WholeNumber};

/// The budget for probes, over all pools.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ProbeBudget {
    /// Probes that may start in a second, over all pools. If the periods require more, all periods
    /// grow by the same factor; a suspect is exempt. Default: 10000.
    pub(in crate::config) per_second: Option<Located<WholeNumber>>,
}

/// When a zone is down as a whole, and when it returns. A region is down when the same share of its
/// zones is down.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Correlate {
    /// The share of a zone's endpoints, at least two, whose connections must fail within `window`,
    /// as a percentage; or `off`. Default: 60.
    pub(in crate::config) quorum_percent: Option<Located<PercentText>>,
    /// The time within which their connections must fail. Default: 2s.
    pub(in crate::config) window: Option<Located<DurationText>>,
    /// The zone returns when this share of its endpoints is healthy, as a percentage. Default: 50.
    pub(in crate::config) return_percent: Option<Located<WholeNumber>>,
}

/// How endpoints and zones that were down return.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Recover {
    /// An endpoint that goes down again soon after its return stays down for at least this long;
    /// the time doubles with each repetition. Default: 1s.
    pub(in crate::config) hold_down: Option<Located<DurationText>>,
    /// The longest hold-down; after this time without a verdict the count of earlier verdicts is
    /// halved. Default: 60s.
    pub(in crate::config) hold_down_max: Option<Located<DurationText>>,
    /// The time over which the share of a returning endpoint or zone grows to its full share; `0s`
    /// restores it at once. Default: 10s.
    pub(in crate::config) ramp: Option<Located<DurationText>>,
}

/// How much may be down at once: a verdict that would exceed it is withheld.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Evict {
    /// The number of endpoints of the pool. Default: no limit.
    pub(in crate::config) endpoints: Option<Located<WholeNumber>>,
    /// The percentage of all endpoints of the pool; at least one endpoint, unless it is 0. Default:
    /// 100.
    pub(in crate::config) percent: Option<Located<WholeNumber>>,
    /// The percentage of the endpoints of one zone; at least one endpoint, unless it is 0. Default:
    /// 100.
    pub(in crate::config) zone_percent: Option<Located<WholeNumber>>,
    /// When less than this percentage of the pool's endpoints serves, all endpoints serve (panic).
    /// With 0, that happens only when no endpoint is left. Default: 0.
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
