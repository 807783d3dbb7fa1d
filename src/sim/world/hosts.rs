//! One address: its behaviour and the idle connections to it.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::logic::model::id::EndpointId;
use crate::logic::model::topology::PoolLimitSpec;

use super::EndpointBehavior;

#[derive(Debug)]
pub(super) struct SimulatedHost {
    pub(super) behavior: EndpointBehavior,
    /// The idle connections of each pool, by the endpoint's identity.
    idle_pools: BTreeMap<EndpointId, IdlePool>,
}

#[derive(Clone, Copy, Debug)]
struct IdlePool {
    idle_count: usize,
    expires_at: Instant,
}

impl SimulatedHost {
    pub(super) fn new(behavior: EndpointBehavior) -> Self {
        Self { behavior, idle_pools: BTreeMap::new() }
    }

    /// A connection becomes idle.
    pub(super) fn check_in(&mut self, endpoint: EndpointId, limits: &PoolLimitSpec, now: Instant) {
        let until = now + limits.idle_timeout;
        let pooled = self
            .idle_pools
            .entry(endpoint)
            .or_insert(IdlePool { idle_count: 0, expires_at: until });
        if pooled.expires_at < now {
            pooled.idle_count = 0;
        }
        *pooled = IdlePool {
            idle_count: (pooled.idle_count + 1).min(limits.max_idle_connections),
            expires_at: until,
        };
    }

    /// Takes an idle connection if there is one.
    pub(super) fn check_out(&mut self, endpoint: EndpointId, now: Instant) -> bool {
        let Some(pooled) = self.idle_pools.get_mut(&endpoint) else { return false };
        let is_available = pooled.idle_count > 0 && pooled.expires_at > now;
        pooled.idle_count -= usize::from(is_available);
        is_available
    }

    /// The endpoints whose pools hold idle connections to this host.
    pub(super) fn endpoints_with_idle_connections(&self, now: Instant) -> Vec<EndpointId> {
        let open = self
            .idle_pools
            .iter()
            .filter(|(_, pooled)| pooled.idle_count > 0 && pooled.expires_at > now);
        open.map(|(&endpoint, _)| endpoint).collect()
    }

    /// Closes the endpoint's idle connections.
    pub(super) fn close_idle(&mut self, endpoint: EndpointId) {
        self.idle_pools.remove(&endpoint);
    }
}
