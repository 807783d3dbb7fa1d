use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::id::Place;

use super::*;

fn plan(fault: Fault, percent: u32) -> Plan {
    Plan {
        lose: Place::parse("here/a").expect("a place"),
        endpoint: None,
        pool: None,
        fault,
        share: Share::new(percent).expect("a share"),
        length: Duration::from_secs(20),
        matching: None,
        allowance: Allowance::default(),
        by_hand: true,
    }
}

fn room(lost: u64, left: u64) -> Room {
    let pool = PoolRoom {
        pool: "web".into(),
        lost_weight: lost,
        left_weight: left,
        lost_in_flight: 10,
        left_in_flight: 20,
        left_limit: None,
    };
    Room { pools: vec![pool] }
}

fn forecast(worst_ms: u64) -> Forecast {
    let worst = Some(Duration::from_millis(worst_ms));
    Forecast { class: "refused", rate_rps: 100.0, median: worst, p99: worst, worst, unseen: None }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A drill whose zone has seemed to fail since the second instant.
fn failing(percent: u32) -> (Run, Instant) {
    let now = Instant::now();
    let mut run = Run::begin(1, Arc::new(plan(Fault::Refused, percent)), now);
    run.handle_timeout(now + ms(999));
    assert_eq!(run.poll_todo(), None);
    run.handle_timeout(now + ms(1_000));
    assert_eq!(run.poll_todo(), Some(Todo::Look));
    run.looked(&room(1, 2), 400.0, now + ms(1_000));
    assert_eq!(run.poll_todo(), Some(Todo::Open));
    let requests = Counts { concerned: 400, requests: 100, ..Counts::default() };
    run.count(requests, None, now + ms(1_990));
    run.handle_timeout(now + ms(2_000));
    assert_eq!((run.poll_todo(), run.poll_todo()), (Some(Todo::Fail), None));
    assert_eq!(run.counts, Counts::default(), "they are counted from the onset");
    (run, now + ms(2_000))
}

fn ended(run: &mut Run) -> (Outcome, String, Vec<Todo>) {
    let todo = std::iter::from_fn(|| run.poll_todo()).collect();
    let Stage::Over(end) = &run.stage else { panic!("{:?}", run.stage) };
    (end.outcome, end.why.clone(), todo)
}

fn counts(requests: u64, failed: u64, resendable: u64) -> Counts {
    // A hundred came before the onset.
    let requests = requests + 100;
    Counts { concerned: 4 * requests, requests, failed, resendable, ..Counts::default() }
}

#[test]
fn a_drill_that_goes_as_predicted_ends_by_itself_and_has_succeeded() {
    let (mut run, onset) = failing(25);
    run.foretold(forecast(500));
    run.mark(Mark::Published, onset);
    run.mark(Mark::Suspect, onset + ms(3));
    run.mark(Mark::Verdict, onset + ms(40));
    run.mark(Mark::Published, onset + ms(41));
    run.count(counts(1_000, 2, 0), Some(onset + ms(30)), onset + ms(10_000));
    run.handle_timeout(onset + ms(19_999));
    assert_eq!(run.stage, Stage::Failing { until: onset + ms(20_000) });
    run.handle_timeout(onset + ms(20_000));
    let (outcome, why, todo) = ended(&mut run);
    assert_eq!((outcome, todo), (Outcome::Succeeded, vec![Todo::Close, Todo::File]), "{why}");
    assert_eq!(run.timeline.detection(), Some(ms(40)));
    assert_eq!(run.timeline.gap(), Some(ms(30)));
    assert_eq!(run.timeline.shift, Some(onset + ms(41)), "not that from before the verdict");
    assert_eq!(run.counts.requests, 1_000);
    run.interrupt("too late".to_owned(), onset + ms(20_001));
    assert_eq!(run.poll_todo(), None, "what is over is over");
}

#[test]
fn a_late_verdict_or_none_has_failed() {
    for (verdict_ms, expected) in [(599, Outcome::Succeeded), (601, Outcome::Failed)] {
        let (mut run, onset) = failing(25);
        run.mark(Mark::Verdict, onset + ms(verdict_ms));
        run.handle_timeout(onset + ms(20_000));
        assert!(matches!(run.stage, Stage::Judging { .. }), "the prediction is waited for");
        assert_eq!(run.poll_todo(), Some(Todo::Close), "but the lane is not kept open for it");
        run.foretold(forecast(500));
        assert_eq!(ended(&mut run).0, expected);
    }
    let (mut run, onset) = failing(25);
    run.foretold(forecast(500));
    run.handle_timeout(onset + ms(20_000));
    assert_eq!(ended(&mut run).0, Outcome::Failed);
}

#[test]
fn a_prediction_that_does_not_come_is_not_waited_for_for_ever() {
    let (mut run, onset) = failing(25);
    run.mark(Mark::Verdict, onset + ms(100));
    run.handle_timeout(onset + ms(20_000));
    let by = run.poll_timeout(onset).expect("a time");
    run.handle_timeout(by);
    assert_eq!(ended(&mut run).0, Outcome::Succeeded);
}

#[test]
fn a_failure_that_could_have_been_sent_again_has_failed_it() {
    let (mut run, onset) = failing(25);
    run.foretold(forecast(500));
    run.mark(Mark::Verdict, onset + ms(40));
    run.count(counts(1_000, 1, 1), Some(onset), onset + ms(100));
    run.handle_timeout(onset + ms(20_000));
    let (outcome, why, _) = ended(&mut run);
    assert_eq!(outcome, Outcome::Failed, "{why}");
}

#[test]
fn the_budget_aborts_at_once() {
    // 400 a second, a quarter of them, twenty seconds, one per cent.
    let (mut run, onset) = failing(25);
    assert_eq!(run.allowed, 20);
    run.count(counts(100, 20, 0), Some(onset), onset + ms(100));
    assert!(matches!(run.stage, Stage::Failing { .. }));
    run.count(counts(100, 21, 0), Some(onset), onset + ms(120));
    let (outcome, why, todo) = ended(&mut run);
    assert_eq!((outcome, todo), (Outcome::Interrupted, vec![Todo::Close, Todo::File]), "{why}");
    assert!(why.contains("21 requests failed"), "{why}");
}

#[test]
fn anything_real_interrupts_it_at_any_time() {
    let now = Instant::now();
    let mut run = Run::begin(1, Arc::new(plan(Fault::Hang, 25)), now);
    run.interrupt("an incident".to_owned(), now);
    assert_eq!(ended(&mut run), (Outcome::Interrupted, "an incident".to_owned(), vec![Todo::File]));
    let (mut run, onset) = failing(25);
    run.interrupt("an incident".to_owned(), onset + ms(50));
    let (outcome, _, todo) = ended(&mut run);
    assert_eq!((outcome, todo), (Outcome::Interrupted, vec![Todo::Close, Todo::File]));
}

#[test]
fn what_could_not_be_carried_is_not_tried() {
    let now = Instant::now();
    let mut run = Run::begin(1, Arc::new(plan(Fault::Refused, 100)), now);
    run.handle_timeout(now + ms(1_000));
    run.poll_todo();
    run.looked(&room(3, 2), 100.0, now + ms(1_000));
    let (outcome, why, todo) = ended(&mut run);
    assert_eq!((outcome, todo), (Outcome::CapacityCheckFailed, vec![Todo::File]));
    assert!(why.contains("2.5 times"), "{why}");
}

#[test]
fn capacity_is_weight_and_limits_and_only_the_share_moves() {
    let share = |percent| Share::new(percent).expect("a share");
    assert_eq!(room(1, 1).shortage(share(100)), None, "two zones of a size are made for that");
    assert!(room(3, 2).shortage(share(100)).is_some());
    assert_eq!(room(3, 2).shortage(share(50)), None);
    assert!(room(1, 0).shortage(share(1)).is_some(), "nothing is left");
    let limited = |limit| {
        let mut room = room(1, 2);
        room.pools[0].left_limit = Some(limit);
        room
    };
    assert_eq!(limited(30).shortage(share(100)), None);
    let why = limited(29).shortage(share(100)).expect("too little");
    assert!(why.contains("29 requests in flight"), "{why}");
    assert_eq!(limited(25).shortage(share(50)), None);
}

#[test]
fn a_share_is_exact_over_every_hundred_and_has_no_rhythm() {
    let mut rng = Rng::with_seed(7);
    let mut lot = Lot::default();
    let share = Share::new(25).expect("a share");
    let mut of_four = [0; 4];
    for block in 0..100 {
        let drawn: Vec<bool> = (0..100).map(|_| lot.draw(share, &mut rng)).collect();
        assert_eq!(drawn.iter().filter(|is| **is).count(), 25, "block {block}");
        drawn.iter().enumerate().filter(|(_, is)| **is).for_each(|(n, _)| of_four[n % 4] += 1);
    }
    assert!(of_four.iter().all(|count| (550..700).contains(count)), "{of_four:?}");
    let all = Share::new(100).expect("a share");
    let mut lot = Lot::default();
    assert!((0..1_000).all(|_| lot.draw(all, &mut rng)));
}

#[test]
fn what_must_not_run_twice_is_never_failed_where_it_may_have_run() {
    let faults = [
        Fault::Refused,
        Fault::Reset,
        Fault::Hang,
        Fault::Slow { delay: ms(2_000) },
        Fault::Status { status: 503 },
        Fault::Errors { percent: 30 },
        Fault::Cut,
    ];
    for fault in faults {
        for chance in [0.0, 0.29, 0.31, 0.99] {
            let meets = fault.meets(false, false, chance);
            // To the endpoint without any interference, or nowhere, with what is no success.
            assert!(!matches!(meets, Meets::Late(_) | Meets::Cut), "{fault}: {meets:?}");
        }
    }
    assert_eq!(Fault::Cut.meets(true, false, 0.0), Meets::Reset, "a PUT, or a HEAD");
    assert_eq!(Fault::Cut.meets(true, true, 0.0), Meets::Cut);
    let errors = Fault::Errors { percent: 30 };
    assert_eq!(errors.meets(true, true, 0.29), Meets::Status(500));
    assert_eq!(errors.meets(true, true, 0.3), Meets::Endpoint);
}

#[test]
fn faults_are_read_as_they_are_written() {
    for text in
        ["refused", "reset", "hang", "slow=2s", "status=503", "error-rate=30%", "cut", "slow=1.5s"]
    {
        assert_eq!(Fault::parse(text).map(|fault| fault.to_string()), Ok(text.to_owned()));
    }
    for text in ["", "boom", "slow", "slow=2", "slow=0s", "status=404", "error-rate=30", "cut=1"] {
        assert!(Fault::parse(text).is_err(), "{text}");
    }
}

#[test]
fn shares_allowances_and_headers_are_read() {
    assert_eq!(Share::parse("25%").map(Share::percent), Some(25));
    assert!(["25", "0%", "101%", "2.5%"].iter().all(|text| Share::parse(text).is_none()));
    assert_eq!(Allowance::parse("0.5%"), Some(Allowance::Part(0.005)));
    assert_eq!(Allowance::parse("20"), Some(Allowance::Requests(20)));
    assert_eq!(Allowance::parse("1%").map(|all| all.to_string()), Some("1%".to_owned()));
    assert_eq!(Allowance::Part(0.01).of(10.0), 1, "one in any case");
    let matching = Matching::parse("x-canary=yes").expect("a header");
    let mut headers = http::HeaderMap::new();
    assert!(!matching.is_met(&headers));
    headers.append("x-canary", "no".parse().expect("a value"));
    headers.append("x-canary", "yes".parse().expect("a value"));
    assert!(matching.is_met(&headers));
    assert!(Matching::parse("x canary=yes").is_none());
}

/// Monday, 5 January 2026, 00:00 UTC.
const MONDAY: u64 = 1_767_571_200;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

fn windows(texts: &[&str]) -> Vec<Window> {
    texts.iter().map(|text| Window::parse(text).expect("a window")).collect()
}

#[test]
fn practice_at_moments_keeps_to_its_windows() {
    let moments = ["Mon-Fri 09:30", "Sat 09:30"];
    let timetable = Timetable {
        rhythm: Rhythm::At(moments.map(|text| Moment::parse(text).expect("a moment")).to_vec()),
        allowed: windows(&["Mon-Fri 09:00-17:00"]),
        blocked: windows(&["Tue 09:00-12:00", "Thu 09:31-09:40"]),
    };
    let mut at = MONDAY;
    let mut due = Vec::new();
    for _ in 0..4 {
        at = timetable.next(at, 60).expect("a time");
        due.push((at - MONDAY) / 60);
    }
    // Not on Tuesday and Saturday, nor on Thursday, when it would end in a blocked window.
    let minute = |day: u64| day * 24 * 60 + 9 * 60 + 30;
    assert_eq!(due, [minute(0), minute(2), minute(4), minute(7)]);
}

#[test]
fn practice_every_so_often_is_due_once_in_each_part_whatever_was_before() {
    let timetable = Timetable {
        rhythm: Rhythm::Every { seconds: DAY },
        allowed: windows(&["Mon-Fri 10:00-11:00"]),
        blocked: Vec::new(),
    };
    let ten = MONDAY + 10 * HOUR;
    assert_eq!(timetable.next(MONDAY, 600), Some(ten));
    assert_eq!(timetable.next(ten - 1, 600), Some(ten));
    assert_eq!(
        timetable.next(ten, 600),
        Some(ten + DAY),
        "it has begun; a restart repeats nothing"
    );
    assert_eq!(timetable.next(ten + 4 * DAY, 600), Some(ten + 7 * DAY), "no weekends");
    assert_eq!(timetable.next(MONDAY, 2 * HOUR), None, "it does not fit");
    let free = Timetable { allowed: Vec::new(), ..timetable };
    assert_eq!(free.next(MONDAY + 1, 600), Some(MONDAY + DAY));
}

#[test]
fn windows_may_reach_over_midnight_and_the_weekend() {
    let night = Timetable {
        rhythm: Rhythm::Every { seconds: DAY },
        allowed: windows(&["Sun 22:00-02:00"]),
        blocked: Vec::new(),
    };
    assert!(night.is_open(MONDAY + HOUR, 0) && !night.is_open(MONDAY + 2 * HOUR, 0));
    assert!(night.is_open(MONDAY - HOUR, 60) && !night.is_open(MONDAY + DAY, 0));
    for text in ["Mon 09:00", "Mon-Fri 9-17", "Nixtag 09:00-10:00", "10:00-10:00", "24:00-25:00"] {
        assert!(Window::parse(text).is_none(), "{text}");
    }
    assert_eq!(windows(&["Fri-Mon 08:00-24:00"])[0].to_string(), "Mon,Fri,Sat,Sun 08:00-24:00");
    assert!(Moment::parse("Wed 24:00").is_none() && Moment::parse("07:05").is_some());
}
