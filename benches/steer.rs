//! The pure part of the request path: route and pick, in nanoseconds.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use gapless::logic::model::id::{EndpointId, Locality};
use gapless::logic::model::pick_request::{ExcludedTargets, PickRequest, RetrySafety};
use gapless::logic::model::snapshot::{PoolView, SteeredTiers, Target, Tier, ZoneTargets};
use gapless::logic::model::topology::PoolSpec;
use gapless::logic::routing::{
    HostMatch, PathMatch, PathNormalisation, Pattern, RouteAction, RouteRequest, RouteSpec,
    RouteTable, ValueMatcher, normalise,
};
use gapless::logic::steering::FULL_SHARE;
use gapless::logic::steering::balance::hash::xxh64;
use gapless::logic::steering::balance::{
    BalancePolicy, ConsistentHashConfig, HashKeySource, HashTableKind, RoundRobinState,
    ZoneHashTable,
};
use gapless::logic::steering::target::WEIGHT_ONE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Makes `count` routes: most by prefix, some exact, some with a condition, a few with a pattern;
/// one host in ten is a wildcard.
fn route_table(routes: usize) -> RouteTable {
    let spec = |n: usize| {
        let service = n / 5;
        let name = format!("service-{service}.example.com");
        let host =
            if service % 10 == 9 { HostMatch::Wildcard(name) } else { HostMatch::Exact(name) };
        let path = match n % 5 {
            0 => PathMatch::Prefix("/".to_owned()),
            1 => PathMatch::Prefix("/v1/".to_owned()),
            2 => PathMatch::Prefix("/v1/users".to_owned()),
            3 => PathMatch::Exact("/v1/users/me".to_owned()),
            _ if service % 20 == 2 => {
                PathMatch::Regex(Pattern::parse("/v[0-9]+/items/[0-9]+").expect("a pattern"))
            }
            _ => PathMatch::Prefix("/v1/users".to_owned()),
        };
        let mut spec = RouteSpec::new(n.to_string(), host, path, RouteAction::to_pool("web"));
        if n % 5 == 4 {
            let test = ValueMatcher::Exact(b"canary"[..].into());
            spec.conditions.headers.push((HeaderName::from_static("x-env"), test));
        }
        spec
    };
    let specs: Vec<RouteSpec> = (0..routes).map(spec).collect();
    RouteTable::compile(&specs, ["web"].into_iter())
}

/// A pool whose zones are one tier each, of which the first has all of the traffic; or one common
/// tier.
fn least_requests_pool(zones: usize, endpoints: u32, weighted: bool) -> PoolView {
    pool_with_balance(BalancePolicy::LeastRequests, (zones, endpoints, weighted), false)
}

fn pool_with_balance(
    balance: BalancePolicy,
    (zones, endpoints, weighted): (usize, u32, bool),
    has_single_tier: bool,
) -> PoolView {
    let zone_targets =
        build_zones(hash_table_kind(&balance), (zones, endpoints, weighted), |_, _| true);
    let weighted_zones = zone_targets.into_iter().map(|cell| {
        let weight = cell.weight();
        (cell, weight)
    });
    let tiers = if has_single_tier {
        vec![Tier::new(FULL_SHARE, weighted_zones.collect())]
    } else {
        let share = |zone: usize| if zone == 0 { FULL_SHARE } else { 0 };
        weighted_zones.enumerate().map(|(zone, cell)| Tier::new(share(zone), vec![cell])).collect()
    };
    build_pool_view(balance, tiers)
}

