use super::*;
use crate::logic::health::endpoint_health::HealthTransition;
use crate::logic::incident::Incident;
use crate::logic::model::endpoint_stats::AttemptCounts;
use crate::logic::model::id::Locality;
use crate::logic::model::snapshot::{PoolView, SteeredTiers, Target};
use crate::logic::model::topology::{EndpointSpec, PoolSpec, Topology, ZoneSpec};
use crate::logic::probing::probe::{HttpProbe, ProbeSpec};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

/// Two zones of one endpoint each, the first preferred, 1.5 s after the start.
fn simulation() -> Simulation {
    simulation_with(SimulationSettings { seed: 5, ..SimulationSettings::default() })
}

fn simulation_with(settings: SimulationSettings) -> Simulation {
    let zone = |(name, port): (&str, u16)| {
        let endpoints = vec![EndpointSpec { address: address(port), weight: 1 }];
        ZoneSpec::new(Locality::parse(name).expect("a place"), endpoints)
    };
    let pool = PoolSpec {
        probes: vec![ProbeSpec::http(HttpProbe::get("/"))],
        ..PoolSpec::new("web", [("r/a", 1), ("r/b", 2)].map(zone).into())
    };
    let mut world = Simulation::new(Instant::now(), settings);
    world.configure(Topology { pools: vec![Arc::new(pool)], ..Topology::default() });
    world.run_until(world.now() + ms(1_500));
    world
}

/// The preferred endpoint, as requests see it.
fn preferred_target(world: &Simulation) -> Target {
    let view = &world.snapshot().pools[0];
    view.targets().find(|target| target.address == address(1)).expect("in service").clone()
}

/// Tries that counted, so far.
fn counted_attempts(target: &Target) -> AttemptCounts {
    target.stats.attempts()
}

/// Probes since the last look, and how many of them failed.
fn probe_counts(world: &mut Simulation) -> (usize, usize) {
    let is_probe = |record: SimulationRecord| match record.event {
        SimulationEvent::ProbeFinished { outcome, .. } => Some(outcome),
        _ => None,
    };
    let outcomes: Vec<ProbeOutcome> = world.take_log().into_iter().filter_map(is_probe).collect();
    let failed = outcomes.iter().filter(|outcome| matches!(outcome, ProbeOutcome::Fail(_))).count();
    (outcomes.len(), failed)
}

fn has_gone_down(world: &mut Simulation) -> bool {
    let is_verdict = |record: &SimulationRecord| {
        matches!(
            record.event,
            SimulationEvent::Director(Event::HealthChanged {
                change: HealthTransition::WentDown,
                ..
            })
        )
    };
    world.take_log().iter().any(is_verdict)
}

fn run_load(world: &mut Simulation, rate_rps: f64, post_share: f64) {
    world.add_load(OfferedLoad {
        pool: "web".into(),
        rate_rps,
        spacing: ArrivalSpacing::Even,
        post_share,
        faulty: None,
    });
    world.run_until(world.now() + ms(200));
}

/// Lets the preferred endpoint fail for two seconds.
fn fail_preferred(world: &mut Simulation, behavior: EndpointBehavior) -> Incident {
    let onset = world.now();
    world.schedule(onset, address(1), behavior);
    world.run_until(onset + ms(2_000));
    let incident = world.director().incidents().remove(0);
    assert_eq!(incident.timeline.shift, incident.timeline.verdict);
    let estimated = incident.timeline.onset();
    assert!(estimated.max(onset) - estimated.min(onset) < ms(500));
    incident
}

#[test]
fn gets_to_silent_endpoint_are_rescued_after_the_verdict() {
    let mut world = simulation();
    run_load(&mut world, 200.0, 0.0);
    let incident = fail_preferred(&mut world, EndpointBehavior::Hang);
    let counts = world.request_counts();
    assert_eq!(counts.failed_get, 0);
    assert!(counts.rescued > 10, "{counts:?}");
    assert_eq!(incident.counts.rescued, counts.rescued);
    assert!(incident.timeline.detection_time().is_some_and(|took| took < ms(150)));
    world.stop_load();
    world.run_until(world.now() + ms(100));
    let counts = world.request_counts();
    assert_eq!(counts.sent, counts.answered, "no request waits");
}

