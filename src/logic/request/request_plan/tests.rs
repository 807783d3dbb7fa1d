use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::logic::request::server_errors::ServerErrors;

const GET: RequestTraits =
    RequestTraits { is_idempotent: true, body: BodyLength::Absent, is_upgrade: false };
const POST: RequestTraits =
    RequestTraits { is_idempotent: false, body: BodyLength::Known { bytes: 3 }, is_upgrade: false };
const BUDGETED: Resend = Resend { payment: Some(BudgetedResend::Retry), can_queue: true };
const UNBUDGETED: Resend = Resend { payment: None, can_queue: true };

fn target(slot: u32) -> AttemptTarget {
    AttemptTarget {
        endpoint: EndpointId { slot, generation: 0 },
        zone: slot as usize % 2,
        is_trial: false,
    }
}

fn trial(slot: u32) -> AttemptTarget {
    AttemptTarget { is_trial: true, ..target(slot) }
}

fn failed(exposure: RequestExposure) -> AttemptEvent {
    AttemptEvent::Failed { exposure, is_body_buffered: true }
}

fn head(status: u16) -> AttemptEvent {
    AttemptEvent::HeadArrived { status, is_body_buffered: true }
}

/// The plan of a request whose first attempt has started.
fn started(traits: RequestTraits, spec: &RetrySpec) -> RequestPlan {
    let mut plan = RequestPlan::new(traits, spec);
    plan.start_attempt();
    plan
}

#[test]
fn sent_post_is_never_resent() {
    let spec = RetrySpec::default();
    for event in [failed(RequestExposure::MaybeSent), AttemptEvent::Stalled, head(503)] {
        let expected = match event {
            AttemptEvent::Stalled => Decision::Wait,
            AttemptEvent::HeadArrived { .. } => Decision::Return,
            AttemptEvent::Failed { .. } => Decision::Fail,
        };
        assert_eq!(started(POST, &spec).handle(target(0), event, &spec), expected);
    }
}

#[test]
fn unsent_request_is_resent_for_any_method() {
    let spec = RetrySpec::default();
    for traits in [GET, POST] {
        let mut plan = started(traits, &spec);
        let decision = plan.handle(target(0), failed(RequestExposure::NotSent), &spec);
        assert_eq!(decision, Decision::ResendOrFail(UNBUDGETED));
    }
}

#[test]
fn request_without_buffered_body_is_not_resent() {
    let spec = RetrySpec::default();
    for exposure in [RequestExposure::NotSent, RequestExposure::MaybeSent] {
        let event = AttemptEvent::Failed { exposure, is_body_buffered: false };
        assert_eq!(started(GET, &spec).handle(target(0), event, &spec), Decision::Fail);
    }
    let event = AttemptEvent::HeadArrived { status: 503, is_body_buffered: false };
    assert_eq!(started(GET, &spec).handle(target(0), event, &spec), Decision::Return);
}

#[test]
fn failed_trial_is_resent_without_budget() {
    let spec = RetrySpec { attempts: 2, ..RetrySpec::default() };
    let mut plan = started(GET, &spec);
    let sent = failed(RequestExposure::MaybeSent);
    assert_eq!(plan.handle(trial(0), sent, &spec), Decision::ResendOrFail(UNBUDGETED));
    plan.start_attempt();
    assert_eq!(plan.handle(target(1), sent, &spec), Decision::ResendOrFail(BUDGETED));
    plan.start_attempt();
    assert_eq!(plan.handle(target(2), sent, &spec), Decision::Fail);
}

#[test]
fn attempts_limit_counts_only_sent_attempts() {
    let spec = RetrySpec { attempts: 2, ..RetrySpec::default() };
    let mut plan = started(GET, &spec);
    for slot in 0..MAX_TOTAL_ATTEMPTS - 1 {
        let decision = plan.handle(target(slot), failed(RequestExposure::NotSent), &spec);
        assert_eq!(decision, Decision::ResendOrFail(UNBUDGETED));
        plan.start_attempt();
    }
    let last = plan.handle(target(99), failed(RequestExposure::NotSent), &spec);
    assert_eq!(last, Decision::Fail);
    let never = RetrySpec { attempts: 1, ..spec };
    let mut plan = started(GET, &never);
    assert_eq!(plan.handle(target(0), failed(RequestExposure::NotSent), &never), Decision::Fail);
}

