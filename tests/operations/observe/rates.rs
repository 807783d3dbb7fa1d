//! Who asks for too much is told so, and nobody else is.

use std::time::Duration;

use super::logged;
use crate::support::SOON;
use crate::support::client::{Answer, Client};
use crate::support::config::Config;
use crate::support::eventually;

/// Far more than a test takes: what it has used up does not come back.
const RARE: &str = "rate = { requests = 5, per = \"1h\" }";

fn from(client: &mut Client, address: &str) -> Answer {
    let fields = [("x-forwarded-for", address)];
    client.exchange("GET", "/", &fields, b"").expect("answered")
}

#[test]
fn a_client_has_its_burst_and_then_429_with_the_time_to_wait() {
    let config = Config::new().route(&format!("name = \"api\"\nlimits = {{ {RARE} }}"));
    let (endpoint, gapless, log) = logged(config, "");
    let metric = "gapless_rate_limited_total{route=\"api\"}";
    assert_eq!(gapless.metric(metric), 0.0, "it is there from the start");
    let mut client = Client::open(gapless.address);
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
    }
    let refused = client.exchange("POST", "/refused", &[], b"body").expect("answered");
    assert_eq!(refused.verdict(), (429, Some("rate_limited")));
    let wait: u64 = refused.field("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=720).contains(&wait), "{wait}");
    assert_eq!(client.get("/").status, 429, "on the same connection, and others");
    assert_eq!(gapless.get("/").status, 429);
    assert_eq!(endpoint.seen().len(), 5);
    assert_eq!(gapless.metric(metric), 3.0);
    let own = "gapless_own_responses_total{pool=\"web\",reason=\"rate_limited\"}";
    assert_eq!(gapless.metric(own), 3.0);
    let line = log.line_of("/refused");
    assert_eq!((&line["reason"], &line["route"]), (&"rate_limited".into(), &"api".into()));
}

#[test]
fn each_client_behind_a_trusted_proxy_has_its_own_and_nobody_can_borrow() {
    let keys = "trusted_proxies = [\"127.0.0.1\"]";
    let config = Config::new().keys(keys).route(&format!("limits = {{ {RARE} }}"));
    let (_endpoint, gapless, _log) = logged(config, "");
    let mut client = Client::open(gapless.address);
    for address in ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1"] {
        for _ in 0..5 {
            assert_eq!(from(&mut client, address).status, 200);
        }
        assert_eq!(from(&mut client, address).status, 429);
        // What the client itself has put before its address is no address.
        assert_eq!(from(&mut client, &format!("192.0.2.99, {address}")).status, 429);
    }
    assert_eq!(from(&mut client, "2001:db8:0:1:ffff::2").status, 429, "one subscriber");
    assert_eq!(from(&mut client, "2001:db8:0:2::1").status, 200);
}

#[test]
fn who_is_not_trusted_cannot_spread_over_made_up_addresses() {
    let config = Config::new().route(&format!("limits = {{ {RARE} }}"));
    let (_endpoint, gapless, _log) = logged(config, "");
    let mut client = Client::open(gapless.address);
    let passed = (0..20).filter(|n| from(&mut client, &format!("192.0.2.{n}")).status == 200);
    assert_eq!(passed.count(), 5);
}

#[test]
fn a_route_as_a_whole_over_all_workers_and_a_reload() {
    let rate = "limits = { rate = { requests = 10, per = \"1h\", by = \"route\" } }";
    let keys = "trusted_proxies = [\"127.0.0.1\"]";
    let config = Config::default().keys("workers = 2").keys(keys).route(rate);
    let (_endpoint, gapless, _log) = logged(config, "");
    let ask = |count: u32| {
        let one = |n| from(&mut Client::open(gapless.address), &format!("192.0.2.{n}")).status;
        (0..count).map(one).filter(|&status| status == 200).count()
    };
    assert_eq!(ask(6), 6);
    let text = std::fs::read_to_string(gapless.file()).expect("the file");
    let before = gapless.generation();
    gapless.write(&format!("{text}\n# the same again\n"));
    eventually("a reload", SOON, || gapless.generation() > before);
    assert_eq!(ask(20), 4, "whoever reloads does not fill the bucket");
}

#[test]
fn what_was_used_up_comes_back() {
    let rate = "limits = { rate = { requests = 1, per = \"3s\", burst = 2 } }";
    let (_endpoint, gapless, _log) = logged(Config::new().route(rate), "");
    let mut client = Client::open(gapless.address);
    eventually("the burst is used up", SOON, || client.get("/").status == 429);
    eventually("a request passes again", SOON, || {
        std::thread::sleep(Duration::from_millis(10));
        client.get("/").status == 200
    });
}
