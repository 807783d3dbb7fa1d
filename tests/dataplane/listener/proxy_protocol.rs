//! The PROXY protocol: trusted peers, valid and invalid headers.

use std::io::ErrorKind;

use super::tls_client::{TlsTestClient, default_client_config};
use super::{start_cleartext, start_tls};
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn start_trusting_loopback() -> (TestEndpoint, Gapless) {
    let config = ConfigBuilder::new().tables("[limits]\nheader_timeout = \"1s\"");
    start_cleartext(&config, "proxy_protocol = { from = [\"10.0.0.0/8\", \"127.0.0.0/8\"] }")
}

/// Version 2: command, family, payload.
fn v2_header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [V2_SIGNATURE, &[command, family], &length, rest].concat()
}

/// Addresses and a TLV, of this total length.
fn v2_rest_with_tlv(length: usize) -> Vec<u8> {
    let addresses = [203, 0, 113, 7, 192, 0, 2, 1, 0x10, 0, 0, 80];
    let value_length = length - addresses.len() - 3;
    let [high, low] = u16::try_from(value_length).expect("short").to_be_bytes();
    [&addresses[..], &[0x04, high, low], &vec![0; value_length]].concat()
}

/// The response status; `None` if the connection ended without one, when
/// it was accepted or later.
fn response_status(gapless: &Gapless, bytes: &[u8]) -> Option<u16> {
    let mut client = match TestClient::connect(gapless.address) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
        connected => connected.expect("a connection"),
    };
    client.send(bytes).ok()?;
    client.read_response("GET").ok().map(|answer| answer.status)
}

fn forwarded_client(endpoint: &TestEndpoint) -> String {
    let seen = endpoint.requests();
    let last = seen.last().expect("a request");
    last.head.field("x-forwarded-for").expect("an address").to_owned()
}

#[test]
fn proxy_header_sets_the_client_address() {
    let (endpoint, gapless) = start_trusting_loopback();
    let mut ipv6_addresses = [0; 36];
    ipv6_addresses[..16]
        .copy_from_slice(&"2001:db8::7".parse::<std::net::Ipv6Addr>().expect("v6").octets());
    let ipv4_addresses = [203, 0, 113, 7, 192, 0, 2, 1, 0x10, 0, 0, 80];
    let with_tlvs = v2_rest_with_tlv(8 * 1024);
    let cases: [(&[u8], &str); 8] = [
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 4096 80\r\n", "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4096 80\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY UNKNOWN 203.0.113.7 192.0.2.1 4096 80\r\n", "127.0.0.1"),
        (&v2_header(0x21, 0x11, &ipv4_addresses), "203.0.113.7"),
        (&v2_header(0x21, 0x11, &with_tlvs), "203.0.113.7"),
        (&v2_header(0x21, 0x21, &ipv6_addresses), "2001:db8::7"),
        (&v2_header(0x20, 0x00, b""), "127.0.0.1"),
    ];
    for (header, client) in cases {
        // In one piece, and byte by byte.
        assert_eq!(response_status(&gapless, &[header, REQUEST].concat()), Some(200), "{header:?}");
        assert_eq!(forwarded_client(&endpoint), client, "{header:?}");
        let mut slow = TestClient::open(gapless.address);
        for byte in [header, REQUEST].concat() {
            slow.send([byte]).expect("sent");
        }
        assert_eq!(slow.read_response("GET").expect("an answer").status, 200, "{header:?}");
        assert_eq!(forwarded_client(&endpoint), client, "{header:?}");
    }
}