#[test]
fn retryable_status_is_resent_or_returned() {
    let spec = RetrySpec::default();
    let resend = Decision::ResendOrReturn(Resend { can_queue: false, ..BUDGETED });
    assert_eq!(started(GET, &spec).handle(target(0), head(503), &spec), resend);
    assert_eq!(started(GET, &spec).handle(target(0), head(501), &spec), Decision::Return);
    assert_eq!(started(GET, &spec).handle(target(0), head(200), &spec), Decision::Return);
    let never = RetrySpec { attempts: 1, ..spec };
    assert_eq!(started(GET, &never).handle(target(0), head(503), &never), Decision::ReturnFailure);
    let off = RetrySpec { statuses: ServerErrors::NONE, ..spec };
    assert_eq!(started(GET, &off).handle(target(0), head(503), &off), Decision::Return);
}

#[test]
fn any_server_error_of_a_trial_is_resent() {
    let spec = RetrySpec::default();
    let resend = Decision::ResendOrReturn(Resend { can_queue: false, ..UNBUDGETED });
    assert_eq!(started(GET, &spec).handle(trial(0), head(501), &spec), resend);
    assert_eq!(started(GET, &spec).handle(trial(0), head(404), &spec), Decision::Return);
}

#[test]
fn trial_requires_idempotent_bufferable_request() {
    let spec = RetrySpec { max_buffer_bytes: 10, ..RetrySpec::default() };
    let can = |body, spec: &RetrySpec| {
        RequestPlan::new(RequestTraits { body, ..GET }, spec).can_be_trial()
    };
    assert!(can(BodyLength::Absent, &spec));
    assert!(can(BodyLength::Known { bytes: 10 }, &spec));
    assert!(!can(BodyLength::Known { bytes: 11 }, &spec));
    assert!(!can(BodyLength::Unknown, &spec));
    assert!(!RequestPlan::new(POST, &spec).can_be_trial());
    let never = RetrySpec { attempts: 1, ..spec };
    assert!(!can(BodyLength::Absent, &never));
}

#[test]
fn only_bodiless_idempotent_request_is_hedged() {
    let spec = RetrySpec::default();
    let limit = |traits, spec: &RetrySpec| RequestPlan::new(traits, spec).wait_limit(false);
    assert_eq!(limit(GET, &spec), WaitLimit::Stalled);
    let with_body = RequestTraits { body: BodyLength::Known { bytes: 0 }, ..GET };
    assert_eq!(limit(with_body, &spec), WaitLimit::Timeout);
    assert_eq!(limit(RequestTraits { is_upgrade: true, ..GET }, &spec), WaitLimit::Timeout);
    assert_eq!(limit(POST, &spec), WaitLimit::Timeout);
    let off = RetrySpec { is_hedged: false, ..spec };
    assert_eq!(limit(GET, &off), WaitLimit::Timeout);
    assert_eq!(RequestPlan::new(GET, &spec).wait_limit(true), WaitLimit::Slow, "a trial");
}

#[test]
fn stalled_attempt_is_hedged_once_at_another_endpoint() {
    let spec = RetrySpec::default();
    let mut plan = started(GET, &spec);
    let decision = plan.handle(target(0), AttemptEvent::Stalled, &spec);
    assert_eq!(
        decision,
        Decision::Hedge(Resend { payment: Some(BudgetedResend::Hedge), can_queue: false })
    );
    assert_eq!(plan.excluded().endpoints.as_slice(), [target(0).endpoint]);
    plan.start_hedge();
    assert_eq!(plan.wait_limit(false), WaitLimit::Timeout);
    assert_eq!(plan.handle(target(1), AttemptEvent::Stalled, &spec), Decision::Wait);
}

#[test]
fn stalled_last_attempt_is_not_hedged() {
    let spec = RetrySpec { attempts: 2, ..RetrySpec::default() };
    let mut plan = started(GET, &spec);
    let sent = failed(RequestExposure::MaybeSent);
    assert_eq!(plan.handle(target(0), sent, &spec), Decision::ResendOrFail(BUDGETED));
    plan.start_attempt();
    assert_eq!(plan.handle(target(1), AttemptEvent::Stalled, &spec), Decision::Wait);
}

#[test]
fn race_is_won_by_the_first_good_response() {
    let spec = RetrySpec::default();
    let race = || {
        let mut plan = started(GET, &spec);
        plan.handle(target(0), AttemptEvent::Stalled, &spec);
        plan.start_hedge();
        plan
    };
    for winner in [0, 1] {
        assert_eq!(race().handle(target(winner), head(200), &spec), Decision::Return);
    }
    for event in [head(503), failed(RequestExposure::MaybeSent)] {
        let mut plan = race();
        assert_eq!(plan.handle(target(1), event, &spec), Decision::AwaitOther);
        assert_eq!(plan.excluded().endpoints.len(), 2);
        assert_eq!(plan.handle(target(0), head(200), &spec), Decision::Return);
    }
}

