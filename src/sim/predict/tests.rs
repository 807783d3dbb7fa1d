use std::net::SocketAddr;

use fastrand::Rng;

use super::*;
use crate::logic::model::topology::{DetectionSpec, EndpointSpec, ZoneSpec};
use crate::logic::model::upstream_protocol::UpstreamTls;
use crate::logic::probing::probe::{BodyMatcher, HttpProbe, ProbeSpec};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn prediction_input(trials: u32, rate_rps: Option<f64>) -> PredictionInput {
    let latency = LatencyModel::Fixed(DEFAULT_SERVICE_TIME);
    PredictionInput {
        trials,
        seed: 1,
        round_trip: ms(1),
        rate_rps,
        warm_up: None,
        latency,
        workers: 1,
        threads: 1,
    }
}

/// Three zones of this many endpoints, with the default HTTP probe.
fn pool(zone_endpoints: usize, detect: DetectionSpec) -> PoolSpec {
    let endpoint = |host: usize| EndpointSpec {
        address: SocketAddr::from(([10, 1, (host >> 8) as u8, host as u8], 9_000)),
        weight: 1,
    };
    let zone = |index: usize, name: &str| {
        let hosts = (0..zone_endpoints).map(|host| endpoint(index * zone_endpoints + host));
        ZoneSpec::new(Locality::parse(name).expect("a place"), hosts.collect())
    };
    let zones = ["r/a", "r/b", "s/a"].iter().enumerate().map(|(i, name)| zone(i, name));
    PoolSpec {
        probes: vec![ProbeSpec::http(HttpProbe::get("/"))],
        detect,
        ..PoolSpec::new("web", zones.collect())
    }
}

fn predict_pool(pool: &PoolSpec, input: &PredictionInput) -> Prediction {
    predict(pool, None, input, Instant::now())
}

fn spread_of(
    prediction: &Prediction,
    scope: FaultScope,
    fault: FaultKind,
    with_traffic: bool,
) -> WindowSpread {
    let wanted = |row: &&PredictionRow| {
        row.scope == scope && row.fault == fault && row.traffic_rps.is_some() == with_traffic
    };
    match prediction.rows.iter().find(wanted).expect("a row").window {
        PredictedWindow::Detected { spread, .. } => spread,
        PredictedWindow::Undetected(reason) => panic!("{fault} is undetected: {reason:?}"),
    }
}

#[test]
fn simulated_window_stays_within_the_closed_form() {
    let mut rng = Rng::with_seed(3);
    for _ in 0..20 {
        let timeout = ms(rng.u64(5..500));
        let detect = DetectionSpec {
            timeout,
            interval: timeout + ms(rng.u64(..2_000)),
            fast_interval: ms(rng.u64(1..400)),
            down_interval: timeout,
            down_after: rng.u32(1..5),
            up_after: 1,
            target: None,
        };
        for row in predict_pool(&pool(2, detect), &prediction_input(30, None)).rows {
            let fits = match row.window {
                PredictedWindow::Detected { within_closed_form, .. } => {
                    within_closed_form == Some(true)
                }
                PredictedWindow::Undetected(_) => row.closed_form.is_none(),
            };
            assert!(fits, "{detect:?} {row:?}");
        }
    }
}

/// The distribution for one fault without traffic.
fn predict_spread(zone_endpoints: usize, input: &PredictionInput, case: FaultCase) -> WindowSpread {
    let input = PredictionInput { rate_rps: None, ..input.clone() };
    let row = predict_row(
        &pool(zone_endpoints, DetectionSpec::default()),
        None,
        &input,
        case,
        Instant::now(),
    );
    let PredictedWindow::Detected { spread, .. } = row.window else {
        panic!("undetected: {row:?}")
    };
    spread
}

#[test]
fn many_trials_approach_both_ends_of_the_closed_form() {
    let silent = predict_spread(
        2,
        &prediction_input(1_000, None),
        FaultCase { scope: FaultScope::Endpoint, fault: FaultKind::Hang },
    );
    assert!(silent.best < ms(1_015) && silent.worst > ms(1_985), "{silent:?}");
    assert!(silent.median.abs_diff(ms(1_475)) < ms(40), "{silent:?}");
    assert!(silent.median < silent.p99 && silent.p99 < silent.worst);
}

#[test]
fn traffic_shortens_the_window_of_visible_faults() {
    let prediction =
        predict_pool(&pool(2, DetectionSpec::default()), &prediction_input(200, Some(60.0)));
    for scope in [FaultScope::Endpoint, FaultScope::Zone] {
        let of = |fault| spread_of(&prediction, scope, fault, true);
        assert!(of(FaultKind::Refused).worst < ms(50));
        assert!(of(FaultKind::Reset).p99 < ms(300));
        assert!(of(FaultKind::Hang).p99 < ms(400));
    }
}

#[test]
fn short_fast_interval_does_not_delay_traffic_verdict() {
    for fast_ms in [10, 30, 50, 100] {
        let detect = DetectionSpec { fast_interval: ms(fast_ms), ..DetectionSpec::default() };
        let input = prediction_input(100, Some(500.0));
        let case = FaultCase { scope: FaultScope::Endpoint, fault: FaultKind::Hang };
        let row = predict_row(&pool(2, detect), None, &input, case, Instant::now());
        let PredictedWindow::Detected { spread, .. } = row.window else {
            panic!("undetected: {row:?}")
        };
        assert!(spread.worst < ms(200), "fast_interval {fast_ms} ms: {spread:?}");
    }
}

