//! Limits on what all workers together have under way, at one endpoint and in one pool.
//!
//! Who finds a limit reached goes elsewhere or is refused at once; neither says anything of the
//! endpoint. The words are Envoy's (circuit breakers: connections, pending, requests, retries).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::live::Live;

/// What is limited; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
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
pub struct Breakers {
    /// For each of its endpoints.
    pub endpoint: Caps,
    /// For all of them together.
    pub pool: Caps,
}

/// The kinds of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
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
pub enum Scope {
    /// One endpoint.
    Endpoint,
    /// All of a pool.
    Pool,
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// For whom.
    pub scope: Scope,
    /// Which.
    pub limit: Limit,
}

impl Limit {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Connections, Self::Requests, Self::Pending, Self::Retries];

    /// The word used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::Pending => "pending",
            Self::Retries => "retries",
        }
    }
}

impl Scope {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Endpoint, Self::Pool];

    /// The word used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Pool => "pool",
        }
    }
}

impl Caps {
    /// The limit of one kind.
    #[must_use]
    pub fn of(&self, limit: Limit) -> Option<u32> {
        match limit {
            Limit::Connections => self.connections,
            Limit::Requests => self.requests,
            Limit::Pending => self.pending,
            Limit::Retries => self.retries,
        }
    }
}

impl Breakers {
    /// Whether there is a limit of this kind.
    #[must_use]
    pub fn has(&self, limit: Limit) -> bool {
        self.endpoint.of(limit).is_some() || self.pool.of(limit).is_some()
    }
}

/// How much there is now of what is limited.
#[derive(Debug, Default)]
pub struct Gauges([AtomicU32; Limit::ALL.len()]);

impl Gauges {
    /// How much there is.
    #[must_use]
    pub fn get(&self, limit: Limit) -> u32 {
        self.0[limit as usize].load(Relaxed)
    }

    /// One more, whatever the limit.
    pub(super) fn add(&self, limit: Limit) {
        self.0[limit as usize].fetch_add(1, Relaxed);
    }

    /// One less; how many there are now.
    pub(super) fn sub(&self, limit: Limit) -> u32 {
        self.0[limit as usize].fetch_sub(1, Relaxed) - 1
    }

    /// One more if there are fewer than `cap`.
    #[must_use]
    pub(super) fn take(&self, limit: Limit, cap: Option<u32>) -> bool {
        let Some(cap) = cap else {
            self.add(limit);
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
pub struct PoolLive {
    gauges: Gauges,
}

impl PoolLive {
    /// How much there is of what is limited.
    #[must_use]
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }
}

/// One of what the endpoint and its pool count; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    endpoint: Arc<Live>,
    pool: Arc<PoolLive>,
    limit: Limit,
}

impl Permit {
    /// Takes one at the endpoint and in the pool.
    ///
    /// # Errors
    /// The limit that is reached; the pool's comes first, since it is reached wherever one goes.
    pub fn take(
        limit: Limit,
        breakers: &Breakers,
        endpoint: &Arc<Live>,
        pool: &Arc<PoolLive>,
    ) -> Result<Self, Full> {
        if !pool.gauges.take(limit, breakers.pool.of(limit)) {
            return Err(Full { scope: Scope::Pool, limit });
        }
        if !endpoint.gauges().take(limit, breakers.endpoint.of(limit)) {
            pool.gauges.sub(limit);
            return Err(Full { scope: Scope::Endpoint, limit });
        }
        Ok(Self { endpoint: Arc::clone(endpoint), pool: Arc::clone(pool), limit })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.endpoint.gauges().sub(self.limit);
        self.pool.gauges.sub(self.limit);
    }
}

/// One request of those that the pool may have in flight; given back when dropped.
#[derive(Debug)]
pub struct PoolRequest {
    pool: Arc<PoolLive>,
}

impl PoolRequest {
    /// Counts a request in; `None` where there is no limit, and so nothing to count.
    ///
    /// # Errors
    /// The limit, if it is reached.
    pub fn take(breakers: &Breakers, pool: &Arc<PoolLive>) -> Result<Option<Self>, Full> {
        let Some(cap) = breakers.pool.requests else { return Ok(None) };
        if pool.gauges.take(Limit::Requests, Some(cap)) {
            Ok(Some(Self { pool: Arc::clone(pool) }))
        } else {
            Err(Full { scope: Scope::Pool, limit: Limit::Requests })
        }
    }

    /// Counts a request in that nothing limits.
    #[must_use]
    pub fn count(pool: &Arc<PoolLive>) -> Self {
        pool.gauges.add(Limit::Requests);
        Self { pool: Arc::clone(pool) }
    }
}

impl Drop for PoolRequest {
    fn drop(&mut self) {
        self.pool.gauges.sub(Limit::Requests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(connections: u32) -> Caps {
        Caps { connections: Some(connections), ..Caps::default() }
    }

    #[test]
    fn a_permit_is_given_back_and_a_refusal_takes_nothing() {
        let (near, far, pool) = (Arc::<Live>::default(), Arc::<Live>::default(), Arc::default());
        let breakers = Breakers { endpoint: caps(1), pool: caps(2) };
        let take = |live| Permit::take(Limit::Connections, &breakers, live, &pool);
        let full = |scope| Some(Full { scope, limit: Limit::Connections });
        let first = take(&near).expect("room");
        assert_eq!(take(&near).err(), full(Scope::Endpoint));
        let _second = take(&far).expect("room");
        assert_eq!(take(&far).err(), full(Scope::Pool));
        drop(first);
        assert_eq!(near.gauges().get(Limit::Connections), 0);
        assert_eq!(pool.gauges.get(Limit::Connections), 1);
        assert!(take(&near).is_ok());
    }

    #[test]
    fn without_a_limit_there_is_always_room() {
        let (live, pool) = (Arc::<Live>::default(), Arc::<PoolLive>::default());
        let none = Breakers::default();
        let taken: Vec<_> = (0..1_000)
            .map(|_| Permit::take(Limit::Connections, &none, &live, &pool).expect("room"))
            .collect();
        assert_eq!(live.gauges().get(Limit::Connections), 1_000);
        drop(taken);
        assert_eq!(pool.gauges.get(Limit::Connections), 0);
        assert!(PoolRequest::take(&none, &pool).expect("room").is_none());
    }

    #[test]
    fn a_limit_of_zero_lets_nobody_in() {
        let pool = Arc::<PoolLive>::default();
        let never = Caps { requests: Some(0), ..Caps::default() };
        let breakers = Breakers { pool: never, ..Breakers::default() };
        assert!(PoolRequest::take(&breakers, &pool).is_err());
        assert_eq!(pool.gauges.get(Limit::Requests), 0);
    }

    #[test]
    fn requests_of_a_pool_are_counted_while_they_last() {
        let pool = Arc::<PoolLive>::default();
        let two = Caps { requests: Some(2), ..Caps::default() };
        let breakers = Breakers { pool: two, ..Breakers::default() };
        let first = PoolRequest::take(&breakers, &pool).expect("room");
        let _second = PoolRequest::take(&breakers, &pool).expect("room");
        assert!(PoolRequest::take(&breakers, &pool).is_err());
        drop(first);
        assert!(PoolRequest::take(&breakers, &pool).is_ok());
    }
}
