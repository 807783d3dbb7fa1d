//! Zones that fall and come back as a whole.

use super::*;
use crate::logic::recovery::FULL;
use crate::logic::steer::WHOLE;

const SILENT: Outcome = Outcome::Fail(Failure::connect(Reason::Timeout));

fn two_zones() -> Rig {
    let spec = pool(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])]);
    Rig::with(PoolSpec { correlate: Correlate::default(), ..spec })
}

fn strike(rig: &mut Rig, ports: &[u16], outcome: Outcome) {
    rig.now += ms(1);
    let inputs: Vec<_> = ports.iter().map(|&port| rig.regular(rig.id(port), outcome)).collect();
    rig.turn(inputs);
}

fn zone_events(rig: &Rig) -> Vec<(String, bool)> {
    let zone = |event: Event| match event {
        Event::Zone { place, verdict, .. } => Some((place.to_string(), verdict.is_some())),
        _ => None,
    };
    rig.events().into_iter().filter_map(zone).collect()
}

/// The shares of the tiers that take traffic, with their ports.
fn shares(rig: &Rig) -> Vec<(u64, Vec<u16>)> {
    let view = rig.view();
    let ports = |tier: &crate::logic::snapshot::Tier| {
        tier.targets().map(|target| target.address.port()).collect()
    };
    view.led.tiers.iter().map(|tier| (tier.share, ports(tier))).collect()
}

/// Whoever has proved itself while its zone was down goes on as it is when the zone returns.
#[test]
fn a_zone_that_returns_takes_nothing_from_those_who_serve_already() {
    let spec = pool(&[("a/1", &[1, 2]), ("a/2", &[3, 4]), ("a/3", &[5, 6]), ("b/1", &[7, 8])]);
    let mut rig = Rig::with(PoolSpec { correlate: Correlate::default(), ..spec });
    rig.fell(&[1, 2]);
    rig.fell(&[3, 4]);
    let share = |rig: &Rig| -> f64 {
        let zones = rig.director.zones(rig.now);
        zones.iter().filter(|zone| &*zone.place.zone == "3").map(|zone| zone.share).sum()
    };
    assert_eq!(share(&rig), 0.0, "its region has fallen");
    let mut before = 0.0;
    while before < 0.999 {
        rig.live_on(ms(10), |port| if port < 5 { REFUSED } else { PASS });
        assert!(share(&rig) >= before, "{} after {before}", share(&rig));
        before = share(&rig);
    }
    rig.live_on(ms(20_000), |port| if port < 5 { REFUSED } else { PASS });
    assert_eq!(share(&rig), 1.0);
}

#[test]
fn a_quorum_of_single_strikes_is_a_verdict_on_the_zone_in_one_shift() {
    let mut rig = two_zones();
    strike(&mut rig, &[1], SILENT);
    assert!(zone_events(&rig).is_empty());
    strike(&mut rig, &[2], SILENT);
    assert_eq!(zone_events(&rig), [("r/a".to_owned(), true)]);
    assert_eq!(rig.published().len(), 1);
    assert_eq!(rig.down(), [1, 2], "who has evidence against it is down");
    assert_eq!(shares(&rig), [(WHOLE, vec![4, 5, 6]), (0, vec![3])], "the rest is the last resort");
}

#[test]
fn strikes_that_lie_far_apart_are_no_quorum() {
    let mut rig = two_zones();
    strike(&mut rig, &[1], SILENT);
    strike(&mut rig, &[1], SILENT);
    rig.now += ms(10_000);
    strike(&mut rig, &[2], SILENT);
    assert!(zone_events(&rig).is_empty());
}

#[test]
fn bad_answers_are_no_evidence_against_a_zone() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2, 3], Outcome::Fail(Failure::http(Reason::Status(503))));
    assert!(zone_events(&rig).is_empty());
}

