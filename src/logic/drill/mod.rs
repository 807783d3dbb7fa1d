//! Drills: a failure that is injected on purpose, inside a stated blast radius, and what came of it.
//!
//! A drill does not touch endpoints, and nothing that is believed of them. Requests that it takes are a
//! *lane* of their own: they steer by the snapshots of a director that was given all that the real one
//! knows and that hears nothing but what the lane meets. So the lane fails over as production would, and
//! nobody beside it notices.

mod calendar;
mod capacity;
mod fault;
mod plan;
mod run;
#[cfg(test)]
mod tests;
mod view;

pub use calendar::{PracticeCalendar, PracticeSchedule, Recurrence, WeeklyTime, WeeklyWindow};
pub use capacity::{DrillCapacity, MAX_LOAD_GROWTH, PoolCapacity, in_flight_limit};
pub use fault::{DrillFault, FaultEffect};
pub use plan::{DrillPlan, FailureBudget, HeaderMatch, LENGTH_RANGE, SharePercent, parse_duration};
pub use run::{
    DETECTION_TOLERANCE, DrillAction, DrillConclusion, DrillMilestone, DrillOutcome,
    DrillPrediction, DrillRun, DrillSample, DrillStage, DrillTimeline,
};
pub use view::{DrillCounters, DrillCounts, DrillView, ShareSampler};
