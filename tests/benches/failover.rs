//! The pure parts of the failover bench: a bench that misjudges its runs is worse than none.

#[path = "../../benches/failover/judge.rs"]
mod judge;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use judge::{Figures, Moments, breaches, figures};

use crate::layout;
use crate::posts::Executed;
use crate::sample::{End, Sample};
use crate::scenario::{self, Bound, Hits, SCENARIOS, Scope};

/// Requests every 10 ms, the failure from the second 1 to the second 3; all answered within 3 ms.
struct Run {
    began: Instant,
    samples: Vec<Sample>,
}

const EVERY_MS: u64 = 10;

/// The wall clock at the begin of a run.
const WALL: Duration = Duration::from_secs(1_000);

impl Run {
    fn new() -> Self {
        let began = Instant::now();
        let samples = (0..400).map(|number| {
            let due = began + Duration::from_millis(number * EVERY_MS);
            Sample {
                number,
                due,
                sent_late: Duration::ZERO,
                ended: due + Duration::from_millis(3),
                ended_at: SystemTime::UNIX_EPOCH,
                is_post: number % 5 == 4,
                end: End::Answered(200),
                served_by: Some(layout::address(0)),
            }
        });
        Self { began, samples: samples.collect() }
    }

    /// The request that was due then took so long, and was answered well or not.
    fn set(&mut self, due_ms: u64, took_ms: u64, is_good: bool) -> &mut Self {
        let sample = &mut self.samples[(due_ms / EVERY_MS) as usize];
        sample.ended = sample.due + Duration::from_millis(took_ms);
        sample.ended_at = UNIX_EPOCH + WALL + Duration::from_millis(due_ms + took_ms);
        sample.end = if is_good { End::Answered(200) } else { End::TimedOut };
        if !is_good {
            sample.served_by = None;
        }
        self
    }

    /// Whoever was asked between these times, another endpoint answered.
    fn served_elsewhere(&mut self, from_ms: u64, to_ms: u64) -> &mut Self {
        for due_ms in (from_ms..to_ms).step_by(EVERY_MS as usize) {
            self.samples[(due_ms / EVERY_MS) as usize].served_by = Some(layout::address(3));
        }
        self
    }

    fn figures(&self, executed: &str) -> Figures {
        let moments = Moments {
            onset: self.began + Duration::from_millis(1_000),
            healed: self.began + Duration::from_millis(3_000),
        };
        let executed = Executed::parse(executed).expect("lines about POSTs");
        let is_failing = |by: SocketAddr| by == layout::address(0);
        figures(&self.samples, moments, is_failing, &executed)
    }
}

fn bound(gap_s: f64, failed_get: f64, failed_post: f64) -> Bound {
    Bound { gap_s, failed_get, failed_post, left_s: None }
}

#[test]
fn a_gap_is_from_the_first_failed_or_late_request_to_the_last_by_when_they_were_due() {
    let mut run = Run::new();
    run.set(1_200, 151, true).set(1_300, 1_000, false).set(1_340, 1_000, false);
    run.set(1_500, 150, true);
    let figures = run.figures("");
    assert!((figures.gap_s - 0.14).abs() < 1e-9, "{figures:?}");
    assert!((figures.failing_s - 0.04).abs() < 1e-9, "{figures:?}");
    assert_eq!((figures.failed_get, figures.failed_post, figures.late), (1, 1, 1));
    assert_eq!(figures.failures, [("timeout".to_owned(), 2)].into());
    assert!((figures.max_good_ms - 151.0).abs() < 1e-9, "{figures:?}");
    assert!(!figures.is_still_failing);
}

#[test]
fn what_was_under_way_at_the_onset_counts_and_what_had_ended_does_not() {
    let mut run = Run::new();
    run.set(900, 50, false).set(980, 500, false).set(990, 500, false);
    let figures = run.figures("");
    assert_eq!((figures.failed_get, figures.failed_post, figures.failed_before), (1, 1, 1));
    assert_eq!(figures.failed_post_under_way, 1);
    // A POST that is due 40 ms after the onset is sent into it.
    let late = run.set(990, 3, true).set(1_040, 500, false).figures("");
    assert_eq!((late.failed_post, late.failed_post_under_way), (1, 0));
}

