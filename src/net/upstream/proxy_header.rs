//! Encodes headers of HAProxy's PROXY protocol, versions 1 and 2, which carry a client's address.

use std::net::{IpAddr, SocketAddr};

use crate::logic::model::upstream_protocol::ProxyProtocolVersion;

/// The start of a version 2 header.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, command PROXY: the connection relays that of a client.
const V2_COMMAND_PROXY: u8 = 0x21;

/// Version 2, command LOCAL: a connection of the proxy itself.
const V2_COMMAND_LOCAL: u8 = 0x20;

const V2_FAMILY_TCP4: u8 = 0x11;
const V2_FAMILY_TCP6: u8 = 0x21;

/// Signature, command, family, length, and two IPv6 addresses with ports.
const V2_MAX_BYTES: usize = 52;
const V2_MAX_ADDRESS_BYTES: usize = 36;

/// Both ends of the client's connection, for which a connection to an endpoint is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownstreamAddresses {
    pub remote: SocketAddr,
    /// The address at which its connection was accepted.
    pub local: SocketAddr,
}

/// The header for a connection that relays that of `downstream`.
pub(super) fn encode(version: ProxyProtocolVersion, downstream: DownstreamAddresses) -> Vec<u8> {
    let (from, to) = to_same_family(downstream);
    match version {
        ProxyProtocolVersion::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let (source, target) = (from.ip(), to.ip());
            format!("PROXY {family} {source} {target} {} {}\r\n", from.port(), to.port())
                .into_bytes()
        }
        ProxyProtocolVersion::V2 => encode_v2(from, to),
    }
}

/// The header for a connection of the proxy itself, such as a probe's.
pub(in crate::net) fn encode_local(version: ProxyProtocolVersion) -> Vec<u8> {
    match version {
        ProxyProtocolVersion::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        ProxyProtocolVersion::V2 => [&V2_SIGNATURE[..], &[V2_COMMAND_LOCAL, 0, 0, 0]].concat(),
    }
}

/// Both addresses in one family: as IPv4 if both are, else as IPv6.
fn to_same_family(downstream: DownstreamAddresses) -> (SocketAddr, SocketAddr) {
    let to_canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (from, to) = (to_canonical(downstream.remote), to_canonical(downstream.local));
    if from.is_ipv4() == to.is_ipv4() {
        return (from, to);
    }
    let to_ipv6 = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (to_ipv6(from), to_ipv6(to))
}

fn encode_v2(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(V2_MAX_ADDRESS_BYTES);
    for address in [from, to] {
        match address.ip() {
            IpAddr::V4(ip) => addresses.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => addresses.extend_from_slice(&ip.octets()),
        }
    }
    for address in [from, to] {
        addresses.extend_from_slice(&address.port().to_be_bytes());
    }
    let family = if from.is_ipv4() { V2_FAMILY_TCP4 } else { V2_FAMILY_TCP6 };
    let mut header = Vec::with_capacity(V2_MAX_BYTES);
    header.extend_from_slice(V2_SIGNATURE);
    header.extend_from_slice(&[V2_COMMAND_PROXY, family, 0, addresses.len() as u8]);
    header.extend_from_slice(&addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn downstream(address: &str, local: &str) -> DownstreamAddresses {
        let parse = |text: &str| text.parse().expect("an address");
        DownstreamAddresses { remote: parse(address), local: parse(local) }
    }

    #[test]
    fn v1_header_has_family_addresses_and_ports() {
        let header = |address, local| {
            String::from_utf8(encode(ProxyProtocolVersion::V1, downstream(address, local)))
                .expect("text")
        };
        assert_eq!(
            header("192.0.2.7:5000", "192.0.2.1:80"),
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\n"
        );
        assert_eq!(
            header("[2001:db8::7]:5000", "[2001:db8::1]:443"),
            "PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n"
        );
        assert_eq!(
            header("[::ffff:192.0.2.7]:5000", "[::ffff:192.0.2.1]:80"),
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\n"
        );
        assert_eq!(
            header("192.0.2.7:5000", "[2001:db8::1]:80"),
            "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 5000 80\r\n"
        );
    }

    #[test]
    fn local_header_has_no_addresses() {
        assert_eq!(encode_local(ProxyProtocolVersion::V1), b"PROXY UNKNOWN\r\n");
        assert_eq!(encode_local(ProxyProtocolVersion::V2), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }

    #[test]
    fn v2_header_has_family_addresses_and_ports() {
        let four = encode(ProxyProtocolVersion::V2, downstream("192.0.2.7:5000", "192.0.2.1:80"));
        let expected =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x01\x13\x88\0\x50";
        assert_eq!(four, expected);
        let six =
            encode(ProxyProtocolVersion::V2, downstream("[2001:db8::7]:5000", "[2001:db8::1]:80"));
        assert_eq!((six.len(), &six[12..16]), (52, &[0x21, 0x21, 0, 36][..]));
        assert_eq!(six[48..], [0x13, 0x88, 0, 80]);
    }
}