#[test]
fn received_posts_fail_and_are_not_repeated() {
    let mut world = simulation();
    run_load(&mut world, 200.0, 1.0);
    let incident = fail_preferred(&mut world, EndpointBehavior::Hang);
    let counts = world.request_counts();
    // Only POSTs that were sent before one had waited for long; the others went elsewhere.
    assert!((1..5).contains(&counts.failed_post), "{counts:?}");
    assert_eq!((counts.repeated_post, counts.rescued), (0, 0));
    assert_eq!(incident.counts.failed, counts.failed_post);
}

#[test]
fn dead_process_is_detected_by_closed_idle_connections() {
    let mut world = simulation();
    run_load(&mut world, 20.0, 0.0);
    world.stop_load();
    world.run_until(world.now() + ms(50));
    let incident = fail_preferred(&mut world, EndpointBehavior::Refused);
    assert!(incident.timeline.verdict.is_some());
    assert!(incident.timeline.suspect - incident.timeline.first_bad < ms(2));
    assert_eq!(world.request_counts().sent, world.request_counts().answered);
}

#[test]
fn in_flight_gets_at_dead_process_are_reset_and_rescued() {
    let mut world = simulation();
    world.schedule(
        world.now(),
        address(1),
        EndpointBehavior::Healthy { latency: LatencyModel::Fixed(ms(40)) },
    );
    run_load(&mut world, 100.0, 0.0);
    fail_preferred(&mut world, EndpointBehavior::Refused);
    let counts = world.request_counts();
    assert_eq!(counts.failed_get, 0);
    assert!((4..=8).contains(&counts.rescued), "40 ms at 100 req/s: {counts:?}");
}

#[test]
fn gateway_error_is_retried_for_get_and_returned_for_post() {
    for (post_share, rescued) in [(0.0, true), (1.0, false)] {
        let mut world = simulation();
        run_load(&mut world, 50.0, post_share);
        let target = preferred_target(&world);
        let before = counted_attempts(&target);
        world.schedule(world.now(), address(1), EndpointBehavior::StatusTraffic { status: 503 });
        world.run_until(world.now() + ms(30));
        let (counts, bad) = (world.request_counts(), counted_attempts(&target).since(before).bad);
        assert!(bad > 0, "{counts:?}");
        assert_eq!((counts.rescued > 0, counts.error_responses > 0), (rescued, !rescued));
        assert_eq!(if rescued { counts.rescued } else { counts.error_responses }, bad);
    }
}

#[test]
fn non_gateway_status_is_returned_without_retry() {
    for (status, answered_badly) in [(501, true), (404, false)] {
        let mut world = simulation();
        world.schedule(world.now(), address(1), EndpointBehavior::StatusTraffic { status });
        run_load(&mut world, 50.0, 0.0);
        let counts = world.request_counts();
        assert_eq!(counts.resent_attempts, 0);
        assert_eq!(counts.error_responses > 0, answered_badly, "{status} {counts:?}");
        assert_eq!(counted_attempts(&preferred_target(&world)).bad, 0, "it speaks of the request");
    }
}

#[test]
fn cut_response_is_evidence_and_is_retried() {
    let mut world = simulation();
    run_load(&mut world, 50.0, 0.0);
    let target = preferred_target(&world);
    world.schedule(world.now(), address(1), EndpointBehavior::Cut);
    world.run_until(world.now() + ms(30));
    let counts = world.request_counts();
    assert!(counts.rescued > 0 && counts.failed_get == 0, "{counts:?}");
    assert_eq!(counted_attempts(&target).bad, counts.rescued);
}

/// Twenty requests a second to a preferred endpoint that takes `latency`, for 200 ms; then no more
/// requests until all are over.
fn run_slow_preferred(world: &mut Simulation, latency: Duration, post_share: f64) {
    world.schedule(world.now(), address(1), EndpointBehavior::SlowTraffic { latency });
    run_load(world, 20.0, post_share);
    world.stop_load();
    world.run_until(world.now() + ms(3_000));
}

