//! Query intervals, and the effect of answers.

use super::*;

#[test]
fn ttl_is_clamped_and_jitter_only_shortens_it() {
    let mut fixture = LookupFixture::new(vec![host("a")]);
    assert!(fixture.addresses().is_empty(), "no answer yet, which is no error");
    assert!(!fixture.lookups.has_initial_answers());
    fixture.answer_only_question("a", found_answer(&[1], 20));
    assert!(fixture.lookups.has_initial_answers());
    fixture.advance_to_next_lookup(18 * S, 20 * S);
    fixture.answer_only_question("a", found_answer(&[1], 0));
    fixture.advance_to_next_lookup(S, S);
    fixture.answer_only_question("a", found_answer(&[1], 86_400));
    fixture.advance_to_next_lookup(270 * S, 300 * S);
    let mut intervals = BTreeSet::new();
    for _ in 0..20 {
        fixture.answer_only_question("a", found_answer(&[1], 100));
        intervals.insert(fixture.time_to_next_lookup());
        fixture.advance_to_next_lookup(90 * S, 100 * S);
    }
    assert!(intervals.len() > 10, "jitter spreads the lookups");
}

#[test]
fn a_and_aaaa_are_queried_in_parallel_without_waiting() {
    let mut fixture = LookupFixture::with(vec![host("a")], LookupPolicy::default());
    assert_eq!(fixture.poll_questions(), ["a A", "a AAAA"]);
    assert!(fixture.answer("a", DnsRecordType::A, found_answer(&[2, 1, 2], 60)).has_changed);
    assert_eq!(fixture.addresses(), ["10.0.0.1:80", "10.0.0.2:80"]);
    let v6 = LookupAnswer::Found {
        records: LookupRecords::Addresses(vec!["fd00::1".parse().expect("an address")]),
        ttl: S,
    };
    fixture.answer("a", DnsRecordType::Aaaa, v6);
    assert_eq!(fixture.addresses(), ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"]);
    let change = fixture.answer("a", DnsRecordType::A, found_answer(&[1, 2], 60));
    assert!(!change.has_changed, "the order of an answer means nothing");
}

#[test]
fn failed_lookup_keeps_endpoints_and_backs_off() {
    let mut fixture = LookupFixture::new(vec![host("a")]);
    fixture.answer_only_question("a", found_answer(&[1, 2], 10));
    fixture.advance_to_next_lookup(9 * S, 10 * S);
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let change = fixture.answer_only_question("a", TIMEOUT);
        assert!(!change.has_changed);
        assert_eq!(change.is_first_in_row, seconds == 1);
        assert_eq!(fixture.addresses(), ["10.0.0.1:80", "10.0.0.2:80"]);
        let seconds = Duration::from_secs(seconds);
        fixture.advance_to_next_lookup((seconds * 9 / 10).max(S), seconds);
    }
    assert!(fixture.answer_only_question("a", found_answer(&[2], 10)).has_changed);
    assert_eq!(fixture.addresses(), ["10.0.0.2:80"]);
    fixture.advance_to_next_lookup(9 * S, 10 * S);
}

