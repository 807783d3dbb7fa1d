//! What is asked when, what is believed, and which endpoints that makes.

use super::*;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use crate::logic::network::Network;
use crate::logic::topology::{PoolSpec, ZoneSpec};

const S: Duration = Duration::from_secs(1);

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn entry(wanted: Wanted) -> Entry {
    let place = Place::parse("r/a").expect("a place");
    Entry { pool: "web".into(), place, wanted, weight: 1 }
}

fn host(name: &str) -> Wanted {
    Wanted::Host { name: name.into(), port: 80 }
}

fn service(name: &str) -> Wanted {
    Wanted::Service { name: name.into() }
}

fn to(priority: u16, weight: u16, target: &str) -> Service {
    Service { priority, weight, target: target.into(), port: 8_000 }
}

fn found(last: &[u8], ttl: u64) -> Answer {
    let all = last.iter().map(|&last| ip(last)).collect();
    Answer::Found { data: Data::Addresses(all), ttl: Duration::from_secs(ttl) }
}

fn lacking(lack: Lack) -> Answer {
    Answer::Lacking { lack, ttl: None }
}

const NODATA: Answer = Answer::Lacking { lack: Lack::NoData, ttl: None };
const TIMEOUT: Answer = Answer::Failed(Failure::Timeout);

/// Lookups in a time that the test makes pass.
struct World {
    lookups: Lookups,
    entries: Vec<Entry>,
    policy: Policy,
    now: Instant,
    down: BTreeSet<SocketAddr>,
    fixed: Vec<SocketAddr>,
}

impl World {
    /// Names that are looked up for IPv4 only.
    fn new(wanted: Vec<Wanted>) -> Self {
        Self::with(wanted, Policy { family: Family::Ipv4, ..Policy::default() })
    }

    fn with(wanted: Vec<Wanted>, policy: Policy) -> Self {
        let now = Instant::now();
        let entries: Vec<Entry> = wanted.into_iter().map(entry).collect();
        let mut lookups = Lookups::new(1, Vec::new());
        lookups.configure(&entries, &policy, now);
        let (down, fixed) = (BTreeSet::new(), Vec::new());
        Self { lookups, entries, policy, now, down, fixed }
    }

    /// What is asked now.
    fn asked(&mut self) -> Vec<String> {
        let due = self.lookups.poll(self.now);
        due.iter().map(|one| format!("{} {}", one.name, one.record.as_str())).collect()
    }

    fn answer(&mut self, name: &str, record: Record, answer: Answer) -> Looked {
        let question = Question { name: name.into(), record };
        self.lookups.answered(&question, answer, self.now)
    }

    /// Asks what is due, which must be this alone, and has it answered.
    #[track_caller]
    fn look(&mut self, name: &str, answer: Answer) -> Looked {
        assert_eq!(self.asked(), [format!("{name} A")]);
        self.answer(name, Record::A, answer)
    }

    /// From now to the next lookup.
    fn pause(&self) -> Duration {
        self.lookups.poll_timeout().expect("something is due").saturating_duration_since(self.now)
    }

    /// Lets time pass to the next lookup, which must be within these bounds.
    #[track_caller]
    fn wait(&mut self, least: Duration, most: Duration) {
        let pause = self.pause();
        assert!((least..=most).contains(&pause), "{pause:?} is not within {least:?} and {most:?}");
        self.now += pause;
    }

    fn composed(&self) -> Composed {
        let one = |&address: &SocketAddr| EndpointSpec { address, weight: 1 };
        let place = Place::parse("r/a").expect("a place");
        let endpoints = self.fixed.iter().map(one).collect();
        let pool = PoolSpec::new("web", vec![ZoneSpec::new(place, endpoints)]);
        let declared = Topology { pools: vec![Arc::new(pool)], ..Topology::default() };
        compose(&declared, &self.entries, &self.lookups, &|(_, address)| {
            self.down.contains(address)
        })
    }

    /// The endpoints, with their weights.
    fn endpoints(&self) -> Vec<(String, u32)> {
        let zone = self.composed().topology.pools[0].zones[0].clone();
        zone.endpoints.iter().map(|one| (one.address.to_string(), one.weight)).collect()
    }

