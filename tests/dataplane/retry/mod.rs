//! Resends: retryable requests are rescued, and possibly executed ones are never sent again.

mod hedging;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::client::{TestClient, TestResponse};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// A preferred zone and a fallback.
struct RetryFixture {
    near: Vec<TestEndpoint>,
    far: Vec<TestEndpoint>,
    gapless: Gapless,
}

impl RetryFixture {
    /// One endpoint in each zone, with settings that make no verdict.
    fn new() -> Self {
        Self::with_config(1, 1, ConfigBuilder::new().pool("detect = { down_after = 1000 }"))
    }

    fn with_config(near: usize, far: usize, config: ConfigBuilder) -> Self {
        let start = |zone: &str, count: usize| -> Vec<TestEndpoint> {
            (0..count).map(|index| TestEndpoint::start(&format!("{zone}{index}"))).collect()
        };
        let (near, far) = (start("near", near), start("far", far));
        let addresses =
            |all: &[TestEndpoint]| all.iter().map(TestEndpoint::address).collect::<Vec<_>>();
        let config = config.zone("here/near", &addresses(&near)).zone("here/far", &addresses(&far));
        let gapless = Gapless::start_ready(&config);
        Self { near, far, gapless }
    }

    fn set_near(&self, mode: &ResponseMode) {
        self.near.iter().for_each(|endpoint| endpoint.set_mode(mode.clone()));
    }

    /// Sends one request with a unique id and returns the id.
    #[track_caller]
    fn request(&self, method: &str, body: &[u8]) -> (TestResponse, String) {
        self.request_with_fields(method, &[], body)
    }

    #[track_caller]
    fn request_with_fields(
        &self,
        method: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> (TestResponse, String) {
        static NEXT_ID: AtomicUsize = AtomicUsize::new(0);
        let id = format!("r{}", NEXT_ID.fetch_add(1, SeqCst));
        let mut client = TestClient::open(self.gapless.address);
        let fields = [&[("x-id", &*id)], fields].concat();
        let answer = client.exchange(method, "/", &fields, body).expect("an answer");
        (answer, id)
    }

    /// The number of times that the zones received the request.
    fn attempt_counts(&self, id: &str) -> (usize, usize) {
        let sum =
            |all: &[TestEndpoint]| all.iter().map(|endpoint| endpoint.count_with_id(id)).sum();
        (sum(&self.near), sum(&self.far))
    }
}

/// Failures after a request was read and before the client received a byte.
fn endpoint_failures() -> Vec<(&'static str, ResponseMode)> {
    vec![
        ("reset", ResponseMode::Reset),
        ("closed", ResponseMode::Close),
        ("cut in its body", ResponseMode::truncated()),
        ("cut after its head", ResponseMode::close_after_head()),
        ("cut in its head", ResponseMode::RawClose(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec())),
        ("malformed", ResponseMode::malformed()),
    ]
}

/// Each case has its own fixture: one failure makes a doubt.
#[test]
fn retryable_request_is_rescued_in_the_other_zone() {
    for (name, mode) in endpoint_failures() {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            // The response to a HEAD ends with its head.
            if method == "HEAD" && ["cut in its body", "cut after its head"].contains(&name) {
                continue;
            }
            let fixture = RetryFixture::new();
            fixture.set_near(&mode);
            let body: &[u8] = if method == "PUT" { b"whole" } else { b"" };
            let (answer, id) = fixture.request(method, body);
            assert_eq!(answer.status, 200, "{method} {name}");
            assert_eq!(answer.field("x-endpoint"), Some("far0"), "{method} {name}");
            assert_eq!(answer.field("x-gapless-attempts"), Some("2"), "{method} {name}");
            assert_eq!(fixture.attempt_counts(&id), (1, 1), "{method} {name}");
            assert_eq!(fixture.far[0].requests()[0].body, body, "{method} {name}");
            assert_eq!(fixture.gapless.metric("gapless_rescued_total{pool=\"web\"}"), 1.0);
        }
    }
}

#[test]
fn non_idempotent_request_is_never_retried() {
    for (name, mode) in endpoint_failures() {
        for (method, body) in [("POST", &b"pay 5"[..]), ("POST", b""), ("PATCH", b"+5")] {
            let fixture = RetryFixture::new();
            fixture.set_near(&mode);
            let mut client = TestClient::open(fixture.gapless.address);
            let answer = client.exchange(method, "/", &[("x-id", "one")], body);
            if let Ok(answer) = answer {
                assert_eq!(answer.status, 502, "{method} {name}");
            }
            assert_eq!(fixture.attempt_counts("one"), (1, 0), "{method} {name}");
        }
    }
}

#[test]
fn unsent_request_is_retried_whatever_its_method() {
    let fixture = RetryFixture::new();
    fixture.near[0].kill();
    for method in ["POST", "PATCH", "GET", "PUT"] {
        let (answer, id) = fixture.request(method, b"body");
        assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()), "{method}");
        assert_eq!(fixture.attempt_counts(&id), (0, 1), "{method}");
    }
    let seen = fixture.far[0].requests();
    assert!(seen.iter().all(|seen| seen.body == b"body"));
}

