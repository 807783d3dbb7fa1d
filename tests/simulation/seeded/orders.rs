//! What operators order holds, whatever fails meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use gapless::logic::director::{Standing, Verb, What, Wish};
use gapless::logic::operator::Act;
use gapless::sim::predict::Fault;
use gapless::sim::world::World;

use super::for_all_seeds;
use super::scenario::{HEALTHY, Scenario};
use super::topologies::ms;

/// No endpoint that is drained is in a snapshot, and nobody is left out of one in vain.
fn check(world: &mut World) {
    let (snapshot, endpoints) = (world.snapshot().clone(), world.director().endpoints());
    for pool in &snapshot.pools {
        let targets: Vec<_> = pool.targets().chain(&pool.trials).map(|one| one.id).collect();
        let mut all_drained = true;
        for status in endpoints.iter().filter(|one| one.subject.pool == pool.spec.name) {
            let is_drained = status.standing == Standing::Drained;
            all_drained &= is_drained;
            let id = status.subject.endpoint;
            assert!(!is_drained || !targets.contains(&id), "{id} is drained, and gets requests");
        }
        assert_eq!(pool.is_drained, all_drained);
        assert_eq!(targets.is_empty(), all_drained, "the pool {} is empty", pool.spec.name);
    }
}

fn random(rng: &mut Rng, addresses: &[SocketAddr]) -> Wish {
    let what = match rng.u32(..6) {
        0 => What::parse("r"),
        1 => What::parse("r/a"),
        2 => What::parse("r/b"),
        _ => Some(What::Endpoint(addresses[rng.usize(..addresses.len())])),
    };
    let what = what.expect("something");
    let some = |rng: &mut Rng| ms(rng.u64(..2_000));
    let verb = match rng.u32(..5) {
        0 | 1 => Verb::Restore,
        2 if matches!(what, What::Endpoint(_)) => Verb::Give(Act::Weight(rng.u32(1..10))),
        _ => Verb::Give(Act::Drain { over: some(rng), deadline: some(rng) }),
    };
    Wish { what, pool: None, verb, until: None, note: None, is_forced: rng.u32(..4) == 0 }
}

#[test]
fn who_is_drained_gets_nothing_and_comes_back() {
    for_all_seeds(|seed| {
        let mut rng = Rng::with_seed(seed ^ 0x0d3);
        let mut scenario = Scenario::steady(seed);
        let world = &mut scenario.world;
        let addresses: Vec<SocketAddr> =
            world.director().endpoints().iter().map(|one| one.subject.address).collect();
        for _ in 0..20 {
            if rng.bool() {
                let mut wish = random(&mut rng, &addresses);
                wish.until = rng.bool().then(|| world.now() + ms(rng.u64(1..3_000)));
                // It may be refused.
                let _ = world.operate(wish);
            } else {
                let behavior = if rng.bool() { Fault::Refused.behavior() } else { HEALTHY };
                let address = addresses[rng.usize(..addresses.len())];
                world.schedule(world.now(), address, behavior);
            }
            let until = world.now() + ms(rng.u64(1..700));
            let mut checked = 0;
            while world.turn(until) {
                if world.snapshot().version > checked {
                    checked = world.snapshot().version;
                    check(world);
                }
            }
        }
        assert_eq!(world.counts().repeated_post, 0, "a POST went on after it was received");
        for address in &addresses {
            world.schedule(world.now(), *address, HEALTHY);
        }
        let given: Vec<u64> = world.director().orders().iter().map(|order| order.id).collect();
        let now = world.now();
        for id in given {
            world.director().lift(id, now).expect("an operator's");
        }
        world.end_offers();
        world.run_until(now + Duration::from_secs(60));
        let all = world.director().endpoints();
        assert!(all.iter().all(|one| one.standing == Standing::Clear), "{all:?}");
    });
}
