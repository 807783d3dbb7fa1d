//! The snapshot: the immutable state that the request path reads, published as a whole.
//!
//! [`PoolView`] also chooses endpoints. It combines the tiers of `steering` with the balancer of
//! the pool and with the rules for requests that must not run twice.

use std::sync::Arc;

use fastrand::Rng;

use super::id::EndpointId;
use super::pick_request::{ExcludedTargets, PickRequest, RetrySafety};
use super::topology::PoolSpec;
use crate::logic::health::latency_baseline::LatencyBaseline;
use crate::logic::request::attribution::ComparisonScope;
use crate::logic::request::limits::LimitKind;
use crate::logic::routing::RouteTable;
use crate::logic::steering::FULL_SHARE;
use crate::logic::steering::affinity::AffinityIndex;
use crate::logic::steering::balance::consistent_hash;
use crate::logic::steering::balance::consistent_hash::LoadBound;
use crate::logic::steering::balance::{BalancePolicy, ConsistentHashConfig};

pub use super::endpoint_stats::{EndpointStats, FailoverCounts};
pub use crate::logic::request::limits::PoolStats;
pub use crate::logic::steering::target::Target;
pub use crate::logic::steering::tier::Tier;
pub use crate::logic::steering::zone_targets::ZoneTargets;

/// The routes and pools that the data plane uses until the next publication.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub version: u64,
    pub routes: Arc<RouteTable>,
    /// In the order of the topology; routes refer to them by index.
    pub pools: Vec<Arc<PoolView>>,
}

/// One pool as the request path sees it.
#[derive(Debug)]
pub struct PoolView {
    pub spec: Arc<PoolSpec>,
    /// The tiers of the pool's policy.
    pub primary: SteeredTiers,
    /// The tiers of the other steering variants; see [`SteeringConfig::extra_variants`].
    ///
    /// [`SteeringConfig::extra_variants`]: crate::logic::steering::SteeringConfig::extra_variants
    pub variants: Vec<SteeredTiers>,
    /// Endpoints that traffic has put down and that recover through trial requests: a repeatable
    /// request may be sent there when a trial is due.
    pub trial_targets: Vec<Target>,
    /// Panic: too few endpoints are healthy, so the tiers hold all of them.
    pub is_panicking: bool,
    /// Endpoints of more than one zone take traffic.
    pub has_several_zones: bool,
    /// No endpoint is available because operators have drained all of them.
    pub is_drained: bool,
    /// All endpoints of the pool, sorted, whether they take traffic or not.
    pub members: Arc<[EndpointId]>,
    /// The counters that workers share; kept for as long as the pool's name is configured.
    pub stats: Arc<PoolStats>,
    /// Present where the pool pins clients by cookie.
    pub affinity_index: Option<AffinityIndex>,
}

/// The tiers of one steering variant.
#[derive(Debug, Default)]
pub struct SteeredTiers {
    /// Tiers that take traffic, in the order of preference.
    pub tiers: Vec<Tier>,
    /// `tiers` without suspect endpoints, for requests that must not run twice. `None` if no
    /// endpoint is suspect.
    pub nonsuspect_tiers: Option<Vec<Tier>>,
}

/// Upper bound on the trial endpoints that one request checks.
const MAX_TRIALS_CHECKED: usize = 16;

impl PoolView {
    /// A variant that is no longer configured falls back to the policy's tiers.
    fn tiers_for(&self, variant: usize, retry_safety: RetrySafety) -> &[Tier] {
        let other = variant.checked_sub(1).and_then(|index| self.variants.get(index));
        let steered = other.unwrap_or(&self.primary);
        match (retry_safety, &steered.nonsuspect_tiers) {
            (RetrySafety::NotRepeatable { .. }, Some(nonsuspect)) => nonsuspect,
            _ => &steered.tiers,
        }
    }

    /// The latency baseline of the preferred region; `None` without an endpoint.
    pub fn first_latency_baseline(&self) -> Option<&LatencyBaseline> {
        let target = self.primary.tiers.first()?.targets().next()?;
        Some(target.zone_stats.latency())
    }

