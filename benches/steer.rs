//! The pure part of the request path: route and pick, in nanoseconds.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use gapless::logic::balance::hash::xxh64;
use gapless::logic::balance::{Balance, HashKey, Keyed, Kind, Seating, Turns};
use gapless::logic::id::{EndpointId, Place};
use gapless::logic::route::{
    Action, Ask, HostMatch, PathMatch, PathRules, Pattern, RouteSpec, RouteTable, Test, normalise,
};
use gapless::logic::snapshot::{Avoid, Cell, Led, PoolView, Sending, Target, Tier, Wish};
use gapless::logic::steer::WHOLE;
use gapless::logic::tier::WEIGHT_ONE;
use gapless::logic::topology::PoolSpec;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// So many routes: most by prefix, some exact, some by a condition, a few by a pattern; one host in
/// ten is a wildcard.
fn table(routes: usize) -> RouteTable {
    let spec = |n: usize| {
        let service = n / 5;
        let name = format!("service-{service}.example.com");
        let host = if service % 10 == 9 { HostMatch::Under(name) } else { HostMatch::Exact(name) };
        let path = match n % 5 {
            0 => PathMatch::Prefix("/".to_owned()),
            1 => PathMatch::Prefix("/v1/".to_owned()),
            2 => PathMatch::Prefix("/v1/users".to_owned()),
            3 => PathMatch::Exact("/v1/users/me".to_owned()),
            _ if service % 20 == 2 => {
                PathMatch::Matches(Pattern::parse("/v[0-9]+/items/[0-9]+").expect("a pattern"))
            }
            _ => PathMatch::Prefix("/v1/users".to_owned()),
        };
        let mut spec = RouteSpec::new(n.to_string(), host, path, Action::pool("web"));
        if n % 5 == 4 {
            let test = Test::Is(b"canary"[..].into());
            spec.conditions.headers.push((HeaderName::from_static("x-env"), test));
        }
        spec
    };
    let specs: Vec<RouteSpec> = (0..routes).map(spec).collect();
    RouteTable::compile(&specs, ["web"].into_iter())
}

/// A pool whose zones are tiers of their own, of which the first has all of the traffic; or one tier.
fn pool(zones: usize, endpoints: u32, weighted: bool) -> PoolView {
    pool_of(Balance::LeastRequests, (zones, endpoints, weighted), false)
}

fn pool_of(
    balance: Balance,
    (zones, endpoints, weighted): (usize, u32, bool),
    is_one_tier: bool,
) -> PoolView {
    let cells = cells(balance_kind(&balance), (zones, endpoints, weighted), |_, _| true);
    let weighed = cells.into_iter().map(|cell| {
        let weight = cell.weight();
        (cell, weight)
    });
    let tiers = if is_one_tier {
        vec![Tier::new(WHOLE, weighed.collect())]
    } else {
        let share = |zone: usize| if zone == 0 { WHOLE } else { 0 };
        weighed.enumerate().map(|(zone, cell)| Tier::new(share(zone), vec![cell])).collect()
    };
    view(balance, tiers)
}

/// The zones' endpoints that are there.
fn cells(
    kind: Option<Kind>,
    (zones, endpoints, weighted): (usize, u32, bool),
    is_there: impl Fn(usize, u32) -> bool,
) -> Vec<Cell> {
    let zone = |zone: usize| {
        let target = |n: u32| {
            let id = zone as u32 * endpoints + n + 1;
            Target {
                id: EndpointId::new(id, 0),
                address: SocketAddr::from(([10, 0, (id >> 8) as u8, id as u8], 9000)),
                zone,
                weight: if weighted { 1 + n % 4 } else { 1 },
                live: Arc::default(),
                kin: Arc::default(),
            }
        };
        let targets: Arc<[Target]> = (0..endpoints).map(target).collect();
        let place = Place::parse(&format!("r/z{zone}")).expect("a place");
        let seating = kind.and_then(|kind| Seating::of(kind, &place, &targets, None));
        let there = (0..endpoints).filter(|&n| is_there(zone, n));
        let active: Vec<(u32, u32)> =
            there.map(|n| (n, targets[n as usize].weight * WEIGHT_ONE)).collect();
        Cell::seated(&targets, seating.as_ref(), &active)
    };
    (0..zones).filter_map(zone).collect()
}

fn view(balance: Balance, tiers: Vec<Tier>) -> PoolView {
    PoolView {
        spec: Arc::new(PoolSpec { balance, ..PoolSpec::new("web", Vec::new()) }),
        led: Led { tiers, proven: None },
        others: Vec::new(),
        trials: Vec::new(),
        is_drained: false,
        panic: false,
        members: Arc::default(),
        live: Arc::default(),
        pins: None,
    }
}

