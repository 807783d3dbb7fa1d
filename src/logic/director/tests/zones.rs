//! Zones that fall and return as a whole.

use super::*;
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::steering::FULL_SHARE;

const SILENT: ProbeOutcome = ProbeOutcome::Fail(Failure::connect(FailureReason::Timeout));

fn two_zones() -> Rig {
    let spec = pool(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])]);
    Rig::with_pool(PoolSpec { correlation: CorrelationSpec::default(), ..spec })
}

fn strike(rig: &mut Rig, ports: &[u16], outcome: ProbeOutcome) {
    rig.now += ms(1);
    let inputs: Vec<_> =
        ports.iter().map(|&port| rig.probe_result(rig.id(port), outcome)).collect();
    rig.turn(inputs);
}

fn zone_events(rig: &Rig) -> Vec<(String, bool)> {
    let zone = |event: Event| match event {
        Event::ZoneVerdictChanged { place, verdict, .. } => {
            Some((place.to_string(), verdict.is_some()))
        }
        _ => None,
    };
    rig.events().into_iter().filter_map(zone).collect()
}

/// The shares of the tiers that take traffic, with their ports.
fn shares(rig: &Rig) -> Vec<(u64, Vec<u16>)> {
    let view = rig.view();
    let ports = |tier: &crate::logic::model::snapshot::Tier| {
        tier.targets().map(|target| target.address.port()).collect()
    };
    view.primary.tiers.iter().map(|tier| (tier.share, ports(tier))).collect()
}

/// An endpoint that has proved itself while its zone was down keeps its share when that returns.
#[test]
fn recovered_zone_takes_no_share_from_serving_endpoints() {
    let spec = pool(&[("a/1", &[1, 2]), ("a/2", &[3, 4]), ("a/3", &[5, 6]), ("b/1", &[7, 8])]);
    let mut rig = Rig::with_pool(PoolSpec { correlation: CorrelationSpec::default(), ..spec });
    rig.take_down(&[1, 2]);
    rig.take_down(&[3, 4]);
    let share = |rig: &Rig| -> f64 {
        let zones = rig.director.zones(rig.now);
        zones.iter().filter(|zone| &*zone.place.zone == "3").map(|zone| zone.share).sum()
    };
    assert_eq!(share(&rig), 0.0, "its region has fallen");
    let mut before = 0.0;
    while before < 0.999 {
        rig.run_for(ms(10), |port| if port < 5 { REFUSED } else { PASS });
        assert!(share(&rig) >= before, "{} after {before}", share(&rig));
        before = share(&rig);
    }
    rig.run_for(ms(20_000), |port| if port < 5 { REFUSED } else { PASS });
    assert_eq!(share(&rig), 1.0);
}

#[test]
fn zone_with_quorum_of_strikes_goes_down_in_one_shift() {
    let mut rig = two_zones();
    strike(&mut rig, &[1], SILENT);
    assert!(zone_events(&rig).is_empty());
    strike(&mut rig, &[2], SILENT);
    assert_eq!(zone_events(&rig), [("r/a".to_owned(), true)]);
    assert_eq!(rig.published_snapshots().len(), 1);
    assert_eq!(rig.down_ports(), [1, 2], "endpoints with evidence against them are down");
    assert_eq!(
        shares(&rig),
        [(FULL_SHARE, vec![4, 5, 6]), (0, vec![3])],
        "the rest is the last resort"
    );
}

#[test]
fn strikes_outside_window_make_no_quorum() {
    let mut rig = two_zones();
    strike(&mut rig, &[1], SILENT);
    strike(&mut rig, &[1], SILENT);
    rig.now += ms(10_000);
    strike(&mut rig, &[2], SILENT);
    assert!(zone_events(&rig).is_empty());
}

#[test]
fn error_responses_are_no_zone_evidence() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2, 3], ProbeOutcome::Fail(Failure::http(FailureReason::Status(503))));
    assert!(zone_events(&rig).is_empty());
}

