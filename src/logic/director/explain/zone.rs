//! Zones and regions, and why they are as they are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::apply_evidence::percent_limit;
use crate::logic::director::endpoint::{EndpointLocation, EndpointState, EvidenceRecord};
use crate::logic::director::pools::{Eligibility, MemberState, PoolState, ZoneState, ZoneVerdict};
use crate::logic::director::zones::{MIN_ZONE_STRIKES, quorum};
use crate::logic::director::{Director, PoolStatus};
use crate::logic::health::endpoint_health::Health;
use crate::logic::model::id::{EndpointId, Locality};
use crate::logic::model::topology::CorrelationSpec;
use crate::logic::steering::FULL_SHARE;

/// Endpoints of a zone that are listed.
const MAX_LISTED_ENDPOINTS: usize = 100;

/// How much of a bound is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictionBudget {
    pub used: u32,
    /// No more may be.
    pub allowed: u32,
}

/// How many endpoints are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthCounts {
    pub all: u32,
    /// Nothing is known of these.
    pub unknown: u32,
    pub up: u32,
    pub suspect: u32,
    pub down: u32,
    /// Down, and passing again.
    pub returning: u32,
}

impl HealthCounts {
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
    pub struck_endpoints: u32,
    /// So many make a verdict on the zone.
    pub needed: u32,
    pub window: Duration,
}

/// The endpoints of one pool in one zone.
#[derive(Clone, Debug)]
pub struct ZoneStatus {
    pub pool: Arc<str>,
    pub place: Locality,
    /// Whether it is down as a whole.
    pub verdict: ZoneVerdict,
    /// What would take it down; `None` where zones are not judged.
    pub quorum: Option<Quorum>,
    /// Endpoints that could serve if the zone may.
    pub ready: u32,
    /// So many bring it back.
    pub ready_needed: u32,
    /// Its endpoints by state.
    pub counts: HealthCounts,
    /// Verdicts on the zone of late; see [`crate::logic::health::recovery::Flaps`].
    pub flaps: f32,
    /// What its ramp gives it, in thousandths.
    pub ramp: u32,
    /// Its part of the pool's traffic, in 0..1.
    pub share: f64,
    /// Endpoints of the zone that are down, and that may be.
    pub evict: EvictionBudget,
}

/// One endpoint of a zone, in short.
#[derive(Clone, Copy, Debug)]
pub struct ZoneMemberStatus {
    pub address: SocketAddr,
    /// What is believed of it.
    pub health: Health,
    /// What it may be given.
    pub eligibility: Eligibility,
    /// Since when it is believed.
    pub since: Instant,
    /// What made its verdict, while that is down.
    pub cause: Option<EvidenceRecord>,
    /// Its part of the pool's traffic, in 0..1.
    pub share: f64,
}

/// A zone, with its endpoints.
#[derive(Clone, Debug)]
pub struct ZoneFacts {
    pub zone: ZoneStatus,
    /// Its endpoints, at most a hundred: those that are not well come first.
    pub endpoints: Vec<ZoneMemberStatus>,
    /// How many are not shown.
    pub omitted: usize,
    pub pool: PoolStatus,
}

/// A region, with its zones.
#[derive(Clone, Debug)]
pub struct RegionFacts {
    pub region: Arc<str>,
    /// Its zones that are down.
    pub down: u32,
    /// With so many all the others go too; `None` where zones are not judged.
    pub needed: Option<u32>,
    pub zones: Vec<ZoneStatus>,
    pub pool: PoolStatus,
}

/// The part of its pool's traffic that each endpoint gets, in 0..1, by the published view.
pub(super) type EndpointShares = HashMap<EndpointId, f64>;

/// Computes [`Parts`]: the draws of requests that are not sent again and may go anywhere.
pub(in crate::logic::director) fn endpoint_shares(pool: &PoolState) -> EndpointShares {
    let mut shares = EndpointShares::new();
    for tier in pool.view.iter().flat_map(|view| &view.primary.tiers) {
        let tier_share = tier.share as f64 / FULL_SHARE as f64;
        for (target, target_share) in tier.traffic_fractions() {
            *shares.entry(target.id).or_default() += tier_share * target_share;
        }
    }
    shares
}

impl Director {
    /// All zones of all pools, in the order of the configuration.
    pub fn zones(&self, now: Instant) -> Vec<ZoneStatus> {
        let of = |pool: &PoolState| -> Vec<ZoneStatus> {
            let shares = endpoint_shares(pool);
            pool.zones.iter().map(|zone| self.zone_status(pool, zone, &shares, now)).collect()
        };
        self.pools.iter().flat_map(of).collect()
    }

