//! One endpoint, one pool: health, incidents, probes.

use super::*;
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::incident::client_failure::{ClientFailure, ClientFailureKind};
use crate::logic::model::snapshot::FailoverCounts;
use crate::logic::probing::probe_schedule::BURST_GAP;
use crate::logic::steering::FULL_SHARE;

#[test]
fn reload_keeps_health_by_pool_and_address() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]);
    rig.take_down(&[2]);
    let before = rig.director.endpoints();
    let mut other = pool(&[("r/b", &[4, 3, 2]), ("r/a", &[1])]);
    other.zones[0].endpoints[2].weight = 5;
    rig.configure(other);
    let snapshot = rig.published_snapshots().pop().expect("a snapshot");
    assert_eq!(serving_ports(&snapshot), [1, 3, 4]);
    for old in before {
        let new = rig.status(old.subject.address.port());
        assert_eq!(new.subject.endpoint, old.subject.endpoint);
        assert_eq!((new.health, new.since), (old.health, old.since));
        assert_eq!(new.probes.len(), old.probes.len());
    }
    let moved = rig.status(2);
    assert_eq!((moved.subject.locality.to_string().as_str(), moved.weight), ("r/b", 5));
    let incidents = rig.director.incidents();
    assert_eq!(incidents.len(), 1);
    assert!(!incidents[0].is_closed());
}

#[test]
fn new_endpoint_is_unknown_until_first_pass() {
    let mut rig = Rig::new(&[("r/a", &[1])]);
    rig.configure(pool(&[("r/a", &[1, 2])]));
    assert_eq!(rig.status(2).health, Health::NEW);
    assert_eq!(serving_ports(&rig.published_snapshots()[0]), [1]);
    assert!(rig.has_started_probe(2) && !rig.has_started_probe(1), "it is probed at once");
    let pass = rig.probe_result(rig.id(2), PASS);
    rig.turn([pass]);
    assert_eq!(serving_ports(&rig.published_snapshots()[0]), [1, 2]);
}

#[test]
fn removed_endpoint_ends_incident_and_ignores_late_results() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.take_down(&[2]);
    let late = rig.probe_result(rig.id(2), PASS);
    rig.configure(pool(&[("r/a", &[1])]));
    let ended = |event: &Event| matches!(event, Event::IncidentEnded(_));
    assert_eq!(rig.events().iter().filter(|event| ended(event)).count(), 1);
    assert!(rig.director.incidents()[0].is_closed());
    rig.turn([late]);
    assert!(rig.outputs.is_empty());
    rig.configure(pool(&[("r/a", &[1, 2])]));
    assert_eq!(rig.status(2).health, Health::NEW, "an endpoint that was removed is new");
}

#[test]
fn empty_zone_fills_when_endpoints_are_resolved() {
    let mut rig = Rig::new_unprobed(&[("r/a", &[]), ("r/b", &[])]);
    let update_endpoints = |rig: &mut Rig, zones: &[(&str, &[u16])]| {
        let pools = vec![Arc::new(pool(zones))];
        rig.turn([Input::UpdateEndpoints(Topology { pools, ..Topology::default() })]);
    };
    assert!(!rig.director.is_routable() && rig.director.is_ready_to_serve());
    assert!(!rig.director.pools()[0].is_in_panic, "nothing has failed");
    update_endpoints(&mut rig, &[("r/a", &[]), ("r/b", &[1, 2])]);
    rig.answer_all_probes(PASS);
    assert!(rig.director.is_routable());
    let is_fully_ramped = |rig: &Rig, port| rig.status(port).ramp == FULL_SHARE_PERMILLE;
    assert!(is_fully_ramped(&rig, 1) && is_fully_ramped(&rig, 2), "neither comes late");
    let before = rig.status(2);
    rig.now += ms(11_000);
    update_endpoints(&mut rig, &[("r/a", &[3]), ("r/b", &[2])]);
    let after = rig.status(2);
    assert_eq!((before.subject.endpoint, before.since), (after.subject.endpoint, after.since));
    assert_eq!(
        serving_ports(&rig.published_snapshots()[0]),
        [2],
        "a new endpoint serves after its first pass"
    );
    rig.answer_all_probes(PASS);
    assert!(!is_fully_ramped(&rig, 3), "its share grows");
    update_endpoints(&mut rig, &[("r/a", &[]), ("r/b", &[])]);
    assert!(!rig.director.is_routable(), "a removed endpoint is not routable");
}

