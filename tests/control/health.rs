//! Probes, verdicts and their presentation to operators.

use std::time::{Duration, Instant};

use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually, poll_until};

/// Probe intervals for tests that wait for verdicts.
const FAST_DETECTION: &str = "detect = { interval = \"200ms\", timeout = \"150ms\", fast_interval = \"50ms\", \
                     down_interval = \"200ms\" }";

/// Probe intervals so long that only traffic gives evidence within a test.
const RARE_PROBES: &str = "detect = { interval = \"10m\" }";

fn start_single_endpoint(config: ConfigBuilder) -> (TestEndpoint, Gapless) {
    let endpoint = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config.zone("here/a", &[endpoint.address()]));
    (endpoint, gapless)
}

#[track_caller]
fn wait_for_state(gapless: &Gapless, endpoint: &TestEndpoint, state: &str) {
    eventually(state, DEFAULT_TIMEOUT, || gapless.endpoint_state(endpoint.address()) == state);
}

#[test]
fn tcp_probe_needs_only_a_connection() {
    let fast_tcp_probe = format!("probe = {{ tcp = true }}\n{FAST_DETECTION}");
    let (endpoint, gapless) = start_single_endpoint(ConfigBuilder::new().pool(&fast_tcp_probe));
    endpoint.set_all_modes(ResponseMode::Status(500));
    let passes = || gapless.metric("gapless_probes_total{pool=\"web\",outcome=\"pass\"}");
    let passes_before = passes();
    eventually("three more probes pass", DEFAULT_TIMEOUT, || passes() >= passes_before + 3.0);
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up", "a TCP probe reads no status");
    assert_eq!(endpoint.probes().len(), 0);
    endpoint.kill();
    wait_for_state(&gapless, &endpoint, "down");
    assert_eq!(gapless.endpoint(endpoint.address())["reason"], "connect refused");
    endpoint.listen();
    wait_for_state(&gapless, &endpoint, "up");
}

#[test]
fn http_probe_uses_configured_method_host_and_headers() {
    let probe = "probe = { http = \"/status?deep=1\", method = \"OPTIONS\", host = \"web.internal\", \
                 headers = { x-probe = \"p\", user-agent = \"gapless-probe\" } }";
    let (endpoint, _gapless) = start_single_endpoint(ConfigBuilder::new().pool(probe));
    let head = endpoint.probes().swap_remove(0).head;
    assert_eq!(head.start_line, "OPTIONS /status?deep=1 HTTP/1.1");
    assert_eq!(head.field_values("host").collect::<Vec<_>>(), ["web.internal"]);
    assert_eq!(head.field("x-probe"), Some("p"));
    assert_eq!(head.field_values("user-agent").count(), 1);
    assert_eq!(endpoint.requests().len(), 0);
}

#[test]
fn default_http_probe_sends_host_and_user_agent() {
    let (endpoint, _gapless) = start_single_endpoint(ConfigBuilder::new());
    let head = endpoint.probes().swap_remove(0).head;
    assert_eq!(head.start_line, "GET /healthz HTTP/1.1");
    assert_eq!(head.field("host"), Some(&*endpoint.address().to_string()));
    assert_eq!(head.field("user-agent"), Some("gapless-probe"));
}

#[test]
fn probe_port_overrides_endpoint_port() {
    let (endpoint, health) = (TestEndpoint::start("one"), TestEndpoint::start("health"));
    let port = health.address().port();
    let probe = format!("probe = {{ http = \"/healthz\", port = {port} }}\n{FAST_DETECTION}");
    let config = ConfigBuilder::new().pool(&probe).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    assert_eq!(gapless.get("/").text(), "one");
    assert!(!health.probes().is_empty() && endpoint.probes().is_empty());
    health.set_probe_mode(ResponseMode::Status(503));
    wait_for_state(&gapless, &endpoint, "down");
}

#[test]
fn http_probe_checks_response_body() {
    let probe = format!(
        "probe = {{ http = \"/healthz\", expect_body = \"all is well\" }}\n{FAST_DETECTION}"
    );
    let endpoint = TestEndpoint::start("one");
    endpoint.set_probe_mode(ResponseMode::Body("so far all is well here".to_owned()));
    let config = ConfigBuilder::new().pool(&probe).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    endpoint.set_probe_mode(ResponseMode::Body("all is lost".to_owned()));
    wait_for_state(&gapless, &endpoint, "down");
    assert_eq!(gapless.endpoint(endpoint.address())["reason"], "http wrong body");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                   4\r\nall \r\n7\r\nis well\r\n0\r\n\r\n";
    endpoint.set_probe_mode(ResponseMode::RawClose(chunked.into()));
    wait_for_state(&gapless, &endpoint, "up");
}

