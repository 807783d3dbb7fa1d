//! Evidence by traffic, and responses that are repeated elsewhere.

use std::time::{Duration, Instant};

use crate::support::client::{TestClient, TestResponse};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// Settings with which evidence never makes a verdict.
const NEVER_DOWN: &str = "detect = { down_after = 1000 }";

/// A preferred endpoint and a fallback.
struct EvidenceFixture {
    near: TestEndpoint,
    far: TestEndpoint,
    gapless: Gapless,
}

/// Counters of an endpoint: answered, errors, failed, rescued.
type TrafficCounts = (u64, u64, u64, u64);

impl EvidenceFixture {
    fn new() -> Self {
        Self::with_config(ConfigBuilder::new())
    }

    fn with_config(config: ConfigBuilder) -> Self {
        let (near, far) = (TestEndpoint::start("near"), TestEndpoint::start("far"));
        let config = config
            .pool(NEVER_DOWN)
            .zone("here/near", &[near.address()])
            .zone("here/far", &[far.address()]);
        let gapless = Gapless::start_ready(&config);
        Self { near, far, gapless }
    }

    #[track_caller]
    fn send_request(&self, method: &str, body: &[u8]) -> TestResponse {
        let mut client = TestClient::open(self.gapless.address);
        client.exchange(method, "/", &[], body).expect("an answer")
    }

    #[track_caller]
    fn traffic_counts(&self, endpoint: &TestEndpoint) -> TrafficCounts {
        let status = self.gapless.endpoint(endpoint.address());
        let count = |key: &str| status["traffic"][key].as_u64().expect("a number");
        (count("answered"), count("errors"), count("failed"), count("rescued"))
    }

    /// The end of a response may be counted a moment after the client has it.
    #[track_caller]
    fn wait_for_counts(&self, endpoint: &TestEndpoint, expected: TrafficCounts) {
        let mut last = TrafficCounts::default();
        let start = Instant::now();
        while start.elapsed() < DEFAULT_TIMEOUT {
            last = self.traffic_counts(endpoint);
            if last == expected {
                return;
            }
            std::thread::yield_now();
        }
        assert_eq!(last, expected, "answered, errors, failed, rescued");
    }

    fn request_counts(&self) -> (usize, usize) {
        (self.near.requests().len(), self.far.requests().len())
    }
}

#[test]
fn server_error_of_repeatable_request_is_retried() {
    for status in [500, 502, 503, 504] {
        let fixture = EvidenceFixture::new();
        fixture.near.set_mode(ResponseMode::Status(status));
        let put = fixture.send_request("PUT", b"whole");
        assert_eq!((put.status, put.text()), (200, "far".to_owned()), "{status}");
        assert_eq!(fixture.far.requests()[0].body, b"whole");
        fixture.wait_for_counts(&fixture.near, (0, 1, 0, 1));
        fixture.wait_for_counts(&fixture.far, (1, 0, 0, 0));
    }
}

#[test]
fn server_error_of_post_is_passed_through() {
    let fixture = EvidenceFixture::new();
    fixture.near.set_mode(ResponseMode::Status(503));
    let post = fixture.send_request("POST", b"pay 5");
    assert_eq!((post.status, post.text()), (503, "near".to_owned()));
    assert_eq!(fixture.request_counts(), (1, 0));
    fixture.wait_for_counts(&fixture.near, (0, 1, 1, 0));
}

/// One failed request makes a doubt: the endpoint receives only requests that can be sent again.
#[test]
fn post_avoids_suspect_endpoint() {
    let fixture = EvidenceFixture::new();
    fixture.near.set_mode(ResponseMode::Status(503));
    assert_eq!(fixture.send_request("GET", b"").text(), "far");
    eventually("it is doubted", DEFAULT_TIMEOUT, || {
        fixture.gapless.endpoint_state(fixture.near.address()) == "suspect"
    });
    for _ in 0..10 {
        let post = fixture.send_request("POST", b"pay 5");
        assert_eq!((post.status, post.text()), (200, "far".to_owned()));
    }
    assert_eq!(fixture.near.requests().len(), 1);
}

