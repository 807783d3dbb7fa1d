//! What the director can tell of its state.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::health::endpoint_health::Health;
use crate::logic::incident::{Incident, IncidentSubject};
use crate::logic::model::endpoint_stats::{AttemptCounts, FailoverCounts};
use crate::logic::model::id::{EndpointId, Locality};
use crate::logic::model::outcome::ProbeOutcome;
use crate::logic::model::snapshot::{PoolView, Tier};
use crate::logic::steering::{FULL_SHARE, SteeringPolicy};

use super::Director;
use super::apply_evidence::percent_limit;
use super::endpoint::{EndpointState, EvidenceRecord, WithheldReason};
use super::explain::{EvictionBudget, endpoint_shares};
use super::pools::{Eligibility, PoolState, ZoneState};

#[derive(Clone, Debug)]
pub struct EndpointStatus {
    pub subject: Arc<IncidentSubject>,
    pub weight: u32,
    /// What is believed of it.
    pub health: Health,
    pub since: Instant,
    /// When the next probe starts; `None` while it waits for the running one.
    pub next_probe: Option<Instant>,
    /// The last probes with their starts, oldest first.
    pub probes: Vec<(Instant, ProbeOutcome)>,
    pub in_flight: u32,
    /// How tries ended since it is known.
    pub attempts: AttemptCounts,
    /// What became of requests that it failed.
    pub failover_counts: FailoverCounts,
    /// Whether the current snapshot sends it traffic.
    pub is_in_service: bool,
    /// What it may be given.
    pub eligibility: Eligibility,
    /// What made its verdict, while that is down.
    pub cause: Option<EvidenceRecord>,
    /// Why it is in service in spite of enough strikes.
    pub withheld: Option<WithheldReason>,
    /// What its ramp gives it of its weight, in thousandths.
    pub ramp: u32,
    /// Its probe passes, and says that it should get less.
    pub is_degraded: bool,
}

#[derive(Clone, Debug)]
pub struct PoolStatus {
    pub name: Arc<str>,
    /// How an endpoint is chosen among those that are equally near.
    pub balance: &'static str,
    /// Nothing is healthy: traffic goes everywhere.
    pub is_in_panic: bool,
    /// Which zones come first.
    pub policy: SteeringPolicy,
    /// The parts of the traffic by tier, nearest first, in 0..1, with the tier's zones.
    pub tiers: Vec<(f64, Vec<String>)>,
    /// What a request to each region takes by what is known, in microseconds, the soonest first; empty
    /// unless traffic is led by it.
    pub regions: Vec<(String, Option<f64>)>,
    pub endpoints: usize,
    /// Endpoints that are up or suspect.
    pub serving: usize,
    /// Endpoints whose verdict is down.
    pub down: usize,
    /// Endpoints that get nothing because an operator has said so.
    pub drained: usize,
    /// Verdicts that were due and withheld, since the start.
    pub withheld: u64,
    /// Probes fail in much of the pool while its traffic succeeds.
    pub is_diverging: bool,
    /// The period of probes of endpoints that are up, as it is; `None` before the second probe.
    pub achieved_period: Option<Duration>,
    /// How many times longer than configured periods are, because of the budget of probes.
    pub stretch: f64,
    /// Endpoints that are down, and that may be.
    pub evict: EvictionBudget,
}

