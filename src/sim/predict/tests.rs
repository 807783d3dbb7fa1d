use std::net::SocketAddr;

use super::*;
use crate::logic::probe::{HttpProbe, ProbeSpec};
use crate::logic::topology::{Detect, EndpointSpec, ZoneSpec};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn question(trials: u32, rate_rps: Option<f64>) -> Question {
    Question { trials, seed: 1, round_trip: ms(1), rate_rps }
}

/// Three zones of this many endpoints, with the default HTTP probe.
fn pool(zone_endpoints: usize, detect: Detect) -> PoolSpec {
    let endpoint = |host: usize| EndpointSpec {
        address: SocketAddr::from(([10, 1, (host >> 8) as u8, host as u8], 9_000)),
        weight: 1,
    };
    let zone = |index: usize, name: &str| ZoneSpec {
        place: Place::parse(name).expect("a place"),
        endpoints: (0..zone_endpoints)
            .map(|host| endpoint(index * zone_endpoints + host))
            .collect(),
    };
    let zones = ["r/a", "r/b", "s/a"].iter().enumerate().map(|(i, name)| zone(i, name));
    PoolSpec {
        probes: vec![ProbeSpec::http(HttpProbe::get("/"))],
        detect,
        ..PoolSpec::new("web", zones.collect())
    }
}

fn ask(pool: &PoolSpec, question: &Question) -> Prediction {
    predict(pool, None, question, Instant::now())
}

fn spread(prediction: &Prediction, scope: Scope, class: Class, with_traffic: bool) -> Spread {
    let wanted = |row: &&Row| {
        row.scope == scope && row.class == class && row.traffic_rps.is_some() == with_traffic
    };
    match prediction.rows.iter().find(wanted).expect("a row").window {
        Window::Seen { spread, .. } => spread,
        Window::Unseen(why) => panic!("{class} is unseen: {why:?}"),
    }
}

#[test]
fn simulation_stays_within_the_closed_form_whatever_the_periods() {
    let mut rng = Rng::with_seed(3);
    for _ in 0..20 {
        let timeout = ms(rng.u64(5..500));
        let detect = Detect {
            timeout,
            interval: timeout + ms(rng.u64(..2_000)),
            fast_interval: ms(rng.u64(1..400)),
            down_interval: timeout,
            down_after: rng.u32(1..5),
            up_after: 1,
            target: None,
        };
        for row in ask(&pool(2, detect), &question(30, None)).rows {
            let within = |window| match window {
                Window::Seen { within_closed_form, .. } => within_closed_form == Some(true),
                Window::Unseen(_) => false,
            };
            assert!(within(row.window), "{detect:?} {row:?}");
        }
    }
}

#[test]
fn enough_trials_come_near_both_ends_of_the_closed_form() {
    let prediction = ask(&pool(2, Detect::default()), &question(1_000, None));
    let silent = spread(&prediction, Scope::Endpoint, Class::Silent, false);
    assert!(silent.best < ms(1_015) && silent.worst > ms(1_985), "{silent:?}");
    assert!(silent.median.abs_diff(ms(1_475)) < ms(40), "{silent:?}");
    assert!(silent.median < silent.p99 && silent.p99 < silent.worst);
}

#[test]
fn traffic_shortens_what_it_can_see() {
    let prediction = ask(&pool(2, Detect::default()), &question(200, Some(60.0)));
    for scope in [Scope::Endpoint, Scope::Zone] {
        let of = |class| spread(&prediction, scope, class, true);
        assert!(of(Class::Refused).worst < ms(50));
        assert!(of(Class::Reset).p99 < ms(300));
        assert!(of(Class::Silent).p99 < ms(400));
        assert!(of(Class::BadStatus).worst > ms(900), "a status is no evidence of traffic's");
    }
}

#[test]
fn a_short_fast_interval_does_not_slow_the_verdict_of_traffic_down() {
    for fast_ms in [10, 30, 50, 100] {
        let detect = Detect { fast_interval: ms(fast_ms), ..Detect::default() };
        let prediction = ask(&pool(2, detect), &question(100, Some(500.0)));
        let silent = spread(&prediction, Scope::Endpoint, Class::Silent, true);
        assert!(silent.worst < ms(200), "fast_interval {fast_ms} ms: {silent:?}");
    }
}

#[test]
fn equal_seeds_give_equal_predictions() {
    let pool = pool(3, Detect::default());
    let base = Instant::now();
    let run = || predict(&pool, None, &question(50, Some(100.0)), base);
    assert_eq!(run(), run());
}

#[test]
fn a_large_pool_costs_no_more_and_its_last_endpoint_falls_later() {
    let small = ask(&pool(3, Detect::default()), &question(100, Some(300.0)));
    let large = ask(&pool(2_000, Detect::default()), &question(100, Some(300.0)));
    let of = |p: &Prediction| spread(p, Scope::Zone, Class::Silent, false).median;
    assert!(of(&large) > of(&small) + ms(100));
    let topology = Topology {
        here: None,
        pools: vec![Arc::new(pool(2_000, Detect::default()))],
        ..Topology::default()
    };
    assert!(Sample::of(&topology, Some(300.0)).endpoints() <= 12);
    assert!(Sample::of(&topology, None).endpoints() <= 12);
    assert_eq!(large.zone_endpoints, 2_000);
}

#[test]
fn what_the_probe_does_not_see_is_said_to_be_unseen() {
    let mut blind = pool(1, Detect::default());
    blind.probes = vec![ProbeSpec::tcp()];
    for row in ask(&blind, &question(20, Some(60.0))).rows {
        let unseen = matches!(row.class, Class::Reset | Class::BadStatus);
        assert_eq!(row.window == Window::Unseen(Unseen::ProbePasses), unseen, "{row:?}");
    }
    let slow = Question { round_trip: ms(300), ..question(20, None) };
    let rows = ask(&pool(1, Detect::default()), &slow).rows;
    assert!(rows.iter().all(|row| row.window == Window::Unseen(Unseen::NeverUp)));
}