#[test]
fn last_zone_never_goes_down() {
    let spec = pool(&[("r/a", &[1, 2, 3])]);
    let mut rig = Rig::with_pool(PoolSpec { correlation: CorrelationSpec::default(), ..spec });
    strike(&mut rig, &[1, 2, 3], SILENT);
    assert!(zone_events(&rig).is_empty());
    let mut rig = two_zones();
    strike(&mut rig, &[4, 5, 6], SILENT);
    strike(&mut rig, &[1, 2, 3], SILENT);
    assert!(zone_events(&rig).is_empty(), "the other one is down");
    assert!(!shares(&rig).is_empty());
}

#[test]
fn passing_endpoint_of_down_zone_serves() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2], SILENT);
    strike(&mut rig, &[3], PASS);
    let [(near, ports), ..] = &shares(&rig)[..] else { panic!("tiers") };
    assert_eq!(ports, &[3]);
    assert!(*near > 0 && *near < FULL_SHARE, "a third of the zone carries less than all");
}

#[test]
fn zone_recovers_whole_with_ramp_after_hold_down() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2, 3], SILENT);
    rig.run_for(ms(500), |_| PASS);
    assert_eq!(rig.down_ports(), [1, 2, 3], "held down");
    rig.run_for(ms(1_500), |_| PASS);
    assert_eq!(rig.down_ports(), [0u16; 0]);
    let near = |rig: &Rig| shares(rig)[0].0;
    let first = near(&rig);
    assert!(first < FULL_SHARE / 3, "the zone begins small: {first}");
    let mut last = first;
    for _ in 0..60 {
        rig.run_for(ms(100), |_| PASS);
        let now = near(&rig);
        assert!(now >= last && now - last < FULL_SHARE / 25, "without steps");
        last = now;
    }
    rig.run_for(ms(6_000), |_| PASS);
    assert_eq!(near(&rig), FULL_SHARE);
    assert_eq!(
        rig.director.pools[0].zones()[0].ramp().share_permille(ms(1), rig.now),
        FULL_SHARE_PERMILLE
    );
}

#[test]
fn zone_with_too_few_healthy_endpoints_stays_down() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2, 3], SILENT);
    let one_recovers = |port| if matches!(port, 2 | 3) { SILENT } else { PASS };
    rig.run_for(ms(10_000), one_recovers);
    assert_eq!(rig.down_ports(), [1, 2, 3]);
    let two_recover = |port| if port == 3 { SILENT } else { PASS };
    rig.run_for(ms(3_000), two_recover);
    assert_eq!(rig.down_ports(), [3]);
}

#[test]
fn held_down_zone_serves_before_panic() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2, 3], SILENT);
    let one_recovers = |port| if matches!(port, 2 | 3) { SILENT } else { PASS };
    rig.run_for(ms(3_000), one_recovers);
    for _ in 0..3 {
        strike(&mut rig, &[4, 5, 6], SILENT);
    }
    let view = rig.view();
    assert!(!view.is_panicking);
    assert_eq!(view.targets().map(|target| target.address.port()).collect::<Vec<_>>(), [1]);
}

#[test]
fn region_with_quorum_of_down_zones_goes_down() {
    let zones: &[(&str, &[u16])] =
        &[("r/a", &[1, 2]), ("r/b", &[3, 4]), ("r/c", &[5, 6]), ("s/a", &[7, 8])];
    let mut rig =
        Rig::with_pool(PoolSpec { correlation: CorrelationSpec::default(), ..pool(zones) });
    strike(&mut rig, &[1, 2], SILENT);
    assert_eq!(shares(&rig)[0], (FULL_SHARE, vec![3, 4]));
    strike(&mut rig, &[3, 4], SILENT);
    assert_eq!(shares(&rig)[0], (FULL_SHARE, vec![7, 8]), "its third zone is the last resort too");
    assert_eq!(rig.down_ports(), [1, 2, 3, 4]);
    rig.run_for(ms(2_000), |port| if port <= 4 { SILENT } else { PASS });
    assert!(!rig.director.pools[0].zones()[2].is_down(), "what was healthy all along returns");
}

