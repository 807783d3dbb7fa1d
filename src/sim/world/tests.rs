use super::*;
use crate::logic::health::Change;
use crate::logic::id::Place;
use crate::logic::incident::Incident;
use crate::logic::live::Tries;
use crate::logic::probe::{HttpProbe, ProbeSpec};
use crate::logic::snapshot::{Led, PoolView, Target};
use crate::logic::topology::{EndpointSpec, PoolSpec, Topology, ZoneSpec};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

/// Two zones of one endpoint each, the first preferred, 1.5 s after the start.
fn world() -> World {
    world_with(Settings { seed: 5, ..Settings::default() })
}

fn world_with(settings: Settings) -> World {
    let zone = |(name, port): (&str, u16)| {
        let endpoints = vec![EndpointSpec { address: address(port), weight: 1 }];
        ZoneSpec::new(Place::parse(name).expect("a place"), endpoints)
    };
    let pool = PoolSpec {
        probes: vec![ProbeSpec::http(HttpProbe::get("/"))],
        ..PoolSpec::new("web", [("r/a", 1), ("r/b", 2)].map(zone).into())
    };
    let mut world = World::new(Instant::now(), settings);
    world.configure(Topology { pools: vec![Arc::new(pool)], ..Topology::default() });
    world.run_until(world.now() + ms(1_500));
    world
}

/// The preferred endpoint, as requests see it.
fn preferred(world: &World) -> Target {
    let view = &world.snapshot().pools[0];
    view.targets().find(|target| target.address == address(1)).expect("in service").clone()
}

/// Tries that counted, so far.
fn tries(target: &Target) -> Tries {
    target.live.tries()
}

/// Probes since the last look, and how many of them failed.
fn probes(world: &mut World) -> (usize, usize) {
    let is_probe = |mark: Mark| match mark.what {
        What::Probed { outcome, .. } => Some(outcome),
        _ => None,
    };
    let outcomes: Vec<Outcome> = world.take_log().into_iter().filter_map(is_probe).collect();
    let failed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Fail(_))).count();
    (outcomes.len(), failed)
}

fn went_down(world: &mut World) -> bool {
    let is_verdict = |mark: &Mark| {
        matches!(mark.what, What::Event(Event::Health { change: Change::WentDown, .. }))
    };
    world.take_log().iter().any(is_verdict)
}

fn offer(world: &mut World, rate_rps: f64, post_share: f64) {
    world.offer(Offer { pool: "web".into(), rate_rps, spacing: Spacing::Even, post_share });
    world.run_until(world.now() + ms(200));
}

