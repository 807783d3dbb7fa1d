//! What users of other balancers asked for, each with the thread in which they did.

use super::*;
use crate::logic::recovery::FULL;
use crate::logic::topology::{Detect, Evict, Recover};

const ERROR: Failure = Failure::http(Reason::Status(500));
const BAD: Outcome = Outcome::Fail(Failure::http(Reason::Status(503)));
const SILENT: Outcome = Outcome::Fail(Failure::http(Reason::Timeout));

fn starts(rig: &Rig, port: u16) -> usize {
    let id = rig.id(port);
    let of = |output: &&Output| matches!(output, Output::Probe { endpoint, .. } if *endpoint == id);
    rig.said.iter().filter(of).count()
}

#[test]
fn traefik_12390_one_failed_probe_is_no_verdict() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let bad = rig.regular(rig.id(1), BAD);
    rig.turn([bad]);
    assert!(rig.down().is_empty());
    rig.live_on(ms(2_000), |_| PASS);
    assert!(rig.down().is_empty());
}

#[test]
fn traefik_9748_a_hanging_endpoint_delays_nobody_elses_probes() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3])]);
    let mut probes = 0;
    for _ in 0..500 {
        rig.now += ms(10);
        rig.turn([]);
        let answered: Vec<Input> = rig
            .said
            .iter()
            .filter_map(|output| match output {
                // What hangs is never answered here at all.
                Output::Probe { endpoint, ticket, address, .. } if address.port() != 1 => {
                    Some(Input::Probed { endpoint: *endpoint, ticket: *ticket, outcome: PASS })
                }
                _ => None,
            })
            .collect();
        probes += starts(&rig, 2);
        rig.turn(answered);
    }
    assert!((5..=6).contains(&probes), "{probes} in five seconds");
    let achieved = rig.director.pools()[0].achieved_period.expect("measured");
    assert!(achieved <= ms(1_010), "{achieved:?}");
}

#[test]
fn caddy_7625_rows_are_in_a_row_and_a_reload_makes_nobody_healthy() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    for _ in 0..5 {
        rig.now += ms(10);
        let bad = rig.regular(rig.id(1), BAD);
        rig.turn([bad]);
        rig.now += ms(10);
        let pass = rig.regular(rig.id(1), PASS);
        rig.turn([pass]);
    }
    assert!(rig.down().is_empty(), "one opposite result resets the row");
    rig.fell(&[1]);
    rig.configure(pool(&[("r/a", &[2, 1])]));
    assert_eq!(rig.down(), [1]);
}

#[test]
fn haproxy_2085_a_reload_does_not_mark_the_dead_up() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    rig.fell(&[1, 2]);
    for _ in 0..3 {
        rig.configure(pool(&[("r/b", &[3]), ("r/a", &[2, 1])]));
    }
    assert_eq!(serving(&rig.published()[0]), [3]);
}

#[test]
fn envoy_8295_no_interval_is_hidden_before_the_first_request() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let mut probes = 0;
    for _ in 0..300 {
        rig.live_on(ms(10), |_| PASS);
        probes += starts(&rig, 1);
    }
    assert!(probes >= 3, "without any traffic the interval is the interval");
}

#[test]
fn envoy_32442_a_passing_probe_does_not_absolve_what_traffic_condemned() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    rig.requests(1, 0, 4, ERROR);
    assert_eq!(rig.down(), [1]);
    let told = |event: &Event| matches!(event, Event::Divergence(Divergence::TrafficFails { .. }));
    assert!(rig.events().iter().any(told), "and it is said that probes pass");
    rig.live_on(ms(3_000), |_| PASS);
    assert_eq!(rig.down(), [1]);
}

#[test]
fn dataset_viewer_3422_busy_is_not_dead() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3])]);
    // Under load every probe times out while requests are answered.
    for _ in 0..300 {
        let started = rig.now;
        rig.now += ms(500);
        for port in 1..=3 {
            rig.requests(port, 5, 0, ERROR);
            let ticket = Ticket { probe: 0, row: ProbeRow::Regular, started };
            let endpoint = rig.id(port);
            rig.turn([Input::Probed { endpoint, ticket, outcome: SILENT }]);
        }
    }
    assert!(rig.down().is_empty());
}

#[test]
fn k3s_10240_evictions_stop_at_the_budget() {
    let evict = Evict { percent: 34, ..Evict::default() };
    let spec = pool(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])]);
    let mut rig = Rig::with(PoolSpec { evict, ..spec });
    for port in 1..=6 {
        rig.fell(&[port]);
    }
    assert_eq!(rig.down(), [1, 2], "a third of six");
    assert_eq!(serving(&rig_snapshot(&rig)), [3, 4, 5, 6], "the rest stays in service");
}