    /// Chooses the endpoint of a request's first attempt.
    pub fn pick<'w>(&self, rng: &mut Rng, request: impl Into<PickRequest<'w>>) -> Option<&Target> {
        let request = request.into();
        let picked = self.pick_by_balance(rng, &request)?;
        match request.retry_safety {
            RetrySafety::NotRepeatable { waiting_before_us } => {
                // A stalled endpoint may never answer, and this request could not be sent again.
                let is_responsive =
                    |target: &Target| !target.stats.has_waited_since_before(waiting_before_us);
                let is_nonsuspect = |target: &Target| {
                    is_responsive(target) && !target.has_recent_neighbour_failure(request.now_us)
                };
                if is_nonsuspect(picked) {
                    return Some(picked);
                }
                let tiers = self.tiers_for(request.variant, request.retry_safety);
                let mut first_match = |is_match: &dyn Fn(&Target) -> bool| {
                    tiers.iter().find_map(|tier| self.pick_matching(tier, rng, &request, is_match))
                };
                if let Some(nonsuspect) = first_match(&is_nonsuspect) {
                    return Some(nonsuspect);
                }
                let responsive =
                    if is_responsive(picked) { None } else { first_match(&is_responsive) };
                Some(responsive.unwrap_or(picked))
            }
            RetrySafety::Repeatable => Some(picked),
        }
    }

    fn pick_by_balance(&self, rng: &mut Rng, request: &PickRequest<'_>) -> Option<&Target> {
        let tiers = self.tiers_for(request.variant, request.retry_safety);
        let index = match (tiers, request.hash_key) {
            ([], _) => return None,
            ([_], _) => 0,
            (tiers, None) => tier_at(tiers, rng.u64(..FULL_SHARE)),
            (tiers, Some(key)) => tier_at(tiers, consistent_hash::key_position(key)),
        };
        let tier = &tiers[index];
        if let Some(key) = request.hash_key.filter(|_| tier.has_hash_tables()) {
            return consistent_hash::pick_by_key(tier, key, self.load_bound(tier), |_| true);
        }
        Some(match (&self.spec.balance, request.round_robin) {
            (BalancePolicy::LeastRequests | BalancePolicy::ConsistentHash(_), _) => {
                tier.pick_two_choices(rng)
            }
            (BalancePolicy::PeakEwma, _) => {
                tier.pick_two_choices_by_cost(rng, |target| target.stats.cost(request.now_us))
            }
            (BalancePolicy::RoundRobin, Some(state)) => tier.pick_round_robin(state, index, rng),
            (BalancePolicy::RoundRobin, None) | (BalancePolicy::Random, _) => tier.pick_random(rng),
        })
    }

    /// The load limit of consistent hashing with bounded loads, where the pool has one.
    fn load_bound(&self, tier: &Tier) -> Option<LoadBound> {
        let BalancePolicy::ConsistentHash(ConsistentHashConfig {
            max_load_percent: Some(percent),
            ..
        }) = self.spec.balance
        else {
            return None;
        };
        let in_flight = self.stats.gauges().get(LimitKind::Requests);
        LoadBound::new(percent, in_flight, tier.share as f64 / FULL_SHARE as f64, tier)
    }

    /// Chooses among the matching endpoints of a tier: by the key, or the less loaded of two.
    fn pick_matching<'t>(
        &self,
        tier: &'t Tier,
        rng: &mut Rng,
        request: &PickRequest<'_>,
        is_match: &dyn Fn(&Target) -> bool,
    ) -> Option<&'t Target> {
        match request.hash_key.filter(|_| tier.has_hash_tables()) {
            Some(key) => consistent_hash::pick_by_key(tier, key, self.load_bound(tier), is_match),
            None => tier.pick_matching(rng, is_match),
        }
    }

    /// Claims a due trial for a repeatable request; its first attempt goes to the returned
    /// endpoint.
    pub fn take_due_trial(&self, now_us: u64) -> Option<&Target> {
        let count = self.trial_targets.len();
        let start = (now_us / 1_000) as usize;
        let mut candidates =
            (0..count.min(MAX_TRIALS_CHECKED)).map(|n| &self.trial_targets[(start + n) % count]);
        candidates.find(|target| target.stats.try_take_trial(now_us))
    }

    /// Chooses the endpoint of a retry: outside the excluded zones if possible, in the nearest
    /// tier, and never an endpoint that was tried before.
    pub fn pick_alternative<'w>(
        &self,
        rng: &mut Rng,
        excluded: &ExcludedTargets,
        request: impl Into<PickRequest<'w>>,
    ) -> Option<&Target> {
        let request = request.into();
        let tiers = self.tiers_for(request.variant, request.retry_safety);
        let is_untried = |target: &Target| !excluded.endpoints.contains(&target.id);
        let is_in_untried_zone =
            |target: &Target| is_untried(target) && !excluded.zones.contains(&target.zone);
        let mut first_match = |is_match: &dyn Fn(&Target) -> bool| {
            tiers.iter().find_map(|tier| self.pick_matching(tier, rng, &request, is_match))
        };
        first_match(&is_in_untried_zone).or_else(|| first_match(&is_untried))
    }

    /// Whether a request at `current` could go to another endpoint. All variants hold the same
    /// endpoints, so the policy's tiers decide.
    pub fn has_alternative(
        &self,
        current: EndpointId,
        excluded: &ExcludedTargets,
        retry_safety: RetrySafety,
    ) -> bool {
        let mut targets = self.tiers_for(0, retry_safety).iter().flat_map(Tier::targets);
        targets.any(|target| target.id != current && !excluded.endpoints.contains(&target.id))
    }

    /// The places to which a failed request could be sent for comparison.
    pub fn comparison_scope(&self) -> ComparisonScope {
        match (self.has_several_zones, self.members.len()) {
            (true, _) => ComparisonScope::OtherZone,
            (false, 0 | 1) => ComparisonScope::None,
            (false, _) => ComparisonScope::SameZone,
        }
    }

    /// All endpoints that take traffic.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.primary.tiers.iter().flat_map(Tier::targets)
    }
}

