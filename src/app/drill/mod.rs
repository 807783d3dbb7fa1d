//! Drills as the operator sees them: asked for, under way, and over. What is done for one is
//! `app/control`'s.

pub mod json;
mod page;
mod text;

pub use page::page;
pub use text::{report, short};

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::logic::director::{Director, EndpointStatus};
use crate::logic::drill::{
    Allowance, End, Fault, LENGTHS, Matching, Outcome, Plan, Run, Share, Stage, duration,
};
use crate::logic::id::Place;
use crate::logic::incident::Subject;
use crate::logic::operator::Of;

/// Drills that are over and remembered; the oldest goes first. A restart forgets them all.
const KEPT: usize = 100;

/// A drill as it is asked for: texts as on the command line.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// `region/zone`.
    pub lose: String,
    /// As [`Fault::parse`] reads it.
    pub fault: String,
    /// `25%`.
    pub share: String,
    /// `20s`.
    #[serde(rename = "for")]
    pub length: String,
    /// One pool; otherwise all that have the zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// One endpoint of the zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// `name=value` of a header.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<String>,
    /// `1%`, or a number of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_budget: Option<String>,
}

impl Asked {
    /// What is asked for.
    ///
    /// # Errors
    /// What cannot be read, and how it is written.
    pub fn plan(&self) -> Result<Plan, String> {
        let lose = Place::parse(&self.lose)
            .ok_or_else(|| format!("`{}` is no zone: write `region/zone`", self.lose))?;
        let share = Share::parse(&self.share);
        let share = share.ok_or_else(|| format!("`{}` is no share: write `25%`", self.share))?;
        let length = duration(&self.length).filter(|length| LENGTHS.contains(length));
        let length = length
            .ok_or_else(|| format!("`{}` is no time from 1s to 1h: write `20s`", self.length))?;
        let endpoint = self.endpoint.as_deref().map(|text| {
            text.parse().map_err(|_| format!("`{text}` is no endpoint: write `10.0.1.11:9000`"))
        });
        let matching = self.matching.as_deref().map(|text| {
            Matching::parse(text)
                .ok_or_else(|| format!("`{text}` is no header: write `name=value`"))
        });
        let allowance = self.abort_budget.as_deref().map(|text| {
            Allowance::parse(text)
                .ok_or_else(|| format!("`{text}` is no budget: write `1%` or `20`"))
        });
        Ok(Plan {
            lose,
            endpoint: endpoint.transpose()?,
            pool: self.pool.as_deref().map(Arc::from),
            fault: Fault::parse(&self.fault)?,
            share,
            length,
            matching: matching.transpose()?,
            allowance: allowance.transpose()?.unwrap_or_default(),
            by_hand: true,
        })
    }
}

/// Why a drill does not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It makes no sense here.
    Senseless(String),
    /// Not now.
    NotNow(String),
}

/// The last drill of a zone.
#[derive(Clone, Debug)]
pub struct Last {
    /// Which.
    pub id: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// When.
    pub at: Instant,
    /// When one last succeeded there.
    pub success: Option<Instant>,
    /// What it measured, in seconds.
    pub detection_s: Option<f64>,
    /// The same.
    pub gap_s: Option<f64>,
}

/// All of them: one at a time.
#[derive(Debug, Default)]
pub struct Drills {
    next: u64,
    running: Option<Run>,
    over: VecDeque<Run>,
    by_zone: BTreeMap<String, Last>,
    totals: BTreeMap<&'static str, u64>,
}

impl Drills {
    /// Begins one, if it makes sense and this is the time for it.
    ///
    /// # Errors
    /// Why not.
    pub fn start(
        &mut self,
        plan: Plan,
        director: &mut Director,
        now: Instant,
    ) -> Result<u64, Refusal> {
        sense(&plan, director, now)?;
        if let Some(run) = &self.running {
            let why = format!("drill {} is under way: one at a time", run.id);
            return Err(Refusal::NotNow(why));
        }
        if let Some(order) = ordered(&plan, director) {
            let why =
                format!("an operator has ordered: {order}; that holds, and a drill would not");
            return Err(Refusal::NotNow(why));
        }
        let real = director.incidents().into_iter().find(|incident| !incident.is_over());
        if let Some(real) = real {
            let Place { region, zone } = &real.subject.place;
            let (endpoint, failure) = (real.subject.address, real.failure);
            return Err(Refusal::NotNow(format!(
                "a real incident is open: {endpoint} in {region}/{zone} is down ({failure})"
            )));
        }
        if let Some(pool) = director.pools().iter().find(|pool| pool.panic || pool.diverges) {
            return Err(Refusal::NotNow(format!("pool {} is not well itself", pool.name)));
        }
        self.next += 1;
        let what = plan.lose.to_string();
        tracing::warn!(
            id = self.next, zone = %what, fault = %plan.fault, share = plan.share.percent(),
            length = ?plan.length, "drill"
        );
        self.running = Some(Run::begin(self.next, Arc::new(plan), now));
        Ok(self.next)
    }

