//! Circuit breakers: an endpoint at a limit is skipped, waited for or refused, without evidence.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::support::client::{TestClient, TestResponse};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// Holds requests at an endpoint and releases them one by one.
#[derive(Clone, Default)]
struct ResponsePermits(Arc<(Mutex<usize>, Condvar)>);

impl ResponsePermits {
    /// Lets `count` more requests pass.
    fn release(&self, count: usize) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += count;
        self.0.1.notify_all();
    }

    fn acquire(&self) {
        let free = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.0.1.wait_timeout_while(free, DEFAULT_TIMEOUT, |free| *free == 0);
        let (mut free, _) = passed.unwrap_or_else(PoisonError::into_inner);
        *free = free.saturating_sub(1);
    }

    /// Answers with the request's `x-id` once it is released.
    fn permitted_mode(&self) -> ResponseMode {
        let permits = self.clone();
        ResponseMode::script(move |head, wire| {
            permits.acquire();
            let id = head.field("x-id").unwrap_or("none");
            let length = id.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{id}");
            wire.send(answer).map(|()| ConnectionAction::Keep)
        })
    }
}

struct BreakerFixture {
    near: TestEndpoint,
    far: TestEndpoint,
    permits: ResponsePermits,
    gapless: Gapless,
}

impl BreakerFixture {
    /// Two zones; requests to the near one are held.
    fn new(limits: &str) -> Self {
        Self::with_config(limits, ConfigBuilder::new(), true)
    }

    /// One endpoint, where requests are held.
    fn with_one_endpoint(limits: &str) -> Self {
        Self::with_config(limits, ConfigBuilder::new(), false)
    }

    fn with_config(limits: &str, config: ConfigBuilder, has_far_zone: bool) -> Self {
        let (near, far) = (TestEndpoint::start("near"), TestEndpoint::start("far"));
        let permits = ResponsePermits::default();
        near.set_mode(permits.permitted_mode());
        let mut config = config.pool(limits).pool("detect = { down_after = 1000 }");
        config = config.zone("here/near", &[near.address()]);
        if has_far_zone {
            config = config.zone("here/far", &[far.address()]);
        }
        let gapless = Gapless::start_ready(&config);
        Self { near, far, permits, gapless }
    }

    fn send(&self, id: &str) -> TestClient {
        let mut client = TestClient::open(self.gapless.address);
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx-id: {id}\r\n\r\n");
        client.send(head).expect("sent");
        client
    }

    /// Sends a request and waits until the near endpoint holds it.
    fn send_held(&self, id: &str) -> TestClient {
        let client = self.send(id);
        eventually("it is held", DEFAULT_TIMEOUT, || self.near.count_with_id(id) == 1);
        client
    }

    /// Sends a request that waits for a connection.
    fn send_queued(&self, id: &str, in_flight: u64) -> TestClient {
        let client = self.send(id);
        eventually("it waits", DEFAULT_TIMEOUT, || {
            self.endpoint_status()["in_flight"] == in_flight
        });
        client
    }

    fn endpoint_status(&self) -> serde_json::Value {
        self.gapless.endpoint(self.near.address())
    }

    #[track_caller]
    fn rejections(&self, scope: &str, limit: &str) -> f64 {
        let labels = format!("pool=\"web\",scope=\"{scope}\",limit=\"{limit}\"");
        self.gapless.metric(&format!("gapless_breaker_rejections_total{{{labels}}}"))
    }

    /// Asserts that the endpoint has no evidence against it.
    #[track_caller]
    fn assert_endpoint_has_no_failures(&self) {
        let status = self.endpoint_status();
        assert_eq!((&status["state"], &status["traffic"]["errors"]), (&"up".into(), &0.into()));
        assert_eq!(status["traffic"]["failed"], 0);
    }
}

#[track_caller]
fn response_text(mut client: TestClient) -> String {
    let answer: TestResponse = client.read_response("GET").expect("an answer");
    assert_eq!(answer.status, 200, "{:?}", answer.status_and_reason());
    answer.text()
}

