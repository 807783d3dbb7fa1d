//! Probes, verdicts and what an operator sees of them.

use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually, until};

/// Probes often enough for a test that waits for verdicts.
const QUICK: &str = "detect = { interval = \"200ms\", timeout = \"150ms\", fast_interval = \"50ms\", \
                     down_interval = \"200ms\" }";

/// Probes so seldom that only traffic can tell within a test.
const SELDOM: &str = "detect = { interval = \"10m\" }";

fn one(config: Config) -> (Endpoint, Gapless) {
    let endpoint = Endpoint::start("one");
    let gapless = Gapless::start_ready(&config.zone("here/a", &[endpoint.address()]));
    (endpoint, gapless)
}

#[track_caller]
fn wait_for(gapless: &Gapless, endpoint: &Endpoint, state: &str) {
    eventually(state, SOON, || gapless.state(endpoint.address()) == state);
}

#[test]
fn a_tcp_probe_asks_for_a_connection_only() {
    let quick = format!("probe = {{ tcp = true }}\n{QUICK}");
    let (endpoint, gapless) = one(Config::new().pool(&quick));
    endpoint.set_all(Mode::Status(500));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(gapless.state(endpoint.address()), "up", "a bad status is none of its business");
    assert_eq!(endpoint.probes().len(), 0);
    endpoint.die();
    wait_for(&gapless, &endpoint, "down");
    assert_eq!(gapless.endpoint(endpoint.address())["reason"], "connect refused");
    endpoint.listen();
    wait_for(&gapless, &endpoint, "up");
}

#[test]
fn an_http_probe_asks_as_it_is_told() {
    let probe = "probe = { http = \"/status?deep=1\", method = \"OPTIONS\", host = \"web.internal\", \
                 headers = { x-probe = \"p\", user-agent = \"gapless-probe\" } }";
    let (endpoint, _gapless) = one(Config::new().pool(probe));
    let head = endpoint.probes().swap_remove(0).head;
    assert_eq!(head.start, "OPTIONS /status?deep=1 HTTP/1.1");
    assert_eq!(head.all("host").collect::<Vec<_>>(), ["web.internal"]);
    assert_eq!(head.field("x-probe"), Some("p"));
    assert_eq!(head.all("user-agent").count(), 1);
    assert_eq!(endpoint.seen().len(), 0);
}

#[test]
fn a_probe_says_who_it_is_and_whom_it_asks() {
    let (endpoint, _gapless) = one(Config::new());
    let head = endpoint.probes().swap_remove(0).head;
    assert_eq!(head.start, "GET /healthz HTTP/1.1");
    assert_eq!(head.field("host"), Some(&*endpoint.address().to_string()));
    assert_eq!(head.field("user-agent"), Some("gapless-probe"));
}

#[test]
fn a_probe_can_ask_at_another_port() {
    let (endpoint, health) = (Endpoint::start("one"), Endpoint::start("health"));
    let port = health.address().port();
    let probe = format!("probe = {{ http = \"/healthz\", port = {port} }}\n{QUICK}");
    let config = Config::new().pool(&probe).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    assert_eq!(gapless.get("/").text(), "one");
    assert!(!health.probes().is_empty() && endpoint.probes().is_empty());
    health.set_probe(Mode::Status(503));
    wait_for(&gapless, &endpoint, "down");
}

#[test]
fn the_body_of_an_answer_is_looked_at() {
    let probe =
        format!("probe = {{ http = \"/healthz\", expect_body = \"all is well\" }}\n{QUICK}");
    let endpoint = Endpoint::start("one");
    endpoint.set_probe(Mode::Body("so far all is well here".to_owned()));
    let config = Config::new().pool(&probe).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    endpoint.set_probe(Mode::Body("all is lost".to_owned()));
    wait_for(&gapless, &endpoint, "down");
    assert_eq!(gapless.endpoint(endpoint.address())["reason"], "http wrong body");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                   4\r\nall \r\n7\r\nis well\r\n0\r\n\r\n";
    endpoint.set_probe(Mode::RawClose(chunked.into()));
    wait_for(&gapless, &endpoint, "up");
}

#[test]
fn statuses_are_taken_as_declared() {
    let probe =
        format!("probe = {{ http = \"/healthz\", expect_status = \"204,300-399\" }}\n{QUICK}");
    let endpoint = Endpoint::start("one");
    endpoint.set_probe(Mode::Status(204));
    let config = Config::new().pool(&probe).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    endpoint.set_probe(Mode::Status(200));
    wait_for(&gapless, &endpoint, "down");
    assert_eq!(gapless.endpoint(endpoint.address())["reason"], "http status 200");
    endpoint.set_probe(Mode::Status(302));
    wait_for(&gapless, &endpoint, "up");
}