/// The index of the tier whose share contains the point.
fn tier_at(tiers: &[Tier], mut point: u64) -> usize {
    for (index, tier) in tiers.iter().enumerate() {
        match point.checked_sub(tier.share) {
            Some(rest) => point = rest,
            None => return index,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::SocketAddr;

    use crate::logic::model::endpoint_stats::ZoneStats;

    fn target(id: u32, zone: usize, weight: u32) -> Target {
        let address = SocketAddr::from(([127, 0, 0, 1], 9000 + id as u16));
        Target {
            id: EndpointId::new(id, 0),
            address,
            zone,
            weight,
            stats: Arc::default(),
            zone_stats: Arc::default(),
        }
    }

    fn view(tiers: Vec<Tier>) -> PoolView {
        PoolView {
            spec: Arc::new(PoolSpec::new("web", Vec::new())),
            primary: SteeredTiers { tiers, nonsuspect_tiers: None },
            variants: Vec::new(),
            trial_targets: Vec::new(),
            is_panicking: false,
            has_several_zones: false,
            is_drained: false,
            members: Arc::default(),
            stats: Arc::default(),
            affinity_index: None,
        }
    }

    #[test]
    fn picks_follow_tier_shares_and_weights() {
        let near = Tier::from_targets(FULL_SHARE / 4 * 3, vec![target(0, 0, 1), target(1, 0, 2)]);
        let far = Tier::from_targets(FULL_SHARE / 4, vec![target(2, 1, 1)]);
        let pool = view(vec![near, far]);
        let mut rng = Rng::with_seed(7);
        let mut counts = [0f64; 3];
        for _ in 0..100_000 {
            let id = pool.pick(&mut rng, RetrySafety::Repeatable).expect("an endpoint").id;
            counts[id.slot as usize] += 1.0;
        }
        for (count, expected) in counts.iter().zip([25_000.0, 50_000.0, 25_000.0]) {
            assert!((count / expected - 1.0).abs() < 0.02, "{counts:?}");
        }
    }

    #[test]
    fn less_loaded_of_two_choices_is_picked() {
        let targets = vec![target(0, 0, 1), target(1, 0, 1)];
        (0..5).for_each(|_| targets[0].stats.request_started(1));
        let pool = view(vec![Tier::from_targets(FULL_SHARE, targets)]);
        let mut rng = Rng::with_seed(7);
        let loaded = (0..10_000)
            .filter(|_| {
                pool.pick(&mut rng, RetrySafety::Repeatable).expect("an endpoint").id.slot == 0
            })
            .count();
        assert!((2_300..2_700).contains(&loaded), "only when drawn twice: {loaded}");
    }

    #[test]
    fn nonrepeatable_request_avoids_stalled_endpoints() {
        let near = vec![target(0, 0, 1), target(1, 0, 1)];
        let far = vec![target(2, 1, 1)];
        let (first, second, third) =
            (near[0].stats.clone(), near[1].stats.clone(), far[0].stats.clone());
        let pool = view(vec![Tier::from_targets(FULL_SHARE, near), Tier::from_targets(0, far)]);
        let mut rng = Rng::with_seed(7);
        let mut picked = |retry_safety| -> Vec<u32> {
            let picks = (0..100).filter_map(|_| pool.pick(&mut rng, retry_safety));
            let mut slots: Vec<u32> = picks.map(|target| target.id.slot).collect();
            slots.sort_unstable();
            slots.dedup();
            slots
        };
        let once = RetrySafety::NotRepeatable { waiting_before_us: 1_000 };
        first.request_started(500);
        assert_eq!(picked(once), [1]);
        assert_eq!(picked(RetrySafety::Repeatable), [0, 1]);
        assert_eq!(
            picked(RetrySafety::NotRepeatable { waiting_before_us: 500 }),
            [0, 1],
            "the request has not waited long enough"
        );
        second.request_started(500);
        assert_eq!(picked(once), [2], "no request waits in the next tier");
        third.request_started(500);
        assert_eq!(picked(once), [0, 1], "no endpoint is better");
        second.record_good_response(600);
        assert_eq!(picked(once), [1]);
    }

    #[test]
    fn retry_avoids_failed_endpoint_and_prefers_other_zone() {
        let near = Tier::from_targets(FULL_SHARE, vec![target(0, 0, 1), target(1, 0, 1)]);
        let pool = view(vec![near, Tier::from_targets(0, vec![target(2, 1, 1)])]);
        let mut rng = Rng::with_seed(7);
        let mut excluded = ExcludedTargets::default();
        let mut next = |excluded: &ExcludedTargets| {
            pool.pick_alternative(&mut rng, excluded, RetrySafety::Repeatable).map(|t| t.id.slot)
        };
        excluded.endpoints.push(EndpointId::new(0, 0));
        assert_eq!(next(&excluded), Some(1), "the zone is not excluded");
        let mut excluded = ExcludedTargets::default();
        excluded.exclude(EndpointId::new(0, 0), 0);
        assert_eq!(next(&excluded), Some(2));
        excluded.exclude(EndpointId::new(2, 0), 1);
        assert_eq!(next(&excluded), Some(1), "no other zone is left");
        excluded.exclude(EndpointId::new(1, 0), 0);
        assert_eq!(next(&excluded), None);
    }

    #[test]
    fn nonrepeatable_request_avoids_zone_of_recent_failure() {
        let zone_stats = Arc::<ZoneStats>::default();
        let near = |id| Target { zone_stats: Arc::clone(&zone_stats), ..target(id, 0, 1) };
        let neighbours = [near(0), near(1), near(2)];
        let pool = view(vec![
            Tier::from_targets(FULL_SHARE, neighbours.to_vec()),
            Tier::from_targets(0, vec![target(3, 1, 1)]),
        ]);
        let mut rng = Rng::with_seed(7);
        let mut picks = |retry_safety, now_us| -> Vec<u32> {
            let mut one =
                || pool.pick(&mut rng, PickRequest { now_us, ..PickRequest::from(retry_safety) });
            let mut slots: Vec<u32> = (0..200).filter_map(|_| Some(one()?.id.slot)).collect();
            slots.sort_unstable();
            slots.dedup();
            slots
        };
        let (once, repeatable) =
            (RetrySafety::NotRepeatable { waiting_before_us: 0 }, RetrySafety::Repeatable);
        neighbours[1].stats.record_good_response(900);
        assert_eq!(picks(once, 1_000), [0, 1, 2]);
        zone_stats.record_error(1_000);
        assert_eq!(picks(once, 1_010), [3], "the whole zone is avoided");
        assert_eq!(picks(repeatable, 1_010), [0, 1, 2]);
        neighbours[1].stats.record_good_response(1_020);
        assert_eq!(picks(once, 1_030), [1]);
        neighbours[0].stats.record_good_response(1_040);
        zone_stats.record_error(1_050);
        neighbours[0].stats.record_good_response(1_060);
        assert_eq!(picks(once, 1_070), [0]);
        assert_eq!(picks(once, 1_050 + 1_000_000), [0, 1, 2], "the failure is no longer recent");
    }

    #[test]
    fn responsive_target_is_picked_when_whole_zone_is_suspect() {
        let zone_stats = Arc::<ZoneStats>::default();
        let near = |id| Target { zone_stats: Arc::clone(&zone_stats), ..target(id, 0, 1) };
        let neighbours = [near(0), near(1)];
        let pool = view(vec![Tier::from_targets(FULL_SHARE, neighbours.to_vec())]);
        let mut rng = Rng::with_seed(7);
        zone_stats.record_error(1_000);
        neighbours[0].stats.request_started(500);
        let request = PickRequest {
            now_us: 1_100,
            ..PickRequest::from(RetrySafety::NotRepeatable { waiting_before_us: 900 })
        };
        for _ in 0..50 {
            assert_eq!(
                pool.pick(&mut rng, request).expect("an endpoint").id.slot,
                1,
                "the other endpoint stalls"
            );
        }
    }
}