#[test]
fn empty_answer_keeps_endpoints_unless_policy_removes_them() {
    for (reason, word) in
        [(NegativeReason::NxDomain, "nxdomain"), (NegativeReason::NoData, "nodata")]
    {
        let mut fixture = LookupFixture::new(vec![host("a")]);
        fixture.answer_only_question("a", found_answer(&[1, 2], 10));
        fixture.advance_to_next_lookup(9 * S, 10 * S);
        assert!(fixture.answer_only_question("a", negative_answer(reason)).is_first_in_row);
        assert_eq!(fixture.lookups.status_of_name(&host("a"))[0].state.as_str(), word);
        assert_eq!(fixture.addresses(), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert!(fixture.compose_topology().origins.values().flatten().all(|found| found.is_stale));
        fixture.advance_to_next_lookup(S, S);
        assert!(!fixture.answer_only_question("a", negative_answer(reason)).is_first_in_row);
        fixture.advance_to_next_lookup(S, 2 * S);
        fixture.answer_only_question("a", found_answer(&[3], 10));
        assert_eq!(fixture.addresses(), ["10.0.0.3:80"]);

        let policy = LookupPolicy { on_empty: EmptyAnswerPolicy::Remove, ..fixture.policy };
        let mut fixture = LookupFixture::with(vec![host("a")], policy);
        fixture.answer_only_question("a", found_answer(&[1, 2], 10));
        fixture.advance_to_next_lookup(9 * S, 10 * S);
        fixture.answer_only_question("a", negative_answer(reason));
        assert!(fixture.addresses().is_empty());
    }
}

#[test]
fn name_moving_from_a_to_aaaa_is_not_treated_as_empty() {
    let mut fixture = LookupFixture::with(vec![host("a")], LookupPolicy::default());
    fixture.poll_questions();
    fixture.answer("a", DnsRecordType::A, found_answer(&[1], 5));
    fixture.answer("a", DnsRecordType::Aaaa, NODATA);
    let aaaa = LookupQuestion { name: "a".into(), record_type: DnsRecordType::Aaaa };
    let status =
        fixture.lookups.statuses().find(|status| status.question == aaaa).expect("a status");
    let interval = status.due_at.expect("due") - fixture.now;
    assert!(interval > 25 * S, "records of one family are no error: {interval:?}");
    let v6 = LookupAnswer::Found {
        records: LookupRecords::Addresses(vec!["fd00::1".parse().expect("an address")]),
        ttl: S,
    };
    fixture.answer("a", DnsRecordType::Aaaa, v6.clone());
    fixture.answer("a", DnsRecordType::A, NODATA);
    assert_eq!(fixture.addresses(), ["[fd00::1]:80"]);
    fixture.answer("a", DnsRecordType::Aaaa, negative_answer(NegativeReason::NxDomain));
    assert_eq!(fixture.addresses(), ["[fd00::1]:80"], "replaced records do not return");

    // Both types change at once, and the change of one is seen first.
    let policy = LookupPolicy { on_empty: EmptyAnswerPolicy::Remove, ..LookupPolicy::default() };
    let mut fixture = LookupFixture::with(vec![host("a")], policy);
    fixture.poll_questions();
    fixture.answer("a", DnsRecordType::A, found_answer(&[1], 5));
    fixture.answer("a", DnsRecordType::Aaaa, NODATA);
    fixture.now += 5 * S;
    assert_eq!(fixture.poll_questions(), ["a A"]);
    fixture.answer("a", DnsRecordType::A, NODATA);
    assert_eq!(fixture.addresses(), ["10.0.0.1:80"], "the answer of the other type is old");
    assert_eq!(fixture.poll_questions(), ["a AAAA"]);
    fixture.answer("a", DnsRecordType::Aaaa, v6);
    assert_eq!(fixture.addresses(), ["[fd00::1]:80"]);
    fixture.now += S;
    fixture.poll_questions();
    fixture.answer("a", DnsRecordType::Aaaa, NODATA);
    fixture.poll_questions();
    fixture.answer("a", DnsRecordType::A, NODATA);
    assert!(fixture.addresses().is_empty(), "neither kind has any");
    assert!(fixture.poll_questions().is_empty(), "the queries do not loop");
}

#[test]
fn down_endpoint_expedites_lookup_within_min_ttl() {
    let mut fixture = LookupFixture::new(vec![host("a"), host("b")]);
    fixture.poll_questions();
    fixture.answer("a", DnsRecordType::A, found_answer(&[1], 300));
    fixture.answer("b", DnsRecordType::A, found_answer(&[2], 300));
    let origin = EndpointOrigin { discovery_name: host("a"), target: None, is_stale: false };
    fixture.lookups.expedite(&origin, fixture.now);
    fixture.advance_to_next_lookup(S, S);
    assert_eq!(fixture.poll_questions(), ["a A"], "the other name is left alone");
    fixture.lookups.expedite(&origin, fixture.now);
    fixture.lookups.set_down_endpoints([&origin].into_iter(), fixture.now);
    fixture.answer("a", DnsRecordType::A, found_answer(&[1], 300));
    fixture.advance_to_next_lookup(27 * S, 30 * S);
    fixture.answer_only_question("a", found_answer(&[1], 300));
    fixture.lookups.set_down_endpoints(std::iter::empty(), fixture.now);
    fixture.advance_to_next_lookup(20 * S, 30 * S);
    fixture.answer_only_question("a", found_answer(&[1], 300));
    fixture.lookups.set_down_endpoints([&origin].into_iter(), fixture.now);
    fixture.advance_to_next_lookup(30 * S, 30 * S);
    fixture.lookups.set_down_endpoints(std::iter::empty(), fixture.now);
    fixture.answer_only_question("a", found_answer(&[1], 300));
    // The question of the other name is due first.
    fixture.advance_to_next_lookup(170 * S, 300 * S);
}

#[test]
fn reconfigure_keeps_known_names_and_forgets_removed_ones() {
    let mut fixture = LookupFixture::new(vec![host("a"), host("b")]);
    fixture.poll_questions();
    fixture.answer("a", DnsRecordType::A, found_answer(&[1], 100));
    fixture.answer("b", DnsRecordType::A, found_answer(&[2], 100));
    fixture.entries = vec![entry(host("b")), entry(host("c"))];
    fixture.lookups.configure(&fixture.entries, &fixture.policy, fixture.now);
    assert_eq!(fixture.addresses(), ["10.0.0.2:80"]);
    assert_eq!(fixture.poll_questions(), ["c A"]);
    fixture.entries.remove(1);
    fixture.lookups.configure(&fixture.entries, &fixture.policy, fixture.now);
    let change = fixture.answer("c", DnsRecordType::A, found_answer(&[3], 100));
    assert!(!change.has_changed, "the question is removed");
    assert_eq!(fixture.addresses(), ["10.0.0.2:80"]);
}

#[test]
fn cached_lookups_are_used_until_dns_answers() {
    let mut fixture = LookupFixture::new(vec![service("_http._tcp.a"), host("b")]);
    fixture.poll_questions();
    let answer = LookupAnswer::Found {
        records: LookupRecords::SrvTargets(vec![srv_target(1, 1, "one.")]),
        ttl: 60 * S,
    };
    fixture.answer("_http._tcp.a", DnsRecordType::Srv, answer);
    fixture.answer("b", DnsRecordType::A, found_answer(&[2], 60));
    fixture.poll_questions();
    fixture.answer("one.", DnsRecordType::A, found_answer(&[1], 60));
    let expected = fixture.addresses();
    assert_eq!(expected, ["10.0.0.1:8000", "10.0.0.2:80"]);

    fixture.lookups = LookupScheduler::new(2, fixture.lookups.export_cache());
    fixture.lookups.configure(&fixture.entries, &fixture.policy, fixture.now);
    assert_eq!(fixture.addresses(), expected);
    assert!(fixture.lookups.has_initial_answers());
    assert_eq!(fixture.poll_questions().len(), 3, "cached names are looked up at once");
    for (name, record) in
        [("_http._tcp.a", DnsRecordType::Srv), ("one.", DnsRecordType::A), ("b", DnsRecordType::A)]
    {
        fixture.answer(name, record, TIMEOUT);
    }
    assert_eq!(fixture.addresses(), expected);
    fixture.now += S;
    fixture.poll_questions();
    fixture.answer("b", DnsRecordType::A, found_answer(&[3], 60));
    assert_eq!(fixture.addresses(), ["10.0.0.1:8000", "10.0.0.3:80"]);
}

#[test]
fn lookups_in_flight_are_bounded() {
    let mut fixture = LookupFixture::new((0..100).map(|n| host(&format!("n{n}"))).collect());
    let first = fixture.lookups.poll(fixture.now);
    assert_eq!(first.len(), 64);
    assert!(fixture.lookups.poll(fixture.now).is_empty());
    assert_eq!(fixture.lookups.poll_timeout(), None, "an answer makes room, and time does not");
    fixture.lookups.on_answer(&first[0], TIMEOUT, fixture.now);
    assert_eq!(fixture.lookups.poll(fixture.now).len(), 1);
}