    pub(super) fn zone_status(
        &self,
        pool: &PoolState,
        zone: &ZoneState,
        shares: &EndpointShares,
        now: Instant,
    ) -> ZoneStatus {
        let (correlate, recover) = (pool.spec.correlation, pool.spec.recovery);
        let mut counts = HealthCounts::default();
        let members = || zone.members.iter().filter_map(|&id| self.endpoints.get(id));
        members().for_each(|endpoint| counts.count(endpoint.verdict()));
        let is_active = |&&(at, id): &&(Instant, EndpointId)| {
            let struck =
                self.endpoints.get(id).and_then(|endpoint| endpoint.first_connection_failure());
            struck == Some(at) && at + correlate.window >= now
        };
        let zone_quorum =
            (correlate.quorum_percent < CorrelationSpec::OFF_PERCENT).then(|| Quorum {
                struck_endpoints: zone.strikes.iter().filter(is_active).count() as u32,
                needed: quorum(counts.all, correlate.quorum_percent).max(MIN_ZONE_STRIKES),
                window: correlate.window,
            });
        ZoneStatus {
            pool: Arc::clone(&pool.spec.name),
            place: zone.place.clone(),
            verdict: zone.verdict,
            quorum: zone_quorum,
            ready: zone.counts.ready,
            ready_needed: quorum(counts.all, correlate.return_percent).max(1),
            counts,
            flaps: zone.flaps.decayed_count(&recover, now),
            ramp: zone.ramp.share_permille(recover.ramp, now),
            // The sum of nothing is a negative zero.
            share: zone.members.iter().filter_map(|id| shares.get(id)).sum::<f64>() + 0.0,
            evict: EvictionBudget {
                used: zone.counts.down,
                allowed: percent_limit(zone.counts.all, pool.spec.eviction.max_zone_down_percent),
            },
        }
    }

    pub(in crate::logic::director) fn member_state_of(
        &self,
        endpoint: &EndpointState,
    ) -> MemberState {
        let EndpointLocation { pool, zone, position, .. } = endpoint.location;
        self.pools[pool].zones[zone].member_states[position as usize]
    }

    pub(super) fn zone_facts(&self, pool: &PoolState, zone: &ZoneState, now: Instant) -> ZoneFacts {
        let shares = endpoint_shares(pool);
        let member = |endpoint: &EndpointState| ZoneMemberStatus {
            address: endpoint.address,
            health: endpoint.verdict(),
            eligibility: self.member_state_of(endpoint).eligibility,
            since: endpoint.since,
            cause: endpoint.cause(),
            share: shares.get(&endpoint.id).copied().unwrap_or_default(),
        };
        let members = zone.members.iter().filter_map(|&id| self.endpoints.get(id));
        let mut endpoints: Vec<ZoneMemberStatus> = members.map(member).collect();
        endpoints.sort_by_key(|member| match member.health {
            Health::Down { .. } => 0,
            Health::Returning { .. } => 1,
            Health::Suspect { .. } => 2,
            Health::Unknown { .. } => 3,
            Health::Up => 4,
        });
        let omitted = endpoints.len().saturating_sub(MAX_LISTED_ENDPOINTS);
        endpoints.truncate(MAX_LISTED_ENDPOINTS);
        let status = self.zone_status(pool, zone, &shares, now);
        ZoneFacts { zone: status, endpoints, omitted, pool: self.pool_status(pool) }
    }

    pub(super) fn region_facts(
        &self,
        pool: &PoolState,
        region: &Arc<str>,
        now: Instant,
    ) -> Option<RegionFacts> {
        let shares = endpoint_shares(pool);
        let region_zones = pool.zones.iter().filter(|zone| zone.place.region == *region);
        let zones: Vec<ZoneStatus> =
            region_zones.map(|zone| self.zone_status(pool, zone, &shares, now)).collect();
        if zones.is_empty() {
            return None;
        }
        let percent = pool.spec.correlation.quorum_percent;
        let is_correlated = percent < CorrelationSpec::OFF_PERCENT;
        let down = zones.iter().filter(|zone| zone.verdict != ZoneVerdict::Up).count() as u32;
        Some(RegionFacts {
            region: Arc::clone(region),
            down,
            needed: is_correlated
                .then(|| quorum(zones.len() as u32, percent).max(MIN_ZONE_STRIKES)),
            zones,
            pool: self.pool_status(pool),
        })
    }
}
