//! From endpoints to the snapshot that requests read.

use std::sync::Arc;

use crate::logic::snapshot::{PoolView, Snapshot, Target, Tier};
use crate::logic::steer::{self, TierWeight};
use crate::logic::topology::PoolSpec;

use super::endpoint::Endpoint;
use super::{Director, Event};

impl Director {
    /// Builds what has become stale, and keeps the rest of the last snapshot.
    pub(super) fn rebuild(&mut self) -> Arc<Snapshot> {
        let stale = std::mem::take(&mut self.stale_pools);
        let pools = self.topology.pools.clone();
        let mut by_pool: Vec<Vec<&Endpoint>> = pools.iter().map(|_| Vec::new()).collect();
        for endpoint in self.endpoints.values().filter(|e| stale.contains(&e.seat.pool)) {
            by_pool[endpoint.seat.pool].push(endpoint);
        }
        let mut views = Vec::with_capacity(pools.len());
        let mut panics = Vec::new();
        for (index, (pool, members)) in pools.iter().zip(&mut by_pool).enumerate() {
            if !stale.contains(&index) {
                views.push(Arc::clone(&self.views[index]));
                continue;
            }
            members.sort_by_key(|endpoint| endpoint.subject.endpoint);
            let before = self.views.iter().find(|old| old.spec.name == pool.name);
            if let Some(before) = before
                && !before.tiers.is_empty()
                && members.iter().all(|endpoint| endpoint.is_unknown())
            {
                // A configuration that replaces every endpoint: the old ones serve until something
                // is known of the new, two round trips later.
                views.push(Arc::clone(before));
                continue;
            }
            let view = self.view(pool, members);
            if before.is_some_and(|old| old.panic) != view.panic {
                panics.push(Event::Panic { pool: Arc::clone(&pool.name), on: view.panic });
            }
            views.push(Arc::new(view));
        }
        panics.into_iter().for_each(|event| self.event(event));
        self.views.clone_from(&views);
        self.version += 1;
        Arc::new(Snapshot { version: self.version, routes: Arc::clone(&self.routes), pools: views })
    }

    fn view(&self, pool: &Arc<PoolSpec>, members: &[&Endpoint]) -> PoolView {
        let any_serves = members.iter().any(|endpoint| endpoint.serves());
        // Endpoints that nothing is known of are no reason to panic: their first probe is under way.
        let any_verdict = members.iter().any(|endpoint| !endpoint.is_unknown());
        let panic = !any_serves && any_verdict;
        let serves = |endpoint: &&Endpoint| panic || endpoint.serves();
        let zones = steer::tiers(pool, self.topology.here.as_ref());
        let weight_of = |tier: &Vec<usize>, only_serving: bool| -> u64 {
            // What nothing is known of is no lost capacity: an addition must not spill traffic.
            let known = members.iter().filter(|e| panic || !e.is_unknown() || serves(e));
            let inside = known.filter(|e| tier.contains(&e.seat.zone));
            inside.filter(|e| !only_serving || serves(e)).map(|e| u64::from(e.seat.weight)).sum()
        };
        let weights: Vec<TierWeight> = zones
            .iter()
            .map(|tier| TierWeight {
                total: weight_of(tier, false),
                healthy: weight_of(tier, true),
            })
            .collect();
        let shares = steer::shares(&weights);
        let mut tiers = Vec::new();
        for (tier, share) in zones.iter().zip(shares) {
            let inside = members.iter().filter(|e| tier.contains(&e.seat.zone) && serves(e));
            let targets: Vec<Target> = inside
                .map(|e| Target {
                    id: e.subject.endpoint,
                    address: e.subject.address,
                    zone: e.seat.zone,
                    weight: e.seat.weight,
                    live: Arc::clone(&e.live),
                })
                .collect();
            if !targets.is_empty() {
                tiers.push(Tier::new(share, targets));
            }
        }
        let members = members.iter().map(|endpoint| endpoint.subject.endpoint).collect();
        PoolView { spec: Arc::clone(pool), tiers, panic, members }
    }
}
