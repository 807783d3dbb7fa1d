//! What another process has left.

use super::*;
use crate::logic::recovery::Ramp;

/// Another process with the same configuration, which has inherited from this one.
fn heir(rig: &Rig, spec: PoolSpec) -> Rig {
    let mut heir = Rig::blank();
    // Its time begins when the other one ends: the clock has gone on meanwhile, perhaps by more.
    heir.director = Director::new(rig.now, 7);
    heir.now = rig.now + ms(1);
    let topology = Topology { here: None, pools: vec![Arc::new(spec)], ..Topology::default() };
    let configure = Input::Configure { topology, routes: Arc::default() };
    heir.turn([configure, Input::Inherit(rig.director.legacy())]);
    heir
}

const BAD: Failure = Failure::http(Reason::Status(500));

#[test]
fn who_was_up_serves_at_once_and_who_was_down_does_not() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2]), ("r/b", &[3, 4])];
    let mut rig = Rig::new(zones);
    rig.fell(&[2]);
    rig.wait(ms(500));
    let (old, held) =
        (rig.status(2), rig.director.roster.get(rig.id(2)).expect("known").held_until());
    let heir = heir(&rig, pool(zones));
    assert_eq!(heir.published().len(), 1, "one turn, one publication");
    assert_eq!(serving(&heir.published()[0]), [1, 3, 4]);
    assert!(heir.director.is_settled() && heir.panics().is_empty());
    for port in 1..=4 {
        assert!(heir.probed(port), "{port} is probed at once");
    }
    let new = heir.status(2);
    assert_eq!((new.health, new.since, new.cause), (old.health, old.since, old.cause));
    let endpoint = heir.director.roster.get(heir.id(2)).expect("known");
    assert_eq!(endpoint.held_until(), held);
    let proven = |rig: &Rig| rig.director.roster.get(rig.id(1)).expect("known").last_proof;
    assert_eq!(proven(&heir), proven(&rig), "proof keeps its age");
}

#[test]
fn who_was_down_must_prove_itself_and_who_was_up_can_fall() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2])];
    let mut rig = Rig::new(zones);
    rig.fell(&[2]);
    let mut heir = heir(&rig, pool(zones));
    let pass = heir.regular(heir.id(2), PASS);
    heir.turn([pass]);
    assert!(heir.status(2).health.is_down(), "one pass is not enough");
    heir.now += ms(100);
    let pass = heir.regular(heir.id(2), PASS);
    heir.turn([pass]);
    assert_eq!(heir.status(2).health, Health::Up);
    heir.fell(&[1]);
    assert_eq!(heir.down(), [1]);
}

#[test]
fn after_the_first_look_probes_are_spread_again() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2, 3, 4, 5, 6, 7, 8])];
    let mut heir = heir(&Rig::new(zones), pool(zones));
    heir.all_answer(PASS);
    let mut dues: Vec<_> =
        heir.director.endpoints().iter().map(|status| status.next_probe).collect();
    dues.sort_unstable();
    let last = dues.pop().flatten().expect("due");
    let first = dues.first().copied().flatten().expect("due");
    assert!(last - first > ms(300), "{:?}", last - first);
}

#[test]
fn without_proof_nobody_serves() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2])];
    let rig = Rig::new(zones);
    let mut legacy = rig.director.legacy();
    legacy.pools[0].zones[0].endpoints[0].last_proof = None;
    let mut heir = Rig::cold(zones);
    heir.turn([Input::Inherit(legacy)]);
    assert_eq!(heir.status(1).health, Health::NEW);
    assert_eq!(serving(&heir.published()[0]), [2]);
}

#[test]
fn who_has_proof_of_its_own_inherits_nothing() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2])];
    let mut rig = Rig::new(zones);
    rig.fell(&[1, 2]);
    let mut heir = Rig::new(zones);
    heir.turn([Input::Inherit(rig.director.legacy())]);
    assert!(heir.down().is_empty());
}

#[test]
fn what_traffic_found_out_is_inherited() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2]), ("r/b", &[3])];
    let mut rig = Rig::new(zones);
    for _ in 0..10 {
        rig.now += ms(10);
        rig.requests(1, 0, 4, BAD);
    }
    assert_eq!(rig.down(), [1]);
    let mut heir = heir(&rig, pool(zones));
    assert_eq!(heir.down(), [1]);
    assert_eq!(heir.status(1).cause.expect("a cause").source, Source::Traffic);
    heir.live_on(ms(1_000), |_| PASS);
    assert_eq!(heir.down(), [1], "passing probes do not absolve it");
    heir.live_on(ms(9_000), |_| PASS);
    assert!(heir.down().is_empty(), "in the end it gets its chance");
}

#[test]
fn a_zone_that_was_down_stays_down_as_a_whole() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2, 3]), ("r/b", &[4])];
    let spec = || PoolSpec { correlate: Correlate::default(), ..pool(zones) };
    let mut rig = Rig::with(spec());
    rig.fell(&[1, 2]);
    let verdict = |rig: &Rig| rig.director.pools[0].zones[0].verdict;
    assert!(matches!(verdict(&rig), ZoneVerdict::Down { .. }));
    let mut heir = heir(&rig, spec());
    assert_eq!(verdict(&heir), verdict(&rig));
    assert_eq!(heir.status(3).standing, Standing::Resort, "it has not proved to be an exception");
    assert_eq!(heir.status(4).standing, Standing::Clear);
    heir.live_on(ms(20_000), |_| PASS);
    assert_eq!(verdict(&heir), ZoneVerdict::Up);
}

#[test]
fn a_share_that_grows_goes_on_growing() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2])];
    let mut rig = Rig::new(zones);
    rig.fell(&[2]);
    rig.live_on(ms(3_000), |_| PASS);
    let before = rig.status(2).ramp;
    let mut heir = heir(&rig, pool(zones));
    let after = heir.status(2).ramp;
    assert!(before > 100 && after >= before && after <= before + 10, "{before} {after}");
    heir.live_on(ms(10_000), |_| PASS);
    assert_eq!(heir.director.roster.get(heir.id(2)).expect("known").ramp, Ramp::Full);
}

#[test]
fn a_pool_that_nothing_is_known_of_is_not_settled() {
    let mut heir = Rig::cold(&[("r/a", &[1, 2])]);
    heir.turn([Input::Inherit(Legacy::default())]);
    assert!(!heir.director.is_settled());
    let refused = heir.regular(heir.id(1), REFUSED);
    heir.turn([refused]);
    assert!(!heir.director.is_settled(), "one strike is no verdict");
    let pass = heir.regular(heir.id(2), PASS);
    heir.turn([pass]);
    assert!(heir.director.is_settled(), "the pool can serve");
    let mut none = Rig::cold(&[("r/a", &[1])]);
    none.fell(&[1]);
    assert!(none.director.is_settled(), "all is known");
}
