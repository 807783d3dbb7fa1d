use std::hash::RandomState;

use super::*;

const KEY: RequestKey = RequestKey(1);

/// An endpoint of zone `zone`; endpoints of a zone have slots from ten times its index on.
fn place(zone: usize, index: u32) -> AttemptPlace {
    AttemptPlace { endpoint: EndpointId::new(zone as u32 * 10 + index, 0), zone }
}

fn table() -> (FailingRequests, Instant) {
    let now = Instant::now();
    (FailingRequests::new(now), now)
}

#[test]
fn rescued_failure_is_the_endpoints() {
    let (mut failing, now) = table();
    assert_eq!(failing.on_rescue(KEY, 2, place(1, 0), now), Attribution::Endpoint);
    assert!(failing.is_empty(), "a failure that was rescued leaves no key");
}

#[test]
fn failure_at_two_endpoints_is_the_requests() {
    let (mut failing, now) = table();
    let failed = [place(0, 0), place(1, 0)];
    assert_eq!(
        failing.on_failure(KEY, &failed, ComparisonScope::OtherZone, now),
        Attribution::Request
    );
    assert!(failing.fails_everywhere(KEY, now));
    let once_more = [place(0, 1)];
    assert_eq!(
        failing.on_failure(KEY, &once_more, ComparisonScope::OtherZone, now),
        Attribution::Request
    );
}

#[test]
fn fault_of_a_request_is_compared_again_in_time() {
    let (mut failing, start) = table();
    let both = [place(0, 0), place(1, 0)];
    let _ = failing.on_failure(KEY, &both, ComparisonScope::OtherZone, start);
    let fail_at = |failing: &mut FailingRequests, seconds| {
        let now = start + Duration::from_secs(seconds);
        failing.on_failure(KEY, &[place(0, 0)], ComparisonScope::OtherZone, now)
    };
    for second in 1..10 {
        assert_eq!(fail_at(&mut failing, second), Attribution::Request, "{second}");
    }
    assert_ne!(fail_at(&mut failing, 10), Attribution::Request, "not known any more");
    let now = start + Duration::from_secs(10);
    assert_eq!(failing.place_to_avoid(KEY, now), Some(place(0, 0)));
}

#[test]
fn two_endpoints_of_a_zone_do_not_acquit_it() {
    let (mut failing, now) = table();
    let neighbours = [place(0, 0), place(0, 1)];
    assert_eq!(
        failing.on_failure(KEY, &neighbours, ComparisonScope::OtherZone, now),
        Attribution::Endpoint
    );
    assert_eq!(
        failing.on_failure(RequestKey(2), &neighbours, ComparisonScope::SameZone, now),
        Attribution::Request
    );
}

#[test]
fn unverified_key_is_sent_elsewhere_next() {
    let (mut failing, now) = table();
    assert_eq!(
        failing.on_failure(KEY, &[place(0, 0)], ComparisonScope::OtherZone, now),
        Attribution::Endpoint
    );
    assert_eq!(failing.place_to_avoid(KEY, now), Some(place(0, 0)));
    let concurrent = [place(0, 1)];
    assert_eq!(
        failing.on_failure(KEY, &concurrent, ComparisonScope::OtherZone, now),
        Attribution::Unknown
    );
    assert_eq!(failing.place_to_avoid(RequestKey(2), now), None);
    assert_eq!(
        failing.on_failure(KEY, &[place(1, 0)], ComparisonScope::OtherZone, now),
        Attribution::Request
    );
    assert_eq!(failing.place_to_avoid(KEY, now), None);
}

#[test]
fn key_that_succeeds_elsewhere_is_evidence() {
    let (mut failing, now) = table();
    let _ = failing.on_failure(KEY, &[place(0, 0)], ComparisonScope::OtherZone, now);
    failing.on_success(KEY, place(1, 0), now);
    for _ in 0..3 {
        assert_eq!(
            failing.on_failure(KEY, &[place(0, 1)], ComparisonScope::OtherZone, now),
            Attribution::Endpoint
        );
    }
    assert_eq!(
        failing.on_failure(KEY, &[place(1, 0)], ComparisonScope::OtherZone, now),
        Attribution::Request
    );
}

#[test]
fn success_ends_the_state_that_it_refutes() {
    let (mut failing, now) = table();
    let _ = failing.on_failure(KEY, &[place(0, 0), place(1, 0)], ComparisonScope::OtherZone, now);
    failing.on_success(KEY, place(1, 0), now);
    assert!(failing.is_empty(), "it does not fail everywhere");
    let _ = failing.on_failure(KEY, &[place(0, 0)], ComparisonScope::OtherZone, now);
    failing.on_success(KEY, place(0, 0), now);
    assert!(failing.is_empty(), "it does not fail always");
}

#[test]
fn neighbour_decides_where_no_other_zone_can_serve() {
    let (mut failing, now) = table();
    let _ = failing.on_failure(KEY, &[place(0, 0)], ComparisonScope::SameZone, now);
    assert_eq!(
        failing.on_failure(KEY, &[place(0, 1)], ComparisonScope::SameZone, now),
        Attribution::Request
    );
}

#[test]
fn failure_in_a_pool_of_one_endpoint_always_counts() {
    let (mut failing, now) = table();
    for _ in 0..3 {
        let attribution = failing.on_failure(KEY, &[place(0, 0)], ComparisonScope::None, now);
        assert_eq!(attribution, Attribution::Endpoint);
    }
    assert!(failing.is_empty());
}

#[test]
fn unverified_failures_count_by_the_verified_share() {
    let (mut failing, now) = table();
    let counted = |failing: &mut FailingRequests| {
        (0..100)
            .filter(|&n| {
                let key = RequestKey(1_000 + n);
                failing.keys.clear();
                failing.on_failure(key, &[place(0, 0)], ComparisonScope::OtherZone, now)
                    == Attribution::Endpoint
            })
            .count()
    };
    assert_eq!(counted(&mut failing), 100, "nothing is verified");
    for _ in 0..99 {
        let _ =
            failing.on_failure(KEY, &[place(0, 0), place(1, 0)], ComparisonScope::OtherZone, now);
    }
    assert_eq!(counted(&mut failing), 25, "requests were at fault, and a quarter counts still");
    let _ = failing.on_rescue(KEY, 198, place(1, 0), now);
    assert!((45..=51).contains(&counted(&mut failing)), "half of them were");
}

#[test]
fn keys_expire_and_are_bounded() {
    let (mut failing, now) = table();
    for n in 0..10_000 {
        let _ = failing.on_failure(RequestKey(n), &[place(0, 0)], ComparisonScope::OtherZone, now);
    }
    assert_eq!(failing.keys.len(), MAX_KEYS);
    let later = now + KEY_LIFETIME;
    assert_eq!(failing.place_to_avoid(RequestKey(9_999), later), None);
    failing.remove_expired(later);
    assert!(failing.is_empty());
}

#[test]
fn key_depends_on_method_host_and_path() {
    let hasher = RandomState::new();
    let key = |method, host, path| RequestKey::new(&hasher, &method, host, path);
    let one = key(Method::GET, "a.example", "/x");
    assert_eq!(one, key(Method::GET, "a.example", "/x"));
    assert_ne!(one, key(Method::POST, "a.example", "/x"));
    assert_ne!(one, key(Method::GET, "b.example", "/x"));
    assert_ne!(one, key(Method::GET, "a.example", "/y"));
}
