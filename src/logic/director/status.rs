//! Read-only views of endpoints and pools, for the API, metrics and commands.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::health::endpoint_health::Health;
use crate::logic::incident::IncidentSubject;
use crate::logic::model::endpoint_stats::{AttemptCounts, FailoverCounts};
use crate::logic::model::id::{EndpointId, Locality};
use crate::logic::model::outcome::ProbeOutcome;
use crate::logic::model::snapshot::{PoolView, Tier};
use crate::logic::steering::{FULL_SHARE, SteeringPolicy};

use super::eligibility::Eligibility;
use super::endpoint::evidence_history::EvidenceRecord;
use super::endpoint::state::WithheldReason;
use super::pools::PoolState;
use super::pools::member::MemberState;
use super::pools::zone::ZoneState;
use super::shares::endpoint_shares;
use super::{Director, EndpointMachine};

#[derive(Clone, Debug)]
pub struct EndpointStatus {
    pub subject: Arc<IncidentSubject>,
    pub weight: u32,
    /// The verdict of all evidence together.
    pub health: Health,
    pub since: Instant,
    /// When the next probe starts; `None` while it waits for the running one.
    pub next_probe: Option<Instant>,
    /// The last probes with their starts, oldest first.
    pub probes: Vec<(Instant, ProbeOutcome)>,
    pub in_flight: u32,
    /// How attempts have ended since the endpoint was configured.
    pub attempts: AttemptCounts,
    /// The results of the requests that it failed.
    pub failover_counts: FailoverCounts,
    /// Whether the current snapshot sends it traffic.
    pub is_in_service: bool,
    /// The requests that it may receive.
    pub eligibility: Eligibility,
    /// The cause of its verdict, while that is down.
    pub cause: Option<EvidenceRecord>,
    /// Why it is in service in spite of enough strikes.
    pub withheld: Option<WithheldReason>,
    /// The part of its weight that its ramp leaves, in thousandths.
    pub ramp: u32,
    /// Its probes pass, and its responses request less weight.
    pub is_degraded: bool,
}

/// How much of a bound is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictionBudget {
    pub used: u32,
    /// The bound.
    pub allowed: u32,
}

#[derive(Clone, Debug)]
pub struct PoolStatus {
    pub name: Arc<str>,
    /// How an endpoint is chosen among those that are equally near.
    pub balance: &'static str,
    /// Too little is healthy: traffic goes everywhere.
    pub is_in_panic: bool,
    /// Which zones come first.
    pub policy: SteeringPolicy,
    /// The parts of the traffic by tier, nearest first, in 0..1, with the tier's zones.
    pub tiers: Vec<(f64, Vec<String>)>,
    /// The estimated latency of a request to each region, in microseconds, the lowest first; empty
    /// unless the pool steers by it.
    pub regions: Vec<(String, Option<f64>)>,
    pub endpoints: usize,
    /// Endpoints that are up or suspect.
    pub serving: usize,
    /// Endpoints whose verdict is down.
    pub down: usize,
    /// Endpoints that operators have drained.
    pub drained: usize,
    /// Verdicts that were due and withheld, since the start.
    pub withheld: u64,
    /// Probes fail in much of the pool while its traffic succeeds.
    pub is_diverging: bool,
    /// The achieved period of probes of endpoints that are up; `None` before the second probe.
    pub achieved_period: Option<Duration>,
    /// How many times longer than configured periods are, because of the budget of probes.
    pub stretch: f64,
    /// Endpoints that are down, and that may be.
    pub evict: EvictionBudget,
}

