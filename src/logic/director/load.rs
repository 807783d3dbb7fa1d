//! What a pool is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pools::{PoolState, tiers};
use super::traffic_split::TrafficSplit;
use super::{Director, Event};
use crate::logic::model::id::Locality;
use crate::logic::model::topology::Topology;
use crate::logic::steering::{
    FULL_SHARE, LATENCY_UPDATE_INTERVAL, LatencyOrder, RegionSample, ZoneLoad,
};

/// How often flows are looked at where something is said of what can be taken.
const CAPACITY_SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// And where they are only told.
const RELAXED_SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// So many endpoints are looked at within a period; with more it is longer.
const ENDPOINTS_PER_SAMPLE: u32 = 10_000;

/// What changes less than this does not make a publication of its own.
const MIN_BOUND_CHANGE: u64 = FULL_SHARE / 200;

impl Director {
    /// Begins, or goes on, to look at the flows of all pools.
    pub(super) fn schedule_load_sampling(&mut self, now: Instant) {
        self.load_timers.clear();
        let timers =
            self.pools.iter().enumerate().map(|(index, pool)| (now + sample_interval(pool), index));
        self.load_timers.extend(timers);
    }

    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Requests to every zone of every pool.
    pub fn zone_loads(&self) -> Vec<(Arc<str>, Locality, ZoneLoad)> {
        let of = |pool: &PoolState| -> Vec<(Arc<str>, Locality, ZoneLoad)> {
            let zones = pool.zones.iter();
            zones.map(|zone| (Arc::clone(&pool.spec.name), zone.place.clone(), zone.load)).collect()
        };
        self.pools.iter().flat_map(of).collect()
    }

    /// How soon the regions of every pool answer.
    pub fn latency_order(&self) -> Vec<(Arc<str>, LatencyOrder)> {
        let of = |pool: &PoolState| (Arc::clone(&pool.spec.name), pool.latency_order.clone());
        self.pools.iter().map(of).collect()
    }

    /// Takes these flows for what is asked for, and this for how soon regions answer.
    pub fn seed_estimates(
        &mut self,
        loads: &[(Arc<str>, Locality, ZoneLoad)],
        latency_order: &[(Arc<str>, LatencyOrder)],
    ) {
        for (index, pool) in self.pools.iter_mut().enumerate() {
            let estimate = latency_order.iter().find(|(name, _)| *name == pool.spec.name);
            if let Some((_, known)) = estimate {
                pool.latency_order = known.clone();
                pool.tiers = tiers(&pool.spec, self.topology.local.as_ref(), &pool.latency_order);
            }
            for zone in &mut pool.zones {
                let estimate = loads
                    .iter()
                    .find(|(name, place, _)| *name == pool.spec.name && *place == zone.place);
                if let Some((.., load)) = estimate {
                    zone.load = *load;
                }
            }
            self.dirty_pools.insert(index);
        }
    }

    /// Looks at the flows that are due.
    pub(super) fn sample_loads(&mut self, now: Instant) {
        while let Some(&(due, index)) = self.load_timers.first() {
            if due > now {
                break;
            }
            self.load_timers.pop_first();
            let Some(pool) = self.pools.get_mut(index) else { continue };
            let elapsed =
                pool.load_sampled_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
            pool.load_sampled_at = Some(now);
            for zone in &mut pool.zones {
                let stats =
                    zone.members.iter().filter_map(|&id| Some(&self.endpoints.get(id)?.stats));
                let (ended, in_flight) = stats.fold((0, 0), |(ended, in_flight), live| {
                    let tries = live.attempts();
                    (ended + tries.good + tries.bad, in_flight + u64::from(live.in_flight()))
                });
                zone.load.update(ended + in_flight, in_flight, elapsed);
            }
            self.load_timers.insert((now + sample_interval(pool), index));
            self.refresh_region_order(index, now);
            self.refresh_capacity_bounds(index, now);
        }
    }

    /// Has the pool published when what it can take has changed.
    fn refresh_capacity_bounds(&mut self, index: usize, now: Instant) {
        let pool = &mut self.pools[index];
        if !pool.spec.has_declared_capacity() {
            return;
        }
        let bounds = TrafficSplit::new(pool, now).capacity_bounds();
        let is_changed = bounds.len() != pool.capacity_bounds.len()
            || bounds
                .iter()
                .zip(&pool.capacity_bounds)
                .any(|(new, old)| new.abs_diff(*old) > MIN_BOUND_CHANGE);
        if is_changed {
            pool.capacity_bounds = bounds;
            self.dirty_pools.insert(index);
        }
    }

    /// Has the pool published when another region answers sooner.
    fn refresh_region_order(&mut self, index: usize, now: Instant) {
        let pool = &mut self.pools[index];
        if !pool.spec.steer.has_latency_variant() || !pool.latency_order.is_due(now) {
            return;
        }
        let mut regions: BTreeMap<Arc<str>, (RegionSample, f64)> = BTreeMap::new();
        for zone in &mut pool.zones {
            let (observed, probed_endpoints) =
                regions.entry(Arc::clone(&zone.place.region)).or_default();
            let (mut responses, mut us) = (0, 0);
            for endpoint in zone.members.iter().filter_map(|&id| self.endpoints.get(id)) {
                let latency_totals = endpoint.stats.latency_totals();
                (responses, us) = (responses + latency_totals.0, us + latency_totals.1);
                if let Some(min_latency) =
                    endpoint.probe_history.min_latency().filter(|_| endpoint.can_serve())
                {
                    *probed_endpoints += 1.0;
                    let sum = observed.probe_us.get_or_insert(0.0);
                    *sum += (min_latency.as_micros() as f64 - *sum) / *probed_endpoints;
                }
            }
            // What was counted at endpoints that are gone is gone too.
            let before = std::mem::replace(&mut zone.latency_totals, (responses, us));
            observed.responses.0 += responses.saturating_sub(before.0);
            observed.responses.1 += us.saturating_sub(before.1);
        }
        let of =
            |region: &str| regions.get(region).map(|(seen, _)| seen.clone()).unwrap_or_default();
        if pool.latency_order.update(of, now) {
            pool.tiers = tiers(&pool.spec, self.topology.local.as_ref(), &pool.latency_order);
            self.dirty_pools.insert(index);
            let (name, order) = (Arc::clone(&pool.spec.name), pool.latency_order.region_names());
            let order = order.into_iter().map(Arc::from).collect();
            self.push_event(Event::RegionOrderChanged { pool: name, order });
        }
    }
}

fn sample_interval(pool: &PoolState) -> Duration {
    let least = match pool.spec.steer.has_latency_variant() {
        _ if pool.spec.has_declared_capacity() => CAPACITY_SAMPLE_INTERVAL,
        true => LATENCY_UPDATE_INTERVAL,
        false => RELAXED_SAMPLE_INTERVAL,
    };
    least * (1 + pool.counts.all / ENDPOINTS_PER_SAMPLE)
}
