//! By a key: the same leads to the same endpoint, and to the next one while that fails.

use std::collections::HashMap;

use super::{World, ask};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually, until};

const KEYS: usize = 60;

/// Where each key goes.
fn owners(gapless: &Gapless, field: &dyn Fn(usize) -> String) -> Vec<String> {
    (0..KEYS).map(|n| ask(gapless, &field(n)).text()).collect()
}

/// Keys find their endpoints by `field`, under any of these lines of the pool; an endpoint that fails
/// loses its keys alone, and gets them back.
fn keys_stay(pool: &str, field: &dyn Fn(usize) -> String) {
    let world = World::new(5);
    let config = world.config(pool);
    let gapless = Gapless::start_ready(&config);
    let before = owners(&gapless, field);
    assert_eq!(owners(&gapless, field), before, "{pool}");
    let mut counts: HashMap<&str, usize> = HashMap::new();
    before.iter().for_each(|name| *counts.entry(name).or_default() += 1);
    assert_eq!(counts.len(), 5, "everybody has some: {counts:?}");
    let victim = world.named("e2");
    victim.die();
    eventually("down", SOON, || gapless.state(victim.address()) == "down");
    let during = owners(&gapless, field);
    for (before, during) in before.iter().zip(&during) {
        assert!(before == during || before == "e2", "{pool}: {before} → {during}");
        assert_ne!(during, "e2");
    }
    victim.listen();
    eventually("up again", SOON, || gapless.state(victim.address()) == "up");
    until("its keys are back", SOON, || (owners(&gapless, field) == before).then_some(()));
    drop(gapless);
    // What a key is hashed to is the same in every process.
    assert_eq!(owners(&Gapless::start_ready(&config), field), before, "{pool}");
}

#[test]
fn by_a_header_on_a_ring() {
    let pool = "balance = { method = \"ring_hash\", key = { header = \"x-user\" } }";
    keys_stay(pool, &|n| format!("x-user: user-{n}\r\n"));
}

#[test]
fn by_a_cookie_in_a_table_of_maglev_with_a_bound() {
    let pool =
        "balance = { method = \"maglev\", key = { cookie = \"sid\" }, max_load_percent = 1000 }";
    keys_stay(pool, &|n| format!("cookie: a=b; sid=s{n}\r\n"));
}

#[test]
fn by_affinity_to_a_header_beside_another_method() {
    let pool = "balance = \"round_robin\"\naffinity = { header = \"x-session\" }";
    keys_stay(pool, &|n| format!("x-session: session-{n}\r\n"));
}

#[test]
fn by_the_clients_address_as_far_as_it_is_believed() {
    let world = World::new(4);
    let config = world.config("affinity = { source = true }");
    let plain = Gapless::start_ready(&config);
    let forged = |n: usize| format!("x-forwarded-for: 192.0.2.{n}\r\n");
    let owners_plain = owners(&plain, &forged);
    assert!(owners_plain.iter().all(|name| *name == owners_plain[0]), "{owners_plain:?}");
    let trusting = Gapless::start_ready(&config.keys("trusted_proxies = [\"127.0.0.0/8\"]"));
    let several: std::collections::HashSet<String> =
        owners(&trusting, &forged).into_iter().collect();
    assert_eq!(several.len(), 4);
    assert_eq!(owners(&trusting, &forged), owners(&trusting, &forged));
}

#[test]
fn who_has_no_key_goes_as_if_there_were_none() {
    let world = World::new(4);
    let pool = "balance = { method = \"maglev\", key = { header = \"x-user\" } }";
    let gapless = Gapless::start_ready(&world.config(pool));
    let all: std::collections::HashSet<String> =
        (0..60).map(|_| ask(&gapless, "x-user:\r\n").text()).collect();
    assert_eq!(all.len(), 4);
}

#[test]
fn in_turn_everybody_has_the_same() {
    let world = World::new(3);
    let gapless = Gapless::start_ready(&world.config("balance = \"round_robin\""));
    let mut counts: HashMap<String, usize> = HashMap::new();
    for _ in 0..30 {
        *counts.entry(ask(&gapless, "").text()).or_default() += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|&count| count == 10), "{counts:?}");
    assert_eq!(gapless.pool()["balance"], "round_robin");
}
