//! Applying a configuration: an endpoint that keeps its pool and address keeps its health.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::incident::IncidentEnd;
use crate::logic::model::endpoint_stats::ZoneStats;
use crate::logic::model::id::EndpointId;
use crate::logic::model::snapshot::Target;
use crate::logic::model::topology::{PoolSpec, Topology};
use crate::logic::routing::RouteTable;

use super::endpoint::location::EndpointLocation;
use super::endpoint::slab::AddressIndex;
use super::pools::PoolState;
use super::zones::is_struck_since;
use super::{Director, EndpointMachine};

/// Names are looked up when a pool is first configured. Endpoints that they resolve to within this
/// time count as original members: their shares need not grow.
const INITIAL_RESOLUTION_WINDOW: Duration = Duration::from_secs(10);

impl Director {
    pub(super) fn configure(&mut self, topology: Topology, routes: Arc<RouteTable>, now: Instant) {
        self.apply_topology(topology, |_| true, now);
        self.publisher.set_routes(routes);
    }

    /// Applies a topology in which endpoints have come or gone.
    pub(super) fn update_endpoints(&mut self, topology: Topology, now: Instant) {
        self.apply_topology(
            topology,
            |old| now >= old.created_at() + INITIAL_RESOLUTION_WINDOW,
            now,
        );
    }

    /// `is_late` returns for an existing pool whether new endpoints are late additions to it.
    fn apply_topology(
        &mut self,
        topology: Topology,
        is_late: impl Fn(&PoolState) -> bool,
        now: Instant,
    ) {
        self.report_zone_failures();
        let mut removed: BTreeSet<EndpointId> =
            self.endpoints.iter().map(EndpointMachine::id).collect();
        let known = self.endpoints.addresses();
        let mut old_pools: HashMap<Arc<str>, PoolState> =
            self.pools.drain(..).map(|pool| (Arc::clone(&pool.spec().name), pool)).collect();
        let here = topology.local.as_ref();
        for (index, spec) in topology.pools.iter().enumerate() {
            let old = old_pools.remove(&spec.name);
            let is_late = old.as_ref().is_some_and(&is_late);
            let mut state = PoolState::new(spec, here, old, now);
            for zone in 0..spec.zones.len() {
                let zone_stats = state.zone(zone).stats();
                let targets = self.build_zone_targets(
                    (index, zone),
                    spec,
                    (&known, is_late),
                    zone_stats,
                    now,
                );
                let roster = state.zone_mut(zone).roster_mut();
                roster.set_targets(targets, spec.hash_table_kind());
            }
            state.index_members();
            state.members().iter().for_each(|id| {
                removed.remove(id);
            });
            self.pools.push(state);
        }
        removed.into_iter().for_each(|id| self.remove_endpoint(id, now));
        self.topology = topology;
        self.refresh_pools(now);
    }

    /// Places every endpoint of a zone, and creates those that are new.
    fn build_zone_targets(
        &mut self,
        (pool, zone): (usize, usize),
        spec: &Arc<PoolSpec>,
        (known, is_late): (&AddressIndex, bool),
        zone_stats: &Arc<ZoneStats>,
        now: Instant,
    ) -> Vec<Target> {
        let declared = &spec.zones[zone];
        let mut targets = Vec::with_capacity(declared.endpoints.len());
        for (one, position) in declared.endpoints.iter().zip(0..) {
            let location = EndpointLocation::new((pool, zone), position, one.weight);
            let id = match known.get(&(Arc::clone(&spec.name), one.address)) {
                Some(&id) => {
                    if let Some(endpoint) = self.endpoints.get_mut(id) {
                        endpoint.reconfigure(location, spec, now);
                    }
                    id
                }
                None => self.endpoints.insert(|id| {
                    EndpointMachine::new((id, one.address), location, spec, is_late, now)
                }),
            };
            let Some(stats) = self.endpoints.get(id).map(|endpoint| Arc::clone(endpoint.stats()))
            else {
                continue;
            };
            let zone_stats = Arc::clone(zone_stats);
            targets.push(Target {
                id,
                address: one.address,
                zone,
                weight: one.weight,
                stats,
                zone_stats,
            });
        }
        targets
    }

    /// Brings all machines in line with the configuration.
    fn refresh_pools(&mut self, now: Instant) {
        self.ramp_timers.clear();
        for pool in 0..self.pools.len() {
            let members = Arc::clone(self.pools[pool].members());
            for &id in &*members {
                self.update_eligibility(id, now);
                self.schedule_probe(id);
            }
            self.refresh_pool_machines(pool);
            self.end_resolved_divergence(pool);
            if self.pools[pool].ramping_mut().unschedule() {
                self.schedule_ramp(pool, now);
            }
        }
        self.schedule_load_sampling(now);
        self.load_configured_orders(now);
        self.apply_orders(now);
        let nominal_rate = self.endpoints.iter().map(nominal_probe_rate).sum();
        self.probe_scheduler.set_nominal_rate(nominal_rate);
        self.publisher.request(self.pools.len());
    }

    /// Drops the state of endpoints that are gone or have moved from the machines of a pool.
    fn refresh_pool_machines(&mut self, index: usize) {
        let endpoints = &self.endpoints;
        let pool = &mut self.pools[index];
        for (zone_index, zone) in pool.zones_mut().iter_mut().enumerate() {
            zone.correlation_mut().retain_strikes(|id, struck_at| {
                endpoints.get(id).is_some_and(|endpoint| {
                    let location = endpoint.location();
                    (location.pool(), location.zone()) == (index, zone_index)
                        && is_struck_since(endpoint, struck_at)
                })
            });
        }
        let members = pool.members().iter().filter_map(|&id| endpoints.get(id));
        let contradicted = members.filter(|endpoint| endpoint.is_contradicted()).count();
        pool.divergence_mut().set_contradicted(contradicted as u32);
        pool.ramping_mut().retain(|id| endpoints.get(id).is_some());
    }

    fn remove_endpoint(&mut self, id: EndpointId, now: Instant) {
        self.close_incident(id, IncidentEnd::Removed, now);
        self.endpoints.remove(id);
    }
}

/// Probes a second that the interval of an endpoint demands.
fn nominal_probe_rate(endpoint: &EndpointMachine) -> f64 {
    let interval = endpoint.pool().detect.interval;
    endpoint.probes().len() as f64 / interval.as_secs_f64().max(0.001)
}
