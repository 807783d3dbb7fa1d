//! One endpoint, one pool: health, incidents, probes.

use super::*;
use crate::logic::casualty::{Casualty, Sight};
use crate::logic::recovery::FULL;
use crate::logic::schedule::BURST_GAP;
use crate::logic::snapshot::Tally;
use crate::logic::steer::WHOLE;

#[test]
fn a_reload_keeps_health_by_identity() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]);
    rig.fell(&[2]);
    let before = rig.director.endpoints();
    let mut other = pool(&[("r/b", &[4, 3, 2]), ("r/a", &[1])]);
    other.zones[0].endpoints[2].weight = 5;
    rig.configure(other);
    let snapshot = rig.published().pop().expect("a snapshot");
    assert_eq!(serving(&snapshot), [1, 3, 4]);
    for old in before {
        let new = rig.status(old.subject.address.port());
        assert_eq!(new.subject.endpoint, old.subject.endpoint);
        assert_eq!((new.health, new.since), (old.health, old.since));
        assert_eq!(new.probes.len(), old.probes.len());
    }
    let moved = rig.status(2);
    assert_eq!((moved.subject.place.to_string().as_str(), moved.weight), ("r/b", 5));
    let incidents = rig.director.incidents();
    assert_eq!(incidents.len(), 1);
    assert!(!incidents[0].is_over());
}

#[test]
fn a_new_endpoint_is_unknown_until_its_first_pass() {
    let mut rig = Rig::new(&[("r/a", &[1])]);
    rig.configure(pool(&[("r/a", &[1, 2])]));
    assert_eq!(rig.status(2).health, Health::NEW);
    assert_eq!(serving(&rig.published()[0]), [1]);
    assert!(rig.probed(2) && !rig.probed(1), "it is probed at once");
    let pass = rig.regular(rig.id(2), PASS);
    rig.turn([pass]);
    assert_eq!(serving(&rig.published()[0]), [1, 2]);
}

#[test]
fn a_removed_endpoint_takes_its_incident_along_and_late_results_hit_nobody() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.fell(&[2]);
    let late = rig.regular(rig.id(2), PASS);
    rig.configure(pool(&[("r/a", &[1])]));
    let ended = |event: &Event| matches!(event, Event::IncidentEnded(_));
    assert_eq!(rig.events().iter().filter(|event| ended(event)).count(), 1);
    assert!(rig.director.incidents()[0].is_over());
    rig.turn([late]);
    assert!(rig.said.is_empty());
    rig.configure(pool(&[("r/a", &[1, 2])]));
    assert_eq!(rig.status(2).health, Health::NEW, "what comes again is new");
}

#[test]
fn a_zone_may_be_empty_until_it_is_known_who_is_in_it() {
    let mut rig = Rig::cold(&[("r/a", &[]), ("r/b", &[])]);
    let rearrange = |rig: &mut Rig, zones: &[(&str, &[u16])]| {
        let pools = vec![Arc::new(pool(zones))];
        rig.turn([Input::Rearrange(Topology { pools, ..Topology::default() })]);
    };
    assert!(!rig.director.is_routable() && rig.director.is_settled());
    assert!(!rig.director.pools()[0].panic, "nothing has failed");
    rearrange(&mut rig, &[("r/a", &[]), ("r/b", &[1, 2])]);
    rig.all_answer(PASS);
    assert!(rig.director.is_routable());
    let grown = |rig: &Rig, port| rig.status(port).ramp == FULL;
    assert!(grown(&rig, 1) && grown(&rig, 2), "neither comes late");
    let before = rig.status(2);
    rig.now += ms(11_000);
    rearrange(&mut rig, &[("r/a", &[3]), ("r/b", &[2])]);
    let after = rig.status(2);
    assert_eq!((before.subject.endpoint, before.since), (after.subject.endpoint, after.since));
    assert_eq!(serving(&rig.published()[0]), [2], "who is new serves when it has passed");
    rig.all_answer(PASS);
    assert!(!grown(&rig, 3), "its share grows");
    rearrange(&mut rig, &[("r/a", &[]), ("r/b", &[])]);
    assert!(!rig.director.is_routable(), "who is gone is not asked any more");
}

