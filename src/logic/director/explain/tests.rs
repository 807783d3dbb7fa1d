use super::*;
use crate::logic::director::EvictionBudget;

use std::time::Duration;

use crate::logic::director::tests::{PASS, REFUSED, Rig, ms, pool};
use crate::logic::director::{Eligibility, EvidenceSource, WithheldReason, ZoneVerdict};
use crate::logic::health::endpoint_health::Health;
use crate::logic::model::outcome::{Failure, FailureReason, ProbeOutcome};
use crate::logic::model::topology::{CorrelationSpec, EvictionSpec, PoolSpec};

const STATUS_503: Failure = Failure::http(FailureReason::Status(503));

fn endpoint_address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn endpoint(rig: &Rig, port: u16) -> EndpointFacts {
    let what = TopologySelector::Endpoint(endpoint_address(port));
    let Some(Explanation::Endpoint(facts)) = rig.director.explain(&what, None, rig.now).pop()
    else {
        panic!("no endpoint {port}");
    };
    *facts
}

fn zone(rig: &Rig, name: &str) -> ZoneFacts {
    let what = TopologySelector::parse(name).expect("a zone");
    let Some(Explanation::Zone(facts)) = rig.director.explain(&what, None, rig.now).pop() else {
        panic!("no zone {name}");
    };
    *facts
}

/// A rig with this pool, in which every endpoint has passed.
fn rig(zones: &[(&str, &[u16])], change: impl FnOnce(&mut PoolSpec)) -> Rig {
    let mut rig = Rig::new_unprobed(zones);
    let mut spec = pool(zones);
    change(&mut spec);
    rig.configure(spec);
    rig.answer_all_probes(PASS);
    rig
}

/// `good` and `bad` responses of one endpoint; the bad ones are reported.
fn send_requests(rig: &mut Rig, port: u16, good: u32, bad: u32) {
    let id = rig.id(port);
    let live = Arc::clone(rig.director.endpoints.get(id).expect("known").stats());
    (0..good).for_each(|_| live.record_success());
    let mut inputs = Vec::new();
    for _ in 0..bad {
        if live.record_error() {
            inputs.push(rig.traffic_failure(id, STATUS_503));
        }
    }
    rig.turn(inputs);
}

#[test]
fn selector_parses_endpoint_zone_and_region_names() {
    assert_eq!(
        TopologySelector::parse("127.0.0.1:1"),
        Some(TopologySelector::Endpoint(endpoint_address(1)))
    );
    let text = |text: &str| TopologySelector::parse(text).map(|what| what.to_string());
    for name in ["[::1]:80", "us-south/us-south-1", "us-south"] {
        assert_eq!(text(name).as_deref(), Some(name));
    }
    assert_eq!(text("a/b/c"), None);
    let rig = Rig::new(&[("r/b", &[2]), ("r/a", &[1])]);
    let names: Vec<String> =
        rig.director.selectors().iter().map(TopologySelector::to_string).collect();
    assert_eq!(names, ["r", "r/a", "r/b", "127.0.0.1:1", "127.0.0.1:2"]);
}

#[test]
fn explanation_of_an_up_endpoint_is_complete() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    rig.advance(ms(300));
    let facts = endpoint(&rig, 1);
    assert_eq!((facts.health, facts.eligibility), (Health::Up, Eligibility::Clear));
    assert_eq!((facts.cause, facts.withheld, facts.ejection_trial), (None, None, None));
    assert_eq!(
        (facts.streak, facts.cadence),
        (ProbeStreak::Strikes { count: 0, needed: 2 }, Cadence::Steady)
    );
    assert_eq!(facts.period, Duration::from_secs(1));
    assert!((facts.share - 0.5).abs() < 1e-9, "{}", facts.share);
    assert_eq!((facts.ramp, facts.weight, facts.weight_now), (1_000, 1, 1.0));
    assert_eq!(facts.silent_within, ms(2_000), "the closed form");
    assert_eq!(facts.refused_within, ms(1_101));
    assert_eq!(facts.probes.len(), 1);
    assert_eq!((facts.probes[0].protocol, facts.probes[0].outcome), (Some("tcp"), PASS));
    assert!((facts.zone.share - 1.0).abs() < 1e-9);
    assert_eq!(facts.pool.evict, EvictionBudget { used: 0, allowed: 3 });
    assert!(endpoint(&rig, 3).share.abs() < 1e-9, "the next tier gets nothing");
}

