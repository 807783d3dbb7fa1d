//! Where traffic goes: policies, roles, capacity.

use super::*;
use crate::logic::model::topology::RecoverySpec;
use crate::logic::steering::{CapacityLimits, Overprovisioning, SteeringPolicy, ZoneRole};

/// The share of each zone, in the order of the pool, in tenths of a per cent.
fn shares(rig: &Rig) -> Vec<u32> {
    let share = |zone: &ZoneStatus| (zone.share * 1_000.0).round() as u32;
    rig.director.zones(rig.now).iter().map(share).collect()
}

fn rig(
    policy: SteeringPolicy,
    change: impl FnOnce(&mut PoolSpec),
    zones: &[(&str, &[u16])],
) -> Rig {
    let mut spec = pool(zones);
    spec.steer.policy = policy;
    spec.recovery.ramp = Duration::ZERO;
    change(&mut spec);
    Rig::with_pool(spec)
}

/// Requests to a zone for some seconds, this many in each: all but one are answered.
fn apply_load(rig: &mut Rig, seconds: u64, rates: &[(u16, u32)]) {
    for _ in 0..seconds * 4 {
        for &(port, rate) in rates {
            let stats = rig.stats(port);
            (0..rate / 4).for_each(|_| stats.record_success());
        }
        rig.run_for(ms(250), |_| PASS);
    }
}

/// Probes of one region are answered after this many milliseconds, those of the others at once.
fn slow_from_port(port_from: u16, ms_: u64) -> impl Fn(u16) -> ProbeOutcome {
    move |port| {
        let ms_ = if port >= port_from { ms_ } else { 1 };
        ProbeOutcome::Pass { latency: ms(ms_) }
    }
}

#[test]
fn fastest_region_is_preferred_until_it_slows_down() {
    let mut rig = rig(SteeringPolicy::Latency, |_| {}, &[("a/1", &[5, 6]), ("b/1", &[1, 2])]);
    rig.run_for(ms(10_000), slow_from_port(5, 40));
    assert_eq!(shares(&rig), [0, 1_000], "what is listed first is far away");
    let names = rig.director.pools()[0].regions.clone();
    assert_eq!(names[0].0, "b");
    let answers =
        |rig: &Rig, ms_: u64| (0..50).for_each(|_| rig.stats(1).record_latency(ms_ * 1_000, 1));
    for _ in 0..10 {
        answers(&rig, 2);
        rig.run_for(ms(1_000), slow_from_port(5, 40));
    }
    // Requests to it are answered late now, as its probes are not.
    for second in 0..60 {
        answers(&rig, 120);
        rig.run_for(ms(1_000), slow_from_port(5, 40));
        if shares(&rig) == [1_000, 0] {
            assert!(second > 3, "not by the first sample");
            return;
        }
    }
    panic!("{:?}", rig.director.pools()[0].regions);
}

const THREE: [(&str, &[u16]); 3] = [("a/1", &[1, 2]), ("a/2", &[3, 4]), ("b/1", &[5, 6])];

#[test]
fn weighted_zones_keep_shares_while_healthy_enough() {
    let weigh = |spec: &mut PoolSpec| {
        [6, 3, 1]
            .iter()
            .zip(&mut spec.zones)
            .for_each(|(&weight, zone)| zone.settings.weight = weight);
    };
    let four: [(&str, &[u16]); 3] = [("a/1", &[1, 2, 3, 4]), ("a/2", &[5, 6]), ("b/1", &[7, 8])];
    let mut rig = rig(SteeringPolicy::Weighted, weigh, &four);
    assert_eq!(shares(&rig), [600, 300, 100]);
    rig.take_down(&[1]);
    assert_eq!(shares(&rig), [600, 300, 100], "three of four carry 1.05 of it");
    rig.take_down(&[2]);
    // 0.7 of its weight of 6.
    assert_eq!(shares(&rig), [512, 366, 122]);
    rig.take_down(&[3, 4]);
    assert_eq!(shares(&rig), [0, 750, 250]);
}

#[test]
fn spread_follows_endpoint_count_and_failover_the_order() {
    let mut spread = rig(SteeringPolicy::Spread, |_| {}, &[("a/1", &[1]), ("a/2", &[2, 3, 4])]);
    assert_eq!(shares(&spread), [250, 750]);
    spread.take_down(&[4]);
    assert_eq!(shares(&spread), [333, 667]);
    let roles = |spec: &mut PoolSpec| {
        spec.zones[0].settings.role = ZoneRole::Standby;
        spec.zones[1].settings.role = ZoneRole::Active;
        spec.zones[2].settings.role = ZoneRole::Active;
    };
    let mut failover = rig(SteeringPolicy::Failover, roles, &THREE);
    assert_eq!(shares(&failover), [0, 500, 500]);
    failover.take_down(&[3, 4]);
    assert_eq!(shares(&failover), [300, 0, 700], "half of what is active, 1.4 times");
    failover.take_down(&[5, 6]);
    assert_eq!(shares(&failover), [1_000, 0, 0]);
}