#[test]
fn slow_post_counts_once_and_is_awaited() {
    let mut world = simulation();
    // Without verdicts every request stays where it is.
    world.stall_control(ms(10_000));
    run_slow_preferred(&mut world, ms(600), 1.0);
    let counts = world.request_counts();
    assert_eq!((counts.sent, counts.hedges), (counts.answered, 0), "{counts:?}");
    let attempts = counted_attempts(&preferred_target(&world));
    assert!(attempts.bad > 0 && attempts.good == 0, "{attempts:?} {counts:?}");
}

#[test]
fn stalled_get_is_rescued_by_its_hedge() {
    let mut world = simulation();
    world.stall_control(ms(10_000));
    let target = preferred_target(&world);
    run_slow_preferred(&mut world, ms(600), 0.0);
    let counts = world.request_counts();
    assert!(counts.hedges > 0, "{counts:?}");
    assert_eq!(counts.hedges, counts.rescued);
    assert_eq!((counts.sent, counts.failed_get), (counts.answered, 0));
    // The stalled attempts are observed until the slow bound.
    assert_eq!(counted_attempts(&target), AttemptCounts { good: 0, bad: counts.hedges });
}

#[test]
fn original_that_responds_before_its_hedge_is_no_rescue() {
    let mut world = simulation();
    world.stall_control(ms(10_000));
    for port in [1, 2] {
        let behavior = EndpointBehavior::SlowTraffic { latency: ms(200) };
        world.schedule(world.now(), address(port), behavior);
    }
    run_load(&mut world, 20.0, 0.0);
    world.stop_load();
    world.run_until(world.now() + ms(3_000));
    let counts = world.request_counts();
    assert!(counts.hedges > 0, "{counts:?}");
    assert_eq!((counts.rescued, counts.sent), (0, counts.answered), "{counts:?}");
    assert!(world.clients.requests.is_empty());
}

#[test]
fn hedge_needs_budget_and_a_second_endpoint() {
    let no_budget =
        RetrySpec { budget_floor_per_second: 0, budget_percent: 0, ..RetrySpec::default() };
    let off = RetrySpec { is_hedged: false, ..RetrySpec::default() };
    for retry in [no_budget, off] {
        let settings = SimulationSettings { seed: 5, retry, ..SimulationSettings::default() };
        let mut world = simulation_with(settings);
        world.stall_control(ms(10_000));
        run_slow_preferred(&mut world, ms(600), 0.0);
        let counts = world.request_counts();
        assert_eq!((counts.hedges, counts.answered), (0, counts.sent), "{retry:?}");
    }
}

#[test]
fn total_deadline_ends_a_request() {
    let timeouts = RouteTimeouts { total: Some(ms(100)), ..RouteTimeouts::default() };
    let mut world = simulation_with(SimulationSettings { timeouts, ..Default::default() });
    world.stall_control(ms(10_000));
    run_slow_preferred(&mut world, ms(600), 1.0);
    let counts = world.request_counts();
    // While one POST waits, the others avoid its endpoint.
    assert_eq!((counts.failed_post, counts.answered), (1, counts.sent - 1), "{counts:?}");
    assert!(world.clients.requests.is_empty());
}

#[test]
fn connect_timeout_to_black_hole_rescues_posts_too() {
    let mut world = simulation();
    world.schedule(world.now(), address(1), EndpointBehavior::BlackHole);
    run_load(&mut world, 20.0, 1.0);
    world.stop_load();
    world.run_until(world.now() + ms(2_000));
    let counts = world.request_counts();
    assert!(counts.rescued > 0, "{counts:?}");
    assert_eq!((counts.failed_post, counts.repeated_post), (0, 0), "no connection was ever there");
}

