//! Rate limits refuse only the clients that exceed them.

use super::start_with_access_log;
use crate::support::DEFAULT_TIMEOUT;
use crate::support::client::{TestClient, TestResponse};
use crate::support::config::ConfigBuilder;
use crate::support::eventually;

/// Far longer than a test: a used token does not return.
const HOURLY_RATE: &str = "rate = { requests = 5, per = \"1h\" }";

fn get_from(client: &mut TestClient, address: &str) -> TestResponse {
    let fields = [("x-forwarded-for", address)];
    client.exchange("GET", "/", &fields, b"").expect("answered")
}

#[test]
fn client_over_burst_gets_429_with_retry_after() {
    let config =
        ConfigBuilder::new().route(&format!("name = \"api\"\nlimits = {{ {HOURLY_RATE} }}"));
    let (endpoint, gapless, log) = start_with_access_log(config, "");
    let metric = "gapless_rate_limited_total{route=\"api\"}";
    assert_eq!(gapless.metric(metric), 0.0, "it is there from the start");
    let mut client = TestClient::open(gapless.address);
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
    }
    let refused = client.exchange("POST", "/refused", &[], b"body").expect("answered");
    assert_eq!(refused.status_and_reason(), (429, Some("rate_limited")));
    let retry_after_s: u64 =
        refused.field("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=720).contains(&retry_after_s), "{retry_after_s}");
    assert_eq!(client.get("/").status, 429, "on the same connection, and others");
    assert_eq!(gapless.get("/").status, 429);
    assert_eq!(endpoint.requests().len(), 5);
    assert_eq!(gapless.metric(metric), 3.0);
    let local_reply_metric = "gapless_own_responses_total{pool=\"web\",reason=\"rate_limited\"}";
    assert_eq!(gapless.metric(local_reply_metric), 3.0);
    let line = log.wait_for_line("/refused");
    assert_eq!((&line["reason"], &line["route"]), (&"rate_limited".into(), &"api".into()));
}

#[test]
fn clients_behind_trusted_proxy_have_separate_limits() {
    let keys = "trusted_proxies = [\"127.0.0.1\"]";
    let config = ConfigBuilder::new().keys(keys).route(&format!("limits = {{ {HOURLY_RATE} }}"));
    let (_endpoint, gapless, _log) = start_with_access_log(config, "");
    let mut client = TestClient::open(gapless.address);
    for address in ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1"] {
        for _ in 0..5 {
            assert_eq!(get_from(&mut client, address).status, 200);
        }
        assert_eq!(get_from(&mut client, address).status, 429);
        // Text that the client put before its address is no address.
        assert_eq!(get_from(&mut client, &format!("192.0.2.99, {address}")).status, 429);
    }
    assert_eq!(get_from(&mut client, "2001:db8:0:1:ffff::2").status, 429, "one subscriber");
    assert_eq!(get_from(&mut client, "2001:db8:0:2::1").status, 200);
}

#[test]
fn untrusted_client_cannot_evade_limit_by_forged_address() {
    let config = ConfigBuilder::new().route(&format!("limits = {{ {HOURLY_RATE} }}"));
    let (_endpoint, gapless, _log) = start_with_access_log(config, "");
    let mut client = TestClient::open(gapless.address);
    let passed = (0..20).filter(|n| get_from(&mut client, &format!("192.0.2.{n}")).status == 200);
    assert_eq!(passed.count(), 5);
}

#[test]
fn route_limit_spans_workers_and_survives_reload() {
    let rate = "limits = { rate = { requests = 10, per = \"1h\", by = \"route\" } }";
    let keys = "trusted_proxies = [\"127.0.0.1\"]";
    let config = ConfigBuilder::default().keys("workers = 2").keys(keys).route(rate);
    let (_endpoint, gapless, _log) = start_with_access_log(config, "");
    let count_passed = |count: u32| {
        let one =
            |n| get_from(&mut TestClient::open(gapless.address), &format!("192.0.2.{n}")).status;
        (0..count).map(one).filter(|&status| status == 200).count()
    };
    assert_eq!(count_passed(6), 6);
    let text = std::fs::read_to_string(gapless.config_file()).expect("the file");
    let before = gapless.generation();
    gapless.write_config(&format!("{text}\n# the same again\n"));
    eventually("a reload", DEFAULT_TIMEOUT, || gapless.generation() > before);
    assert_eq!(count_passed(20), 4, "a reload does not refill the bucket");
}

#[test]
fn used_up_tokens_are_refilled() {
    let rate = "limits = { rate = { requests = 1, per = \"3s\", burst = 2 } }";
    let (_endpoint, gapless, _log) = start_with_access_log(ConfigBuilder::new().route(rate), "");
    let mut client = TestClient::open(gapless.address);
    eventually("the burst is used up", DEFAULT_TIMEOUT, || client.get("/").status == 429);
    eventually("a request passes again", DEFAULT_TIMEOUT, || client.get("/").status == 200);
}
