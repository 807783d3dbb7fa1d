//! Taking over the health states of another process.

use super::*;
use crate::logic::health::recovery::Ramp;

/// Another process with the same configuration, which has taken over from this one.
fn successor(rig: &Rig, spec: PoolSpec) -> Rig {
    let mut successor = Rig::unconfigured();
    // Its time begins when the other one ends: the clock has gone on meanwhile, perhaps by more.
    successor.director = Director::new(rig.now, 7);
    successor.now = rig.now + ms(1);
    let topology = Topology { local: None, pools: vec![Arc::new(spec)], ..Topology::default() };
    let configure = Input::Configure { topology, routes: Arc::default() };
    successor.turn([configure, Input::ImportHealth(rig.director.export_health())]);
    successor
}

const BAD: Failure = Failure::http(FailureReason::Status(500));

#[test]
fn imported_up_serves_at_once_and_down_does_not() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2]), ("r/b", &[3, 4])];
    let mut rig = Rig::new(zones);
    rig.take_down(&[2]);
    rig.advance(ms(500));
    let (old, held) = (
        rig.status(2),
        rig.director.endpoints.get(rig.id(2)).expect("known").history().held_until(),
    );
    let successor = successor(&rig, pool(zones));
    assert_eq!(successor.published_snapshots().len(), 1, "one turn, one publication");
    assert_eq!(serving_ports(&successor.published_snapshots()[0]), [1, 3, 4]);
    assert!(successor.director.is_ready_to_serve() && successor.panic_changes().is_empty());
    for port in 1..=4 {
        assert!(successor.has_started_probe(port), "{port} is probed at once");
    }
    let new = successor.status(2);
    assert_eq!((new.health, new.since, new.cause), (old.health, old.since, old.cause));
    let endpoint = successor.director.endpoints.get(successor.id(2)).expect("known");
    assert_eq!(endpoint.history().held_until(), held);
    let last_pass = |rig: &Rig| rig.director.endpoints.get(rig.id(1)).expect("known").last_pass();
    assert_eq!(last_pass(&successor), last_pass(&rig), "proof keeps its age");
}

#[test]
fn imported_down_needs_passes_and_imported_up_can_go_down() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2])];
    let mut rig = Rig::new(zones);
    rig.take_down(&[2]);
    let mut successor = successor(&rig, pool(zones));
    let pass = successor.probe_result(successor.id(2), PASS);
    successor.turn([pass]);
    assert!(successor.status(2).health.is_down(), "one pass is not enough");
    successor.now += ms(100);
    let pass = successor.probe_result(successor.id(2), PASS);
    successor.turn([pass]);
    assert_eq!(successor.status(2).health, Health::Up);
    successor.take_down(&[1]);
    assert_eq!(successor.down_ports(), [1]);
}

#[test]
fn probes_are_spread_after_first_pass_of_import() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2, 3, 4, 5, 6, 7, 8])];
    let mut successor = successor(&Rig::new(zones), pool(zones));
    successor.answer_all_probes(PASS);
    let mut dues: Vec<_> =
        successor.director.endpoints().iter().map(|status| status.next_probe).collect();
    dues.sort_unstable();
    let last = dues.pop().flatten().expect("due");
    let first = dues.first().copied().flatten().expect("due");
    assert!(last - first > ms(300), "{:?}", last - first);
}

#[test]
fn import_without_last_success_does_not_serve() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2])];
    let rig = Rig::new(zones);
    let mut export = rig.director.export_health();
    export.pools[0].zones[0].endpoints[0].last_success = None;
    let mut successor = Rig::new_unprobed(zones);
    successor.turn([Input::ImportHealth(export)]);
    assert_eq!(successor.status(1).health, Health::NEW);
    assert_eq!(serving_ports(&successor.published_snapshots()[0]), [2]);
}

#[test]
fn endpoint_with_own_evidence_ignores_import() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2])];
    let mut rig = Rig::new(zones);
    rig.take_down(&[1, 2]);
    let mut successor = Rig::new(zones);
    successor.turn([Input::ImportHealth(rig.director.export_health())]);
    assert!(successor.down_ports().is_empty());
}

#[test]
fn ejection_is_imported() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2]), ("r/b", &[3])];
    let mut rig = Rig::new(zones);
    for _ in 0..10 {
        rig.now += ms(10);
        rig.complete_requests(1, 0, 4, BAD);
    }
    assert_eq!(rig.down_ports(), [1]);
    let mut successor = successor(&rig, pool(zones));
    assert_eq!(successor.down_ports(), [1]);
    assert_eq!(successor.status(1).cause.expect("a cause").source, EvidenceSource::Traffic);
    successor.run_for(ms(1_000), |_| PASS);
    assert_eq!(successor.down_ports(), [1], "passing probes end no ejection");
    successor.run_for(ms(9_000), |_| PASS);
    assert!(successor.down_ports().is_empty(), "it returns after the timeout of its trials");
}

#[test]
fn imported_down_zone_stays_down() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2, 3]), ("r/b", &[4])];
    let spec = || PoolSpec { correlation: CorrelationSpec::default(), ..pool(zones) };
    let mut rig = Rig::with_pool(spec());
    rig.take_down(&[1, 2]);
    let verdict = |rig: &Rig| rig.director.pools[0].zones()[0].correlation().verdict();
    assert!(matches!(verdict(&rig), ZoneVerdict::Down { .. }));
    let mut successor = successor(&rig, spec());
    assert_eq!(verdict(&successor), verdict(&rig));
    assert_eq!(
        successor.status(3).eligibility,
        Eligibility::LastResort,
        "it has not proved to be an exception"
    );
    assert_eq!(successor.status(4).eligibility, Eligibility::Clear);
    successor.run_for(ms(20_000), |_| PASS);
    assert_eq!(verdict(&successor), ZoneVerdict::Up);
}

#[test]
fn imported_ramp_continues() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2])];
    let mut rig = Rig::new(zones);
    rig.take_down(&[2]);
    rig.run_for(ms(3_000), |_| PASS);
    let before = rig.status(2).ramp;
    let mut successor = successor(&rig, pool(zones));
    let after = successor.status(2).ramp;
    assert!(before > 100 && after >= before && after <= before + 10, "{before} {after}");
    successor.run_for(ms(10_000), |_| PASS);
    assert_eq!(
        successor.director.endpoints.get(successor.id(2)).expect("known").ramp().ramp(),
        Ramp::Full
    );
}

#[test]
fn pool_with_unknown_health_is_not_ready() {
    let mut successor = Rig::new_unprobed(&[("r/a", &[1, 2])]);
    successor.turn([Input::ImportHealth(HealthExport::default())]);
    assert!(!successor.director.is_ready_to_serve());
    let refused = successor.probe_result(successor.id(1), REFUSED);
    successor.turn([refused]);
    assert!(!successor.director.is_ready_to_serve(), "one strike is no verdict");
    let pass = successor.probe_result(successor.id(2), PASS);
    successor.turn([pass]);
    assert!(successor.director.is_ready_to_serve(), "the pool can serve");
    let mut empty = Rig::new_unprobed(&[("r/a", &[1])]);
    empty.take_down(&[1]);
    assert!(empty.director.is_ready_to_serve(), "all is known");
}
