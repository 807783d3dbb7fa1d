//! The registry of drills: requested, running and finished ones. `app/control` executes them.

mod html;
pub mod json;
pub mod prediction;
mod text;

pub use html::render_html;
pub use text::{render_report, summary_line};

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::logic::director::{Director, EndpointStatus};
use crate::logic::drill::{
    DrillConclusion, DrillFault, DrillId, DrillOutcome, DrillPlan, DrillRun, DrillStage,
    FailureBudget, HeaderMatch, LENGTH_RANGE, SharePercent, parse_duration,
};
use crate::logic::incident::IncidentSubject;
use crate::logic::model::id::Locality;
use crate::logic::orders::OrderedEndpoint;

/// Limit of finished drills that are kept; the oldest is dropped first. A restart drops all.
const MAX_FINISHED_DRILLS: usize = 100;

/// A request for a drill, with the texts of the command line.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    /// `region/zone`.
    pub lose: String,
    /// As [`DrillFault::parse`] reads it.
    pub fault: String,
    /// Share of the requests, such as `25%`.
    pub share: String,
    /// Duration, such as `20s`.
    #[serde(rename = "for")]
    pub length: String,
    /// Only this pool. Default: all pools that have the zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Only this endpoint of the zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Only requests with this header, as `name=value`.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<String>,
    /// Failures that the drill may cause: `1%` of its requests, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_budget: Option<String>,
}

impl DrillRequest {
    /// Parses all texts.
    ///
    /// # Errors
    /// The text that cannot be read, and an example of its form.
    pub fn to_plan(&self) -> Result<DrillPlan, String> {
        let lose = Locality::parse(&self.lose)
            .ok_or_else(|| format!("`{}` is not a zone: write `region/zone`", self.lose))?;
        let share = SharePercent::parse(&self.share);
        let share = share.ok_or_else(|| format!("`{}` is not a share: write `25%`", self.share))?;
        let length = parse_duration(&self.length).filter(|length| LENGTH_RANGE.contains(length));
        let length = length.ok_or_else(|| {
            format!("`{}` is not a duration from 1s to 1h: write `20s`", self.length)
        })?;
        let endpoint = self.endpoint.as_deref().map(|text| {
            text.parse().map_err(|_| format!("`{text}` is not an endpoint: write `10.0.1.11:9000`"))
        });
        let matching = self.matching.as_deref().map(|text| {
            HeaderMatch::parse(text)
                .ok_or_else(|| format!("`{text}` is not a header: write `name=value`"))
        });
        let allowance = self.abort_budget.as_deref().map(|text| {
            FailureBudget::parse(text)
                .ok_or_else(|| format!("`{text}` is not a budget: write `1%` or `20`"))
        });
        Ok(DrillPlan {
            zone: lose,
            endpoint: endpoint.transpose()?,
            pool: self.pool.as_deref().map(Arc::from),
            fault: DrillFault::parse(&self.fault)?,
            share,
            length,
            header_match: matching.transpose()?,
            failure_budget: allowance.transpose()?.unwrap_or_default(),
            is_manual: true,
        })
    }
}

/// Why a drill does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrillRefusal {
    /// The request itself is wrong.
    Invalid(String),
    Conflict(String),
}

/// The result of the last drill of a zone.
#[derive(Clone, Debug)]
pub struct LastDrill {
    pub id: DrillId,
    pub outcome: DrillOutcome,
    pub at: Instant,
    /// End of the last drill of the zone that succeeded.
    pub last_success: Option<Instant>,
    /// Measured detection window in seconds.
    pub detection_s: Option<f64>,
    pub gap_s: Option<f64>,
}

/// All drills. At most one of them runs.
#[derive(Debug, Default)]
pub struct DrillRegistry {
    last_id: Option<DrillId>,
    running: Option<DrillRun>,
    finished: VecDeque<DrillRun>,
    last_by_zone: BTreeMap<String, LastDrill>,
    totals: BTreeMap<&'static str, u64>,
}

impl DrillRegistry {
    /// Starts a drill.
    ///
    /// # Errors
    /// If its target does not exist, or if another drill, an order, an incident or the state of the
    /// pools forbids it.
    pub fn start(
        &mut self,
        plan: DrillPlan,
        director: &mut Director,
        now: Instant,
    ) -> Result<DrillId, DrillRefusal> {
        validate_target(&plan, director, now)?;
        if let Some(run) = &self.running {
            let why = format!("drill {} runs already, and only one may", run.id);
            return Err(DrillRefusal::Conflict(why));
        }
        if let Some(order) = conflicting_order(&plan, director) {
            let why = format!("an order is in force that the drill would disturb: {order}");
            return Err(DrillRefusal::Conflict(why));
        }
        let real = director.incidents().into_iter().find(|incident| !incident.is_closed());
        if let Some(real) = real {
            let Locality { region, zone } = &real.subject.locality;
            let (endpoint, failure) = (real.subject.address, real.failure);
            return Err(DrillRefusal::Conflict(format!(
                "a real incident is open: {endpoint} in {region}/{zone} is down ({failure})"
            )));
        }
        if let Some(pool) =
            director.pools().iter().find(|pool| pool.is_in_panic || pool.is_diverging)
        {
            return Err(DrillRefusal::Conflict(format!(
                "pool {} is in panic or diverges",
                pool.name
            )));
        }
        let id = self.next_id();
        let what = plan.zone.to_string();
        tracing::warn!(
            %id, zone = %what, fault = %plan.fault, share = plan.share.percent(),
            length = ?plan.length, "drill started"
        );
        self.running = Some(DrillRun::new(id, Arc::new(plan), now));
        Ok(id)
    }

