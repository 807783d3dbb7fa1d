//! The pure part of the request path: route and pick, in nanoseconds.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use gapless::logic::id::EndpointId;
use gapless::logic::route::{RetrySpec, RouteSpec, RouteTable, Timeouts};
use gapless::logic::snapshot::{Avoid, PoolView, Sending, Target, Tier};
use gapless::logic::steer::WHOLE;
use gapless::logic::topology::PoolSpec;

fn table(hosts: usize) -> RouteTable {
    let specs: Vec<RouteSpec> = (0..hosts)
        .flat_map(|host| ["/", "/v1/", "/v1/users"].map(|path| (host, path)))
        .map(|(host, path)| RouteSpec {
            name: format!("{host}{path}").into(),
            host: Some(format!("service-{host}.example.com")),
            path: path.to_owned(),
            pool: "web".into(),
            retry: RetrySpec::default(),
            timeouts: Timeouts::default(),
            body_bytes: None,
            rate: None,
            websocket: true,
        })
        .collect();
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
        panic: false,
        members: Arc::default(),
        live: Arc::default(),
    }
}

fn routes(criterion: &mut Criterion) {
    for hosts in [10, 3_000] {
        let table = table(hosts);
        let host = format!("service-{}.example.com", hosts / 2);
        criterion.bench_function(&format!("route/{}", hosts * 3), |bench| {
            bench.iter(|| table.find(black_box(&host), black_box("/v1/users/42")).is_some());
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
