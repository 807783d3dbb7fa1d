//! Behaviour that users of other balancers reported or requested.

use super::*;
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::model::topology::{DetectionSpec, EvictionSpec, RecoverySpec};

const ERROR: Failure = Failure::http(FailureReason::Status(500));
const BAD: ProbeOutcome = ProbeOutcome::Fail(Failure::http(FailureReason::Status(503)));
const SILENT: ProbeOutcome = ProbeOutcome::Fail(Failure::http(FailureReason::Timeout));

fn probe_starts(rig: &Rig, port: u16) -> usize {
    let id = rig.id(port);
    let of =
        |output: &&Output| matches!(output, Output::StartProbe { endpoint, .. } if *endpoint == id);
    rig.outputs.iter().filter(of).count()
}

#[test]
fn traefik_12390_single_failed_probe_is_no_verdict() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let bad = rig.probe_result(rig.id(1), BAD);
    rig.turn([bad]);
    assert!(rig.down_ports().is_empty());
    rig.run_for(ms(2_000), |_| PASS);
    assert!(rig.down_ports().is_empty());
}

#[test]
fn traefik_9748_hanging_endpoint_does_not_delay_other_probes() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3])]);
    let mut probes = 0;
    for _ in 0..500 {
        rig.now += ms(10);
        rig.turn([]);
        let answered: Vec<Input> = rig
            .outputs
            .iter()
            .filter_map(|output| match output {
                // What hangs is never answered here at all.
                Output::StartProbe { endpoint, ticket, address, .. } if address.port() != 1 => {
                    Some(Input::ProbeFinished {
                        endpoint: *endpoint,
                        ticket: *ticket,
                        outcome: PASS,
                    })
                }
                _ => None,
            })
            .collect();
        probes += probe_starts(&rig, 2);
        rig.turn(answered);
    }
    assert!((5..=6).contains(&probes), "{probes} in five seconds");
    let achieved = rig.director.pools()[0].achieved_period.expect("measured");
    assert!(achieved <= ms(1_010), "{achieved:?}");
}

#[test]
fn caddy_7625_strikes_are_consecutive_and_survive_reload() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    for _ in 0..5 {
        rig.now += ms(10);
        let bad = rig.probe_result(rig.id(1), BAD);
        rig.turn([bad]);
        rig.now += ms(10);
        let pass = rig.probe_result(rig.id(1), PASS);
        rig.turn([pass]);
    }
    assert!(rig.down_ports().is_empty(), "one opposite result resets the row");
    rig.take_down(&[1]);
    rig.configure(pool(&[("r/a", &[2, 1])]));
    assert_eq!(rig.down_ports(), [1]);
}

#[test]
fn haproxy_2085_reload_keeps_down_endpoints_down() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    rig.take_down(&[1, 2]);
    for _ in 0..3 {
        rig.configure(pool(&[("r/b", &[3]), ("r/a", &[2, 1])]));
    }
    assert_eq!(serving_ports(&rig.published_snapshots()[0]), [3]);
}

#[test]
fn envoy_8295_probe_interval_holds_before_first_request() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let mut probes = 0;
    for _ in 0..300 {
        rig.run_for(ms(10), |_| PASS);
        probes += probe_starts(&rig, 1);
    }
    assert!(probes >= 3, "without any traffic the interval is the interval");
}

#[test]
fn envoy_32442_probe_pass_does_not_uneject_endpoint() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    rig.complete_requests(1, 0, 4, ERROR);
    assert_eq!(rig.down_ports(), [1]);
    let is_traffic_divergence =
        |event: &Event| matches!(event, Event::Divergence(Divergence::TrafficFails { .. }));
    assert!(rig.events().iter().any(is_traffic_divergence), "and the divergence is reported");
    rig.run_for(ms(3_000), |_| PASS);
    assert_eq!(rig.down_ports(), [1]);
}

#[test]
fn dataset_viewer_3422_busy_endpoint_stays_up() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3])]);
    // Under load every probe times out while requests are answered.
    for _ in 0..300 {
        let started = rig.now;
        rig.now += ms(500);
        for port in 1..=3 {
            rig.complete_requests(port, 5, 0, ERROR);
            let ticket = ProbeTicket { probe: 0, trigger: ProbeTrigger::Regular, started };
            let endpoint = rig.id(port);
            rig.turn([Input::ProbeFinished { endpoint, ticket, outcome: SILENT }]);
        }
    }
    assert!(rig.down_ports().is_empty());
}

#[test]
fn k3s_10240_evictions_stop_at_the_budget_limit() {
    let evict = EvictionSpec { max_down_percent: 34, ..EvictionSpec::default() };
    let spec = pool(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])]);
    let mut rig = Rig::with_pool(PoolSpec { eviction: evict, ..spec });
    for port in 1..=6 {
        rig.take_down(&[port]);
    }
    assert_eq!(rig.down_ports(), [1, 2], "a third of six");
    assert_eq!(serving_ports(&rig_snapshot(&rig)), [3, 4, 5, 6], "the rest stays in service");
}