#[test]
fn every_way_to_fail_a_probe_has_its_reason() {
    let (endpoint, gapless) = one(Config::new().pool(QUICK));
    for (mode, reason) in [
        (Mode::Hang, "http timeout"),
        (Mode::Close, "http closed"),
        (Mode::Reset, "http reset"),
        (Mode::malformed(), "http malformed"),
        (Mode::Status(503), "http status 503"),
    ] {
        endpoint.set_probe(mode);
        wait_for(&gapless, &endpoint, "down");
        let status = gapless.endpoint(endpoint.address());
        assert_eq!(status["reason"], reason);
        let probes = status["probes"].as_array().expect("a list");
        assert!(probes.iter().any(|probe| probe["result"] == reason), "{status:#}");
        endpoint.set_probe(Mode::Ok);
        wait_for(&gapless, &endpoint, "up");
    }
}

#[test]
fn a_verdict_moves_traffic_and_a_return_brings_it_back() {
    let (near, far) = (Endpoint::start("near"), Endpoint::start("far"));
    let config = Config::new()
        .pool(QUICK)
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    let gapless = Gapless::start_ready(&config);
    assert_eq!(gapless.get("/").text(), "near");
    near.set_probe(Mode::Status(500));
    wait_for(&gapless, &near, "down");
    assert_eq!(gapless.get("/").text(), "far");
    let status = gapless.endpoint(near.address());
    assert_eq!(status["in_service"], false);
    assert_eq!(gapless.pool()["serving"], 1);
    assert_eq!(gapless.pool()["tiers"][0]["zones"][0], "here/far");
    assert_eq!(gapless.ask("/readyz").status, 200);
    near.set_probe(Mode::Ok);
    wait_for(&gapless, &near, "up");
    eventually("a request for what returned", SOON, || gapless.get("/").text() == "near");
    let incident = gapless.incidents("endpoints").swap_remove(0);
    assert_eq!(incident["class"], "bad_status");
    assert_eq!(incident["endpoint"], near.address().to_string());
    assert!(incident["timeline"]["restored"].is_string(), "{incident:#}");
}

#[test]
fn one_strike_makes_a_suspect_that_still_serves() {
    let detect = "detect = { interval = \"200ms\", timeout = \"150ms\", down_after = 1000 }";
    let (endpoint, gapless) = one(Config::new().pool(detect));
    endpoint.set_probe(Mode::Status(500));
    wait_for(&gapless, &endpoint, "suspect");
    assert_eq!(gapless.get("/").status, 200);
    assert_eq!(gapless.endpoint(endpoint.address())["reason"], "http status 500");
    endpoint.set_probe(Mode::Ok);
    wait_for(&gapless, &endpoint, "up");
    assert_eq!(gapless.incidents("endpoints").len(), 0, "a suspicion is no incident");
}

#[test]
fn when_all_are_down_all_are_tried() {
    let endpoints = [Endpoint::start("a"), Endpoint::start("b")];
    let addresses = endpoints.each_ref().map(Endpoint::address);
    let gapless = Gapless::start_ready(&Config::new().pool(QUICK).zone("here/a", &addresses));
    assert_eq!(gapless.pool()["panic"], false);
    endpoints.iter().for_each(|endpoint| endpoint.set_probe(Mode::Status(500)));
    eventually("panic", SOON, || gapless.pool()["panic"] == true);
    assert_eq!(gapless.pool()["serving"], 0);
    assert_eq!(gapless.ask("/readyz").status, 200, "there is somewhere to send a request");
    for _ in 0..20 {
        assert_eq!(gapless.get("/").status, 200, "what answers well is not refused");
    }
    assert!(endpoints.iter().all(|endpoint| !endpoint.seen().is_empty()), "spread over all");
    eventually("the log says so", SOON, || gapless.log().contains("panic"));
    endpoints[0].set_probe(Mode::Ok);
    eventually("no panic", SOON, || gapless.pool()["panic"] == false);
    assert_eq!(gapless.get("/").text(), "a");
}

