//! Verdicts by results of requests.

use super::*;
use crate::logic::model::pick_request::RetrySafety;
use fastrand::Rng;

const ERROR: Failure = Failure::http(FailureReason::Status(500));

fn two_zones() -> Rig {
    Rig::new(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])])
}

/// The endpoints that requests go to that must not run twice.
fn ports_for_non_retryable(rig: &Rig) -> Vec<u16> {
    let (view, mut rng) = (rig.view(), Rng::with_seed(3));
    let mut ports: Vec<u16> = (0..500)
        .filter_map(|_| view.pick(&mut rng, RetrySafety::NotRepeatable { waiting_before_us: 0 }))
        .map(|target| target.address.port())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Takes every trial that is due and ends it well or badly.
fn run_trials(rig: &mut Rig, time: Duration, good: bool) {
    for _ in 0..time.as_millis() / 10 {
        rig.run_for(ms(10), |_| PASS);
        let now_us = rig.now.saturating_duration_since(rig.director.epoch).as_micros() as u64;
        let port = rig.view().take_due_trial(now_us).map(|target| target.address.port());
        if let Some(port) = port {
            rig.complete_requests(port, u32::from(good), u32::from(!good), ERROR);
        }
    }
}

#[test]
fn single_error_removes_only_non_retryable_requests() {
    let mut rig = two_zones();
    rig.complete_requests(1, 1_000, 0, ERROR);
    rig.complete_requests(1, 0, 1, ERROR);
    assert_eq!(serving_ports(&rig.published_snapshots()[0]), [1, 2, 3, 4, 5, 6]);
    assert_eq!(ports_for_non_retryable(&rig), [2, 3]);
    assert!(matches!(rig.status(1).health, Health::Suspect { .. }));
    rig.run_for(ms(1_000), |_| PASS);
    assert_eq!(ports_for_non_retryable(&rig), [2, 3], "a passing probe ends no doubt");
    rig.complete_requests(1, 50, 0, ERROR);
    rig.run_for(ms(100), |_| PASS);
    assert_eq!(ports_for_non_retryable(&rig), [1, 2, 3], "good answers do");
}

#[test]
fn endpoint_failing_30_percent_is_ejected_in_few_requests() {
    let mut rig = two_zones();
    let mut rng = Rng::with_seed(11);
    for port in 1..=3 {
        rig.complete_requests(port, 1_000, 0, ERROR);
    }
    let mut requests = 0;
    while rig.down_ports().is_empty() {
        requests += 1;
        rig.now += ms(15);
        let bad = u32::from(rng.f64() < 0.3);
        rig.complete_requests(1, 1 - bad, bad, ERROR);
        rig.complete_requests(2, 1, 0, ERROR);
        rig.complete_requests(3, 1, 0, ERROR);
        assert!(requests < 60);
    }
    assert_eq!(rig.down_ports(), [1]);
}

#[test]
fn zone_with_spread_failures_goes_down_before_endpoints() {
    let mut rig = two_zones();
    for (round, port) in [1, 2, 3, 1, 2, 3].into_iter().enumerate() {
        assert!(rig.down_ports().is_empty(), "{round}");
        rig.now += ms(10);
        rig.complete_requests(port, 0, 1, ERROR);
        if !rig.down_ports().is_empty() {
            break;
        }
    }
    assert_eq!(rig.down_ports(), [1, 2, 3]);
    let left: Vec<u16> = rig.view().targets().map(|target| target.address.port()).collect();
    assert_eq!(left, [4, 5, 6]);
    run_trials(&mut rig, ms(3_000), false);
    assert_eq!(rig.down_ports(), [1, 2, 3]);
    run_trials(&mut rig, ms(4_000), true);
    assert!(rig.down_ports().is_empty(), "trials bring the zone back: {:?}", rig.down_ports());
    assert!(!rig.director.pools[0].zones()[0].is_down());
}

#[test]
fn ejected_endpoint_returns_by_trials_not_by_probes() {
    let mut rig = two_zones();
    rig.complete_requests(1, 0, 4, ERROR);
    assert_eq!(rig.down_ports(), [1]);
    run_trials(&mut rig, ms(4_000), false);
    assert_eq!(rig.down_ports(), [1], "trials fail");
    run_trials(&mut rig, ms(2_000), true);
    assert!(rig.down_ports().is_empty());
}

#[test]
fn ejected_endpoint_without_trials_returns_after_timeout() {
    let mut rig = two_zones();
    rig.complete_requests(1, 0, 4, ERROR);
    rig.run_for(ms(4_000), |_| PASS);
    assert_eq!(rig.down_ports(), [1]);
    rig.run_for(ms(4_000), |_| PASS);
    assert!(rig.down_ports().is_empty());
}

#[test]
fn failure_seen_by_probes_is_decided_by_probes() {
    let mut rig = two_zones();
    rig.complete_requests(1, 0, 4, ERROR);
    let bad = ProbeOutcome::Fail(Failure::http(FailureReason::Status(503)));
    rig.run_for(ms(3_000), |port| if port == 1 { bad } else { PASS });
    assert_eq!(rig.down_ports(), [1]);
    rig.run_for(ms(1_500), |_| PASS);
    assert!(rig.down_ports().is_empty(), "no trials are scheduled");
}

#[test]
fn uniform_failures_eject_no_endpoint() {
    let mut rig = two_zones();
    let mut rng = Rng::with_seed(5);
    for _ in 0..2_000 {
        rig.now += ms(5);
        for port in 1..=6 {
            let bad = u32::from(rng.f64() < 0.3);
            rig.complete_requests(port, 1 - bad, bad, ERROR);
        }
    }
    assert!(rig.down_ports().len() <= 1, "{:?}", rig.down_ports());
}

#[test]
fn two_lost_syns_with_good_responses_are_no_verdict() {
    let mut rig = two_zones();
    let began = rig.now;
    rig.now += ms(1_000);
    rig.complete_requests(1, 1_000, 0, ERROR);
    let endpoint = rig.id(1);
    let failure = Failure::connect(FailureReason::Timeout);
    let lost = || Input::TrafficFailed { endpoint, failure, attempt_started: began };
    rig.turn([lost(), lost(), lost()]);
    assert!(rig.down_ports().is_empty());
    assert!(rig.has_started_probe(1), "but it is probed");
}

#[test]
fn endpoint_flapping_under_traffic_is_held_down() {
    let mut rig = two_zones();
    let mut durations = Vec::new();
    for _ in 0..3 {
        rig.complete_requests(1, 0, 1, ERROR);
        rig.take_down(&[1]);
        let down_at = rig.now;
        while rig.down_ports() == [1] {
            rig.run_for(ms(10), |_| PASS);
        }
        durations.push(rig.now - down_at);
        rig.run_for(ms(100), |_| PASS);
    }
    assert!(durations[1] >= ms(1_000) && durations[2] > durations[1], "{durations:?}");
}

#[test]
fn repeated_failure_is_detected_as_fast_as_first() {
    let mut rig = two_zones();
    let mut needed = Vec::new();
    for _ in 0..6 {
        let mut bad = 0;
        while rig.down_ports() != [1] {
            bad += 1;
            assert!(bad < 100, "after {needed:?}");
            rig.complete_requests(1, 0, 1, ERROR);
            rig.run_for(ms(20), |_| PASS);
        }
        needed.push(bad);
        while rig.down_ports() == [1] {
            rig.run_for(ms(10), |_| PASS);
        }
        // Its share has grown back, and its baseline has recovered.
        for _ in 0..100 {
            (1..=6).for_each(|port| rig.complete_requests(port, 10, 0, ERROR));
            rig.run_for(ms(200), |_| PASS);
        }
    }
    assert_eq!(needed, [needed[0]; 6]);
}

#[test]
fn failures_of_one_endpoint_do_not_excuse_others() {
    let mut rig = two_zones();
    rig.complete_requests(1, 0, 4, ERROR);
    assert_eq!(rig.down_ports(), [1]);
    run_trials(&mut rig, ms(5_000), false);
    rig.complete_requests(4, 0, 4, ERROR);
    assert_eq!(rig.down_ports(), [1, 4]);
}
