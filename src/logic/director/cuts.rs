//! Who is to leave an endpoint that failed.
//!
//! Requests that wait at an endpoint which has said no (refused, reset) have nothing to wait for. One
//! that is silent may go on: where all of a pool is silent at once, as in a brown-out, a request that
//! must not run twice would fail for nothing, since nobody else would have answered it either. So a
//! silent endpoint is left when another one of its pool has shown that it lives since; some are asked
//! at once. When such a silence ends, one is heard a moment before the others; so nobody is left by the
//! first answer, but by one that was asked for after it.

use std::time::{Duration, Instant};

use crate::logic::id::EndpointId;
use crate::logic::outcome::{Class, Failure};

use super::endpoint::Endpoint;
use super::pools::{PoolState, Standing, ZoneState};
use super::{Director, Output};

/// Endpoints of one zone that are asked whether they live.
const ASKED_OF_A_ZONE: usize = 2;

/// Endpoints of a pool that are asked.
const ASKED: usize = 4;

/// From the first answer of another endpoint to the question whose answer decides: who was silent with
/// it has its say. Less than there is between the probes of a burst.
const A_SAY: Duration = Duration::from_millis(10);

/// A silent endpoint that is left once somebody else is known to live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    endpoint: EndpointId,
    failure: Failure,
    since: Instant,
    /// When another one was heard first.
    heard: Option<Instant>,
}

impl Director {
    /// The next endpoint that requests are to leave now.
    pub(super) fn next_cut(&mut self) -> Option<Output> {
        while let Some((endpoint, failure)) = self.cuts.pop() {
            let Some(pool) = self.roster.get(endpoint).map(|known| known.seat.pool) else {
                continue;
            };
            if self.pools[pool].in_panic() {
                continue;
            }
            if failure.class() != Class::Silent {
                return Some(Output::Cut { endpoint, failure });
            }
            self.hold_cut(pool, Held { endpoint, failure, since: self.now, heard: None });
        }
        None
    }

    fn hold_cut(&mut self, pool: usize, held: Held) {
        let state = &mut self.pools[pool];
        let is_asked = state.held_cuts.last().is_some_and(|last| last.since == held.since);
        state.held_cuts.push(held);
        if !is_asked {
            for id in clear(state) {
                self.burst(id, self.now);
            }
        }
    }

    /// An endpoint answered what it was asked at `asked`: requests may leave those that were silent
    /// before that.
    pub(super) fn release_cuts(&mut self, id: EndpointId, asked: Instant) {
        let Some(endpoint) = self.roster.get(id).filter(|endpoint| endpoint.serves()) else {
            return;
        };
        let state = &mut self.pools[endpoint.seat.pool];
        if state.held_cuts.is_empty() {
            return;
        }
        if state.in_panic() {
            // Nobody is told to leave while there is nowhere better to go.
            return state.held_cuts.clear();
        }
        let (roster, outputs) = (&self.roster, &mut self.outputs);
        let (epoch, now) = (self.epoch, self.now);
        state.held_cuts.retain_mut(|held| {
            let known = roster.get(held.endpoint);
            if !known.is_some_and(|known| is_silent(known, held.since, epoch)) {
                return false;
            }
            if asked < held.since {
                return true;
            }
            let is_enough = asked >= *held.heard.get_or_insert(now) + A_SAY;
            if is_enough {
                let Held { endpoint, failure, .. } = *held;
                outputs.push_back(Output::Cut { endpoint, failure });
            }
            !is_enough
        });
    }
}

/// Who has answered meanwhile may answer the rest too.
fn is_silent(endpoint: &Endpoint, since: Instant, epoch: Instant) -> bool {
    let lives = |good| good >= since || endpoint.last_strike().is_some_and(|strike| good > strike);
    !endpoint.serves() && !endpoint.last_good(epoch).is_some_and(lives)
}

/// Some endpoints with nothing against them, of every zone.
fn clear(state: &PoolState) -> Vec<EndpointId> {
    let of_zone = |zone: &ZoneState| {
        let members = zone.members.iter().zip(&zone.entries);
        let clear = members.filter(|(_, entry)| entry.standing == Standing::Clear);
        clear.map(|(&id, _)| id).take(ASKED_OF_A_ZONE).collect::<Vec<_>>()
    };
    let zones = state.zones.iter().filter(|zone| zone.counts.clear > 0);
    zones.flat_map(of_zone).take(ASKED).collect()
}
