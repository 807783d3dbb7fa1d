//! One address: its behaviour and the idle connections to it.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::logic::model::id::EndpointId;
use crate::logic::model::topology::PoolLimitSpec;

use super::EndpointBehavior;

#[derive(Debug)]
pub(super) struct SimulatedHost {
    pub(super) behavior: EndpointBehavior,
    /// The idle connections of each pool, by the endpoint's identity and the worker's index.
    idle_pools: BTreeMap<(EndpointId, usize), IdlePool>,
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
    pub(super) fn check_in(
        &mut self,
        owner: (EndpointId, usize),
        limits: &PoolLimitSpec,
        now: Instant,
    ) {
        let until = now + limits.idle_timeout;
        let pooled =
            self.idle_pools.entry(owner).or_insert(IdlePool { idle_count: 0, expires_at: until });
        if pooled.expires_at < now {
            pooled.idle_count = 0;
        }
        *pooled = IdlePool {
            idle_count: (pooled.idle_count + 1).min(limits.max_idle_connections),
            expires_at: until,
        };
    }

    /// Takes an idle connection if there is one.
    pub(super) fn check_out(&mut self, owner: (EndpointId, usize), now: Instant) -> bool {
        let Some(pooled) = self.idle_pools.get_mut(&owner) else { return false };
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
        let mut endpoints: Vec<EndpointId> = open.map(|(&(endpoint, _), _)| endpoint).collect();
        endpoints.dedup();
        endpoints
    }

    /// Closes the endpoint's idle connections.
    pub(super) fn close_idle(&mut self, endpoint: EndpointId) {
        self.idle_pools.retain(|&(owner, _), _| owner != endpoint);
    }
}