fn rig_snapshot(rig: &Rig) -> Snapshot {
    Snapshot { version: 0, routes: Arc::default(), pools: vec![rig.view()], drill: None }
}

#[test]
fn envoy_3263_caps_are_absolute_per_cent_and_per_zone_and_one_may_always_go() {
    let spec = || pool(&[("r/a", &[1, 2, 3, 4]), ("r/b", &[5, 6, 7, 8])]);
    let falls = |evict: Evict| {
        let mut rig = Rig::with(PoolSpec { evict, ..spec() });
        (1..=8).for_each(|port| rig.fell(&[port]));
        let withheld = rig.director.pools()[0].withheld;
        (rig.down(), withheld > 0)
    };
    assert_eq!(falls(Evict { endpoints: 3, ..Evict::default() }), (vec![1, 2, 3], true));
    assert_eq!(falls(Evict { percent: 25, ..Evict::default() }), (vec![1, 2], true));
    assert_eq!(falls(Evict { percent: 1, ..Evict::default() }), (vec![1], true));
    assert_eq!(falls(Evict { zone_percent: 50, ..Evict::default() }), (vec![1, 2, 5, 6], true));
}

#[test]
fn frankendeploy_94_the_only_endpoint_is_never_taken_away() {
    let mut rig = Rig::new(&[("r/a", &[1])]);
    rig.live_on(ms(5_000), |_| SILENT);
    assert_eq!(rig.view().targets().count(), 1);
}

#[test]
fn rubygems_1898_probes_that_fail_everywhere_while_traffic_succeeds_are_not_obeyed() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])]);
    let mut said = Vec::new();
    for _ in 0..300 {
        for port in 1..=6 {
            rig.requests(port, 1, 0, ERROR);
        }
        rig.live_on(ms(10), |_| BAD);
        said.extend(rig.events());
    }
    assert!(rig.down().is_empty(), "{:?}", rig.down());
    let began = |event: &&Event| {
        matches!(event, Event::Divergence(Divergence::ProbesFail { on: true, .. }))
    };
    assert_eq!(said.iter().filter(began).count(), 1, "said once");
    assert!(rig.director.pools()[0].diverges);
    rig.live_on(ms(3_000), |_| PASS);
    assert!(!rig.director.pools()[0].diverges);
}

#[test]
fn one_endpoint_that_says_it_is_not_well_is_believed_although_its_traffic_succeeds() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3])]);
    for _ in 0..200 {
        (1..=3).for_each(|port| rig.requests(port, 1, 0, ERROR));
        rig.live_on(ms(10), |port| if port == 1 { BAD } else { PASS });
    }
    assert_eq!(rig.down(), [1]);
}

#[test]
fn consul_2890_what_flaps_is_held_down_for_longer_each_time() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let mut took = Vec::new();
    for _ in 0..5 {
        rig.fell(&[1]);
        let fell = rig.now;
        while rig.down() == [1] {
            rig.live_on(ms(10), |_| PASS);
        }
        took.push(rig.now - fell);
    }
    assert!(took[0] < ms(1_500), "the first time it returns as soon as it passes: {took:?}");
    assert!(took[4] >= ms(6_000), "{took:?}");
    assert!(took[1..].windows(2).all(|pair| pair[1] >= pair[0]), "{took:?}");
}

#[test]
fn vllm_36960_traffic_that_fails_behind_a_healthy_page_is_seen_and_said() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    let mut said = Vec::new();
    for _ in 0..100 {
        rig.requests(1, 0, 1, Failure::http(Reason::Slow));
        rig.requests(2, 1, 0, ERROR);
        rig.live_on(ms(10), |_| PASS);
        said.extend(rig.events());
    }
    assert_eq!(rig.down(), [1]);
}

#[test]
fn haproxy_899_when_all_are_slow_nobody_goes_for_it() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3])]);
    for _ in 0..500 {
        (1..=3).for_each(|port| rig.requests(port, 0, 1, Failure::http(Reason::Slow)));
        rig.live_on(ms(10), |_| PASS);
    }
    let left = rig.view().targets().count();
    assert_eq!(left, 3, "{:?}", rig.down());
}

