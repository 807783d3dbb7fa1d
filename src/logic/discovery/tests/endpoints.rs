//! The endpoints that result from answers.

use super::*;
use crate::logic::model::network::Network;

#[test]
fn empty_answer_drops_down_endpoints_unless_all_are_down() {
    let mut fixture = LookupFixture::new(vec![host("a")]);
    fixture.answer_only_question("a", found_answer(&[1, 2], 10));
    fixture.advance_to_next_lookup(9 * S, 10 * S);
    fixture.down.insert("10.0.0.1:80".parse().expect("an address"));
    assert_eq!(fixture.addresses().len(), 2, "a resolved endpoint is probed until it recovers");
    fixture.answer_only_question("a", NODATA);
    assert_eq!(fixture.addresses(), ["10.0.0.2:80"]);
    assert_eq!(fixture.compose_topology().dropped_stale.len(), 1);
    fixture.down.insert("10.0.0.2:80".parse().expect("an address"));
    assert_eq!(fixture.addresses().len(), 2, "without any live endpoint all may recover");
    fixture.static_addresses.push("10.9.9.9:80".parse().expect("an address"));
    assert_eq!(fixture.addresses(), ["10.9.9.9:80"]);
}

#[test]
fn srv_targets_resolve_and_fail_independently() {
    let mut fixture = LookupFixture::new(vec![service("_http._tcp.a")]);
    assert_eq!(fixture.poll_questions(), ["_http._tcp.a SRV"]);
    let targets = vec![srv_target(1, 1, "one."), srv_target(1, 3, "two.")];
    let answer =
        LookupAnswer::Found { records: LookupRecords::SrvTargets(targets.clone()), ttl: 60 * S };
    fixture.answer("_http._tcp.a", DnsRecordType::Srv, answer);
    assert_eq!(fixture.poll_questions(), ["one. A", "two. A"]);
    fixture.answer("one.", DnsRecordType::A, found_answer(&[1], 5));
    fixture.answer("two.", DnsRecordType::A, TIMEOUT);
    assert_eq!(fixture.weighted_endpoints(), [("10.0.0.1:8000".to_owned(), 1)]);
    fixture.now += S;
    fixture.answer_only_question("two.", found_answer(&[2, 3], 5));
    let three = [("10.0.0.1:8000", 1), ("10.0.0.2:8000", 3), ("10.0.0.3:8000", 3)];
    assert_eq!(
        fixture.weighted_endpoints(),
        three.map(|(address, weight)| (address.to_owned(), weight))
    );
    fixture.now += 4 * S;
    fixture.answer_only_question("one.", TIMEOUT);
    assert_eq!(fixture.addresses().len(), 3, "the last good answer stays");
    let origin = fixture.compose_topology().origins
        [&("web".into(), "10.0.0.2:8000".parse().expect("an address"))][0]
        .clone();
    assert_eq!(
        (origin.discovery_name, origin.target.as_deref()),
        (service("_http._tcp.a"), Some("two."))
    );
    // RFC 2782: the root as target means that the service is not available.
    let none = LookupAnswer::Found {
        records: LookupRecords::SrvTargets(vec![srv_target(0, 0, ".")]),
        ttl: 60 * S,
    };
    fixture.answer("_http._tcp.a", DnsRecordType::Srv, none);
    let srv = &fixture.lookups.status_of_name(&service("_http._tcp.a"))[0];
    assert_eq!(srv.state, LookupState::Negative(NegativeReason::NoData));
    let answer = LookupAnswer::Found {
        records: LookupRecords::SrvTargets(targets[..1].to_vec()),
        ttl: 60 * S,
    };
    fixture.answer("_http._tcp.a", DnsRecordType::Srv, answer);
    assert_eq!(fixture.addresses(), ["10.0.0.1:8000"]);
    assert_eq!(fixture.lookups.statuses().count(), 2, "removed targets are not looked up");
}