    fn addresses(&self) -> Vec<String> {
        self.endpoints().into_iter().map(|(address, _)| address).collect()
    }
}

#[test]
fn a_ttl_is_kept_within_its_bounds_and_jitter_only_shortens() {
    let mut world = World::new(vec![host("a")]);
    assert!(world.addresses().is_empty(), "nothing is known yet, and that is no error");
    assert!(!world.lookups.is_settled());
    world.look("a", found(&[1], 20));
    assert!(world.lookups.is_settled());
    world.wait(18 * S, 20 * S);
    world.look("a", found(&[1], 0));
    world.wait(S, S);
    world.look("a", found(&[1], 86_400));
    world.wait(270 * S, 300 * S);
    let mut pauses = BTreeSet::new();
    for _ in 0..20 {
        world.look("a", found(&[1], 100));
        pauses.insert(world.pause());
        world.wait(90 * S, 100 * S);
    }
    assert!(pauses.len() > 10, "names are not looked up all at once");
}

#[test]
fn both_kinds_of_addresses_are_asked_at_once_and_neither_waits_for_the_other() {
    let mut world = World::with(vec![host("a")], Policy::default());
    assert_eq!(world.asked(), ["a A", "a AAAA"]);
    assert!(world.answer("a", Record::A, found(&[2, 1, 2], 60)).has_changed);
    assert_eq!(world.addresses(), ["10.0.0.1:80", "10.0.0.2:80"]);
    let v6 = Answer::Found { data: Data::Addresses(vec!["fd00::1".parse().expect("one")]), ttl: S };
    world.answer("a", Record::Aaaa, v6);
    assert_eq!(world.addresses(), ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"]);
    let looked = world.answer("a", Record::A, found(&[1, 2], 60));
    assert!(!looked.has_changed, "the order of an answer means nothing");
}

#[test]
fn a_failing_server_takes_nothing_away_and_is_asked_ever_more_seldom() {
    let mut world = World::new(vec![host("a")]);
    world.look("a", found(&[1, 2], 10));
    world.wait(9 * S, 10 * S);
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let looked = world.look("a", TIMEOUT);
        assert!(!looked.has_changed);
        assert_eq!(looked.is_first_of_its_kind, seconds == 1);
        assert_eq!(world.addresses(), ["10.0.0.1:80", "10.0.0.2:80"]);
        let seconds = Duration::from_secs(seconds);
        world.wait((seconds * 9 / 10).max(S), seconds);
    }
    assert!(world.look("a", found(&[2], 10)).has_changed);
    assert_eq!(world.addresses(), ["10.0.0.2:80"]);
    world.wait(9 * S, 10 * S);
}

