//! The PROXY protocol: who may speak it, what it says, and what is not one.

use std::io::ErrorKind;

use super::secure::{Secure, simple};
use super::{encrypted, plain};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn trusted() -> (Endpoint, Gapless) {
    let config = Config::new().tables("[limits]\nheader_timeout = \"1s\"");
    plain(&config, "proxy_protocol = { from = [\"10.0.0.0/8\", \"127.0.0.0/8\"] }")
}

/// Version 2: command, family, what follows.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

/// The answer's status; none if the connection ended without one, as soon as
/// it was accepted or later.
fn status(gapless: &Gapless, bytes: &[u8]) -> Option<u16> {
    let mut client = match Client::connect(gapless.address) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
        connected => connected.expect("a connection"),
    };
    client.send(bytes).ok()?;
    client.answer("GET").ok().map(|answer| answer.status)
}

fn client_of(endpoint: &Endpoint) -> String {
    let seen = endpoint.seen();
    let last = seen.last().expect("a request");
    last.head.field("x-forwarded-for").expect("an address").to_owned()
}

#[test]
fn the_header_says_for_whom() {
    let (endpoint, gapless) = trusted();
    let mut six = [0; 36];
    six[..16].copy_from_slice(&"2001:db8::7".parse::<std::net::Ipv6Addr>().expect("v6").octets());
    let four = [203, 0, 113, 7, 192, 0, 2, 1, 0x10, 0, 0, 80];
    let many = [&four[..], &[0x04, 3, 0xe8], &[0; 1000]].concat();
    let cases: [(&[u8], &str); 8] = [
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 4096 80\r\n", "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4096 80\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY UNKNOWN 203.0.113.7 192.0.2.1 4096 80\r\n", "127.0.0.1"),
        (&binary(0x21, 0x11, &four), "203.0.113.7"),
        (&binary(0x21, 0x11, &many), "203.0.113.7"),
        (&binary(0x21, 0x21, &six), "2001:db8::7"),
        (&binary(0x20, 0x00, b""), "127.0.0.1"),
    ];
    for (header, client) in cases {
        // In one piece, and byte by byte.
        assert_eq!(status(&gapless, &[header, REQUEST].concat()), Some(200), "{header:?}");
        assert_eq!(client_of(&endpoint), client, "{header:?}");
        let mut slow = Client::open(gapless.address);
        for byte in [header, REQUEST].concat() {
            slow.send([byte]).expect("sent");
        }
        assert_eq!(slow.answer("GET").expect("an answer").status, 200, "{header:?}");
        assert_eq!(client_of(&endpoint), client, "{header:?}");
    }
}

#[test]
fn whatever_else_comes_is_refused() {
    let (endpoint, gapless) = trusted();
    let line = |text: &str| text.as_bytes().to_vec();
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    let four = [203, 0, 113, 7, 192, 0, 2, 1, 0x10, 0, 0, 80];
    let bad = [
        Vec::new(),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 4096\r\n"),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 4096 80\n"),
        line("PROXY TCP9 203.0.113.7 192.0.2.1 4096 80\r\n"),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 04096 80\r\n"),
        line("proxy TCP4 203.0.113.7 192.0.2.1 4096 80\r\n"),
        line(&long),
        binary(0x31, 0x11, &four),
        binary(0x21, 0x11, &four[..11]),
        binary(0x21, 0x12, &four),
        binary(0x21, 0x11, &[&four[..], &[1, 0, 9, 0]].concat()),
        binary(0x21, 0x11, &[0; 2049]),
    ];
    for header in &bad {
        assert_eq!(status(&gapless, &[header, REQUEST].concat()), None, "{header:?}");
    }
    assert_eq!(endpoint.seen().len(), 0);
    let refused = gapless.metric("gapless_proxy_protocol_refused_total");
    assert_eq!(refused, bad.len() as f64);
}

#[test]
fn half_a_header_is_not_waited_for_for_ever() {
    let (endpoint, gapless) = trusted();
    let halves: [&[u8]; 4] = [b"", b"PROXY TCP4 203.0.1", SIGNATURE, b"PROXY UNKNOWN"];
    let mut clients: Vec<Client> = halves.map(|_| Client::open(gapless.address)).into();
    for (client, half) in clients.iter_mut().zip(halves) {
        client.send(half).expect("sent");
    }
    for client in &mut clients {
        assert!(client.is_ended());
    }
    assert_eq!(endpoint.seen().len(), 0);
}

#[test]
fn others_may_not_connect_at_all() {
    let listener = "proxy_protocol = { from = [\"10.0.0.0/8\", \"::1\"] }";
    let (endpoint, gapless) = plain(&Config::new(), listener);
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4096 80\r\n";
    assert_eq!(status(&gapless, &[header, REQUEST].concat()), None);
    assert_eq!(status(&gapless, REQUEST), None);
    assert_eq!(endpoint.seen().len(), 0);
}

#[test]
fn nobody_is_believed_where_it_is_not_asked_for() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    for header in [
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4096 80\r\n".to_vec(),
        binary(0x21, 0x11, &[203, 0, 113, 7, 192, 0, 2, 1, 0x10, 0, 0, 80]),
    ] {
        let status = status(&gapless, &[&header, REQUEST].concat());
        assert!(status.is_none_or(|status| status == 400), "{status:?}");
    }
    assert_eq!(endpoint.seen().len(), 0);
}

#[test]
fn it_comes_before_the_handshake() {
    let tls = "[listen.proxy_protocol]\nfrom = [\"127.0.0.1\"]";
    let (endpoint, gapless, authority) = encrypted(&Config::new(), tls);
    let client = simple(&authority);
    Secure::connect(gapless.address, "a.example", &client).expect_err("no header");
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4096 443\r\n";
    let mut secure = Secure::connect_after(gapless.address, header, "a.example", &client)
        .expect("a header, then the handshake");
    assert_eq!(secure.ask(""), 200);
    assert_eq!(client_of(&endpoint), "203.0.113.7");
}