impl Director {
    /// All endpoints, in the order of their identities.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let of = |endpoint: &EndpointMachine| EndpointStatus {
            subject: endpoint.subject(),
            weight: endpoint.location().weight(),
            health: endpoint.verdict(),
            since: endpoint.since(),
            next_probe: endpoint.probes().next_due(),
            probes: endpoint
                .probes()
                .history()
                .iter(self.epoch)
                .map(|(at, _, outcome)| (at, outcome))
                .collect(),
            in_flight: endpoint.stats().in_flight(),
            attempts: endpoint.stats().attempts(),
            failover_counts: endpoint.stats().failover_counts(),
            is_in_service: !endpoint.is_drained()
                && (endpoint.can_serve() || self.pools[endpoint.location().pool()].is_in_panic()),
            eligibility: self.member_state_of(endpoint).eligibility(),
            cause: endpoint.history().cause(),
            withheld: endpoint.state().withheld(),
            ramp: endpoint.ramp().ramp().share_permille(endpoint.pool().recovery.ramp, self.now),
            is_degraded: endpoint.is_degraded(),
        };
        self.endpoints.iter().map(of).collect()
    }

    /// The part of its pool's traffic that each endpoint receives, in 0..1.
    pub fn traffic_shares(&self) -> HashMap<EndpointId, f64> {
        self.pools.iter().flat_map(endpoint_shares).collect()
    }

    /// All pools, in the order of the configuration.
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.pools.iter().map(|pool| self.pool_status(pool)).collect()
    }

    /// The state of an endpoint in its zone.
    pub(super) fn member_state_of(&self, endpoint: &EndpointMachine) -> MemberState {
        let location = endpoint.location();
        let zone = self.pools[location.pool()].zone(location.zone());
        zone.roster().state(location.position())
    }

    pub(super) fn pool_status(&self, pool: &PoolState) -> PoolStatus {
        let tier = |view: &PoolView, tier: &Tier| {
            let mut zones: Vec<usize> = tier.targets().map(|target| target.zone).collect();
            zones.sort_unstable();
            zones.dedup();
            let places = zones.iter().map(|&zone| view.spec.zones[zone].locality.to_string());
            (tier.share as f64 / FULL_SHARE as f64, places.collect())
        };
        let tiers =
            pool.view().map(|view| view.primary.tiers.iter().map(|t| tier(view, t)).collect());
        let (spec, counts) = (pool.spec(), pool.counts());
        PoolStatus {
            name: Arc::clone(&spec.name),
            balance: spec.balance.as_str(),
            is_in_panic: pool.is_in_panic(),
            policy: spec.steer.policy,
            tiers: tiers.unwrap_or_default(),
            regions: self.region_estimates(pool),
            endpoints: counts.all() as usize,
            serving: counts.serving() as usize,
            down: counts.down() as usize,
            drained: counts.drained() as usize,
            withheld: pool.withheld(),
            is_diverging: pool.divergence().is_active(),
            achieved_period: pool.achieved_period(),
            stretch: self.stretch(),
            evict: EvictionBudget {
                used: counts.down(),
                allowed: pool.max_down().min(counts.all()),
            },
        }
    }

    fn region_estimates(&self, pool: &PoolState) -> Vec<(String, Option<f64>)> {
        if !pool.spec().steer.has_latency_variant() {
            return Vec::new();
        }
        let known = pool.latency_order().estimates(self.now).into_iter();
        known.map(|(name, us)| (name.to_owned(), us)).collect()
    }

    /// Whether any pool has somewhere to send a request, or no route needs a pool.
    pub fn is_routable(&self) -> bool {
        if self.publisher.routes().needs_no_pool() {
            return true;
        }
        let mut views = self.pools.iter().filter_map(|pool| pool.view());
        views.any(|view| !view.primary.tiers.is_empty())
    }

    /// How attempts ended in every zone of the pools with an objective.
    pub fn zone_attempts(&self) -> Vec<(Arc<str>, Locality, AttemptCounts)> {
        let pools = self.pools.iter().filter(|pool| pool.spec().slo.is_some());
        let zones = pools.flat_map(|pool| pool.zones().iter().map(move |zone| (pool, zone)));
        let sum = |members: &[EndpointId]| {
            let tries =
                members.iter().filter_map(|&id| Some(self.endpoints.get(id)?.stats().attempts()));
            tries.fold(AttemptCounts::default(), |sum, one| AttemptCounts {
                good: sum.good + one.good,
                bad: sum.bad + one.bad,
            })
        };
        let of = |(pool, zone): (&PoolState, &ZoneState)| {
            (Arc::clone(&pool.spec().name), zone.place().clone(), sum(zone.roster().ids()))
        };
        zones.map(of).collect()
    }
}
