//! As many clients as may be: who is idle goes first.

use std::thread::sleep;
use std::time::Duration;

use super::{closed, pair_with};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::Mode;
use crate::support::eventually;

/// Longer than a client that has just come is waited for.
const GRACE: Duration = Duration::from_millis(1_200);

fn three() -> Config {
    Config::new().tables("[limits]\nconnections = 3")
}

#[test]
fn the_one_that_was_idle_for_the_longest_makes_room() {
    let (_endpoint, gapless) = pair_with(three());
    let mut clients: Vec<Client> = (0..3).map(|_| Client::open(gapless.address)).collect();
    for index in [0, 1, 2, 0] {
        assert_eq!(clients[index].get("/").status, 200);
    }
    let mut fourth = Client::open(gapless.address);
    assert_eq!(fourth.get("/").status, 200);
    assert!(clients[1].is_ended(), "the first one has asked again");
    assert_eq!(closed(&gapless, "connections"), 1);
    for index in [0, 2] {
        assert_eq!(clients[index].get("/").status, 200, "number {index} is still here");
    }
    assert_eq!(gapless.metric("gapless_client_connections"), 3.0);
}

#[test]
fn who_never_said_anything_goes_before_who_did_later() {
    let (_endpoint, gapless) = pair_with(three());
    let mut silent: Vec<Client> = (0..2).map(|_| Client::open(gapless.address)).collect();
    sleep(GRACE);
    let mut used = Client::open(gapless.address);
    for _ in 0..2 {
        assert_eq!(used.get("/").status, 200);
        let mut other = Client::open(gapless.address);
        assert_eq!(other.get("/").status, 200);
    }
    assert!(silent.iter_mut().any(Client::is_ended));
    assert_eq!(used.get("/").status, 200);
}

#[test]
fn who_has_just_come_is_not_sent_away_for_the_next_one() {
    let (_endpoint, gapless) = pair_with(three());
    let mut clients: Vec<Client> = (0..3).map(|_| Client::open(gapless.address)).collect();
    let fourth = Client::connect(gapless.address);
    assert!(fourth.map_or(true, |mut client| client.is_ended()), "one too many");
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn nobody_who_waits_for_an_answer_is_sent_away() {
    let (endpoint, gapless) = pair_with(three());
    endpoint.set(Mode::Slow(Duration::from_secs(2)));
    let mut clients: Vec<Client> = (0..3).map(|_| Client::open(gapless.address)).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    }
    eventually("all are under way", Duration::from_secs(2), || endpoint.seen().len() == 3);
    let fourth = Client::connect(gapless.address);
    assert!(fourth.map_or(true, |mut client| client.is_ended()), "one too many");
    for client in &mut clients {
        assert_eq!(client.answer("GET").expect("an answer").status, 200);
    }
    assert_eq!(closed(&gapless, "connections"), 0);
    assert_eq!(gapless.metric("gapless_client_connections_refused_total"), 1.0);
    assert_eq!(gapless.get("/").status, 200, "now they are idle");
}

/// A client of HTTP/2 is told (RFC 9113 6.8).
#[test]
fn an_idle_connection_of_http2_makes_room_too() {
    let (_endpoint, gapless) = pair_with(three());
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut shared = Client::open(gapless.address);
    shared.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()).expect("sent");
    shared.wire.exactly(9).expect("settings");
    sleep(GRACE);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::open(gapless.address)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(gapless.get("/").status, 200);
    let said = shared.wire.rest().expect("the end");
    assert!(has_frame(&said, 7), "GOAWAY: {said:?}");
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200, "they were idle for less time");
    }
}

/// Whether there is a frame of this kind, if `bytes` begin within the first one's payload of settings.
fn has_frame(bytes: &[u8], kind: u8) -> bool {
    bytes.windows(9).any(|head| head[..3] == [0, 0, 8] && head[3] == kind && head[4..9] == [0; 5])
}