#[test]
fn reload_keeps_zone_verdict() {
    let mut rig = two_zones();
    strike(&mut rig, &[1, 2], SILENT);
    let spec = pool(&[("r/b", &[4, 5, 6]), ("r/a", &[1, 2, 3, 7])]);
    rig.configure(PoolSpec { correlation: CorrelationSpec::default(), ..spec });
    assert!(rig.director.pools[0].zones()[1].is_down());
    strike(&mut rig, &[1, 2], PASS);
    strike(&mut rig, &[1, 2], PASS);
    assert_eq!(rig.down_ports(), [1, 2], "they return with their zone");
}

/// The reported verdicts of one endpoint, in their order; `None` stands for a publication.
fn health_changes_of(rig: &Rig, port: u16) -> Vec<Option<HealthTransition>> {
    let of = |output: &Output| match output {
        Output::Publish(_) => Some(None),
        Output::Event(Event::HealthChanged { subject, change, .. })
            if subject.address.port() == port =>
        {
            Some(Some(*change))
        }
        _ => None,
    };
    rig.outputs.iter().filter_map(of).collect()
}

#[test]
fn shift_is_published_before_zone_failure_events() {
    let mut rig = two_zones();
    strike(&mut rig, &[1], SILENT);
    strike(&mut rig, &[2], SILENT);
    assert_eq!(health_changes_of(&rig, 1), [None, Some(HealthTransition::WentDown)]);
    let incidents = rig.director.incidents();
    let shifts: Vec<_> = incidents.iter().map(|incident| incident.timeline.shift).collect();
    assert_eq!(shifts, [Some(rig.now); 2]);
}

#[test]
fn events_of_a_zone_failure_turn_keep_their_order() {
    let mut rig = two_zones();
    rig.now += ms(1);
    let inputs = [(1, SILENT), (2, SILENT), (1, PASS)];
    let inputs = inputs.map(|(port, outcome)| rig.probe_result(rig.id(port), outcome));
    rig.turn(inputs);
    let all =
        [HealthTransition::Suspected, HealthTransition::WentDown, HealthTransition::Returning]
            .map(Some);
    assert_eq!(health_changes_of(&rig, 1)[1..], all);
    assert_eq!(health_changes_of(&rig, 2)[1..], all[..2]);
}

/// The endpoints whose requests were aborted.
fn aborted_endpoints(rig: &Rig) -> impl Iterator<Item = EndpointId> + '_ {
    rig.outputs.iter().filter_map(|output| match output {
        Output::AbortRequests { endpoint, .. } => Some(*endpoint),
        _ => None,
    })
}

#[test]
fn silent_zone_is_aborted_after_another_zone_responds() {
    let mut rig = Rig::with_pool(PoolSpec {
        correlation: CorrelationSpec::default(),
        ..pool(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])])
    });
    let mut aborted = BTreeSet::new();
    for _ in 0..300 {
        rig.run_for(ms(10), |port| if port > 3 { PASS } else { SILENT });
        aborted.extend(aborted_endpoints(&rig));
    }
    assert_eq!(aborted, BTreeSet::from([1, 2, 3].map(|port| rig.id(port))));
}

#[test]
fn silent_pool_aborts_no_requests() {
    let mut rig = Rig::with_pool(PoolSpec {
        correlation: CorrelationSpec::default(),
        ..pool(&[("r/a", &[1, 2, 3]), ("r/b", &[4, 5, 6])])
    });
    // The first zone is noticed first, as one with all the traffic is.
    for port in [1, 2, 3, 1, 2, 3] {
        rig.now += ms(1);
        let silent = rig.probe_result(rig.id(port), SILENT);
        rig.turn([silent]);
        assert_eq!(aborted_endpoints(&rig).count(), 0);
    }
    assert_eq!(rig.down_ports(), [1, 2, 3]);
    assert!(
        rig.has_started_probe(4) || rig.has_started_probe(5) || !rig.pending_probes.is_empty(),
        "the others are probed at once"
    );
    rig.run_for(ms(1_300), |_| SILENT);
    assert_eq!(rig.down_ports().len(), 6);
    assert_eq!(aborted_endpoints(&rig).count(), 0);
    rig.run_for(ms(3_000), |_| PASS);
    assert!(rig.down_ports().is_empty());
    assert_eq!(aborted_endpoints(&rig).count(), 0);
}