#[test]
fn failed_trial_is_rescued_without_retry_budget() {
    let broken = [
        EndpointBehavior::Refused,
        EndpointBehavior::Reset,
        EndpointBehavior::Hang,
        EndpointBehavior::Cut,
        EndpointBehavior::StatusTraffic { status: 505 },
        EndpointBehavior::StatusTraffic { status: 599 },
    ];
    for behavior in broken {
        let mut world = simulation_with(SimulationSettings {
            retry: RetrySpec {
                budget_floor_per_second: 0,
                budget_percent: 0,
                ..RetrySpec::default()
            },
            ..SimulationSettings::default()
        });
        let suspect = preferred_target(&world);
        world.schedule(world.now(), address(1), behavior.clone());
        let mut snapshot = Snapshot { version: 99, ..Snapshot::default() };
        let old = &world.snapshot.pools[0];
        snapshot.pools.push(Arc::new(PoolView {
            spec: Arc::clone(&old.spec),
            primary: SteeredTiers {
                tiers: vec![crate::logic::model::snapshot::Tier::from_targets(
                    crate::logic::steering::FULL_SHARE,
                    old.targets().filter(|target| target.address != address(1)).cloned().collect(),
                )],
                nonsuspect_tiers: None,
            },
            variants: Vec::new(),
            trial_targets: vec![suspect.clone()],
            is_drained: false,
            is_panicking: false,
            has_several_zones: false,
            members: Arc::clone(&old.members),
            stats: Arc::clone(&old.stats),
            affinity_index: None,
        }));
        world.snapshot = Arc::new(snapshot);
        // What the director makes of it would end the trials.
        world.stall_control(ms(10_000));
        suspect.stats.schedule_trials(0, 50_000);
        run_load(&mut world, 100.0, 0.0);
        world.stop_load();
        world.run_until(world.now() + ms(3_000));
        let counts = world.request_counts();
        assert!((3..=5).contains(&counts.trials), "{behavior:?} {counts:?}");
        assert_eq!(counts.rescued, counts.trials, "{behavior:?}");
        assert_eq!(counts.answered, counts.sent, "{behavior:?}");
        let accuses = behavior != EndpointBehavior::StatusTraffic { status: 505 };
        let bad = if accuses { counts.trials } else { 0 };
        assert_eq!(counted_attempts(&suspect).bad, bad, "{behavior:?}");
    }
}

#[test]
fn probe_times_out_only_when_all_attempts_are_lost() {
    let mut world =
        simulation_with(SimulationSettings { probe_loss: 0.4, ..SimulationSettings::default() });
    world.take_log();
    world.run_until(world.now() + Duration::from_secs(5_000));
    let (all, failed) = probe_counts(&mut world);
    // Two fifths to the fifth: about one in a hundred.
    let share = failed as f64 / all as f64;
    assert!(all > 10_000 && (0.007..0.014).contains(&share), "{failed} of {all}");
}

#[test]
fn stalled_control_receives_nothing_and_pauses_probes() {
    let mut world = simulation();
    run_load(&mut world, 100.0, 0.0);
    let turns_of = |world: &mut Simulation| probe_counts(world).0;
    turns_of(&mut world);
    let begins = world.now();
    world.stall_control(ms(3_000));
    world.run_until(begins + ms(2_999));
    assert_eq!(turns_of(&mut world), 0);
    let sent = world.request_counts().sent;
    assert!(sent > 290, "requests need no control: {sent}");
    world.run_until(begins + ms(3_020));
    assert!(turns_of(&mut world) > 0);
    world.run_until(begins + ms(10_000));
    let counts = world.request_counts();
    assert_eq!((counts.rescued, counts.failed_get), (0, 0));
    assert!(!has_gone_down(&mut world));
}

#[test]
fn endpoint_failing_during_control_stall_goes_down_afterwards() {
    let mut world = simulation();
    let begins = world.now();
    world.stall_control(ms(1_000));
    world.stall_control(ms(2_000));
    world.schedule(begins + ms(100), address(1), EndpointBehavior::Refused);
    world.run_until(begins + ms(1_999));
    assert!(!has_gone_down(&mut world), "the longer stall counts");
    world.run_until(begins + ms(3_500));
    assert!(has_gone_down(&mut world));
}
