//! When names are looked up, and what an answer changes.

use super::*;

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
