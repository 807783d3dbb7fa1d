//! Circuit breakers: permits for what all workers together have under way, at one endpoint and in
//! one pool.
//!
//! A request that finds a limit reached goes to another endpoint or is refused at once. Neither is
//! evidence against the endpoint. The terms are Envoy's (connections, pending, requests, retries).

use std::sync::Arc;

use super::limits::{CircuitBreakers, LimitExceeded, LimitKind, LimitScope, PoolStats};
use crate::logic::model::endpoint_stats::EndpointStats;

/// One unit of a limit at an endpoint and in its pool; released when dropped.
#[derive(Debug)]
pub struct LimitPermit {
    endpoint: Arc<EndpointStats>,
    pool: Arc<PoolStats>,
    limit: LimitKind,
}

impl LimitPermit {
    /// Takes one unit at the endpoint and in the pool.
    ///
    /// # Errors
    /// The limit that is reached. The pool's is checked first, because no other endpoint avoids it.
    pub fn try_acquire(
        limit: LimitKind,
        breakers: &CircuitBreakers,
        endpoint: &Arc<EndpointStats>,
        pool: &Arc<PoolStats>,
    ) -> Result<Self, LimitExceeded> {
        if !pool.gauges().try_acquire(limit, breakers.pool.get(limit)) {
            return Err(LimitExceeded { scope: LimitScope::Pool, limit });
        }
        if !endpoint.gauges().try_acquire(limit, breakers.endpoint.get(limit)) {
            pool.gauges().decrement(limit);
            return Err(LimitExceeded { scope: LimitScope::Endpoint, limit });
        }
        Ok(Self { endpoint: Arc::clone(endpoint), pool: Arc::clone(pool), limit })
    }
}

impl Drop for LimitPermit {
    fn drop(&mut self) {
        self.endpoint.gauges().decrement(self.limit);
        self.pool.gauges().decrement(self.limit);
    }
}

/// One unit of the pool's limit on requests in flight; released when dropped.
#[derive(Debug)]
pub struct PoolRequestPermit {
    pool: Arc<PoolStats>,
}

impl PoolRequestPermit {
    /// Counts a request; `None` where there is no limit, and so no need to count.
    ///
    /// # Errors
    /// The limit, if it is reached.
    pub fn try_acquire(
        breakers: &CircuitBreakers,
        pool: &Arc<PoolStats>,
    ) -> Result<Option<Self>, LimitExceeded> {
        let Some(cap) = breakers.pool.requests else { return Ok(None) };
        if pool.gauges().try_acquire(LimitKind::Requests, Some(cap)) {
            Ok(Some(Self { pool: Arc::clone(pool) }))
        } else {
            Err(LimitExceeded { scope: LimitScope::Pool, limit: LimitKind::Requests })
        }
    }

    /// Counts a request regardless of any limit.
    pub fn acquire_unlimited(pool: &Arc<PoolStats>) -> Self {
        pool.gauges().increment(LimitKind::Requests);
        Self { pool: Arc::clone(pool) }
    }
}

impl Drop for PoolRequestPermit {
    fn drop(&mut self) {
        self.pool.gauges().decrement(LimitKind::Requests);
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::BreakerLimits;
    use super::*;

    fn connection_limit(connections: u32) -> BreakerLimits {
        BreakerLimits { connections: Some(connections), ..BreakerLimits::default() }
    }

    #[test]
    fn dropped_permit_releases_and_refused_permit_takes_none() {
        let (near, far, pool) =
            (Arc::<EndpointStats>::default(), Arc::<EndpointStats>::default(), Arc::default());
        let breakers = CircuitBreakers { endpoint: connection_limit(1), pool: connection_limit(2) };
        let take = |live| LimitPermit::try_acquire(LimitKind::Connections, &breakers, live, &pool);
        let full = |scope| Some(LimitExceeded { scope, limit: LimitKind::Connections });
        let first = take(&near).expect("room");
        assert_eq!(take(&near).err(), full(LimitScope::Endpoint));
        let _second = take(&far).expect("room");
        assert_eq!(take(&far).err(), full(LimitScope::Pool));
        drop(first);
        assert_eq!(near.gauges().get(LimitKind::Connections), 0);
        assert_eq!(pool.gauges().get(LimitKind::Connections), 1);
        assert!(take(&near).is_ok());
    }

    #[test]
    fn unlimited_breaker_always_grants_permits() {
        let (live, pool) = (Arc::<EndpointStats>::default(), Arc::<PoolStats>::default());
        let none = CircuitBreakers::default();
        let taken: Vec<_> = (0..1_000)
            .map(|_| {
                LimitPermit::try_acquire(LimitKind::Connections, &none, &live, &pool).expect("room")
            })
            .collect();
        assert_eq!(live.gauges().get(LimitKind::Connections), 1_000);
        drop(taken);
        assert_eq!(pool.gauges().get(LimitKind::Connections), 0);
        assert!(PoolRequestPermit::try_acquire(&none, &pool).expect("room").is_none());
    }

    #[test]
    fn limit_of_zero_refuses_every_request() {
        let pool = Arc::<PoolStats>::default();
        let never = BreakerLimits { requests: Some(0), ..BreakerLimits::default() };
        let breakers = CircuitBreakers { pool: never, ..CircuitBreakers::default() };
        assert!(PoolRequestPermit::try_acquire(&breakers, &pool).is_err());
        assert_eq!(pool.gauges().get(LimitKind::Requests), 0);
    }

    #[test]
    fn pool_request_permit_is_released_on_drop() {
        let pool = Arc::<PoolStats>::default();
        let two = BreakerLimits { requests: Some(2), ..BreakerLimits::default() };
        let breakers = CircuitBreakers { pool: two, ..CircuitBreakers::default() };
        let first = PoolRequestPermit::try_acquire(&breakers, &pool).expect("room");
        let _second = PoolRequestPermit::try_acquire(&breakers, &pool).expect("room");
        assert!(PoolRequestPermit::try_acquire(&breakers, &pool).is_err());
        drop(first);
        assert!(PoolRequestPermit::try_acquire(&breakers, &pool).is_ok());
    }
}
