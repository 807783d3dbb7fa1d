//! Whether what is left without the zone can carry what the drill moves there.

use std::sync::Arc;

use super::plan::SharePercent;
use crate::logic::model::topology::PoolSpec;
use crate::logic::model::upstream_protocol::UpstreamHttpVersion;

/// How many times as much as now what is left may have to carry. Two zones of the same size are made
/// for just that: each alone carries twice what it does beside the other.
pub const MAX_LOAD_GROWTH: f64 = 2.0;

/// What each pool has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrillCapacity {
    pub pools: Vec<PoolCapacity>,
}

/// What one pool has, in the zone that is to be lost and beside it. Only who serves counts.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolCapacity {
    pub pool: Arc<str>,
    /// The weight of what is to be lost, where it gets traffic now.
    pub lost_weight: u64,
    /// The weight of the rest that gets traffic now, or would.
    pub remaining_weight: u64,
    /// The most requests that were in flight there while it was looked at.
    pub lost_in_flight: u32,
    /// The same of the rest.
    pub remaining_in_flight: u32,
    /// How many the rest may have in flight.
    pub remaining_limit: Option<u64>,
}

/// How many requests so many endpoints of a pool may have in flight.
pub fn in_flight_limit(pool: &PoolSpec, endpoints: u64) -> Option<u64> {
    let caps = pool.limits.circuit_breakers;
    // One connection carries one request, unless they are shared.
    let is_one_request_per_connection =
        pool.upstream_protocol.http_version == UpstreamHttpVersion::H1;
    let connections = |caps: Option<u32>| caps.filter(|_| is_one_request_per_connection);
    let endpoint_limits = [caps.endpoint.requests, connections(caps.endpoint.connections)];
    let pool_limits = [caps.pool.requests, connections(caps.pool.connections)];
    let each = endpoint_limits.into_iter().flatten().map(|cap| u64::from(cap) * endpoints);
    each.chain(pool_limits.into_iter().flatten().map(u64::from)).min()
}

impl DrillCapacity {
    /// What there is too little of, if anything, when a drill moves this share of what the zone has.
    pub fn shortage(&self, share: SharePercent) -> Option<String> {
        self.pools.iter().find_map(|pool| pool.shortage(share))
    }
}

impl PoolCapacity {
    /// How many times as much as now the rest has to carry.
    pub fn growth(&self, share: SharePercent) -> f64 {
        1.0 + share.fraction() * self.lost_weight as f64 / self.remaining_weight.max(1) as f64
    }

    /// The same of this pool.
    pub fn shortage(&self, share: SharePercent) -> Option<String> {
        let pool = &self.pool;
        if self.remaining_weight == 0 {
            return Some(format!("pool {pool}: nothing is healthy outside of what is to be lost"));
        }
        let in_flight =
            f64::from(self.remaining_in_flight) + share.fraction() * f64::from(self.lost_in_flight);
        if let Some(limit) = self.remaining_limit.filter(|limit| in_flight > *limit as f64) {
            return Some(format!(
                "pool {pool}: what is left may have {limit} requests in flight, and would have \
                 {in_flight:.0}"
            ));
        }
        let growth = self.growth(share);
        (growth > MAX_LOAD_GROWTH + 1e-9).then(|| {
            format!(
                "pool {pool}: what is left would get {growth:.1} times its load, and \
                 {MAX_LOAD_GROWTH:.0} times is the most"
            )
        })
    }
}
