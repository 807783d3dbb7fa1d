//! A zone is evacuated and restored under load without a failed request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{TwoZoneFixture, run_order, wait_for_standing};
use crate::support::client::TestClient;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::load::SteadyLoad;
use crate::support::{DEFAULT_TIMEOUT, eventually};

const UPGRADE_REQUEST: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n";

const SWITCHING_PROTOCOLS: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                     upgrade: websocket\r\nsec-websocket-accept: v\r\n\r\n";

/// An endpoint with an echo tunnel, an endless stream, and delayed responses.
fn tunnel_stream_or_response(name: &'static str) -> ResponseMode {
    ResponseMode::script(move |head, wire| {
        if head.field("upgrade").is_some() {
            wire.send(SWITCHING_PROTOCOLS)?;
            loop {
                let byte = wire.read_exact(1)?;
                wire.send(byte)?;
            }
        }
        if head.start_line_word(1) == "/stream" {
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")?;
            wire.read_exact(1)?;
            return Ok(ConnectionAction::Close);
        }
        wire.read_body(head)?;
        std::thread::sleep(Duration::from_millis(3));
        let length = name.len();
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nx-endpoint: {name}\r\ncontent-length: {length}\r\n\r\n{name}"
        ))?;
        Ok(ConnectionAction::Keep)
    })
}

/// Sends POSTs one after another; returns failures and their number.
fn spawn_post_client(
    address: SocketAddr,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<(u64, Vec<String>)> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let (mut sent, mut failures) = (0, Vec::new());
        let mut client = TestClient::open(address);
        while !stop.load(SeqCst) {
            sent += 1;
            match client.exchange("POST", "/", &[], b"once") {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => failures.push(format!("{:?}", answer.status_and_reason())),
                Err(error) => {
                    failures.push(error.to_string());
                    client = TestClient::open(address);
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        (sent, failures)
    })
}

fn open_tunnel(gapless: &Gapless) -> TestClient {
    let mut client = TestClient::open(gapless.address);
    client.send(UPGRADE_REQUEST).expect("sent");
    assert_eq!(
        client.wire.read_head().expect("an answer").expect("a head").start_line_word(1),
        "101"
    );
    client
}

fn is_echoing(client: &mut TestClient) -> bool {
    client.send("x").is_ok() && client.wire.read_exact(1).is_ok_and(|byte| byte == b"x")
}

#[test]
fn zone_evacuation_and_restore_under_load_fail_no_request() {
    let fixture = TwoZoneFixture::new();
    for (endpoint, name) in fixture.near.iter().zip(["near0", "near1"]) {
        endpoint.set_mode(tunnel_stream_or_response(name));
    }
    for (endpoint, name) in fixture.far.iter().zip(["far0", "far1"]) {
        endpoint.set_mode(tunnel_stream_or_response(name));
    }
    let gapless = Gapless::start_ready(&fixture.config().route("upgrade = [\"websocket\"]"));
    let mut tunnels: Vec<TestClient> = (0..3).map(|_| open_tunnel(&gapless)).collect();
    let load = SteadyLoad::start(gapless.address, 4, Duration::from_millis(2));
    let stop = Arc::new(AtomicBool::new(false));
    let post_clients: Vec<_> = (0..2).map(|_| spawn_post_client(gapless.address, &stop)).collect();
    eventually("load", DEFAULT_TIMEOUT, || load.sent() > 200);

    let started = Instant::now();
    let arguments =
        ["evacuate", "here/a", "--over", "2s", "--deadline", "4s", "--by", "night shift"];
    let output = run_order(&gapless, &arguments);
    assert!(output.contains("drain here/a") && output.contains("by night shift"), "{output}");
    wait_for_standing(&gapless, &fixture.near[0], "drained");
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(1_900), "{elapsed:?}");
    // Requests that were in flight when the last share ended have arrived.
    eventually("it rests", DEFAULT_TIMEOUT, || {
        gapless.api_json("/api/v1/status")["pools"][0]["zones"][0]["in_flight"] == 3
    });
    assert!(tunnels.iter_mut().all(is_echoing), "what lasts may stay");
    let (near_requests, sent_before) = (fixture.near_request_count(), load.sent());
    eventually("load", DEFAULT_TIMEOUT, || load.sent() > sent_before + 200);
    assert_eq!(fixture.near_request_count(), near_requests, "no new request goes there");
    eventually("idle connections are closed", DEFAULT_TIMEOUT, || {
        fixture.near.iter().map(|one| one.open_connection_count()).sum::<usize>() <= 3
    });
    for client in &mut tunnels {
        assert!(client.is_closed_by_server(), "until the deadline");
    }
    let elapsed = started.elapsed();
    assert!(
        elapsed >= Duration::from_millis(5_900) && elapsed < Duration::from_secs(15),
        "{elapsed:?}"
    );

    run_order(&gapless, &["restore", "here/a"]);
    eventually("it is back", DEFAULT_TIMEOUT, || {
        fixture.near_request_count() > near_requests + 200
    });
    stop.store(true, SeqCst);
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    let has_served =
        |endpoint: &TestEndpoint| tally.by_endpoint.contains_key(&endpoint.address().to_string());
    assert!(has_served(&fixture.near[0]) && has_served(&fixture.far[0]), "{tally:?}");
    for client in post_clients {
        let (sent, failures) = client.join().expect("a client");
        assert!(sent > 100 && failures.is_empty(), "{sent} sent: {failures:?}");
    }
    assert!(gapless.incidents("endpoints").is_empty(), "no failure");
    assert_eq!(gapless.metric("gapless_pool_panic{pool=\"web\"}"), 0.0);
}