/// The endpoints of the zones that are up.
fn build_zones(
    kind: Option<HashTableKind>,
    (zones, endpoints, weighted): (usize, u32, bool),
    is_present: impl Fn(usize, u32) -> bool,
) -> Vec<ZoneTargets> {
    let zone = |zone: usize| {
        let target = |n: u32| {
            let id = zone as u32 * endpoints + n + 1;
            Target {
                id: EndpointId::new(id, 0),
                address: SocketAddr::from(([10, 0, (id >> 8) as u8, id as u8], 9000)),
                zone,
                weight: if weighted { 1 + n % 4 } else { 1 },
                stats: Arc::default(),
                zone_stats: Arc::default(),
            }
        };
        let targets: Arc<[Target]> = (0..endpoints).map(target).collect();
        let locality = Locality::parse(&format!("r/z{zone}")).expect("a place");
        let hash_table =
            kind.and_then(|kind| ZoneHashTable::build_or_reuse(kind, &locality, &targets, None));
        let present = (0..endpoints).filter(|&n| is_present(zone, n));
        let active: Vec<(u32, u32)> =
            present.map(|n| (n, targets[n as usize].weight * WEIGHT_ONE)).collect();
        ZoneTargets::with_hash_table(&targets, hash_table.as_ref(), &active)
    };
    (0..zones).filter_map(zone).collect()
}

fn build_pool_view(balance: BalancePolicy, tiers: Vec<Tier>) -> PoolView {
    PoolView {
        spec: Arc::new(PoolSpec { balance, ..PoolSpec::new("web", Vec::new()) }),
        primary: SteeredTiers { tiers, nonsuspect_tiers: None },
        variants: Vec::new(),
        trial_targets: Vec::new(),
        is_drained: false,
        is_panicking: false,
        has_several_zones: false,
        members: Arc::default(),
        stats: Arc::default(),
        affinity_index: None,
    }
}

fn hash_table_kind(balance: &BalancePolicy) -> Option<HashTableKind> {
    if let BalancePolicy::ConsistentHash(keyed) = balance { Some(keyed.table) } else { None }
}

fn consistent_hash_balance(table: HashTableKind, max_load_percent: Option<u32>) -> BalancePolicy {
    BalancePolicy::ConsistentHash(ConsistentHashConfig {
        table,
        key: HashKeySource::Source,
        max_load_percent,
    })
}

