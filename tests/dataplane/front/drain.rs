//! The way out: streams in flight end, new ones do not begin, and nobody is waited for in vain.

use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpStream;

use super::http2::{ask, get, open, receive, run, speak};
use super::plain;
use super::secure::{Secure, simple};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::Mode;
use crate::support::{SOON, eventually};

/// A drain that no test waits for.
fn config() -> Config {
    Config::new().tables("[shutdown]\ndrain = \"600s\"")
}

#[test]
fn a_stream_in_flight_ends_well_and_no_other_begins() {
    let (endpoint, mut gapless) = plain(&config(), "");
    endpoint.set(Mode::Slow(Duration::from_secs(2)));
    run(async {
        let stream = TcpStream::connect(gapless.address).await.expect("a connection");
        let (client, connection) = speak(stream, 1 << 20).await;
        let connection = tokio::task::spawn_local(connection);
        let mut ready = client.clone().ready().await.expect("open");
        let (response, _) = ready.send_request(get("/"), true).expect("sent");
        while endpoint.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gapless.signal(Signal::TERM);
        let answer = receive(response).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"one"[..]));
        let ended = connection.await.expect("no panic");
        assert!(ended.is_ok(), "the connection ends in good order: {ended:?}");
        ask(&mut client.clone(), get("/"), b"").await.expect_err("GOAWAY");
    });
    assert!(gapless.wait(SOON).success());
    assert_eq!(endpoint.seen().len(), 1);
}

#[test]
fn idle_clients_are_told_and_silent_ones_are_not_waited_for() {
    let (_endpoint, mut gapless) = plain(&config(), "");
    // This one answers no ping.
    let mut dead = Client::open(gapless.address);
    dead.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat())
        .expect("sent");
    let mut nothing = Client::open(gapless.address);
    run(async {
        let stream = TcpStream::connect(gapless.address).await.expect("a connection");
        let (mut client, connection) = speak(stream, 1 << 20).await;
        let connection = tokio::task::spawn_local(connection);
        assert_eq!(ask(&mut client, get("/"), b"").await.expect("an answer").status.as_u16(), 200);
        gapless.signal(Signal::TERM);
        connection.await.expect("no panic").expect("a good end");
    });
    assert!(nothing.is_ended());
    dead.wire.rest().expect("the end");
    assert!(gapless.wait(SOON).success());
}

#[test]
fn requests_over_tls_in_flight_end_well() {
    let (endpoint, mut gapless, authority) = super::encrypted(&config(), "");
    endpoint.set(Mode::Slow(Duration::from_secs(2)));
    let client = simple(&authority);
    let mut secure = Secure::connect(gapless.address, "a.example", &client).expect("shaken");
    let mut silent = Client::open(gapless.address);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| secure.ask(""));
        eventually("it is under way", SOON, || !endpoint.seen().is_empty());
        gapless.signal(Signal::TERM);
        assert_eq!(asking.join().expect("no panic"), 200);
    });
    assert!(silent.is_ended(), "who has not shaken hands is let go");
    assert!(gapless.wait(SOON).success());
}

#[test]
fn who_comes_at_the_last_moment_is_served() {
    let (_endpoint, mut gapless) = plain(&config(), "");
    assert_eq!(gapless.get("/").status, 200);
    gapless.signal(Signal::STOP);
    run(async {
        let client = open(gapless.address).await;
        let mut ready = client.clone().ready().await.expect("open");
        let (response, _) = ready.send_request(get("/"), true).expect("sent");
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        gapless.signal(Signal::TERM);
        gapless.signal(Signal::CONT);
        assert_eq!(receive(response).await.expect("an answer").status.as_u16(), 200);
    });
    assert!(gapless.wait(SOON).success());
}
