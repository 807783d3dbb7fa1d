//! Steering: the tiers of a pool and the share of traffic of each tier and zone.
//!
//! Inputs: the declared pool, health as sums of weights, demand, latencies, and the client's
//! location. `policy` is the configuration, [`group_into_tiers`] the order of zones, and
//! [`tier_shares()`] with [`water_fill()`] divide the traffic. `balance` chooses inside a tier,
//! `affinity` pins clients. Shares are exact integers in parts of [`FULL_SHARE`]: no step is larger
//! than the change of health or capacity behind it. May use: `model`.

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

/// All of a pool's traffic.
pub const FULL_SHARE: u64 = 1 << 32;

/// No bound on a share that is counted in parts of [`FULL_SHARE`].
pub const UNBOUNDED_SHARE: u64 = u64::MAX;
