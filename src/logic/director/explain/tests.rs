use super::*;

use std::time::Duration;

use crate::logic::director::tests::{PASS, REFUSED, Rig, ms, pool};
use crate::logic::director::{Source, Standing, Withheld, ZoneVerdict};
use crate::logic::health::Health;
use crate::logic::outcome::{Failure, Outcome, Reason};
use crate::logic::topology::{Correlate, Evict, PoolSpec};

const STATUS_503: Failure = Failure::http(Reason::Status(503));

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn endpoint(rig: &Rig, port: u16) -> EndpointFacts {
    let what = What::Endpoint(address(port));
    let Some(Explanation::Endpoint(facts)) = rig.director.explain(&what, None, rig.now).pop()
    else {
        panic!("no endpoint {port}");
    };
    *facts
}

fn zone(rig: &Rig, name: &str) -> ZoneFacts {
    let what = What::parse(name).expect("a zone");
    let Some(Explanation::Zone(facts)) = rig.director.explain(&what, None, rig.now).pop() else {
        panic!("no zone {name}");
    };
    *facts
}

/// A rig with this pool, in which every endpoint has passed.
fn rig(zones: &[(&str, &[u16])], change: impl FnOnce(&mut PoolSpec)) -> Rig {
    let mut rig = Rig::cold(zones);
    let mut spec = pool(zones);
    change(&mut spec);
    rig.configure(spec);
    rig.all_answer(PASS);
    rig
}

/// `good` and `bad` answers of one endpoint, of which control is told.
fn requests(rig: &mut Rig, port: u16, good: u32, bad: u32) {
    let id = rig.id(port);
    let live = Arc::clone(&rig.director.roster.get(id).expect("known").live);
    (0..good).for_each(|_| live.answered());
    let mut inputs = Vec::new();
    for _ in 0..bad {
        if live.erred() {
            inputs.push(rig.traffic(id, STATUS_503));
        }
    }
    rig.turn(inputs);
}

#[test]
fn names_are_told_apart() {
    assert_eq!(What::parse("127.0.0.1:1"), Some(What::Endpoint(address(1))));
    let text = |text: &str| What::parse(text).map(|what| what.to_string());
    for name in ["[::1]:80", "us-south/us-south-1", "us-south"] {
        assert_eq!(text(name).as_deref(), Some(name));
    }
    assert_eq!(text("a/b/c"), None);
    let rig = Rig::new(&[("r/b", &[2]), ("r/a", &[1])]);
    let names: Vec<String> = rig.director.names().iter().map(What::to_string).collect();
    assert_eq!(names, ["r", "r/a", "r/b", "127.0.0.1:1", "127.0.0.1:2"]);
}

#[test]
fn an_endpoint_that_is_up() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    rig.wait(ms(300));
    let facts = endpoint(&rig, 1);
    assert_eq!((facts.health, facts.standing), (Health::Up, Standing::Clear));
    assert_eq!((facts.cause, facts.withheld, facts.trial), (None, None, None));
    assert_eq!((facts.row, facts.cadence), (Row::Strikes { count: 0, needed: 2 }, Cadence::Steady));
    assert_eq!(facts.period, Duration::from_secs(1));
    assert!((facts.share - 0.5).abs() < 1e-9, "{}", facts.share);
    assert_eq!((facts.ramp, facts.weight, facts.weight_now), (1_000, 1, 1.0));
    assert_eq!(facts.silent_within, ms(2_000), "the closed form");
    assert_eq!(facts.refused_within, ms(1_101));
    assert_eq!(facts.probes.len(), 1);
    assert_eq!((facts.probes[0].protocol, facts.probes[0].outcome), (Some("tcp"), PASS));
    assert!((facts.zone.share - 1.0).abs() < 1e-9);
    assert_eq!(facts.pool.evict, Budget { used: 0, allowed: 3 });
    assert!(endpoint(&rig, 3).share.abs() < 1e-9, "the next tier gets nothing");
}

