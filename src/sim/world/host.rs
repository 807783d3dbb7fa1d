//! One address, whatever listens there, and the idle connections to it.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::logic::id::EndpointId;
use crate::logic::topology::PoolLimits;

use super::Behavior;

#[derive(Debug)]
pub(super) struct Host {
    pub(super) behavior: Behavior,
    /// The idle connections of each pool, by the endpoint's identity.
    pooled: BTreeMap<EndpointId, Pooled>,
}

#[derive(Clone, Copy, Debug)]
struct Pooled {
    idle: usize,
    until: Instant,
}

impl Host {
    pub(super) fn new(behavior: Behavior) -> Self {
        Self { behavior, pooled: BTreeMap::new() }
    }

    /// A connection is idle again.
    pub(super) fn check_in(&mut self, endpoint: EndpointId, limits: &PoolLimits, now: Instant) {
        let until = now + limits.idle_timeout;
        let pooled = self.pooled.entry(endpoint).or_insert(Pooled { idle: 0, until });
        if pooled.until < now {
            pooled.idle = 0;
        }
        *pooled = Pooled { idle: (pooled.idle + 1).min(limits.idle_connections), until };
    }

    /// Takes an idle connection if there is one.
    pub(super) fn check_out(&mut self, endpoint: EndpointId, now: Instant) -> bool {
        let Some(pooled) = self.pooled.get_mut(&endpoint) else { return false };
        let is_there = pooled.idle > 0 && pooled.until > now;
        pooled.idle -= usize::from(is_there);
        is_there
    }

    /// Who keeps idle connections to it.
    pub(super) fn watchers(&self, now: Instant) -> Vec<EndpointId> {
        let open = self.pooled.iter().filter(|(_, pooled)| pooled.idle > 0 && pooled.until > now);
        open.map(|(&endpoint, _)| endpoint).collect()
    }

    /// Its idle connections are closed.
    pub(super) fn close_idle(&mut self, endpoint: EndpointId) {
        self.pooled.remove(&endpoint);
    }
}