/// Probes pass all the time: requests alone make and end the verdict.
#[test]
fn endpoint_down_by_traffic_recovers_through_trials() {
    let fixture = EvidenceFixture::new();
    let state = || fixture.gapless.endpoint_state(fixture.near.address());
    let get_until = |until: &dyn Fn() -> bool, what: &str| {
        eventually(what, DEFAULT_TIMEOUT, || {
            assert_eq!(fixture.send_request("GET", b"").status, 200);
            until()
        });
    };
    fixture.near.set_mode(ResponseMode::Status(503));
    get_until(&|| state() == "down", "a verdict");
    let before = fixture.near.requests().len();
    get_until(&|| fixture.near.requests().len() > before + 1, "trials that fail");
    assert_eq!(state(), "down");
    fixture.near.set_mode(ResponseMode::Ok);
    get_until(&|| state() == "up", "trials that go well bring it back");
    assert_eq!(fixture.traffic_counts(&fixture.near).2, 0, "no client saw a failure");
}

#[test]
fn connection_of_retried_response_is_reused() {
    let fixture = EvidenceFixture::new();
    fixture.near.set_mode(ResponseMode::script(|head, wire| {
        let status = if head.field("x-id").is_some() { "503 Busy" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 10\r\n\r\nsome words");
        wire.send(answer).map(|()| ConnectionAction::Keep)
    }));
    let mut client = TestClient::open(fixture.gapless.address);
    let retried_response = client.exchange("GET", "/", &[("x-id", "bad")], b"").expect("an answer");
    assert_eq!(retried_response.text(), "far");
    assert_eq!(client.get("/").text(), "some words");
    assert_eq!(fixture.near.used_connection_count(), 1);
}

#[test]
fn last_response_is_passed_through_when_all_fail() {
    let fixture = EvidenceFixture::new();
    fixture.near.set_mode(ResponseMode::Status(500));
    fixture.far.set_mode(ResponseMode::Status(503));
    let answer = fixture.send_request("GET", b"");
    assert_eq!((answer.status, answer.text()), (503, "far".to_owned()));
    assert_eq!(answer.field("x-gapless-reason"), None, "it is no answer of the proxy's own");
    assert_eq!(answer.field("x-gapless-attempts"), Some("2"));
    // A failure at both endpoints is evidence against neither.
    fixture.wait_for_counts(&fixture.near, (0, 0, 0, 0));
    fixture.wait_for_counts(&fixture.far, (0, 0, 1, 0));
    assert_eq!(fixture.gapless.metric("gapless_unattributed_failures_total{pool=\"web\"}"), 2.0);
}

#[test]
fn retry_statuses_are_configurable() {
    for (statuses, sent_status, is_retried) in
        [("none", 503, false), ("", 500, false), ("507", 503, false), ("507", 507, true)]
    {
        let fixture = EvidenceFixture::with_config(
            ConfigBuilder::new().route(&format!("retry = {{ statuses = \"{statuses}\" }}")),
        );
        fixture.near.set_mode(ResponseMode::Status(sent_status));
        let status = fixture.send_request("GET", b"").status;
        assert_eq!(status == 200, is_retried, "{sent_status} with \"{statuses}\"");
        fixture.wait_for_counts(&fixture.near, (0, 1, 0, u64::from(is_retried)));
    }
}

#[test]
fn statuses_caused_by_request_are_not_evidence() {
    let fixture = EvidenceFixture::new();
    for status in [501, 505] {
        fixture.near.set_mode(ResponseMode::Status(status));
        assert_eq!(fixture.send_request("GET", b"").status, status);
    }
    fixture.near.set_mode(ResponseMode::Status(404));
    assert_eq!(fixture.send_request("GET", b"").status, 404);
    fixture.wait_for_counts(&fixture.near, (1, 0, 0, 0));
    assert_eq!(fixture.request_counts(), (3, 0));
}

#[test]
fn truncated_small_response_is_counted_and_retried() {
    let fixture = EvidenceFixture::new();
    fixture.near.set_mode(ResponseMode::truncated());
    assert_eq!(fixture.send_request("GET", b"").text(), "far");
    fixture.wait_for_counts(&fixture.near, (0, 1, 0, 1));
    fixture.wait_for_counts(&fixture.far, (1, 0, 0, 0));
}

#[test]
fn streamed_response_counts_when_complete_or_cut() {
    let fixture = EvidenceFixture::new();
    let whole = "x".repeat(200_000);
    fixture.near.set_mode(ResponseMode::Body(whole.clone()));
    assert_eq!(fixture.send_request("GET", b"").text(), whole);
    fixture.wait_for_counts(&fixture.near, (1, 0, 0, 0));
    let chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nword\r\n";
    fixture.near.set_mode(ResponseMode::Raw(format!("{chunk}0\r\n\r\n").into_bytes()));
    assert_eq!(fixture.send_request("GET", b"").text(), "word");
    fixture.wait_for_counts(&fixture.near, (2, 0, 0, 0));
    for cut in [chunk.to_owned(), format!("{chunk}zz\r\n")] {
        let fixture = EvidenceFixture::new();
        fixture.near.set_mode(ResponseMode::RawClose(cut.into_bytes()));
        let mut client = TestClient::open(fixture.gapless.address);
        let answer = client.exchange("GET", "/", &[], b"");
        assert!(answer.is_err(), "{answer:?}");
        fixture.wait_for_counts(&fixture.near, (0, 1, 1, 0));
    }
}

#[test]
fn wait_beyond_stall_bound_counts_one_error() {
    for (hedge, responder, rescued) in [(false, "near", 0), (true, "far", 1)] {
        let config = ConfigBuilder::new()
            .route(&format!("retry = {{ hedge = {hedge} }}"))
            .pool("stall = { floor = \"20ms\", ceiling = \"60ms\" }");
        let fixture = EvidenceFixture::with_config(config);
        fixture.near.set_mode(ResponseMode::Slow(Duration::from_millis(400)));
        let answer = fixture.send_request("GET", b"");
        assert_eq!((answer.status, answer.text()), (200, responder.to_owned()));
        fixture.wait_for_counts(&fixture.near, (0, 1, 0, rescued));
    }
}

#[test]
fn client_abort_is_not_evidence() {
    let fixture = EvidenceFixture::new();
    let wait_for_in_flight = |expected: u64| {
        eventually("requests in flight", DEFAULT_TIMEOUT, || {
            fixture.gapless.endpoint(fixture.near.address())["in_flight"] == expected
        });
    };
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    // Before a response, and in the middle of one.
    let parts = ["", "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nfirst"];
    for part in parts {
        fixture.near.set_mode(ResponseMode::script(move |_, wire| {
            wire.send(part)?;
            wire.read_to_end().map(|_| ConnectionAction::Close)
        }));
        let mut client = TestClient::open(fixture.gapless.address);
        client.send(request).expect("sent");
        wait_for_in_flight(1);
        if !part.is_empty() {
            assert!(client.wire.read_head().expect("a head").is_some());
        }
        drop(client);
        wait_for_in_flight(0);
    }
    // In the middle of the request body.
    let mut client = TestClient::open(fixture.gapless.address);
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf!").expect("sent");
    wait_for_in_flight(1);
    drop(client);
    wait_for_in_flight(0);
    fixture.wait_for_counts(&fixture.near, (0, 0, 0, 0));
    assert_eq!(fixture.gapless.endpoint_state(fixture.near.address()), "up");
}

#[test]
fn lost_connection_counts_once() {
    for mode in [ResponseMode::Reset, ResponseMode::Close, ResponseMode::malformed()] {
        let fixture = EvidenceFixture::new();
        fixture.near.set_mode(mode);
        assert_eq!(fixture.send_request("GET", b"").text(), "far");
        fixture.wait_for_counts(&fixture.near, (0, 1, 0, 1));
    }
}
