//! The pure parts of the failover bench.

#[path = "../../benches/failover/evaluation.rs"]
mod evaluation;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evaluation::{FailoverFigures, FaultInterval, breaches, compute_figures};

use crate::executed_posts::ExecutedPosts;
use crate::layout;
use crate::sample::{ClientResult, ClientSample};
use crate::scenario::{self, FailoverBound, FailoverScope, FaultExtent, SCENARIOS};

/// Requests every 10 ms, a failure from second 1 to second 3; all answered within 3 ms.
struct FailoverRun {
    started_at: Instant,
    samples: Vec<ClientSample>,
}

const REQUEST_INTERVAL_MS: u64 = 10;

/// The wall clock at the start of a run.
const WALL_CLOCK_AT_START: Duration = Duration::from_secs(1_000);

impl FailoverRun {
    fn new() -> Self {
        let started_at = Instant::now();
        let samples = (0..400).map(|number| {
            let due = started_at + Duration::from_millis(number * REQUEST_INTERVAL_MS);
            ClientSample {
                number,
                due,
                send_delay: Duration::ZERO,
                ended: due + Duration::from_millis(3),
                ended_at: SystemTime::UNIX_EPOCH,
                is_post: number % 5 == 4,
                result: ClientResult::Answered(200),
                served_by: Some(layout::endpoint_address(0)),
            }
        });
        Self { started_at, samples: samples.collect() }
    }

    /// Sets the duration and result of the request that was due then.
    fn set_outcome(&mut self, due_ms: u64, took_ms: u64, is_good: bool) -> &mut Self {
        let sample = &mut self.samples[(due_ms / REQUEST_INTERVAL_MS) as usize];
        sample.ended = sample.due + Duration::from_millis(took_ms);
        sample.ended_at =
            UNIX_EPOCH + WALL_CLOCK_AT_START + Duration::from_millis(due_ms + took_ms);
        sample.result = if is_good { ClientResult::Answered(200) } else { ClientResult::TimedOut };
        if !is_good {
            sample.served_by = None;
        }
        self
    }

    /// Requests between these times were answered by another endpoint.
    fn set_served_elsewhere(&mut self, from_ms: u64, to_ms: u64) -> &mut Self {
        for due_ms in (from_ms..to_ms).step_by(REQUEST_INTERVAL_MS as usize) {
            self.samples[(due_ms / REQUEST_INTERVAL_MS) as usize].served_by =
                Some(layout::endpoint_address(3));
        }
        self
    }

    fn figures(&self, executed: &str) -> FailoverFigures {
        let moments = FaultInterval {
            onset: self.started_at + Duration::from_millis(1_000),
            healed: self.started_at + Duration::from_millis(3_000),
        };
        let executed = ExecutedPosts::parse(executed).expect("lines about POSTs");
        let is_failing = |by: SocketAddr| by == layout::endpoint_address(0);
        compute_figures(&self.samples, moments, is_failing, &executed)
    }
}

fn bound(gap_s: f64, failed_get: f64, failed_post: f64) -> FailoverBound {
    FailoverBound { gap_s, failed_get, failed_post, left_s: None }
}

#[test]
fn gap_spans_first_to_last_failed_or_late_request() {
    let mut run = FailoverRun::new();
    run.set_outcome(1_200, 151, true)
        .set_outcome(1_300, 1_000, false)
        .set_outcome(1_340, 1_000, false);
    run.set_outcome(1_500, 150, true);
    let figures = run.figures("");
    assert!((figures.gap_s - 0.14).abs() < 1e-9, "{figures:?}");
    assert!((figures.failing_s - 0.04).abs() < 1e-9, "{figures:?}");
    assert_eq!((figures.failed_get, figures.failed_post, figures.late), (1, 1, 1));
    assert_eq!(figures.failures, [("timeout".to_owned(), 2)].into());
    assert!((figures.max_good_ms - 151.0).abs() < 1e-9, "{figures:?}");
    assert!(!figures.is_still_failing);
}

#[test]
fn request_in_flight_at_onset_counts_as_failed() {
    let mut run = FailoverRun::new();
    run.set_outcome(900, 50, false).set_outcome(980, 500, false).set_outcome(990, 500, false);
    let figures = run.figures("");
    assert_eq!((figures.failed_get, figures.failed_post, figures.failed_before), (1, 1, 1));
    assert_eq!(figures.failed_post_under_way, 1);
    // A POST that is due 40 ms after the onset is sent into it.
    let late = run.set_outcome(990, 3, true).set_outcome(1_040, 500, false).figures("");
    assert_eq!((late.failed_post, late.failed_post_under_way), (1, 0));
}

