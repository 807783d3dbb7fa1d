use std::net::SocketAddr;

use super::*;
use crate::logic::probe::{BodyTest, HttpProbe, ProbeSpec};
use crate::logic::speech::TlsClient;
use crate::logic::topology::{Detect, EndpointSpec, ZoneSpec};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn question(trials: u32, rate_rps: Option<f64>) -> Question {
    let latency = Latency::Fixed(SERVICE);
    Question { trials, seed: 1, round_trip: ms(1), rate_rps, latency, threads: 1 }
}

/// Three zones of this many endpoints, with the default HTTP probe.
fn pool(zone_endpoints: usize, detect: Detect) -> PoolSpec {
    let endpoint = |host: usize| EndpointSpec {
        address: SocketAddr::from(([10, 1, (host >> 8) as u8, host as u8], 9_000)),
        weight: 1,
    };
    let zone = |index: usize, name: &str| {
        let hosts = (0..zone_endpoints).map(|host| endpoint(index * zone_endpoints + host));
        ZoneSpec::new(Place::parse(name).expect("a place"), hosts.collect())
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

fn spread(prediction: &Prediction, scope: Scope, fault: Fault, with_traffic: bool) -> Spread {
    let wanted = |row: &&Row| {
        row.scope == scope && row.fault == fault && row.traffic_rps.is_some() == with_traffic
    };
    match prediction.rows.iter().find(wanted).expect("a row").window {
        Window::Seen { spread, .. } => spread,
        Window::Unseen(why) => panic!("{fault} is unseen: {why:?}"),
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
            let fits = match row.window {
                Window::Seen { within_closed_form, .. } => within_closed_form == Some(true),
                Window::Unseen(_) => row.closed_form.is_none(),
            };
            assert!(fits, "{detect:?} {row:?}");
        }
    }
}

/// What one fault leads to without any traffic, in zones of so many endpoints.
fn one(zone_endpoints: usize, question: &Question, asked: (Scope, Fault)) -> Spread {
    let question = Question { rate_rps: None, ..question.clone() };
    let row = predict_one(
        &pool(zone_endpoints, Detect::default()),
        None,
        &question,
        asked,
        Instant::now(),
    );
    let Window::Seen { spread, .. } = row.window else { panic!("unseen: {row:?}") };
    spread
}

#[test]
fn enough_trials_come_near_both_ends_of_the_closed_form() {
    let silent = one(2, &question(1_000, None), (Scope::Endpoint, Fault::Hang));
    assert!(silent.best < ms(1_015) && silent.worst > ms(1_985), "{silent:?}");
    assert!(silent.median.abs_diff(ms(1_475)) < ms(40), "{silent:?}");
    assert!(silent.median < silent.p99 && silent.p99 < silent.worst);
}

#[test]
fn traffic_shortens_what_it_can_see() {
    let prediction = ask(&pool(2, Detect::default()), &question(200, Some(60.0)));
    for scope in [Scope::Endpoint, Scope::Zone] {
        let of = |fault| spread(&prediction, scope, fault, true);
        assert!(of(Fault::Refused).worst < ms(50));
        assert!(of(Fault::Reset).p99 < ms(300));
        assert!(of(Fault::Hang).p99 < ms(400));
    }
}

#[test]
fn a_short_fast_interval_does_not_slow_the_verdict_of_traffic_down() {
    for fast_ms in [10, 30, 50, 100] {
        let detect = Detect { fast_interval: ms(fast_ms), ..Detect::default() };
        let question = question(100, Some(500.0));
        let asked = (Scope::Endpoint, Fault::Hang);
        let row = predict_one(&pool(2, detect), None, &question, asked, Instant::now());
        let Window::Seen { spread, .. } = row.window else { panic!("unseen: {row:?}") };
        assert!(spread.worst < ms(200), "fast_interval {fast_ms} ms: {spread:?}");
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
    let of = |endpoints| {
        let asked = (Scope::Zone, Fault::StatusAll);
        one(endpoints, &question(100, Some(300.0)), asked).median
    };
    assert!(of(2_000) > of(3) + ms(100));
    let topology = Topology {
        here: None,
        pools: vec![Arc::new(pool(2_000, Detect::default()))],
        ..Topology::default()
    };
    assert!(Sample::of(&topology, Some(300.0)).endpoints() <= 12);
    assert!(Sample::of(&topology, None).endpoints() <= 12);
    let large = ask(&pool(2_000, Detect::default()), &question(1, None));
    assert_eq!(large.zone_endpoints, 2_000);
}

/// Why a fault of an endpoint is never noticed, if it is not.
fn unseen(prediction: &Prediction, fault: Fault) -> Option<Unseen> {
    let row = prediction.rows.iter().find(|row| row.fault == fault).expect("a row");
    match row.window {
        Window::Seen { .. } => None,
        Window::Unseen(why) => Some(why),
    }
}

#[test]
fn what_the_probe_does_not_see_is_said_to_be_unseen() {
    let mut pool = pool(1, Detect::default());
    let prediction = ask(&pool, &question(20, None));
    let needs_traffic = [Fault::StatusTraffic, Fault::ERRORS_30, Fault::Cut];
    for row in &prediction.rows {
        let why = match row.fault {
            fault if needs_traffic.contains(&fault) => Some(Unseen::NeedsTraffic),
            Fault::WrongBody => Some(Unseen::ProbePasses),
            _ => None,
        };
        assert_eq!(unseen(&prediction, row.fault), why, "{row:?}");
        assert_eq!(row.closed_form.is_none(), why.is_some(), "{row:?}");
    }
    pool.probes = vec![ProbeSpec::tcp()];
    let prediction = ask(&pool, &question(20, None));
    for fault in [Fault::Refused, Fault::BlackHole] {
        assert_eq!(unseen(&prediction, fault), None);
    }
    for fault in [Fault::Reset, Fault::Hang, Fault::StatusAll, Fault::SLOW, Fault::WrongBody] {
        assert_eq!(unseen(&prediction, fault), Some(Unseen::ProbePasses));
    }
}

#[test]
fn a_better_probe_sees_more() {
    let mut pool = pool(1, Detect::default());
    let body = BodyTest::Contains("ok".into());
    let http = HttpProbe { expect_body: vec![body], ..HttpProbe::get("/") };
    let tls =
        TlsClient { server_name: None, roots: None, client: None, verify: true, alpn: Vec::new() };
    pool.probes = vec![ProbeSpec { tls: Some(Arc::new(tls)), ..ProbeSpec::http(http) }];
    let prediction = ask(&pool, &question(60, None));
    for fault in [Fault::WrongBody, Fault::Certificate] {
        let row = prediction.rows.iter().find(|row| row.fault == fault).expect("a row");
        let within = |window| match window {
            Window::Seen { within_closed_form, .. } => within_closed_form == Some(true),
            Window::Unseen(_) => false,
        };
        assert!(within(row.window), "{row:?}");
    }
}

#[test]
fn nothing_is_ever_up_that_answers_later_than_the_probe_waits() {
    let slow = Question { round_trip: ms(300), ..question(20, None) };
    let rows = ask(&pool(1, Detect::default()), &slow).rows;
    assert!(rows.iter().all(|row| row.window == Window::Unseen(Unseen::NeverUp)));
}

#[test]
fn threads_change_nothing() {
    let pool = pool(2, Detect::default());
    let base = Instant::now();
    let run =
        |threads| predict(&pool, None, &Question { threads, ..question(20, Some(50.0)) }, base);
    assert_eq!(run(1), run(3));
}

#[test]
fn how_slow_and_how_many_errors_are_taken_as_they_are_said() {
    let pool = pool(3, Detect::default());
    let window = |fault, rate_rps| {
        let asked = question(20, rate_rps);
        predict_zone(&pool, None, &asked, (0, Scope::Endpoint, fault), Instant::now()).window
    };
    let median = |fault| match window(fault, Some(200.0)) {
        Window::Seen { spread, .. } => spread.median,
        Window::Unseen(why) => panic!("{fault:?} is unseen: {why:?}"),
    };
    let errors = |percent| median(Fault::Errors { percent });
    assert!(errors(100) < errors(50) && errors(50) < errors(20));
    let slow = |ms_| window(Fault::Slow { delay: ms(ms_) }, None);
    assert_eq!(slow(100), Window::Unseen(Unseen::ProbePasses));
    assert!(matches!(slow(600), Window::Seen { .. }));
}