    /// Writes down that one did not begin.
    pub fn missed(&mut self, plan: Plan, why: String, now: Instant) {
        self.next += 1;
        let mut run = Run::begin(self.next, Arc::new(plan), now);
        run.interrupt(why, now);
        self.file(run);
    }

    /// The one that is under way.
    #[must_use]
    pub fn running(&self) -> Option<&Run> {
        self.running.as_ref()
    }

    /// Whether anything of it may be noticed, or is about to.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let stage = self.running.as_ref().map(|run| &run.stage);
        stage.is_some_and(|stage| !matches!(stage, Stage::Judging { .. } | Stage::Over(_)))
    }

    /// The same, to go on with.
    pub fn running_mut(&mut self) -> Option<&mut Run> {
        self.running.as_mut()
    }

    /// The one that was under way is over.
    pub fn file_running(&mut self) {
        if let Some(run) = self.running.take() {
            self.file(run);
        }
    }

    fn file(&mut self, run: Run) {
        let Stage::Over(End { outcome, why }) = &run.stage else { return };
        let zone = run.plan.lose.to_string();
        tracing::warn!(id = run.id, %zone, outcome = outcome.as_str(), why, "drill over");
        *self.totals.entry(outcome.as_str()).or_default() += 1;
        let at = run.timeline.ended.unwrap_or(run.timeline.began);
        let before = self.by_zone.get(&zone).and_then(|last| last.success);
        let last = Last {
            id: run.id,
            outcome: *outcome,
            at,
            success: if *outcome == Outcome::Succeeded { Some(at) } else { before },
            detection_s: run.timeline.detection().map(|took| took.as_secs_f64()),
            gap_s: run.timeline.gap().map(|gap| gap.as_secs_f64()),
        };
        self.by_zone.insert(zone, last);
        if self.over.len() >= KEPT {
            self.over.pop_front();
        }
        self.over.push_back(run);
    }

    /// All that are remembered, oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.over.iter().chain(&self.running)
    }

    /// One of them.
    #[must_use]
    pub fn find(&self, id: u64) -> Option<&Run> {
        self.all().find(|run| run.id == id)
    }

    /// The last one of each zone.
    pub fn last(&self) -> impl Iterator<Item = (&str, &Last)> {
        self.by_zone.iter().map(|(zone, last)| (zone.as_str(), last))
    }

    /// How many ended so.
    #[must_use]
    pub fn total(&self, outcome: Outcome) -> u64 {
        self.totals.get(outcome.as_str()).copied().unwrap_or(0)
    }
}

/// An order by which something is drained that is to seem to fail.
fn ordered(plan: &Plan, director: &Director) -> Option<String> {
    let drained = |status: EndpointStatus| {
        let Subject { pool, place, address, .. } = &*status.subject;
        let is_meant = plan.pool.as_ref().is_none_or(|only| only == pool);
        if !is_meant || !plan.hits(place, *address) {
            return None;
        }
        let of = Of { pool, place, address: *address };
        director.orders().drains(of).next().map(|order| format!("{order} (order {})", order.id))
    };
    director.endpoints().into_iter().find_map(drained)
}

/// Whether there is such a zone, pool and endpoint.
fn sense(plan: &Plan, director: &Director, now: Instant) -> Result<(), Refusal> {
    let senseless = |why| Err(Refusal::Senseless(why));
    let zones = director.zones(now);
    let is_meant = |pool: &str| plan.pool.as_deref().is_none_or(|only| only == pool);
    if let Some(pool) =
        plan.pool.as_deref().filter(|pool| zones.iter().all(|zone| *zone.pool != **pool))
    {
        return senseless(format!("there is no pool `{pool}`"));
    }
    if !zones.iter().any(|zone| is_meant(&zone.pool) && zone.place == plan.lose) {
        let mut known: Vec<String> = zones.iter().map(|zone| zone.place.to_string()).collect();
        known.sort_unstable();
        known.dedup();
        return senseless(format!("no pool has a zone `{}`: {}", plan.lose, known.join(", ")));
    }
    if let Some(endpoint) = plan.endpoint {
        let is_there = director.endpoints().iter().any(|status| {
            let subject = &status.subject;
            is_meant(&subject.pool) && subject.place == plan.lose && subject.address == endpoint
        });
        if !is_there {
            return senseless(format!("there is no endpoint {endpoint} in {}", plan.lose));
        }
    }
    Ok(())
}