#[test]
fn verdict_by_probes_keeps_its_evidence() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.take_down(&[1]);
    let down_at = rig.now;
    for _ in 0..10 {
        rig.advance(ms(1_000));
        let refused = rig.probe_result(rig.id(1), ProbeOutcome::Fail(STATUS_503));
        rig.turn([refused]);
    }
    let facts = endpoint(&rig, 1);
    let refused = Failure::connect(FailureReason::Refused);
    let cause = facts.cause.expect("it is down");
    assert_eq!((cause.at, cause.source, cause.failure), (down_at, EvidenceSource::Probe, refused));
    assert_eq!((facts.since, facts.evidence.len()), (down_at, 2));
    assert!(facts.evidence.iter().all(|piece| piece.failure == refused && piece.at <= down_at));
    assert_eq!(facts.probes.len(), 6, "the probes go on");
    assert_eq!((facts.cadence, facts.share), (Cadence::Down, 0.0));
    assert_eq!(facts.refused_within, ms(1_101), "its round trip is still known");
    assert_eq!(facts.streak, ProbeStreak::Passes { count: 0, needed: 2 });
    assert_eq!(facts.pool.evict.used, 1);
    rig.answer_all_probes(PASS);
    assert_eq!(endpoint(&rig, 1).streak, ProbeStreak::Passes { count: 1, needed: 2 });
    rig.now += ms(1);
    rig.answer_all_probes(PASS);
    let facts = endpoint(&rig, 1);
    assert_eq!((facts.health, facts.cause), (Health::Up, None));
    assert_eq!(facts.ramp, 100, "its share grows back");
    assert!(facts.share > 0.05 && facts.share < 0.15, "{}", facts.share);
    assert!((facts.weight_now - 0.1).abs() < 1e-9);
}

#[test]
fn second_verdict_is_held_down() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    for _ in 0..2 {
        rig.take_down(&[1]);
        for _ in 0..2 {
            rig.now += ms(1);
            rig.answer_all_probes(PASS);
        }
    }
    let facts = endpoint(&rig, 1);
    assert!(facts.health.is_down(), "{:?}", facts.health);
    let until = facts.hold_down.until.expect("held");
    assert!(until > rig.now && until <= rig.now + ms(1_000));
    assert!(facts.hold_down.flaps > 1.9, "{}", facts.hold_down.flaps);
}

#[test]
fn verdict_by_traffic_explains_its_trials() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    send_requests(&mut rig, 1, 0, 2);
    let facts = endpoint(&rig, 1);
    assert_eq!((facts.eligibility, facts.cadence), (Eligibility::Doubted, Cadence::Doubted));
    assert_eq!(facts.evidence.last().map(|piece| piece.source), Some(EvidenceSource::Traffic));
    assert_eq!(facts.outlier_score.failure_ratio, Some(1.0));
    send_requests(&mut rig, 1, 0, 10);
    let facts = endpoint(&rig, 1);
    assert_eq!(facts.health, Health::Down { failure: STATUS_503 });
    assert_eq!(facts.cause.map(|cause| cause.source), Some(EvidenceSource::Traffic));
    let Some(EjectionTrial::Held { until }) = facts.ejection_trial else {
        panic!("{:?}", facts.ejection_trial)
    };
    assert_eq!(until, rig.now + ms(1_000));
    rig.advance(ms(1_000));
    let facts = endpoint(&rig, 1);
    let Some(EjectionTrial::Running {
        consecutive_successes: 0, needed: 8, trials_taken: 0, ..
    }) = facts.ejection_trial
    else {
        panic!("{:?}", facts.ejection_trial);
    };
    assert_eq!(facts.eligibility, Eligibility::Trial);
}

#[test]
fn withheld_verdict_states_its_reason() {
    let mut rig = rig(&[("r/a", &[1, 2])], |pool| {
        pool.eviction = EvictionSpec { max_down_endpoints: 0, ..EvictionSpec::default() };
    });
    rig.take_down(&[1]);
    let facts = endpoint(&rig, 1);
    assert_eq!(facts.withheld, Some(WithheldReason::Budget));
    assert_eq!(
        (facts.eligibility, facts.streak),
        (Eligibility::Clear, ProbeStreak::Strikes { count: 2, needed: 2 })
    );
    assert_eq!((facts.pool.evict.allowed, facts.pool.withheld), (0, 1));
    assert_eq!(facts.cause, None, "there is no verdict");
}

