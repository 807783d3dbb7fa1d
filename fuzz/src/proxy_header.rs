//! The header of the PROXY protocol: what is taken for one says the same in both versions, and ends
//! where it ends.

use std::net::{IpAddr, SocketAddr};

use gapless::net::inbound::proxy::{Ends, parse};

/// Panics if `data` breaks it.
pub fn holds(data: &[u8]) {
    let Some(said) = parse(data) else { return };
    assert!(data.len() <= 16 + 2_048, "it is bounded");
    for end in 0..data.len() {
        assert!(parse(&data[..end]).is_none(), "a part of it is one too");
    }
    assert!(parse(&[data, b"\n"].concat()).is_none(), "what follows belongs to it");
    let Some(ends) = said else { return };
    assert_eq!(ends.client.is_ipv4(), ends.local.is_ipv4());
    assert_eq!(parse(&line(&ends)), Some(Some(ends)));
    assert_eq!(parse(&binary(&ends)), Some(Some(ends)));
}

fn line(ends: &Ends) -> Vec<u8> {
    let Ends { client, local } = ends;
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to, source, target) = (client.ip(), local.ip(), client.port(), local.port());
    format!("PROXY {family} {from} {to} {source} {target}\r\n").into_bytes()
}

fn binary(ends: &Ends) -> Vec<u8> {
    let octets = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (client, local) = (octets(&ends.client), octets(&ends.local));
    let ports = [ends.client.port().to_be_bytes(), ends.local.port().to_be_bytes()].concat();
    let rest = [client, local, ports].concat();
    let family = if ends.client.is_ipv4() { 0x11 } else { 0x21 };
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, family], &length, &rest].concat()
}