#[test]
fn failure_just_before_heal_is_still_failing() {
    let is_still_failing =
        |due_ms| FailoverRun::new().set_outcome(due_ms, 9, false).figures("").is_still_failing;
    assert!(is_still_failing(2_900));
    assert!(!is_still_failing(2_400));
    assert!(!is_still_failing(3_100));
}

#[test]
fn leave_and_return_times_follow_serving_endpoint() {
    let mut run = FailoverRun::new();
    let figures = run.set_served_elsewhere(1_500, 3_250).figures("");
    assert_eq!(figures.left_s.map(|left_s| (left_s * 1e3).round()), Some(490.0));
    assert_eq!(figures.return_s.map(|return_s| (return_s * 1e3).round()), Some(253.0));
    let never_returned = run.set_served_elsewhere(1_000, 4_000).figures("");
    assert_eq!((never_returned.left_s, never_returned.return_s), (None, None));
}

#[test]
fn failed_post_executed_later_or_twice_is_counted() {
    let at = |ms: u64| (WALL_CLOCK_AT_START + Duration::from_millis(ms)).as_micros();
    let mut run = FailoverRun::new();
    // Numbers 104, 109, 114 fail at 2.04, 2.09 and 2.14 s; 119 is answered.
    run.set_outcome(1_040, 1_000, false)
        .set_outcome(1_090, 1_000, false)
        .set_outcome(1_140, 1_000, false);
    let text =
        format!("104 {}\n109 {}\n119 {}\n119 {}\n", at(3_001), at(1_095), at(1_191), at(1_195));
    let figures = run.figures(&text);
    assert_eq!((figures.executed_later, figures.executed_failed), (1, 2));
    assert_eq!(figures.executed_twice, 1);
    assert!(ExecutedPosts::parse("104").is_err());
    assert!(ExecutedPosts::parse("104 soon").is_err());
}

#[test]
fn bound_grows_with_rate_and_excludes_in_flight_requests() {
    let figures_with = |failed_post, failing_s| FailoverFigures {
        failed_post,
        failing_s,
        ..FailoverFigures::default()
    };
    let one = bound(0.05, 0.0, 1.0);
    assert!(breaches(&figures_with(1, 0.05), &one, 60.0).is_empty());
    assert_eq!(breaches(&figures_with(2, 0.05), &one, 60.0), ["2 failed POSTs, at most 1"]);
    assert!(breaches(&figures_with(4, 0.05), &one, 240.0).is_empty());
    let under_way = FailoverFigures { failed_post_under_way: 1, ..figures_with(1, 0.0) };
    assert!(breaches(&under_way, &bound(0.0, 0.0, 0.0), 60.0).is_empty());
    // Three POSTs at 12 per second are a sixth of a second apart.
    let three = bound(0.25, 0.0, 3.0);
    assert!(breaches(&figures_with(3, 0.41), &three, 60.0).is_empty());
    assert_eq!(breaches(&figures_with(3, 0.42), &three, 60.0).len(), 1);
}

#[test]
fn failed_get_or_repeated_post_breaches_bound() {
    let none = bound(9.0, 0.0, 9.0);
    for breach in [
        FailoverFigures { failed_get: 1, ..FailoverFigures::default() },
        FailoverFigures { executed_twice: 1, ..FailoverFigures::default() },
        FailoverFigures { failed_before: 1, ..FailoverFigures::default() },
    ] {
        assert_eq!(breaches(&breach, &none, 60.0).len(), 1, "{breach:?}");
    }
    let left = FailoverBound { left_s: Some(1.0), ..none };
    let figures_with_left = |left_s| FailoverFigures { left_s, ..FailoverFigures::default() };
    assert!(breaches(&figures_with_left(None), &left, 60.0).is_empty());
    assert!(breaches(&figures_with_left(Some(0.9)), &left, 60.0).is_empty());
    assert_eq!(breaches(&figures_with_left(Some(1.1)), &left, 60.0).len(), 1);
}

#[test]
fn every_scenario_has_class_and_failing_endpoints_of_scope() {
    for scenario in SCENARIOS {
        assert!(scenario.class().is_some(), "{}", scenario.name);
        match scenario.extent {
            FaultExtent::PreferredZone => {
                assert_eq!(
                    scenario.failing_endpoints(FailoverScope::Zone).len(),
                    layout::ZONE_ENDPOINTS
                );
                assert_eq!(scenario.failing_endpoints(FailoverScope::Endpoint).len(), 1);
            }
            FaultExtent::AllEndpoints(_) => {
                assert!(
                    scenario.is_run_in(FailoverScope::Zone)
                        && !scenario.is_run_in(FailoverScope::Endpoint)
                );
                assert_eq!(
                    scenario.failing_endpoints(FailoverScope::Zone).len(),
                    layout::POOL_ENDPOINTS
                );
            }
        }
    }
    assert!(SCENARIOS.iter().any(|scenario| scenario.name == scenario::SMOKE_SCENARIO));
}
