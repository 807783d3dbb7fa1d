//! Verdicts by what requests got.

use super::*;
use crate::logic::snapshot::Sending;
use fastrand::Rng;

const ERROR: Failure = Failure::http(Reason::Status(500));

fn two_zones() -> Rig {
    Rig::new(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])])
}

/// Where requests go that must not run twice.
fn once(rig: &Rig) -> Vec<u16> {
    let (view, mut rng) = (rig.view(), Rng::with_seed(3));
    let mut seen: Vec<u16> = (0..500)
        .filter_map(|_| view.pick(&mut rng, Sending::Once { before_us: 0 }))
        .map(|target| target.address.port())
        .collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

/// Takes every trial that is due and ends it well or badly.
fn try_on(rig: &mut Rig, time: Duration, good: bool) {
    for _ in 0..time.as_millis() / 10 {
        rig.live_on(ms(10), |_| PASS);
        let now_us = rig.now.saturating_duration_since(rig.director.epoch).as_micros() as u64;
        let port = rig.view().trial(now_us).map(|target| target.address.port());
        if let Some(port) = port {
            rig.requests(port, u32::from(good), u32::from(!good), ERROR);
        }
    }
}

#[test]
fn one_error_takes_away_only_what_must_not_run_twice() {
    let mut rig = two_zones();
    rig.requests(1, 1_000, 0, ERROR);
    rig.requests(1, 0, 1, ERROR);
    assert_eq!(serving(&rig.published()[0]), [1, 2, 3, 4, 5, 6]);
    assert_eq!(once(&rig), [2, 3]);
    assert!(matches!(rig.status(1).health, Health::Suspect { .. }));
    rig.live_on(ms(1_000), |_| PASS);
    assert_eq!(once(&rig), [2, 3], "a passing probe does not absolve");
    rig.requests(1, 50, 0, ERROR);
    rig.live_on(ms(100), |_| PASS);
    assert_eq!(once(&rig), [1, 2, 3], "good answers do");
}

#[test]
fn a_dozen_requests_find_an_endpoint_that_fails_thirty_per_cent() {
    let mut rig = two_zones();
    let mut rng = Rng::with_seed(11);
    for port in 1..=3 {
        rig.requests(port, 1_000, 0, ERROR);
    }
    let mut took = 0;
    while rig.down().is_empty() {
        took += 1;
        rig.now += ms(15);
        let bad = u32::from(rng.f64() < 0.3);
        rig.requests(1, 1 - bad, bad, ERROR);
        rig.requests(2, 1, 0, ERROR);
        rig.requests(3, 1, 0, ERROR);
        assert!(took < 60);
    }
    assert_eq!(rig.down(), [1]);
}

#[test]
fn a_zone_whose_failures_are_spread_falls_sooner_than_its_endpoints() {
    let mut rig = two_zones();
    for (round, port) in [1, 2, 3, 1, 2, 3].into_iter().enumerate() {
        assert!(rig.down().is_empty(), "{round}");
        rig.now += ms(10);
        rig.requests(port, 0, 1, ERROR);
        if !rig.down().is_empty() {
            break;
        }
    }
    assert_eq!(rig.down(), [1, 2, 3]);
    let left: Vec<u16> = rig.view().targets().map(|target| target.address.port()).collect();
    assert_eq!(left, [4, 5, 6]);
    try_on(&mut rig, ms(3_000), false);
    assert_eq!(rig.down(), [1, 2, 3]);
    try_on(&mut rig, ms(4_000), true);
    assert!(rig.down().is_empty(), "trials bring the zone back: {:?}", rig.down());
    assert!(!rig.director.pools[0].zones[0].is_down());
}

#[test]
fn an_endpoint_condemned_by_traffic_returns_by_trials_and_not_by_probes() {
    let mut rig = two_zones();
    rig.requests(1, 0, 4, ERROR);
    assert_eq!(rig.down(), [1]);
    try_on(&mut rig, ms(4_000), false);
    assert_eq!(rig.down(), [1], "trials fail");
    try_on(&mut rig, ms(2_000), true);
    assert!(rig.down().is_empty());
}

#[test]
fn without_anything_to_try_it_gets_its_next_chance() {
    let mut rig = two_zones();
    rig.requests(1, 0, 4, ERROR);
    rig.live_on(ms(4_000), |_| PASS);
    assert_eq!(rig.down(), [1]);
    rig.live_on(ms(4_000), |_| PASS);
    assert!(rig.down().is_empty());
}

#[test]
fn what_the_probes_see_too_the_probes_judge() {
    let mut rig = two_zones();
    rig.requests(1, 0, 4, ERROR);
    let bad = Outcome::Fail(Failure::http(Reason::Status(503)));
    rig.live_on(ms(3_000), |port| if port == 1 { bad } else { PASS });
    assert_eq!(rig.down(), [1]);
    rig.live_on(ms(1_500), |_| PASS);
    assert!(rig.down().is_empty(), "no trials are asked for");
}

#[test]
fn when_all_fail_alike_nobody_is_down() {
    let mut rig = two_zones();
    let mut rng = Rng::with_seed(5);
    for _ in 0..2_000 {
        rig.now += ms(5);
        for port in 1..=6 {
            let bad = u32::from(rng.f64() < 0.3);
            rig.requests(port, 1 - bad, bad, ERROR);
        }
    }
    assert!(rig.down().len() <= 1, "{:?}", rig.down());
}

#[test]
fn two_lost_syns_of_an_endpoint_that_answers_are_no_verdict() {
    let mut rig = two_zones();
    let began = rig.now;
    rig.now += ms(1_000);
    rig.requests(1, 1_000, 0, ERROR);
    let endpoint = rig.id(1);
    let failure = Failure::connect(Reason::Timeout);
    let lost = || Input::Traffic { endpoint, failure, began };
    rig.turn([lost(), lost(), lost()]);
    assert!(rig.down().is_empty());
    assert!(rig.probed(1), "but it is looked at");
}

#[test]
fn what_flaps_under_traffic_is_held_down_too() {
    let mut rig = two_zones();
    let mut took = Vec::new();
    for _ in 0..3 {
        rig.requests(1, 0, 1, ERROR);
        rig.fell(&[1]);
        let fell = rig.now;
        while rig.down() == [1] {
            rig.live_on(ms(10), |_| PASS);
        }
        took.push(rig.now - fell);
        rig.live_on(ms(100), |_| PASS);
    }
    assert!(took[1] >= ms(1_000) && took[2] > took[1], "{took:?}");
}

#[test]
fn who_fails_again_is_found_as_fast_as_the_first_time() {
    let mut rig = two_zones();
    let mut needed = Vec::new();
    for _ in 0..6 {
        let mut bad = 0;
        while rig.down() != [1] {
            bad += 1;
            assert!(bad < 100, "after {needed:?}");
            rig.requests(1, 0, 1, ERROR);
            rig.live_on(ms(20), |_| PASS);
        }
        needed.push(bad);
        while rig.down() == [1] {
            rig.live_on(ms(10), |_| PASS);
        }
        // Its share has grown back, and so has everybody's trust.
        for _ in 0..100 {
            (1..=6).for_each(|port| rig.requests(port, 10, 0, ERROR));
            rig.live_on(ms(200), |_| PASS);
        }
    }
    assert_eq!(needed, [needed[0]; 6]);
}

#[test]
fn what_one_is_down_for_excuses_no_other() {
    let mut rig = two_zones();
    rig.requests(1, 0, 4, ERROR);
    assert_eq!(rig.down(), [1]);
    try_on(&mut rig, ms(5_000), false);
    rig.requests(4, 0, 4, ERROR);
    assert_eq!(rig.down(), [1, 4]);
}
