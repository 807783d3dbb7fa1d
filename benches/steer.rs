//! The pure part of the request path: route and pick, in nanoseconds.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use gapless::logic::id::EndpointId;
use gapless::logic::route::{
    Action, Ask, HostMatch, PathMatch, PathRules, Pattern, RouteSpec, RouteTable, Test, normalise,
};
use gapless::logic::snapshot::{Avoid, PoolView, Sending, Target, Tier};
use gapless::logic::steer::WHOLE;
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

fn pool(tiers: usize, endpoints_per_tier: u32, weighted: bool) -> PoolView {
    let mut id = 0;
    let tiers = (0..tiers).map(|zone| {
        let targets = (0..endpoints_per_tier).map(|n| {
            id += 1;
            Target {
                id: EndpointId::new(id, 0),
                address: SocketAddr::from(([10, 0, (id >> 8) as u8, id as u8], 9000)),
                zone,
                weight: if weighted { 1 + n % 4 } else { 1 },
                live: Arc::default(),
            }
        });
        Tier::of(if zone == 0 { WHOLE } else { 0 }, targets.collect())
    });
    PoolView {
        spec: Arc::new(PoolSpec::new("web", Vec::new())),
        tiers: tiers.collect(),
        proven: None,
        trials: Vec::new(),
        is_drained: false,
        panic: false,
        members: Arc::default(),
        live: Arc::default(),
    }
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

criterion_group!(benches, routes, picks);
criterion_main!(benches);