#[test]
fn panic_begins_and_ends_once() {
    let mut rig = Rig::new(&[("r/a", &[1]), ("r/b", &[2])]);
    rig.fell(&[1]);
    assert!(rig.panics().is_empty());
    rig.fell(&[2]);
    assert_eq!(rig.panics(), [true]);
    assert_eq!(serving(&rig.published()[0]), [1, 2], "requests go everywhere");
    let cut = |output: &Output| matches!(output, Output::Cut { .. });
    assert!(!rig.said.iter().any(cut), "there is nowhere better to go");
    rig.fell(&[1, 2]);
    assert!(rig.panics().is_empty() && rig.published().is_empty());
    for expected in [&[][..], &[false][..]] {
        rig.now += ms(1);
        let pass = rig.regular(rig.id(2), PASS);
        rig.turn([pass]);
        assert_eq!(rig.panics(), expected);
    }
    assert_eq!(serving(&rig.published()[0]), [2]);
    let left = |output: &Output| match output {
        Output::Cut { endpoint, .. } => Some(*endpoint),
        _ => None,
    };
    let left: Vec<_> = rig.said.iter().filter_map(left).collect();
    assert_eq!(left, [rig.id(1)], "whoever waits there has somewhere to go now");
}

#[test]
fn a_pool_that_is_down_from_the_start_panics() {
    let mut rig = Rig::cold(&[("r/a", &[1, 2])]);
    assert!(serving(&rig.published()[0]).is_empty());
    rig.fell(&[1]);
    assert_eq!(serving(&rig.published()[0]), [1, 2]);
}

#[test]
fn verdicts_of_one_turn_are_one_snapshot_and_cuts_come_after_it() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3]), ("r/b", &[4])]);
    rig.fell(&[1, 2, 3]);
    assert_eq!(rig.published().len(), 1);
    assert_eq!(serving(&rig.published()[0]), [4]);
    let publish = rig.said.iter().position(|output| matches!(output, Output::Publish(_)));
    let cuts = rig.said.iter().enumerate().filter_map(|(index, output)| match output {
        Output::Cut { endpoint, failure } => Some((index, *endpoint, failure.class())),
        _ => None,
    });
    let cuts: Vec<_> = cuts.collect();
    assert_eq!(cuts.len(), 3);
    assert!(cuts.iter().all(|(index, ..)| Some(*index) > publish));
    for incident in rig.director.incidents() {
        assert_eq!(incident.timeline.shift, Some(rig.now));
    }
}

#[test]
fn a_pass_of_before_the_last_strike_clears_nothing() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    rig.now += ms(10);
    let asked_before = rig.regular(id, PASS);
    rig.now += ms(1);
    let strike = rig.traffic(id, Failure::connect(Reason::Refused));
    rig.turn([strike]);
    rig.now += ms(1);
    rig.turn([asked_before]);
    assert!(matches!(rig.status(1).health, Health::Suspect { .. }));
    let asked_after = rig.regular(id, PASS);
    rig.turn([asked_after]);
    assert_eq!(rig.status(1).health, Health::Up);
}

#[test]
fn a_strike_from_traffic_begins_a_burst_but_not_one_after_another() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    let stall = Failure::http(Reason::Stall);
    let strike = rig.traffic(id, stall);
    rig.turn([strike]);
    let mut rows = Vec::new();
    for _ in 0..12 {
        rows.extend(rig.said.iter().filter_map(|output| match output {
            Output::Probe { endpoint, ticket, .. } if *endpoint == id => Some(ticket.row),
            _ => None,
        }));
        rig.now += BURST_GAP / 4;
        let strike = rig.traffic(id, stall);
        rig.turn([strike]);
    }
    let bursts: Vec<_> = rows.iter().filter(|row| matches!(row, ProbeRow::Burst(_))).collect();
    assert_eq!(bursts, [&ProbeRow::Burst(1); 3], "three probes, however many strikes");
}

