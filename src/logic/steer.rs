//! Where a pool's traffic goes: tiers, and how much of it each tier and each zone gets.
//!
//! All of it is exact: shares are counted in parts of [`WHOLE`], and nothing moves in steps that
//! health and capacity do not have.

mod capacity;
mod demand;
mod geo;
mod nearness;
mod policy;
mod pour;
mod shares;
mod tiers;

pub use capacity::{Bounds, Weighed};
pub use demand::{Demand, Flow};
pub use geo::{Country, Geography, Location, Whereabouts};
pub use nearness::{LOOK_EVERY, Nearness, Seen};
pub use policy::{Capacity, Overprovisioning, Policy, Role, Steer, Way, ZoneTerms};
pub use pour::{Vessel, pour};
pub use shares::{Level, shares};
pub use tiers::tiers;

/// The whole of a pool's traffic, as shares are counted.
pub const WHOLE: u64 = 1 << 32;

/// No bound, where one is counted in parts of [`WHOLE`].
pub const UNBOUNDED: u64 = u64::MAX;