#[test]
fn a_verdict_by_probes_keeps_what_led_to_it() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.fell(&[1]);
    let fell = rig.now;
    for _ in 0..10 {
        rig.wait(ms(1_000));
        let refused = rig.regular(rig.id(1), Outcome::Fail(STATUS_503));
        rig.turn([refused]);
    }
    let facts = endpoint(&rig, 1);
    let refused = Failure::connect(Reason::Refused);
    let cause = facts.cause.expect("it is down");
    assert_eq!((cause.at, cause.source, cause.failure), (fell, Source::Probe, refused));
    assert_eq!((facts.since, facts.evidence.len()), (fell, 2));
    assert!(facts.evidence.iter().all(|piece| piece.failure == refused && piece.at <= fell));
    assert_eq!(facts.probes.len(), 6, "the probes go on");
    assert_eq!((facts.cadence, facts.share), (Cadence::Down, 0.0));
    assert_eq!(facts.refused_within, ms(1_101), "its round trip is still known");
    assert_eq!(facts.row, Row::Passes { count: 0, needed: 2 });
    assert_eq!(facts.pool.evict.used, 1);
    rig.all_answer(PASS);
    assert_eq!(endpoint(&rig, 1).row, Row::Passes { count: 1, needed: 2 });
    rig.now += ms(1);
    rig.all_answer(PASS);
    let facts = endpoint(&rig, 1);
    assert_eq!((facts.health, facts.cause), (Health::Up, None));
    assert_eq!(facts.ramp, 100, "its share grows back");
    assert!(facts.share > 0.05 && facts.share < 0.15, "{}", facts.share);
    assert!((facts.weight_now - 0.1).abs() < 1e-9);
}

#[test]
fn a_second_verdict_is_held_down() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    for _ in 0..2 {
        rig.fell(&[1]);
        for _ in 0..2 {
            rig.now += ms(1);
            rig.all_answer(PASS);
        }
    }
    let facts = endpoint(&rig, 1);
    assert!(facts.health.is_down(), "{:?}", facts.health);
    let until = facts.hold.until.expect("held");
    assert!(until > rig.now && until <= rig.now + ms(1_000));
    assert!(facts.hold.flaps > 1.9, "{}", facts.hold.flaps);
}

#[test]
fn a_verdict_by_traffic_says_how_it_is_to_prove_itself() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    requests(&mut rig, 1, 0, 2);
    let facts = endpoint(&rig, 1);
    assert_eq!((facts.standing, facts.cadence), (Standing::Doubted, Cadence::Doubted));
    assert_eq!(facts.evidence.last().map(|piece| piece.source), Some(Source::Traffic));
    assert_eq!(facts.doubt.failing, Some(1.0));
    requests(&mut rig, 1, 0, 10);
    let facts = endpoint(&rig, 1);
    assert_eq!(facts.health, Health::Down { failure: STATUS_503 });
    assert_eq!(facts.cause.map(|cause| cause.source), Some(Source::Traffic));
    let Some(Trial::Held { until }) = facts.trial else { panic!("{:?}", facts.trial) };
    assert_eq!(until, rig.now + ms(1_000));
    rig.wait(ms(1_000));
    let facts = endpoint(&rig, 1);
    let Some(Trial::Running { good_in_a_row: 0, needed: 8, taken: 0, .. }) = facts.trial else {
        panic!("{:?}", facts.trial);
    };
    assert_eq!(facts.standing, Standing::Trial);
}

#[test]
fn a_withheld_verdict_says_why() {
    let mut rig = rig(&[("r/a", &[1, 2])], |pool| {
        pool.evict = Evict { endpoints: 0, ..Evict::default() };
    });
    rig.fell(&[1]);
    let facts = endpoint(&rig, 1);
    assert_eq!(facts.withheld, Some(Withheld::Budget));
    assert_eq!(
        (facts.standing, facts.row),
        (Standing::Clear, Row::Strikes { count: 2, needed: 2 })
    );
    assert_eq!((facts.pool.evict.allowed, facts.pool.withheld), (0, 1));
    assert_eq!(facts.cause, None, "there is no verdict");
}

