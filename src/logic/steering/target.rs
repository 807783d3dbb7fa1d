//! One endpoint as requests choose it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::logic::model::endpoint_stats::{EndpointStats, ZoneStats};
use crate::logic::model::id::EndpointId;

/// A weight of one, as [`Cell`] counts: fine enough for a ramp and a degraded endpoint.
pub const WEIGHT_ONE: u32 = 1_000;

/// For how long one endpoint's failure is held against its neighbours, in microseconds. Who is asked
/// often has answered since; who is not need not be avoided for ever.
const NEIGHBOUR_FAILURE_WINDOW_US: u64 = 1_000_000;

/// One endpoint that may be chosen.
#[derive(Clone, Debug)]
pub struct Target {
    pub id: EndpointId,
    pub address: SocketAddr,
    /// Index of its zone in the pool.
    pub zone: usize,
    /// Its declared share among its neighbours.
    pub weight: u32,
    /// What the workers write.
    pub stats: Arc<EndpointStats>,
    /// What they write of its zone.
    pub zone_stats: Arc<ZoneStats>,
}

impl Target {
    /// Whether a neighbour has failed a request of late, and this one has answered none well since:
    /// what ails one of a zone may ail them all.
    pub fn has_recent_neighbour_failure(&self, now_us: u64) -> bool {
        let failed_us = self.zone_stats.last_error_us();
        failed_us != 0
            && now_us.saturating_sub(failed_us) < NEIGHBOUR_FAILURE_WINDOW_US
            && self.stats.last_good_us() < failed_us
    }
}