#[test]
fn the_last_zone_never_falls() {
    let spec = pool(&[("r/a", &[1, 2, 3])]);
    let mut rig = Rig::with(PoolSpec { correlate: Correlate::default(), ..spec });
    strike(&mut rig, &[1, 2, 3], SILENT);
    assert!(zone_events(&rig).is_empty());
    let mut rig = two_zones();
    strike(&mut rig, &[4, 5, 6], SILENT);
    strike(&mut rig, &[1, 2, 3], SILENT);
    assert!(zone_events(&rig).is_empty(), "the other one is down");
    assert!(!shares(&rig).is_empty());
}

#[test]
fn an_exception_proves_itself_and_serves() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2], SILENT);
    strike(&mut rig, &[3], PASS);
    let [(near, ports), ..] = &shares(&rig)[..] else { panic!("tiers") };
    assert_eq!(ports, &[3]);
    assert!(*near > 0 && *near < WHOLE, "a third of the zone carries less than all");
}

#[test]
fn a_zone_returns_as_a_whole_with_a_ramp_after_its_hold_down() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2, 3], SILENT);
    rig.live_on(ms(500), |_| PASS);
    assert_eq!(rig.down(), [1, 2, 3], "held down");
    rig.live_on(ms(1_500), |_| PASS);
    assert_eq!(rig.down(), [0u16; 0]);
    let near = |rig: &Rig| shares(rig)[0].0;
    let first = near(&rig);
    assert!(first < WHOLE / 3, "the zone begins small: {first}");
    let mut last = first;
    for _ in 0..60 {
        rig.live_on(ms(100), |_| PASS);
        let now = near(&rig);
        assert!(now >= last && now - last < WHOLE / 25, "without steps");
        last = now;
    }
    rig.live_on(ms(6_000), |_| PASS);
    assert_eq!(near(&rig), WHOLE);
    assert_eq!(rig.director.pools[0].zones[0].ramp.share(ms(1), rig.now), FULL);
}

#[test]
fn a_zone_of_which_too_little_is_healthy_does_not_return() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2, 3], SILENT);
    let one_heals = |port| if matches!(port, 2 | 3) { SILENT } else { PASS };
    rig.live_on(ms(10_000), one_heals);
    assert_eq!(rig.down(), [1, 2, 3]);
    let two_heal = |port| if port == 3 { SILENT } else { PASS };
    rig.live_on(ms(3_000), two_heal);
    assert_eq!(rig.down(), [3]);
}

#[test]
fn when_the_other_zones_die_what_was_held_serves_before_panic() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2, 3], SILENT);
    let one_heals = |port| if matches!(port, 2 | 3) { SILENT } else { PASS };
    rig.live_on(ms(3_000), one_heals);
    for _ in 0..3 {
        strike(&mut rig, &[4, 5, 6], SILENT);
    }
    let view = rig.view();
    assert!(!view.panic);
    assert_eq!(view.targets().map(|target| target.address.port()).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_region_falls_with_most_of_its_zones() {
    let zones: &[(&str, &[u16])] =
        &[("r/a", &[1, 2]), ("r/b", &[3, 4]), ("r/c", &[5, 6]), ("s/a", &[7, 8])];
    let mut rig = Rig::with(PoolSpec { correlate: Correlate::default(), ..pool(zones) });
    strike(&mut rig, &[1, 2], SILENT);
    assert_eq!(shares(&rig)[0], (WHOLE, vec![3, 4]));
    strike(&mut rig, &[3, 4], SILENT);
    assert_eq!(shares(&rig)[0], (WHOLE, vec![7, 8]), "its third zone is the last resort too");
    assert_eq!(rig.down(), [1, 2, 3, 4]);
    rig.live_on(ms(2_000), |port| if port <= 4 { SILENT } else { PASS });
    assert!(!rig.director.pools[0].zones[2].is_down(), "what was healthy all along returns");
}

#[test]
fn a_reload_keeps_the_verdict_on_a_zone() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2], SILENT);
    let spec = pool(&[("r/b", &[4, 5, 6]), ("r/a", &[1, 2, 3, 7])]);
    rig.configure(PoolSpec { correlate: Correlate::default(), ..spec });
    assert!(rig.director.pools[0].zones[1].is_down());
    strike(&mut rig, &[1, 2], PASS);
    strike(&mut rig, &[1, 2], PASS);
    assert_eq!(rig.down(), [1, 2], "they return with their zone");
}