#[test]
fn down_zone_explains_its_quorum_and_return() {
    let zones: &[(&str, &[u16])] = &[("r/a", &[1, 2, 3, 4]), ("r/b", &[5])];
    let mut rig = rig(zones, |pool| pool.correlation = CorrelationSpec::default());
    let facts = zone(&rig, "r/a").zone;
    assert_eq!(facts.quorum.map(|quorum| (quorum.struck_endpoints, quorum.needed)), Some((0, 3)));
    rig.now += ms(1);
    let inputs: Vec<_> = [1, 2].map(|port| rig.probe_result(rig.id(port), REFUSED)).into();
    rig.turn(inputs);
    assert_eq!(zone(&rig, "r/a").zone.quorum.map(|quorum| quorum.struck_endpoints), Some(2));
    let third = rig.probe_result(rig.id(3), REFUSED);
    rig.turn([third]);
    let facts = zone(&rig, "r/a");
    let ZoneVerdict::Down { source, since, held_until, .. } = facts.zone.verdict else {
        panic!("{:?}", facts.zone.verdict);
    };
    assert_eq!((source, since), (EvidenceSource::Correlation, rig.now));
    assert_eq!(held_until, rig.now + ms(1_000));
    assert_eq!((facts.zone.ready, facts.zone.ready_needed), (0, 2));
    assert_eq!((facts.zone.counts.down, facts.zone.counts.up, facts.zone.counts.all), (3, 1, 4));
    assert!(facts.zone.share.abs() < 1e-9);
    let ports: Vec<u16> = facts.endpoints.iter().map(|one| one.address.port()).collect();
    assert_eq!(ports, [1, 2, 3, 4], "those that are down come first");
    assert_eq!(facts.endpoints[3].eligibility, Eligibility::LastResort);
    let cause = endpoint(&rig, 1).cause.expect("it fell with its zone");
    assert_eq!(cause.source, EvidenceSource::Correlation);
    let what = TopologySelector::parse("r").expect("a region");
    let Some(Explanation::Region(region)) = rig.director.explain(&what, None, rig.now).pop() else {
        panic!("no region");
    };
    assert_eq!((region.down, region.needed, region.zones.len()), (1, Some(2), 2));
    rig.advance(Duration::from_secs(3));
    assert_eq!(
        zone(&rig, "r/a").zone.quorum.map(|quorum| quorum.struck_endpoints),
        Some(0),
        "long ago"
    );
}

#[test]
fn large_zone_lists_unhealthy_endpoints_first() {
    let ports: Vec<u16> = (1..=130).collect();
    let mut rig = Rig::new(&[("r/a", &ports)]);
    rig.take_down(&[77]);
    let facts = zone(&rig, "r/a");
    assert_eq!((facts.endpoints.len(), facts.omitted), (100, 30));
    assert_eq!(facts.endpoints[0].address.port(), 77);
    let shares: f64 = ports.iter().map(|&port| endpoint(&rig, port).share).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
}

#[test]
fn unknown_target_has_no_explanation() {
    let rig = Rig::new(&[("r/a", &[1])]);
    let count = |what: &str, pool: Option<&str>| {
        rig.director.explain(&TopologySelector::parse(what).expect("a name"), pool, rig.now).len()
    };
    assert_eq!((count("127.0.0.1:1", None), count("127.0.0.1:1", Some("web"))), (1, 1));
    assert_eq!(count("127.0.0.1:1", Some("api")), 0);
    assert_eq!((count("127.0.0.1:9", None), count("r/x", None), count("x", None)), (0, 0, 0));
}

#[test]
fn panic_probes_down_endpoints_fast_and_shares_traffic() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.take_down(&[1, 2]);
    let facts = endpoint(&rig, 1);
    assert!(facts.pool.is_in_panic && facts.health.is_down());
    assert_eq!((facts.cadence, facts.period), (Cadence::Panic, ms(100)));
    assert!((facts.share - 0.5).abs() < 1e-9);
}

#[test]
fn probe_budget_and_traffic_stretch_the_interval() {
    let mut rig = rig(&[("r/a", &[1, 2])], |pool| {
        pool.detect.target = Some(Duration::from_secs(5));
    });
    rig.director.topology.probes_per_second = 1;
    rig.advance(ms(2_000));
    rig.advance(ms(1));
    let (one, two) = (endpoint(&rig, 1), endpoint(&rig, 2));
    assert!(
        one.is_waiting_for_budget != two.is_waiting_for_budget,
        "there is a token for one of them"
    );
    assert!(one.pool.stretch > 1.9, "{}", one.pool.stretch);
    let live = Arc::clone(rig.director.endpoints.get(rig.id(1)).expect("known").stats());
    live.record_good_response(
        rig.now.saturating_duration_since(rig.director.epoch).as_micros() as u64
    );
    let facts = endpoint(&rig, 1);
    assert_eq!((facts.cadence, facts.period), (Cadence::Vouched, ms(4_000)));
    assert_eq!(facts.silent_within, ms(9_000), "the target, stretched by the budget");
}
