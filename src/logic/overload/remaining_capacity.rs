//! Whether the rest of a pool can carry the load of endpoints that a drill or an order takes out.

use std::sync::Arc;

use crate::logic::model::topology::PoolSpec;
use crate::logic::model::upstream_protocol::UpstreamHttpVersion;

/// Limit of the load that the rest may get, as a multiple of its present load. Two zones of equal
/// size are expected to carry twice their load when one of them fails.
pub const MAX_LOAD_GROWTH: f64 = 2.0;

/// Weight and load of one pool, split into the part to be lost and the rest. Only serving endpoints
/// count.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolCapacity {
    pub pool: Arc<str>,
    /// Weight of the part to be lost, as far as it gets traffic now.
    pub lost_weight: u64,
    /// Weight of the rest, including endpoints that would get traffic after the loss.
    pub remaining_weight: u64,
    /// Peak of the requests in flight in the part to be lost, during the measurement.
    pub lost_in_flight: u32,
    /// Peak of the requests in flight in the rest.
    pub remaining_in_flight: u32,
    /// Limit of the requests in flight in the rest, if there is one.
    pub remaining_limit: Option<u64>,
}

/// Limit of requests in flight at this number of endpoints of `pool`, from its circuit breakers.
pub fn in_flight_limit(pool: &PoolSpec, endpoints: u64) -> Option<u64> {
    let caps = pool.limits.circuit_breakers;
    // An HTTP/1 connection carries one request, so the limit of connections limits requests too.
    let is_one_request_per_connection =
        pool.upstream_protocol.http_version == UpstreamHttpVersion::H1;
    let connections = |caps: Option<u32>| caps.filter(|_| is_one_request_per_connection);
    let endpoint_limits = [caps.endpoint.requests, connections(caps.endpoint.connections)];
    let pool_limits = [caps.pool.requests, connections(caps.pool.connections)];
    let each = endpoint_limits.into_iter().flatten().map(|cap| u64::from(cap) * endpoints);
    each.chain(pool_limits.into_iter().flatten().map(u64::from)).min()
}

impl PoolCapacity {
    /// Load of the rest after the loss, as a multiple of its present load. `share` is the part of
    /// the load to be moved, from 0 to 1.
    pub fn growth(&self, share: f64) -> f64 {
        1.0 + share * self.lost_weight as f64 / self.remaining_weight.max(1) as f64
    }

    /// Why the rest cannot carry `share` (0 to 1) of the load to be lost, if it cannot.
    pub fn shortage(&self, share: f64) -> Option<String> {
        let pool = &self.pool;
        if self.remaining_weight == 0 {
            return Some(format!("pool {pool}: no healthy endpoint would remain"));
        }
        let in_flight =
            f64::from(self.remaining_in_flight) + share * f64::from(self.lost_in_flight);
        if let Some(limit) = self.remaining_limit.filter(|limit| in_flight > *limit as f64) {
            return Some(format!(
                "pool {pool}: the remaining endpoints may have {limit} requests in flight, and \
                 would have {in_flight:.0}"
            ));
        }
        let growth = self.growth(share);
        (growth > MAX_LOAD_GROWTH + 1e-9).then(|| {
            format!(
                "pool {pool}: the remaining endpoints would get {growth:.1} times their load; the \
                 limit is {MAX_LOAD_GROWTH:.0} times"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(lost: u64, remaining: u64) -> PoolCapacity {
        PoolCapacity {
            pool: "web".into(),
            lost_weight: lost,
            remaining_weight: remaining,
            lost_in_flight: 10,
            remaining_in_flight: 20,
            remaining_limit: None,
        }
    }

    #[test]
    fn capacity_check_counts_weight_limits_and_share() {
        assert_eq!(capacity(1, 1).shortage(1.0), None, "two zones of equal size suffice");
        assert!(capacity(3, 2).shortage(1.0).is_some());
        assert_eq!(capacity(3, 2).shortage(0.5), None);
        assert!(capacity(1, 0).shortage(0.01).is_some(), "no endpoint would remain");
        let limited = |limit| PoolCapacity { remaining_limit: Some(limit), ..capacity(1, 2) };
        assert_eq!(limited(30).shortage(1.0), None);
        let why = limited(29).shortage(1.0).expect("a shortage");
        assert!(why.contains("29 requests in flight"), "{why}");
        assert_eq!(limited(25).shortage(0.5), None);
    }
}
