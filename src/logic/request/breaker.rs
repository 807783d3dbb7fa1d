//! Limits on what all workers together have under way, at one endpoint and in one pool.
//!
//! Who finds a limit reached goes elsewhere or is refused at once; neither says anything of the
//! endpoint. The words are Envoy's (circuit breakers: connections, pending, requests, retries).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::logic::model::endpoint_stats::EndpointStats;

/// What is limited; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Open connections, idle ones included.
    pub connections: Option<u32>,
    /// Requests in flight, those that wait for a connection included.
    pub requests: Option<u32>,
    /// Requests that wait for one of `connections` to come free.
    pub pending: Option<u32>,
    /// Requests in flight that were sent again.
    pub retries: Option<u32>,
}

/// The limits of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CircuitBreakers {
    /// For each of its endpoints.
    pub endpoint: BreakerLimits,
    /// For all of them together.
    pub pool: BreakerLimits,
}

/// The kinds of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// [`Caps::connections`].
    Connections,
    /// [`Caps::requests`].
    Requests,
    /// [`Caps::pending`].
    Pending,
    /// [`Caps::retries`].
    Retries,
}

/// What a limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitScope {
    Endpoint,
    /// All of a pool.
    Pool,
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitExceeded {
    pub scope: LimitScope,
    pub limit: LimitKind,
}

impl LimitKind {
    pub const ALL: [Self; 4] = [Self::Connections, Self::Requests, Self::Pending, Self::Retries];

    /// The word used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::Pending => "pending",
            Self::Retries => "retries",
        }
    }
}

impl LimitScope {
    pub const ALL: [Self; 2] = [Self::Endpoint, Self::Pool];

    /// The word used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Pool => "pool",
        }
    }
}

impl BreakerLimits {
    /// The limit of one kind.
    pub fn get(&self, limit: LimitKind) -> Option<u32> {
        match limit {
            LimitKind::Connections => self.connections,
            LimitKind::Requests => self.requests,
            LimitKind::Pending => self.pending,
            LimitKind::Retries => self.retries,
        }
    }
}

impl CircuitBreakers {
    /// Whether there is a limit of this kind.
    pub fn has_limit(&self, limit: LimitKind) -> bool {
        self.endpoint.get(limit).is_some() || self.pool.get(limit).is_some()
    }
}

/// How much there is now of what is limited.
#[derive(Debug, Default)]
pub struct LimitGauges([AtomicU32; LimitKind::ALL.len()]);

impl LimitGauges {
    /// How much there is.
    pub fn get(&self, limit: LimitKind) -> u32 {
        self.0[limit as usize].load(Relaxed)
    }

    /// One more, whatever the limit.
    pub(crate) fn increment(&self, limit: LimitKind) {
        self.0[limit as usize].fetch_add(1, Relaxed);
    }

    /// One less; how many there are now.
    pub(crate) fn decrement(&self, limit: LimitKind) -> u32 {
        self.0[limit as usize].fetch_sub(1, Relaxed) - 1
    }

    /// One more if there are fewer than `cap`.
    pub(crate) fn try_acquire(&self, limit: LimitKind, limit_value: Option<u32>) -> bool {
        let Some(cap) = limit_value else {
            self.increment(limit);
            return true;
        };
        let more = |now: u32| (now < cap).then_some(now + 1);
        self.0[limit as usize].fetch_update(Relaxed, Relaxed, more).is_ok()
    }
}

/// The counters that all workers share for one pool, alone on their line. Requests and retries are
/// counted only while they are limited.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PoolStats {
    gauges: LimitGauges,
}

impl PoolStats {
    /// How much there is of what is limited.
    pub fn gauges(&self) -> &LimitGauges {
        &self.gauges
    }
}

/// One of what the endpoint and its pool count; given back when dropped.
#[derive(Debug)]
pub struct LimitPermit {
    endpoint: Arc<EndpointStats>,
    pool: Arc<PoolStats>,
    limit: LimitKind,
}

impl LimitPermit {
    /// Takes one at the endpoint and in the pool.
    ///
    /// # Errors
    /// The limit that is reached; the pool's comes first, since it is reached wherever one goes.
    pub fn try_acquire(
        limit: LimitKind,
        breakers: &CircuitBreakers,
        endpoint: &Arc<EndpointStats>,
        pool: &Arc<PoolStats>,
    ) -> Result<Self, LimitExceeded> {
        if !pool.gauges.try_acquire(limit, breakers.pool.get(limit)) {
            return Err(LimitExceeded { scope: LimitScope::Pool, limit });
        }
        if !endpoint.gauges().try_acquire(limit, breakers.endpoint.get(limit)) {
            pool.gauges.decrement(limit);
            return Err(LimitExceeded { scope: LimitScope::Endpoint, limit });
        }
        Ok(Self { endpoint: Arc::clone(endpoint), pool: Arc::clone(pool), limit })
    }
}

impl Drop for LimitPermit {
    fn drop(&mut self) {
        self.endpoint.gauges().decrement(self.limit);
        self.pool.gauges.decrement(self.limit);
    }
}

/// One request of those that the pool may have in flight; given back when dropped.
#[derive(Debug)]
pub struct PoolRequestPermit {
    pool: Arc<PoolStats>,
}

impl PoolRequestPermit {
    /// Counts a request in; `None` where there is no limit, and so nothing to count.
    ///
    /// # Errors
    /// The limit, if it is reached.
    pub fn try_acquire(
        breakers: &CircuitBreakers,
        pool: &Arc<PoolStats>,
    ) -> Result<Option<Self>, LimitExceeded> {
        let Some(cap) = breakers.pool.requests else { return Ok(None) };
        if pool.gauges.try_acquire(LimitKind::Requests, Some(cap)) {
            Ok(Some(Self { pool: Arc::clone(pool) }))
        } else {
            Err(LimitExceeded { scope: LimitScope::Pool, limit: LimitKind::Requests })
        }
    }

    /// Counts a request in that nothing limits.
    pub fn acquire_unlimited(pool: &Arc<PoolStats>) -> Self {
        pool.gauges.increment(LimitKind::Requests);
        Self { pool: Arc::clone(pool) }
    }
}

impl Drop for PoolRequestPermit {
    fn drop(&mut self) {
        self.pool.gauges.decrement(LimitKind::Requests);
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(pool.gauges.get(LimitKind::Connections), 1);
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
        assert_eq!(pool.gauges.get(LimitKind::Connections), 0);
        assert!(PoolRequestPermit::try_acquire(&none, &pool).expect("room").is_none());
    }

    #[test]
    fn limit_of_zero_refuses_every_request() {
        let pool = Arc::<PoolStats>::default();
        let never = BreakerLimits { requests: Some(0), ..BreakerLimits::default() };
        let breakers = CircuitBreakers { pool: never, ..CircuitBreakers::default() };
        assert!(PoolRequestPermit::try_acquire(&breakers, &pool).is_err());
        assert_eq!(pool.gauges.get(LimitKind::Requests), 0);
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