/// The same requests for every number of routes.
fn bench_routes(criterion: &mut Criterion) {
    let mut headers = HeaderMap::new();
    for (name, value) in [("accept", "*/*"), ("user-agent", "bench"), ("x-env", "live")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for count in [10, 1_000, 10_000] {
        let table = route_table(count);
        // The smallest table has only these: one service in the middle, and an unknown one.
        let service = (count / 10).min(500) / 20 * 20;
        let known_host = format!("service-{service}.example.com");
        for (kind, host, path) in [
            ("prefix", known_host.as_str(), "/v1/users/42"),
            ("exact", known_host.as_str(), "/v1/users/me"),
            ("root", known_host.as_str(), "/elsewhere/x"),
            ("none", "www.nowhere.example", "/v1/users/42"),
        ] {
            let method = &Method::GET;
            let request =
                RouteRequest { host, path, method, headers: &headers, query: "", is_tls: false };
            criterion.bench_function(&format!("route/{kind}/{count}"), |bench| {
                bench.iter(|| table.find(black_box(&request)).is_some());
            });
        }
        if count >= 100 {
            let method = &Method::GET;
            let (host, path) = ("service-22.example.com", "/v2/items/7");
            let request =
                RouteRequest { host, path, method, headers: &headers, query: "", is_tls: false };
            criterion.bench_function(&format!("route/pattern/{count}"), |bench| {
                bench.iter(|| table.find(black_box(&request)).is_some());
            });
        }
    }
    let rules = PathNormalisation::default();
    for (kind, path) in [("plain", "/v1/users/42/items"), ("dots", "/v1/x/../users/%34%32//items")]
    {
        criterion.bench_function(&format!("path/{kind}"), |bench| {
            bench.iter(|| normalise(black_box(path), &rules).map(|path| path.len()));
        });
    }
}

fn bench_picks(criterion: &mut Criterion) {
    for (name, pool) in [
        ("pick/2x3", least_requests_pool(2, 3, false)),
        ("pick/2x3-weighted", least_requests_pool(2, 3, true)),
        ("pick/12x834", least_requests_pool(12, 834, false)),
        ("pick/12x834-weighted", least_requests_pool(12, 834, true)),
    ] {
        let mut rng = Rng::with_seed(1);
        criterion.bench_function(name, |bench| {
            bench.iter(|| {
                black_box(&pool).pick(&mut rng, RetrySafety::Repeatable).map(|target| target.id)
            });
        });
    }
    let pool = least_requests_pool(4, 3, false);
    let mut rng = Rng::with_seed(1);
    let mut avoid = ExcludedTargets::default();
    avoid.endpoints.push(EndpointId::new(1, 0));
    avoid.zones.push(0);
    criterion.bench_function("pick_other/4x3", |bench| {
        bench.iter(|| {
            black_box(&pool)
                .pick_alternative(&mut rng, black_box(&avoid), RetrySafety::Repeatable)
                .map(|target| target.id)
        });
    });
}

/// Each balancing method, with 10,000 endpoints in twelve zones in one tier or twelve.
fn bench_balance_policies(criterion: &mut Criterion) {
    let methods = [
        ("least_requests", BalancePolicy::LeastRequests),
        ("peak_ewma", BalancePolicy::PeakEwma),
        ("round_robin", BalancePolicy::RoundRobin),
        ("random", BalancePolicy::Random),
        ("ring_hash", consistent_hash_balance(HashTableKind::default(), None)),
        ("ring_hash-bounded", consistent_hash_balance(HashTableKind::default(), Some(125))),
        ("maglev", consistent_hash_balance(HashTableKind::Maglev, None)),
        ("maglev-bounded", consistent_hash_balance(HashTableKind::Maglev, Some(125))),
    ];
    for (name, balance) in methods {
        for (kind, weighted, is_one_tier) in
            [("12x834", false, false), ("12x834-weighted", true, false), ("one-tier", false, true)]
        {
            let pool = pool_with_balance(balance.clone(), (12, 834, weighted), is_one_tier);
            for target in pool.targets() {
                target.stats.record_latency(5_000, 1);
            }
            let (mut rng, turns) = (Rng::with_seed(1), RoundRobinState::default());
            let has_key = hash_table_kind(&balance).is_some();
            let mut key = 0_u64;
            criterion.bench_function(&format!("pick/{name}/{kind}"), |bench| {
                bench.iter(|| {
                    key = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
                    let (sending, key) = (RetrySafety::Repeatable, has_key.then_some(key));
                    let pick_request = PickRequest {
                        retry_safety: sending,
                        variant: 0,
                        hash_key: key,
                        now_us: 1_000,
                        round_robin: Some(&turns),
                    };
                    black_box(&pool).pick(&mut rng, pick_request).map(|target| target.id)
                });
            });
        }
    }
    for (name, kind) in [("ring", HashTableKind::default()), ("maglev", HashTableKind::Maglev)] {
        criterion.bench_function(&format!("table/{name}/834"), |bench| {
            bench.iter(|| build_zones(Some(kind), (1, 834, false), |_, _| true).len());
        });
    }
    let pool = &least_requests_pool(12, 834, false);
    let active: Vec<(u32, u32)> = (0..834).map(|n| (n, WEIGHT_ONE)).collect();
    let targets: Arc<[Target]> = pool.primary.tiers[0].targets().cloned().collect();
    let locality = Locality::parse("r/z").expect("a place");
    let hash_table =
        ZoneHashTable::build_or_reuse(HashTableKind::Maglev, &locality, &targets, None);
    for (name, seating) in [("keyless", None), ("keyed", hash_table.as_ref())] {
        criterion.bench_function(&format!("publish-zone/{name}/834"), |bench| {
            bench.iter(|| {
                ZoneTargets::with_hash_table(&targets, seating, black_box(&active)).is_some()
            });
        });
    }
}

/// The number of keys.
const KEY_COUNT: u64 = 100_000;

/// Prints how many keys move when an endpoint or a zone fails, when it returns, and when an
/// endpoint is removed from the file.
fn report_moved_keys(_: &mut Criterion) {
    let (zones, endpoints) = (12, 834);
    println!("keys moved of {KEY_COUNT}, {zones} zones of {endpoints} endpoints in one tier");
    println!(
        "{:<10} {:<24} {:>8} {:>8} {:>8} {:>8}",
        "table", "lost", "own", "others'", "back", "gone"
    );
    for (name, kind) in [("ring_hash", HashTableKind::default()), ("maglev", HashTableKind::Maglev)]
    {
        let owners_when = |is_there: &dyn Fn(usize, u32) -> bool| {
            let cells = build_zones(Some(kind), (zones, endpoints, false), is_there);
            key_owners(&build_pool_view(
                consistent_hash_balance(kind, None),
                vec![single_tier(cells)],
            ))
        };
        let before = owners_when(&|_, _| true);
        let row = |change: &str, is_gone: &dyn Fn(usize, u32) -> bool, after: &[u32]| {
            let is_affected = |slot: u32| is_gone((slot as usize - 1) / 834, (slot - 1) % 834);
            let moved = before.iter().zip(after).filter(|(before, after)| before != after);
            let (own, others): (Vec<u32>, Vec<u32>) =
                moved.map(|(slot, _)| *slot).partition(|&slot| is_affected(slot));
            let back =
                owners_when(&|_, _| true).iter().zip(&before).filter(|(a, b)| a == b).count();
            let gone = after.iter().filter(|&&slot| is_affected(slot)).count();
            println!(
                "{name:<10} {change:<24} {:>8} {:>8} {back:>8} {gone:>8}",
                own.len(),
                others.len()
            );
        };
        for (change, is_gone) in [
            ("one endpoint", (|zone, n| (zone, n) == (3, 7)) as fn(usize, u32) -> bool),
            ("a hundred endpoints", |zone, n| zone == 3 && n < 100),
            ("one zone", |zone, _| zone == 3),
        ] {
            row(change, &is_gone, &owners_when(&|zone, n| !is_gone(zone, n)));
        }
        // The same pool without the last endpoint of the last zone.
        let mut remaining_zones = build_zones(Some(kind), (zones, endpoints, false), |_, _| true);
        let last_zone = remaining_zones.pop().expect("a zone");
        let targets: Arc<[Target]> = last_zone.targets().take(833).cloned().collect();
        let locality = Locality::parse("r/z11").expect("a place");
        let hash_table = ZoneHashTable::build_or_reuse(kind, &locality, &targets, None);
        let active: Vec<(u32, u32)> = (0..833).map(|n| (n, WEIGHT_ONE)).collect();
        remaining_zones.extend(ZoneTargets::with_hash_table(
            &targets,
            hash_table.as_ref(),
            &active,
        ));
        let after = key_owners_of_zones(kind, remaining_zones);
        row("one, from the file", &|zone, n| (zone, n) == (11, 833), &after);
    }
}

fn single_tier(cells: Vec<ZoneTargets>) -> Tier {
    let weighted_zones = cells.into_iter().map(|cell| {
        let weight = cell.weight();
        (cell, weight)
    });
    Tier::new(FULL_SHARE, weighted_zones.collect())
}

fn key_owners_of_zones(kind: HashTableKind, cells: Vec<ZoneTargets>) -> Vec<u32> {
    key_owners(&build_pool_view(consistent_hash_balance(kind, None), vec![single_tier(cells)]))
}

fn key_owners(pool: &PoolView) -> Vec<u32> {
    let mut rng = Rng::with_seed(1);
    let pick = |n: u64| {
        let key = Some(xxh64(&n.to_le_bytes()));
        let pick_request =
            PickRequest { hash_key: key, ..PickRequest::from(RetrySafety::Repeatable) };
        pool.pick(&mut rng, pick_request).map_or(0, |target| target.id.slot)
    };
    (0..KEY_COUNT).map(pick).collect()
}

criterion_group!(benches, bench_routes, bench_picks, bench_balance_policies, report_moved_keys);
criterion_main!(benches);
