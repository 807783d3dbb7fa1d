//! Taking over from another process: what it knew is known, and is looked at again at once.

use std::sync::Arc;
use std::time::Instant;

use crate::logic::health::Health;
use crate::logic::id::EndpointId;
use crate::logic::ratio::DOUBT;

use super::endpoint::{Bond, Endpoint};
use super::legacy::{EndpointLegacy, Legacy, PoolLegacy, Sentence, ZoneLegacy};
use super::pools::{PoolState, ZoneState};
use super::roster::Addresses;
use super::trust::{Case, Stage, Trust};
use super::{Director, Event};

impl Director {
    /// What a process that takes over should know.
    #[must_use]
    pub fn legacy(&self) -> Legacy {
        let zone = |zone: &ZoneState| ZoneLegacy {
            place: zone.place.clone(),
            verdict: zone.verdict,
            flaps: zone.flaps,
            ramp: zone.ramp,
            endpoints: zone
                .members
                .iter()
                .filter_map(|&id| self.roster.get(id))
                .filter(|endpoint| !endpoint.is_unknown())
                .map(|endpoint| left(endpoint, self.epoch))
                .collect(),
        };
        let pool = |pool: &PoolState| PoolLegacy {
            name: Arc::clone(&pool.spec.name),
            diverges: pool.diverges,
            zones: pool.zones.iter().map(zone).collect(),
        };
        Legacy { pools: self.pools.iter().map(pool).collect() }
    }

    /// Whether every pool can serve, or all that there is to know of it is known: for a process that
    /// takes over, the time to take requests.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pools
            .iter()
            .all(|pool| pool.counts.serving > 0 || pool.counts.known == pool.counts.all)
    }

    pub(super) fn inherit(&mut self, legacy: Legacy, now: Instant) {
        let known = self.roster.addresses();
        for left in legacy.pools {
            let index = self.pools.iter().position(|pool| pool.spec.name == left.name);
            if let Some(index) = index {
                self.inherit_pool(index, left, &known, now);
            }
        }
        self.must_publish = true;
    }

    fn inherit_pool(&mut self, index: usize, left: PoolLegacy, known: &Addresses, now: Instant) {
        let state = &mut self.pools[index];
        state.diverges = left.diverges;
        for from in left.zones {
            let state = &mut self.pools[index];
            let index_of = |zone: &ZoneState| zone.place == from.place;
            let place = state.zones.iter().position(index_of);
            if let Some(zone) = place.map(|place| &mut state.zones[place]) {
                (zone.verdict, zone.flaps, zone.ramp) = (from.verdict, from.flaps, from.ramp);
                zone.mark();
            }
            for one in from.endpoints {
                let id = known.get(&(Arc::clone(&left.name), one.address));
                if let Some(&id) = id {
                    self.inherit_endpoint(id, one, place, now);
                }
            }
        }
        self.stale.insert(index);
        self.settle_divergence(index);
        self.ramps(index, now);
    }

    /// `zone` is where the endpoint was, if there is such a zone.
    fn inherit_endpoint(
        &mut self,
        id: EndpointId,
        left: EndpointLegacy,
        zone: Option<usize>,
        now: Instant,
    ) {
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        let is_unproven = left.health.serves(false) && left.last_proof.is_none();
        if endpoint.health != Health::NEW || is_unproven {
            return;
        }
        let is_moved = zone != Some(endpoint.seat.zone);
        let (sentence, is_growing) = (left.sentence, left.ramp.is_growing());
        endpoint.take_over(left, is_moved, now);
        let (seat, health, subject) = (endpoint.seat, endpoint.verdict(), endpoint.subject());
        let state = &mut self.pools[seat.pool];
        state.contradicted += u32::from(endpoint.is_contradicted);
        if is_growing {
            state.ramping.push(id);
        }
        match sentence {
            Sentence::Sound => {}
            Sentence::Doubted { .. } => self.watch(id, self.next_watch(now)),
            Sentence::Condemned { until, .. } => self.watch(id, until.max(self.next_watch(now))),
        }
        self.restand(id, now);
        self.arm(id);
        self.event(Event::Inherited { subject, health });
    }
}

impl Endpoint {
    fn take_over(&mut self, left: EndpointLegacy, is_moved: bool, now: Instant) {
        self.health = left.health;
        self.trust = match left.sentence {
            Sentence::Sound => Trust::Sound,
            Sentence::Doubted { failure } => {
                self.ratio.restart(DOUBT);
                Trust::Doubted { failure }
            }
            Sentence::Condemned { failure, until } => {
                Trust::Condemned(Case { failure, stage: Stage::Held { until } })
            }
        };
        self.since = left.since;
        self.last_proof = left.last_proof;
        if self.serves() {
            self.up_since = Some(now);
        }
        self.ramp = left.ramp;
        self.bond = match left.unproven_since {
            Some(since) if !is_moved => Bond::Unproven(since),
            _ => Bond::Free,
        };
        (self.is_degraded, self.is_contradicted) = (left.is_degraded, left.is_contradicted);
        (self.withheld, self.is_heir) = (left.withheld, true);
        let has_trouble = left.held_until.is_some()
            || left.flaps.at.is_some()
            || left.cause.is_some()
            || !left.evidence.is_empty();
        if has_trouble {
            let trouble = self.trouble_mut();
            (trouble.held_until, trouble.flaps) = (left.held_until, left.flaps);
            (trouble.cause, trouble.evidence) = (left.cause, left.evidence.into());
        }
    }
}

fn left(endpoint: &Endpoint, epoch: Instant) -> EndpointLegacy {
    EndpointLegacy {
        address: endpoint.address,
        health: endpoint.health,
        sentence: match endpoint.trust {
            Trust::Sound => Sentence::Sound,
            Trust::Doubted { failure } => Sentence::Doubted { failure },
            Trust::Condemned(Case { failure, stage: Stage::Held { until } }) => {
                Sentence::Condemned { failure, until }
            }
            Trust::Condemned(Case { failure, stage: Stage::OnTrial { waits_since, .. } }) => {
                Sentence::Condemned { failure, until: waits_since }
            }
        },
        since: endpoint.since,
        last_proof: endpoint.last_good(epoch),
        held_until: endpoint.held_until(),
        flaps: endpoint.flaps(),
        ramp: endpoint.ramp,
        unproven_since: match endpoint.bond {
            Bond::Free => None,
            Bond::Unproven(since) => Some(since),
        },
        is_degraded: endpoint.is_degraded,
        is_contradicted: endpoint.is_contradicted,
        withheld: endpoint.withheld,
        cause: endpoint.cause(),
        evidence: endpoint.evidence().copied().collect(),
    }
}