#[test]
fn envoy_10498_probes_do_not_burst_and_keep_a_global_budget() {
    let ports: Vec<u16> = (1..=1_000).collect();
    let spec = Arc::new(pool(&[("r/a", &ports)]));
    let mut rig = Rig::blank();
    let topology = Topology { here: None, pools: vec![spec], probes_per_second: 200 };
    rig.turn([Input::Configure { topology, routes: Arc::default() }]);
    let mut busiest = 0;
    let mut all = 0;
    for _ in 0..1_000 {
        rig.live_on(ms(10), |_| PASS);
        let started = rig.said.iter().filter(|o| matches!(o, Output::Probe { .. })).count();
        busiest = busiest.max(started);
        all += started;
    }
    assert!((1_900..=2_100).contains(&all), "{all} in ten seconds");
    assert!(busiest <= 12, "{busiest} in ten milliseconds");
    assert!((rig.director.stretch() - 5.0).abs() < 0.01, "and the stretch is shown");
    let seen = rig.director.endpoints().iter().filter(|one| !one.probes.is_empty()).count();
    assert_eq!(seen, 1_000, "everybody has had a turn");
}

#[test]
fn envoy_9351_what_traffic_vouches_for_is_probed_less_inside_the_target_only() {
    let count = |target: Option<Duration>, busy: bool| {
        let detect = Detect { target, ..Detect::default() };
        let mut rig = Rig::with(PoolSpec { detect, ..pool(&[("r/a", &[1, 2])]) });
        rig.live_on(ms(2_000), |_| PASS);
        let mut probes = 0;
        for _ in 0..2_000 {
            if busy {
                rig.requests(1, 1, 0, ERROR);
            }
            rig.live_on(ms(10), |_| PASS);
            probes += starts(&rig, 1);
        }
        probes
    };
    let usual = count(None, true);
    assert!((20..=23).contains(&usual), "{usual} in twenty seconds");
    let stretched = count(Some(ms(5_000)), true);
    assert!((4..=7).contains(&stretched), "{stretched}: every four seconds");
    let idle = count(Some(ms(5_000)), false);
    assert!((20..=23).contains(&idle), "{idle}: nobody vouches");
}

#[test]
fn envoy_gateway_4990_panic_is_asked_for_and_said() {
    let spec = || pool(&[("r/a", &[1, 2, 3, 4])]);
    let mut rig = Rig::with(spec());
    rig.fell(&[1, 2, 3]);
    assert!(!rig.view().panic, "none before nothing is left, unless it is asked for");
    let evict = Evict { panic_percent: 50, ..Evict::default() };
    let mut rig = Rig::with(PoolSpec { evict, ..spec() });
    rig.fell(&[1, 2]);
    assert!(!rig.view().panic);
    rig.fell(&[3]);
    assert!(rig.view().panic && rig.panics() == [true]);
}

#[test]
fn sozu_1204_failing_open_is_seen() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.fell(&[1, 2]);
    assert_eq!(rig.panics(), [true]);
    assert!(rig.director.pools()[0].panic);
}

#[test]
fn envoy_25283_a_zone_that_returns_grows_back_across_tiers() {
    let spec = pool(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])]);
    let mut rig = Rig::with(PoolSpec { correlate: Correlate::default(), ..spec });
    rig.fell(&[1, 2, 3]);
    rig.live_on(ms(2_500), |_| PASS);
    let view = rig.view();
    assert!(view.led.tiers[0].share < view.led.tiers[1].share, "the other zone still carries most");
}

#[test]
fn envoy_13070_a_probe_is_edited_in_place() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let mut edited = pool(&[("r/a", &[1, 2])]);
    edited.detect.timeout = ms(200);
    rig.configure(edited);
    assert_eq!(serving(&rig.published()[0]), [1, 2]);
}

#[test]
fn freenet_3210_what_returns_or_joins_gets_its_share_bit_by_bit() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.fell(&[1]);
    while rig.down() == [1] {
        rig.live_on(ms(10), |_| PASS);
    }
    let share = |rig: &Rig, port| {
        let endpoint = rig.director.roster.get(rig.id(port)).expect("known");
        endpoint.ramp.share(Recover::default().ramp, rig.now)
    };
    assert!(share(&rig, 1) < FULL / 5);
    rig.configure(pool(&[("r/a", &[1, 2, 3])]));
    rig.live_on(ms(100), |_| PASS);
    assert!(share(&rig, 3) < FULL / 5, "a new one too");
    rig.live_on(ms(11_000), |_| PASS);
    assert_eq!([1, 2, 3].map(|port| share(&rig, port)), [FULL; 3]);
}

#[test]
fn hyper_4186_the_verdict_evicts_connections() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.fell(&[1]);
    let id = rig.id(1);
    let cuts = |output: &Output| matches!(output, Output::Cut { endpoint, .. } if *endpoint == id);
    assert!(rig.said.iter().any(cuts));
}

#[test]
fn openshift_4767_an_observer_that_cannot_see_says_so_and_judges_nobody() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.live_on(ms(5_000), |_| Outcome::Void);
    assert!(rig.director.is_blind());
    assert!(rig.down().is_empty());
    rig.live_on(ms(2_000), |_| PASS);
    assert!(!rig.director.is_blind());
}
