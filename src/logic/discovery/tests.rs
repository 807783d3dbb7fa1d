//! What is asked when, what is believed, and which endpoints that makes.

use super::*;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use crate::logic::model::network::Network;
use crate::logic::model::topology::{PoolSpec, ZoneSpec};

const S: Duration = Duration::from_secs(1);

fn test_ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn entry(wanted: DiscoveryName) -> DiscoveryEntry {
    let place = Locality::parse("r/a").expect("a place");
    DiscoveryEntry { pool: "web".into(), place, discovery_name: wanted, weight: 1 }
}

fn host(name: &str) -> DiscoveryName {
    DiscoveryName::Host { name: name.into(), port: 80 }
}

fn service(name: &str) -> DiscoveryName {
    DiscoveryName::Service { name: name.into() }
}

fn srv_target(priority: u16, weight: u16, target: &str) -> SrvTarget {
    SrvTarget { priority, weight, target: target.into(), port: 8_000 }
}

fn found_answer(last: &[u8], ttl: u64) -> LookupAnswer {
    let all = last.iter().map(|&last| test_ip(last)).collect();
    LookupAnswer::Found { records: LookupRecords::Addresses(all), ttl: Duration::from_secs(ttl) }
}

fn negative_answer(lack: NegativeReason) -> LookupAnswer {
    LookupAnswer::Negative { reason: lack, ttl: None }
}

const NODATA: LookupAnswer = LookupAnswer::Negative { reason: NegativeReason::NoData, ttl: None };
const TIMEOUT: LookupAnswer = LookupAnswer::Failed(LookupFailure::Timeout);

/// Lookups in a time that the test makes pass.
struct LookupFixture {
    lookups: LookupScheduler,
    entries: Vec<DiscoveryEntry>,
    policy: LookupPolicy,
    now: Instant,
    down: BTreeSet<SocketAddr>,
    static_addresses: Vec<SocketAddr>,
}

impl LookupFixture {
    /// Names that are looked up for IPv4 only.
    fn new(wanted: Vec<DiscoveryName>) -> Self {
        Self::with(wanted, LookupPolicy { family: AddressFamily::Ipv4, ..LookupPolicy::default() })
    }

    fn with(wanted: Vec<DiscoveryName>, policy: LookupPolicy) -> Self {
        let now = Instant::now();
        let entries: Vec<DiscoveryEntry> = wanted.into_iter().map(entry).collect();
        let mut lookups = LookupScheduler::new(1, Vec::new());
        lookups.configure(&entries, &policy, now);
        let (down, fixed) = (BTreeSet::new(), Vec::new());
        Self { lookups, entries, policy, now, down, static_addresses: fixed }
    }

    /// What is asked now.
    fn poll_questions(&mut self) -> Vec<String> {
        let due = self.lookups.poll(self.now);
        due.iter().map(|one| format!("{} {}", one.name, one.record_type.as_str())).collect()
    }

    fn answer(&mut self, name: &str, record: DnsRecordType, answer: LookupAnswer) -> LookupChange {
        let question = LookupQuestion { name: name.into(), record_type: record };
        self.lookups.on_answer(&question, answer, self.now)
    }

    /// Asks what is due, which must be this alone, and has it answered.
    #[track_caller]
    fn answer_only_question(&mut self, name: &str, answer: LookupAnswer) -> LookupChange {
        assert_eq!(self.poll_questions(), [format!("{name} A")]);
        self.answer(name, DnsRecordType::A, answer)
    }

    /// From now to the next lookup.
    fn time_to_next_lookup(&self) -> Duration {
        self.lookups.poll_timeout().expect("something is due").saturating_duration_since(self.now)
    }

    /// Lets time pass to the next lookup, which must be within these bounds.
    #[track_caller]
    fn advance_to_next_lookup(&mut self, least: Duration, most: Duration) {
        let pause = self.time_to_next_lookup();
        assert!((least..=most).contains(&pause), "{pause:?} is not within {least:?} and {most:?}");
        self.now += pause;
    }

