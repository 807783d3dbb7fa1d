//! Consistent hashing: a key keeps its endpoint, and moves while that endpoint fails.

use std::collections::HashMap;

use super::{AffinityFixture, get_with_fields};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually, poll_until};

const KEY_COUNT: usize = 60;

/// The endpoint of each key.
fn key_owners(gapless: &Gapless, field: &dyn Fn(usize) -> String) -> Vec<String> {
    (0..KEY_COUNT).map(|n| get_with_fields(gapless, &field(n)).text()).collect()
}

/// Checks keys from `field` with these pool lines: a failed endpoint
/// loses only its own keys, and gets them back.
fn assert_keys_stay_on_their_endpoints(pool: &str, field: &dyn Fn(usize) -> String) {
    let fixture = AffinityFixture::new(5);
    let config = fixture.config(pool);
    let gapless = Gapless::start_ready(&config);
    let before = key_owners(&gapless, field);
    assert_eq!(key_owners(&gapless, field), before, "{pool}");
    let mut counts: HashMap<&str, usize> = HashMap::new();
    before.iter().for_each(|name| *counts.entry(name).or_default() += 1);
    assert_eq!(counts.len(), 5, "every endpoint has keys: {counts:?}");
    let failed_endpoint = fixture.endpoint_named("e2");
    failed_endpoint.kill();
    eventually("down", DEFAULT_TIMEOUT, || {
        gapless.endpoint_state(failed_endpoint.address()) == "down"
    });
    let during = key_owners(&gapless, field);
    for (before, during) in before.iter().zip(&during) {
        assert!(before == during || before == "e2", "{pool}: {before} → {during}");
        assert_ne!(during, "e2");
    }
    failed_endpoint.listen();
    eventually("up again", DEFAULT_TIMEOUT, || {
        gapless.endpoint_state(failed_endpoint.address()) == "up"
    });
    poll_until("its keys are back", DEFAULT_TIMEOUT, || {
        (key_owners(&gapless, field) == before).then_some(())
    });
    drop(gapless);
    // A key's hash is the same in every process.
    assert_eq!(key_owners(&Gapless::start_ready(&config), field), before, "{pool}");
}

#[test]
fn ring_hash_on_header_is_stable() {
    let pool = "balance = { method = \"ring_hash\", key = { header = \"x-user\" } }";
    assert_keys_stay_on_their_endpoints(pool, &|n| format!("x-user: user-{n}\r\n"));
}

#[test]
fn bounded_maglev_on_cookie_is_stable() {
    let pool =
        "balance = { method = \"maglev\", key = { cookie = \"sid\" }, max_load_percent = 1000 }";
    assert_keys_stay_on_their_endpoints(pool, &|n| format!("cookie: a=b; sid=s{n}\r\n"));
}

#[test]
fn header_affinity_beside_round_robin_is_stable() {
    let pool = "balance = \"round_robin\"\naffinity = { header = \"x-session\" }";
    assert_keys_stay_on_their_endpoints(pool, &|n| format!("x-session: session-{n}\r\n"));
}

#[test]
fn source_affinity_honours_only_trusted_forwarded_for() {
    let fixture = AffinityFixture::new(4);
    let config = fixture.config("affinity = { source = true }");
    let plain = Gapless::start_ready(&config);
    let forged = |n: usize| format!("x-forwarded-for: 192.0.2.{n}\r\n");
    let owners_plain = key_owners(&plain, &forged);
    assert!(owners_plain.iter().all(|name| *name == owners_plain[0]), "{owners_plain:?}");
    let trusting = Gapless::start_ready(&config.keys("trusted_proxies = [\"127.0.0.0/8\"]"));
    let endpoints: std::collections::HashSet<String> =
        key_owners(&trusting, &forged).into_iter().collect();
    assert_eq!(endpoints.len(), 4);
    assert_eq!(key_owners(&trusting, &forged), key_owners(&trusting, &forged));
}

#[test]
fn request_without_key_is_spread_over_all_endpoints() {
    let fixture = AffinityFixture::new(4);
    let pool = "balance = { method = \"maglev\", key = { header = \"x-user\" } }";
    let gapless = Gapless::start_ready(&fixture.config(pool));
    let endpoints: std::collections::HashSet<String> =
        (0..60).map(|_| get_with_fields(&gapless, "x-user:\r\n").text()).collect();
    assert_eq!(endpoints.len(), 4);
}

#[test]
fn round_robin_spreads_requests_evenly() {
    let fixture = AffinityFixture::new(3);
    let gapless = Gapless::start_ready(&fixture.config("balance = \"round_robin\""));
    let mut counts: HashMap<String, usize> = HashMap::new();
    for _ in 0..30 {
        *counts.entry(get_with_fields(&gapless, "").text()).or_default() += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|&count| count == 10), "{counts:?}");
    assert_eq!(gapless.pool()["balance"], "round_robin");
}
