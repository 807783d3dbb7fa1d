//! Who is to leave an endpoint that failed.
//!
//! Requests that wait at an endpoint which has said no (refused, reset) have nothing to wait for. One
//! that is silent may go on: where all of a pool is silent at once, as in a brown-out, a request that
//! must not run twice would fail for nothing, since nobody else would have answered it either. So a
//! silent endpoint is left when another one of its pool has shown that it lives since; some are asked
//! at once. When such a silence ends, one is heard a moment before the others; so nobody is left by the
//! first answer, but by one that was asked for after it.

use std::time::{Duration, Instant};

use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::{Failure, FailureClass};

use super::endpoint::EndpointState;
use super::pools::{Eligibility, PoolState, ZoneState};
use super::{Director, Output};

/// Endpoints of one zone that are asked whether they live.
const MAX_LIVENESS_PROBES_PER_ZONE: usize = 2;

/// Endpoints of a pool that are asked.
const MAX_LIVENESS_PROBES: usize = 4;

/// From the first answer of another endpoint to the question whose answer decides: who was silent with
/// it has its say. Less than there is between the probes of a burst.
const CONFIRMATION_DELAY: Duration = Duration::from_millis(10);

/// A silent endpoint that is left once somebody else is known to live.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeferredAbort {
    endpoint: EndpointId,
    failure: Failure,
    since: Instant,
    /// When another one was heard first.
    first_response_at: Option<Instant>,
}

impl Director {
    /// The next endpoint that requests are to leave now.
    pub(super) fn next_abort(&mut self) -> Option<Output> {
        while let Some((endpoint, failure)) = self.pending_aborts.pop() {
            let Some(pool) = self.endpoints.get(endpoint).map(|known| known.location.pool) else {
                continue;
            };
            if self.pools[pool].is_in_panic() {
                continue;
            }
            if failure.class() != FailureClass::Silent {
                return Some(Output::AbortRequests { endpoint, failure });
            }
            self.defer_abort(
                pool,
                DeferredAbort { endpoint, failure, since: self.now, first_response_at: None },
            );
        }
        None
    }

    fn defer_abort(&mut self, pool: usize, deferred: DeferredAbort) {
        let state = &mut self.pools[pool];
        let is_already_probed =
            state.deferred_aborts.last().is_some_and(|last| last.since == deferred.since);
        state.deferred_aborts.push(deferred);
        if !is_already_probed {
            for id in sample_clear_endpoints(state) {
                self.start_probe_burst(id, self.now);
            }
        }
    }

    /// An endpoint answered what it was asked at `asked`: requests may leave those that were silent
    /// before that.
    pub(super) fn release_aborts(&mut self, id: EndpointId, probe_started: Instant) {
        let Some(endpoint) = self.endpoints.get(id).filter(|endpoint| endpoint.can_serve()) else {
            return;
        };
        let state = &mut self.pools[endpoint.location.pool];
        if state.deferred_aborts.is_empty() {
            return;
        }
        if state.is_in_panic() {
            // Nobody is told to leave while there is nowhere better to go.
            return state.deferred_aborts.clear();
        }
        let (endpoints, outputs) = (&self.endpoints, &mut self.outputs);
        let (epoch, now) = (self.epoch, self.now);
        state.deferred_aborts.retain_mut(|deferred| {
            let known = endpoints.get(deferred.endpoint);
            if !known.is_some_and(|known| is_silent_since(known, deferred.since, epoch)) {
                return false;
            }
            if probe_started < deferred.since {
                return true;
            }
            let is_confirmed = probe_started
                >= *deferred.first_response_at.get_or_insert(now) + CONFIRMATION_DELAY;
            if is_confirmed {
                let DeferredAbort { endpoint, failure, .. } = *deferred;
                outputs.push_back(Output::AbortRequests { endpoint, failure });
            }
            !is_confirmed
        });
    }
}

/// Who has answered meanwhile may answer the rest too.
fn is_silent_since(endpoint: &EndpointState, since: Instant, epoch: Instant) -> bool {
    let is_alive =
        |good| good >= since || endpoint.last_strike().is_some_and(|strike| good > strike);
    !endpoint.can_serve() && !endpoint.last_success(epoch).is_some_and(is_alive)
}

/// Some endpoints with nothing against them, of every zone.
fn sample_clear_endpoints(state: &PoolState) -> Vec<EndpointId> {
    let of_zone = |zone: &ZoneState| {
        let members = zone.members.iter().zip(&zone.member_states);
        let clear = members.filter(|(_, entry)| entry.eligibility == Eligibility::Clear);
        clear.map(|(&id, _)| id).take(MAX_LIVENESS_PROBES_PER_ZONE).collect::<Vec<_>>()
    };
    let zones = state.zones.iter().filter(|zone| zone.counts.clear > 0);
    zones.flat_map(of_zone).take(MAX_LIVENESS_PROBES).collect()
}