/// Without a first pass there is no pooled connection that could be found closed: each POST
/// meets either a healthy endpoint or one that refuses.
#[test]
fn posts_during_endpoint_failure_run_at_most_once() {
    let fixture = RetryFixture::new();
    let ids: Vec<String> = (0..200).map(|index| format!("p{index}")).collect();
    let mut client = TestClient::open(fixture.gapless.address);
    let mut failed = 0;
    for (index, id) in ids.iter().enumerate() {
        if index == 50 {
            fixture.near[0].kill();
        }
        let answer = client.exchange("POST", "/", &[("x-id", id)], b"x").expect("an answer");
        failed += u32::from(answer.status != 200);
        let (near, far) = fixture.attempt_counts(id);
        assert!(near + far <= 1, "{id} was executed {near} + {far} times");
    }
    assert!(failed <= 1, "{failed} POSTs failed; only the one on the cut connection may");
}

#[test]
fn hanging_get_is_aborted_by_the_verdict_and_rescued() {
    let config = ConfigBuilder::new()
        .route("retry = { hedge = false }")
        .pool("detect = { interval = \"1s\", timeout = \"300ms\" }");
    let fixture = RetryFixture::with_config(1, 1, config);
    fixture.near[0].set_all_modes(ResponseMode::Hang);
    let started = Instant::now();
    let (answer, id) = fixture.request("GET", b"");
    assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()));
    assert_eq!(fixture.attempt_counts(&id), (1, 1));
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}: the response timeout is 30 s");
    assert_eq!(fixture.gapless.endpoint_state(fixture.near[0].address()), "down");
}

#[test]
fn hanging_post_fails_with_the_verdict_and_runs_once() {
    let config = ConfigBuilder::new().pool("detect = { interval = \"1s\", timeout = \"300ms\" }");
    let fixture = RetryFixture::with_config(1, 1, config);
    fixture.near[0].set_all_modes(ResponseMode::Hang);
    let (answer, id) = fixture.request("POST", b"pay 5");
    assert_eq!(answer.status_and_reason(), (502, Some("endpoint_down")));
    assert_eq!(fixture.attempt_counts(&id), (1, 0));
    let (next, _) = fixture.request("POST", b"pay 6");
    assert_eq!((next.status, next.text()), (200, "far0".to_owned()));
}

#[test]
fn body_over_the_retry_buffer_is_not_retried() {
    let fixture = RetryFixture::with_config(
        1,
        1,
        ConfigBuilder::new().route("retry = { buffer = \"4KiB\" }"),
    );
    fixture.set_near(&ResponseMode::Reset);
    let (fits, id) = fixture.request("PUT", &[b'x'; 4096]);
    assert_eq!((fits.status, fixture.attempt_counts(&id)), (200, (1, 1)));
    assert_eq!(fixture.far[0].requests()[0].body.len(), 4096);
    let fixture = RetryFixture::with_config(
        1,
        1,
        ConfigBuilder::new().route("retry = { buffer = \"4KiB\" }"),
    );
    fixture.set_near(&ResponseMode::Reset);
    let (too_large, id) = fixture.request("PUT", &[b'x'; 20_000]);
    assert_eq!(too_large.status_and_reason(), (502, Some("reset")));
    assert_eq!(fixture.attempt_counts(&id), (1, 0));
}

/// No byte of the body was read from the client yet, so none can be missing.
#[test]
fn unsent_large_body_is_retried() {
    let fixture = RetryFixture::with_config(
        1,
        1,
        ConfigBuilder::new().route("retry = { buffer = \"4KiB\" }"),
    );
    fixture.near[0].kill();
    let body: Vec<u8> = (0..1_000_000u32).map(|at| at as u8).collect();
    let (answer, id) = fixture.request("POST", &body);
    assert_eq!((answer.status, fixture.attempt_counts(&id)), (200, (0, 1)));
    assert!(fixture.far[0].requests()[0].body == body);
}

#[test]
fn body_still_arriving_is_retried_complete() {
    let fixture = RetryFixture::new();
    fixture.near[0].set_mode(ResponseMode::script(|_, wire| {
        wire.read_chunk().map(|_| ConnectionAction::Reset)
    }));
    let mut client = TestClient::open(fixture.gapless.address);
    let head = "PUT / HTTP/1.1\r\nhost: a\r\nx-id: slow\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nfirst\r\n")).expect("sent");
    eventually("the first try fails", DEFAULT_TIMEOUT, || {
        fixture.gapless.metric("gapless_resends_total{pool=\"web\"}") >= 1.0
    });
    client.send("6\r\nsecond\r\n0\r\n\r\n").expect("sent");
    let answer = client.read_response("PUT").expect("an answer");
    assert_eq!((answer.status, fixture.attempt_counts("slow")), (200, (1, 1)));
    assert_eq!(fixture.far[0].requests()[0].body, b"firstsecond");
}