#[test]
fn endpoint_at_request_limit_is_skipped_then_503() {
    let fixture = BreakerFixture::new("limits = { endpoint = { requests = 1 } }");
    let held = fixture.send_held("one");
    let second = fixture.gapless.get("/");
    assert_eq!((second.status, second.text()), (200, "far".to_owned()));
    assert_eq!(second.field("x-gapless-attempts"), Some("1"), "it was nowhere before");
    fixture.far.set_mode(fixture.permits.permitted_mode());
    let other = fixture.send("two");
    eventually("both are held", DEFAULT_TIMEOUT, || fixture.far.count_with_id("two") == 1);
    assert_eq!(fixture.gapless.get("/").status_and_reason(), (503, Some("endpoint_limit")));
    assert!(fixture.rejections("endpoint", "requests") >= 3.0);
    assert_eq!(fixture.gapless.metric("gapless_resends_total{pool=\"web\"}"), 0.0);
    fixture.permits.release(2);
    assert_eq!((response_text(held), response_text(other)), ("one".to_owned(), "two".to_owned()));
    fixture.near.set_mode(ResponseMode::Ok);
    eventually("there is room again", DEFAULT_TIMEOUT, || {
        fixture.gapless.get("/").text() == "near"
    });
    fixture.assert_endpoint_has_no_failures();
}

#[test]
fn pool_at_request_limit_rejects_immediately() {
    let fixture = BreakerFixture::new("limits = { pool = { requests = 1 } }");
    let held = fixture.send_held("one");
    assert_eq!(fixture.gapless.get("/").status_and_reason(), (503, Some("pool_limit")));
    assert_eq!(fixture.rejections("pool", "requests"), 1.0);
    fixture.permits.release(1);
    assert_eq!(response_text(held), "one");
    fixture.near.set_mode(ResponseMode::Ok);
    eventually("there is room again", DEFAULT_TIMEOUT, || fixture.gapless.get("/").status == 200);
    fixture.assert_endpoint_has_no_failures();
}

/// A body that is still being forwarded is a request in flight.
#[test]
fn streamed_response_is_in_flight_until_it_ends() {
    let fixture = BreakerFixture::new("limits = { pool = { requests = 1 } }");
    let permits = fixture.permits.clone();
    fixture.near.set_mode(ResponseMode::script(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100001\r\n\r\n1")?;
        permits.acquire();
        wire.send("x".repeat(100_000)).map(|()| ConnectionAction::Keep)
    }));
    let mut streamed = fixture.send_held("one");
    assert!(streamed.wire.read_head().expect("a head").is_some());
    assert_eq!(fixture.gapless.get("/").status_and_reason(), (503, Some("pool_limit")));
    drop(streamed);
    fixture.near.set_mode(ResponseMode::Ok);
    eventually("there is room again", DEFAULT_TIMEOUT, || fixture.gapless.get("/").status == 200);
    fixture.permits.release(1);
}

#[test]
fn request_without_free_connection_is_queued_in_order() {
    let fixture = BreakerFixture::with_one_endpoint(
        "limits = { endpoint = { connections = 1, pending = 2 } }",
    );
    let held = fixture.send_held("one");
    let (second, third) = (fixture.send_queued("two", 2), fixture.send_queued("three", 3));
    assert_eq!(fixture.gapless.get("/").status_and_reason(), (503, Some("pending_limit")));
    assert_eq!(fixture.rejections("endpoint", "pending"), 1.0);
    assert_eq!(fixture.near.requests().len(), 1);
    fixture.permits.release(1);
    assert_eq!(response_text(held), "one");
    eventually("the next one has its turn", DEFAULT_TIMEOUT, || {
        fixture.near.count_with_id("two") == 1
    });
    assert_eq!(fixture.near.count_with_id("three"), 0);
    fixture.permits.release(2);
    assert_eq!(
        (response_text(second), response_text(third)),
        ("two".to_owned(), "three".to_owned())
    );
    assert_eq!(fixture.near.used_connection_count(), 1);
    fixture.assert_endpoint_has_no_failures();
}

#[test]
fn closed_connection_frees_its_slot_for_a_queued_request() {
    let fixture = BreakerFixture::with_one_endpoint("limits = { endpoint = { connections = 1 } }");
    let permits = fixture.permits.clone();
    fixture.near.set_mode(ResponseMode::script(move |_, wire| {
        permits.acquire();
        wire.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx")
            .map(|()| ConnectionAction::Close)
    }));
    let held = fixture.send_held("one");
    let waiting = fixture.send_queued("two", 2);
    fixture.permits.release(2);
    assert_eq!((response_text(held), response_text(waiting)), ("x".to_owned(), "x".to_owned()));
    assert_eq!(fixture.near.used_connection_count(), 2);
}