#[test]
fn lower_srv_priority_joins_when_all_of_the_higher_are_down() {
    let mut fixture = LookupFixture::new(vec![service("_http._tcp.a")]);
    fixture.poll_questions();
    let targets =
        vec![srv_target(10, 0, "one."), srv_target(20, 0, "two."), srv_target(5, 0, "nowhere.")];
    let answer = LookupAnswer::Found { records: LookupRecords::SrvTargets(targets), ttl: 60 * S };
    fixture.answer("_http._tcp.a", DnsRecordType::Srv, answer);
    fixture.poll_questions();
    fixture.answer("nowhere.", DnsRecordType::A, negative_answer(NegativeReason::NxDomain));
    fixture.answer("one.", DnsRecordType::A, found_answer(&[1, 2], 60));
    fixture.answer("two.", DnsRecordType::A, found_answer(&[3], 60));
    assert_eq!(fixture.addresses(), ["10.0.0.1:8000", "10.0.0.2:8000"]);
    fixture.down.insert("10.0.0.1:8000".parse().expect("an address"));
    assert_eq!(fixture.addresses().len(), 2);
    fixture.down.insert("10.0.0.2:8000".parse().expect("an address"));
    assert_eq!(fixture.addresses(), ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"]);
    fixture.down.clear();
    assert_eq!(fixture.addresses(), ["10.0.0.1:8000", "10.0.0.2:8000"]);
}

#[test]
fn address_found_by_two_names_is_one_endpoint() {
    let mut fixture = LookupFixture::new(vec![host("a"), host("b")]);
    fixture.static_addresses.push("10.0.0.3:80".parse().expect("an address"));
    fixture.poll_questions();
    fixture.answer("a", DnsRecordType::A, found_answer(&[1, 2, 3], 5));
    fixture.answer("b", DnsRecordType::A, found_answer(&[2, 4], 5));
    let expected = ["10.0.0.3:80", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.4:80"];
    assert_eq!(fixture.addresses(), expected);
    let origins = fixture.compose_topology().origins;
    assert_eq!(origins[&("web".into(), "10.0.0.2:80".parse().expect("an address"))].len(), 2);
}

#[test]
fn unusable_and_excess_addresses_are_omitted() {
    let policy =
        LookupPolicy { max_answers: 3, family: AddressFamily::Ipv4, ..LookupPolicy::default() };
    let mut fixture = LookupFixture::with(vec![host("a")], policy);
    let zero: IpAddr = [0, 0, 0, 0].into();
    let mapped: IpAddr = "::ffff:0.0.0.0".parse().expect("an address");
    let all =
        vec![test_ip(1), zero, test_ip(2), test_ip(3), test_ip(4), mapped, [224, 0, 0, 1].into()];
    let change = fixture.answer_only_question(
        "a",
        LookupAnswer::Found { records: LookupRecords::Addresses(all), ttl: S },
    );
    assert_eq!((change.omitted_count, fixture.addresses().len()), (4, 3));
    fixture.now += S;
    let change = fixture.answer_only_question(
        "a",
        LookupAnswer::Found { records: LookupRecords::Addresses(vec![zero]), ttl: S },
    );
    assert_eq!(
        (change.omitted_count, fixture.addresses().len()),
        (1, 3),
        "a blocked name counts as empty"
    );
}

#[test]
fn loopback_and_metadata_addresses_are_forbidden() {
    let refused = ["127.0.0.1", "127.9.9.9", "169.254.169.254", "100.100.100.200", "168.63.129.16"];
    let refused_6 = ["::1", "fe80::1", "febf::1", "fd00:ec2::254", "::ffff:127.0.0.1"];
    let permitted =
        ["10.0.0.1", "192.168.0.1", "100.100.100.201", "fd00::1", "2001:db8::1", "fec0::1"];
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
    assert!(permitted.iter().all(|text| is_permitted("web.example", text, &none)));
    for name in ["localhost", "localhost.", "web.localhost", "web.localhost."] {
        assert!(is_permitted(name, "127.0.0.1", &none) && is_permitted(name, "::1", &none));
        assert!(!is_permitted(name, "169.254.169.254", &none));
    }
    assert!(!is_permitted("web.notlocalhost", "127.0.0.1", &none));
}

#[test]
fn forbidden_answer_keeps_earlier_addresses() {
    let loopback: IpAddr = [127, 0, 0, 1].into();
    let both = |all: &[IpAddr]| LookupAnswer::Found {
        records: LookupRecords::Addresses(all.to_vec()),
        ttl: S,
    };
    let take_refused = |fixture: &mut LookupFixture| -> Vec<IpAddr> {
        fixture.lookups.take_refused().into_iter().flat_map(|(_, all)| all).collect()
    };
    let mut fixture = LookupFixture::new(vec![host("a")]);
    fixture.answer_only_question("a", both(&[loopback, test_ip(1)]));
    assert_eq!(
        (take_refused(&mut fixture), fixture.addresses()),
        (vec![loopback], vec!["10.0.0.1:80".to_owned()])
    );
    fixture.now += S;
    fixture.answer_only_question("a", both(&[loopback, test_ip(1)]));
    assert!(take_refused(&mut fixture).is_empty(), "reported once");
    fixture.now += S;
    fixture.answer_only_question("a", both(&[loopback]));
    assert_eq!(fixture.addresses(), ["10.0.0.1:80"], "like an empty answer");
    let status = fixture.lookups.statuses().next().expect("a question");
    assert_eq!((status.state.as_str(), status.refused), ("forbidden", vec![loopback]));

    // A new allow list applies to known addresses at once, and the other records are queried again.
    let allow = Arc::from([Network::parse("127.0.0.0/8").expect("a network")]);
    let policy = LookupPolicy { allowed_networks: allow, ..fixture.policy.clone() };
    fixture.lookups.configure(&fixture.entries, &policy, fixture.now);
    fixture.answer_only_question("a", both(&[loopback]));
    assert_eq!(fixture.addresses(), ["127.0.0.1:80"]);
    assert!(take_refused(&mut fixture).is_empty());
    fixture.lookups.configure(&fixture.entries, &fixture.policy, fixture.now);
    assert!(fixture.addresses().is_empty());
    assert_eq!(take_refused(&mut fixture), [loopback]);
    assert_eq!(fixture.poll_questions(), ["a A"]);
}

#[test]
fn srv_target_named_localhost_may_not_be_loopback() {
    let own = LookupAnswer::Found {
        records: LookupRecords::Addresses(vec![[127, 0, 0, 1].into()]),
        ttl: S,
    };
    let mut fixture = LookupFixture::new(vec![service("s"), host("web.localhost")]);
    fixture.poll_questions();
    let targets = LookupRecords::SrvTargets(vec![
        srv_target(0, 1, "x.localhost."),
        srv_target(0, 1, "web.localhost"),
    ]);
    fixture.answer("s", DnsRecordType::Srv, LookupAnswer::Found { records: targets, ttl: S });
    fixture.poll_questions();
    fixture.answer("x.localhost.", DnsRecordType::A, own.clone());
    fixture.answer("web.localhost", DnsRecordType::A, own);
    assert_eq!(fixture.addresses(), ["127.0.0.1:80"], "only the name and the port of the operator");
}

#[test]
fn placeholder_endpoints_are_in_the_zone_of_their_name() {
    let fixture = LookupFixture::new(vec![host("a"), service("_http._tcp.a")]);
    let declared = fixture.compose_topology().topology;
    let topology = with_placeholder_endpoints(&declared, &fixture.entries);
    let zone = &topology.pools[0].zones[0];
    let addresses: BTreeSet<SocketAddr> =
        zone.endpoints.iter().map(|endpoint| endpoint.address).collect();
    assert_eq!(addresses.len(), 2 * PLACEHOLDERS_PER_NAME);
}