fn rig_snapshot(rig: &Rig) -> Snapshot {
    Snapshot { version: 0, routes: Arc::default(), pools: vec![rig.view()] }
}

#[test]
fn envoy_3263_eviction_caps_always_allow_one() {
    let spec = || pool(&[("r/a", &[1, 2, 3, 4]), ("r/b", &[5, 6, 7, 8])]);
    let take_all_down = |evict: EvictionSpec| {
        let mut rig = Rig::with_pool(PoolSpec { eviction: evict, ..spec() });
        (1..=8).for_each(|port| rig.take_down(&[port]));
        let withheld = rig.director.pools()[0].withheld;
        (rig.down_ports(), withheld > 0)
    };
    assert_eq!(
        take_all_down(EvictionSpec { max_down_endpoints: 3, ..EvictionSpec::default() }),
        (vec![1, 2, 3], true)
    );
    assert_eq!(
        take_all_down(EvictionSpec { max_down_percent: 25, ..EvictionSpec::default() }),
        (vec![1, 2], true)
    );
    assert_eq!(
        take_all_down(EvictionSpec { max_down_percent: 1, ..EvictionSpec::default() }),
        (vec![1], true)
    );
    assert_eq!(
        take_all_down(EvictionSpec { max_zone_down_percent: 50, ..EvictionSpec::default() }),
        (vec![1, 2, 5, 6], true)
    );
}

#[test]
fn frankendeploy_94_only_endpoint_is_never_removed() {
    let mut rig = Rig::new(&[("r/a", &[1])]);
    rig.run_for(ms(5_000), |_| SILENT);
    assert_eq!(rig.view().targets().count(), 1);
}

#[test]
fn rubygems_1898_probe_failures_against_good_traffic_ignored() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])]);
    let mut events = Vec::new();
    for _ in 0..300 {
        for port in 1..=6 {
            rig.complete_requests(port, 1, 0, ERROR);
        }
        rig.run_for(ms(10), |_| BAD);
        events.extend(rig.events());
    }
    assert!(rig.down_ports().is_empty(), "{:?}", rig.down_ports());
    let has_begun = |event: &&Event| {
        matches!(event, Event::Divergence(Divergence::ProbesFail { is_active: true, .. }))
    };
    assert_eq!(events.iter().filter(has_begun).count(), 1, "said once");
    assert!(rig.director.pools()[0].is_diverging);
    rig.run_for(ms(3_000), |_| PASS);
    assert!(!rig.director.pools()[0].is_diverging);
}

#[test]
fn single_failing_probe_outweighs_successful_traffic() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3])]);
    for _ in 0..200 {
        (1..=3).for_each(|port| rig.complete_requests(port, 1, 0, ERROR));
        rig.run_for(ms(10), |port| if port == 1 { BAD } else { PASS });
    }
    assert_eq!(rig.down_ports(), [1]);
}

#[test]
fn consul_2890_flapping_endpoint_hold_down_grows() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let mut durations = Vec::new();
    for _ in 0..5 {
        rig.take_down(&[1]);
        let down_at = rig.now;
        while rig.down_ports() == [1] {
            rig.run_for(ms(10), |_| PASS);
        }
        durations.push(rig.now - down_at);
    }
    assert!(
        durations[0] < ms(1_500),
        "the first time it returns as soon as it passes: {durations:?}"
    );
    assert!(durations[4] >= ms(6_000), "{durations:?}");
    assert!(durations[1..].windows(2).all(|pair| pair[1] >= pair[0]), "{durations:?}");
}

#[test]
fn vllm_36960_traffic_failures_behind_passing_probes_reported() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    let mut events = Vec::new();
    for _ in 0..100 {
        rig.complete_requests(1, 0, 1, Failure::http(FailureReason::Slow));
        rig.complete_requests(2, 1, 0, ERROR);
        rig.run_for(ms(10), |_| PASS);
        events.extend(rig.events());
    }
    assert_eq!(rig.down_ports(), [1]);
}

#[test]
fn haproxy_899_uniformly_slow_endpoints_stay_up() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3])]);
    for _ in 0..500 {
        (1..=3)
            .for_each(|port| rig.complete_requests(port, 0, 1, Failure::http(FailureReason::Slow)));
        rig.run_for(ms(10), |_| PASS);
    }
    let serving_count = rig.view().targets().count();
    assert_eq!(serving_count, 3, "{:?}", rig.down_ports());
}

#[test]
fn envoy_10498_probes_are_spread_within_global_budget() {
    let ports: Vec<u16> = (1..=1_000).collect();
    let spec = Arc::new(pool(&[("r/a", &ports)]));
    let mut rig = Rig::unconfigured();
    let topology = Topology { local: None, pools: vec![spec], probes_per_second: 200 };
    rig.turn([Input::Configure { topology, routes: Arc::default() }]);
    let mut busiest = 0;
    let mut all = 0;
    for _ in 0..1_000 {
        rig.run_for(ms(10), |_| PASS);
        let started = rig.outputs.iter().filter(|o| matches!(o, Output::StartProbe { .. })).count();
        busiest = busiest.max(started);
        all += started;
    }
    assert!((1_900..=2_100).contains(&all), "{all} in ten seconds");
    assert!(busiest <= 12, "{busiest} in ten milliseconds");
    assert!((rig.director.stretch() - 5.0).abs() < 0.01, "the stretch is reported");
    let probed_count = rig.director.endpoints().iter().filter(|one| !one.probes.is_empty()).count();
    assert_eq!(probed_count, 1_000, "every endpoint has had a turn");
}