/// Lets the preferred endpoint fail for two seconds.
fn fail(world: &mut World, behavior: Behavior) -> Incident {
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
fn gets_to_a_silent_endpoint_wait_for_the_verdict_and_are_rescued() {
    let mut world = world();
    offer(&mut world, 200.0, 0.0);
    let incident = fail(&mut world, Behavior::Hang);
    let counts = world.counts();
    assert_eq!(counts.failed_get, 0);
    assert!(counts.rescued > 10, "{counts:?}");
    assert_eq!(incident.counts.rescued, counts.rescued);
    assert!(incident.timeline.detection().is_some_and(|took| took < ms(150)));
    world.end_offers();
    world.run_until(world.now() + ms(100));
    let counts = world.counts();
    assert_eq!(counts.sent, counts.answered, "nobody waits any more");
}

#[test]
fn posts_that_were_received_fail_rather_than_run_twice() {
    let mut world = world();
    offer(&mut world, 200.0, 1.0);
    let incident = fail(&mut world, Behavior::Hang);
    let counts = world.counts();
    // Only what got there before anybody had waited for long; the others went elsewhere.
    assert!((1..5).contains(&counts.failed_post), "{counts:?}");
    assert_eq!((counts.repeated_post, counts.rescued), (0, 0));
    assert_eq!(incident.counts.failed, counts.failed_post);
}

#[test]
fn a_process_that_dies_is_noticed_by_its_idle_connections() {
    let mut world = world();
    offer(&mut world, 20.0, 0.0);
    world.end_offers();
    world.run_until(world.now() + ms(50));
    let incident = fail(&mut world, Behavior::Refused);
    assert!(incident.timeline.verdict.is_some());
    assert!(incident.timeline.suspect - incident.timeline.first_bad < ms(2));
    assert_eq!(world.counts().sent, world.counts().answered);
}

#[test]
fn what_was_in_flight_at_a_dying_process_is_reset_and_asked_again() {
    let mut world = world();
    world.schedule(world.now(), address(1), Behavior::Healthy { latency: Latency::Fixed(ms(40)) });
    offer(&mut world, 100.0, 0.0);
    fail(&mut world, Behavior::Refused);
    let counts = world.counts();
    assert_eq!(counts.failed_get, 0);
    assert!((4..=8).contains(&counts.rescued), "40 ms at 100 req/s: {counts:?}");
}

#[test]
fn a_bad_status_to_a_get_is_asked_elsewhere_and_to_a_post_passed_on() {
    for (post_share, rescued) in [(0.0, true), (1.0, false)] {
        let mut world = world();
        offer(&mut world, 50.0, post_share);
        let target = preferred(&world);
        let before = tries(&target);
        world.schedule(world.now(), address(1), Behavior::StatusTraffic { status: 503 });
        world.run_until(world.now() + ms(30));
        let (counts, bad) = (world.counts(), tries(&target).since(before).bad);
        assert!(bad > 0, "{counts:?}");
        assert_eq!((counts.rescued > 0, counts.answered_badly > 0), (rescued, !rescued));
        assert_eq!(if rescued { counts.rescued } else { counts.answered_badly }, bad);
    }
}

#[test]
fn a_status_that_is_no_gateways_is_passed_on_and_one_below_500_is_an_answer() {
    for (status, answered_badly) in [(501, true), (404, false)] {
        let mut world = world();
        world.schedule(world.now(), address(1), Behavior::StatusTraffic { status });
        offer(&mut world, 50.0, 0.0);
        let counts = world.counts();
        assert_eq!(counts.resent, 0);
        assert_eq!(counts.answered_badly > 0, answered_badly, "{status} {counts:?}");
        assert_eq!(tries(&preferred(&world)).bad, 0, "it speaks of the request");
    }
}

#[test]
fn what_is_cut_counts_and_is_asked_again() {
    let mut world = world();
    offer(&mut world, 50.0, 0.0);
    let target = preferred(&world);
    world.schedule(world.now(), address(1), Behavior::Cut);
    world.run_until(world.now() + ms(30));
    let counts = world.counts();
    assert!(counts.rescued > 0 && counts.failed_get == 0, "{counts:?}");
    assert_eq!(tries(&target).bad, counts.rescued);
}

#[test]
fn a_slow_try_counts_once_and_is_waited_for() {
    let mut world = world();
    offer(&mut world, 50.0, 0.0);
    let target = preferred(&world);
    let good = tries(&target).good;
    world.schedule(world.now(), address(1), Behavior::SlowTraffic { latency: ms(600) });
    world.run_until(world.now() + ms(25));
    let slow = world.counts().sent - world.counts().answered;
    world.end_offers();
    world.run_until(world.now() + ms(2_000));
    let counts = world.counts();
    assert_eq!(counts.sent, counts.answered);
    let tries = tries(&target);
    assert!(slow > 0 && tries.bad == slow && tries.good == good, "{tries:?} {counts:?}");
}

#[test]
fn new_connections_to_a_black_hole_time_out_and_even_posts_go_on() {
    let mut world = world();
    world.schedule(world.now(), address(1), Behavior::BlackHole);
    offer(&mut world, 20.0, 1.0);
    world.end_offers();
    world.run_until(world.now() + ms(2_000));
    let counts = world.counts();
    assert!(counts.rescued > 0, "{counts:?}");
    assert_eq!((counts.failed_post, counts.repeated_post), (0, 0), "no connection was ever there");
}

#[test]
fn a_trial_goes_elsewhere_whatever_it_meets_and_costs_no_budget() {
    let broken = [
        Behavior::Refused,
        Behavior::Reset,
        Behavior::Hang,
        Behavior::Cut,
        Behavior::StatusTraffic { status: 505 },
        Behavior::StatusTraffic { status: 599 },
    ];
    for behavior in broken {
        let mut world = world_with(Settings {
            retry: RetrySpec { budget_floor: 0, budget_percent: 0, ..RetrySpec::default() },
            ..Settings::default()
        });
        let suspect = preferred(&world);
        world.schedule(world.now(), address(1), behavior.clone());
        let mut snapshot = Snapshot { version: 99, ..Snapshot::default() };
        let old = &world.snapshot.pools[0];
        snapshot.pools.push(Arc::new(PoolView {
            spec: Arc::clone(&old.spec),
            led: Led {
                tiers: vec![crate::logic::snapshot::Tier::of(
                    crate::logic::steer::WHOLE,
                    old.targets().filter(|target| target.address != address(1)).cloned().collect(),
                )],
                proven: None,
            },
            others: Vec::new(),
            trials: vec![suspect.clone()],
            is_drained: false,
            panic: false,
            members: Arc::clone(&old.members),
            live: Arc::clone(&old.live),
            pins: None,
        }));
        world.snapshot = Arc::new(snapshot);
        // What the director makes of it would end the trials.
        world.stall_control(ms(10_000));
        suspect.live.want_trials(0, 50_000);
        offer(&mut world, 100.0, 0.0);
        world.end_offers();
        world.run_until(world.now() + ms(3_000));
        let counts = world.counts();
        assert!((3..=5).contains(&counts.trials), "{behavior:?} {counts:?}");
        assert_eq!(counts.rescued, counts.trials, "{behavior:?}");
        assert_eq!(counts.answered, counts.sent, "{behavior:?}");
        let accuses = behavior != Behavior::StatusTraffic { status: 505 };
        let bad = if accuses { counts.trials } else { 0 };
        assert_eq!(tries(&suspect).bad, bad, "{behavior:?}");
    }
}

#[test]
fn a_probe_is_silent_only_if_all_its_attempts_are_lost() {
    let mut world = world_with(Settings { probe_loss: 0.4, ..Settings::default() });
    world.take_log();
    world.run_until(world.now() + Duration::from_secs(5_000));
    let (all, failed) = probes(&mut world);
    // Two fifths to the fifth: about one in a hundred.
    let share = failed as f64 / all as f64;
    assert!(all > 10_000 && (0.007..0.014).contains(&share), "{failed} of {all}");
}

#[test]
fn while_control_stands_still_nothing_is_heard_and_no_probe_grows_older() {
    let mut world = world();
    offer(&mut world, 100.0, 0.0);
    let turns_of = |world: &mut World| probes(world).0;
    turns_of(&mut world);
    let begins = world.now();
    world.stall_control(ms(3_000));
    world.run_until(begins + ms(2_999));
    assert_eq!(turns_of(&mut world), 0);
    let sent = world.counts().sent;
    assert!(sent > 290, "requests need no control: {sent}");
    world.run_until(begins + ms(3_020));
    assert!(turns_of(&mut world) > 0);
    world.run_until(begins + ms(10_000));
    let counts = world.counts();
    assert_eq!((counts.rescued, counts.failed_get), (0, 0));
    assert!(!went_down(&mut world));
}

#[test]
fn an_endpoint_that_dies_while_control_stands_still_is_found_afterwards() {
    let mut world = world();
    let begins = world.now();
    world.stall_control(ms(1_000));
    world.stall_control(ms(2_000));
    world.schedule(begins + ms(100), address(1), Behavior::Refused);
    world.run_until(begins + ms(1_999));
    assert!(!went_down(&mut world), "the longer stall counts");
    world.run_until(begins + ms(3_500));
    assert!(went_down(&mut world));
}
