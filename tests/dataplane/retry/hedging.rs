//! Hedging and connection timeouts, with settings that make no verdict.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::RetryFixture;
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// A stall bound of 50 ms.
const EARLY_STALL: &str = "detect = { interval = \"30s\", timeout = \"200ms\", down_after = 1000 }\n\
                         stall = { floor = \"50ms\", ceiling = \"50ms\" }";

fn stall_fixture(near: usize, route: &str) -> RetryFixture {
    RetryFixture::with_config(near, 1, ConfigBuilder::new().route(route).pool(EARLY_STALL))
}

fn slow_mode() -> ResponseMode {
    ResponseMode::Slow(Duration::from_millis(300))
}

/// Each case has its own fixture: an endpoint with stalled requests gets no POST for a while.
#[test]
fn stalled_request_is_hedged_and_the_loser_cancelled() {
    for method in ["GET", "DELETE"] {
        let fixture = stall_fixture(1, "");
        fixture.set_near(&ResponseMode::Hang);
        let (answer, id) = fixture.request(method, b"");
        assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()), "{method}");
        assert_eq!(answer.field("x-gapless-attempts"), Some("2"));
        assert_eq!(fixture.attempt_counts(&id), (1, 1));
        eventually("the silent one is given up on", DEFAULT_TIMEOUT, || {
            fixture.near[0].reset_count() == 1
        });
        for counter in ["hedges", "rescued"] {
            let name = format!("gapless_{counter}_total{{pool=\"web\"}}");
            assert_eq!(fixture.gapless.metric(&name), 1.0, "{name}");
        }
    }
}

#[test]
fn first_good_response_wins_in_any_order() {
    for mode in [ResponseMode::Hang, ResponseMode::Status(503), ResponseMode::Reset] {
        let fixture = stall_fixture(1, "");
        fixture.set_near(&slow_mode());
        fixture.far[0].set_mode(mode);
        let (answer, id) = fixture.request("GET", b"");
        assert_eq!((answer.status, answer.text()), (200, "near0".to_owned()));
        assert_eq!(fixture.attempt_counts(&id), (1, 1));
    }
}

#[test]
fn error_response_does_not_win_over_the_hedge() {
    let fixture = stall_fixture(1, "");
    fixture.far[0].set_mode(ResponseMode::Slow(Duration::from_millis(600)));
    fixture.set_near(&ResponseMode::script(|_, wire| {
        std::thread::sleep(Duration::from_millis(200));
        wire.send(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")?;
        Ok(ConnectionAction::Keep)
    }));
    let (answer, id) = fixture.request("GET", b"");
    assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()));
    assert_eq!(fixture.attempt_counts(&id), (1, 1));
}

#[test]
fn non_idempotent_or_body_request_is_never_hedged() {
    for (method, body) in [("POST", b"".as_slice()), ("POST", b"body"), ("PUT", b"body")] {
        let fixture = stall_fixture(1, "");
        fixture.set_near(&slow_mode());
        let (answer, id) = fixture.request(method, body);
        assert_eq!((answer.status, answer.text()), (200, "near0".to_owned()));
        assert_eq!(fixture.attempt_counts(&id), (1, 0), "{method}");
    }
}

#[test]
fn hedging_can_be_disabled_by_the_route() {
    let fixture = stall_fixture(1, "retry = { hedge = false }");
    fixture.set_near(&slow_mode());
    let (answer, id) = fixture.request("GET", b"");
    assert_eq!((answer.status, answer.text()), (200, "near0".to_owned()));
    assert_eq!(fixture.attempt_counts(&id), (1, 0));
}

#[test]
fn hedges_use_the_retry_budget() {
    let fixture = stall_fixture(1, "retry = { budget_percent = 0, budget_floor = 0 }");
    fixture.set_near(&slow_mode());
    assert_eq!(fixture.request("GET", b"").0.text(), "near0");
    assert_eq!(fixture.gapless.metric("gapless_hedges_total{pool=\"web\"}"), 0.0);
}

#[test]
fn hedges_have_a_share_of_the_budget() {
    let retry = "retry = { budget_percent = 100, budget_floor = 0, hedge_percent = 0 }";
    let fixture = stall_fixture(1, retry);
    fixture.set_near(&slow_mode());
    assert_eq!(fixture.request("GET", b"").0.text(), "near0");
    assert_eq!(fixture.gapless.metric("gapless_hedges_total{pool=\"web\"}"), 0.0);
}

/// Without probe latencies, the stall bound would be the timeout of probes: 5 s.
#[test]
fn first_request_after_a_start_is_hedged_by_the_probes_latency() {
    let pool = "detect = { interval = \"30s\", timeout = \"5s\", down_interval = \"30s\", \
                down_after = 1000 }";
    let fixture = RetryFixture::with_config(1, 1, ConfigBuilder::new().pool(pool));
    fixture.set_near(&ResponseMode::Slow(Duration::from_secs(3)));
    let (answer, id) = fixture.request("GET", b"");
    assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()));
    assert_eq!(fixture.attempt_counts(&id), (1, 1));
}

#[test]
fn url_that_is_slow_everywhere_is_hedged_once() {
    let fixture = stall_fixture(1, "");
    fixture.set_near(&slow_mode());
    fixture.far[0].set_mode(slow_mode());
    for hedges in [1, 0, 0, 0] {
        let (answer, id) = fixture.request("GET", b"");
        assert_eq!((answer.status, answer.text()), (200, "near0".to_owned()));
        assert_eq!(fixture.attempt_counts(&id), (1, hedges));
    }
}