#[test]
fn http_probe_accepts_only_expected_statuses() {
    let probe = format!(
        "probe = {{ http = \"/healthz\", expect_status = \"204,300-399\" }}\n{FAST_DETECTION}"
    );
    let endpoint = TestEndpoint::start("one");
    endpoint.set_probe_mode(ResponseMode::Status(204));
    let config = ConfigBuilder::new().pool(&probe).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    endpoint.set_probe_mode(ResponseMode::Status(200));
    wait_for_state(&gapless, &endpoint, "down");
    assert_eq!(gapless.endpoint(endpoint.address())["reason"], "http status 200");
    endpoint.set_probe_mode(ResponseMode::Status(302));
    wait_for_state(&gapless, &endpoint, "up");
}

#[test]
fn each_probe_failure_reports_its_reason() {
    let (endpoint, gapless) = start_single_endpoint(ConfigBuilder::new().pool(FAST_DETECTION));
    for (mode, reason) in [
        (ResponseMode::Hang, "http timeout"),
        (ResponseMode::Close, "http closed"),
        (ResponseMode::Reset, "http reset"),
        (ResponseMode::malformed(), "http malformed"),
        (ResponseMode::Status(503), "http status 503"),
    ] {
        endpoint.set_probe_mode(mode);
        wait_for_state(&gapless, &endpoint, "down");
        let status = gapless.endpoint(endpoint.address());
        assert_eq!(status["reason"], reason);
        let probes = status["probes"].as_array().expect("a list");
        assert!(probes.iter().any(|probe| probe["result"] == reason), "{status:#}");
        endpoint.set_probe_mode(ResponseMode::Ok);
        wait_for_state(&gapless, &endpoint, "up");
    }
}

#[test]
fn verdict_moves_traffic_and_recovery_returns_it() {
    let (near, far) = (TestEndpoint::start("near"), TestEndpoint::start("far"));
    let config = ConfigBuilder::new()
        .pool(FAST_DETECTION)
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    let gapless = Gapless::start_ready(&config);
    assert_eq!(gapless.get("/").text(), "near");
    near.set_probe_mode(ResponseMode::Status(500));
    wait_for_state(&gapless, &near, "down");
    assert_eq!(gapless.get("/").text(), "far");
    let status = gapless.endpoint(near.address());
    assert_eq!(status["in_service"], false);
    assert_eq!(gapless.pool()["serving"], 1);
    assert_eq!(gapless.pool()["tiers"][0]["zones"][0], "here/far");
    assert_eq!(gapless.admin_get("/readyz").status, 200);
    near.set_probe_mode(ResponseMode::Ok);
    wait_for_state(&gapless, &near, "up");
    eventually("a request for what returned", DEFAULT_TIMEOUT, || {
        gapless.get("/").text() == "near"
    });
    let incident = gapless.incidents("endpoints").swap_remove(0);
    assert_eq!(incident["class"], "bad_status");
    assert_eq!(incident["endpoint"], near.address().to_string());
    assert!(incident["timeline"]["restored"].is_string(), "{incident:#}");
}

#[test]
fn single_strike_makes_suspect_that_still_serves() {
    let detect = "detect = { interval = \"200ms\", timeout = \"150ms\", down_after = 1000 }";
    let (endpoint, gapless) = start_single_endpoint(ConfigBuilder::new().pool(detect));
    endpoint.set_probe_mode(ResponseMode::Status(500));
    wait_for_state(&gapless, &endpoint, "suspect");
    assert_eq!(gapless.get("/").status, 200);
    assert_eq!(gapless.endpoint(endpoint.address())["reason"], "http status 500");
    endpoint.set_probe_mode(ResponseMode::Ok);
    wait_for_state(&gapless, &endpoint, "up");
    assert_eq!(gapless.incidents("endpoints").len(), 0, "a suspicion is no incident");
}

#[test]
fn all_endpoints_down_enters_panic_and_spreads_requests() {
    let endpoints = [TestEndpoint::start("a"), TestEndpoint::start("b")];
    let addresses = endpoints.each_ref().map(TestEndpoint::address);
    let gapless =
        Gapless::start_ready(&ConfigBuilder::new().pool(FAST_DETECTION).zone("here/a", &addresses));
    assert_eq!(gapless.pool()["panic"], false);
    endpoints.iter().for_each(|endpoint| endpoint.set_probe_mode(ResponseMode::Status(500)));
    eventually("panic", DEFAULT_TIMEOUT, || gapless.pool()["panic"] == true);
    assert_eq!(gapless.pool()["serving"], 0);
    assert_eq!(gapless.admin_get("/readyz").status, 200, "there is somewhere to send a request");
    for _ in 0..20 {
        assert_eq!(gapless.get("/").status, 200, "what answers well is not refused");
    }
    assert!(endpoints.iter().all(|endpoint| !endpoint.requests().is_empty()), "spread over all");
    eventually("the log says so", DEFAULT_TIMEOUT, || gapless.log().contains("panic"));
    endpoints[0].set_probe_mode(ResponseMode::Ok);
    eventually("no panic", DEFAULT_TIMEOUT, || gapless.pool()["panic"] == false);
    assert_eq!(gapless.get("/").text(), "a");
}

