//! Where a pool's traffic goes: tiers, and how much of it each tier and each zone gets.
//!
//! All of it is exact: shares are counted in parts of [`WHOLE`], and nothing moves in steps that
//! health and capacity do not have.

pub mod affinity;
pub mod balance;
mod capacity;
mod demand;
mod geo;
mod latency_order;
mod policy;
pub mod target;
pub mod tier;
mod tier_shares;
mod tiers;
mod water_fill;
pub mod zone_targets;

pub use capacity::{CapacityBounds, WeightTotals};
pub use demand::{PoolDemand, ZoneLoad};
pub use geo::{ClientLocation, Country, GeoSteering, Location};
pub use latency_order::{LATENCY_UPDATE_INTERVAL, LatencyOrder, RegionSample};
pub use policy::{
    CapacityLimits, Overprovisioning, SteeringConfig, SteeringPolicy, SteeringVariant, ZoneRole,
    ZoneSettings,
};
pub use tier_shares::{PriorityLevel, tier_shares};
pub use tiers::group_into_tiers;
pub use water_fill::{Bucket, water_fill};

/// The whole of a pool's traffic, as shares are counted.
pub const FULL_SHARE: u64 = 1 << 32;

/// No bound, where one is counted in parts of [`WHOLE`].
pub const UNBOUNDED_SHARE: u64 = u64::MAX;
