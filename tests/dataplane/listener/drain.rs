//! Shutdown of HTTP/2: streams in flight end, new ones are refused, and silent clients are not
//! awaited.

use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpStream;

use super::http2::{
    block_on_local, connect_http2, get_request, handshake_http2, receive_response, send_request,
};
use super::start_cleartext;
use super::tls_client::{TlsTestClient, default_client_config};
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::ResponseMode;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// A drain timeout that no test reaches.
fn config_with_long_drain() -> ConfigBuilder {
    ConfigBuilder::new().tables("[shutdown]\ndrain = \"600s\"")
}

#[test]
fn stream_in_flight_completes_and_new_streams_are_refused() {
    let (endpoint, mut gapless) = start_cleartext(&config_with_long_drain(), "");
    endpoint.set_mode(ResponseMode::Slow(Duration::from_secs(2)));
    block_on_local(async {
        let stream = TcpStream::connect(gapless.address).await.expect("a connection");
        let (client, connection) = handshake_http2(stream, 1 << 20).await;
        let connection = tokio::task::spawn_local(connection);
        let mut ready = client.clone().ready().await.expect("open");
        let (response, _) = ready.send_request(get_request("/"), true).expect("sent");
        while endpoint.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gapless.signal(Signal::TERM);
        let answer = receive_response(response).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"one"[..]));
        let ended = connection.await.expect("no panic");
        assert!(ended.is_ok(), "the connection ends in good order: {ended:?}");
        send_request(&mut client.clone(), get_request("/"), b"").await.expect_err("GOAWAY");
    });
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
    assert_eq!(endpoint.requests().len(), 1);
}

#[test]
fn idle_clients_get_goaway_and_silent_ones_are_closed() {
    let (_endpoint, mut gapless) = start_cleartext(&config_with_long_drain(), "");
    // This client answers no ping.
    let mut silent_http2 = TestClient::open(gapless.address);
    silent_http2
        .send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat())
        .expect("sent");
    let mut silent = TestClient::open(gapless.address);
    block_on_local(async {
        let stream = TcpStream::connect(gapless.address).await.expect("a connection");
        let (mut client, connection) = handshake_http2(stream, 1 << 20).await;
        let connection = tokio::task::spawn_local(connection);
        assert_eq!(
            send_request(&mut client, get_request("/"), b"")
                .await
                .expect("an answer")
                .status
                .as_u16(),
            200
        );
        gapless.signal(Signal::TERM);
        connection.await.expect("no panic").expect("a good end");
    });
    assert!(silent.is_closed_by_server());
    silent_http2.wire.read_to_end().expect("the end");
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
}

#[test]
fn tls_request_in_flight_completes_on_stop() {
    let (endpoint, mut gapless, authority) = super::start_tls(&config_with_long_drain(), "");
    endpoint.set_mode(ResponseMode::Slow(Duration::from_secs(2)));
    let client = default_client_config(&authority);
    let mut connection =
        TlsTestClient::connect(gapless.address, "a.example", &client).expect("shaken");
    let mut silent = TestClient::open(gapless.address);
    std::thread::scope(|scope| {
        let request = scope.spawn(|| connection.request_status(""));
        eventually("it is under way", DEFAULT_TIMEOUT, || !endpoint.requests().is_empty());
        gapless.signal(Signal::TERM);
        assert_eq!(request.join().expect("no panic"), 200);
    });
    assert!(silent.is_closed_by_server(), "a connection without a handshake is closed");
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
}

#[test]
fn request_sent_before_stop_is_served() {
    let (_endpoint, mut gapless) = start_cleartext(&config_with_long_drain(), "");
    assert_eq!(gapless.get("/").status, 200);
    gapless.signal(Signal::STOP);
    block_on_local(async {
        let client = connect_http2(gapless.address).await;
        let mut ready = client.clone().ready().await.expect("open");
        let (response, _) = ready.send_request(get_request("/"), true).expect("sent");
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        gapless.signal(Signal::TERM);
        gapless.signal(Signal::CONT);
        assert_eq!(receive_response(response).await.expect("an answer").status.as_u16(), 200);
    });
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
}