#[test]
fn nothing_known_is_not_panic() {
    let endpoint = Endpoint::start("one");
    endpoint.set_probe(Mode::Hang);
    let slow = "detect = { interval = \"30s\", timeout = \"30s\", down_interval = \"30s\" }";
    let config = Config::new().pool(slow).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start(&config);
    eventually("it is being probed", SOON, || !endpoint.probes().is_empty());
    assert_eq!(gapless.state(endpoint.address()), "unknown");
    assert_eq!(gapless.pool()["panic"], false);
}

/// The dying endpoint's FIN on a pooled connection is a reason to look at once.
#[test]
fn an_idle_connection_that_closes_gives_a_death_away() {
    let (endpoint, gapless) = one(Config::new().pool(SELDOM));
    assert_eq!(gapless.get("/").status, 200);
    let before = Instant::now();
    endpoint.die();
    wait_for(&gapless, &endpoint, "down");
    assert!(before.elapsed() < Duration::from_secs(8), "the next probe was minutes away");
    assert_eq!(gapless.endpoint(endpoint.address())["reason"], "connect refused");
}

/// Closing what is idle is an endpoint's right.
#[test]
fn an_idle_connection_that_closes_is_no_evidence_by_itself() {
    let (endpoint, gapless) = one(Config::new().pool(SELDOM));
    endpoint.set(Mode::CloseAfter);
    let probed = endpoint.probes().len();
    for _ in 0..5 {
        assert_eq!(gapless.get("/").status, 200);
        std::thread::sleep(Duration::from_millis(150));
    }
    eventually("it is looked at", SOON, || endpoint.probes().len() > probed);
    assert_eq!(gapless.state(endpoint.address()), "up");
    assert_eq!(gapless.incidents("endpoints").len(), 0);
}

#[test]
fn a_failing_request_gives_a_death_away_between_probes() {
    let (endpoint, gapless) = one(Config::new().pool(SELDOM));
    endpoint.die();
    assert_eq!(gapless.get("/").status, 502);
    wait_for(&gapless, &endpoint, "down");
    let incident = gapless.incidents("endpoints").swap_remove(0);
    assert_eq!(incident["class"], "refused");
    assert_eq!(incident["requests"]["failed"], 1);
}

#[test]
fn silence_is_told_from_refusal() {
    let detect = "detect = { interval = \"5s\", timeout = \"300ms\" }";
    let (near, far) = (Endpoint::start("near"), Endpoint::start("far"));
    // In panic a request may be tried at the silent one, where only this bound ends it.
    let config = Config::new()
        .route("timeouts = { response = \"3s\" }")
        .pool(detect)
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    let gapless = Gapless::start_ready(&config);
    near.set_all(Mode::Hang);
    assert_eq!(gapless.get("/").text(), "far", "a stalled request is rescued");
    let silent = until("an incident", SOON, || gapless.incidents("endpoints").pop());
    assert_eq!(silent["class"], "silent");
    assert_eq!(silent["requests"]["rescued"], 1);
    assert_eq!(silent["requests"]["failed"], 0);
    assert_eq!(silent["gap_ms"], 0.0, "no client saw it");
    far.die();
    let mut client = Client::open(gapless.address);
    let _ = client.exchange("GET", "/", &[], b"");
    let refused = until("another incident", SOON, || {
        gapless.incidents("endpoints").into_iter().find(|incident| incident["class"] == "refused")
    });
    assert_eq!(refused["endpoint"], far.address().to_string());
}

#[test]
fn probes_are_steady_and_counted() {
    let (endpoint, gapless) = one(Config::new().pool(QUICK));
    let before = endpoint.probes().len();
    std::thread::sleep(Duration::from_secs(2));
    let probes = endpoint.probes().len() - before;
    assert!((4..=14).contains(&probes), "{probes} probes in 2 s at an interval of 200 ms");
    assert!(gapless.metric("gapless_probes_total{pool=\"web\",outcome=\"pass\"}") >= 5.0);
}

/// An answer that breaks the rules may be the request's own doing.
#[test]
fn malformed_answers_of_the_only_endpoint_make_no_verdict() {
    let (endpoint, gapless) = one(Config::new());
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
                0\r\n\r\n";
    endpoint.set(Mode::RawClose(both.into()));
    for _ in 0..4 {
        assert_eq!(gapless.get("/").verdict(), (502, Some("bad_response")));
        assert_ne!(gapless.state(endpoint.address()), "down");
    }
    assert_eq!(gapless.state(endpoint.address()), "suspect", "but it is doubted");
    assert_eq!(gapless.incidents("endpoints").len(), 0);
    endpoint.set(Mode::Ok);
    assert_eq!(gapless.get("/").status, 200);
}
