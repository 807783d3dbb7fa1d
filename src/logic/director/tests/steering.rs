//! Where traffic goes: policies, roles, capacity.

use super::*;
use crate::logic::steer::{Capacity, Overprovisioning, Policy, Role};
use crate::logic::topology::Recover;

/// The share of each zone, in the order of the pool, in tenths of a per cent.
fn shares(rig: &Rig) -> Vec<u32> {
    let share = |zone: &ZoneStatus| (zone.share * 1_000.0).round() as u32;
    rig.director.zones(rig.now).iter().map(share).collect()
}

fn rig(policy: Policy, change: impl FnOnce(&mut PoolSpec), zones: &[(&str, &[u16])]) -> Rig {
    let mut spec = pool(zones);
    spec.steer.policy = policy;
    spec.recover.ramp = Duration::ZERO;
    change(&mut spec);
    Rig::with(spec)
}

/// Requests to a zone for some seconds, so many in each: all are answered, one goes on.
fn flow(rig: &mut Rig, seconds: u64, rates: &[(u16, u32)]) {
    for _ in 0..seconds * 4 {
        for &(port, rate) in rates {
            let live = rig.live(port);
            (0..rate / 4).for_each(|_| live.answered());
        }
        rig.live_on(ms(250), |_| PASS);
    }
}

/// Probes of one region are answered after so many milliseconds, those of the others at once.
fn slow(port_from: u16, ms_: u64) -> impl Fn(u16) -> Outcome {
    move |port| {
        let ms_ = if port >= port_from { ms_ } else { 1 };
        Outcome::Pass { latency: ms(ms_) }
    }
}

#[test]
fn the_region_that_answers_soonest_is_led_to_and_passed_when_it_becomes_slow() {
    let mut rig = rig(Policy::Latency, |_| {}, &[("a/1", &[5, 6]), ("b/1", &[1, 2])]);
    rig.live_on(ms(10_000), slow(5, 40));
    assert_eq!(shares(&rig), [0, 1_000], "what is listed first is far away");
    let names = rig.director.pools()[0].regions.clone();
    assert_eq!(names[0].0, "b");
    let answers = |rig: &Rig, ms_: u64| (0..50).for_each(|_| rig.live(1).took(ms_ * 1_000, 1));
    for _ in 0..10 {
        answers(&rig, 2);
        rig.live_on(ms(1_000), slow(5, 40));
    }
    // Requests to it are answered late now, as its probes are not.
    for second in 0..60 {
        answers(&rig, 120);
        rig.live_on(ms(1_000), slow(5, 40));
        if shares(&rig) == [1_000, 0] {
            assert!(second > 3, "not by the first word of it");
            return;
        }
    }
    panic!("{:?}", rig.director.pools()[0].regions);
}

const THREE: [(&str, &[u16]); 3] = [("a/1", &[1, 2]), ("a/2", &[3, 4]), ("b/1", &[5, 6])];

#[test]
fn weighted_zones_keep_their_shares_while_their_health_carries_them() {
    let weigh = |spec: &mut PoolSpec| {
        [6, 3, 1]
            .iter()
            .zip(&mut spec.zones)
            .for_each(|(&weight, zone)| zone.terms.weight = weight);
    };
    let four: [(&str, &[u16]); 3] = [("a/1", &[1, 2, 3, 4]), ("a/2", &[5, 6]), ("b/1", &[7, 8])];
    let mut rig = rig(Policy::Weighted, weigh, &four);
    assert_eq!(shares(&rig), [600, 300, 100]);
    rig.fell(&[1]);
    assert_eq!(shares(&rig), [600, 300, 100], "three of four carry 1.05 of it");
    rig.fell(&[2]);
    // 0.7 of its weight of 6.
    assert_eq!(shares(&rig), [512, 366, 122]);
    rig.fell(&[3, 4]);
    assert_eq!(shares(&rig), [0, 750, 250]);
}

#[test]
fn spread_counts_endpoints_and_failover_the_order() {
    let mut spread = rig(Policy::Spread, |_| {}, &[("a/1", &[1]), ("a/2", &[2, 3, 4])]);
    assert_eq!(shares(&spread), [250, 750]);
    spread.fell(&[4]);
    assert_eq!(shares(&spread), [333, 667]);
    let roles = |spec: &mut PoolSpec| {
        spec.zones[0].terms.role = Role::Standby;
        spec.zones[1].terms.role = Role::Active;
        spec.zones[2].terms.role = Role::Active;
    };
    let mut failover = rig(Policy::Failover, roles, &THREE);
    assert_eq!(shares(&failover), [0, 500, 500]);
    failover.fell(&[3, 4]);
    assert_eq!(shares(&failover), [300, 0, 700], "half of what is active, 1.4 times");
    failover.fell(&[5, 6]);
    assert_eq!(shares(&failover), [1_000, 0, 0]);
}