#[test]
fn a_zone_that_fell_says_by_whom_and_what_brings_it_back() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2, 3, 4]), ("r/b", &[5])];
    let mut rig = rig(zones, |pool| pool.correlate = Correlate::default());
    let facts = zone(&rig, "r/a").zone;
    assert_eq!(facts.quorum.map(|quorum| (quorum.struck, quorum.needed)), Some((0, 3)));
    rig.now += ms(1);
    let inputs: Vec<_> = [1, 2].map(|port| rig.regular(rig.id(port), REFUSED)).into();
    rig.turn(inputs);
    assert_eq!(zone(&rig, "r/a").zone.quorum.map(|quorum| quorum.struck), Some(2));
    let third = rig.regular(rig.id(3), REFUSED);
    rig.turn([third]);
    let facts = zone(&rig, "r/a");
    let ZoneVerdict::Down { source, since, held_until, .. } = facts.zone.verdict else {
        panic!("{:?}", facts.zone.verdict);
    };
    assert_eq!((source, since), (Source::Correlation, rig.now));
    assert_eq!(held_until, rig.now + ms(1_000));
    assert_eq!((facts.zone.ready, facts.zone.ready_needed), (0, 2));
    assert_eq!((facts.zone.counts.down, facts.zone.counts.up, facts.zone.counts.all), (3, 1, 4));
    assert!(facts.zone.share.abs() < 1e-9);
    let ports: Vec<u16> = facts.endpoints.iter().map(|one| one.address.port()).collect();
    assert_eq!(ports, [1, 2, 3, 4], "those that are down come first");
    assert_eq!(facts.endpoints[3].standing, Standing::Resort);
    let cause = endpoint(&rig, 1).cause.expect("it fell with its zone");
    assert_eq!(cause.source, Source::Correlation);
    let what = What::parse("r").expect("a region");
    let Some(Explanation::Region(region)) = rig.director.explain(&what, None, rig.now).pop() else {
        panic!("no region");
    };
    assert_eq!((region.down, region.needed, region.zones.len()), (1, Some(2), 2));
    rig.wait(Duration::from_secs(3));
    assert_eq!(zone(&rig, "r/a").zone.quorum.map(|quorum| quorum.struck), Some(0), "long ago");
}

#[test]
fn a_large_zone_is_listed_in_part_and_the_bad_ones_first() {
    let ports: Vec<u16> = (1..=130).collect();
    let mut rig = Rig::new(&[("r/a", &ports)]);
    rig.fell(&[77]);
    let facts = zone(&rig, "r/a");
    assert_eq!((facts.endpoints.len(), facts.more), (100, 30));
    assert_eq!(facts.endpoints[0].address.port(), 77);
    let shares: f64 = ports.iter().map(|&port| endpoint(&rig, port).share).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
}

#[test]
fn what_is_not_there_has_no_explanation() {
    let rig = Rig::new(&[("r/a", &[1])]);
    let count = |what: &str, pool: Option<&str>| {
        rig.director.explain(&What::parse(what).expect("a name"), pool, rig.now).len()
    };
    assert_eq!((count("127.0.0.1:1", None), count("127.0.0.1:1", Some("web"))), (1, 1));
    assert_eq!(count("127.0.0.1:1", Some("api")), 0);
    assert_eq!((count("127.0.0.1:9", None), count("r/x", None), count("x", None)), (0, 0, 0));
}

#[test]
fn in_panic_the_down_ones_are_probed_fast_and_share_the_traffic() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.fell(&[1, 2]);
    let facts = endpoint(&rig, 1);
    assert!(facts.pool.panic && facts.health.is_down());
    assert_eq!((facts.cadence, facts.period), (Cadence::Panic, ms(100)));
    assert!((facts.share - 0.5).abs() < 1e-9);
}

#[test]
fn probes_wait_for_the_budget_and_traffic_vouches() {
    let mut rig = rig(&[("r/a", &[1, 2])], |pool| {
        pool.detect.target = Some(Duration::from_secs(5));
    });
    rig.director.topology.probes_per_second = 1;
    rig.wait(ms(2_000));
    rig.wait(ms(1));
    let (one, two) = (endpoint(&rig, 1), endpoint(&rig, 2));
    assert!(one.waits_for_budget != two.waits_for_budget, "there is a token for one of them");
    assert!(one.pool.stretch > 1.9, "{}", one.pool.stretch);
    let live = Arc::clone(&rig.director.roster.get(rig.id(1)).expect("known").live);
    live.good(rig.now.saturating_duration_since(rig.director.epoch).as_micros() as u64);
    let facts = endpoint(&rig, 1);
    assert_eq!((facts.cadence, facts.period), (Cadence::Vouched, ms(4_000)));
    assert_eq!(facts.silent_within, ms(9_000), "the target, stretched by the budget");
}