#[test]
fn failures_until_the_heal_are_still_going_on() {
    let is_still_failing = |due_ms| Run::new().set(due_ms, 9, false).figures("").is_still_failing;
    assert!(is_still_failing(2_900));
    assert!(!is_still_failing(2_400));
    assert!(!is_still_failing(3_100));
}

#[test]
fn leaving_and_returning_are_told_by_who_answered() {
    let mut run = Run::new();
    let figures = run.served_elsewhere(1_500, 3_250).figures("");
    assert_eq!(figures.left_s.map(|left_s| (left_s * 1e3).round()), Some(490.0));
    assert_eq!(figures.return_s.map(|return_s| (return_s * 1e3).round()), Some(253.0));
    let nobody = run.served_elsewhere(1_000, 4_000).figures("");
    assert_eq!((nobody.left_s, nobody.return_s), (None, None));
}

#[test]
fn a_failed_post_that_is_read_later_is_told_from_one_read_before_and_one_read_twice() {
    let at = |ms: u64| (WALL + Duration::from_millis(ms)).as_micros();
    let mut run = Run::new();
    // Numbers 104, 109, 114 fail at 2.04, 2.09 and 2.14 s; 119 is answered.
    run.set(1_040, 1_000, false).set(1_090, 1_000, false).set(1_140, 1_000, false);
    let text =
        format!("104 {}\n109 {}\n119 {}\n119 {}\n", at(3_001), at(1_095), at(1_191), at(1_195));
    let figures = run.figures(&text);
    assert_eq!((figures.executed_later, figures.executed_failed), (1, 2));
    assert_eq!(figures.executed_twice, 1);
    assert!(Executed::parse("104").is_err());
    assert!(Executed::parse("104 soon").is_err());
}

#[test]
fn a_bound_grows_with_the_rate_and_spares_what_was_under_way() {
    let seen = |failed_post, failing_s| Figures { failed_post, failing_s, ..Figures::default() };
    let one = bound(0.05, 0.0, 1.0);
    assert!(breaches(&seen(1, 0.05), &one, 60.0).is_empty());
    assert_eq!(breaches(&seen(2, 0.05), &one, 60.0), ["2 failed POSTs, at most 1"]);
    assert!(breaches(&seen(4, 0.05), &one, 240.0).is_empty());
    let under_way = Figures { failed_post_under_way: 1, ..seen(1, 0.0) };
    assert!(breaches(&under_way, &bound(0.0, 0.0, 0.0), 60.0).is_empty());
    // Three POSTs of 12 a second are a sixth of a second apart, whoever is asked.
    let three = bound(0.25, 0.0, 3.0);
    assert!(breaches(&seen(3, 0.41), &three, 60.0).is_empty());
    assert_eq!(breaches(&seen(3, 0.42), &three, 60.0).len(), 1);
}

#[test]
fn no_get_may_fail_and_no_post_may_run_twice() {
    let none = bound(9.0, 0.0, 9.0);
    for breach in [
        Figures { failed_get: 1, ..Figures::default() },
        Figures { executed_twice: 1, ..Figures::default() },
        Figures { failed_before: 1, ..Figures::default() },
    ] {
        assert_eq!(breaches(&breach, &none, 60.0).len(), 1, "{breach:?}");
    }
    let left = Bound { left_s: Some(1.0), ..none };
    let asked = |left_s| Figures { left_s, ..Figures::default() };
    assert!(breaches(&asked(None), &left, 60.0).is_empty());
    assert!(breaches(&asked(Some(0.9)), &left, 60.0).is_empty());
    assert_eq!(breaches(&asked(Some(1.1)), &left, 60.0).len(), 1);
}

#[test]
fn every_scenario_has_its_class_and_fails_what_its_scope_says() {
    for scenario in SCENARIOS {
        assert!(scenario.class().is_some(), "{}", scenario.name);
        match scenario.hits {
            Hits::First => {
                assert_eq!(scenario.failing(Scope::Zone).len(), layout::ZONE_ENDPOINTS);
                assert_eq!(scenario.failing(Scope::Endpoint).len(), 1);
            }
            Hits::Everybody(_) => {
                assert!(scenario.is_in(Scope::Zone) && !scenario.is_in(Scope::Endpoint));
                assert_eq!(scenario.failing(Scope::Zone).len(), layout::POOL_ENDPOINTS);
            }
        }
    }
    assert!(SCENARIOS.iter().any(|scenario| scenario.name == scenario::SMOKE));
}
