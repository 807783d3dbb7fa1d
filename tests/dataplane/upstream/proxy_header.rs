//! Endpoints that are told whose connection it is.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use super::QUIET;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::instance::Gapless;
use crate::support::wire::Wire;
use crate::support::{SOON, eventually};

/// An endpoint that reads a header of `length` bytes, or up to a line's end, and answers requests.
/// What it says of each request: its connection's own port, and what that began with.
fn endpoint(length: Option<usize>) -> (SocketAddr, Receiver<(u16, Vec<u8>)>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let (say, said) = channel();
    std::thread::spawn(move || {
        while let Ok((stream, peer)) = listener.accept() {
            let say = say.clone();
            let say = move |header| drop(say.send((peer.port(), header)));
            std::thread::spawn(move || serve(stream, length, say));
        }
    });
    (address, said)
}

fn serve(mut stream: TcpStream, length: Option<usize>, say: impl Fn(Vec<u8>)) {
    let mut header = Vec::new();
    let mut byte = [0];
    while length.map_or_else(|| !header.ends_with(b"\r\n"), |length| header.len() < length) {
        // A probe that only connects says nothing.
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        header.push(byte[0]);
    }
    let mut wire = Wire::new(Arc::new(stream));
    while let Ok(Some(_)) = wire.head() {
        say(header.clone());
        if wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn start(version: &str, endpoint: SocketAddr, more: &str) -> Gapless {
    let lines = format!("{QUIET}\nproxy_protocol = \"{version}\"\n{more}");
    Gapless::start_ready(&Config::new().pool(&lines).zone("a/b", &[endpoint]))
}

fn local(client: &Client) -> SocketAddr {
    client.wire.stream().local_addr().expect("connected")
}

#[test]
fn each_client_has_connections_of_its_own() {
    let (endpoint, said) = endpoint(None);
    let gapless = start("v1", endpoint, "");
    let (mut one, mut two) = (Client::open(gapless.address), Client::open(gapless.address));
    let line = |client: &Client| {
        let port = local(client).port();
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\n", gapless.address.port())
    };
    let mut ports = Vec::new();
    for _ in 0..3 {
        for client in [&mut one, &mut two] {
            assert_eq!(client.get("/").status, 200);
            let (port, header) = said.recv().expect("said");
            assert_eq!(header, line(client).as_bytes());
            ports.push(port);
        }
    }
    assert_eq!((ports[0], ports[1]), (ports[2], ports[3]), "each keeps its own");
    assert_eq!((ports[0], ports[1]), (ports[4], ports[5]));
}

#[test]
fn a_new_configuration_is_spoken_at_once() {
    let (endpoint, said) = endpoint(None);
    let config =
        |more: &str| Config::new().pool(&format!("{QUIET}\n{more}")).zone("a/b", &[endpoint]);
    let gapless = Gapless::start_ready(&config(""));
    let mut client = Client::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(said.recv().expect("said").1, b"GET / HTTP/1.1\r\n", "no header");
    gapless.write(&config("proxy_protocol = \"v1\"").text());
    eventually("it is obeyed", SOON, || gapless.generation() == 2);
    assert_eq!(client.get("/").status, 200);
    let header = String::from_utf8(said.recv().expect("said").1).expect("text");
    assert!(header.starts_with("PROXY TCP4 127.0.0.1 "), "{header}");
}

#[test]
fn probes_speak_for_nobody() {
    for (version, length, begins) in [
        ("v1", None, &b"PROXY UNKNOWN\r\n"[..]),
        ("v2", Some(16), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let (endpoint, said) = endpoint(length);
        let lines = format!("probe = {{ http = \"/\" }}\nproxy_protocol = \"{version}\"");
        let _gapless = Gapless::start_ready(&Config::new().pool(&lines).zone("a/b", &[endpoint]));
        assert_eq!(said.recv().expect("said").1, begins);
    }
}

#[test]
fn in_binary() {
    let (endpoint, said) = endpoint(Some(28));
    let gapless = start("v2", endpoint, "");
    let mut client = Client::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    let (_, header) = said.recv().expect("said");
    assert_eq!(&header[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(&header[16..24], &[127, 0, 0, 1, 127, 0, 0, 1]);
    let ports = [local(&client).port().to_be_bytes(), gapless.address.port().to_be_bytes()];
    assert_eq!(header[24..], ports.concat());
}

#[test]
fn who_has_gone_makes_room_for_the_next() {
    let (endpoint, said) = endpoint(None);
    let limits = "limits = { endpoint = { connections = 1 } }";
    let gapless = start("v1", endpoint, limits);
    for _ in 0..4 {
        let mut client = Client::open(gapless.address);
        assert_eq!(client.get("/").status, 200);
        let port = local(&client).port().to_string();
        let header = String::from_utf8(said.recv().expect("said").1).expect("text");
        assert!(header.contains(&port), "{header}");
    }
}