#[test]
fn envoy_9351_good_traffic_stretches_probes_within_target() {
    let count = |target: Option<Duration>, busy: bool| {
        let detect = DetectionSpec { target, ..DetectionSpec::default() };
        let mut rig = Rig::with_pool(PoolSpec { detect, ..pool(&[("r/a", &[1, 2])]) });
        rig.run_for(ms(2_000), |_| PASS);
        let mut probes = 0;
        for _ in 0..2_000 {
            if busy {
                rig.complete_requests(1, 1, 0, ERROR);
            }
            rig.run_for(ms(10), |_| PASS);
            probes += probe_starts(&rig, 1);
        }
        probes
    };
    let usual = count(None, true);
    assert!((20..=23).contains(&usual), "{usual} in twenty seconds");
    let stretched = count(Some(ms(5_000)), true);
    assert!((4..=7).contains(&stretched), "{stretched}: every four seconds");
    let idle = count(Some(ms(5_000)), false);
    assert!((20..=23).contains(&idle), "{idle}: no traffic confirms it");
}

#[test]
fn envoy_gateway_4990_panic_is_configurable_and_reported() {
    let spec = || pool(&[("r/a", &[1, 2, 3, 4])]);
    let mut rig = Rig::with_pool(spec());
    rig.take_down(&[1, 2, 3]);
    assert!(!rig.view().is_panicking, "none before nothing is left, unless it is asked for");
    let evict = EvictionSpec { panic_percent: 50, ..EvictionSpec::default() };
    let mut rig = Rig::with_pool(PoolSpec { eviction: evict, ..spec() });
    rig.take_down(&[1, 2]);
    assert!(!rig.view().is_panicking);
    rig.take_down(&[3]);
    assert!(rig.view().is_panicking && rig.panic_changes() == [true]);
}

#[test]
fn sozu_1204_panic_is_reported() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.take_down(&[1, 2]);
    assert_eq!(rig.panic_changes(), [true]);
    assert!(rig.director.pools()[0].is_in_panic);
}

#[test]
fn envoy_25283_recovered_zone_ramps_across_tiers() {
    let spec = pool(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])]);
    let mut rig = Rig::with_pool(PoolSpec { correlation: CorrelationSpec::default(), ..spec });
    rig.take_down(&[1, 2, 3]);
    rig.run_for(ms(2_500), |_| PASS);
    let view = rig.view();
    assert!(
        view.primary.tiers[0].share < view.primary.tiers[1].share,
        "the other zone still carries most"
    );
}

#[test]
fn envoy_13070_probe_is_edited_in_place() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let mut edited = pool(&[("r/a", &[1, 2])]);
    edited.detect.timeout = ms(200);
    rig.configure(edited);
    assert_eq!(serving_ports(&rig.published_snapshots()[0]), [1, 2]);
}

#[test]
fn freenet_3210_recovered_and_added_endpoints_ramp_up() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.take_down(&[1]);
    while rig.down_ports() == [1] {
        rig.run_for(ms(10), |_| PASS);
    }
    let share = |rig: &Rig, port| {
        let endpoint = rig.director.endpoints.get(rig.id(port)).expect("known");
        endpoint.ramp().ramp().share_permille(RecoverySpec::default().ramp, rig.now)
    };
    assert!(share(&rig, 1) < FULL_SHARE_PERMILLE / 5);
    rig.configure(pool(&[("r/a", &[1, 2, 3])]));
    rig.run_for(ms(100), |_| PASS);
    assert!(share(&rig, 3) < FULL_SHARE_PERMILLE / 5, "a new one too");
    rig.run_for(ms(11_000), |_| PASS);
    assert_eq!([1, 2, 3].map(|port| share(&rig, port)), [FULL_SHARE_PERMILLE; 3]);
}

#[test]
fn hyper_4186_down_verdict_aborts_connections() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.take_down(&[1]);
    let id = rig.id(1);
    let is_abort = |output: &Output| matches!(output, Output::AbortRequests { endpoint, .. } if *endpoint == id);
    assert!(rig.outputs.iter().any(is_abort));
}

#[test]
fn openshift_4767_impaired_prober_makes_no_verdicts() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.run_for(ms(5_000), |_| ProbeOutcome::Inconclusive);
    assert!(rig.director.is_probing_impaired());
    assert!(rig.down_ports().is_empty());
    rig.run_for(ms(2_000), |_| PASS);
    assert!(!rig.director.is_probing_impaired());
}
