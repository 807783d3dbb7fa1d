use std::net::SocketAddr;

use fastrand::Rng;

use super::*;
use crate::logic::model::outcome::FailureClass;
use crate::logic::model::topology::{EndpointSpec, ZoneSpec};
use crate::logic::probing::detection_window;
use crate::logic::probing::probe::{HttpProbe, ProbeSpec};
use crate::sim::latency::LatencyDistribution;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Two zones of two endpoints each.
fn pool() -> PoolSpec {
    let endpoint =
        |port| EndpointSpec { address: SocketAddr::from(([10, 0, 0, 1], port)), weight: 1 };
    let zone = |(name, port): (&str, u16)| {
        let endpoints = vec![endpoint(port), endpoint(port + 1)];
        ZoneSpec::new(Locality::parse(name).expect("a place"), endpoints)
    };
    PoolSpec {
        probes: vec![ProbeSpec::http(HttpProbe::get("/"))],
        ..PoolSpec::new("web", [("r/a", 1), ("r/b", 3)].map(zone).into())
    }
}

fn prediction_input(seed: u64, trials: u32, latency: LatencyModel) -> predict::PredictionInput {
    predict::PredictionInput {
        trials,
        seed,
        round_trip: ms(1),
        rate_rps: None,
        warm_up: None,
        latency,
        workers: 1,
        threads: 2,
    }
}

fn tune_subject(pool: &PoolSpec, probe_loss: f64, trials: u32) -> TuneSubject<'_> {
    TuneSubject { pool, input: prediction_input(1, trials, LatencyModel::Fixed(ms(1))), probe_loss }
}

fn tune_goals(target_ms: u64) -> TuneGoals {
    TuneGoals {
        target: ms(target_ms),
        faults: FaultKind::ALL.to_vec(),
        should_detect_all: false,
        false_verdicts_yearly: 1.0,
        probes_per_second: 10_000.0,
    }
}

fn tune_one(subject: &TuneSubject<'_>, wishes: &TuneGoals) -> TuneResult {
    tune(std::slice::from_ref(subject), None, wishes, Instant::now(), &mut |_| {})
}

fn tuned_window(answer: &TuneResult) -> &WindowEvaluation {
    answer.pools[0]
        .after
        .as_ref()
        .unwrap_or_else(|| panic!("nothing: {:?}", answer.pools[0].constraints))
}

#[test]
fn tuned_window_meets_its_target_under_another_seed() {
    let mut rng = Rng::with_seed(11);
    let pool = pool();
    for _ in 0..3 {
        let wishes = tune_goals(rng.u64(90..3_000));
        let drawn =
            LatencyDistribution::from_quantiles(&[(0.5, ms(1)), (0.999, ms(6))], Some(ms(20)));
        let latency = LatencyModel::Distributed(Arc::new(drawn.expect("rising")));
        let probe_loss = 0.02 * rng.f64();
        let input = prediction_input(1, 200, latency.clone());
        let subject = TuneSubject { pool: &pool, input, probe_loss };
        let answer = tune_one(&subject, &wishes);
        assert!(answer.is_met, "{wishes:?} {answer:?}");
        let state = tuned_window(&answer);
        assert!(state.false_verdicts_yearly < wishes.false_verdicts_yearly, "{state:?}");
        let DetectionSpec { interval, timeout, fast_interval, down_interval, .. } = state.detect;
        assert!(timeout <= interval && timeout <= down_interval && fast_interval <= interval);
        let again = TuneSubject { input: prediction_input(2, 200, latency), ..subject };
        let tuned = PoolSpec { detect: state.detect, ..pool.clone() };
        let once_more = evaluate_window(&tuned, &again, None, &wishes.faults, Instant::now());
        let slowest = once_more.slowest.expect("a row");
        assert!(slowest.p99 <= wishes.target, "{wishes:?} {slowest:?} {:?}", state.detect);
        // The window is no shorter than needed: probes cost.
        assert!(slowest.p99 > wishes.target.mul_f64(0.8), "{wishes:?} {slowest:?}");
    }
}

