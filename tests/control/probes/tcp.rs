//! Bytes sent and bytes expected.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Instant;

use gapless::logic::outcome::{Layer, Reason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{ask, ask_often, ask_within, failed, ms, passes, spec};
use crate::support::server::{Serve, Server, serving};

/// Greets, and answers PING with PONG in two pieces.
fn ponger() -> Serve {
    serving(|mut io| async move {
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
fn a_talk() {
    let server = Server::plain(ponger());
    let talk =
        |talk: &str| ask_within(server.address, &spec(&format!("{{ tcp = {talk} }}")), ms(300));
    assert!(passes(talk("{ send = \"PING\\r\\n\", expect = \"+PONG\" }")));
    assert!(passes(talk("{ expect = \"hello\" }")));
    assert!(passes(talk("{ send = \"PING\\r\\n\" }")));
    assert!(passes(talk("true")));
    assert_eq!(talk("{ send = \"QUIT\", expect = \"+PONG\" }"), failed(Layer::Tcp, Reason::Body));
    let timeout = talk("{ expect = \"goodbye\" }");
    assert_eq!(timeout, failed(Layer::Tcp, Reason::Timeout));
    assert_eq!(timeout_text(), "tcp timeout");
}

fn timeout_text() -> String {
    gapless::logic::outcome::Failure { layer: Layer::Tcp, reason: Reason::Timeout }.to_string()
}

#[test]
fn no_more_is_read_than_allowed() {
    let server = Server::plain(serving(|mut io| async move {
        while io.write_all(&[b'.'; 4096]).await.is_ok() {}
    }));
    let spec = spec("{ tcp = { expect = \"!\" }, read = \"100KiB\" }");
    assert_eq!(ask(server.address, &spec), failed(Layer::Tcp, Reason::Body));
}

#[test]
fn a_connection_is_kept() {
    let server = Server::plain(ponger());
    let kept = spec("{ tcp = { send = \"PING\\r\\n\", expect = \"PONG\" }, reuse = true }");
    assert!(ask_often(server.address, &kept, 4).into_iter().all(passes));
    assert_eq!(server.accepted(), 1);
}

#[test]
fn another_address_and_port_may_be_probed() {
    let server = Server::plain(ponger());
    let nowhere = SocketAddr::from(([127, 0, 0, 2], 1));
    let port = server.address.port();
    let there = spec(&format!("{{ tcp = true, address = \"127.0.0.1\", port = {port} }}"));
    assert!(passes(ask(nowhere, &there)));
    assert_eq!(ask(nowhere, &spec("{ tcp = true }")), failed(Layer::Connect, Reason::Refused));
}

/// A listener whose queue is full: nothing comes back to a SYN.
#[test]
fn silence_is_reported_when_its_time_is_up() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listener = listener.expect("a socket");
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    listener.listen(0).expect("listening");
    let listener: TcpListener = listener.into();
    let address = listener.local_addr().expect("bound");
    let _queued: Vec<_> =
        (0..3).map(|_| std::net::TcpStream::connect_timeout(&address, ms(50))).collect();
    let began = Instant::now();
    let outcome = ask_within(address, &spec("{ http = \"/\" }"), ms(200));
    assert_eq!(outcome, failed(Layer::Connect, Reason::Timeout));
    assert!(began.elapsed() >= ms(199));
}