fn balance_kind(balance: &Balance) -> Option<Kind> {
    if let Balance::Keyed(keyed) = balance { Some(keyed.table) } else { None }
}

fn keyed(table: Kind, max_load_percent: Option<u32>) -> Balance {
    Balance::Keyed(Keyed { table, key: HashKey::Source, max_load_percent })
}

/// The same requests, whatever the number of routes.
fn routes(criterion: &mut Criterion) {
    let mut headers = HeaderMap::new();
    for (name, value) in [("accept", "*/*"), ("user-agent", "bench"), ("x-env", "live")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for count in [10, 1_000, 10_000] {
        let table = table(count);
        // All that there is in the smallest table: one service in the middle, and one unknown.
        let service = (count / 10).min(500) / 20 * 20;
        let known = format!("service-{service}.example.com");
        for (kind, host, path) in [
            ("prefix", known.as_str(), "/v1/users/42"),
            ("exact", known.as_str(), "/v1/users/me"),
            ("root", known.as_str(), "/elsewhere/x"),
            ("none", "www.nowhere.example", "/v1/users/42"),
        ] {
            let method = &Method::GET;
            let ask = Ask { host, path, method, headers: &headers, query: "", is_tls: false };
            criterion.bench_function(&format!("route/{kind}/{count}"), |bench| {
                bench.iter(|| table.find(black_box(&ask)).is_some());
            });
        }
        if count >= 100 {
            let method = &Method::GET;
            let (host, path) = ("service-22.example.com", "/v2/items/7");
            let ask = Ask { host, path, method, headers: &headers, query: "", is_tls: false };
            criterion.bench_function(&format!("route/pattern/{count}"), |bench| {
                bench.iter(|| table.find(black_box(&ask)).is_some());
            });
        }
    }
    let rules = PathRules::default();
    for (kind, path) in [("plain", "/v1/users/42/items"), ("dots", "/v1/x/../users/%34%32//items")]
    {
        criterion.bench_function(&format!("path/{kind}"), |bench| {
            bench.iter(|| normalise(black_box(path), &rules).map(|path| path.len()));
        });
    }
}

fn picks(criterion: &mut Criterion) {
    for (name, pool) in [
        ("pick/2x3", pool(2, 3, false)),
        ("pick/2x3-weighted", pool(2, 3, true)),
        ("pick/12x834", pool(12, 834, false)),
        ("pick/12x834-weighted", pool(12, 834, true)),
    ] {
        let mut rng = Rng::with_seed(1);
        criterion.bench_function(name, |bench| {
            bench.iter(|| {
                black_box(&pool).pick(&mut rng, Sending::Repeatable).map(|target| target.id)
            });
        });
    }
    let pool = pool(4, 3, false);
    let mut rng = Rng::with_seed(1);
    let mut avoid = Avoid::default();
    avoid.endpoints.push(EndpointId::new(1, 0));
    avoid.zones.push(0);
    criterion.bench_function("pick_other/4x3", |bench| {
        bench.iter(|| {
            black_box(&pool)
                .pick_other(&mut rng, black_box(&avoid), Sending::Repeatable)
                .map(|target| target.id)
        });
    });
}

/// Each method, at ten thousand endpoints in twelve zones that are one tier or twelve.
fn methods(criterion: &mut Criterion) {
    let methods = [
        ("least_requests", Balance::LeastRequests),
        ("peak_ewma", Balance::PeakEwma),
        ("round_robin", Balance::RoundRobin),
        ("random", Balance::Random),
        ("ring_hash", keyed(Kind::default(), None)),
        ("ring_hash-bounded", keyed(Kind::default(), Some(125))),
        ("maglev", keyed(Kind::Maglev, None)),
        ("maglev-bounded", keyed(Kind::Maglev, Some(125))),
    ];
    for (name, balance) in methods {
        for (kind, weighted, is_one_tier) in
            [("12x834", false, false), ("12x834-weighted", true, false), ("one-tier", false, true)]
        {
            let pool = pool_of(balance.clone(), (12, 834, weighted), is_one_tier);
            for target in pool.targets() {
                target.live.took(5_000, 1);
            }
            let (mut rng, turns) = (Rng::with_seed(1), Turns::default());
            let is_keyed = balance_kind(&balance).is_some();
            let mut key = 0_u64;
            criterion.bench_function(&format!("pick/{name}/{kind}"), |bench| {
                bench.iter(|| {
                    key = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
                    let (sending, key) = (Sending::Repeatable, is_keyed.then_some(key));
                    let wish = Wish { sending, way: 0, key, now_us: 1_000, turns: Some(&turns) };
                    black_box(&pool).pick(&mut rng, wish).map(|target| target.id)
                });
            });
        }
    }
    for (name, kind) in [("ring", Kind::default()), ("maglev", Kind::Maglev)] {
        criterion.bench_function(&format!("table/{name}/834"), |bench| {
            bench.iter(|| cells(Some(kind), (1, 834, false), |_, _| true).len());
        });
    }
    let pool = &pool(12, 834, false);
    let every: Vec<(u32, u32)> = (0..834).map(|n| (n, WEIGHT_ONE)).collect();
    let targets: Arc<[Target]> = pool.led.tiers[0].targets().cloned().collect();
    let place = Place::parse("r/z").expect("a place");
    let seating = Seating::of(Kind::Maglev, &place, &targets, None);
    for (name, seating) in [("keyless", None), ("keyed", seating.as_ref())] {
        criterion.bench_function(&format!("publish-zone/{name}/834"), |bench| {
            bench.iter(|| Cell::seated(&targets, seating, black_box(&every)).is_some());
        });
    }
}

/// So many keys are followed.
const KEYS: u64 = 100_000;

/// Prints how many keys move when an endpoint or a zone goes, and when it is back; and when one is not
/// declared any more.
fn keys_moved(_: &mut Criterion) {
    let (zones, endpoints) = (12, 834);
    println!("keys moved of {KEYS}, {zones} zones of {endpoints} endpoints in one tier");
    println!(
        "{:<10} {:<24} {:>8} {:>8} {:>8} {:>8}",
        "table", "who goes", "own", "others'", "back", "gone"
    );
    for (name, kind) in [("ring_hash", Kind::default()), ("maglev", Kind::Maglev)] {
        let owners = |is_there: &dyn Fn(usize, u32) -> bool| {
            let cells = cells(Some(kind), (zones, endpoints, false), is_there);
            owners(&view(keyed(kind, None), vec![one_tier(cells)]))
        };
        let before = owners(&|_, _| true);
        let row = |who: &str, is_gone: &dyn Fn(usize, u32) -> bool, after: &[u32]| {
            let its = |slot: u32| is_gone((slot as usize - 1) / 834, (slot - 1) % 834);
            let moved = before.iter().zip(after).filter(|(before, after)| before != after);
            let (own, others): (Vec<u32>, Vec<u32>) =
                moved.map(|(slot, _)| *slot).partition(|&slot| its(slot));
            let back = owners(&|_, _| true).iter().zip(&before).filter(|(a, b)| a == b).count();
            let gone = after.iter().filter(|&&slot| its(slot)).count();
            println!(
                "{name:<10} {who:<24} {:>8} {:>8} {back:>8} {gone:>8}",
                own.len(),
                others.len()
            );
        };
        for (who, is_gone) in [
            ("one endpoint", (|zone, n| (zone, n) == (3, 7)) as fn(usize, u32) -> bool),
            ("a hundred endpoints", |zone, n| zone == 3 && n < 100),
            ("one zone", |zone, _| zone == 3),
        ] {
            row(who, &is_gone, &owners(&|zone, n| !is_gone(zone, n)));
        }
        // Declared anew without the last endpoint of the last zone.
        let mut fewer = cells(Some(kind), (zones, endpoints, false), |_, _| true);
        let last = fewer.pop().expect("a zone");
        let targets: Arc<[Target]> = last.targets().take(833).cloned().collect();
        let place = Place::parse("r/z11").expect("a place");
        let seating = Seating::of(kind, &place, &targets, None);
        let active: Vec<(u32, u32)> = (0..833).map(|n| (n, WEIGHT_ONE)).collect();
        fewer.extend(Cell::seated(&targets, seating.as_ref(), &active));
        let after = owners_of(kind, fewer);
        row("one, from the file", &|zone, n| (zone, n) == (11, 833), &after);
    }
}

fn one_tier(cells: Vec<Cell>) -> Tier {
    let weighed = cells.into_iter().map(|cell| {
        let weight = cell.weight();
        (cell, weight)
    });
    Tier::new(WHOLE, weighed.collect())
}

fn owners_of(kind: Kind, cells: Vec<Cell>) -> Vec<u32> {
    owners(&view(keyed(kind, None), vec![one_tier(cells)]))
}

fn owners(pool: &PoolView) -> Vec<u32> {
    let mut rng = Rng::with_seed(1);
    let pick = |n: u64| {
        let key = Some(xxh64(&n.to_le_bytes()));
        let wish = Wish { key, ..Wish::from(Sending::Repeatable) };
        pool.pick(&mut rng, wish).map_or(0, |target| target.id.slot)
    };
    (0..KEYS).map(pick).collect()
}

criterion_group!(benches, routes, picks, methods, keys_moved);
criterion_main!(benches);
