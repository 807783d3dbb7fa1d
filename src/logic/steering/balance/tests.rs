//! Properties of every balancer, over whole pools.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use fastrand::Rng;
use http::header::HeaderName;
use proptest::prelude::*;

use super::hash::{mix, unit_interval};
use super::*;
use crate::logic::model::id::{EndpointId, Locality};
use crate::logic::model::pick_request::{ExcludedTargets, PickRequest, RetrySafety};
use crate::logic::model::snapshot::{PoolView, SteeredTiers};
use crate::logic::model::topology::PoolSpec;
use crate::logic::request::breaker::PoolRequestPermit;
use crate::logic::request::limits::LimitKind;
use crate::logic::steering::FULL_SHARE;
use crate::logic::steering::target::{Target, WEIGHT_ONE};
use crate::logic::steering::tier::Tier;
use crate::logic::steering::zone_targets::ZoneTargets;

const PICKS: u32 = 1_000_000;

/// The endpoints of a zone with its hash table.
#[derive(Clone)]
struct TestZone {
    targets: Arc<[Target]>,
    hash_table: Option<Arc<ZoneHashTable>>,
}

impl TestZone {
    fn new(number: usize, weights: &[u32], kind: HashTableKind) -> Self {
        let target = |(&weight, n): (&u32, u32)| Target {
            id: EndpointId::new(number as u32 * 1_000 + n, 0),
            address: SocketAddr::from(([10, 0, number as u8, n as u8], 9_000)),
            zone: number,
            weight,
            stats: Arc::default(),
            zone_stats: Arc::default(),
        };
        let targets: Arc<[Target]> = weights.iter().zip(0..).map(target).collect();
        let place = Locality::parse(&format!("r/z{number}")).expect("a place");
        let hash_table = ZoneHashTable::build_or_reuse(kind, &place, &targets, None);
        Self { targets, hash_table }
    }

    /// The endpoints that take traffic, each at a fraction of its weight in thousandths.
    fn zone_targets(&self, weight_permille: impl Fn(u32) -> u32) -> Option<ZoneTargets> {
        let weight =
            |n: u32| self.targets[n as usize].weight * WEIGHT_ONE * weight_permille(n) / 1_000;
        let all = 0..self.targets.len() as u32;
        let active: Vec<(u32, u32)> =
            all.map(|n| (n, weight(n))).filter(|(_, weight)| *weight > 0).collect();
        ZoneTargets::with_hash_table(&self.targets, self.hash_table.as_ref(), &active)
    }
}

/// A tier of zones, each at a fraction of its weight in thousandths.
fn build_tier(share: u64, zones: impl IntoIterator<Item = (Option<ZoneTargets>, u64)>) -> Tier {
    let zones = zones.into_iter().filter_map(|(zone, permille)| {
        let zone = zone?;
        let weight = zone.weight() * permille / 1_000;
        Some((zone, weight))
    });
    Tier::new(share, zones.collect())
}

fn pool_view(balance: BalancePolicy, tiers: Vec<Tier>) -> PoolView {
    let spec = PoolSpec { balance, ..PoolSpec::new("web", Vec::new()) };
    PoolView {
        spec: Arc::new(spec),
        primary: SteeredTiers { tiers, nonsuspect_tiers: None },
        variants: Vec::new(),
        is_drained: false,
        trial_targets: Vec::new(),
        is_panicking: false,
        has_several_zones: false,
        members: Arc::default(),
        stats: Arc::default(),
        affinity_index: None,
    }
}

fn consistent_hash(table: HashTableKind, max_load_percent: Option<u32>) -> BalancePolicy {
    let key = HashKeySource::Header(HeaderName::from_static("x-user"));
    BalancePolicy::ConsistentHash(ConsistentHashConfig { table, key, max_load_percent })
}

fn balance_methods() -> [BalancePolicy; 6] {
    [
        BalancePolicy::LeastRequests,
        BalancePolicy::PeakEwma,
        BalancePolicy::RoundRobin,
        BalancePolicy::Random,
        consistent_hash(HashTableKind::default(), None),
        consistent_hash(HashTableKind::Maglev, None),
    ]
}

fn hash_table_kind(balance: &BalancePolicy) -> HashTableKind {
    if let BalancePolicy::ConsistentHash(keyed) = balance {
        keyed.table
    } else {
        HashTableKind::Maglev
    }
}

