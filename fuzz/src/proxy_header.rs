//! The header of the PROXY protocol: an accepted header has the same meaning in both versions, and
//! its length is exact.

use std::net::{IpAddr, SocketAddr};

use gapless::net::inbound::proxy_protocol::{ProxiedAddresses, parse_header};

/// Panics if `data` violates the property.
pub fn check(data: &[u8]) {
    let Some(parsed) = parse_header(data) else { return };
    assert!(data.len() <= 16 + 2_048, "it is bounded");
    for end in 0..data.len() {
        assert!(parse_header(&data[..end]).is_none(), "a part of it is one too");
    }
    assert!(parse_header(&[data, b"\n"].concat()).is_none(), "what follows belongs to it");
    let Some(addresses) = parsed else { return };
    assert_eq!(addresses.client.is_ipv4(), addresses.local.is_ipv4());
    assert_eq!(parse_header(&format_v1(&addresses)), Some(Some(addresses)));
    assert_eq!(parse_header(&format_v2(&addresses)), Some(Some(addresses)));
}

fn format_v1(addresses: &ProxiedAddresses) -> Vec<u8> {
    let ProxiedAddresses { client, local } = addresses;
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to, source, target) = (client.ip(), local.ip(), client.port(), local.port());
    format!("PROXY {family} {from} {to} {source} {target}\r\n").into_bytes()
}

fn format_v2(addresses: &ProxiedAddresses) -> Vec<u8> {
    let octets = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (client, local) = (octets(&addresses.client), octets(&addresses.local));
    let ports =
        [addresses.client.port().to_be_bytes(), addresses.local.port().to_be_bytes()].concat();
    let rest = [client, local, ports].concat();
    let family = if addresses.client.is_ipv4() { 0x11 } else { 0x21 };
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, family], &length, &rest].concat()
}
