//! All facts about a zone or a region.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::eligibility::Eligibility;
use crate::logic::director::endpoint::EndpointMachine;
use crate::logic::director::endpoint::evidence_history::EvidenceRecord;
use crate::logic::director::pools::PoolState;
use crate::logic::director::pools::zone::ZoneState;
use crate::logic::director::shares::{EndpointShares, endpoint_shares};
use crate::logic::director::zones::correlation::{ZoneVerdict, ready_needed, strikes_needed};
use crate::logic::director::zones::is_struck_since;
use crate::logic::director::{Director, EvictionBudget, PoolStatus};
use crate::logic::health::endpoint_health::Health;
use crate::logic::model::id::{EndpointId, Locality};
use crate::logic::model::topology::CorrelationSpec;

/// Endpoints of a zone that are listed.
const MAX_LISTED_ENDPOINTS: usize = 100;

/// The number of endpoints in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthCounts {
    pub all: u32,
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

/// The endpoints of a zone whose connections have failed recently, and how many make a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Endpoints whose connections failed within the window, and have not passed since.
    pub struck_endpoints: u32,
    /// Endpoints that make a verdict on the zone.
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
    /// The strikes that would take it down; `None` where zones are not correlated.
    pub quorum: Option<Quorum>,
    /// Endpoints that could serve if the zone may.
    pub ready: u32,
    /// Ready endpoints with which it returns.
    pub ready_needed: u32,
    /// Its endpoints by state.
    pub counts: HealthCounts,
    /// Recent verdicts on the zone; see [`crate::logic::health::recovery::FlapHistory`].
    pub flaps: f32,
    /// The share that its ramp leaves it, in thousandths.
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
    /// The verdict of all evidence together.
    pub health: Health,
    /// The requests that it may receive.
    pub eligibility: Eligibility,
    /// When the verdict last changed.
    pub since: Instant,
    /// The cause of its verdict, while that is down.
    pub cause: Option<EvidenceRecord>,
    /// Its part of the pool's traffic, in 0..1.
    pub share: f64,
}

/// A zone, with its endpoints.
#[derive(Clone, Debug)]
pub struct ZoneFacts {
    pub zone: ZoneStatus,
    /// Its endpoints, a hundred at most, the least healthy first.
    pub endpoints: Vec<ZoneMemberStatus>,
    /// Endpoints beyond those.
    pub omitted: usize,
    pub pool: PoolStatus,
}

/// A region, with its zones.
#[derive(Clone, Debug)]
pub struct RegionFacts {
    pub region: Arc<str>,
    /// Its zones that are down.
    pub down: u32,
    /// The number of zones down from which on the region goes down; `None` where zones are not
    /// correlated.
    pub needed: Option<u32>,
    pub zones: Vec<ZoneStatus>,
    pub pool: PoolStatus,
}

impl Director {
    /// All zones of all pools, in the order of the configuration.
    pub fn zones(&self, now: Instant) -> Vec<ZoneStatus> {
        let of = |pool: &PoolState| -> Vec<ZoneStatus> {
            let shares = endpoint_shares(pool);
            pool.zones().iter().map(|zone| self.zone_status(pool, zone, &shares, now)).collect()
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
        let (spec, roster, correlation) = (pool.spec(), zone.roster(), zone.correlation());
        let mut counts = HealthCounts::default();
        let members = roster.ids().iter().filter_map(|&id| self.endpoints.get(id));
        members.for_each(|endpoint| counts.count(endpoint.verdict()));
        let is_active = |id: EndpointId, struck_at: Instant| {
            self.endpoints.get(id).is_some_and(|endpoint| is_struck_since(endpoint, struck_at))
        };
        let window = spec.correlation.window;
        let is_correlated = spec.correlation.quorum_percent < CorrelationSpec::OFF_PERCENT;
        ZoneStatus {
            pool: Arc::clone(&spec.name),
            place: zone.place().clone(),
            verdict: correlation.verdict(),
            quorum: is_correlated.then(|| Quorum {
                struck_endpoints: correlation.count_strikes(window, now, is_active),
                needed: strikes_needed(counts.all, &spec.correlation),
                window,
            }),
            ready: roster.counts().ready(),
            ready_needed: ready_needed(counts.all, &spec.correlation),
            counts,
            flaps: correlation.flaps().decayed_count(&spec.recovery, now),
            ramp: zone.ramp().share_permille(spec.recovery.ramp, now),
            // The sum of nothing is a negative zero.
            share: roster.ids().iter().filter_map(|id| shares.get(id)).sum::<f64>() + 0.0,
            evict: EvictionBudget {
                used: roster.counts().down(),
                allowed: pool.max_zone_down(zone),
            },
        }
    }

    pub(super) fn zone_facts(&self, pool: &PoolState, zone: &ZoneState, now: Instant) -> ZoneFacts {
        let shares = endpoint_shares(pool);
        let member = |endpoint: &EndpointMachine| ZoneMemberStatus {
            address: endpoint.address(),
            health: endpoint.verdict(),
            eligibility: self.member_state_of(endpoint).eligibility(),
            since: endpoint.since(),
            cause: endpoint.history().cause(),
            share: shares.get(&endpoint.id()).copied().unwrap_or_default(),
        };
        let members = zone.roster().ids().iter().filter_map(|&id| self.endpoints.get(id));
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
        let region_zones = pool.zones().iter().filter(|zone| zone.place().region == *region);
        let zones: Vec<ZoneStatus> =
            region_zones.map(|zone| self.zone_status(pool, zone, &shares, now)).collect();
        if zones.is_empty() {
            return None;
        }
        let correlation = &pool.spec().correlation;
        let is_correlated = correlation.quorum_percent < CorrelationSpec::OFF_PERCENT;
        let down = zones.iter().filter(|zone| zone.verdict != ZoneVerdict::Up).count() as u32;
        Some(RegionFacts {
            region: Arc::clone(region),
            down,
            needed: is_correlated.then(|| strikes_needed(zones.len() as u32, correlation)),
            zones,
            pool: self.pool_status(pool),
        })
    }
}
