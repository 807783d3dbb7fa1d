//! What a suspicion does to traffic before there is a verdict.

use super::*;
use super::{REFUSED, Rig, ms, serving_ports};
use crate::logic::model::outcome::FailureReason;
use crate::logic::steering::FULL_SHARE;

const STALL: Failure = Failure::http(FailureReason::Stall);

/// The tiers of the last snapshot: share and ports.
fn tiers(rig: &Rig) -> Vec<(u64, Vec<u16>)> {
    let snapshot = rig.published_snapshots().pop().expect("a snapshot");
    let ports = |tier: &crate::logic::model::snapshot::Tier| {
        tier.targets().map(|target| target.address.port()).collect()
    };
    snapshot.pools[0].primary.tiers.iter().map(|tier| (tier.share, ports(tier))).collect()
}

fn make_suspect(rig: &mut Rig, ports: &[u16]) {
    rig.now += ms(1);
    let inputs: Vec<_> =
        ports.iter().map(|&port| rig.traffic_failure(rig.id(port), STALL)).collect();
    rig.turn(inputs);
}

#[test]
fn single_suspect_gets_no_traffic_and_spills_none() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3, 4]), ("r/b", &[5])]);
    make_suspect(&mut rig, &[1]);
    assert_eq!(tiers(&rig), [(FULL_SHARE, vec![2, 3, 4]), (0, vec![5]), (0, vec![1])]);
}

#[test]
fn zone_of_suspects_spills_all_to_next_tier() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    make_suspect(&mut rig, &[1, 2]);
    assert_eq!(tiers(&rig), [(FULL_SHARE, vec![3]), (0, vec![1, 2])]);
}

#[test]
fn all_suspects_serve_when_none_is_clear() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    make_suspect(&mut rig, &[1, 2, 3]);
    assert_eq!(tiers(&rig), [(FULL_SHARE, vec![1, 2]), (0, vec![3])]);
}

#[test]
fn cleared_suspect_regains_traffic_at_once() {
    let mut rig = Rig::new(&[("r/a", &[1]), ("r/b", &[2])]);
    make_suspect(&mut rig, &[1]);
    assert_eq!(tiers(&rig), [(FULL_SHARE, vec![2]), (0, vec![1])]);
    rig.now += ms(1);
    rig.answer_all_probes(ProbeOutcome::Pass { latency: ms(1) });
    assert_eq!(tiers(&rig), [(FULL_SHARE, vec![1]), (0, vec![2])]);
}

#[test]
fn suspect_is_preferred_to_down_endpoint() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.take_down(&[1]);
    make_suspect(&mut rig, &[2]);
    assert_eq!(serving_ports(&rig.published_snapshots()[0]), [2]);
    rig.now += ms(1);
    let refused = rig.probe_result(rig.id(2), REFUSED);
    rig.turn([refused]);
    assert_eq!(serving_ports(&rig.published_snapshots()[0]), [1, 2], "panic");
}
