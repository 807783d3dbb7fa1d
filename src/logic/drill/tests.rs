use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::model::id::Locality;
use crate::logic::overload::remaining_capacity::PoolCapacity;

use super::*;

fn plan(fault: DrillFault, percent: u32) -> DrillPlan {
    DrillPlan {
        zone: Locality::parse("here/a").expect("a place"),
        endpoint: None,
        pool: None,
        fault,
        share: SharePercent::new(percent).expect("a share"),
        length: Duration::from_secs(20),
        header_match: None,
        failure_budget: FailureBudget::default(),
        is_manual: true,
    }
}

fn capacity(lost: u64, left: u64) -> PoolCapacity {
    PoolCapacity {
        pool: "web".into(),
        lost_weight: lost,
        remaining_weight: left,
        lost_in_flight: 10,
        remaining_in_flight: 20,
        remaining_limit: None,
    }
}

fn prediction(worst_ms: u64) -> DrillPrediction {
    let worst = Some(Duration::from_millis(worst_ms));
    DrillPrediction {
        class: "refused",
        rate_rps: 100.0,
        median: worst,
        p99: worst,
        worst,
        unpredicted_reason: None,
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A drill whose fault was injected at the returned time.
fn failing_drill(percent: u32) -> (DrillRun, Instant) {
    let now = Instant::now();
    let mut run = DrillRun::new(DrillId::FIRST, Arc::new(plan(DrillFault::Refused, percent)), now);
    run.handle_timeout(now + ms(999));
    assert_eq!(run.poll_action(), None);
    run.handle_timeout(now + ms(1_000));
    assert_eq!(run.poll_action(), Some(DrillAction::CheckCapacity));
    run.on_capacity_measured(&[capacity(1, 2)], 400.0, now + ms(1_000));
    assert_eq!(run.poll_action(), Some(DrillAction::Start));
    let requests = DrillCounts { eligible: 400, requests: 100, ..DrillCounts::default() };
    run.update_counts(requests, None, now + ms(1_990));
    run.handle_timeout(now + ms(2_000));
    assert_eq!((run.poll_action(), run.poll_action()), (Some(DrillAction::InjectFault), None));
    assert_eq!(run.counts, DrillCounts::default(), "counted from the onset");
    (run, now + ms(2_000))
}

fn conclusion_of(run: &mut DrillRun) -> (DrillOutcome, String, Vec<DrillAction>) {
    let actions = std::iter::from_fn(|| run.poll_action()).collect();
    let DrillStage::Finished(conclusion) = &run.stage else { panic!("{:?}", run.stage) };
    (conclusion.outcome, conclusion.reason.clone(), actions)
}

fn counts(requests: u64, failed: u64, resendable: u64) -> DrillCounts {
    // A hundred came before the onset.
    let requests = requests + 100;
    DrillCounts {
        eligible: 4 * requests,
        requests,
        failed,
        retryable: resendable,
        ..DrillCounts::default()
    }
}

#[test]
fn drill_within_prediction_ends_and_succeeds() {
    let (mut run, onset) = failing_drill(25);
    run.on_prediction(prediction(500));
    run.record_milestone(DrillMilestone::Published, onset);
    run.record_milestone(DrillMilestone::Suspect, onset + ms(3));
    run.record_milestone(DrillMilestone::Verdict, onset + ms(40));
    run.record_milestone(DrillMilestone::Published, onset + ms(41));
    run.update_counts(counts(1_000, 2, 0), Some(onset + ms(30)), onset + ms(10_000));
    run.handle_timeout(onset + ms(19_999));
    assert_eq!(run.stage, DrillStage::Failing { until: onset + ms(20_000) });
    run.handle_timeout(onset + ms(20_000));
    let (outcome, why, actions) = conclusion_of(&mut run);
    assert_eq!(
        (outcome, actions),
        (DrillOutcome::Succeeded, vec![DrillAction::Stop, DrillAction::Store]),
        "{why}"
    );
    assert_eq!(run.timeline.detection(), Some(ms(40)));
    assert_eq!(run.timeline.failover_gap(), Some(ms(30)));
    assert_eq!(run.timeline.shift, Some(onset + ms(41)), "not a snapshot before the verdict");
    assert_eq!(run.counts.requests, 1_000);
    run.interrupt("too late".to_owned(), onset + ms(20_001));
    assert_eq!(run.poll_action(), None, "no action after the end");
}

#[test]
fn late_verdict_of_a_late_machine_is_no_failure() {
    for (late_ms, expected) in [(99, DrillOutcome::Failed), (100, DrillOutcome::Succeeded)] {
        let (mut run, onset) = failing_drill(25);
        run.record_milestone(DrillMilestone::Verdict, onset + ms(700));
        run.record_lateness(ms(late_ms));
        run.on_prediction(prediction(500));
        run.handle_timeout(onset + ms(20_000));
        let (outcome, reason, _) = conclusion_of(&mut run);
        assert_eq!(outcome, expected, "{reason}");
        if outcome == DrillOutcome::Succeeded {
            assert!(reason.contains("this machine was late by up to 100ms"), "{reason}");
        }
    }
}

#[test]
fn drill_with_late_or_no_verdict_fails() {
    for (verdict_ms, expected) in [(599, DrillOutcome::Succeeded), (601, DrillOutcome::Failed)] {
        let (mut run, onset) = failing_drill(25);
        run.record_milestone(DrillMilestone::Verdict, onset + ms(verdict_ms));
        run.handle_timeout(onset + ms(20_000));
        assert!(matches!(run.stage, DrillStage::Evaluating { .. }), "waits for the prediction");
        assert_eq!(run.poll_action(), Some(DrillAction::Stop), "but takes no more requests");
        run.on_prediction(prediction(500));
        assert_eq!(conclusion_of(&mut run).0, expected);
    }
    let (mut run, onset) = failing_drill(25);
    run.on_prediction(prediction(500));
    run.handle_timeout(onset + ms(20_000));
    assert_eq!(conclusion_of(&mut run).0, DrillOutcome::Failed);
}

#[test]
fn drill_without_prediction_concludes_after_timeout() {
    let (mut run, onset) = failing_drill(25);
    run.record_milestone(DrillMilestone::Verdict, onset + ms(100));
    run.handle_timeout(onset + ms(20_000));
    let by = run.poll_timeout(onset).expect("a time");
    run.handle_timeout(by);
    assert_eq!(conclusion_of(&mut run).0, DrillOutcome::Succeeded);
}

#[test]
fn drill_with_retryable_client_failure_fails() {
    let (mut run, onset) = failing_drill(25);
    run.on_prediction(prediction(500));
    run.record_milestone(DrillMilestone::Verdict, onset + ms(40));
    run.update_counts(counts(1_000, 1, 1), Some(onset), onset + ms(100));
    run.handle_timeout(onset + ms(20_000));
    let (outcome, why, _) = conclusion_of(&mut run);
    assert_eq!(outcome, DrillOutcome::Failed, "{why}");
}

#[test]
fn drill_over_failure_budget_is_interrupted_at_once() {
    // 400 a second, a quarter of them, twenty seconds, one per cent.
    let (mut run, onset) = failing_drill(25);
    assert_eq!(run.allowed, 20);
    run.update_counts(counts(100, 20, 0), Some(onset), onset + ms(100));
    assert!(matches!(run.stage, DrillStage::Failing { .. }));
    run.update_counts(counts(100, 21, 0), Some(onset), onset + ms(120));
    let (outcome, why, actions) = conclusion_of(&mut run);
    assert_eq!(
        (outcome, actions),
        (DrillOutcome::Interrupted, vec![DrillAction::Stop, DrillAction::Store]),
        "{why}"
    );
    assert!(why.contains("21 requests failed"), "{why}");
}

#[test]
fn interrupted_drill_takes_the_counts_of_its_end() {
    let (mut run, onset) = failing_drill(25);
    run.record_final_counts(counts(105, 1, 0), Some(onset));
    assert_eq!(run.counts.failed, 0, "it still takes samples");
    run.interrupt("it was stopped".to_owned(), onset + ms(110));
    run.record_final_counts(counts(105, 1, 0), Some(onset + ms(105)));
    assert_eq!((run.counts.failed, run.timeline.last_failure), (1, Some(onset + ms(105))));
}

#[test]
fn incident_interrupts_drill_in_any_stage() {
    let now = Instant::now();
    let mut run = DrillRun::new(DrillId::FIRST, Arc::new(plan(DrillFault::Hang, 25)), now);
    run.interrupt("an incident".to_owned(), now);
    assert_eq!(
        conclusion_of(&mut run),
        (DrillOutcome::Interrupted, "an incident".to_owned(), vec![DrillAction::Store])
    );
    let (mut run, onset) = failing_drill(25);
    run.interrupt("an incident".to_owned(), onset + ms(50));
    let (outcome, _, actions) = conclusion_of(&mut run);
    assert_eq!(
        (outcome, actions),
        (DrillOutcome::Interrupted, vec![DrillAction::Stop, DrillAction::Store])
    );
}

#[test]
fn drill_over_capacity_is_not_started() {
    let now = Instant::now();
    let mut run = DrillRun::new(DrillId::FIRST, Arc::new(plan(DrillFault::Refused, 100)), now);
    run.handle_timeout(now + ms(1_000));
    run.poll_action();
    run.on_capacity_measured(&[capacity(3, 2)], 100.0, now + ms(1_000));
    let (outcome, why, actions) = conclusion_of(&mut run);
    assert_eq!((outcome, actions), (DrillOutcome::CapacityCheckFailed, vec![DrillAction::Store]));
    assert!(why.contains("2.5 times"), "{why}");
}

#[test]
fn sampled_share_is_exact_per_hundred_and_aperiodic() {
    let mut rng = Rng::with_seed(7);
    let mut sampler = ShareSampler::default();
    let share = SharePercent::new(25).expect("a share");
    let mut of_four = [0; 4];
    for block in 0..100 {
        let drawn: Vec<bool> = (0..100).map(|_| sampler.is_sampled(share, &mut rng)).collect();
        assert_eq!(drawn.iter().filter(|is_sampled| **is_sampled).count(), 25, "block {block}");
        drawn
            .iter()
            .enumerate()
            .filter(|(_, is_sampled)| **is_sampled)
            .for_each(|(n, _)| of_four[n % 4] += 1);
    }
    assert!(of_four.iter().all(|count| (550..700).contains(count)), "{of_four:?}");
    let all = SharePercent::new(100).expect("a share");
    let mut sampler = ShareSampler::default();
    assert!((0..1_000).all(|_| sampler.is_sampled(all, &mut rng)));
}

#[test]
fn non_retryable_request_is_never_failed_after_it_ran() {
    let faults = [
        DrillFault::Refused,
        DrillFault::Reset,
        DrillFault::Hang,
        DrillFault::Slow { delay: ms(2_000) },
        DrillFault::Status { status: 503 },
        DrillFault::ErrorRate { percent: 30 },
        DrillFault::Cut,
    ];
    for fault in faults {
        for chance in [0.0, 0.29, 0.31, 0.99] {
            let effect = fault.effect(false, false, chance);
            // To the endpoint without any interference, or nowhere, with what is no success.
            assert!(
                !matches!(effect, FaultEffect::Delayed(_) | FaultEffect::Truncated),
                "{fault}: {effect:?}"
            );
        }
    }
    assert_eq!(DrillFault::Cut.effect(true, false, 0.0), FaultEffect::Reset, "a PUT, or a HEAD");
    assert_eq!(DrillFault::Cut.effect(true, true, 0.0), FaultEffect::Truncated);
    let errors = DrillFault::ErrorRate { percent: 30 };
    assert_eq!(errors.effect(true, true, 0.29), FaultEffect::Status(500));
    assert_eq!(errors.effect(true, true, 0.3), FaultEffect::Passthrough);
}

#[test]
fn fault_parse_and_display_round_trip() {
    for text in
        ["refused", "reset", "hang", "slow=2s", "status=503", "error-rate=30%", "cut", "slow=1.5s"]
    {
        assert_eq!(DrillFault::parse(text).map(|fault| fault.to_string()), Ok(text.to_owned()));
    }
    for text in ["", "boom", "slow", "slow=2", "slow=0s", "status=404", "error-rate=30", "cut=1"] {
        assert!(DrillFault::parse(text).is_err(), "{text}");
    }
}

#[test]
fn share_budget_and_header_match_are_parsed() {
    assert_eq!(SharePercent::parse("25%").map(SharePercent::percent), Some(25));
    assert!(["25", "0%", "101%", "2.5%"].iter().all(|text| SharePercent::parse(text).is_none()));
    assert_eq!(FailureBudget::parse("0.5%"), Some(FailureBudget::Fraction(0.005)));
    assert_eq!(FailureBudget::parse("20"), Some(FailureBudget::Requests(20)));
    assert_eq!(FailureBudget::parse("1%").map(|all| all.to_string()), Some("1%".to_owned()));
    assert_eq!(FailureBudget::Fraction(0.01).allowed_failures(10.0), 1, "at least one");
    let header_match = HeaderMatch::parse("x-canary=yes").expect("a header");
    let mut headers = http::HeaderMap::new();
    assert!(!header_match.is_match(&headers));
    headers.append("x-canary", "no".parse().expect("a value"));
    headers.append("x-canary", "yes".parse().expect("a value"));
    assert!(header_match.is_match(&headers));
    assert!(HeaderMatch::parse("x canary=yes").is_none());
}

/// Monday, 5 January 2026, 00:00 UTC.
const MONDAY: u64 = 1_767_571_200;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

fn windows(texts: &[&str]) -> Vec<WeeklyWindow> {
    texts.iter().map(|text| WeeklyWindow::parse(text).expect("a window")).collect()
}

#[test]
fn weekly_practice_stays_inside_its_windows() {
    let times = ["Mon-Fri 09:30", "Sat 09:30"];
    let calendar = PracticeCalendar {
        recurrence: Recurrence::Weekly(
            times.map(|text| WeeklyTime::parse(text).expect("a moment")).to_vec(),
        ),
        allowed: windows(&["Mon-Fri 09:00-17:00"]),
        blocked: windows(&["Tue 09:00-12:00", "Thu 09:31-09:40"]),
    };
    let mut at = MONDAY;
    let mut due = Vec::new();
    for _ in 0..4 {
        at = calendar.next_start_s(at, 60).expect("a time");
        due.push((at - MONDAY) / 60);
    }
    // Not on Tuesday and Saturday, nor on Thursday, when it would end in a blocked window.
    let minute = |day: u64| day * 24 * 60 + 9 * 60 + 30;
    assert_eq!(due, [minute(0), minute(2), minute(4), minute(7)]);
}

#[test]
fn periodic_practice_is_due_once_per_period() {
    let calendar = PracticeCalendar {
        recurrence: Recurrence::Every { seconds: DAY },
        allowed: windows(&["Mon-Fri 10:00-11:00"]),
        blocked: Vec::new(),
    };
    let ten = MONDAY + 10 * HOUR;
    assert_eq!(calendar.next_start_s(MONDAY, 600), Some(ten));
    assert_eq!(calendar.next_start_s(ten - 1, 600), Some(ten));
    assert_eq!(calendar.next_start_s(ten, 600), Some(ten + DAY), "already begun; not repeated");
    assert_eq!(calendar.next_start_s(ten + 4 * DAY, 600), Some(ten + 7 * DAY), "no weekends");
    assert_eq!(calendar.next_start_s(MONDAY, 2 * HOUR), None, "it does not fit");
    let free = PracticeCalendar { allowed: Vec::new(), ..calendar };
    assert_eq!(free.next_start_s(MONDAY + 1, 600), Some(MONDAY + DAY));
}

#[test]
fn window_may_cross_midnight_and_weekend() {
    let night = PracticeCalendar {
        recurrence: Recurrence::Every { seconds: DAY },
        allowed: windows(&["Sun 22:00-02:00"]),
        blocked: Vec::new(),
    };
    assert!(night.is_allowed_at(MONDAY + HOUR, 0) && !night.is_allowed_at(MONDAY + 2 * HOUR, 0));
    assert!(night.is_allowed_at(MONDAY - HOUR, 60) && !night.is_allowed_at(MONDAY + DAY, 0));
    for text in ["Mon 09:00", "Mon-Fri 9-17", "Nixtag 09:00-10:00", "10:00-10:00", "24:00-25:00"] {
        assert!(WeeklyWindow::parse(text).is_none(), "{text}");
    }
    assert_eq!(windows(&["Fri-Mon 08:00-24:00"])[0].to_string(), "Mon,Fri,Sat,Sun 08:00-24:00");
    assert!(WeeklyTime::parse("Wed 24:00").is_none() && WeeklyTime::parse("07:05").is_some());
}