    fn compose_topology(&self) -> ComposedTopology {
        let one = |&address: &SocketAddr| EndpointSpec { address, weight: 1 };
        let place = Locality::parse("r/a").expect("a place");
        let endpoints = self.static_addresses.iter().map(one).collect();
        let pool = PoolSpec::new("web", vec![ZoneSpec::new(place, endpoints)]);
        let declared = Topology { pools: vec![Arc::new(pool)], ..Topology::default() };
        compose(&declared, &self.entries, &self.lookups, &|(_, address)| {
            self.down.contains(address)
        })
    }

    /// The endpoints, with their weights.
    fn weighted_endpoints(&self) -> Vec<(String, u32)> {
        let zone = self.compose_topology().topology.pools[0].zones[0].clone();
        zone.endpoints.iter().map(|one| (one.address.to_string(), one.weight)).collect()
    }

    fn addresses(&self) -> Vec<String> {
        self.weighted_endpoints().into_iter().map(|(address, _)| address).collect()
    }
}

#[test]
fn ttl_is_clamped_and_jitter_only_shortens_it() {
    let mut world = LookupFixture::new(vec![host("a")]);
    assert!(world.addresses().is_empty(), "nothing is known yet, and that is no error");
    assert!(!world.lookups.has_initial_answers());
    world.answer_only_question("a", found_answer(&[1], 20));
    assert!(world.lookups.has_initial_answers());
    world.advance_to_next_lookup(18 * S, 20 * S);
    world.answer_only_question("a", found_answer(&[1], 0));
    world.advance_to_next_lookup(S, S);
    world.answer_only_question("a", found_answer(&[1], 86_400));
    world.advance_to_next_lookup(270 * S, 300 * S);
    let mut pauses = BTreeSet::new();
    for _ in 0..20 {
        world.answer_only_question("a", found_answer(&[1], 100));
        pauses.insert(world.time_to_next_lookup());
        world.advance_to_next_lookup(90 * S, 100 * S);
    }
    assert!(pauses.len() > 10, "names are not looked up all at once");
}

#[test]
fn a_and_aaaa_are_queried_in_parallel_without_waiting() {
    let mut world = LookupFixture::with(vec![host("a")], LookupPolicy::default());
    assert_eq!(world.poll_questions(), ["a A", "a AAAA"]);
    assert!(world.answer("a", DnsRecordType::A, found_answer(&[2, 1, 2], 60)).has_changed);
    assert_eq!(world.addresses(), ["10.0.0.1:80", "10.0.0.2:80"]);
    let v6 = LookupAnswer::Found {
        records: LookupRecords::Addresses(vec!["fd00::1".parse().expect("one")]),
        ttl: S,
    };
    world.answer("a", DnsRecordType::Aaaa, v6);
    assert_eq!(world.addresses(), ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"]);
    let looked = world.answer("a", DnsRecordType::A, found_answer(&[1, 2], 60));
    assert!(!looked.has_changed, "the order of an answer means nothing");
}

#[test]
fn failed_lookup_keeps_endpoints_and_backs_off() {
    let mut world = LookupFixture::new(vec![host("a")]);
    world.answer_only_question("a", found_answer(&[1, 2], 10));
    world.advance_to_next_lookup(9 * S, 10 * S);
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let looked = world.answer_only_question("a", TIMEOUT);
        assert!(!looked.has_changed);
        assert_eq!(looked.is_first_in_row, seconds == 1);
        assert_eq!(world.addresses(), ["10.0.0.1:80", "10.0.0.2:80"]);
        let seconds = Duration::from_secs(seconds);
        world.advance_to_next_lookup((seconds * 9 / 10).max(S), seconds);
    }
    assert!(world.answer_only_question("a", found_answer(&[2], 10)).has_changed);
    assert_eq!(world.addresses(), ["10.0.0.2:80"]);
    world.advance_to_next_lookup(9 * S, 10 * S);
}