#[test]
fn drain_deadline_cuts_streams_and_retries_waiting_requests() {
    let fixture = TwoZoneFixture::new();
    let gapless = Gapless::start_ready(&fixture.config());
    for endpoint in &fixture.near {
        endpoint.set_mode(tunnel_stream_or_response("near"));
    }
    let mut stream = TestClient::open(gapless.address);
    stream.send("GET /stream HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let head = stream.wire.read_head().expect("an answer").expect("a head");
    assert_eq!(head.start_line_word(1), "200");
    assert_eq!(stream.wire.read_chunk().expect("a chunk"), Some(b"hi".to_vec()));
    for endpoint in &fixture.near {
        endpoint.set_mode(ResponseMode::Hang);
    }
    let mut waiting = TestClient::open(gapless.address);
    let near_requests = fixture.near_request_count();
    // A GET without a body would be hedged.
    waiting.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx").expect("sent");
    eventually("it waits", DEFAULT_TIMEOUT, || fixture.near_request_count() > near_requests);
    for index in 0..2 {
        run_order(
            &gapless,
            &["drain", &fixture.near_address(index), "--deadline", "1s", "--force"],
        );
    }
    let answer = waiting.read_response("PUT").expect("an answer");
    assert_eq!((answer.status, answer.text().starts_with("far")), (200, true));
    assert!(stream.wire.read_chunk().is_err(), "cut, and not ended");
    let attempts = answer.field("x-gapless-attempts");
    assert_eq!(attempts, Some("2"));
}

#[test]
fn stopping_drained_endpoint_fails_no_request() {
    let fixture = TwoZoneFixture::new();
    let gapless = Gapless::start_ready(&fixture.config());
    run_order(&gapless, &["drain", &fixture.near_address(0), "--note", "a new kernel"]);
    let load = SteadyLoad::start(gapless.address, 2, Duration::from_millis(1));
    fixture.near[0].kill();
    eventually("it is known to be down", DEFAULT_TIMEOUT, || {
        gapless.endpoint_state(fixture.near[0].address()) == "down"
    });
    assert_eq!(gapless.pool()["down"], 0, "a drained endpoint is not counted as down");
    let explanation = gapless
        .admin_get(&format!("/api/v1/explain?of={}&format=text", fixture.near_address(0)))
        .text();
    assert!(
        explanation.contains("DRAINED by order 1 (api)") && explanation.contains("a new kernel"),
        "{explanation}"
    );
    run_order(&gapless, &["restore", &fixture.near_address(0)]);
    let sent_before = load.sent();
    eventually("load", DEFAULT_TIMEOUT, || load.sent() > sent_before + 100);
    fixture.near[0].listen();
    eventually("it is up again", DEFAULT_TIMEOUT, || {
        gapless.endpoint_state(fixture.near[0].address()) == "up"
    });
    let request_count = fixture.near[0].requests().len();
    eventually("it serves", DEFAULT_TIMEOUT, || {
        fixture.near[0].requests().len() > request_count + 10
    });
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    assert!(gapless.incidents("endpoints").is_empty());
}

#[test]
fn weight_order_moves_traffic() {
    let fixture = TwoZoneFixture::new();
    let gapless = Gapless::start_ready(&fixture.config());
    run_order(&gapless, &["weight", &fixture.near_address(0), "9"]);
    let load = SteadyLoad::start(gapless.address, 1, Duration::ZERO);
    eventually("load", DEFAULT_TIMEOUT, || load.sent() > 1_000);
    let tally = load.stop();
    let request_count = |endpoint: &TestEndpoint| {
        tally.by_endpoint.get(&endpoint.address().to_string()).copied().unwrap_or_default()
    };
    assert!(request_count(&fixture.near[0]) > 4 * request_count(&fixture.near[1]), "{tally:?}");
    assert_eq!(request_count(&fixture.far[0]), 0);
}
