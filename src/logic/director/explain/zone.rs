//! Zones and regions, and why they are as they are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::endpoint::{Endpoint, Piece, Seat};
use crate::logic::director::pools::{Entry, PoolState, Standing, ZoneState, ZoneVerdict};
use crate::logic::director::weigh::part;
use crate::logic::director::zones::{WITNESSES, quorum};
use crate::logic::director::{Director, PoolStatus};
use crate::logic::health::Health;
use crate::logic::id::{EndpointId, Place};
use crate::logic::steer::WHOLE;
use crate::logic::topology::Correlate;

/// Endpoints of a zone that are listed.
const SHOWN: usize = 100;

/// How much of a bound is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// So much is.
    pub used: u32,
    /// No more may be.
    pub allowed: u32,
}

/// How many endpoints are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// All of them.
    pub all: u32,
    /// Nothing is known of these.
    pub unknown: u32,
    /// Up.
    pub up: u32,
    /// Suspect.
    pub suspect: u32,
    /// Down.
    pub down: u32,
    /// Down, and passing again.
    pub returning: u32,
}

impl StateCounts {
    fn count(&mut self, health: Health) {
        self.all += 1;
        match health {
            Health::Unknown { .. } => self.unknown += 1,
            Health::Up => self.up += 1,
            Health::Suspect { .. } => self.suspect += 1,
            Health::Down { .. } => self.down += 1,
            Health::Returning { .. } => self.returning += 1,
        }
    }
}

/// The endpoints whose connections have failed of late, and how many of them take their zone along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Endpoints whose connections failed within the window, and have not passed since.
    pub struck: u32,
    /// So many make a verdict on the zone.
    pub needed: u32,
    /// The window.
    pub window: Duration,
}

/// The endpoints of one pool in one zone.
#[derive(Clone, Debug)]
pub struct ZoneStatus {
    /// The pool's name.
    pub pool: Arc<str>,
    /// The zone.
    pub place: Place,
    /// Whether it is down as a whole.
    pub verdict: ZoneVerdict,
    /// What would take it down; `None` where zones are not judged.
    pub quorum: Option<Quorum>,
    /// Endpoints that could serve if the zone may.
    pub ready: u32,
    /// So many bring it back.
    pub ready_needed: u32,
    /// Its endpoints by state.
    pub counts: StateCounts,
    /// Verdicts on the zone of late; see [`crate::logic::recovery::Flaps`].
    pub flaps: f32,
    /// What its ramp gives it, in thousandths.
    pub ramp: u32,
    /// Its part of the pool's traffic, in 0..1.
    pub share: f64,
    /// Endpoints of the zone that are down, and that may be.
    pub evict: Budget,
}

/// One endpoint of a zone, in short.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its address.
    pub address: SocketAddr,
    /// What is believed of it.
    pub health: Health,
    /// What it may be given.
    pub standing: Standing,
    /// Since when it is believed.
    pub since: Instant,
    /// What made its verdict, while that is down.
    pub cause: Option<Piece>,
    /// Its part of the pool's traffic, in 0..1.
    pub share: f64,
}

/// A zone, with its endpoints.
#[derive(Clone, Debug)]
pub struct ZoneFacts {
    /// The zone itself.
    pub zone: ZoneStatus,
    /// Its endpoints, at most a hundred: those that are not well come first.
    pub endpoints: Vec<Member>,
    /// How many are not shown.
    pub more: usize,
    /// Its pool.
    pub pool: PoolStatus,
}

/// A region, with its zones.
#[derive(Clone, Debug)]
pub struct RegionFacts {
    /// Its name.
    pub region: Arc<str>,
    /// Its zones that are down.
    pub down: u32,
    /// With so many all the others go too; `None` where zones are not judged.
    pub needed: Option<u32>,
    /// Its zones.
    pub zones: Vec<ZoneStatus>,
    /// Its pool.
    pub pool: PoolStatus,
}

/// The part of its pool's traffic that each endpoint gets, in 0..1, by the published view.
pub(super) type Parts = HashMap<EndpointId, f64>;

/// Computes [`Parts`]: the draws of requests that are not sent again and may go anywhere.
pub(in crate::logic::director) fn parts(pool: &PoolState) -> Parts {
    let mut parts = Parts::new();
    for tier in pool.view.iter().flat_map(|view| &view.led.tiers) {
        let of_tier = tier.share as f64 / WHOLE as f64;
        for (target, part) in tier.parts() {
            *parts.entry(target.id).or_default() += of_tier * part;
        }
    }
    parts
}

