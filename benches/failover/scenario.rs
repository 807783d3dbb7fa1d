//! The table of failures, and what of each a client may see. A new failure is a new row.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::fault_class::{CLASSES, FaultClass};
use crate::layout::{POOL_ENDPOINTS, ZONE_ENDPOINTS};

/// A client that has waited this long goes away.
pub(crate) const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);

/// A wrong body is seen by two probes: one within the interval of a second, and one soon after.
const WRONG_BODY_DETECTION_S: f64 = 1.2;

/// How long both zones stand still in a brown-out.
const BROWN_OUT_DURATION: Duration = Duration::from_millis(1_300);

#[derive(Debug)]
pub(crate) struct FailoverScenario {
    /// The name for `--class`; where `gapless predict` knows the failure, that of its row.
    pub(crate) name: &'static str,
    /// The class that says how it is brought about.
    class: &'static str,
    /// What may fail by it.
    pub(crate) extent: FaultExtent,
    /// What of it a client of gapless may see.
    pub(crate) bound: FailoverBound,
}

/// What a failure hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultExtent {
    /// The preferred zone, or one endpoint of it, for as long as the bench is told to.
    PreferredZone,
    /// Both zones at once, for this long; nobody is left to ask.
    AllEndpoints(Duration),
}

/// What a client of gapless may see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FailoverBound {
    /// From the first failed request to the last.
    pub(crate) gap_s: f64,
    /// GETs without a good answer, at 60 requests a second.
    pub(crate) failed_get: f64,
    /// POSTs without one, at 60 requests a second of which every fifth is one; none that was under
    /// way when the failure began counts.
    pub(crate) failed_post: f64,
    /// From the onset to the last answer of what fails, where that looks well to clients.
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

/// All of them, in the order of reports.
pub(crate) const SCENARIOS: &[FailoverScenario] = &[
    preferred_zone_fault("refused", FailoverBound::new(0.0, 0.0)),
    preferred_zone_fault("hang", FailoverBound::new(0.05, 1.0)),
    preferred_zone_fault("black_hole", FailoverBound::new(0.05, 1.0)),
    preferred_zone_fault("status_all", FailoverBound::new(0.0, 1.0)),
    preferred_zone_fault("status_traffic", FailoverBound::new(0.0, 1.0)),
    preferred_zone_fault("slow", FailoverBound::new(0.05, 1.0)),
    preferred_zone_fault("errors_30", FailoverBound::new(0.25, 3.0)),
    preferred_zone_fault("cut", FailoverBound::new(0.1, 2.0)),
    // Its traffic is answered well: what counts is when it gets none any more.
    preferred_zone_fault(
        "wrong_body",
        FailoverBound { left_s: Some(WRONG_BODY_DETECTION_S), ..FailoverBound::new(0.0, 0.0) },
    ),
    FailoverScenario {
        name: "brown_out",
        class: "hang",
        extent: FaultExtent::AllEndpoints(BROWN_OUT_DURATION),
        // Who comes in the first 0.3 s cannot be helped: 18 requests, and one at either end.
        bound: FailoverBound { gap_s: 0.35, failed_get: 16.0, failed_post: 4.0, left_s: None },
    },
];

/// The cells of `--smoke`, by their scenario.
pub(crate) const SMOKE_SCENARIO: &str = "refused";

impl FailoverScenario {
    /// How it is brought about.
    pub(crate) fn class(&self) -> Option<&'static FaultClass> {
        CLASSES.iter().find(|class| class.name == self.class)
    }

    /// The scopes in which it is run.
    pub(crate) fn is_run_in(&self, scope: FailoverScope) -> bool {
        self.extent == FaultExtent::PreferredZone || scope == FailoverScope::Zone
    }

    /// The endpoints that fail by it.
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
    /// All of its endpoints.
    Zone,
    /// One of them.
    Endpoint,
}

impl FailoverScope {
    pub(crate) const ALL: [Self; 2] = [Self::Zone, Self::Endpoint];

    /// What a report calls it.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Zone => "The whole of the preferred zone fails (brown_out: both zones)",
            Self::Endpoint => "One of the preferred zone's three endpoints fails",
        }
    }
}
