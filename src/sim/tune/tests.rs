use std::net::SocketAddr;

use fastrand::Rng;

use super::*;
use crate::logic::outcome::Class;
use crate::logic::probe::{HttpProbe, ProbeSpec};
use crate::logic::topology::{EndpointSpec, ZoneSpec};
use crate::logic::window;
use crate::sim::latency::Distribution;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Two zones of two endpoints each.
fn pool() -> PoolSpec {
    let endpoint =
        |port| EndpointSpec { address: SocketAddr::from(([10, 0, 0, 1], port)), weight: 1 };
    let zone = |(name, port): (&str, u16)| {
        let endpoints = vec![endpoint(port), endpoint(port + 1)];
        ZoneSpec::new(Place::parse(name).expect("a place"), endpoints)
    };
    PoolSpec {
        probes: vec![ProbeSpec::http(HttpProbe::get("/"))],
        ..PoolSpec::new("web", [("r/a", 1), ("r/b", 3)].map(zone).into())
    }
}

fn question(seed: u64, trials: u32, latency: Latency) -> predict::Question {
    predict::Question { trials, seed, round_trip: ms(1), rate_rps: None, latency, threads: 2 }
}

fn subject(pool: &PoolSpec, probe_loss: f64, trials: u32) -> Subject<'_> {
    Subject { pool, question: question(1, trials, Latency::Fixed(ms(1))), probe_loss }
}

fn wishes(target_ms: u64) -> Wishes {
    Wishes {
        target: ms(target_ms),
        faults: Fault::ALL.to_vec(),
        must_see_all: false,
        false_yearly: 1.0,
        probes_per_second: 10_000.0,
    }
}

fn ask(subject: &Subject<'_>, wishes: &Wishes) -> Answer {
    tune(std::slice::from_ref(subject), None, wishes, Instant::now(), &mut |_| {})
}

fn found(answer: &Answer) -> &State {
    answer.pools[0]
        .after
        .as_ref()
        .unwrap_or_else(|| panic!("nothing: {:?}", answer.pools[0].binding))
}

#[test]
fn a_tuned_window_meets_its_target_in_a_world_of_another_seed() {
    let mut rng = Rng::with_seed(11);
    let pool = pool();
    for _ in 0..3 {
        let wishes = wishes(rng.u64(90..3_000));
        let drawn = Distribution::parametric(&[(0.5, ms(1)), (0.999, ms(6))], Some(ms(20)));
        let latency = Latency::Drawn(Arc::new(drawn.expect("rising")));
        let probe_loss = 0.02 * rng.f64();
        let question = question(1, 200, latency.clone());
        let subject = Subject { pool: &pool, question, probe_loss };
        let answer = ask(&subject, &wishes);
        assert!(answer.is_met, "{wishes:?} {answer:?}");
        let state = found(&answer);
        assert!(state.false_yearly < wishes.false_yearly, "{state:?}");
        let Detect { interval, timeout, fast_interval, down_interval, .. } = state.detect;
        assert!(timeout <= interval && timeout <= down_interval && fast_interval <= interval);
        let again = Subject { question: self::question(2, 200, latency), ..subject };
        let tuned = PoolSpec { detect: state.detect, ..pool.clone() };
        let once_more = super::state(&tuned, &again, None, &wishes.faults, Instant::now());
        let slowest = once_more.slowest.expect("a row");
        assert!(slowest.p99 <= wishes.target, "{wishes:?} {slowest:?} {:?}", state.detect);
        // And it is no better than it must be: probes cost.
        assert!(slowest.p99 > wishes.target.mul_f64(0.8), "{wishes:?} {slowest:?}");
    }
}

#[test]
fn a_tighter_target_never_takes_fewer_probes() {
    let pool = pool();
    for probe_loss in [0.001, 0.05] {
        let subject = subject(&pool, probe_loss, 60);
        let probes = [2_500, 700, 400, 300, 200].map(|target_ms| {
            let answer = ask(&subject, &wishes(target_ms));
            if answer.is_met { found(&answer).probes_per_second } else { f64::INFINITY }
        });
        assert!(probes.is_sorted() && probes[2].is_finite(), "{probe_loss}: {probes:?}");
    }
}