    fn next_id(&mut self) -> DrillId {
        *self.last_id.insert(self.last_id.map_or(DrillId::FIRST, DrillId::next))
    }

    /// Records a planned drill that could not start.
    pub fn record_missed(&mut self, plan: DrillPlan, why: String, now: Instant) {
        let mut run = DrillRun::new(self.next_id(), Arc::new(plan), now);
        run.interrupt(why, now);
        self.archive(run);
    }

    /// The running drill.
    pub fn running(&self) -> Option<&DrillRun> {
        self.running.as_ref()
    }

    /// Whether a drill is before or in its failing stage, so that traffic may notice it.
    pub fn is_active(&self) -> bool {
        let stage = self.running.as_ref().map(|run| &run.stage);
        stage.is_some_and(|stage| {
            !matches!(stage, DrillStage::Evaluating { .. } | DrillStage::Finished(_))
        })
    }

    /// The running drill, for changes.
    pub fn running_mut(&mut self) -> Option<&mut DrillRun> {
        self.running.as_mut()
    }

    /// Moves the running drill to the finished ones.
    pub fn finish_running(&mut self) {
        if let Some(run) = self.running.take() {
            self.archive(run);
        }
    }

    fn archive(&mut self, run: DrillRun) {
        let DrillStage::Finished(DrillConclusion { outcome, reason }) = &run.stage else {
            return;
        };
        let zone = run.plan.zone.to_string();
        tracing::warn!(id = %run.id, %zone, outcome = outcome.as_str(), why = reason, "drill ended");
        *self.totals.entry(outcome.as_str()).or_default() += 1;
        let at = run.timeline.ended.unwrap_or(run.timeline.began);
        let before = self.last_by_zone.get(&zone).and_then(|last| last.last_success);
        let last = LastDrill {
            id: run.id,
            outcome: *outcome,
            at,
            last_success: if *outcome == DrillOutcome::Succeeded { Some(at) } else { before },
            detection_s: run.timeline.detection().map(|took| took.as_secs_f64()),
            gap_s: run.timeline.failover_gap().map(|gap| gap.as_secs_f64()),
        };
        self.last_by_zone.insert(zone, last);
        if self.finished.len() >= MAX_FINISHED_DRILLS {
            self.finished.pop_front();
        }
        self.finished.push_back(run);
    }

    /// All drills that are kept, oldest first.
    pub fn all_runs(&self) -> impl DoubleEndedIterator<Item = &DrillRun> {
        self.finished.iter().chain(&self.running)
    }

    pub fn find(&self, id: u64) -> Option<&DrillRun> {
        self.all_runs().find(|run| run.id.get() == id)
    }

    /// The last drill of each zone.
    pub fn last_by_zone(&self) -> impl Iterator<Item = (&str, &LastDrill)> {
        self.last_by_zone.iter().map(|(zone, last)| (zone.as_str(), last))
    }

    /// Number of finished drills with this outcome.
    pub fn total(&self, outcome: DrillOutcome) -> u64 {
        self.totals.get(outcome.as_str()).copied().unwrap_or(0)
    }
}

/// An order that drains a part of the drill's target.
fn conflicting_order(plan: &DrillPlan, director: &Director) -> Option<String> {
    let drained = |status: EndpointStatus| {
        let IncidentSubject { pool, locality: place, address, .. } = &*status.subject;
        let is_meant = plan.pool.as_ref().is_none_or(|only| only == pool);
        if !is_meant || !plan.is_target(place, *address) {
            return None;
        }
        let endpoint = OrderedEndpoint { pool, locality: place, address: *address };
        director
            .orders()
            .drains_for(endpoint)
            .next()
            .map(|order| format!("{order} (order {})", order.id))
    };
    director.endpoints().into_iter().find_map(drained)
}

/// Checks that the zone, pool and endpoint of the plan exist.
fn validate_target(
    plan: &DrillPlan,
    director: &Director,
    now: Instant,
) -> Result<(), DrillRefusal> {
    let invalid = |reason| Err(DrillRefusal::Invalid(reason));
    let zones = director.zones(now);
    let is_meant = |pool: &str| plan.pool.as_deref().is_none_or(|only| only == pool);
    if let Some(pool) =
        plan.pool.as_deref().filter(|pool| zones.iter().all(|zone| *zone.pool != **pool))
    {
        return invalid(format!("there is no pool `{pool}`"));
    }
    if !zones.iter().any(|zone| is_meant(&zone.pool) && zone.place == plan.zone) {
        let mut names: Vec<String> = zones.iter().map(|zone| zone.place.to_string()).collect();
        names.sort_unstable();
        names.dedup();
        return invalid(format!("no pool has a zone `{}`: {}", plan.zone, names.join(", ")));
    }
    if let Some(endpoint) = plan.endpoint {
        let is_there = director.endpoints().iter().any(|status| {
            let subject = &status.subject;
            is_meant(&subject.pool) && subject.locality == plan.zone && subject.address == endpoint
        });
        if !is_there {
            return invalid(format!("there is no endpoint {endpoint} in {}", plan.zone));
        }
    }
    Ok(())
}
