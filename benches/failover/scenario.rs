//! The table of failures, and what of each a client may see. A new failure is a new row.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::class::{CLASSES, Class};
use crate::layout::{POOL_ENDPOINTS, ZONE_ENDPOINTS};

/// A client that has waited this long goes away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// A wrong body is seen by two probes: one within the interval of a second, and one soon after.
const WRONG_BODY_SEEN_S: f64 = 1.2;

/// How long both zones stand still in a brown-out.
const PAUSE: Duration = Duration::from_millis(1_300);

/// One failure.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// The name for `--class`; where `gapless predict` knows the failure, that of its row.
    pub(crate) name: &'static str,
    /// The class that says how it is brought about.
    class: &'static str,
    /// What may fail by it.
    pub(crate) hits: Hits,
    /// What of it a client of gapless may see.
    pub(crate) bound: Bound,
}

/// What a failure hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hits {
    /// The preferred zone, or one endpoint of it, for as long as the bench is told to.
    First,
    /// Both zones at once, for this long; nobody is left to ask.
    Everybody(Duration),
}

/// What a client of gapless may see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bound {
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

impl Bound {
    const fn new(gap_s: f64, failed_post: f64) -> Self {
        Self { gap_s, failed_get: 0.0, failed_post, left_s: None }
    }
}

const fn first(name: &'static str, bound: Bound) -> Scenario {
    Scenario { name, class: name, hits: Hits::First, bound }
}

/// All of them, in the order of reports.
pub(crate) const SCENARIOS: &[Scenario] = &[
    first("refused", Bound::new(0.0, 0.0)),
    first("hang", Bound::new(0.05, 1.0)),
    first("black_hole", Bound::new(0.05, 1.0)),
    first("status_all", Bound::new(0.0, 1.0)),
    first("status_traffic", Bound::new(0.0, 1.0)),
    first("slow", Bound::new(0.05, 1.0)),
    first("errors_30", Bound::new(0.25, 3.0)),
    first("cut", Bound::new(0.1, 2.0)),
    // Its traffic is answered well: what counts is when it gets none any more.
    first("wrong_body", Bound { left_s: Some(WRONG_BODY_SEEN_S), ..Bound::new(0.0, 0.0) }),
    Scenario {
        name: "brown_out",
        class: "hang",
        hits: Hits::Everybody(PAUSE),
        // Who comes in the first 0.3 s cannot be helped: 18 requests, and one at either end.
        bound: Bound { gap_s: 0.35, failed_get: 16.0, failed_post: 4.0, left_s: None },
    },
];

/// The cells of `--smoke`, by their scenario.
pub(crate) const SMOKE: &str = "refused";

impl Scenario {
    /// How it is brought about.
    pub(crate) fn class(&self) -> Option<&'static Class> {
        CLASSES.iter().find(|class| class.name == self.class)
    }

    /// The scopes in which it is run.
    pub(crate) fn is_in(&self, scope: Scope) -> bool {
        self.hits == Hits::First || scope == Scope::Zone
    }

    /// The endpoints that fail by it.
    pub(crate) fn failing(&self, scope: Scope) -> std::ops::Range<usize> {
        match (self.hits, scope) {
            (Hits::Everybody(_), _) => 0..POOL_ENDPOINTS,
            (Hits::First, Scope::Zone) => 0..ZONE_ENDPOINTS,
            (Hits::First, Scope::Endpoint) => 0..1,
        }
    }
}

/// How much of the preferred zone fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// All of its endpoints.
    Zone,
    /// One of them.
    Endpoint,
}

impl Scope {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Zone, Self::Endpoint];

    /// What a report calls it.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Zone => "The whole of the preferred zone fails (brown_out: both zones)",
            Self::Endpoint => "One of the preferred zone's three endpoints fails",
        }
    }
}