#[test]
fn lost_race_counts_both_attempts() {
    let spec = RetrySpec::default();
    let mut plan = started(GET, &spec);
    let sent = failed(RequestExposure::MaybeSent);
    plan.handle(target(0), AttemptEvent::Stalled, &spec);
    plan.start_hedge();
    assert_eq!(plan.handle(target(0), sent, &spec), Decision::AwaitOther);
    assert_eq!(plan.handle(target(1), sent, &spec), Decision::ResendOrFail(BUDGETED));
    plan.start_attempt();
    assert_eq!(plan.handle(target(2), sent, &spec), Decision::Fail, "three attempts were sent");
}

#[test]
fn connect_timeout_is_short_while_alternatives_exist() {
    let spec = RetrySpec::default();
    let ms = Duration::from_millis;
    let bounds = ConnectBounds { stall: ms(50), slow: ms(200), timeout: ms(1_000) };
    let timeout_for = |plan: &RequestPlan, is_trial, spec: &RetrySpec, has_other| {
        plan.connect_timeout(is_trial, bounds, spec, |_| has_other)
    };
    let short = ConnectTimeout { timeout: ms(50), reason: FailureReason::Stall };
    let long = ConnectTimeout { timeout: ms(1_000), reason: FailureReason::Timeout };
    let mut plan = started(GET, &spec);
    assert_eq!(timeout_for(&plan, false, &spec, true), short);
    assert_eq!(timeout_for(&plan, false, &spec, false), long);
    assert_eq!(timeout_for(&plan, true, &spec, true), ConnectTimeout { timeout: ms(200), ..long });
    let never = RetrySpec { attempts: 1, ..spec };
    assert_eq!(timeout_for(&plan, false, &never, true), long);
    plan.start_attempt();
    assert_eq!(timeout_for(&plan, false, &spec, true), short);
    plan.start_attempt();
    assert_eq!(timeout_for(&plan, false, &spec, true), long, "all endpoints seem slow");
}

#[test]
fn post_avoids_endpoints_with_old_unanswered_requests() {
    let spec = RetrySpec::default();
    let safety = |traits, now_us| {
        RequestPlan::new(traits, &spec).retry_safety(now_us, || Duration::from_micros(30))
    };
    assert_eq!(safety(GET, 100), RetrySafety::Repeatable);
    assert_eq!(safety(POST, 100), RetrySafety::NotRepeatable { waiting_before_us: 70 });
    assert_eq!(safety(POST, 10), RetrySafety::NotRepeatable { waiting_before_us: 0 });
}

#[test]
fn sent_post_neither_falls_back_nor_leaves() {
    let spec = RetrySpec::default();
    let mut plan = started(POST, &spec);
    assert!(plan.can_leave(false) && !plan.can_leave(true));
    plan.handle(target(0), failed(RequestExposure::NotSent), &spec);
    assert!(plan.can_fall_back(true) && !plan.can_fall_back(false));
    plan.handle(target(1), failed(RequestExposure::MaybeSent), &spec);
    assert!(!plan.can_fall_back(true));
    assert!(started(GET, &spec).can_leave(true));
}

/// What the driver of a random request reports.
#[derive(Clone, Copy, Debug)]
struct RandomStep {
    event: AttemptEvent,
    /// Of a race, the hedge met it.
    is_hedge: bool,
    has_endpoint: bool,
}

fn random_step() -> impl Strategy<Value = RandomStep> {
    let exposure = prop_oneof![Just(RequestExposure::NotSent), Just(RequestExposure::MaybeSent)];
    let event = prop_oneof![
        Just(AttemptEvent::Stalled),
        (prop_oneof![Just(200_u16), 500..=504_u16], any::<bool>()).prop_map(
            |(status, is_body_buffered)| AttemptEvent::HeadArrived { status, is_body_buffered }
        ),
        (exposure, any::<bool>()).prop_map(|(exposure, is_body_buffered)| {
            AttemptEvent::Failed { exposure, is_body_buffered }
        }),
    ];
    (event, any::<bool>(), prop::bool::weighted(0.9))
        .prop_map(|(event, is_hedge, has_endpoint)| RandomStep { event, is_hedge, has_endpoint })
}

