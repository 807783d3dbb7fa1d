//! Obeying a configuration: whatever keeps its pool and address keeps its health.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::id::EndpointId;
use crate::logic::incident::Ended;
use crate::logic::live::Kin;
use crate::logic::route::RouteTable;
use crate::logic::snapshot::Target;
use crate::logic::topology::{PoolSpec, Topology};

use super::endpoint::{Endpoint, Seat};
use super::pools::PoolState;
use super::roster::Addresses;
use super::{Director, Event};

/// Names are looked up when a pool begins: endpoints that they lead to within this time are as if they had
/// been there from the start, and their shares need not grow.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

impl Director {
    pub(super) fn configure(&mut self, topology: Topology, routes: Arc<RouteTable>, now: Instant) {
        self.arrange(topology, |_| true, now);
        self.routes = routes;
    }

    /// Endpoints have come or gone by themselves.
    pub(super) fn rearrange(&mut self, topology: Topology, now: Instant) {
        self.arrange(topology, |old| now >= old.born + FOUND_WITHIN, now);
    }

    /// `is_late` says of a pool that there was before whether who joins it comes late.
    fn arrange(&mut self, topology: Topology, is_late: impl Fn(&PoolState) -> bool, now: Instant) {
        self.tell_falls();
        let mut gone: BTreeSet<EndpointId> =
            self.roster.iter().map(|endpoint| endpoint.id).collect();
        let known = self.roster.addresses();
        let mut before: HashMap<Arc<str>, PoolState> =
            self.pools.drain(..).map(|pool| (Arc::clone(&pool.spec.name), pool)).collect();
        let here = topology.here.as_ref();
        for (index, spec) in topology.pools.iter().enumerate() {
            let old = before.remove(&spec.name);
            let is_late = old.as_ref().is_some_and(&is_late);
            let mut state = PoolState::new(spec, here, old, now);
            for zone in 0..spec.zones.len() {
                let kin = &state.zones[zone].kin;
                let targets = self.seat_zone((index, zone), spec, (&known, is_late), kin, now);
                state.counts.all += targets.len() as u32;
                state.zones[zone].seat(targets, spec.tables());
            }
            state.settle_pins();
            let mut members: Vec<EndpointId> =
                state.zones.iter().flat_map(|zone| zone.members.iter().copied()).collect();
            members.sort_unstable();
            members.iter().for_each(|id| {
                gone.remove(id);
            });
            state.members = members.into();
            self.pools.push(state);
        }
        gone.into_iter().for_each(|id| self.retire(id, now));
        self.topology = topology;
        self.resume(now);
    }

    /// Gives every endpoint of a zone its seat.
    fn seat_zone(
        &mut self,
        (pool, zone): (usize, usize),
        spec: &Arc<PoolSpec>,
        (known, is_late): (&Addresses, bool),
        kin: &Arc<Kin>,
        now: Instant,
    ) -> Vec<Target> {
        let declared = &spec.zones[zone];
        let mut targets = Vec::with_capacity(declared.endpoints.len());
        for (one, position) in declared.endpoints.iter().zip(0..) {
            let seat = Seat { pool, zone, position, weight: one.weight };
            let id = match known.get(&(Arc::clone(&spec.name), one.address)) {
                Some(&id) => {
                    if let Some(endpoint) = self.roster.get_mut(id) {
                        endpoint.reseat(seat, spec, now);
                    }
                    id
                }
                None => self.roster.add(|id| {
                    let mut endpoint = Endpoint::new((id, one.address), seat, spec, now);
                    endpoint.is_late_comer = is_late;
                    endpoint
                }),
            };
            let Some(live) = self.roster.get(id).map(|endpoint| Arc::clone(&endpoint.live)) else {
                continue;
            };
            let kin = Arc::clone(kin);
            targets.push(Target { id, address: one.address, zone, weight: one.weight, live, kin });
        }
        targets
    }

    /// Takes stock after a change of the configuration.
    fn resume(&mut self, now: Instant) {
        self.ramp_dues.clear();
        for pool in 0..self.pools.len() {
            let members = Arc::clone(&self.pools[pool].members);
            for &id in &*members {
                self.restand(id, now);
                self.arm(id);
            }
            let roster = &self.roster;
            let state = &mut self.pools[pool];
            for (index, zone) in state.zones.iter_mut().enumerate() {
                zone.strikes.retain(|&(at, id)| {
                    roster.get(id).is_some_and(|endpoint| {
                        let Seat { pool: home, zone, .. } = endpoint.seat;
                        (home, zone) == (pool, index) && endpoint.struck() == Some(at)
                    })
                });
                zone.struck = zone.strikes.len() as u32;
            }
            let contradicts = |id: &&EndpointId| {
                roster.get(**id).is_some_and(|endpoint| endpoint.is_contradicted)
            };
            state.contradicted = members.iter().filter(contradicts).count() as u32;
            state.ramping.retain(|id| roster.get(*id).is_some());
            self.settle_divergence(pool);
            let state = &mut self.pools[pool];
            if state.ramp_due.take().is_some() {
                self.ramps(pool, now);
            }
        }
        self.watch_flows(now);
        self.file_orders(now);
        self.obey_orders(now);
        self.nominal_per_second = self.nominal();
        self.stale.extend(0..self.pools.len());
        self.must_publish = true;
    }

    /// Probes a second that all intervals together ask for.
    fn nominal(&self) -> f64 {
        let of = |endpoint: &Endpoint| {
            endpoint.checks.len() as f64 / endpoint.pool.detect.interval.as_secs_f64().max(0.001)
        };
        self.roster.iter().map(of).sum()
    }

    fn retire(&mut self, id: EndpointId, now: Instant) {
        self.tally(id);
        if let Some(incident) = self.ledger.close(id, Ended::Removed, now) {
            self.event(Event::IncidentEnded(Box::new(incident)));
        }
        self.roster.remove(id);
    }
}
