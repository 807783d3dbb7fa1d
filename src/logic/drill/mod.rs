//! Drills: a failure that is injected on purpose, inside a stated blast radius, and what came of it.
//!
//! A drill does not touch endpoints, and nothing that is believed of them. Requests that it takes are a
//! *lane* of their own: they steer by the snapshots of a director that was given all that the real one
//! knows and that hears nothing but what the lane meets. So the lane fails over as production would, and
//! nobody beside it notices.

mod calendar;
mod capacity;
mod fault;
mod lane;
mod plan;
mod run;
#[cfg(test)]
mod tests;

pub use calendar::{Moment, Practice, Rhythm, Timetable, Window};
pub use capacity::{GROWTH_AT_MOST, PoolRoom, Room, limit};
pub use fault::{Fault, Meets};
pub use lane::{Counts, Lane, Lot, Tallies};
pub use plan::{Allowance, LENGTHS, Matching, Plan, Share, duration};
pub use run::{End, Forecast, LATE_BY, Mark, Outcome, Run, Sample, Stage, Timeline, Todo};