#[test]
fn unknown_endpoint_state_is_not_panic() {
    let endpoint = TestEndpoint::start("one");
    endpoint.set_probe_mode(ResponseMode::Hang);
    let slow = "detect = { interval = \"30s\", timeout = \"30s\", down_interval = \"30s\" }";
    let config = ConfigBuilder::new().pool(slow).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start(&config);
    eventually("it is being probed", DEFAULT_TIMEOUT, || !endpoint.probes().is_empty());
    assert_eq!(gapless.endpoint_state(endpoint.address()), "unknown");
    assert_eq!(gapless.pool()["panic"], false);
}

/// A FIN on a pooled connection starts a burst of probes.
#[test]
fn closed_idle_connection_triggers_probe_of_dead_endpoint() {
    let (endpoint, gapless) = start_single_endpoint(ConfigBuilder::new().pool(RARE_PROBES));
    assert_eq!(gapless.get("/").status, 200);
    let started = Instant::now();
    endpoint.kill();
    wait_for_state(&gapless, &endpoint, "down");
    assert!(started.elapsed() < Duration::from_secs(8), "the next probe was minutes away");
    assert_eq!(gapless.endpoint(endpoint.address())["reason"], "connect refused");
}

/// The close of an idle connection is no failure.
#[test]
fn closed_idle_connection_alone_is_not_evidence() {
    let (endpoint, gapless) = start_single_endpoint(ConfigBuilder::new().pool(RARE_PROBES));
    endpoint.set_mode(ResponseMode::CloseAfter);
    let probe_count = endpoint.probes().len();
    for _ in 0..5 {
        assert_eq!(gapless.get("/").status, 200);
        std::thread::sleep(Duration::from_millis(150));
    }
    eventually("it is looked at", DEFAULT_TIMEOUT, || endpoint.probes().len() > probe_count);
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up");
    assert_eq!(gapless.incidents("endpoints").len(), 0);
}

#[test]
fn failed_request_reveals_dead_endpoint_between_probes() {
    let (endpoint, gapless) = start_single_endpoint(ConfigBuilder::new().pool(RARE_PROBES));
    endpoint.kill();
    assert_eq!(gapless.get("/").status, 502);
    wait_for_state(&gapless, &endpoint, "down");
    let incident = gapless.incidents("endpoints").swap_remove(0);
    assert_eq!(incident["class"], "refused");
    assert_eq!(incident["requests"]["failed"], 1);
}

#[test]
fn silent_and_refused_failures_have_distinct_classes() {
    let detect = "detect = { interval = \"5s\", timeout = \"300ms\" }";
    let (near, far) = (TestEndpoint::start("near"), TestEndpoint::start("far"));
    // In panic a request may be tried at the silent endpoint, where only this bound ends it.
    let config = ConfigBuilder::new()
        .route("timeouts = { response = \"3s\" }")
        .pool(detect)
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    let gapless = Gapless::start_ready(&config);
    near.set_all_modes(ResponseMode::Hang);
    assert_eq!(gapless.get("/").text(), "far", "a stalled request is rescued");
    let silent =
        poll_until("an incident", DEFAULT_TIMEOUT, || gapless.incidents("endpoints").pop());
    assert_eq!(silent["class"], "silent");
    assert_eq!(silent["requests"]["rescued"], 1);
    assert_eq!(silent["requests"]["failed"], 0);
    assert_eq!(silent["gap_ms"], 0.0, "no client saw it");
    far.kill();
    let mut client = TestClient::open(gapless.address);
    let _ = client.exchange("GET", "/", &[], b"");
    let refused = poll_until("another incident", DEFAULT_TIMEOUT, || {
        gapless.incidents("endpoints").into_iter().find(|incident| incident["class"] == "refused")
    });
    assert_eq!(refused["endpoint"], far.address().to_string());
}

#[test]
fn probes_keep_their_interval_and_are_counted() {
    let (endpoint, gapless) = start_single_endpoint(ConfigBuilder::new().pool(FAST_DETECTION));
    let before = endpoint.probes().len();
    std::thread::sleep(Duration::from_secs(2));
    let probes = endpoint.probes().len() - before;
    assert!((4..=14).contains(&probes), "{probes} probes in 2 s at an interval of 200 ms");
    assert!(gapless.metric("gapless_probes_total{pool=\"web\",outcome=\"pass\"}") >= 5.0);
}

/// A malformed response may be caused by the request.
#[test]
fn malformed_responses_of_only_endpoint_make_no_verdict() {
    let (endpoint, gapless) = start_single_endpoint(ConfigBuilder::new());
    let conflicting_framing = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
                0\r\n\r\n";
    endpoint.set_mode(ResponseMode::RawClose(conflicting_framing.into()));
    for _ in 0..4 {
        assert_eq!(gapless.get("/").status_and_reason(), (502, Some("bad_response")));
        assert_ne!(gapless.endpoint_state(endpoint.address()), "down");
    }
    assert_eq!(gapless.endpoint_state(endpoint.address()), "suspect", "but it is doubted");
    assert_eq!(gapless.incidents("endpoints").len(), 0);
    endpoint.set_mode(ResponseMode::Ok);
    assert_eq!(gapless.get("/").status, 200);
}