/// What was said of one endpoint's health, in its order; `None` stands for a publication.
fn said_of(rig: &Rig, port: u16) -> Vec<Option<Change>> {
    let of = |output: &Output| match output {
        Output::Publish(_) => Some(None),
        Output::Event(Event::Health { subject, change, .. }) if subject.address.port() == port => {
            Some(Some(*change))
        }
        _ => None,
    };
    rig.said.iter().filter_map(of).collect()
}

#[test]
fn traffic_moves_before_anybody_is_told_of_those_who_fell_with_their_zone() {
    let mut rig = two_zones();
    strike(&mut rig, &[1], SILENT);
    strike(&mut rig, &[2], SILENT);
    assert_eq!(said_of(&rig, 1), [None, Some(Change::WentDown)]);
    let incidents = rig.director.incidents();
    let shifts: Vec<_> = incidents.iter().map(|incident| incident.timeline.shift).collect();
    assert_eq!(shifts, [Some(rig.now); 2]);
}

#[test]
fn what_comes_in_the_turn_of_a_fall_is_told_after_it() {
    let mut rig = two_zones();
    rig.now += ms(1);
    let inputs = [(1, SILENT), (2, SILENT), (1, PASS)];
    let inputs = inputs.map(|(port, outcome)| rig.regular(rig.id(port), outcome));
    rig.turn(inputs);
    let all = [Change::Suspected, Change::WentDown, Change::Returning].map(Some);
    assert_eq!(said_of(&rig, 1)[1..], all);
    assert_eq!(said_of(&rig, 2)[1..], all[..2]);
}

/// Whom requests were told to leave.
fn cuts(rig: &Rig) -> impl Iterator<Item = EndpointId> + '_ {
    rig.said.iter().filter_map(|output| match output {
        Output::Cut { endpoint, .. } => Some(*endpoint),
        _ => None,
    })
}

#[test]
fn a_silent_zone_is_left_when_another_one_has_answered_since() {
    let mut rig = Rig::with(PoolSpec {
        correlate: Correlate::default(),
        ..pool(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])])
    });
    let mut left = BTreeSet::new();
    for _ in 0..300 {
        rig.live_on(ms(10), |port| if port > 3 { PASS } else { SILENT });
        left.extend(cuts(&rig));
    }
    assert_eq!(left, BTreeSet::from([1, 2, 3].map(|port| rig.id(port))));
}

#[test]
fn where_all_are_silent_nobody_is_left() {
    let mut rig = Rig::with(PoolSpec {
        correlate: Correlate::default(),
        ..pool(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])])
    });
    // The first zone is noticed first, as one with all the traffic is.
    for port in [1, 2, 3, 1, 2, 3] {
        rig.now += ms(1);
        let silent = rig.regular(rig.id(port), SILENT);
        rig.turn([silent]);
        assert_eq!(cuts(&rig).count(), 0);
    }
    assert_eq!(rig.down(), [1, 2, 3]);
    assert!(
        rig.probed(4) || rig.probed(5) || !rig.asked.is_empty(),
        "the others are asked at once"
    );
    rig.live_on(ms(1_300), |_| SILENT);
    assert_eq!(rig.down().len(), 6);
    assert_eq!(cuts(&rig).count(), 0);
    rig.live_on(ms(3_000), |_| PASS);
    assert!(rig.down().is_empty());
    assert_eq!(cuts(&rig).count(), 0);
}