#[test]
fn tighter_target_never_takes_fewer_probes() {
    let pool = pool();
    for probe_loss in [0.001, 0.05] {
        let subject = tune_subject(&pool, probe_loss, 60);
        let probes = [2_500, 700, 400, 300, 200].map(|target_ms| {
            let answer = tune_one(&subject, &tune_goals(target_ms));
            if answer.is_met { tuned_window(&answer).probes_per_second } else { f64::INFINITY }
        });
        assert!(probes.is_sorted() && probes[2].is_finite(), "{probe_loss}: {probes:?}");
    }
}

#[test]
fn higher_probe_loss_lengthens_the_silent_time() {
    let pool = pool();
    let of = |probe_loss| {
        let answer = tune_one(&tune_subject(&pool, probe_loss, 60), &tune_goals(600));
        (tuned_window(&answer).detect, tuned_window(&answer).probes_per_second)
    };
    let ((quiet, few), (lossy, many)) = (of(0.0), of(0.05));
    let silence = |detect: DetectionSpec| detect.timeout * detect.down_after;
    assert!(silence(quiet) < silence(lossy) && few < many, "{quiet:?} {lossy:?}");
}

#[test]
fn unreachable_target_reports_constraint_and_best_window() {
    let pool = pool();
    // A probe's timeout is at least twelve times its duration: 600 ms.
    let slow = TuneSubject {
        input: prediction_input(1, 60, LatencyModel::Fixed(ms(50))),
        ..tune_subject(&pool, 0.0, 60)
    };
    let late = tune_one(&slow, &tune_goals(300));
    let binding = &late.pools[0].constraints;
    assert!(
        matches!(binding[..], [TuneConstraint::Timeout(least)] if least > ms(599)),
        "{binding:?}"
    );
    let lossy = tune_one(&tune_subject(&pool, 0.3, 60), &tune_goals(300));
    assert!(
        matches!(lossy.pools[0].constraints[..], [TuneConstraint::FalseVerdicts(least)] if least > 1.0)
    );
    let frugal = TuneGoals { probes_per_second: 12.0, ..tune_goals(300) };
    let poor = tune_one(&tune_subject(&pool, 0.0, 200), &frugal);
    assert!(
        poor.pools[0].constraints.is_empty() && poor.required_probes_per_second > Some(12.0),
        "{poor:?}"
    );
    for (answer, target) in [(&late, 300), (&lossy, 300), (&poor, 300)] {
        assert!(!answer.is_met);
        let reachable = answer.reachable.expect("some window can be had");
        let slowest = tuned_window(answer).slowest.expect("a row").p99;
        assert!(ms(target) < slowest && slowest <= reachable, "{answer:?}");
    }
    assert!(tuned_window(&poor).probes_per_second <= 12.0);
    // The reachable target is met.
    let again = tune_one(
        &tune_subject(&pool, 0.0, 200),
        &TuneGoals { target: poor.reachable.expect("one"), ..frugal },
    );
    assert!(again.is_met, "{again:?}");
}

#[test]
fn undetected_fault_is_a_constraint_only_if_required() {
    let pool = pool();
    let goals = TuneGoals {
        faults: vec![FaultKind::Refused, FaultKind::WrongBody],
        should_detect_all: true,
        ..tune_goals(500)
    };
    let answer = tune_one(&tune_subject(&pool, 0.0, 60), &goals);
    let undetected =
        TuneConstraint::Undetected(FaultKind::WrongBody, UndetectedReason::ProbePasses);
    assert_eq!((answer.is_met, &answer.pools[0].constraints), (false, &vec![undetected]));
    assert_eq!((answer.reachable, answer.pools[0].after.is_none()), (None, true));
    assert!(tune_one(&tune_subject(&pool, 0.0, 60), &tune_goals(500)).is_met);
}

#[test]
fn refused_only_goal_allows_a_long_interval() {
    let stretched = DetectionSpec { target: Some(ms(5_000)), ..DetectionSpec::default() };
    let pool = PoolSpec { detect: stretched, ..pool() };
    let only =
        TuneGoals { faults: vec![FaultKind::Refused], should_detect_all: true, ..tune_goals(300) };
    let answer = tune_one(&tune_subject(&pool, 0.0, 60), &only);
    let detect = tuned_window(&answer).detect;
    assert!(answer.is_met && detect.interval > ms(240), "{detect:?}");
    let worst =
        detection_window::detection_bounds(FailureClass::Silent, &detect, detect.timeout).worst;
    assert_eq!(detect.target, Some(worst.max(ms(300))));
}