#[test]
fn panic_starts_and_ends_exactly_once() {
    let mut rig = Rig::new(&[("r/a", &[1]), ("r/b", &[2])]);
    rig.take_down(&[1]);
    assert!(rig.panic_changes().is_empty());
    rig.take_down(&[2]);
    assert_eq!(rig.panic_changes(), [true]);
    assert_eq!(serving_ports(&rig.published_snapshots()[0]), [1, 2], "requests go everywhere");
    let is_abort = |output: &Output| matches!(output, Output::AbortRequests { .. });
    assert!(!rig.outputs.iter().any(is_abort), "there is nowhere better to go");
    rig.take_down(&[1, 2]);
    assert!(rig.panic_changes().is_empty() && rig.published_snapshots().is_empty());
    for expected in [&[][..], &[false][..]] {
        rig.now += ms(1);
        let pass = rig.probe_result(rig.id(2), PASS);
        rig.turn([pass]);
        assert_eq!(rig.panic_changes(), expected);
    }
    assert_eq!(serving_ports(&rig.published_snapshots()[0]), [2]);
    let aborted = |output: &Output| match output {
        Output::AbortRequests { endpoint, .. } => Some(*endpoint),
        _ => None,
    };
    let aborted: Vec<_> = rig.outputs.iter().filter_map(aborted).collect();
    assert_eq!(aborted, [rig.id(1)], "its requests have somewhere to go now");
}

#[test]
fn pool_down_from_start_panics() {
    let mut rig = Rig::new_unprobed(&[("r/a", &[1, 2])]);
    assert!(serving_ports(&rig.published_snapshots()[0]).is_empty());
    rig.take_down(&[1]);
    assert_eq!(serving_ports(&rig.published_snapshots()[0]), [1, 2]);
}

#[test]
fn verdicts_of_one_turn_publish_once_before_aborts() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3]), ("r/b", &[4])]);
    rig.take_down(&[1, 2, 3]);
    assert_eq!(rig.published_snapshots().len(), 1);
    assert_eq!(serving_ports(&rig.published_snapshots()[0]), [4]);
    let publish = rig.outputs.iter().position(|output| matches!(output, Output::Publish(_)));
    let aborts = rig.outputs.iter().enumerate().filter_map(|(index, output)| match output {
        Output::AbortRequests { endpoint, failure } => Some((index, *endpoint, failure.class())),
        _ => None,
    });
    let aborts: Vec<_> = aborts.collect();
    assert_eq!(aborts.len(), 3);
    assert!(aborts.iter().all(|(index, ..)| Some(*index) > publish));
    for incident in rig.director.incidents() {
        assert_eq!(incident.timeline.shift, Some(rig.now));
    }
}

#[test]
fn pass_started_before_last_strike_clears_nothing() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    rig.now += ms(10);
    let pass_before_strike = rig.probe_result(id, PASS);
    rig.now += ms(1);
    let strike = rig.traffic_failure(id, Failure::connect(FailureReason::Refused));
    rig.turn([strike]);
    rig.now += ms(1);
    rig.turn([pass_before_strike]);
    assert!(matches!(rig.status(1).health, Health::Suspect { .. }));
    let pass_after_strike = rig.probe_result(id, PASS);
    rig.turn([pass_after_strike]);
    assert_eq!(rig.status(1).health, Health::Up);
}

#[test]
fn traffic_strike_starts_at_most_one_probe_burst() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    let stall = Failure::http(FailureReason::Stall);
    let strike = rig.traffic_failure(id, stall);
    rig.turn([strike]);
    let mut triggers = Vec::new();
    for _ in 0..12 {
        triggers.extend(rig.outputs.iter().filter_map(|output| match output {
            Output::StartProbe { endpoint, ticket, .. } if *endpoint == id => Some(ticket.trigger),
            _ => None,
        }));
        rig.now += BURST_GAP / 4;
        let strike = rig.traffic_failure(id, stall);
        rig.turn([strike]);
    }
    let bursts: Vec<_> =
        triggers.iter().filter(|row| matches!(row, ProbeTrigger::Burst(_))).collect();
    assert_eq!(bursts, [&ProbeTrigger::Burst(1); 3], "three probes, however many strikes");
}

