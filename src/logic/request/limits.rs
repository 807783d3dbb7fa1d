//! The kinds of circuit-breaker limits, their configured values and the gauges they are checked
//! against. The terms are Envoy's (connections, pending, requests, retries).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

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