#[test]
fn prediction_with_equal_seeds_is_equal() {
    let pool = pool(3, DetectionSpec::default());
    let base = Instant::now();
    let run = || predict(&pool, None, &prediction_input(50, Some(100.0)), base);
    assert_eq!(run(), run());
}

#[test]
fn large_zone_is_sampled_and_its_window_is_longer() {
    let of = |endpoints| {
        let case = FaultCase { scope: FaultScope::Zone, fault: FaultKind::StatusAll };
        predict_spread(endpoints, &prediction_input(100, Some(300.0)), case).median
    };
    assert!(of(2_000) > of(3) + ms(100));
    let topology = Topology {
        local: None,
        pools: vec![Arc::new(pool(2_000, DetectionSpec::default()))],
        ..Topology::default()
    };
    assert!(PoolSample::from_topology(&topology, Some(300.0)).endpoint_count() <= 12);
    assert!(PoolSample::from_topology(&topology, None).endpoint_count() <= 12);
    let large = predict_pool(&pool(2_000, DetectionSpec::default()), &prediction_input(1, None));
    assert_eq!(large.zone_endpoints, 2_000);
}

/// Why a fault of an endpoint is never detected, if it is not.
fn undetected_reason(prediction: &Prediction, fault: FaultKind) -> Option<UndetectedReason> {
    let row = prediction.rows.iter().find(|row| row.fault == fault).expect("a row");
    match row.window {
        PredictedWindow::Detected { .. } => None,
        PredictedWindow::Undetected(reason) => Some(reason),
    }
}

#[test]
fn fault_invisible_to_the_probe_is_reported_undetected() {
    let mut pool = pool(1, DetectionSpec::default());
    let prediction = predict_pool(&pool, &prediction_input(20, None));
    let needs_traffic = [FaultKind::StatusTraffic, FaultKind::ERRORS_30, FaultKind::Cut];
    for row in &prediction.rows {
        let expected = match row.fault {
            fault if needs_traffic.contains(&fault) => Some(UndetectedReason::NeedsTraffic),
            FaultKind::WrongBody => Some(UndetectedReason::ProbePasses),
            _ => None,
        };
        assert_eq!(undetected_reason(&prediction, row.fault), expected, "{row:?}");
        assert_eq!(row.closed_form.is_none(), expected.is_some(), "{row:?}");
    }
    pool.probes = vec![ProbeSpec::tcp()];
    let prediction = predict_pool(&pool, &prediction_input(20, None));
    for fault in [FaultKind::Refused, FaultKind::BlackHole] {
        assert_eq!(undetected_reason(&prediction, fault), None);
    }
    for fault in [
        FaultKind::Reset,
        FaultKind::Hang,
        FaultKind::StatusAll,
        FaultKind::SLOW,
        FaultKind::WrongBody,
    ] {
        assert_eq!(undetected_reason(&prediction, fault), Some(UndetectedReason::ProbePasses));
    }
}

#[test]
fn tls_and_body_checks_detect_more_faults() {
    let mut pool = pool(1, DetectionSpec::default());
    let body = BodyMatcher::Contains("ok".into());
    let http = HttpProbe { expect_body: vec![body], ..HttpProbe::get("/") };
    let tls = UpstreamTls {
        server_name: None,
        roots: None,
        client_certificate: None,
        is_verification_enabled: true,
        alpn: Vec::new(),
    };
    pool.probes = vec![ProbeSpec { tls: Some(Arc::new(tls)), ..ProbeSpec::http(http) }];
    let prediction = predict_pool(&pool, &prediction_input(60, None));
    for fault in [FaultKind::WrongBody, FaultKind::Certificate] {
        let row = prediction.rows.iter().find(|row| row.fault == fault).expect("a row");
        let within = |window| match window {
            PredictedWindow::Detected { within_closed_form, .. } => {
                within_closed_form == Some(true)
            }
            PredictedWindow::Undetected(_) => false,
        };
        assert!(within(row.window), "{row:?}");
    }
}

#[test]
fn endpoint_slower_than_probe_timeout_is_never_up() {
    let slow = PredictionInput { round_trip: ms(300), ..prediction_input(20, None) };
    let rows = predict_pool(&pool(1, DetectionSpec::default()), &slow).rows;
    assert!(
        rows.iter().all(|row| row.window == PredictedWindow::Undetected(UndetectedReason::NeverUp))
    );
}

#[test]
fn prediction_does_not_depend_on_thread_count() {
    let pool = pool(2, DetectionSpec::default());
    let base = Instant::now();
    let run = |threads| {
        predict(&pool, None, &PredictionInput { threads, ..prediction_input(20, Some(50.0)) }, base)
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn slow_delay_and_error_percent_affect_the_window() {
    let pool = pool(3, DetectionSpec::default());
    let window = |fault, rate_rps| {
        let input = prediction_input(20, rate_rps);
        let case = FaultCase { scope: FaultScope::Endpoint, fault };
        predict_zone_row(&pool, None, &input, 0, case, Instant::now()).window
    };
    let median = |fault| match window(fault, Some(200.0)) {
        PredictedWindow::Detected { spread, .. } => spread.median,
        PredictedWindow::Undetected(reason) => panic!("{fault:?} is undetected: {reason:?}"),
    };
    let errors = |percent| median(FaultKind::Errors { percent });
    assert!(errors(100) < errors(50) && errors(50) < errors(20));
    let slow = |ms_| window(FaultKind::Slow { delay: ms(ms_) }, None);
    assert_eq!(slow(100), PredictedWindow::Undetected(UndetectedReason::ProbePasses));
    assert!(matches!(slow(600), PredictedWindow::Detected { .. }));
}