#[test]
fn soft_evidence_alone_makes_no_down_verdict() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    for _ in 0..20 {
        rig.now += ms(1);
        let strikes = [
            FailureReason::Reset,
            FailureReason::Closed,
            FailureReason::Stall,
            FailureReason::Timeout,
        ]
        .map(|reason| rig.traffic_failure(id, Failure::http(reason)));
        rig.turn(strikes);
    }
    assert!(matches!(rig.status(1).health, Health::Suspect { strikes: 1, .. }));
    assert!(rig.status(1).is_in_service && rig.director.incidents().is_empty());
}

#[test]
fn failure_of_attempt_before_recovery_is_ignored() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    let old = rig.traffic_failure(id, Failure::connect(FailureReason::Refused));
    rig.take_down(&[1]);
    for _ in 0..2 {
        rig.now += ms(1);
        let pass = rig.probe_result(id, PASS);
        rig.turn([pass]);
    }
    rig.turn([old]);
    assert_eq!(rig.status(1).health, Health::Up);
}

#[test]
fn changed_probe_runs_at_once_and_new_period_applies() {
    let mut rig = Rig::new(&[("r/a", &[1])]);
    rig.advance(ms(2_000));
    let pass = rig.probe_result(rig.id(1), PASS);
    rig.turn([pass]);
    let last = rig.now;
    rig.advance(ms(10));
    let mut sooner = pool(&[("r/a", &[1])]);
    sooner.detect.interval = ms(300);
    rig.configure(sooner.clone());
    assert_eq!(rig.status(1).next_probe, Some(last + ms(300)));
    sooner.probes[0].port = Some(99);
    rig.configure(sooner);
    assert!(rig.has_started_probe(1));
}

#[test]
fn incident_keeps_counts_of_affected_requests() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    let stats = {
        let view = rig.director.pools[0].view().expect("published");
        let target = view.targets().find(|target| target.id == id).expect("serves");
        Arc::clone(&target.stats)
    };
    stats.record_rescue(false);
    stats.record_rescue(true);
    rig.take_down(&[1]);
    let cut = ClientFailure { kind: ClientFailureKind::Cut, is_repeatable: false };
    stats.record_client_failure(cut, 2_000);
    let counts = FailoverCounts { failed: 1, rescued: 2, late: 1 };
    assert_eq!(rig.director.incidents()[0].counts, counts);
    for _ in 0..2 {
        rig.now += ms(1);
        let pass = rig.probe_result(id, PASS);
        rig.turn([pass]);
    }
    let incident = rig.director.incidents().remove(0);
    assert!(incident.is_closed());
    assert_eq!(incident.counts, counts);
    rig.take_down(&[1]);
    assert_eq!(
        rig.director.incidents()[1].counts,
        FailoverCounts::default(),
        "the next begins at zero"
    );
}

#[test]
fn replaced_endpoints_serve_until_first_new_one_is_known() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    rig.configure(pool(&[("r/a", &[4, 5]), ("r/b", &[6])]));
    assert_eq!(rig.status(4).health, Health::NEW);
    assert_eq!(serving_ports(rig.published_snapshots().last().expect("a snapshot")), [1, 2, 3]);
    assert!(rig.panic_changes().is_empty());
    rig.now += ms(1);
    let strike = rig.probe_result(rig.id(4), REFUSED);
    rig.turn([strike]);
    assert!(rig.published_snapshots().iter().all(|snapshot| serving_ports(snapshot) == [1, 2, 3]));
    let pass = rig.probe_result(rig.id(5), PASS);
    rig.turn([pass]);
    assert_eq!(serving_ports(rig.published_snapshots().last().expect("a snapshot")), [5]);
    assert!(rig.panic_changes().is_empty());
}

#[test]
fn additions_to_preferred_zone_spill_no_traffic() {
    let shares = |snapshot: &Snapshot| -> Vec<u64> {
        snapshot.pools[0].primary.tiers.iter().map(|tier| tier.share).collect()
    };
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[9])]);
    rig.configure(pool(&[("r/a", &[1, 2, 3, 4, 5, 6]), ("r/b", &[9])]));
    assert_eq!(shares(rig.published_snapshots().last().expect("a snapshot")), [FULL_SHARE, 0]);
    for port in 3..=6 {
        rig.now += ms(1);
        let pass = rig.probe_result(rig.id(port), PASS);
        rig.turn([pass]);
        assert_eq!(shares(rig.published_snapshots().last().expect("a snapshot")), [FULL_SHARE, 0]);
    }
    rig.take_down(&[1, 2, 3]);
    assert!(
        shares(rig.published_snapshots().last().expect("a snapshot"))[1] > 0,
        "real losses spill"
    );
}