impl Director {
    /// All zones of all pools, in the order of the configuration.
    #[must_use]
    pub fn zones(&self, now: Instant) -> Vec<ZoneStatus> {
        let of = |pool: &PoolState| -> Vec<ZoneStatus> {
            let parts = parts(pool);
            pool.zones.iter().map(|zone| self.zone_status(pool, zone, &parts, now)).collect()
        };
        self.pools.iter().flat_map(of).collect()
    }

    pub(super) fn zone_status(
        &self,
        pool: &PoolState,
        zone: &ZoneState,
        parts: &Parts,
        now: Instant,
    ) -> ZoneStatus {
        let (correlate, recover) = (pool.spec.correlate, pool.spec.recover);
        let mut counts = StateCounts::default();
        let members = || zone.members.iter().filter_map(|&id| self.roster.get(id));
        members().for_each(|endpoint| counts.count(endpoint.verdict()));
        let stands = |&&(at, id): &&(Instant, EndpointId)| {
            let struck = self.roster.get(id).and_then(|endpoint| endpoint.struck());
            struck == Some(at) && at + correlate.window >= now
        };
        let bar = (correlate.quorum_percent < Correlate::OFF_PERCENT).then(|| Quorum {
            struck: zone.strikes.iter().filter(stands).count() as u32,
            needed: quorum(counts.all, correlate.quorum_percent).max(WITNESSES),
            window: correlate.window,
        });
        ZoneStatus {
            pool: Arc::clone(&pool.spec.name),
            place: zone.place.clone(),
            verdict: zone.verdict,
            quorum: bar,
            ready: zone.counts.ready,
            ready_needed: quorum(counts.all, correlate.return_percent).max(1),
            counts,
            flaps: zone.flaps.count(&recover, now),
            ramp: zone.ramp.share(recover.ramp, now),
            // The sum of nothing is a negative zero.
            share: zone.members.iter().filter_map(|id| parts.get(id)).sum::<f64>() + 0.0,
            evict: Budget {
                used: zone.counts.down,
                allowed: part(zone.counts.all, pool.spec.evict.zone_percent),
            },
        }
    }

    pub(in crate::logic::director) fn entry_of(&self, endpoint: &Endpoint) -> Entry {
        let Seat { pool, zone, position, .. } = endpoint.seat;
        self.pools[pool].zones[zone].entries[position as usize]
    }

    pub(super) fn zone_facts(&self, pool: &PoolState, zone: &ZoneState, now: Instant) -> ZoneFacts {
        let parts = parts(pool);
        let member = |endpoint: &Endpoint| Member {
            address: endpoint.address,
            health: endpoint.verdict(),
            standing: self.entry_of(endpoint).standing,
            since: endpoint.since,
            cause: endpoint.cause(),
            share: parts.get(&endpoint.id).copied().unwrap_or_default(),
        };
        let members = zone.members.iter().filter_map(|&id| self.roster.get(id));
        let mut endpoints: Vec<Member> = members.map(member).collect();
        endpoints.sort_by_key(|member| match member.health {
            Health::Down { .. } => 0,
            Health::Returning { .. } => 1,
            Health::Suspect { .. } => 2,
            Health::Unknown { .. } => 3,
            Health::Up => 4,
        });
        let more = endpoints.len().saturating_sub(SHOWN);
        endpoints.truncate(SHOWN);
        let status = self.zone_status(pool, zone, &parts, now);
        ZoneFacts { zone: status, endpoints, more, pool: self.pool_status(pool) }
    }

    pub(super) fn region_facts(
        &self,
        pool: &PoolState,
        region: &Arc<str>,
        now: Instant,
    ) -> Option<RegionFacts> {
        let parts = parts(pool);
        let inside = pool.zones.iter().filter(|zone| zone.place.region == *region);
        let zones: Vec<ZoneStatus> =
            inside.map(|zone| self.zone_status(pool, zone, &parts, now)).collect();
        if zones.is_empty() {
            return None;
        }
        let percent = pool.spec.correlate.quorum_percent;
        let is_judged = percent < Correlate::OFF_PERCENT;
        let down = zones.iter().filter(|zone| zone.verdict != ZoneVerdict::Up).count() as u32;
        Some(RegionFacts {
            region: Arc::clone(region),
            down,
            needed: is_judged.then(|| quorum(zones.len() as u32, percent).max(WITNESSES)),
            zones,
            pool: self.pool_status(pool),
        })
    }
}
