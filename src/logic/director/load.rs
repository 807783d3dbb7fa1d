//! The demand on pools: sampled loads, and the order of regions by latency.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Event;
use super::pools::PoolState;
use super::publisher::traffic_split::TrafficSplit;
use super::{Director, EndpointMachine};
use crate::logic::model::id::Locality;
use crate::logic::model::topology::Topology;
use crate::logic::steering::{
    FULL_SHARE, LATENCY_UPDATE_INTERVAL, LatencyOrder, RegionSample, ZoneLoad,
};

/// The interval of samples where capacity is declared.
const CAPACITY_SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// The interval of samples where loads are only reported.
const RELAXED_SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// Endpoints that are sampled within one interval; with more the interval grows.
const ENDPOINTS_PER_SAMPLE: u32 = 10_000;

/// A bound that changes by less makes no publication of its own.
const MIN_BOUND_CHANGE: u64 = FULL_SHARE / 200;

impl Director {
    /// Plans the next sample of each pool.
    pub(super) fn schedule_load_sampling(&mut self, now: Instant) {
        self.load_timers.clear();
        let timers =
            self.pools.iter().enumerate().map(|(index, pool)| (now + sample_interval(pool), index));
        self.load_timers.extend(timers);
    }

    /// The topology in force.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The load of every zone of every pool.
    pub fn zone_loads(&self) -> Vec<(Arc<str>, Locality, ZoneLoad)> {
        let of = |pool: &PoolState| -> Vec<(Arc<str>, Locality, ZoneLoad)> {
            let zones = pool.zones().iter();
            let name = &pool.spec().name;
            zones.map(|zone| (Arc::clone(name), zone.place().clone(), *zone.load())).collect()
        };
        self.pools.iter().flat_map(of).collect()
    }

    /// The regions of every pool by latency.
    pub fn latency_order(&self) -> Vec<(Arc<str>, LatencyOrder)> {
        let of = |pool: &PoolState| (Arc::clone(&pool.spec().name), pool.latency_order().clone());
        self.pools.iter().map(of).collect()
    }

    /// Sets loads and latencies, in place of samples.
    pub fn seed_estimates(
        &mut self,
        loads: &[(Arc<str>, Locality, ZoneLoad)],
        latency_order: &[(Arc<str>, LatencyOrder)],
    ) {
        for (index, pool) in self.pools.iter_mut().enumerate() {
            let spec = pool.spec().clone();
            if let Some((_, order)) = latency_order.iter().find(|(name, _)| *name == spec.name) {
                *pool.latency_order_mut() = order.clone();
                pool.regroup_tiers(self.topology.local.as_ref());
            }
            for zone in pool.zones_mut() {
                let estimate = loads
                    .iter()
                    .find(|(name, place, _)| *name == spec.name && place == zone.place());
                if let Some((.., load)) = estimate {
                    *zone.load_mut() = *load;
                }
            }
            self.publisher.mark_dirty(index);
        }
    }

    /// Samples the loads of the pools that are due.
    pub(super) fn sample_loads(&mut self, now: Instant) {
        while let Some(&(due, index)) = self.load_timers.first() {
            if due > now {
                break;
            }
            self.load_timers.pop_first();
            let Some(pool) = self.pools.get_mut(index) else { continue };
            let elapsed = pool.begin_load_sample(now);
            for zone in pool.zones_mut() {
                let members = zone.roster().ids().iter();
                let stats = members.filter_map(|&id| Some(self.endpoints.get(id)?.stats()));
                let (ended, in_flight) = stats.fold((0, 0), |(ended, in_flight), stats| {
                    let attempts = stats.attempts();
                    let all = ended + attempts.good + attempts.bad;
                    (all, in_flight + u64::from(stats.in_flight()))
                });
                zone.load_mut().update(ended + in_flight, in_flight, elapsed);
            }
            self.load_timers.insert((now + sample_interval(pool), index));
            self.refresh_region_order(index, now);
            self.refresh_capacity_bounds(index, now);
        }
    }

    /// Marks the pool for publication if its capacity bounds have changed.
    fn refresh_capacity_bounds(&mut self, index: usize, now: Instant) {
        let pool = &mut self.pools[index];
        if !pool.spec().has_declared_capacity() {
            return;
        }
        let bounds = TrafficSplit::new(pool, now).capacity_bounds();
        let mut pairs = bounds.iter().zip(pool.capacity_bounds());
        let is_changed = bounds.len() != pool.capacity_bounds().len()
            || pairs.any(|(new, old)| new.abs_diff(*old) > MIN_BOUND_CHANGE);
        if is_changed {
            pool.set_capacity_bounds(bounds);
            self.publisher.mark_dirty(index);
        }
    }

    /// Marks the pool for publication if the order of its regions by latency has changed.
    fn refresh_region_order(&mut self, index: usize, now: Instant) {
        let pool = &mut self.pools[index];
        let has_latency_variant = pool.spec().steer.has_latency_variant();
        if !has_latency_variant || !pool.latency_order().is_due(now) {
            return;
        }
        let mut regions: BTreeMap<Arc<str>, RegionLatencies> = BTreeMap::new();
        for zone in pool.zones_mut() {
            let region = regions.entry(Arc::clone(&zone.place().region)).or_default();
            let mut totals = (0, 0);
            for &id in zone.roster().ids() {
                let Some(endpoint) = self.endpoints.get(id) else { continue };
                let (responses, us) = endpoint.stats().latency_totals();
                totals = (totals.0 + responses, totals.1 + us);
                region.add_probes(endpoint);
            }
            let (responses, us) = zone.take_new_latencies(totals);
            region.sample.responses.0 += responses;
            region.sample.responses.1 += us;
        }
        let sample = |region: &str| {
            regions.get(region).map(|latencies| latencies.sample.clone()).unwrap_or_default()
        };
        if pool.latency_order_mut().update(sample, now) {
            pool.regroup_tiers(self.topology.local.as_ref());
            self.publisher.mark_dirty(index);
            let order = pool.latency_order().region_names();
            let order = order.into_iter().map(Arc::from).collect();
            let pool = Arc::clone(&pool.spec().name);
            self.push_event(Event::RegionOrderChanged { pool, order });
        }
    }
}

/// The latency of a region, from requests and probes.
#[derive(Default)]
struct RegionLatencies {
    sample: RegionSample,
    probed_endpoints: f64,
}

impl RegionLatencies {
    /// Adds the fastest probe of an endpoint that serves to the region's mean.
    fn add_probes(&mut self, endpoint: &EndpointMachine) {
        let min_latency = endpoint.probes().history().min_latency();
        if let Some(min_latency) = min_latency.filter(|_| endpoint.can_serve()) {
            self.probed_endpoints += 1.0;
            let mean = self.sample.probe_us.get_or_insert(0.0);
            *mean += (min_latency.as_micros() as f64 - *mean) / self.probed_endpoints;
        }
    }
}

fn sample_interval(pool: &PoolState) -> Duration {
    let least = match pool.spec().steer.has_latency_variant() {
        _ if pool.spec().has_declared_capacity() => CAPACITY_SAMPLE_INTERVAL,
        true => LATENCY_UPDATE_INTERVAL,
        false => RELAXED_SAMPLE_INTERVAL,
    };
    least * (1 + pool.counts().all() / ENDPOINTS_PER_SAMPLE)
}