fn pick_request<'t>(
    balance: &BalancePolicy,
    key: u64,
    round_robin: &'t RoundRobinState,
) -> PickRequest<'t> {
    let key = matches!(balance, BalancePolicy::ConsistentHash(_)).then_some(key);
    PickRequest {
        retry_safety: RetrySafety::Repeatable,
        variant: 0,
        hash_key: key,
        now_us: 1,
        round_robin: Some(round_robin),
    }
}

#[test]
fn million_picks_match_configured_shares() {
    for balance in balance_methods() {
        let zones: Vec<TestZone> =
            (0..3).map(|n| TestZone::new(n, &[2, 3, 2, 5], hash_table_kind(&balance))).collect();
        // One endpoint is down; one endpoint and one zone are at half of their shares.
        let near = build_tier(
            FULL_SHARE / 10 * 7,
            [
                (zones[0].zone_targets(|n| if n == 2 { 0 } else { 1_000 }), 1_000),
                (zones[1].zone_targets(|n| if n == 1 { 500 } else { 1_000 }), 500),
            ],
        );
        let far = build_tier(
            FULL_SHARE - FULL_SHARE / 10 * 7,
            [(zones[2].zone_targets(|_| 1_000), 1_000)],
        );
        let pool = pool_view(balance.clone(), vec![near, far]);
        let (mut rng, round_robin) = (Rng::with_seed(11), RoundRobinState::default());
        let mut counts: HashMap<EndpointId, u32> = HashMap::new();
        for n in 0..PICKS {
            let request = pick_request(&balance, mix(u64::from(n), 99), &round_robin);
            *counts.entry(pool.pick(&mut rng, request).expect("an endpoint").id).or_default() += 1;
        }
        for tier in &pool.primary.tiers {
            let share = tier.share as f64 / FULL_SHARE as f64;
            for (target, part) in tier.traffic_fractions() {
                let (expected, got) =
                    (share * part, f64::from(counts[&target.id]) / f64::from(PICKS));
                let off = match balance.as_str() {
                    // A ring is only approximately even.
                    "ring_hash" => got - expected,
                    _ => got / expected - 1.0,
                };
                assert!(off.abs() < 0.01, "{balance:?}: {expected} and not {got}: {}", target.id);
            }
        }
        assert_eq!(counts.values().sum::<u32>(), PICKS);
    }
}

/// The endpoints of a range of keys.
fn endpoint_slots_by_key(tiers: Vec<Tier>) -> Vec<u32> {
    let pool = pool_view(consistent_hash(HashTableKind::Maglev, None), tiers);
    let (mut rng, round_robin) = (Rng::with_seed(1), RoundRobinState::default());
    let pick = |n: u64| {
        let request = pick_request(&pool.spec.balance, mix(n, 7), &round_robin);
        pool.pick(&mut rng, request).expect("an endpoint").id.slot
    };
    (0..20_000).map(pick).collect()
}

