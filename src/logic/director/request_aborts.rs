//! Aborts of requests that wait at an endpoint.
//!
//! Requests at an endpoint that refuses or resets leave at once. Those at a silent one leave when
//! another endpoint of the pool has answered; see [`super::pools::deferred_aborts`]. Some endpoints
//! are probed for that at once.

use std::time::Instant;

use super::eligibility::Eligibility;
use super::pools::PoolState;
use super::pools::zone::ZoneState;
use super::{Director, EndpointMachine, Output};
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::FailureClass;

/// Endpoints of one zone that are probed for signs of life.
const MAX_LIVENESS_PROBES_PER_ZONE: usize = 2;

/// Endpoints of a pool that are probed for signs of life.
const MAX_LIVENESS_PROBES: usize = 4;

impl Director {
    /// The next endpoint that requests leave now.
    pub(super) fn next_abort(&mut self) -> Option<Output> {
        while let Some((endpoint, failure)) = self.aborts.pop() {
            let Some(location) = self.endpoints.get(endpoint).map(EndpointMachine::location) else {
                continue;
            };
            let pool = &mut self.pools[location.pool()];
            if pool.is_in_panic() {
                continue;
            }
            if failure.class() != FailureClass::Silent {
                return Some(Output::AbortRequests { endpoint, failure });
            }
            if pool.deferred_aborts_mut().push(endpoint, failure, self.now) {
                for id in sample_clear_endpoints(pool) {
                    self.start_probe_burst(id, self.now);
                }
            }
        }
        None
    }

    /// An endpoint answered a probe that began at `probe_started`: requests may leave the endpoints
    /// that were silent before that.
    pub(super) fn release_aborts(&mut self, id: EndpointId, probe_started: Instant) {
        let Some(endpoint) = self.endpoints.get(id).filter(|endpoint| endpoint.can_serve()) else {
            return;
        };
        let pool = &mut self.pools[endpoint.location().pool()];
        let in_panic = pool.is_in_panic();
        let deferred = pool.deferred_aborts_mut();
        if deferred.is_empty() {
            return;
        }
        if in_panic {
            // No request leaves while no endpoint is better.
            return deferred.clear();
        }
        let (endpoints, epoch) = (&self.endpoints, self.epoch);
        let released = deferred.release(probe_started, self.now, |silent, since| {
            endpoints.get(silent).is_some_and(|silent| is_silent_since(silent, since, epoch))
        });
        let aborts = released.into_iter();
        let outputs = aborts.map(|(endpoint, failure)| Output::AbortRequests { endpoint, failure });
        self.outputs.extend(outputs);
    }
}

/// Whether an endpoint has answered nothing since: an endpoint that answers may answer the rest
/// too.
fn is_silent_since(endpoint: &EndpointMachine, since: Instant, epoch: Instant) -> bool {
    let last_strike = endpoint.history().last_strike();
    let is_alive = |good| good >= since || last_strike.is_some_and(|strike| good > strike);
    !endpoint.can_serve() && !endpoint.last_success(epoch).is_some_and(is_alive)
}

/// Some clear endpoints of every zone.
fn sample_clear_endpoints(pool: &PoolState) -> Vec<EndpointId> {
    let of_zone = |zone: &ZoneState| {
        let members = zone.roster().members();
        let clear = members.filter(|(_, state)| state.eligibility() == Eligibility::Clear);
        clear.map(|(id, _)| id).take(MAX_LIVENESS_PROBES_PER_ZONE).collect::<Vec<_>>()
    };
    let zones = pool.zones().iter().filter(|zone| zone.roster().counts().clear() > 0);
    zones.flat_map(of_zone).take(MAX_LIVENESS_PROBES).collect()
}
