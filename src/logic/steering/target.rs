//! An endpoint that requests can be sent to.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::logic::model::endpoint_stats::{EndpointStats, ZoneStats};
use crate::logic::model::id::EndpointId;

/// The weight of one in [`ZoneTargets`]: fine enough for ramps and degraded endpoints.
///
/// [`ZoneTargets`]: super::zone_targets::ZoneTargets
pub const WEIGHT_ONE: u32 = 1_000;

/// Time for which a failure makes the endpoint's zone suspect, in microseconds. Endpoints with
/// traffic clear themselves earlier by a good response.
const NEIGHBOUR_FAILURE_WINDOW_US: u64 = 1_000_000;

/// An endpoint that requests can be sent to.
#[derive(Clone, Debug)]
pub struct Target {
    pub id: EndpointId,
    pub address: SocketAddr,
    /// Index of its zone in the pool.
    pub zone: usize,
    /// The declared weight, relative to the zone's other endpoints.
    pub weight: u32,
    pub stats: Arc<EndpointStats>,
    /// The counters that all endpoints of the zone share.
    pub zone_stats: Arc<ZoneStats>,
}

impl Target {
    /// Whether an endpoint of the zone failed recently and this one has not answered well since:
    /// the cause may affect the whole zone.
    pub fn has_recent_neighbour_failure(&self, now_us: u64) -> bool {
        let failed_us = self.zone_stats.last_error_us();
        failed_us != 0
            && now_us.saturating_sub(failed_us) < NEIGHBOUR_FAILURE_WINDOW_US
            && self.stats.last_good_us() < failed_us
    }
}