#[test]
fn removed_endpoint_moves_only_its_keys_and_regains_them() {
    for kind in [HashTableKind::default(), HashTableKind::Maglev] {
        for weights in [[1; 8].as_slice(), &[1, 5, 2, 2]] {
            // Zones of different and of equal weights take different code paths.
            let sizes = [weights.len(), weights.len(), weights.len() - weights[0] as usize % 2];
            for sizes in [[weights.len(); 3], sizes] {
                let zones: Vec<TestZone> =
                    (0..3).map(|n| TestZone::new(n, &weights[..sizes[n]], kind)).collect();
                let slots = |permille: &dyn Fn(usize, u32) -> u32, zone_permille: u64| {
                    let weighted_zone = |(n, zone): (usize, &TestZone)| {
                        (
                            zone.zone_targets(|position| permille(n, position)),
                            if n == 1 { zone_permille } else { 1_000 },
                        )
                    };
                    endpoint_slots_by_key(vec![build_tier(
                        FULL_SHARE,
                        zones.iter().enumerate().map(weighted_zone),
                    )])
                };
                let whole = slots(&|_, _| 1_000, 1_000);
                let one = slots(&|zone, n| if (zone, n) == (1, 2) { 0 } else { 1_000 }, 1_000);
                let zone = slots(&|zone, _| if zone == 1 { 0 } else { 1_000 }, 1_000);
                let half = slots(&|zone, n| if (zone, n) == (1, 2) { 500 } else { 1_000 }, 1_000);
                let half_zone = slots(&|_, _| 1_000, 500);
                let mut counts = [0_u32; 4];
                for n in 0..whole.len() {
                    let (is_endpoint, is_zone) = (whole[n] == 1_002, whole[n] / 1_000 == 1);
                    assert!(one[n] == whole[n] || is_endpoint, "an endpoint's keys only");
                    assert!(zone[n] == whole[n] || is_zone, "a zone's keys only");
                    assert!(
                        half[n] == whole[n] || half[n] == one[n],
                        "a part of the endpoint's keys"
                    );
                    assert!(half_zone[n] == whole[n] || is_zone, "a part of the zone's keys");
                    counts[0] += u32::from(is_endpoint);
                    counts[1] += u32::from(half[n] == 1_002);
                    counts[2] += u32::from(is_zone);
                    counts[3] += u32::from(half_zone[n] / 1_000 == 1);
                }
                let [all, some, zones_all, zones_some] = counts.map(f64::from);
                assert!((0.4..0.6).contains(&(some / all)), "{some} of {all}");
                // At half of its weight, one of three equal zones keeps a fifth of all keys instead
                // of a third.
                let left = zones_some / zones_all;
                assert!((0.5..0.7).contains(&left), "{zones_some} of {zones_all}");
            }
        }
    }
}

#[test]
fn share_change_moves_only_the_keys_that_must_move() {
    let zones: Vec<TestZone> =
        (0..2).map(|n| TestZone::new(n, &[1; 6], HashTableKind::Maglev)).collect();
    let at = |near: u64| {
        let shares = [FULL_SHARE / 100 * near, FULL_SHARE - FULL_SHARE / 100 * near];
        let tier = |n: usize| build_tier(shares[n], [(zones[n].zone_targets(|_| 1_000), 1_000)]);
        endpoint_slots_by_key(vec![tier(0), tier(1)])
    };
    let (before, after) = (at(90), at(70));
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    let moved: Vec<_> = moved.collect();
    assert!(moved.iter().all(|(before, after)| **before < 1_000 && **after >= 1_000));
    assert!((3_600..4_400).contains(&moved.len()), "{} of 20000", moved.len());
}

