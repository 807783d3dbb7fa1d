use super::*;
use crate::logic::id::Place;
use crate::logic::incident::Incident;
use crate::logic::topology::{EndpointSpec, PoolSpec, ZoneSpec};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

/// Two zones of one endpoint each, the first preferred, 1.5 s after the start.
fn world() -> World {
    let zone = |(name, port): (&str, u16)| ZoneSpec {
        place: Place::parse(name).expect("a place"),
        endpoints: vec![EndpointSpec { address: address(port), weight: 1 }],
    };
    let pool = PoolSpec::new("web", [("r/a", 1), ("r/b", 2)].map(zone).into());
    let mut world = World::new(Instant::now(), Settings { seed: 5, ..Settings::default() });
    world.configure(Topology { here: None, pools: vec![Arc::new(pool)], ..Topology::default() });
    world.run_until(world.now() + ms(1_500));
    world
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
    let incident = fail(&mut world, Behavior::Silent);
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
    let incident = fail(&mut world, Behavior::Silent);
    let counts = world.counts();
    assert!(counts.failed_post > 10, "{counts:?}");
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
    world.schedule(world.now(), address(1), Behavior::Healthy { latency: ms(40) });
    offer(&mut world, 100.0, 0.0);
    fail(&mut world, Behavior::Refused);
    let counts = world.counts();
    assert_eq!(counts.failed_get, 0);
    assert!((4..=8).contains(&counts.rescued), "40 ms at 100 req/s: {counts:?}");
}

#[test]
fn a_bad_status_reaches_the_client_until_the_probe_sees_it() {
    let mut world = world();
    offer(&mut world, 100.0, 0.0);
    let onset = world.now();
    world.schedule(onset, address(1), Behavior::of(crate::logic::outcome::Class::BadStatus));
    world.run_until(onset + ms(500));
    let counts = world.counts();
    assert!(counts.answered_badly >= 45, "a TCP probe never sees it: {counts:?}");
    assert!(world.director().incidents().is_empty());
}