#[test]
fn high_overprovisioning_spills_only_down_capacity() {
    let strict = |spec: &mut PoolSpec| {
        spec.steer.overprovisioning = Overprovisioning::new(10_000).expect("in bounds");
    };
    let mut rig = rig(SteeringPolicy::Failover, strict, &THREE);
    rig.take_down(&[1]);
    assert_eq!(shares(&rig), [1_000, 0, 0]);
    rig.take_down(&[2]);
    assert_eq!(shares(&rig), [0, 1_000, 0]);
}

#[test]
fn zone_below_min_capacity_serves_only_as_last_resort() {
    let pilot = |spec: &mut PoolSpec| spec.zones[1].settings.min_capacity = 2;
    let mut rig = rig(SteeringPolicy::Nearest, pilot, &THREE);
    rig.take_down(&[3]);
    rig.take_down(&[1, 2]);
    assert_eq!(shares(&rig), [0, 0, 1_000], "one of two is too few");
    rig.take_down(&[5, 6]);
    assert_eq!(shares(&rig), [0, 1_000, 0], "but better than none");
    rig.run_for(ms(5_000), |port| if port == 3 { PASS } else { REFUSED });
    assert!(!rig.view().is_panicking);
    rig.run_for(ms(5_000), |port| if port > 2 { PASS } else { REFUSED });
    assert_eq!(shares(&rig), [0, 1_000, 0], "it has grown");
}

#[test]
fn traffic_over_zone_capacity_spills_to_next() {
    let stated = |spec: &mut PoolSpec| {
        spec.zones[0].settings.capacity = CapacityLimits { rate_rps: Some(300), requests: None };
        spec.steer.region_capacities =
            vec![("a".into(), CapacityLimits { rate_rps: Some(700), requests: None })];
    };
    let mut rig = rig(SteeringPolicy::Nearest, stated, &THREE);
    apply_load(&mut rig, 5, &[(1, 200)]);
    assert_eq!(shares(&rig), [1_000, 0, 0], "there is room");
    apply_load(&mut rig, 10, &[(1, 1_000)]);
    let assert_close = |shares: Vec<u32>, to: [u32; 3]| {
        let is_close = shares.iter().zip(&to).all(|(share, to)| share.abs_diff(*to) <= 10);
        assert!(is_close, "{shares:?} and not {to:?}");
    };
    assert_close(shares(&rig), [300, 400, 300]);
    rig.take_down(&[1]);
    assert_close(shares(&rig), [150, 375, 475]);
    apply_load(&mut rig, 10, &[(2, 200)]);
    assert_eq!(shares(&rig), [1_000, 0, 0], "all are back, and there is room again");
}

#[test]
fn in_flight_limit_of_endpoints_bounds_their_zone() {
    let stated = |spec: &mut PoolSpec| {
        spec.steer.endpoint_capacity = CapacityLimits { rate_rps: None, requests: Some(5) };
    };
    let mut rig = rig(SteeringPolicy::Nearest, stated, &THREE);
    (0..20).for_each(|_| rig.stats(1).request_started(1));
    apply_load(&mut rig, 10, &[(1, 100)]);
    // 20 in flight, of which two endpoints of each zone take 10.
    assert_eq!(shares(&rig), [500, 500, 0]);
}

#[test]
fn pool_in_panic_is_not_republished_for_capacity_changes() {
    let stated = |spec: &mut PoolSpec| {
        spec.steer.endpoint_capacity = CapacityLimits { rate_rps: Some(100), requests: None };
    };
    let mut rig = rig(SteeringPolicy::Nearest, stated, &[("a/1", &[1, 2])]);
    apply_load(&mut rig, 5, &[(1, 400)]);
    rig.take_down(&[1, 2]);
    assert!(rig.view().is_panicking);
    // Until no more probes are requested.
    let mut publications = 0;
    for _ in 0..40 {
        (0..100).for_each(|_| rig.stats(1).record_success());
        rig.run_for(ms(250), |_| REFUSED);
        publications += rig.published_snapshots().len();
    }
    assert!(publications <= 2, "{publications}");
}

#[test]
fn recovered_endpoint_gets_next_retryable_request() {
    let grows = |spec: &mut PoolSpec| spec.recovery = RecoverySpec::default();
    let mut rig = rig(SteeringPolicy::Failover, grows, &[("r/a", &[1, 2, 3]), ("s/a", &[4, 5])]);
    let returns = |rig: &mut Rig, port| {
        rig.take_down(&[port]);
        for _ in 0..2 {
            rig.now += ms(100);
            let pass = rig.probe_result(rig.id(port), PASS);
            rig.turn([pass]);
        }
        assert!(!rig.down_ports().contains(&port));
    };
    let first = |rig: &Rig| {
        let now_us = rig.now.saturating_duration_since(rig.director.epoch).as_micros() as u64;
        rig.view().take_due_trial(now_us).map(|target| target.address.port())
    };
    returns(&mut rig, 4);
    assert_eq!(first(&rig), None, "its zone gets nothing");
    rig.run_for(ms(11_000), |_| PASS);
    returns(&mut rig, 2);
    assert_eq!(first(&rig), Some(2));
    assert_eq!(first(&rig), None, "one is enough");
    // Beyond what would count as one failure of the zone.
    rig.run_for(ms(3_000), |_| PASS);
    assert!(rig.view().trial_targets.is_empty(), "no trial is wanted any more");
    returns(&mut rig, 1);
    rig.take_down(&[1]);
    assert_eq!(first(&rig), None, "it is gone again");
}
