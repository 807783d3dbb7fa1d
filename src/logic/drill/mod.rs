//! Drills: failures injected on purpose inside a stated blast radius, and their measured outcome.
//!
//! A drill changes neither endpoints nor their verdicts. Requests that it takes, and the evidence
//! that they produce, carry its [`DrillId`] as a tag. They are steered by the snapshots of a second
//! director, which starts with a copy of the production director's state and receives only evidence
//! with this tag. So they fail over as production would, and other requests are not affected.
//!
//! Rejected: one director for all evidence. Injected failures would then put endpoints down for
//! production traffic too.

mod active;
mod calendar;
mod fault;
mod id;
mod length;
mod load_sampling;
mod plan;
mod progress;
mod run;
#[cfg(test)]
mod tests;
mod view;

pub use active::{ActiveDrill, DrillOrigin, interruption_reason};
pub use calendar::{PracticeCalendar, PracticeSchedule, Recurrence, WeeklyTime, WeeklyWindow};
pub use fault::{DrillFault, FaultEffect};
pub use id::DrillId;
pub use length::{LENGTH_RANGE, parse_duration};
pub use load_sampling::LoadSampling;
pub use plan::{CoveredPool, DrillPlan, FailureBudget, HeaderMatch, SharePercent};
pub use progress::{DrillMilestone, DrillProgress};
pub use run::{
    DETECTION_TOLERANCE, DrillAction, DrillConclusion, DrillOutcome, DrillPrediction, DrillRun,
    DrillSample, DrillStage, DrillTimeline, WARM_UP_TIME,
};
pub use view::{DrillCounters, DrillCounts, DrillView, ShareSampler};