impl Director {
    /// All endpoints, in the order of their identities.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let of = |endpoint: &EndpointState| EndpointStatus {
            subject: endpoint.subject(),
            weight: endpoint.location.weight,
            health: endpoint.verdict(),
            since: endpoint.since,
            next_probe: endpoint.next_probe_at(),
            probes: endpoint
                .probe_history
                .iter(self.epoch)
                .map(|(at, _, outcome)| (at, outcome))
                .collect(),
            in_flight: endpoint.stats.in_flight(),
            attempts: endpoint.stats.attempts(),
            failover_counts: endpoint.stats.failover_counts(),
            is_in_service: !endpoint.is_drained()
                && (endpoint.can_serve() || self.pools[endpoint.location.pool].is_in_panic()),
            eligibility: self.member_state_of(endpoint).eligibility,
            cause: endpoint.cause(),
            withheld: endpoint.withheld,
            ramp: endpoint.ramp.share_permille(endpoint.pool.recovery.ramp, self.now),
            is_degraded: endpoint.is_degraded,
        };
        self.endpoints.iter().map(of).collect()
    }

    /// What each endpoint that is sent anything gets of its pool's traffic, in 0..1.
    pub fn traffic_shares(&self) -> HashMap<EndpointId, f64> {
        self.pools.iter().flat_map(endpoint_shares).collect()
    }

    /// All pools, in the order of the configuration.
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.pools.iter().map(|pool| self.pool_status(pool)).collect()
    }

    pub(super) fn pool_status(&self, pool: &PoolState) -> PoolStatus {
        let tier = |view: &PoolView, tier: &Tier| {
            let mut zones: Vec<usize> = tier.targets().map(|target| target.zone).collect();
            zones.sort_unstable();
            zones.dedup();
            let places = zones.iter().map(|&zone| view.spec.zones[zone].locality.to_string());
            (tier.share as f64 / FULL_SHARE as f64, places.collect())
        };
        let tiers = pool
            .view
            .as_ref()
            .map(|view| view.primary.tiers.iter().map(|t| tier(view, t)).collect());
        let evict = &pool.spec.eviction;
        let allowed =
            evict.max_down_endpoints.min(percent_limit(pool.counts.all, evict.max_down_percent));
        PoolStatus {
            name: Arc::clone(&pool.spec.name),
            balance: pool.spec.balance.as_str(),
            is_in_panic: pool.is_in_panic(),
            policy: pool.spec.steer.policy,
            tiers: tiers.unwrap_or_default(),
            regions: self.region_estimates(pool),
            endpoints: pool.counts.all as usize,
            serving: pool.counts.serving as usize,
            down: pool.counts.down as usize,
            drained: pool.counts.drained as usize,
            withheld: pool.withheld,
            is_diverging: pool.is_diverging,
            achieved_period: pool.achieved_period.period,
            stretch: self.stretch(),
            evict: EvictionBudget { used: pool.counts.down, allowed: allowed.min(pool.counts.all) },
        }
    }

    fn region_estimates(&self, pool: &PoolState) -> Vec<(String, Option<f64>)> {
        if !pool.spec.steer.has_latency_variant() {
            return Vec::new();
        }
        let known = pool.latency_order.estimates(self.now).into_iter();
        known.map(|(name, us)| (name.to_owned(), us)).collect()
    }

    /// Whether any pool has somewhere to send a request.
    pub fn is_routable(&self) -> bool {
        let mut views = self.pools.iter().filter_map(|pool| pool.view.as_ref());
        views.any(|view| !view.primary.tiers.is_empty())
    }

    /// All incidents with counts up to date, oldest first.
    pub fn incidents(&mut self) -> Vec<Incident> {
        self.ledger.tracked_endpoints().into_iter().for_each(|id| self.update_incident_counts(id));
        self.ledger.all_incidents()
    }

    /// How tries ended in every zone that is known, of pools with an objective.
    pub fn zone_attempts(&self) -> Vec<(Arc<str>, Locality, AttemptCounts)> {
        let pools = self.pools.iter().filter(|pool| pool.spec.slo.is_some());
        let zones = pools.flat_map(|pool| pool.zones.iter().map(move |zone| (pool, zone)));
        let sum = |members: &[EndpointId]| {
            let tries =
                members.iter().filter_map(|&id| Some(self.endpoints.get(id)?.stats.attempts()));
            tries.fold(AttemptCounts::default(), |sum, one| AttemptCounts {
                good: sum.good + one.good,
                bad: sum.bad + one.bad,
            })
        };
        let of = |(pool, zone): (&PoolState, &ZoneState)| {
            (Arc::clone(&pool.spec.name), zone.place.clone(), sum(&zone.members))
        };
        zones.map(of).collect()
    }

    /// The same of those that are open.
    pub fn open_incidents(&mut self) -> Vec<Incident> {
        self.ledger.tracked_endpoints().into_iter().for_each(|id| self.update_incident_counts(id));
        self.ledger.open_incidents()
    }
}