#[test]
fn what_loses_more_takes_more_strikes_or_waits_longer() {
    let pool = pool();
    let of = |probe_loss| {
        let answer = ask(&subject(&pool, probe_loss, 60), &wishes(600));
        (found(&answer).detect, found(&answer).probes_per_second)
    };
    let ((quiet, few), (lossy, many)) = (of(0.0), of(0.05));
    let silence = |detect: Detect| detect.timeout * detect.down_after;
    assert!(silence(quiet) < silence(lossy) && few < many, "{quiet:?} {lossy:?}");
}

#[test]
fn a_target_that_cannot_be_met_says_what_is_in_the_way_and_the_best_that_can() {
    let pool = pool();
    // A probe waits for twelve times what an answer takes: 600 ms and more.
    let slow =
        Subject { question: question(1, 60, Latency::Fixed(ms(50))), ..subject(&pool, 0.0, 60) };
    let late = ask(&slow, &wishes(300));
    let binding = &late.pools[0].binding;
    assert!(matches!(binding[..], [Constraint::Timeout(least)] if least > ms(599)), "{binding:?}");
    let lossy = ask(&subject(&pool, 0.3, 60), &wishes(300));
    assert!(
        matches!(lossy.pools[0].binding[..], [Constraint::FalseVerdicts(least)] if least > 1.0)
    );
    let frugal = Wishes { probes_per_second: 12.0, ..wishes(300) };
    let poor = ask(&subject(&pool, 0.0, 200), &frugal);
    assert!(poor.pools[0].binding.is_empty() && poor.over_budget > Some(12.0), "{poor:?}");
    for (answer, target) in [(&late, 300), (&lossy, 300), (&poor, 300)] {
        assert!(!answer.is_met);
        let reachable = answer.reachable.expect("some window can be had");
        let slowest = found(answer).slowest.expect("a row").p99;
        assert!(ms(target) < slowest && slowest <= reachable, "{answer:?}");
    }
    assert!(found(&poor).probes_per_second <= 12.0);
    // It can be met indeed.
    let again =
        ask(&subject(&pool, 0.0, 200), &Wishes { target: poor.reachable.expect("one"), ..frugal });
    assert!(again.is_met, "{again:?}");
}

#[test]
fn what_no_probe_sees_is_in_the_way_only_if_it_was_asked_for() {
    let pool = pool();
    let asked = Wishes {
        faults: vec![Fault::Refused, Fault::WrongBody],
        must_see_all: true,
        ..wishes(500)
    };
    let answer = ask(&subject(&pool, 0.0, 60), &asked);
    let unseen = Constraint::Unseen(Fault::WrongBody, Unseen::ProbePasses);
    assert_eq!((answer.is_met, &answer.pools[0].binding), (false, &vec![unseen]));
    assert_eq!((answer.reachable, answer.pools[0].after.is_none()), (None, true));
    assert!(ask(&subject(&pool, 0.0, 60), &wishes(500)).is_met);
}

#[test]
fn refusals_alone_leave_time_between_probes_and_a_stretched_window_its_room() {
    let stretched = Detect { target: Some(ms(5_000)), ..Detect::default() };
    let pool = PoolSpec { detect: stretched, ..pool() };
    let only = Wishes { faults: vec![Fault::Refused], must_see_all: true, ..wishes(300) };
    let answer = ask(&subject(&pool, 0.0, 60), &only);
    let detect = found(&answer).detect;
    assert!(answer.is_met && detect.interval > ms(240), "{detect:?}");
    let worst = window::bounds(Class::Silent, &detect, detect.timeout).worst;
    assert_eq!(detect.target, Some(worst.max(ms(300))));
}
