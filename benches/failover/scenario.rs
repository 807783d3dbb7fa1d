//! The table of failures, with the bounds for gapless. A new failure is a new row.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::fault_class::{CLASSES, FaultClass, UNPREDICTED_CLASSES};
use crate::layout::{POOL_ENDPOINTS, ZONE_ENDPOINTS};

/// The timeout of a client.
pub(crate) const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);

/// A wrong body takes two probes: one within the interval of a second, and one soon after.
const WRONG_BODY_DETECTION_S: f64 = 1.2;

/// How long both zones hang in a brown-out.
const BROWN_OUT_DURATION: Duration = Duration::from_millis(1_300);

#[derive(Debug)]
pub(crate) struct FailoverScenario {
    /// The name for `--class`; where `gapless predict` knows the failure, that of its row.
    pub(crate) name: &'static str,
    /// The class, which defines the mechanism.
    class: &'static str,
    /// The endpoints that fail.
    pub(crate) extent: FaultExtent,
    /// The bounds for clients of gapless.
    pub(crate) bound: FailoverBound,
}

/// The extent of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultExtent {
    /// The preferred zone or one endpoint of it, for `--fault-seconds`.
    PreferredZone,
    /// Both zones at once for this time, so that no endpoint is left.
    AllEndpoints(Duration),
}

/// The bounds for clients of gapless.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FailoverBound {
    /// From the first failed request to the last.
    pub(crate) gap_s: f64,
    /// GETs without a good response, at 60 requests per second.
    pub(crate) failed_get: f64,
    /// POSTs without a good response, at 60 requests per second of which every fifth is a POST;
    /// without those in flight at the onset.
    pub(crate) failed_post: f64,
    /// From the onset to the last response of a failing endpoint, for faults that clients cannot
    /// see.
    pub(crate) left_s: Option<f64>,
}

impl FailoverBound {
    const fn new(gap_s: f64, failed_post: f64) -> Self {
        Self { gap_s, failed_get: 0.0, failed_post, left_s: None }
    }
}

const fn preferred_zone_fault(name: &'static str, bound: FailoverBound) -> FailoverScenario {
    FailoverScenario { name, class: name, extent: FaultExtent::PreferredZone, bound }
}

/// All failures, in the order of reports.
pub(crate) const SCENARIOS: &[FailoverScenario] = &[
    preferred_zone_fault("refused", FailoverBound::new(0.0, 0.0)),
    preferred_zone_fault("hang", FailoverBound::new(0.05, 1.0)),
    preferred_zone_fault("black_hole", FailoverBound::new(0.05, 1.0)),
    preferred_zone_fault("status_all", FailoverBound::new(0.0, 1.0)),
    preferred_zone_fault("status_traffic", FailoverBound::new(0.0, 1.0)),
    preferred_zone_fault("slow", FailoverBound::new(0.05, 1.0)),
    preferred_zone_fault("errors_30", FailoverBound::new(0.25, 3.0)),
    preferred_zone_fault("cut", FailoverBound::new(0.1, 2.0)),
    // Traffic succeeds here: the bound is the time until the endpoint gets none.
    preferred_zone_fault(
        "wrong_body",
        FailoverBound { left_s: Some(WRONG_BODY_DETECTION_S), ..FailoverBound::new(0.0, 0.0) },
    ),
    preferred_zone_fault("loss_20", FailoverBound::new(2.0, 1.0)),
    preferred_zone_fault("tail_10", FailoverBound::new(3.0, 1.0)),
    FailoverScenario {
        name: "brown_out",
        class: "hang",
        extent: FaultExtent::AllEndpoints(BROWN_OUT_DURATION),
        // Requests of the first 0.3 s must fail: 18 requests, and one at either end.
        bound: FailoverBound { gap_s: 0.35, failed_get: 16.0, failed_post: 4.0, left_s: None },
    },
];

/// The scenarios of `--smoke`.
pub(crate) const SMOKE_SCENARIO: &str = "refused";

impl FailoverScenario {
    /// The mechanism of the failure.
    pub(crate) fn class(&self) -> Option<&'static FaultClass> {
        CLASSES.iter().chain(UNPREDICTED_CLASSES).find(|class| class.name == self.class)
    }

    /// The scopes of the failure.
    pub(crate) fn is_run_in(&self, scope: FailoverScope) -> bool {
        self.extent == FaultExtent::PreferredZone || scope == FailoverScope::Zone
    }

    /// The indices of the endpoints that fail.
    pub(crate) fn failing_endpoints(&self, scope: FailoverScope) -> std::ops::Range<usize> {
        match (self.extent, scope) {
            (FaultExtent::AllEndpoints(_), _) => 0..POOL_ENDPOINTS,
            (FaultExtent::PreferredZone, FailoverScope::Zone) => 0..ZONE_ENDPOINTS,
            (FaultExtent::PreferredZone, FailoverScope::Endpoint) => 0..1,
        }
    }
}

/// How much of the preferred zone fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailoverScope {
    /// All endpoints of the zone.
    Zone,
    /// One endpoint of the zone.
    Endpoint,
}

impl FailoverScope {
    pub(crate) const ALL: [Self; 2] = [Self::Zone, Self::Endpoint];

    /// The name in reports.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Zone => "The whole of the preferred zone fails (brown_out: both zones)",
            Self::Endpoint => "One of the preferred zone's three endpoints fails",
        }
    }
}
