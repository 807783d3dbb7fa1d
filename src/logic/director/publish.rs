//! From endpoints to the snapshot that requests read.

use std::sync::Arc;

use crate::logic::snapshot::{PoolLive, PoolView, Snapshot, Target, Tier};
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
        let (mut panics, mut cuts) = (Vec::new(), Vec::new());
        for (index, (pool, members)) in pools.iter().zip(&mut by_pool).enumerate() {
            if !stale.contains(&index) {
                views.push(Arc::clone(&self.views[index]));
                continue;
            }
            members.sort_by_key(|endpoint| endpoint.subject.endpoint);
            let before = self.views.iter().find(|old| old.spec.name == pool.name);
            if let Some(before) = before
                && !before.tiers.is_empty()
                && members.iter().all(|endpoint| endpoint.is_unknown() && !endpoint.serves())
            {
                // A configuration that replaces every endpoint: the old ones serve until something
                // is known of the new, two round trips later.
                views.push(Arc::clone(before));
                continue;
            }
            let live = before.map(|old| Arc::clone(&old.live)).unwrap_or_default();
            let view = self.view(pool, members, live);
            let was_panic = before.is_some_and(|old| old.panic);
            if was_panic && !view.panic {
                // Nobody was cut while there was nowhere better to go. Now there is.
                cuts.extend(members.iter().filter_map(|endpoint| endpoint.verdict()));
            }
            if was_panic != view.panic {
                panics.push(Event::Panic { pool: Arc::clone(&pool.name), on: view.panic });
            }
            views.push(Arc::new(view));
        }
        self.cuts.append(&mut cuts);
        panics.into_iter().for_each(|event| self.event(event));
        self.views.clone_from(&views);
        self.version += 1;
        Arc::new(Snapshot { version: self.version, routes: Arc::clone(&self.routes), pools: views })
    }

    fn view(&self, pool: &Arc<PoolSpec>, members: &[&Endpoint], live: Arc<PoolLive>) -> PoolView {
        let any_serves = members.iter().any(|endpoint| endpoint.serves());
        // Endpoints that nothing is known of are no reason to panic: their first probe is under way.
        let any_verdict = members.iter().any(|endpoint| !endpoint.is_unknown());
        let panic = !any_serves && any_verdict;
        let zones = steer::tiers(pool, self.topology.here.as_ref());
        let groups: Vec<Group<'_>> =
            zones.iter().map(|tier| Group::of(tier, members, panic)).collect();
        let any_clear = groups.iter().any(|group| !group.clear.is_empty());
        let weights: Vec<TierWeight> = groups.iter().map(|group| group.weight(any_clear)).collect();
        let shares = steer::shares(&weights);
        let mut tiers = Vec::new();
        let mut last_resort = Vec::new();
        for (group, share) in groups.iter().zip(shares) {
            let (first, rest) = if any_clear {
                (&group.clear, Some(&group.suspects))
            } else {
                (&group.suspects, None)
            };
            if !first.is_empty() {
                tiers.push(Tier::of(share, targets(first)));
            }
            last_resort.extend(rest.filter(|rest| !rest.is_empty()));
        }
        // Requests that have been everywhere else may still try a suspect.
        tiers.extend(last_resort.into_iter().map(|suspects| Tier::of(0, targets(suspects))));
        let members = members.iter().map(|endpoint| endpoint.subject.endpoint).collect();
        let (proven, trials) = (None, Vec::new());
        PoolView { spec: Arc::clone(pool), tiers, proven, trials, panic, members, live }
    }
}

/// The endpoints of one tier that may serve.
struct Group<'a> {
    /// Sum of the weights of all that something is known of: an addition is no lost capacity.
    total: u64,
    clear: Vec<&'a Endpoint>,
    /// A suspect still serves, but not while there is another choice: whatever it is suspected of
    /// is confirmed or cleared within a few probes, and what it would have got until then is saved.
    suspects: Vec<&'a Endpoint>,
}

impl<'a> Group<'a> {
    fn of(tier: &[usize], members: &[&'a Endpoint], panic: bool) -> Self {
        let inside = || members.iter().copied().filter(|e| tier.contains(&e.seat.zone));
        let known = inside().filter(|e| panic || !e.is_unknown() || e.serves());
        let serving = || inside().filter(|e| panic || e.serves());
        Self {
            total: weight(known),
            clear: serving().filter(|e| panic || !e.is_suspect()).collect(),
            suspects: serving().filter(|e| !panic && e.is_suspect()).collect(),
        }
    }

    /// One suspect among others moves nothing to the next tier; a tier of suspects only moves all.
    fn weight(&self, any_clear: bool) -> TierWeight {
        let serving = self.clear.iter().chain(&self.suspects).copied();
        let healthy = if any_clear && self.clear.is_empty() { 0 } else { weight(serving) };
        TierWeight { total: self.total, healthy }
    }
}

fn weight<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> u64 {
    endpoints.map(|endpoint| u64::from(endpoint.seat.weight)).sum()
}

fn targets(endpoints: &[&Endpoint]) -> Vec<Target> {
    let target = |endpoint: &&Endpoint| Target {
        id: endpoint.subject.endpoint,
        address: endpoint.subject.address,
        zone: endpoint.seat.zone,
        weight: endpoint.seat.weight,
        live: Arc::clone(&endpoint.live),
    };
    endpoints.iter().map(target).collect()
}
