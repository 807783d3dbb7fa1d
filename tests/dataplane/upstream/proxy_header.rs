//! PROXY headers towards endpoints.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use super::WITHOUT_VERDICTS;
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::instance::Gapless;
use crate::support::wire::WireStream;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// An endpoint that reads a header of `length` bytes, or up to a line's end, and answers requests.
/// Its response holds the connection's port and the header that it began with.
fn start_endpoint(length: Option<usize>) -> (SocketAddr, Receiver<(u16, Vec<u8>)>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let (sender, headers) = channel();
    std::thread::spawn(move || {
        while let Ok((stream, peer)) = listener.accept() {
            let sender = sender.clone();
            let report = move |header| drop(sender.send((peer.port(), header)));
            std::thread::spawn(move || serve_connection(stream, length, report));
        }
    });
    (address, headers)
}

fn serve_connection(mut stream: TcpStream, length: Option<usize>, report: impl Fn(Vec<u8>)) {
    let mut header = Vec::new();
    let mut byte = [0];
    while length.map_or_else(|| !header.ends_with(b"\r\n"), |length| header.len() < length) {
        // A TCP probe sends nothing.
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        header.push(byte[0]);
    }
    let mut wire = WireStream::new(Arc::new(stream));
    while let Ok(Some(_)) = wire.read_head() {
        report(header.clone());
        if wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn start_gapless(version: &str, endpoint: SocketAddr, more: &str) -> Gapless {
    let lines = format!("{WITHOUT_VERDICTS}\nproxy_protocol = \"{version}\"\n{more}");
    Gapless::start_ready(&ConfigBuilder::new().pool(&lines).zone("a/b", &[endpoint]))
}

fn local_address(client: &TestClient) -> SocketAddr {
    client.wire.stream().local_addr().expect("connected")
}

#[test]
fn each_client_gets_its_own_endpoint_connection() {
    let (endpoint, headers) = start_endpoint(None);
    let gapless = start_gapless("v1", endpoint, "");
    let (mut one, mut two) = (TestClient::open(gapless.address), TestClient::open(gapless.address));
    let expected_header = |client: &TestClient| {
        let port = local_address(client).port();
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\n", gapless.address.port())
    };
    let mut ports = Vec::new();
    for _ in 0..3 {
        for client in [&mut one, &mut two] {
            assert_eq!(client.get("/").status, 200);
            let (port, header) = headers.recv().expect("said");
            assert_eq!(header, expected_header(client).as_bytes());
            ports.push(port);
        }
    }
    assert_eq!((ports[0], ports[1]), (ports[2], ports[3]), "each keeps its own");
    assert_eq!((ports[0], ports[1]), (ports[4], ports[5]));
}

#[test]
fn proxy_protocol_enabled_by_reload_applies_immediately() {
    let (endpoint, headers) = start_endpoint(None);
    let config = |more: &str| {
        ConfigBuilder::new().pool(&format!("{WITHOUT_VERDICTS}\n{more}")).zone("a/b", &[endpoint])
    };
    let gapless = Gapless::start_ready(&config(""));
    let mut client = TestClient::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(headers.recv().expect("said").1, b"GET / HTTP/1.1\r\n", "no header");
    gapless.write_config(&config("proxy_protocol = \"v1\"").text());
    eventually("it is obeyed", DEFAULT_TIMEOUT, || gapless.generation() == 2);
    assert_eq!(client.get("/").status, 200);
    let header = String::from_utf8(headers.recv().expect("said").1).expect("text");
    assert!(header.starts_with("PROXY TCP4 127.0.0.1 "), "{header}");
}

#[test]
fn probe_sends_an_unknown_or_local_header() {
    for (version, length, expected) in [
        ("v1", None, &b"PROXY UNKNOWN\r\n"[..]),
        ("v2", Some(16), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let (endpoint, headers) = start_endpoint(length);
        let lines = format!("probe = {{ http = \"/\" }}\nproxy_protocol = \"{version}\"");
        let _gapless =
            Gapless::start_ready(&ConfigBuilder::new().pool(&lines).zone("a/b", &[endpoint]));
        assert_eq!(headers.recv().expect("said").1, expected);
    }
}

#[test]
fn v2_header_has_client_and_listener_addresses() {
    let (endpoint, headers) = start_endpoint(Some(28));
    let gapless = start_gapless("v2", endpoint, "");
    let mut client = TestClient::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    let (_, header) = headers.recv().expect("said");
    assert_eq!(&header[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(&header[16..24], &[127, 0, 0, 1, 127, 0, 0, 1]);
    let ports = [local_address(&client).port().to_be_bytes(), gapless.address.port().to_be_bytes()];
    assert_eq!(header[24..], ports.concat());
}

#[test]
fn closed_client_frees_its_endpoint_connection() {
    let (endpoint, headers) = start_endpoint(None);
    let limits = "limits = { endpoint = { connections = 1 } }";
    let gapless = start_gapless("v1", endpoint, limits);
    for _ in 0..4 {
        let mut client = TestClient::open(gapless.address);
        assert_eq!(client.get("/").status, 200);
        let port = local_address(&client).port().to_string();
        let header = String::from_utf8(headers.recv().expect("said").1).expect("text");
        assert!(header.contains(&port), "{header}");
    }
}