#[test]
fn attempts_are_limited() {
    let config = ConfigBuilder::new().route("retry = { attempts = 3 }");
    let fixture = RetryFixture::with_config(3, 3, config);
    for endpoint in fixture.near.iter().chain(&fixture.far) {
        endpoint.set_mode(ResponseMode::Reset);
    }
    let (answer, id) = fixture.request("GET", b"");
    assert_eq!(answer.status_and_reason(), (502, Some("reset")));
    let (near, far) = fixture.attempt_counts(&id);
    assert_eq!(near + far, 3);
    let single_attempt =
        RetryFixture::with_config(1, 1, ConfigBuilder::new().route("retry = { attempts = 1 }"));
    single_attempt.set_near(&ResponseMode::Reset);
    let (answer, id) = single_attempt.request("GET", b"");
    assert_eq!((answer.status, single_attempt.attempt_counts(&id)), (502, (1, 0)));
}

#[test]
fn second_attempt_leaves_the_zone() {
    for _ in 0..8 {
        let fixture = RetryFixture::with_config(4, 1, ConfigBuilder::new());
        fixture.set_near(&ResponseMode::Reset);
        let (answer, id) = fixture.request("GET", b"");
        assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()));
        assert_eq!(fixture.attempt_counts(&id), (1, 1), "no neighbour of the failed one was tried");
    }
}

#[test]
fn retries_are_limited_by_the_budget() {
    let config = ConfigBuilder::new().route("retry = { budget_percent = 0, budget_floor = 1 }");
    let fixture = RetryFixture::with_config(1, 1, config);
    let request_count = 50;
    // All requests fail before there can be a verdict.
    let barrier = Arc::new(Barrier::new(request_count));
    fixture.near[0].set_mode(ResponseMode::script(move |_, _| {
        barrier.wait();
        Ok(ConnectionAction::Reset)
    }));
    let send = |_| {
        let mut client = TestClient::open(fixture.gapless.address);
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
        client
    };
    let clients: Vec<TestClient> = (0..request_count).map(send).collect();
    let statuses = clients
        .into_iter()
        .map(|mut client| client.read_response("GET").expect("an answer").status);
    let rescued = statuses.filter(|&status| status == 200).count();
    let resends = fixture.gapless.metric("gapless_resends_total{pool=\"web\"}");
    assert!(rescued > 0, "the floor is there from the start");
    assert!(resends < 35.0, "{resends} of {request_count} were sent again");
    assert_eq!(resends, rescued as f64);
}

#[test]
fn started_response_is_never_restarted() {
    let fixture = RetryFixture::new();
    let part = "x".repeat(100_000);
    let wire = format!("HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n{part}");
    fixture.set_near(&ResponseMode::RawClose(wire.into_bytes()));
    let mut client = TestClient::open(fixture.gapless.address);
    let result = client.exchange("GET", "/", &[("x-id", "large")], b"");
    assert!(result.is_err(), "{result:?}");
    assert_eq!(fixture.attempt_counts("large"), (1, 0));
}

/// A graceful restart: no new request is accepted, and running ones finish.
#[test]
fn endpoint_that_stopped_listening_finishes_requests() {
    let detect = "detect = { interval = \"200ms\", timeout = \"150ms\" }";
    let fixture = RetryFixture::with_config(1, 1, ConfigBuilder::new().pool(detect));
    let near = &fixture.near[0];
    let (finish, finished) = mpsc::channel::<()>();
    let finished = Mutex::new(finished);
    near.set_mode(ResponseMode::script(move |head, wire| {
        wire.read_body(head)?;
        if head.start_line_word(0) != "POST" {
            return wire.read_to_end().map(|_| ConnectionAction::Close);
        }
        let _ = finished.lock().expect("one POST at a time").recv_timeout(DEFAULT_TIMEOUT);
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npaid")
            .map(|()| ConnectionAction::Close)
    }));
    let head = "host: a\r\nx-id: one\r\ncontent-length: 1\r\n\r\nx";
    let mut post = TestClient::open(fixture.gapless.address);
    post.send(format!("POST / HTTP/1.1\r\n{head}")).expect("sent");
    let mut get = TestClient::open(fixture.gapless.address);
    get.send("GET / HTTP/1.1\r\nhost: a\r\nx-id: two\r\n\r\n").expect("sent");
    eventually("both are under way", DEFAULT_TIMEOUT, || near.requests().len() == 2);
    near.refuse_connections();
    eventually("the verdict", DEFAULT_TIMEOUT, || {
        fixture.gapless.endpoint_state(near.address()) == "down"
    });
    let elsewhere = get.read_response("GET").expect("an answer");
    assert_eq!((elsewhere.status, elsewhere.text()), (200, "far0".to_owned()));
    finish.send(()).expect("the endpoint waits");
    let answer = post.read_response("POST").expect("an answer");
    assert_eq!(
        (answer.status, answer.text()),
        (200, "paid".to_owned()),
        "{:?}",
        answer.status_and_reason()
    );
    assert_eq!((fixture.attempt_counts("one"), fixture.attempt_counts("two")), ((1, 0), (1, 1)));
}
