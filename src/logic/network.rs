//! Networks of IP addresses, as operators write them: an address, and how much of it counts.

use std::fmt;
use std::net::IpAddr;

/// All addresses that begin with the same bits (RFC 4632).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its first address.
    pub address: IpAddr,
    /// How many bits all its addresses share: at most 32 for IPv4, 128 for IPv6.
    pub prefix: u8,
}

impl Network {
    /// The network of `address` and whatever shares its first `prefix` bits; `None` if it has not so
    /// many. What is IPv4 in the form of IPv6 is IPv4 here.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let (address, prefix) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(v4)) => (IpAddr::V4(v4), prefix.checked_sub(96)?),
            (address, _) => (address, prefix),
        };
        let (first, prefix) = match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                (IpAddr::V4((v4.to_bits() & mask).into()), prefix)
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                (IpAddr::V6((v6.to_bits() & mask).into()), prefix)
            }
            _ => return None,
        };
        Some(Self { address: first, prefix })
    }

    /// The network that has this address only.
    #[must_use]
    pub fn only(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether `ip` is one of its addresses.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let same_kind = ip.is_ipv4() == self.address.is_ipv4();
        same_kind && Self::new(ip, self.prefix).is_some_and(|other| other.address == self.address)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_the_first_bits_count() {
        let network = Network::new(ip("10.1.2.3"), 20).expect("a network");
        assert_eq!(network.to_string(), "10.1.0.0/20");
        assert!(network.contains(ip("10.1.15.255")) && network.contains(ip("10.1.0.0")));
        assert!(!network.contains(ip("10.1.16.0")) && !network.contains(ip("11.1.0.0")));
        let network = Network::new(ip("2001:db8::1"), 33).expect("a network");
        assert!(
            network.contains(ip("2001:db8:7fff::")) && !network.contains(ip("2001:db8:8000::"))
        );
    }

    #[test]
    fn all_and_one() {
        let all = Network::new(ip("1.2.3.4"), 0).expect("a network");
        assert!(all.contains(ip("255.255.255.255")) && !all.contains(ip("::1")));
        assert!(Network::new(ip("::"), 0).expect("a network").contains(ip("ffff::")));
        assert!(Network::only(ip("::1")).contains(ip("::1")));
        assert!(!Network::only(ip("10.0.0.1")).contains(ip("10.0.0.2")));
        assert_eq!(Network::new(ip("1.2.3.4"), 33), None);
        assert_eq!(Network::new(ip("::"), 129), None);
    }

    #[test]
    fn ipv4_in_the_form_of_ipv6_is_ipv4() {
        let network = Network::new(ip("::ffff:10.0.0.0"), 104).expect("a network");
        assert_eq!(network, Network::new(ip("10.0.0.0"), 8).expect("a network"));
        assert!(network.contains(ip("::ffff:10.9.9.9")) && network.contains(ip("10.9.9.9")));
        assert_eq!(Network::new(ip("::ffff:10.0.0.0"), 8), None);
    }
}