/// What happened to a random request.
#[derive(Debug, Default)]
struct RequestHistory {
    attempts: u32,
    /// Attempts that may have been executed, without trials.
    executed: u32,
    budgeted_resends: u32,
    /// An endpoint was tried a second time.
    has_repeated_endpoint: bool,
    /// A resend followed an attempt that may have been executed.
    has_repeated_execution: bool,
}

/// Drives a plan as the request path does, until the request is over.
fn run(
    traits: RequestTraits,
    (spec, budget): (&RetrySpec, &mut RetryBudget),
    begins_as_trial: bool,
    steps: &[RandomStep],
) -> RequestHistory {
    let mut plan = RequestPlan::new(traits, spec);
    let mut history = RequestHistory { attempts: 1, ..RequestHistory::default() };
    let is_trial = begins_as_trial && plan.can_be_trial();
    let mut running = vec![AttemptTarget { is_trial, ..target(0) }];
    plan.start_attempt();
    for step in steps {
        let index = usize::from(step.is_hedge).min(running.len() - 1);
        let attempt = running[index];
        if step.event == AttemptEvent::Stalled
            && plan.wait_limit(attempt.is_trial) != WaitLimit::Stalled
        {
            continue;
        }
        let may_be_executed =
            !matches!(step.event, AttemptEvent::Failed { exposure: RequestExposure::NotSent, .. });
        history.executed +=
            u32::from(may_be_executed && step.event != AttemptEvent::Stalled && !attempt.is_trial);
        let resend = match plan.handle(attempt, step.event, spec) {
            Decision::Wait => continue,
            Decision::AwaitOther => {
                running.remove(index);
                continue;
            }
            Decision::Return | Decision::ReturnFailure | Decision::Fail => break,
            Decision::Hedge(resend) => {
                if !step.has_endpoint || !budget.try_grant(resend, BudgetShare::Whole) {
                    continue;
                }
                plan.start_hedge();
                resend
            }
            Decision::ResendOrReturn(resend) | Decision::ResendOrFail(resend) => {
                if !step.has_endpoint || !budget.try_grant(resend, BudgetShare::Whole) {
                    break;
                }
                plan.start_attempt();
                running.clear();
                resend
            }
        };
        history.has_repeated_execution |= may_be_executed;
        history.budgeted_resends += u32::from(resend.payment.is_some());
        let next = target(history.attempts);
        history.has_repeated_endpoint |= plan.excluded().endpoints.contains(&next.endpoint);
        history.attempts += 1;
        running.push(next);
    }
    history
}

proptest! {
    #[test]
    fn executed_post_is_never_repeated(
        steps in prop::collection::vec(random_step(), 1..40),
        attempts in 1_u32..6,
    ) {
        let spec = RetrySpec { attempts, ..RetrySpec::default() };
        let mut budget = RetryBudget::new(&spec, 1, Instant::now());
        let history = run(POST, (&spec, &mut budget), true, &steps);
        prop_assert!(!history.has_repeated_execution, "{:?}", history);
        prop_assert!(history.executed <= 1, "{:?}", history);
    }

    #[test]
    fn attempts_are_bounded(
        steps in prop::collection::vec(random_step(), 1..80),
        attempts in 1_u32..6,
        begins_as_trial in any::<bool>(),
    ) {
        let spec = RetrySpec { attempts, ..RetrySpec::default() };
        let mut budget = RetryBudget::new(&spec, 1, Instant::now());
        let history = run(GET, (&spec, &mut budget), begins_as_trial, &steps);
        prop_assert!(history.attempts <= MAX_TOTAL_ATTEMPTS, "{:?}", history);
        prop_assert!(history.executed <= attempts, "{:?}", history);
        prop_assert!(!history.has_repeated_endpoint, "{:?}", history);
    }

    #[test]
    fn resends_never_exceed_the_budget(
        requests in prop::collection::vec(prop::collection::vec(random_step(), 1..20), 1..60),
        budget_percent in 0_u32..50,
        budget_floor_per_second in 0_u32..3,
    ) {
        let spec =
            RetrySpec { budget_percent, budget_floor_per_second, ..RetrySpec::default() };
        let mut budget = RetryBudget::new(&spec, 1, Instant::now());
        let mut resends = 0;
        for steps in &requests {
            budget.deposit(&spec);
            resends += run(GET, (&spec, &mut budget), false, steps).budgeted_resends;
        }
        let most = budget_floor_per_second * 10 + requests.len() as u32 * budget_percent / 100;
        prop_assert!(resends <= most, "{} of {}", resends, most);
    }
}
