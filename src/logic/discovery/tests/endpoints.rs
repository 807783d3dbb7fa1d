//! The endpoints that the answers yield.

use super::*;
use crate::logic::model::network::Network;

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
fn placeholder_endpoints_are_in_the_zone_of_their_name() {
    let world = LookupFixture::new(vec![host("a"), service("_http._tcp.a")]);
    let declared = world.compose_topology().topology;
    let topology = with_placeholder_endpoints(&declared, &world.entries);
    let zone = &topology.pools[0].zones[0];
    let addresses: BTreeSet<SocketAddr> = zone.endpoints.iter().map(|one| one.address).collect();
    assert_eq!(addresses.len(), 2 * PLACEHOLDERS_PER_NAME);
}