#[test]
fn slow_zone_does_not_raise_the_stall_bound() {
    let retry = "retry = { budget_floor = 100, hedge_percent = 100 }";
    let fixture = stall_fixture(1, retry);
    fixture.set_near(&slow_mode());
    for _ in 0..80 {
        let (answer, _) = fixture.request("GET", b"");
        assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()));
    }
    let hedges = fixture.gapless.metric("gapless_hedges_total{pool=\"web\"}");
    let to_near = fixture.near[0].requests().len() as f64;
    assert_eq!(hedges, to_near, "every request to the slow zone has a hedge");
}

/// A listener with a full backlog: the kernel drops every SYN, as a firewall does.
struct UnacceptingListener {
    address: SocketAddr,
    _sockets: Vec<Socket>,
}

impl UnacceptingListener {
    fn bind() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        listener.listen(0).expect("listening");
        let address = listener.local_addr().expect("bound").as_socket().expect("an IP address");
        let mut sockets = vec![listener];
        for _ in 0..4 {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            filler.set_nonblocking(true).expect("nonblocking");
            let _ = filler.connect(&address.into());
            sockets.push(filler);
        }
        Self { address, _sockets: sockets }
    }
}

#[test]
fn stalled_connect_moves_any_method_to_another_endpoint() {
    let (near, far) = (UnacceptingListener::bind(), TestEndpoint::start("far"));
    let pool = format!(
        "probe = {{ http = \"/healthz\", port = {} }}\n{EARLY_STALL}",
        far.address().port()
    );
    let config = ConfigBuilder::new()
        .route("timeouts = { connect = \"30s\" }")
        .pool(&pool)
        .zone("here/near", &[near.address])
        .zone("here/far", &[far.address()]);
    let gapless = Gapless::start_ready(&config);
    for method in ["GET", "POST"] {
        let mut client = TestClient::open(gapless.address);
        let answer = client.exchange(method, "/", &[], b"").expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, "far".to_owned()), "{method}");
    }
    assert_ne!(gapless.endpoint_state(near.address), "down", "slowness alone makes no verdict");
}

/// Long before the stall bound and the slow bound.
#[test]
fn post_avoids_an_endpoint_with_waiting_requests() {
    let late_stall = "detect = { interval = \"30s\", timeout = \"3s\", down_interval = \"30s\", down_after = 1000 }";
    let fixture = RetryFixture::with_config(2, 1, ConfigBuilder::new().pool(late_stall));
    fixture.near[0].set_mode(ResponseMode::Hang);
    let mut waiting = Vec::new();
    while fixture.near[0].requests().is_empty() {
        let mut client = TestClient::open(fixture.gapless.address);
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
        eventually("it is somewhere", DEFAULT_TIMEOUT, || {
            fixture.near.iter().map(|endpoint| endpoint.requests().len()).sum::<usize>()
                > waiting.len()
        });
        waiting.push(client);
    }
    // A third of the stall bound, which is the probes' timeout until latencies are known.
    std::thread::sleep(Duration::from_millis(1_100));
    for _ in 0..30 {
        let (answer, id) = fixture.request("POST", b"");
        assert_eq!((answer.status, answer.text()), (200, "near1".to_owned()));
        assert_eq!(fixture.attempt_counts(&id), (1, 0));
    }
    assert_eq!(fixture.near[0].requests().len(), 1);
}

#[test]
fn total_timeout_covers_all_attempts() {
    for method in ["GET", "POST"] {
        let fixture = stall_fixture(1, "timeouts = { total = \"300ms\" }");
        fixture.set_near(&ResponseMode::Hang);
        fixture.far[0].set_mode(ResponseMode::Hang);
        let (answer, _) = fixture.request(method, b"");
        assert_eq!(answer.status_and_reason(), (504, Some("total_timeout")), "{method}");
        eventually("it is withdrawn", DEFAULT_TIMEOUT, || fixture.near[0].reset_count() == 1);
    }
}

#[test]
fn total_timeout_prevents_fallback() {
    let spare = TestEndpoint::start("spare");
    let pool = format!(
        "[pool.spare]\n[[pool.spare.zone]]\nname = \"here/spare\"\nendpoints = [\"{}\"]",
        spare.address()
    );
    let route = "fallback = { pool = \"spare\" }\ntimeouts = { total = \"300ms\" }";
    for method in ["GET", "POST"] {
        let config = ConfigBuilder::new().tables(&pool).route(route).pool(EARLY_STALL);
        let fixture = RetryFixture::with_config(1, 1, config);
        fixture.set_near(&ResponseMode::Hang);
        fixture.far[0].set_mode(ResponseMode::Hang);
        let (answer, id) = fixture.request(method, b"");
        assert_eq!(answer.status_and_reason(), (504, Some("total_timeout")), "{method}");
        assert_eq!(spare.count_with_id(&id), 0);
    }
}

#[test]
fn idempotency_key_makes_post_retryable_if_enabled() {
    let key = [("idempotency-key", "k1")];
    let enabled = stall_fixture(1, "retry = { idempotency_key = true }");
    enabled.set_near(&ResponseMode::Reset);
    let (answer, id) = enabled.request_with_fields("POST", &key, b"body");
    assert_eq!((answer.status, answer.text()), (200, "far0".to_owned()));
    assert_eq!(enabled.attempt_counts(&id), (1, 1));
    let disabled = stall_fixture(1, "");
    disabled.set_near(&ResponseMode::Reset);
    let (answer, id) = disabled.request_with_fields("POST", &key, b"body");
    assert_eq!(answer.status_and_reason(), (502, Some("reset")));
    assert_eq!(disabled.attempt_counts(&id), (1, 0));
}