#[test]
fn pending_limit_or_connect_timeout_ends_the_wait_with_503() {
    let fixture = BreakerFixture::with_one_endpoint(
        "limits = { endpoint = { connections = 1, pending = 0 } }",
    );
    let _held = fixture.send_held("one");
    assert_eq!(fixture.gapless.get("/").status_and_reason(), (503, Some("pending_limit")));
    fixture.permits.release(1);
    let config = ConfigBuilder::new().route("timeouts = { connect = \"200ms\" }");
    let fixture =
        BreakerFixture::with_config("limits = { endpoint = { connections = 1 } }", config, false);
    let held = fixture.send_held("one");
    let started = Instant::now();
    assert_eq!(fixture.gapless.get("/").status_and_reason(), (503, Some("endpoint_limit")));
    assert!(started.elapsed() >= Duration::from_millis(200));
    fixture.permits.release(1);
    assert_eq!(response_text(held), "one");
    fixture.assert_endpoint_has_no_failures();
}

#[test]
fn request_uses_another_endpoint_instead_of_queueing() {
    let fixture = BreakerFixture::new("limits = { endpoint = { connections = 1 } }");
    let held = fixture.send_held("one");
    assert_eq!(fixture.gapless.get("/").text(), "far");
    assert_eq!(fixture.rejections("endpoint", "connections"), 1.0);
    fixture.permits.release(1);
    assert_eq!(response_text(held), "one");
}

/// A suspect's connection may use the last free place.
#[test]
fn idle_connection_to_suspect_is_used_at_pool_limit() {
    let fixture = BreakerFixture::new("limits = { pool = { connections = 1 } }");
    fixture.near.set_mode(ResponseMode::Ok);
    assert_eq!(fixture.gapless.get("/").text(), "near");
    fixture.near.set_probe_mode(ResponseMode::Status(503));
    eventually("the near one is suspect", DEFAULT_TIMEOUT, || {
        fixture.endpoint_status()["state"] == "suspect"
    });
    assert_eq!(fixture.gapless.get("/").text(), "near");
    assert_eq!(fixture.rejections("pool", "connections"), 1.0);
}

/// An idle connection of one worker is closed for a request that waits at another.
#[test]
fn workers_share_the_connection_limit() {
    let config = ConfigBuilder::default()
        .keys("workers = 2")
        .tables("[headers]\nexpose = true")
        .route("timeouts = { connect = \"5s\" }");
    let fixture =
        BreakerFixture::with_config("limits = { endpoint = { connections = 1 } }", config, false);
    fixture.near.set_mode(ResponseMode::Ok);
    for _ in 0..12 {
        assert_eq!(fixture.gapless.get("/").status_and_reason(), (200, None));
    }
}

#[test]
fn retry_over_the_limit_is_not_made() {
    for (scope, limits) in [
        ("pool", "limits = { pool = { retries = 0 } }"),
        ("endpoint", "limits = { endpoint = { retries = 0 } }"),
    ] {
        let fixture = BreakerFixture::new(limits);
        fixture.near.set_mode(ResponseMode::Status(503));
        let answer = fixture.gapless.get("/");
        assert_eq!((answer.status, answer.text()), (503, "near".to_owned()), "it is passed on");
        assert_eq!(fixture.rejections(scope, "retries"), 1.0);
        let fixture = BreakerFixture::new(limits);
        fixture.near.set_mode(ResponseMode::Reset);
        assert_eq!(fixture.gapless.get("/").status_and_reason(), (502, Some("reset")));
        assert_eq!(fixture.far.requests().len(), 0);
    }
}

#[test]
fn retry_limit_counts_retries_in_flight() {
    let fixture = BreakerFixture::new("limits = { pool = { retries = 1 } }");
    fixture.near.set_mode(ResponseMode::Status(503));
    fixture.far.set_mode(fixture.permits.permitted_mode());
    let held = fixture.send("one");
    eventually("it is held elsewhere", DEFAULT_TIMEOUT, || fixture.far.count_with_id("one") == 1);
    assert_eq!(fixture.gapless.get("/").status, 503);
    fixture.permits.release(1);
    assert_eq!(response_text(held), "one");
    fixture.far.set_mode(ResponseMode::Ok);
    eventually("there is room again", DEFAULT_TIMEOUT, || fixture.gapless.get("/").status == 200);
}
