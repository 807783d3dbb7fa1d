//! Obeying a configuration: whatever keeps its pool and address keeps its health.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::incident::IncidentEnd;
use crate::logic::model::endpoint_stats::ZoneStats;
use crate::logic::model::id::EndpointId;
use crate::logic::model::snapshot::Target;
use crate::logic::model::topology::{PoolSpec, Topology};
use crate::logic::routing::RouteTable;

use super::endpoint::{EndpointLocation, EndpointState};
use super::endpoint_slab::AddressIndex;
use super::pools::PoolState;
use super::{Director, Event};

/// Names are looked up when a pool begins: endpoints that they lead to within this time are as if they had
/// been there from the start, and their shares need not grow.
const INITIAL_RESOLUTION_WINDOW: Duration = Duration::from_secs(10);

impl Director {
    pub(super) fn configure(&mut self, topology: Topology, routes: Arc<RouteTable>, now: Instant) {
        self.apply_topology(topology, |_| true, now);
        self.routes = routes;
    }

    /// Endpoints have come or gone by themselves.
    pub(super) fn update_endpoints(&mut self, topology: Topology, now: Instant) {
        self.apply_topology(topology, |old| now >= old.created_at + INITIAL_RESOLUTION_WINDOW, now);
    }

    /// `is_late` says of a pool that there was before whether who joins it comes late.
    fn apply_topology(
        &mut self,
        topology: Topology,
        is_late: impl Fn(&PoolState) -> bool,
        now: Instant,
    ) {
        self.report_zone_failures();
        let mut removed: BTreeSet<EndpointId> =
            self.endpoints.iter().map(|endpoint| endpoint.id).collect();
        let known = self.endpoints.addresses();
        let mut old_pools: HashMap<Arc<str>, PoolState> =
            self.pools.drain(..).map(|pool| (Arc::clone(&pool.spec.name), pool)).collect();
        let here = topology.local.as_ref();
        for (index, spec) in topology.pools.iter().enumerate() {
            let old = old_pools.remove(&spec.name);
            let is_late = old.as_ref().is_some_and(&is_late);
            let mut state = PoolState::new(spec, here, old, now);
            for zone in 0..spec.zones.len() {
                let zone_stats = &state.zones[zone].stats;
                let targets = self.build_zone_targets(
                    (index, zone),
                    spec,
                    (&known, is_late),
                    zone_stats,
                    now,
                );
                state.counts.all += targets.len() as u32;
                state.zones[zone].set_targets(targets, spec.hash_table_kind());
            }
            state.rebuild_pins();
            let mut members: Vec<EndpointId> =
                state.zones.iter().flat_map(|zone| zone.members.iter().copied()).collect();
            members.sort_unstable();
            members.iter().for_each(|id| {
                removed.remove(id);
            });
            state.members = members.into();
            self.pools.push(state);
        }
        removed.into_iter().for_each(|id| self.remove_endpoint(id, now));
        self.topology = topology;
        self.refresh_pools(now);
    }

    /// Gives every endpoint of a zone its seat.
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
            let location = EndpointLocation { pool, zone, position, weight: one.weight };
            let id = match known.get(&(Arc::clone(&spec.name), one.address)) {
                Some(&id) => {
                    if let Some(endpoint) = self.endpoints.get_mut(id) {
                        endpoint.reconfigure(location, spec, now);
                    }
                    id
                }
                None => self.endpoints.insert(|id| {
                    let mut endpoint = EndpointState::new((id, one.address), location, spec, now);
                    endpoint.is_late_addition = is_late;
                    endpoint
                }),
            };
            let Some(stats) = self.endpoints.get(id).map(|endpoint| Arc::clone(&endpoint.stats))
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

    /// Takes stock after a change of the configuration.
    fn refresh_pools(&mut self, now: Instant) {
        self.ramp_timers.clear();
        for pool in 0..self.pools.len() {
            let members = Arc::clone(&self.pools[pool].members);
            for &id in &*members {
                self.update_eligibility(id, now);
                self.schedule_probe(id);
            }
            let endpoints = &self.endpoints;
            let state = &mut self.pools[pool];
            for (index, zone) in state.zones.iter_mut().enumerate() {
                zone.strikes.retain(|&(at, id)| {
                    endpoints.get(id).is_some_and(|endpoint| {
                        let EndpointLocation { pool: home, zone, .. } = endpoint.location;
                        (home, zone) == (pool, index)
                            && endpoint.first_connection_failure() == Some(at)
                    })
                });
                zone.active_strikes = zone.strikes.len() as u32;
            }
            let is_contradicted = |id: &&EndpointId| {
                endpoints.get(**id).is_some_and(|endpoint| endpoint.is_contradicted)
            };
            state.contradicted = members.iter().filter(is_contradicted).count() as u32;
            state.ramping.retain(|id| endpoints.get(*id).is_some());
            self.end_resolved_divergence(pool);
            let state = &mut self.pools[pool];
            if state.ramp_due.take().is_some() {
                self.schedule_ramp(pool, now);
            }
        }
        self.schedule_load_sampling(now);
        self.load_configured_orders(now);
        self.apply_orders(now);
        self.nominal_probes_per_second = self.nominal_probe_rate();
        self.dirty_pools.extend(0..self.pools.len());
        self.should_publish = true;
    }

    /// Probes a second that all intervals together ask for.
    fn nominal_probe_rate(&self) -> f64 {
        let of = |endpoint: &EndpointState| {
            endpoint.checks.len() as f64 / endpoint.pool.detect.interval.as_secs_f64().max(0.001)
        };
        self.endpoints.iter().map(of).sum()
    }

    fn remove_endpoint(&mut self, id: EndpointId, now: Instant) {
        self.update_incident_counts(id);
        if let Some(incident) = self.ledger.close(id, IncidentEnd::Removed, now) {
            self.push_event(Event::IncidentEnded(Box::new(incident)));
        }
        self.endpoints.remove(id);
    }
}