#[test]
fn soft_evidence_alone_makes_no_verdict() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    for _ in 0..20 {
        rig.now += ms(1);
        let strikes = [Reason::Reset, Reason::Closed, Reason::Stall, Reason::Timeout]
            .map(|reason| rig.traffic(id, Failure::http(reason)));
        rig.turn(strikes);
    }
    assert!(matches!(rig.status(1).health, Health::Suspect { strikes: 1, .. }));
    assert!(rig.status(1).in_service && rig.director.incidents().is_empty());
}

#[test]
fn a_try_that_began_before_the_return_tells_of_what_is_over() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    let old = rig.traffic(id, Failure::connect(Reason::Refused));
    rig.fell(&[1]);
    for _ in 0..2 {
        rig.now += ms(1);
        let pass = rig.regular(id, PASS);
        rig.turn([pass]);
    }
    rig.turn([old]);
    assert_eq!(rig.status(1).health, Health::Up);
}

#[test]
fn a_changed_probe_is_sent_at_once_and_a_changed_period_repaces() {
    let mut rig = Rig::new(&[("r/a", &[1])]);
    rig.wait(ms(2_000));
    let pass = rig.regular(rig.id(1), PASS);
    rig.turn([pass]);
    let last = rig.now;
    rig.wait(ms(10));
    let mut sooner = pool(&[("r/a", &[1])]);
    sooner.detect.interval = ms(300);
    rig.configure(sooner.clone());
    assert_eq!(rig.status(1).next_probe, Some(last + ms(300)));
    sooner.probes[0].port = Some(99);
    rig.configure(sooner);
    assert!(rig.probed(1));
}

#[test]
fn an_incident_counts_what_requests_met_and_keeps_it() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    let live = {
        let view = rig.director.pools[0].view.as_ref().expect("published");
        let target = view.targets().find(|target| target.id == id).expect("serves");
        Arc::clone(&target.live)
    };
    live.rescued(false);
    live.rescued(true);
    rig.fell(&[1]);
    let cut = Casualty { sight: Sight::Cut, is_repeatable: false };
    live.failed(cut, 2_000);
    let counts = Tally { failed: 1, rescued: 2, late: 1 };
    assert_eq!(rig.director.incidents()[0].counts, counts);
    for _ in 0..2 {
        rig.now += ms(1);
        let pass = rig.regular(id, PASS);
        rig.turn([pass]);
    }
    let incident = rig.director.incidents().remove(0);
    assert!(incident.is_over());
    assert_eq!(incident.counts, counts);
    rig.fell(&[1]);
    assert_eq!(rig.director.incidents()[1].counts, Tally::default(), "the next begins at zero");
}

#[test]
fn new_addresses_for_all_endpoints_leave_the_old_ones_serving_until_one_is_known() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    rig.configure(pool(&[("r/a", &[4, 5]), ("r/b", &[6])]));
    assert_eq!(rig.status(4).health, Health::NEW);
    assert_eq!(serving(rig.published().last().expect("a snapshot")), [1, 2, 3]);
    assert!(rig.panics().is_empty());
    rig.now += ms(1);
    let strike = rig.regular(rig.id(4), REFUSED);
    rig.turn([strike]);
    assert!(rig.published().iter().all(|snapshot| serving(snapshot) == [1, 2, 3]));
    let pass = rig.regular(rig.id(5), PASS);
    rig.turn([pass]);
    assert_eq!(serving(rig.published().last().expect("a snapshot")), [5]);
    assert!(rig.panics().is_empty());
}

#[test]
fn additions_to_the_preferred_zone_spill_nothing() {
    let shares = |snapshot: &Snapshot| -> Vec<u64> {
        snapshot.pools[0].led.tiers.iter().map(|tier| tier.share).collect()
    };
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[9])]);
    rig.configure(pool(&[("r/a", &[1, 2, 3, 4, 5, 6]), ("r/b", &[9])]));
    assert_eq!(shares(rig.published().last().expect("a snapshot")), [WHOLE, 0]);
    for port in 3..=6 {
        rig.now += ms(1);
        let pass = rig.regular(rig.id(port), PASS);
        rig.turn([pass]);
        assert_eq!(shares(rig.published().last().expect("a snapshot")), [WHOLE, 0]);
    }
    rig.fell(&[1, 2, 3]);
    assert!(shares(rig.published().last().expect("a snapshot"))[1] > 0, "real losses spill");
}