#[test]
fn a_factor_of_many_spills_only_what_is_down() {
    let strict = |spec: &mut PoolSpec| {
        spec.steer.overprovisioning = Overprovisioning::new(10_000).expect("in bounds");
    };
    let mut rig = rig(Policy::Failover, strict, &THREE);
    rig.fell(&[1]);
    assert_eq!(shares(&rig), [1_000, 0, 0]);
    rig.fell(&[2]);
    assert_eq!(shares(&rig), [0, 1_000, 0]);
}

#[test]
fn a_pilot_light_gets_nothing_before_it_has_grown_unless_nobody_else_serves() {
    let pilot = |spec: &mut PoolSpec| spec.zones[1].terms.min_capacity = 2;
    let mut rig = rig(Policy::Nearest, pilot, &THREE);
    rig.fell(&[3]);
    rig.fell(&[1, 2]);
    assert_eq!(shares(&rig), [0, 0, 1_000], "one of two is too little");
    rig.fell(&[5, 6]);
    assert_eq!(shares(&rig), [0, 1_000, 0], "but better than nobody");
    rig.live_on(ms(5_000), |port| if port == 3 { PASS } else { REFUSED });
    assert!(!rig.view().panic);
    rig.live_on(ms(5_000), |port| if port > 2 { PASS } else { REFUSED });
    assert_eq!(shares(&rig), [0, 1_000, 0], "it has grown");
}

#[test]
fn what_a_zone_cannot_take_goes_to_the_next() {
    let stated = |spec: &mut PoolSpec| {
        spec.zones[0].terms.capacity = Capacity { rate: Some(300), requests: None };
        spec.steer.regions = vec![("a".into(), Capacity { rate: Some(700), requests: None })];
    };
    let mut rig = rig(Policy::Nearest, stated, &THREE);
    flow(&mut rig, 5, &[(1, 200)]);
    assert_eq!(shares(&rig), [1_000, 0, 0], "there is room");
    flow(&mut rig, 10, &[(1, 1_000)]);
    let close = |shares: Vec<u32>, to: [u32; 3]| {
        let is_close = shares.iter().zip(&to).all(|(share, to)| share.abs_diff(*to) <= 10);
        assert!(is_close, "{shares:?} and not {to:?}");
    };
    close(shares(&rig), [300, 400, 300]);
    rig.fell(&[1]);
    close(shares(&rig), [150, 375, 475]);
    flow(&mut rig, 10, &[(2, 200)]);
    assert_eq!(shares(&rig), [1_000, 0, 0], "all are back, and there is room again");
}

#[test]
fn what_endpoints_can_take_in_flight_bounds_their_zone() {
    let stated = |spec: &mut PoolSpec| {
        spec.steer.endpoint = Capacity { rate: None, requests: Some(5) };
    };
    let mut rig = rig(Policy::Nearest, stated, &THREE);
    (0..20).for_each(|_| rig.live(1).enter(1));
    flow(&mut rig, 10, &[(1, 100)]);
    // 20 in flight, of which two endpoints of each zone take 10.
    assert_eq!(shares(&rig), [500, 500, 0]);
}

#[test]
fn a_pool_in_panic_is_not_published_again_and_again_for_what_it_could_take() {
    let stated = |spec: &mut PoolSpec| {
        spec.steer.endpoint = Capacity { rate: Some(100), requests: None };
    };
    let mut rig = rig(Policy::Nearest, stated, &[("a/1", &[1, 2])]);
    flow(&mut rig, 5, &[(1, 400)]);
    rig.fell(&[1, 2]);
    assert!(rig.view().panic);
    // Until nothing is asked for any more.
    let mut publications = 0;
    for _ in 0..40 {
        (0..100).for_each(|_| rig.live(1).answered());
        rig.live_on(ms(250), |_| REFUSED);
        publications += rig.published().len();
    }
    assert!(publications <= 2, "{publications}");
}

#[test]
fn who_is_back_gets_the_next_request_that_can_be_sent_again() {
    let grows = |spec: &mut PoolSpec| spec.recover = Recover::default();
    let mut rig = rig(Policy::Failover, grows, &[("r/a", &[1, 2, 3]), ("s/a", &[4, 5])]);
    let returns = |rig: &mut Rig, port| {
        rig.fell(&[port]);
        for _ in 0..2 {
            rig.now += ms(100);
            let pass = rig.regular(rig.id(port), PASS);
            rig.turn([pass]);
        }
        assert!(!rig.down().contains(&port));
    };
    let first = |rig: &Rig| {
        let now_us = rig.now.saturating_duration_since(rig.director.epoch).as_micros() as u64;
        rig.view().trial(now_us).map(|target| target.address.port())
    };
    returns(&mut rig, 4);
    assert_eq!(first(&rig), None, "its zone gets nothing");
    rig.live_on(ms(11_000), |_| PASS);
    returns(&mut rig, 2);
    assert_eq!(first(&rig), Some(2));
    assert_eq!(first(&rig), None, "one is enough");
    // Beyond what would count as one failure of the zone.
    rig.live_on(ms(3_000), |_| PASS);
    assert!(rig.view().trials.is_empty(), "nobody need be asked any more");
    returns(&mut rig, 1);
    rig.fell(&[1]);
    assert_eq!(first(&rig), None, "it is gone again");
}
