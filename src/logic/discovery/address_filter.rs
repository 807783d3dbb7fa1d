//! Rejects addresses that no DNS record may turn into an endpoint. The author of a record must not
//! be able to direct the proxy at its own machine or at its cloud's metadata service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::logic::model::network::Network;

use super::lookup_answer::{LookupAnswer, LookupRecords, NegativeReason};

const fn ipv4_network(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Network {
    Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
}

const fn ipv6_network(bits: u128, prefix: u8) -> Network {
    Network { address: IpAddr::V6(Ipv6Addr::from_bits(bits)), prefix }
}

const LOOPBACK: [Network; 2] = [ipv4_network(127, 0, 0, 0, 8), ipv6_network(1, 128)];

/// Link-local addresses, where most clouds serve metadata, and the metadata addresses elsewhere.
const LINK_LOCAL_AND_METADATA: [Network; 8] = [
    ipv4_network(169, 254, 0, 0, 16),
    ipv6_network(0xfe80 << 112, 10),
    // Amazon EC2, Google Cloud.
    ipv6_network(0xfd00_0ec2_0000_0000_0000_0000_0000_0254, 128),
    ipv6_network(0xfd20_00ce_0000_0000_0000_0000_0000_0254, 128),
    // Alibaba, Azure, Oracle.
    ipv4_network(100, 100, 100, 200, 32),
    ipv4_network(168, 63, 129, 16, 32),
    ipv4_network(192, 0, 0, 192, 32),
    // Limited broadcast.
    ipv4_network(255, 255, 255, 255, 32),
];

/// Whether the address may be an endpoint of the host `name`. `allow` lifts the restrictions. The
/// name `localhost` always permits loopback (RFC 6761, 6.3).
pub(super) fn is_permitted(name: &str, ip: IpAddr, allow: &[Network]) -> bool {
    let is_in = |networks: &[Network]| networks.iter().any(|network| network.contains(ip));
    if is_in(LOOPBACK.as_slice()) {
        let name = name.strip_suffix('.').unwrap_or(name);
        return name == "localhost" || name.ends_with(".localhost") || is_in(allow);
    }
    !is_in(LINK_LOCAL_AND_METADATA.as_slice()) || is_in(allow)
}

/// Removes forbidden addresses from an answer and returns them separately.
pub(super) fn filter_forbidden(
    name: &str,
    answer: LookupAnswer,
    allow: &[Network],
) -> (LookupAnswer, Vec<IpAddr>) {
    let LookupAnswer::Found { records: LookupRecords::Addresses(all), ttl } = answer else {
        return (answer, Vec::new());
    };
    let (permitted, mut refused): (Vec<IpAddr>, Vec<IpAddr>) =
        all.into_iter().partition(|&ip| is_permitted(name, ip, allow));
    refused.sort_unstable();
    refused.dedup();
    let answer = if permitted.is_empty() && !refused.is_empty() {
        LookupAnswer::Negative { reason: NegativeReason::Forbidden, ttl: Some(ttl) }
    } else {
        LookupAnswer::Found { records: LookupRecords::Addresses(permitted), ttl }
    };
    (answer, refused)
}
