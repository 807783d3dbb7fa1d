//! What a suspicion does to traffic before there is a verdict.

use super::*;
use super::{REFUSED, Rig, ms, serving};
use crate::logic::outcome::Reason;
use crate::logic::steer::WHOLE;

const STALL: Failure = Failure::http(Reason::Stall);

/// The tiers of the last snapshot: share and ports.
fn tiers(rig: &Rig) -> Vec<(u64, Vec<u16>)> {
    let snapshot = rig.published().pop().expect("a snapshot");
    let ports = |tier: &crate::logic::snapshot::Tier| {
        tier.targets().map(|target| target.address.port()).collect()
    };
    snapshot.pools[0].led.tiers.iter().map(|tier| (tier.share, ports(tier))).collect()
}

fn suspect(rig: &mut Rig, ports: &[u16]) {
    rig.now += ms(1);
    let inputs: Vec<_> = ports.iter().map(|&port| rig.traffic(rig.id(port), STALL)).collect();
    rig.turn(inputs);
}

#[test]
fn one_suspect_gets_nothing_and_moves_nothing_to_the_next_tier() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3, 4]), ("r/b", &[5])]);
    suspect(&mut rig, &[1]);
    assert_eq!(tiers(&rig), [(WHOLE, vec![2, 3, 4]), (0, vec![5]), (0, vec![1])]);
}

#[test]
fn a_zone_of_suspects_hands_all_to_the_next_tier() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    suspect(&mut rig, &[1, 2]);
    assert_eq!(tiers(&rig), [(WHOLE, vec![3]), (0, vec![1, 2])]);
}

#[test]
fn where_all_are_suspect_all_serve() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    suspect(&mut rig, &[1, 2, 3]);
    assert_eq!(tiers(&rig), [(WHOLE, vec![1, 2]), (0, vec![3])]);
}

#[test]
fn what_is_cleared_has_its_traffic_back_at_once() {
    let mut rig = Rig::new(&[("r/a", &[1]), ("r/b", &[2])]);
    suspect(&mut rig, &[1]);
    assert_eq!(tiers(&rig), [(WHOLE, vec![2]), (0, vec![1])]);
    rig.now += ms(1);
    rig.all_answer(Outcome::Pass { latency: ms(1) });
    assert_eq!(tiers(&rig), [(WHOLE, vec![1]), (0, vec![2])]);
}

#[test]
fn a_suspect_is_better_than_one_that_is_down() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.fell(&[1]);
    suspect(&mut rig, &[2]);
    assert_eq!(serving(&rig.published()[0]), [2]);
    rig.now += ms(1);
    let refused = rig.regular(rig.id(2), REFUSED);
    rig.turn([refused]);
    assert_eq!(serving(&rig.published()[0]), [1, 2], "panic");
}