#[test]
fn max_load_percent_holds_while_others_have_capacity() {
    // Zones weigh as much as their endpoints, or a share of all traffic.
    for (kind, scale) in [
        (HashTableKind::default(), 1_000),
        (HashTableKind::Maglev, 1_000),
        (HashTableKind::Maglev, 1 << 28),
    ] {
        let zones: Vec<TestZone> = (0..3).map(|n| TestZone::new(n, &[1, 2, 1], kind)).collect();
        let weighted_zones = zones.iter().map(|zone| (zone.zone_targets(|_| 1_000), scale));
        let pool = pool_view(
            consistent_hash(kind, Some(125)),
            vec![build_tier(FULL_SHARE, weighted_zones)],
        );
        let (mut rng, round_robin) = (Rng::with_seed(3), RoundRobinState::default());
        let mut counted = Vec::new();
        for n in 0..3_000_u64 {
            // Half of the requests have the same key.
            let key = if n % 2 == 0 { 42 } else { mix(n, 5) };
            let request = pick_request(&pool.spec.balance, key, &round_robin);
            let target = pool.pick(&mut rng, request).expect("an endpoint").clone();
            counted.push(PoolRequestPermit::acquire_unlimited(&pool.stats));
            target.stats.request_started(1);
            let mean = (n + 1) as f64 / 12.0 * f64::from(target.weight);
            let bound = (1.25 * mean).ceil();
            assert!(f64::from(target.stats.in_flight()) <= bound, "{n}: {bound}");
        }
        assert_eq!(pool.stats.gauges().get(LimitKind::Requests), 3_000);
        let all = pool.targets().map(|target| target.stats.in_flight());
        assert_eq!(all.sum::<u32>(), 3_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every balancer: a retry avoids the tried endpoints, and their zone if possible.
    #[test]
    fn retry_skips_tried_endpoints_for_every_balancer(
        method in 0..6_usize,
        down in prop::collection::vec(any::<bool>(), 9),
        tried in prop::collection::vec(0..9_u32, 0..8),
        key in any::<u64>(),
        seed in any::<u64>(),
    ) {
        let balance = balance_methods()[method].clone();
        let kind = hash_table_kind(&balance);
        let zones: Vec<TestZone> =
            (0..3).map(|n| TestZone::new(n, &[1, 2, 3], kind)).collect();
        let weighted_zone = |zone: usize| {
            let part = |n: u32| if down[zone * 3 + n as usize] { 0 } else { 1_000 };
            (zones[zone].zone_targets(part), 1_000)
        };
        let tiers = [
            build_tier(FULL_SHARE, [weighted_zone(0), weighted_zone(1)]),
            build_tier(0, [weighted_zone(2)]),
        ];
        let tiers: Vec<Tier> = tiers.into_iter().filter(|tier| !tier.is_empty()).collect();
        let pool = pool_view(balance.clone(), tiers);
        let mut excluded = ExcludedTargets::default();
        for index in tried {
            let (zone, n) = (index / 3, index % 3);
            excluded.exclude(EndpointId::new(zone * 1_000 + n, 0), zone as usize);
        }
        let fresh: Vec<&Target> =
            pool.targets().filter(|target| !excluded.endpoints.contains(&target.id)).collect();
        let has_other_zone = fresh.iter().any(|target| !excluded.zones.contains(&target.zone));
        let (mut rng, round_robin) = (Rng::with_seed(seed), RoundRobinState::default());
        let request = pick_request(&balance, key, &round_robin);
        match pool.pick_alternative(&mut rng, &excluded, request) {
            None => prop_assert!(fresh.is_empty()),
            Some(other) => {
                prop_assert!(!excluded.endpoints.contains(&other.id));
                prop_assert!(!has_other_zone || !excluded.zones.contains(&other.zone));
                prop_assert!(fresh.iter().any(|target| target.id == other.id));
                if request.hash_key.is_some() {
                    let again = pool.pick_alternative(&mut rng, &excluded, request);
                    let again = again.map(|target| target.id);
                    prop_assert_eq!(again, Some(other.id), "a key has one next endpoint");
                }
            }
        }
    }

    /// Every balancer: a request that must not run twice avoids suspect and stalled endpoints.
    #[test]
    fn nonrepeatable_request_avoids_suspect_and_slow_endpoints(
        method in 0..6_usize,
        key in any::<u64>(),
        seed in any::<u64>(),
    ) {
        let balance = balance_methods()[method].clone();
        let zone = TestZone::new(0, &[1, 2, 3, 4], hash_table_kind(&balance));
        let all = build_tier(FULL_SHARE, [(zone.zone_targets(|_| 1_000), 1_000)]);
        let nonsuspect = zone.zone_targets(|n| if n == 3 { 0 } else { 1_000 });
        let nonsuspect = build_tier(FULL_SHARE, [(nonsuspect, 1_000)]);
        let steered = SteeredTiers { tiers: vec![all], nonsuspect_tiers: Some(vec![nonsuspect]) };
        let pool = PoolView { primary: steered, ..pool_view(balance.clone(), Vec::new()) };
        zone.targets[2].stats.request_started(10);
        let (mut rng, round_robin) = (Rng::with_seed(seed), RoundRobinState::default());
        for n in 0..50 {
            let retry_safety = RetrySafety::NotRepeatable { waiting_before_us: 20 };
            let request = pick_request(&balance, mix(key, n), &round_robin);
            let request = PickRequest { retry_safety, ..request };
            let slot = pool.pick(&mut rng, request).expect("an endpoint").id.slot;
            prop_assert!(slot < 2, "{}", slot);
        }
    }
}

#[test]
fn round_robin_is_exact_per_round_and_smooth() {
    let zones = [
        TestZone::new(0, &[5, 1], HashTableKind::Maglev),
        TestZone::new(1, &[1, 2], HashTableKind::Maglev),
    ];
    let weighted_zones = zones.iter().map(|zone| (zone.zone_targets(|_| 1_000), 1_000));
    let pool = pool_view(BalancePolicy::RoundRobin, vec![build_tier(FULL_SHARE, weighted_zones)]);
    let (mut rng, round_robin) = (Rng::with_seed(5), RoundRobinState::default());
    let picks = (0..9 * 50).map(|_| {
        let request = pick_request(&pool.spec.balance, 0, &round_robin);
        pool.pick(&mut rng, request).expect("an endpoint").id.slot
    });
    let picks: Vec<u32> = picks.collect();
    for round in picks.windows(9) {
        let count = |slot: u32| round.iter().filter(|&&picked| picked == slot).count();
        assert_eq!([0, 1, 1_000, 1_001].map(count), [5, 1, 1, 2], "{round:?}");
        assert!(round.windows(3).all(|three| three != [0, 0, 0]), "{round:?}");
    }
}

#[test]
fn peak_ewma_sends_less_to_the_slow_endpoint() {
    let zone = TestZone::new(0, &[1; 5], HashTableKind::Maglev);
    let pool = pool_view(
        BalancePolicy::PeakEwma,
        vec![build_tier(FULL_SHARE, [(zone.zone_targets(|_| 1_000), 1_000)])],
    );
    let now_us = 20_000_000;
    for (target, ms) in zone.targets.iter().zip([5, 5, 50, 5, 5]) {
        target.stats.record_latency(ms * 1_000, now_us);
    }
    let (mut rng, round_robin) = (Rng::with_seed(5), RoundRobinState::default());
    let request = PickRequest { now_us, ..pick_request(&pool.spec.balance, 0, &round_robin) };
    let picks =
        (0..10_000).filter(|_| pool.pick(&mut rng, request).expect("an endpoint").id.slot == 2);
    let slow = picks.count();
    assert!((200..600).contains(&slow), "only when it is drawn twice: {slow} of 10000");
}

/// Simulates servers that take one request at a time, with Poisson arrivals at the utilisation
/// `load`. Returns the highest and the mean of the servers' time-averaged requests in flight.
fn simulate_queues(balance: &BalancePolicy, load: f64) -> (f64, f64) {
    let servers = 20;
    let zone = TestZone::new(0, &vec![1; servers], HashTableKind::Maglev);
    let pool = pool_view(
        balance.clone(),
        vec![build_tier(FULL_SHARE, [(zone.zone_targets(|_| 1_000), 1_000)])],
    );
    let (mut rng, mut arrivals_rng, round_robin) =
        (Rng::with_seed(17), Rng::with_seed(18), RoundRobinState::default());
    let mut exponential = |mean: f64| -unit_interval(arrivals_rng.u64(..)).ln() * mean;
    let (mut now, mut areas) = (0.0, vec![0.0; servers]);
    let mut free_at = vec![0.0_f64; servers];
    let mut leaving: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let tick = 1e6;
    let pass = |from: f64, to: f64, areas: &mut [f64]| {
        for (target, area) in zone.targets.iter().zip(areas) {
            *area += f64::from(target.stats.in_flight()) * (to - from);
        }
        to
    };
    for _ in 0..200_000 {
        let arrival = now + exponential(1.0 / (servers as f64 * load));
        while let Some(&Reverse((at, server))) = leaving.peek() {
            let at = at as f64 / tick;
            if at > arrival {
                break;
            }
            leaving.pop();
            now = pass(now, at.max(now), &mut areas);
            zone.targets[server].stats.request_ended();
        }
        now = pass(now, arrival, &mut areas);
        let request = pick_request(balance, 0, &round_robin);
        let server = pool.pick(&mut rng, request).expect("an endpoint").id.slot as usize;
        zone.targets[server].stats.request_started(1);
        free_at[server] = free_at[server].max(now) + exponential(1.0);
        leaving.push(Reverse(((free_at[server] * tick) as u64, server)));
    }
    let worst = areas.iter().copied().fold(0.0, f64::max) / now;
    (worst, areas.iter().sum::<f64>() / now / servers as f64)
}

#[test]
fn least_requests_worst_queue_is_near_mean_at_70_percent_load() {
    let (worst, mean) = simulate_queues(&BalancePolicy::LeastRequests, 0.7);
    assert!(worst <= 1.3 * mean, "{worst} and {mean}");
    // The mean of JSQ(2) by theory (Vvedenskaya et al., 1996): the sum of 0.7^(2^k - 1), about
    // 1.15.
    assert!((1.05..1.30).contains(&mean), "{mean}");
    let (_, by_chance) = simulate_queues(&BalancePolicy::Random, 0.7);
    assert!(by_chance > 1.5 * mean, "{by_chance} by chance, where theory has 2.33");
}
