//! The connection limit: idle connections are closed first.

use std::thread::sleep;
use std::time::Duration;

use super::{closed_connections, start_pair_with};
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::ResponseMode;
use crate::support::eventually;

/// Longer than the grace period of a new connection.
const NEW_CLIENT_GRACE: Duration = Duration::from_millis(1_200);

fn config_with_three_connections() -> ConfigBuilder {
    ConfigBuilder::new().tables("[limits]\nconnections = 3")
}

#[test]
fn longest_idle_connection_is_closed_at_the_limit() {
    let (_endpoint, gapless) = start_pair_with(config_with_three_connections());
    let mut clients: Vec<TestClient> = (0..3).map(|_| TestClient::open(gapless.address)).collect();
    for index in [0, 1, 2, 0] {
        assert_eq!(clients[index].get("/").status, 200);
    }
    let mut fourth = TestClient::open(gapless.address);
    assert_eq!(fourth.get("/").status, 200);
    assert!(clients[1].is_closed_by_server(), "the first one has asked again");
    assert_eq!(closed_connections(&gapless, "connections"), 1);
    for index in [0, 2] {
        assert_eq!(clients[index].get("/").status, 200, "number {index} is still here");
    }
    assert_eq!(gapless.metric("gapless_client_connections"), 3.0);
}

#[test]
fn silent_connection_is_closed_before_a_used_one() {
    let (_endpoint, gapless) = start_pair_with(config_with_three_connections());
    let mut silent: Vec<TestClient> = (0..2).map(|_| TestClient::open(gapless.address)).collect();
    sleep(NEW_CLIENT_GRACE);
    let mut used = TestClient::open(gapless.address);
    for _ in 0..2 {
        assert_eq!(used.get("/").status, 200);
        let mut other = TestClient::open(gapless.address);
        assert_eq!(other.get("/").status, 200);
    }
    assert!(silent.iter_mut().any(TestClient::is_closed_by_server));
    assert_eq!(used.get("/").status, 200);
}

#[test]
fn new_connection_is_not_closed_for_the_next() {
    let (_endpoint, gapless) = start_pair_with(config_with_three_connections());
    let mut clients: Vec<TestClient> = (0..3).map(|_| TestClient::open(gapless.address)).collect();
    let fourth = TestClient::connect(gapless.address);
    assert!(fourth.map_or(true, |mut client| client.is_closed_by_server()), "one too many");
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn connection_with_request_in_flight_is_not_closed() {
    let (endpoint, gapless) = start_pair_with(config_with_three_connections());
    endpoint.set_mode(ResponseMode::Slow(Duration::from_secs(2)));
    let mut clients: Vec<TestClient> = (0..3).map(|_| TestClient::open(gapless.address)).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    }
    eventually("all are under way", Duration::from_secs(2), || endpoint.requests().len() == 3);
    let fourth = TestClient::connect(gapless.address);
    assert!(fourth.map_or(true, |mut client| client.is_closed_by_server()), "one too many");
    for client in &mut clients {
        assert_eq!(client.read_response("GET").expect("an answer").status, 200);
    }
    assert_eq!(closed_connections(&gapless, "connections"), 0);
    assert_eq!(gapless.metric("gapless_client_connections_refused_total"), 1.0);
    assert_eq!(gapless.get("/").status, 200, "now they are idle");
}

/// An HTTP/2 client receives GOAWAY (RFC 9113 6.8).
#[test]
fn idle_http2_connection_gets_goaway_at_the_limit() {
    let (_endpoint, gapless) = start_pair_with(config_with_three_connections());
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut shared = TestClient::open(gapless.address);
    shared.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()).expect("sent");
    shared.wire.read_exact(9).expect("settings");
    sleep(NEW_CLIENT_GRACE);
    let mut clients: Vec<TestClient> = (0..2).map(|_| TestClient::open(gapless.address)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(gapless.get("/").status, 200);
    let received = shared.wire.read_to_end().expect("the end");
    assert!(has_frame(&received, 7), "GOAWAY: {received:?}");
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200, "they were idle for less time");
    }
}

/// Whether there is a frame of this kind, if `bytes` begin within the first one's payload of
/// settings.
fn has_frame(bytes: &[u8], kind: u8) -> bool {
    bytes.windows(9).any(|head| head[..3] == [0, 0, 8] && head[3] == kind && head[4..9] == [0; 5])
}