#[test]
fn malformed_proxy_header_closes_the_connection() {
    let (endpoint, gapless) = start_trusting_loopback();
    let line = |text: &str| text.as_bytes().to_vec();
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    let ipv4_addresses = [203, 0, 113, 7, 192, 0, 2, 1, 0x10, 0, 0, 80];
    let invalid_headers = [
        Vec::new(),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 4096\r\n"),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 4096 80\n"),
        line("PROXY TCP9 203.0.113.7 192.0.2.1 4096 80\r\n"),
        line("PROXY TCP4 203.0.113.7 192.0.2.1 04096 80\r\n"),
        line("proxy TCP4 203.0.113.7 192.0.2.1 4096 80\r\n"),
        line(&long),
        v2_header(0x31, 0x11, &ipv4_addresses),
        v2_header(0x21, 0x11, &ipv4_addresses[..11]),
        v2_header(0x21, 0x12, &ipv4_addresses),
        v2_header(0x21, 0x11, &[&ipv4_addresses[..], &[1, 0, 9, 0]].concat()),
        v2_header(0x21, 0x11, &v2_rest_with_tlv(8 * 1024 + 1)),
    ];
    for header in &invalid_headers {
        assert_eq!(response_status(&gapless, &[header, REQUEST].concat()), None, "{header:?}");
    }
    assert_eq!(endpoint.requests().len(), 0);
    let refused = gapless.metric("gapless_proxy_protocol_refused_total");
    assert_eq!(refused, invalid_headers.len() as f64);
}

#[test]
fn longest_proxy_header_is_accepted_if_configured() {
    let listener = "proxy_protocol = { from = [\"127.0.0.1\"], max_header = 65535 }";
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), listener);
    let header = v2_header(0x21, 0x11, &v2_rest_with_tlv(65_535));
    assert_eq!(response_status(&gapless, &[&header, REQUEST].concat()), Some(200));
    assert_eq!(forwarded_client(&endpoint), "203.0.113.7");
}

#[test]
fn partial_proxy_header_times_out() {
    let (endpoint, gapless) = start_trusting_loopback();
    let partial_headers: [&[u8]; 4] = [b"", b"PROXY TCP4 203.0.1", V2_SIGNATURE, b"PROXY UNKNOWN"];
    let mut clients: Vec<TestClient> =
        partial_headers.map(|_| TestClient::open(gapless.address)).into();
    for (client, partial_header) in clients.iter_mut().zip(partial_headers) {
        client.send(partial_header).expect("sent");
    }
    for client in &mut clients {
        assert!(client.is_closed_by_server());
    }
    assert_eq!(endpoint.requests().len(), 0);
}

#[test]
fn connection_from_unlisted_proxy_is_closed() {
    let listener = "proxy_protocol = { from = [\"10.0.0.0/8\", \"::1\"] }";
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), listener);
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4096 80\r\n";
    assert_eq!(response_status(&gapless, &[header, REQUEST].concat()), None);
    assert_eq!(response_status(&gapless, REQUEST), None);
    assert_eq!(endpoint.requests().len(), 0);
}

#[test]
fn proxy_header_on_other_listeners_is_rejected() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    for header in [
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4096 80\r\n".to_vec(),
        v2_header(0x21, 0x11, &[203, 0, 113, 7, 192, 0, 2, 1, 0x10, 0, 0, 80]),
    ] {
        let status = response_status(&gapless, &[&header, REQUEST].concat());
        assert!(status.is_none_or(|status| status == 400), "{status:?}");
    }
    assert_eq!(endpoint.requests().len(), 0);
}

#[test]
fn proxy_header_precedes_the_tls_handshake() {
    let tls = "[listen.proxy_protocol]\nfrom = [\"127.0.0.1\"]";
    let (endpoint, gapless, authority) = start_tls(&ConfigBuilder::new(), tls);
    let client = default_client_config(&authority);
    TlsTestClient::connect(gapless.address, "a.example", &client).expect_err("no header");
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4096 443\r\n";
    let mut connection =
        TlsTestClient::connect_with_prefix(gapless.address, header, "a.example", &client)
            .expect("a header, then the handshake");
    assert_eq!(connection.request_status(""), 200);
    assert_eq!(forwarded_client(&endpoint), "203.0.113.7");
}