#[test]
fn empty_answer_keeps_endpoints_unless_policy_removes_them() {
    for (lack, word) in [(NegativeReason::NxDomain, "nxdomain"), (NegativeReason::NoData, "nodata")]
    {
        let mut world = LookupFixture::new(vec![host("a")]);
        world.answer_only_question("a", found_answer(&[1, 2], 10));
        world.advance_to_next_lookup(9 * S, 10 * S);
        assert!(world.answer_only_question("a", negative_answer(lack)).is_first_in_row);
        assert_eq!(world.lookups.status_of_name(&host("a"))[0].state.as_str(), word);
        assert_eq!(world.addresses(), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert!(world.compose_topology().origins.values().flatten().all(|found| found.is_stale));
        world.advance_to_next_lookup(S, S);
        assert!(!world.answer_only_question("a", negative_answer(lack)).is_first_in_row);
        world.advance_to_next_lookup(S, 2 * S);
        world.answer_only_question("a", found_answer(&[3], 10));
        assert_eq!(world.addresses(), ["10.0.0.3:80"]);

        let obey = LookupPolicy { on_empty: EmptyAnswerPolicy::Remove, ..world.policy };
        let mut world = LookupFixture::with(vec![host("a")], obey);
        world.answer_only_question("a", found_answer(&[1, 2], 10));
        world.advance_to_next_lookup(9 * S, 10 * S);
        world.answer_only_question("a", negative_answer(lack));
        assert!(world.addresses().is_empty());
    }
}

#[test]
fn empty_answer_drops_down_endpoints_unless_all_are_down() {
    let mut world = LookupFixture::new(vec![host("a")]);
    world.answer_only_question("a", found_answer(&[1, 2], 10));
    world.advance_to_next_lookup(9 * S, 10 * S);
    world.down.insert("10.0.0.1:80".parse().expect("an address"));
    assert_eq!(world.addresses().len(), 2, "DNS has it, so it is probed until it is back");
    world.answer_only_question("a", NODATA);
    assert_eq!(world.addresses(), ["10.0.0.2:80"]);
    assert_eq!(world.compose_topology().dropped_stale.len(), 1);
    world.down.insert("10.0.0.2:80".parse().expect("an address"));
    assert_eq!(world.addresses().len(), 2, "with nobody left all of them may come back");
    world.static_addresses.push("10.9.9.9:80".parse().expect("an address"));
    assert_eq!(world.addresses(), ["10.9.9.9:80"]);
}

#[test]
fn name_moving_from_a_to_aaaa_is_not_treated_as_empty() {
    let mut world = LookupFixture::with(vec![host("a")], LookupPolicy::default());
    world.poll_questions();
    world.answer("a", DnsRecordType::A, found_answer(&[1], 5));
    world.answer("a", DnsRecordType::Aaaa, NODATA);
    let aaaa = LookupQuestion { name: "a".into(), record_type: DnsRecordType::Aaaa };
    let status = world.lookups.statuses().find(|one| one.question == aaaa).expect("asked");
    let pause = status.due_at.expect("due") - world.now;
    assert!(pause > 25 * S, "that there are none of one kind is no trouble: {pause:?}");
    let v6 = LookupAnswer::Found {
        records: LookupRecords::Addresses(vec!["fd00::1".parse().expect("one")]),
        ttl: S,
    };
    world.answer("a", DnsRecordType::Aaaa, v6.clone());
    world.answer("a", DnsRecordType::A, NODATA);
    assert_eq!(world.addresses(), ["[fd00::1]:80"]);
    world.answer("a", DnsRecordType::Aaaa, negative_answer(NegativeReason::NxDomain));
    assert_eq!(world.addresses(), ["[fd00::1]:80"], "what was replaced before does not come back");

    // Both change at once, and one of them is seen first.
    let obey = LookupPolicy { on_empty: EmptyAnswerPolicy::Remove, ..LookupPolicy::default() };
    let mut world = LookupFixture::with(vec![host("a")], obey);
    world.poll_questions();
    world.answer("a", DnsRecordType::A, found_answer(&[1], 5));
    world.answer("a", DnsRecordType::Aaaa, NODATA);
    world.now += 5 * S;
    assert_eq!(world.poll_questions(), ["a A"]);
    world.answer("a", DnsRecordType::A, NODATA);
    assert_eq!(world.addresses(), ["10.0.0.1:80"], "the other kind has been asked long ago");
    assert_eq!(world.poll_questions(), ["a AAAA"]);
    world.answer("a", DnsRecordType::Aaaa, v6);
    assert_eq!(world.addresses(), ["[fd00::1]:80"]);
    world.now += S;
    world.poll_questions();
    world.answer("a", DnsRecordType::Aaaa, NODATA);
    world.poll_questions();
    world.answer("a", DnsRecordType::A, NODATA);
    assert!(world.addresses().is_empty(), "neither kind has any");
    assert!(world.poll_questions().is_empty(), "and nothing is asked in a circle");
}

#[test]
fn srv_targets_resolve_and_fail_independently() {
    let mut world = LookupFixture::new(vec![service("_http._tcp.a")]);
    assert_eq!(world.poll_questions(), ["_http._tcp.a SRV"]);
    let targets = vec![srv_target(1, 1, "one."), srv_target(1, 3, "two.")];
    let answer =
        LookupAnswer::Found { records: LookupRecords::SrvTargets(targets.clone()), ttl: 60 * S };
    world.answer("_http._tcp.a", DnsRecordType::Srv, answer);
    assert_eq!(world.poll_questions(), ["one. A", "two. A"]);
    world.answer("one.", DnsRecordType::A, found_answer(&[1], 5));
    world.answer("two.", DnsRecordType::A, TIMEOUT);
    assert_eq!(world.weighted_endpoints(), [("10.0.0.1:8000".to_owned(), 1)]);
    world.now += S;
    world.answer_only_question("two.", found_answer(&[2, 3], 5));
    let three = [("10.0.0.1:8000", 1), ("10.0.0.2:8000", 3), ("10.0.0.3:8000", 3)];
    assert_eq!(
        world.weighted_endpoints(),
        three.map(|(address, weight)| (address.to_owned(), weight))
    );
    world.now += 4 * S;
    world.answer_only_question("one.", TIMEOUT);
    assert_eq!(world.addresses().len(), 3, "the last good answer stays");
    let origin = world.compose_topology().origins
        [&("web".into(), "10.0.0.2:8000".parse().expect("one"))][0]
        .clone();
    assert_eq!(
        (origin.discovery_name, origin.target.as_deref()),
        (service("_http._tcp.a"), Some("two."))
    );
    // RFC 2782: not available, said with a record.
    let none = LookupAnswer::Found {
        records: LookupRecords::SrvTargets(vec![srv_target(0, 0, ".")]),
        ttl: 60 * S,
    };
    world.answer("_http._tcp.a", DnsRecordType::Srv, none);
    let srv = &world.lookups.status_of_name(&service("_http._tcp.a"))[0];
    assert_eq!(srv.state, LookupState::Negative(NegativeReason::NoData));
    let answer = LookupAnswer::Found {
        records: LookupRecords::SrvTargets(targets[..1].to_vec()),
        ttl: 60 * S,
    };
    world.answer("_http._tcp.a", DnsRecordType::Srv, answer);
    assert_eq!(world.addresses(), ["10.0.0.1:8000"]);
    assert_eq!(world.lookups.statuses().count(), 2, "what is no target is not looked up any more");
}

#[test]
fn lower_srv_priority_joins_when_all_of_the_higher_are_down() {
    let mut world = LookupFixture::new(vec![service("_http._tcp.a")]);
    world.poll_questions();
    let targets =
        vec![srv_target(10, 0, "one."), srv_target(20, 0, "two."), srv_target(5, 0, "nowhere.")];
    let answer = LookupAnswer::Found { records: LookupRecords::SrvTargets(targets), ttl: 60 * S };
    world.answer("_http._tcp.a", DnsRecordType::Srv, answer);
    world.poll_questions();
    world.answer("nowhere.", DnsRecordType::A, negative_answer(NegativeReason::NxDomain));
    world.answer("one.", DnsRecordType::A, found_answer(&[1, 2], 60));
    world.answer("two.", DnsRecordType::A, found_answer(&[3], 60));
    assert_eq!(world.addresses(), ["10.0.0.1:8000", "10.0.0.2:8000"]);
    world.down.insert("10.0.0.1:8000".parse().expect("an address"));
    assert_eq!(world.addresses().len(), 2);
    world.down.insert("10.0.0.2:8000".parse().expect("an address"));
    assert_eq!(world.addresses(), ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"]);
    world.down.clear();
    assert_eq!(world.addresses(), ["10.0.0.1:8000", "10.0.0.2:8000"]);
}

#[test]
fn address_found_by_two_names_is_one_endpoint() {
    let mut world = LookupFixture::new(vec![host("a"), host("b")]);
    world.static_addresses.push("10.0.0.3:80".parse().expect("an address"));
    world.poll_questions();
    world.answer("a", DnsRecordType::A, found_answer(&[1, 2, 3], 5));
    world.answer("b", DnsRecordType::A, found_answer(&[2, 4], 5));
    let expected = ["10.0.0.3:80", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.4:80"];
    assert_eq!(world.addresses(), expected);
    let origins = world.compose_topology().origins;
    assert_eq!(origins[&("web".into(), "10.0.0.2:80".parse().expect("an address"))].len(), 2);
}

#[test]
fn unusable_and_excess_addresses_are_omitted() {
    let policy =
        LookupPolicy { max_answers: 3, family: AddressFamily::Ipv4, ..LookupPolicy::default() };
    let mut world = LookupFixture::with(vec![host("a")], policy);
    let zero: IpAddr = [0, 0, 0, 0].into();
    let mapped: IpAddr = "::ffff:0.0.0.0".parse().expect("an address");
    let all =
        vec![test_ip(1), zero, test_ip(2), test_ip(3), test_ip(4), mapped, [224, 0, 0, 1].into()];
    let looked = world.answer_only_question(
        "a",
        LookupAnswer::Found { records: LookupRecords::Addresses(all), ttl: S },
    );
    assert_eq!((looked.omitted_count, world.addresses().len()), (4, 3));
    world.now += S;
    let looked = world.answer_only_question(
        "a",
        LookupAnswer::Found { records: LookupRecords::Addresses(vec![zero]), ttl: S },
    );
    assert_eq!(
        (looked.omitted_count, world.addresses().len()),
        (1, 3),
        "a blocked name is an empty one"
    );
}

#[test]
fn loopback_and_metadata_addresses_are_forbidden() {
    let refused = ["127.0.0.1", "127.9.9.9", "169.254.169.254", "100.100.100.200", "168.63.129.16"];
    let refused_6 = ["::1", "fe80::1", "febf::1", "fd00:ec2::254", "::ffff:127.0.0.1"];
    let fine = ["10.0.0.1", "192.168.0.1", "100.100.100.201", "fd00::1", "2001:db8::1", "fec0::1"];
    let none = LookupPolicy::default().allowed_networks;
    let is_permitted = |name: &str, text: &str, allow: &[Network]| {
        address_filter::is_permitted(name, text.parse().expect("an address"), allow)
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
fn forbidden_answer_keeps_earlier_addresses() {
    let this: IpAddr = [127, 0, 0, 1].into();
    let both = |all: &[IpAddr]| LookupAnswer::Found {
        records: LookupRecords::Addresses(all.to_vec()),
        ttl: S,
    };
    let take_refused = |world: &mut LookupFixture| -> Vec<IpAddr> {
        world.lookups.take_refused().into_iter().flat_map(|(_, all)| all).collect()
    };
    let mut world = LookupFixture::new(vec![host("a")]);
    world.answer_only_question("a", both(&[this, test_ip(1)]));
    assert_eq!(
        (take_refused(&mut world), world.addresses()),
        (vec![this], vec!["10.0.0.1:80".to_owned()])
    );
    world.now += S;
    world.answer_only_question("a", both(&[this, test_ip(1)]));
    assert!(take_refused(&mut world).is_empty(), "it is told once");
    world.now += S;
    world.answer_only_question("a", both(&[this]));
    assert_eq!(world.addresses(), ["10.0.0.1:80"], "as when there is nothing");
    let status = world.lookups.statuses().next().expect("a question");
    assert_eq!((status.state.as_str(), status.refused), ("forbidden", vec![this]));

    // The operator changes what may be: at once for what is known, and the rest is asked for.
    let allow = Arc::from([Network::parse("127.0.0.0/8").expect("a network")]);
    let policy = LookupPolicy { allowed_networks: allow, ..world.policy.clone() };
    world.lookups.configure(&world.entries, &policy, world.now);
    world.answer_only_question("a", both(&[this]));
    assert_eq!(world.addresses(), ["127.0.0.1:80"]);
    assert!(take_refused(&mut world).is_empty());
    world.lookups.configure(&world.entries, &world.policy, world.now);
    assert!(world.addresses().is_empty());
    assert_eq!(take_refused(&mut world), [this]);
    assert_eq!(world.poll_questions(), ["a A"]);
}

#[test]
fn srv_target_named_localhost_may_not_be_loopback() {
    let own = LookupAnswer::Found {
        records: LookupRecords::Addresses(vec![[127, 0, 0, 1].into()]),
        ttl: S,
    };
    let mut world = LookupFixture::new(vec![service("s"), host("web.localhost")]);
    world.poll_questions();
    let targets = LookupRecords::SrvTargets(vec![
        srv_target(0, 1, "x.localhost."),
        srv_target(0, 1, "web.localhost"),
    ]);
    world.answer("s", DnsRecordType::Srv, LookupAnswer::Found { records: targets, ttl: S });
    world.poll_questions();
    world.answer("x.localhost.", DnsRecordType::A, own.clone());
    world.answer("web.localhost", DnsRecordType::A, own);
    assert_eq!(world.addresses(), ["127.0.0.1:80"], "as the operator has named it, with his port");
}

#[test]
fn down_endpoint_expedites_lookup_within_min_ttl() {
    let mut world = LookupFixture::new(vec![host("a"), host("b")]);
    world.poll_questions();
    world.answer("a", DnsRecordType::A, found_answer(&[1], 300));
    world.answer("b", DnsRecordType::A, found_answer(&[2], 300));
    let of_a = EndpointOrigin { discovery_name: host("a"), target: None, is_stale: false };
    world.lookups.expedite(&of_a, world.now);
    world.advance_to_next_lookup(S, S);
    assert_eq!(world.poll_questions(), ["a A"], "the other name is left alone");
    world.lookups.expedite(&of_a, world.now);
    world.lookups.set_down_endpoints([&of_a].into_iter(), world.now);
    world.answer("a", DnsRecordType::A, found_answer(&[1], 300));
    world.advance_to_next_lookup(27 * S, 30 * S);
    world.answer_only_question("a", found_answer(&[1], 300));
    world.lookups.set_down_endpoints(std::iter::empty(), world.now);
    world.advance_to_next_lookup(20 * S, 30 * S);
    world.answer_only_question("a", found_answer(&[1], 300));
    world.lookups.set_down_endpoints([&of_a].into_iter(), world.now);
    world.advance_to_next_lookup(30 * S, 30 * S);
    world.lookups.set_down_endpoints(std::iter::empty(), world.now);
    world.answer_only_question("a", found_answer(&[1], 300));
    // The other name's turn comes first.
    world.advance_to_next_lookup(170 * S, 300 * S);
}

#[test]
fn reconfigure_keeps_known_names_and_forgets_removed_ones() {
    let mut world = LookupFixture::new(vec![host("a"), host("b")]);
    world.poll_questions();
    world.answer("a", DnsRecordType::A, found_answer(&[1], 100));
    world.answer("b", DnsRecordType::A, found_answer(&[2], 100));
    world.entries = vec![entry(host("b")), entry(host("c"))];
    world.lookups.configure(&world.entries, &world.policy, world.now);
    assert_eq!(world.addresses(), ["10.0.0.2:80"]);
    assert_eq!(world.poll_questions(), ["c A"]);
    world.entries.remove(1);
    world.lookups.configure(&world.entries, &world.policy, world.now);
    let looked = world.answer("c", DnsRecordType::A, found_answer(&[3], 100));
    assert!(!looked.has_changed, "nobody wants to know any more");
    assert_eq!(world.addresses(), ["10.0.0.2:80"]);
}

#[test]
fn cached_lookups_are_used_until_dns_answers() {
    let mut world = LookupFixture::new(vec![service("_http._tcp.a"), host("b")]);
    world.poll_questions();
    let answer = LookupAnswer::Found {
        records: LookupRecords::SrvTargets(vec![srv_target(1, 1, "one.")]),
        ttl: 60 * S,
    };
    world.answer("_http._tcp.a", DnsRecordType::Srv, answer);
    world.answer("b", DnsRecordType::A, found_answer(&[2], 60));
    world.poll_questions();
    world.answer("one.", DnsRecordType::A, found_answer(&[1], 60));
    let known = world.addresses();
    assert_eq!(known, ["10.0.0.1:8000", "10.0.0.2:80"]);

    world.lookups = LookupScheduler::new(2, world.lookups.export_cache());
    world.lookups.configure(&world.entries, &world.policy, world.now);
    assert_eq!(world.addresses(), known);
    assert!(world.lookups.has_initial_answers());
    assert_eq!(world.poll_questions().len(), 3, "all is looked up at once all the same");
    for (name, record) in
        [("_http._tcp.a", DnsRecordType::Srv), ("one.", DnsRecordType::A), ("b", DnsRecordType::A)]
    {
        world.answer(name, record, TIMEOUT);
    }
    assert_eq!(world.addresses(), known);
    world.now += S;
    world.poll_questions();
    world.answer("b", DnsRecordType::A, found_answer(&[3], 60));
    assert_eq!(world.addresses(), ["10.0.0.1:8000", "10.0.0.3:80"]);
}

#[test]
fn lookups_in_flight_are_bounded() {
    let mut world = LookupFixture::new((0..100).map(|n| host(&format!("n{n}"))).collect());
    let first = world.lookups.poll(world.now);
    assert_eq!(first.len(), 64);
    assert!(world.lookups.poll(world.now).is_empty());
    assert_eq!(world.lookups.poll_timeout(), None, "an answer makes room, and time does not");
    world.lookups.on_answer(&first[0], TIMEOUT, world.now);
    assert_eq!(world.lookups.poll(world.now).len(), 1);
}

#[test]
fn placeholder_endpoints_are_in_the_zone_of_their_name() {
    let world = LookupFixture::new(vec![host("a"), service("_http._tcp.a")]);
    let declared = world.compose_topology().topology;
    let topology = with_placeholder_endpoints(&declared, &world.entries);
    let zone = &topology.pools[0].zones[0];
    let addresses: BTreeSet<SocketAddr> = zone.endpoints.iter().map(|one| one.address).collect();
    assert_eq!(addresses.len(), 2 * PLACEHOLDERS_PER_NAME);
}