#[test]
fn an_emptied_name_keeps_its_endpoints_unless_it_is_to_be_obeyed() {
    for (lack, word) in [(Lack::NxDomain, "nxdomain"), (Lack::NoData, "nodata")] {
        let mut world = World::new(vec![host("a")]);
        world.look("a", found(&[1, 2], 10));
        world.wait(9 * S, 10 * S);
        assert!(world.look("a", lacking(lack)).is_first_of_its_kind);
        assert_eq!(world.lookups.status_of(&host("a"))[0].standing.as_str(), word);
        assert_eq!(world.addresses(), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert!(world.composed().origins.values().flatten().all(|found| found.is_kept));
        world.wait(S, S);
        assert!(!world.look("a", lacking(lack)).is_first_of_its_kind);
        world.wait(S, 2 * S);
        world.look("a", found(&[3], 10));
        assert_eq!(world.addresses(), ["10.0.0.3:80"]);

        let obey = Policy { empty: Empty::Obey, ..world.policy };
        let mut world = World::with(vec![host("a")], obey);
        world.look("a", found(&[1, 2], 10));
        world.wait(9 * S, 10 * S);
        world.look("a", lacking(lack));
        assert!(world.addresses().is_empty());
    }
}

#[test]
fn an_emptied_name_loses_who_is_down_but_not_the_last() {
    let mut world = World::new(vec![host("a")]);
    world.look("a", found(&[1, 2], 10));
    world.wait(9 * S, 10 * S);
    world.down.insert("10.0.0.1:80".parse().expect("an address"));
    assert_eq!(world.addresses().len(), 2, "DNS has it, so it is probed until it is back");
    world.look("a", NODATA);
    assert_eq!(world.addresses(), ["10.0.0.2:80"]);
    assert_eq!(world.composed().dropped.len(), 1);
    world.down.insert("10.0.0.2:80".parse().expect("an address"));
    assert_eq!(world.addresses().len(), 2, "with nobody left all of them may come back");
    world.fixed.push("10.9.9.9:80".parse().expect("an address"));
    assert_eq!(world.addresses(), ["10.9.9.9:80"]);
}

#[test]
fn a_name_that_moves_from_one_kind_of_addresses_to_the_other_has_not_been_emptied() {
    let mut world = World::with(vec![host("a")], Policy::default());
    world.asked();
    world.answer("a", Record::A, found(&[1], 5));
    world.answer("a", Record::Aaaa, NODATA);
    let aaaa = Question { name: "a".into(), record: Record::Aaaa };
    let status = world.lookups.statuses().find(|one| one.question == aaaa).expect("asked");
    let pause = status.due.expect("due") - world.now;
    assert!(pause > 25 * S, "that there are none of one kind is no trouble: {pause:?}");
    let v6 = Answer::Found { data: Data::Addresses(vec!["fd00::1".parse().expect("one")]), ttl: S };
    world.answer("a", Record::Aaaa, v6.clone());
    world.answer("a", Record::A, NODATA);
    assert_eq!(world.addresses(), ["[fd00::1]:80"]);
    world.answer("a", Record::Aaaa, lacking(Lack::NxDomain));
    assert_eq!(world.addresses(), ["[fd00::1]:80"], "what was replaced before does not come back");

    // Both change at once, and one of them is seen first.
    let obey = Policy { empty: Empty::Obey, ..Policy::default() };
    let mut world = World::with(vec![host("a")], obey);
    world.asked();
    world.answer("a", Record::A, found(&[1], 5));
    world.answer("a", Record::Aaaa, NODATA);
    world.now += 5 * S;
    assert_eq!(world.asked(), ["a A"]);
    world.answer("a", Record::A, NODATA);
    assert_eq!(world.addresses(), ["10.0.0.1:80"], "the other kind has been asked long ago");
    assert_eq!(world.asked(), ["a AAAA"]);
    world.answer("a", Record::Aaaa, v6);
    assert_eq!(world.addresses(), ["[fd00::1]:80"]);
    world.now += S;
    world.asked();
    world.answer("a", Record::Aaaa, NODATA);
    world.asked();
    world.answer("a", Record::A, NODATA);
    assert!(world.addresses().is_empty(), "neither kind has any");
    assert!(world.asked().is_empty(), "and nothing is asked in a circle");
}

#[test]
fn a_service_is_its_targets_and_each_may_fail_by_itself() {
    let mut world = World::new(vec![service("_http._tcp.a")]);
    assert_eq!(world.asked(), ["_http._tcp.a SRV"]);
    let targets = vec![to(1, 1, "one."), to(1, 3, "two.")];
    let answer = Answer::Found { data: Data::Services(targets.clone()), ttl: 60 * S };
    world.answer("_http._tcp.a", Record::Srv, answer);
    assert_eq!(world.asked(), ["one. A", "two. A"]);
    world.answer("one.", Record::A, found(&[1], 5));
    world.answer("two.", Record::A, TIMEOUT);
    assert_eq!(world.endpoints(), [("10.0.0.1:8000".to_owned(), 1)]);
    world.now += S;
    world.look("two.", found(&[2, 3], 5));
    let three = [("10.0.0.1:8000", 1), ("10.0.0.2:8000", 3), ("10.0.0.3:8000", 3)];
    assert_eq!(world.endpoints(), three.map(|(address, weight)| (address.to_owned(), weight)));
    world.now += 4 * S;
    world.look("one.", TIMEOUT);
    assert_eq!(world.addresses().len(), 3, "the last good answer stays");
    let origin =
        world.composed().origins[&("web".into(), "10.0.0.2:8000".parse().expect("one"))][0].clone();
    assert_eq!((origin.wanted, origin.target.as_deref()), (service("_http._tcp.a"), Some("two.")));
    // RFC 2782: not available, said with a record.
    let none = Answer::Found { data: Data::Services(vec![to(0, 0, ".")]), ttl: 60 * S };
    world.answer("_http._tcp.a", Record::Srv, none);
    let srv = &world.lookups.status_of(&service("_http._tcp.a"))[0];
    assert_eq!(srv.standing, Standing::Lacking(Lack::NoData));
    let answer = Answer::Found { data: Data::Services(targets[..1].to_vec()), ttl: 60 * S };
    world.answer("_http._tcp.a", Record::Srv, answer);
    assert_eq!(world.addresses(), ["10.0.0.1:8000"]);
    assert_eq!(world.lookups.statuses().count(), 2, "what is no target is not looked up any more");
}

#[test]
fn targets_of_a_worse_priority_join_when_all_of_the_better_are_down() {
    let mut world = World::new(vec![service("_http._tcp.a")]);
    world.asked();
    let targets = vec![to(10, 0, "one."), to(20, 0, "two."), to(5, 0, "nowhere.")];
    let answer = Answer::Found { data: Data::Services(targets), ttl: 60 * S };
    world.answer("_http._tcp.a", Record::Srv, answer);
    world.asked();
    world.answer("nowhere.", Record::A, lacking(Lack::NxDomain));
    world.answer("one.", Record::A, found(&[1, 2], 60));
    world.answer("two.", Record::A, found(&[3], 60));
    assert_eq!(world.addresses(), ["10.0.0.1:8000", "10.0.0.2:8000"]);
    world.down.insert("10.0.0.1:8000".parse().expect("an address"));
    assert_eq!(world.addresses().len(), 2);
    world.down.insert("10.0.0.2:8000".parse().expect("an address"));
    assert_eq!(world.addresses(), ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"]);
    world.down.clear();
    assert_eq!(world.addresses(), ["10.0.0.1:8000", "10.0.0.2:8000"]);
}

#[test]
fn an_address_counts_once() {
    let mut world = World::new(vec![host("a"), host("b")]);
    world.fixed.push("10.0.0.3:80".parse().expect("an address"));
    world.asked();
    world.answer("a", Record::A, found(&[1, 2, 3], 5));
    world.answer("b", Record::A, found(&[2, 4], 5));
    let expected = ["10.0.0.3:80", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.4:80"];
    assert_eq!(world.addresses(), expected);
    let origins = world.composed().origins;
    assert_eq!(origins[&("web".into(), "10.0.0.2:80".parse().expect("an address"))].len(), 2);
}

#[test]
fn what_can_be_no_endpoint_and_what_is_too_much_is_left_out() {
    let policy = Policy { max_answers: 3, family: Family::Ipv4, ..Policy::default() };
    let mut world = World::with(vec![host("a")], policy);
    let zero: IpAddr = [0, 0, 0, 0].into();
    let mapped: IpAddr = "::ffff:0.0.0.0".parse().expect("an address");
    let all = vec![ip(1), zero, ip(2), ip(3), ip(4), mapped, [224, 0, 0, 1].into()];
    let looked = world.look("a", Answer::Found { data: Data::Addresses(all), ttl: S });
    assert_eq!((looked.left_out, world.addresses().len()), (4, 3));
    world.now += S;
    let looked = world.look("a", Answer::Found { data: Data::Addresses(vec![zero]), ttl: S });
    assert_eq!(
        (looked.left_out, world.addresses().len()),
        (1, 3),
        "a blocked name is an empty one"
    );
}

#[test]
fn dns_cannot_make_an_endpoint_of_this_machine_or_of_what_is_next_to_it() {
    let refused = ["127.0.0.1", "127.9.9.9", "169.254.169.254", "100.100.100.200", "168.63.129.16"];
    let refused_6 = ["::1", "fe80::1", "febf::1", "fd00:ec2::254", "::ffff:127.0.0.1"];
    let fine = ["10.0.0.1", "192.168.0.1", "100.100.100.201", "fd00::1", "2001:db8::1", "fec0::1"];
    let none = Policy::default().allow;
    let is_permitted = |name: &str, text: &str, allow: &[Network]| {
        guard::is_permitted(name, text.parse().expect("an address"), allow)
    };
    let all: Vec<Network> =
        ["0.0.0.0/0", "::/0"].iter().map(|text| Network::parse(text).expect("a network")).collect();
    for text in refused.into_iter().chain(refused_6) {
        assert!(!is_permitted("web.example", text, &none), "{text}");
        assert!(is_permitted("web.example", text, &all), "{text}");
    }
    assert!(fine.iter().all(|text| is_permitted("web.example", text, &none)));
    for name in ["localhost", "localhost.", "web.localhost", "web.localhost."] {
        assert!(is_permitted(name, "127.0.0.1", &none) && is_permitted(name, "::1", &none));
        assert!(!is_permitted(name, "169.254.169.254", &none));
    }
    assert!(!is_permitted("web.notlocalhost", "127.0.0.1", &none));
}

#[test]
fn what_dns_may_not_say_changes_nothing_that_it_has_said() {
    let this: IpAddr = [127, 0, 0, 1].into();
    let both = |all: &[IpAddr]| Answer::Found { data: Data::Addresses(all.to_vec()), ttl: S };
    let told = |world: &mut World| -> Vec<IpAddr> {
        world.lookups.take_refused().into_iter().flat_map(|(_, all)| all).collect()
    };
    let mut world = World::new(vec![host("a")]);
    world.look("a", both(&[this, ip(1)]));
    assert_eq!((told(&mut world), world.addresses()), (vec![this], vec!["10.0.0.1:80".to_owned()]));
    world.now += S;
    world.look("a", both(&[this, ip(1)]));
    assert!(told(&mut world).is_empty(), "it is told once");
    world.now += S;
    world.look("a", both(&[this]));
    assert_eq!(world.addresses(), ["10.0.0.1:80"], "as when there is nothing");
    let status = world.lookups.statuses().next().expect("a question");
    assert_eq!((status.standing.as_str(), status.refused), ("forbidden", vec![this]));

    // The operator changes what may be: at once for what is known, and the rest is asked for.
    let allow = Arc::from([Network::parse("127.0.0.0/8").expect("a network")]);
    let policy = Policy { allow, ..world.policy.clone() };
    world.lookups.configure(&world.entries, &policy, world.now);
    world.look("a", both(&[this]));
    assert_eq!(world.addresses(), ["127.0.0.1:80"]);
    assert!(told(&mut world).is_empty());
    world.lookups.configure(&world.entries, &world.policy, world.now);
    assert!(world.addresses().is_empty());
    assert_eq!(told(&mut world), [this]);
    assert_eq!(world.asked(), ["a A"]);
}

#[test]
fn a_target_that_is_called_localhost_is_no_way_to_this_machine() {
    let own = Answer::Found { data: Data::Addresses(vec![[127, 0, 0, 1].into()]), ttl: S };
    let mut world = World::new(vec![service("s"), host("web.localhost")]);
    world.asked();
    let targets = Data::Services(vec![to(0, 1, "x.localhost."), to(0, 1, "web.localhost")]);
    world.answer("s", Record::Srv, Answer::Found { data: targets, ttl: S });
    world.asked();
    world.answer("x.localhost.", Record::A, own.clone());
    world.answer("web.localhost", Record::A, own);
    assert_eq!(world.addresses(), ["127.0.0.1:80"], "as the operator has named it, with his port");
}

#[test]
fn a_failure_has_the_name_looked_up_at_once_and_again_but_never_too_often() {
    let mut world = World::new(vec![host("a"), host("b")]);
    world.asked();
    world.answer("a", Record::A, found(&[1], 300));
    world.answer("b", Record::A, found(&[2], 300));
    let of_a = Found { wanted: host("a"), target: None, is_kept: false };
    world.lookups.hurry(&of_a, world.now);
    world.wait(S, S);
    assert_eq!(world.asked(), ["a A"], "the other name is left alone");
    world.lookups.hurry(&of_a, world.now);
    world.lookups.worry([&of_a].into_iter(), world.now);
    world.answer("a", Record::A, found(&[1], 300));
    world.wait(27 * S, 30 * S);
    world.look("a", found(&[1], 300));
    world.lookups.worry(std::iter::empty(), world.now);
    world.wait(20 * S, 30 * S);
    world.look("a", found(&[1], 300));
    world.lookups.worry([&of_a].into_iter(), world.now);
    world.wait(30 * S, 30 * S);
    world.lookups.worry(std::iter::empty(), world.now);
    world.look("a", found(&[1], 300));
    // The other name's turn comes first.
    world.wait(170 * S, 300 * S);
}

#[test]
fn names_that_stay_keep_what_they_lead_to_and_those_that_go_are_forgotten() {
    let mut world = World::new(vec![host("a"), host("b")]);
    world.asked();
    world.answer("a", Record::A, found(&[1], 100));
    world.answer("b", Record::A, found(&[2], 100));
    world.entries = vec![entry(host("b")), entry(host("c"))];
    world.lookups.configure(&world.entries, &world.policy, world.now);
    assert_eq!(world.addresses(), ["10.0.0.2:80"]);
    assert_eq!(world.asked(), ["c A"]);
    world.entries.remove(1);
    world.lookups.configure(&world.entries, &world.policy, world.now);
    let looked = world.answer("c", Record::A, found(&[3], 100));
    assert!(!looked.has_changed, "nobody wants to know any more");
    assert_eq!(world.addresses(), ["10.0.0.2:80"]);
}

#[test]
fn what_an_earlier_process_knew_is_believed_until_dns_answers() {
    let mut world = World::new(vec![service("_http._tcp.a"), host("b")]);
    world.asked();
    let answer = Answer::Found { data: Data::Services(vec![to(1, 1, "one.")]), ttl: 60 * S };
    world.answer("_http._tcp.a", Record::Srv, answer);
    world.answer("b", Record::A, found(&[2], 60));
    world.asked();
    world.answer("one.", Record::A, found(&[1], 60));
    let known = world.addresses();
    assert_eq!(known, ["10.0.0.1:8000", "10.0.0.2:80"]);

    world.lookups = Lookups::new(2, world.lookups.remember());
    world.lookups.configure(&world.entries, &world.policy, world.now);
    assert_eq!(world.addresses(), known);
    assert!(world.lookups.is_settled());
    assert_eq!(world.asked().len(), 3, "all is looked up at once all the same");
    for (name, record) in [("_http._tcp.a", Record::Srv), ("one.", Record::A), ("b", Record::A)] {
        world.answer(name, record, TIMEOUT);
    }
    assert_eq!(world.addresses(), known);
    world.now += S;
    world.asked();
    world.answer("b", Record::A, found(&[3], 60));
    assert_eq!(world.addresses(), ["10.0.0.1:8000", "10.0.0.3:80"]);
}

#[test]
fn lookups_under_way_are_bounded() {
    let mut world = World::new((0..100).map(|n| host(&format!("n{n}"))).collect());
    let first = world.lookups.poll(world.now);
    assert_eq!(first.len(), 64);
    assert!(world.lookups.poll(world.now).is_empty());
    assert_eq!(world.lookups.poll_timeout(), None, "an answer makes room, and time does not");
    world.lookups.answered(&first[0], TIMEOUT, world.now);
    assert_eq!(world.lookups.poll(world.now).len(), 1);
}

#[test]
fn stand_ins_are_endpoints_of_the_zone_of_their_name() {
    let world = World::new(vec![host("a"), service("_http._tcp.a")]);
    let declared = world.composed().topology;
    let topology = with_stand_ins(&declared, &world.entries);
    let zone = &topology.pools[0].zones[0];
    let addresses: BTreeSet<SocketAddr> = zone.endpoints.iter().map(|one| one.address).collect();
    assert_eq!(addresses.len(), 2 * STAND_INS);
}
