//! TCP probes that send and expect bytes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Instant;

use gapless::logic::model::outcome::{FailureLayer, FailureReason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{failed_outcome, is_pass, ms, probe_once, probe_repeatedly, probe_within, spec};
use crate::support::server::{ConnectionHandler, TestServer, connection_handler};

/// Sends a greeting, and answers PING with PONG in two pieces.
fn pong_server() -> ConnectionHandler {
    connection_handler(|mut io| async move {
        let _ = io.write_all(b"hello\r\n").await;
        let mut input = [0; 64];
        while let Ok(read @ 1..) = io.read(&mut input).await {
            if input[..read] != *b"PING\r\n" {
                return;
            }
            let _ = io.write_all(b"+PO").await;
            let _ = io.flush().await;
            tokio::time::sleep(ms(5)).await;
            let _ = io.write_all(b"NG\r\n").await;
        }
    })
}

#[test]
fn send_and_expect_are_checked() {
    let server = TestServer::start_cleartext(pong_server());
    let probe_tcp = |tcp_value: &str| {
        probe_within(server.address, &spec(&format!("{{ tcp = {tcp_value} }}")), ms(300))
    };
    assert!(is_pass(probe_tcp("{ send = \"PING\\r\\n\", expect = \"+PONG\" }")));
    assert!(is_pass(probe_tcp("{ expect = \"hello\" }")));
    assert!(is_pass(probe_tcp("{ send = \"PING\\r\\n\" }")));
    assert!(is_pass(probe_tcp("true")));
    assert_eq!(
        probe_tcp("{ send = \"QUIT\", expect = \"+PONG\" }"),
        failed_outcome(FailureLayer::Tcp, FailureReason::Body)
    );
    let timeout = probe_tcp("{ expect = \"goodbye\" }");
    assert_eq!(timeout, failed_outcome(FailureLayer::Tcp, FailureReason::Timeout));
    assert_eq!(timeout_text(), "tcp timeout");
}

fn timeout_text() -> String {
    gapless::logic::model::outcome::Failure {
        layer: FailureLayer::Tcp,
        reason: FailureReason::Timeout,
    }
    .to_string()
}

#[test]
fn read_limit_bounds_received_bytes() {
    let server = TestServer::start_cleartext(connection_handler(|mut io| async move {
        while io.write_all(&[b'.'; 4096]).await.is_ok() {}
    }));
    let spec = spec("{ tcp = { expect = \"!\" }, read = \"100KiB\" }");
    assert_eq!(
        probe_once(server.address, &spec),
        failed_outcome(FailureLayer::Tcp, FailureReason::Body)
    );
}

#[test]
fn reused_connection_serves_all_probes() {
    let server = TestServer::start_cleartext(pong_server());
    let reusing_probe =
        spec("{ tcp = { send = \"PING\\r\\n\", expect = \"PONG\" }, reuse = true }");
    assert!(probe_repeatedly(server.address, &reusing_probe, 4).into_iter().all(is_pass));
    assert_eq!(server.accepted_count(), 1);
}

#[test]
fn address_and_port_overrides_are_probed() {
    let server = TestServer::start_cleartext(pong_server());
    let unused_address = SocketAddr::from(([127, 0, 0, 2], 1));
    let port = server.address.port();
    let overriding_probe =
        spec(&format!("{{ tcp = true, address = \"127.0.0.1\", port = {port} }}"));
    assert!(is_pass(probe_once(unused_address, &overriding_probe)));
    assert_eq!(
        probe_once(unused_address, &spec("{ tcp = true }")),
        failed_outcome(FailureLayer::Connect, FailureReason::Refused)
    );
}

/// A listener with a full accept queue: a SYN is not answered.
#[test]
fn full_accept_queue_times_out() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listener = listener.expect("a socket");
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    listener.listen(0).expect("listening");
    let listener: TcpListener = listener.into();
    let address = listener.local_addr().expect("bound");
    let _queued: Vec<_> =
        (0..3).map(|_| std::net::TcpStream::connect_timeout(&address, ms(50))).collect();
    let started = Instant::now();
    let outcome = probe_within(address, &spec("{ http = \"/\" }"), ms(200));
    assert_eq!(outcome, failed_outcome(FailureLayer::Connect, FailureReason::Timeout));
    assert!(started.elapsed() >= ms(199));
}
