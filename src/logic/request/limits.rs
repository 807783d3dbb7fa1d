//! Circuit-breaker limits: their kinds, their configured values and the gauges that they bound.
//!
//! The terms are Envoy's (connections, pending, requests, retries).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The limits of one scope; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Open connections, idle ones included.
    pub connections: Option<u32>,
    /// Requests in flight, including those that wait for a connection.
    pub requests: Option<u32>,
    /// Requests that wait for a free connection.
    pub pending: Option<u32>,
    /// Retries in flight.
    pub retries: Option<u32>,
}

/// The limits of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CircuitBreakers {
    /// For each endpoint of the pool.
    pub endpoint: BreakerLimits,
    /// For all endpoints together.
    pub pool: BreakerLimits,
}

/// The kinds of limits, in the order of the gauges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Bounded by [`BreakerLimits::connections`].
    Connections,
    /// Bounded by [`BreakerLimits::requests`].
    Requests,
    /// Bounded by [`BreakerLimits::pending`].
    Pending,
    /// Bounded by [`BreakerLimits::retries`].
    Retries,
}

/// The scope of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitScope {
    Endpoint,
    /// All endpoints of a pool together.
    Pool,
}

/// The limit that a request or a connection has reached.
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
    /// Whether either scope has a limit of this kind.
    pub fn has_limit(&self, limit: LimitKind) -> bool {
        self.endpoint.get(limit).is_some() || self.pool.get(limit).is_some()
    }
}

/// The current value of each kind.
#[derive(Debug, Default)]
pub struct LimitGauges([AtomicU32; LimitKind::ALL.len()]);

impl LimitGauges {
    pub fn get(&self, limit: LimitKind) -> u32 {
        self.0[limit as usize].load(Relaxed)
    }

    /// Adds one, whatever the limit.
    pub(crate) fn increment(&self, limit: LimitKind) {
        self.0[limit as usize].fetch_add(1, Relaxed);
    }

    /// Removes one and returns the new value.
    pub(crate) fn decrement(&self, limit: LimitKind) -> u32 {
        self.0[limit as usize].fetch_sub(1, Relaxed) - 1
    }

    /// Adds one if the value is below `limit_value`.
    pub(crate) fn try_acquire(&self, limit: LimitKind, limit_value: Option<u32>) -> bool {
        let Some(limit_value) = limit_value else {
            self.increment(limit);
            return true;
        };
        let more = |now: u32| (now < limit_value).then_some(now + 1);
        self.0[limit as usize].fetch_update(Relaxed, Relaxed, more).is_ok()
    }
}

/// The gauges that all workers share for one pool, on their own cache line. Requests and retries
/// are counted only while they are limited.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PoolStats {
    gauges: LimitGauges,
}

impl PoolStats {
    pub fn gauges(&self) -> &LimitGauges {
        &self.gauges
    }
}
