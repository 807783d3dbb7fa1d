//! CIDR networks as operators write them: `10.0.0.0/8`, `2001:db8::/32`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All addresses that share a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// The lowest address of the network.
    pub address: IpAddr,
    /// Prefix length in bits: up to 32 for IPv4, up to 128 for IPv6.
    pub prefix: u8,
}

/// The reason why a text is no valid network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// Neither an address nor an address with a prefix length.
    Malformed,
    /// The prefix is longer than the address.
    PrefixTooLong,
    /// Bits after the prefix are set; the payload is the network without them.
    HostBits(Network),
}

impl Network {
    /// Parses `address/prefix`. An address without a prefix is a network of one address.
    ///
    /// # Errors
    /// [`NetworkError`]. Host bits are an error because such a network is rarely the intended one.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| NetworkError::PrefixTooLong)?
            }
            Some(_) => return Err(NetworkError::Malformed),
        };
        if prefix > bits {
            return Err(NetworkError::PrefixTooLong);
        }
        let network = Self { address: mask_address(address, prefix), prefix };
        if network.address == address { Ok(network) } else { Err(NetworkError::HostBits(network)) }
    }

    /// Whether `address` is in the network. An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) counts
    /// as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && mask_address(address, self.prefix) == self.address
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Keeps the first `prefix` bits of `address` and clears the others.
pub fn mask_address(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn network_text_is_parsed_or_rejected() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.7/32", "::/0", "2001:db8::/32", "::1/128"]
        {
            assert_eq!(Network::parse(text).expect("a network").to_string(), text);
        }
        assert_eq!(Network::parse("10.1.2.3").expect("a single address").prefix, 32);
        assert_eq!(Network::parse("::1").expect("a single address").prefix, 128);
        for bad in
            ["", "/8", "10.0.0.0/", "10.0.0/8", "a/8", "10.0.0.0/+8", "10.0.0.0/8/8", "[::]/0"]
        {
            assert_eq!(Network::parse(bad), Err(NetworkError::Malformed), "{bad:?}");
        }
        for long in ["10.0.0.0/33", "::/129", "10.0.0.0/999"] {
            assert_eq!(Network::parse(long), Err(NetworkError::PrefixTooLong), "{long:?}");
        }
        let Err(NetworkError::HostBits(network)) = Network::parse("10.1.2.3/8") else {
            panic!("host bits are set")
        };
        assert_eq!(network.to_string(), "10.0.0.0/8");
    }

    #[test]
    fn network_contains_only_its_addresses() {
        let ten = Network::parse("10.0.0.0/8").expect("a network");
        assert!(ten.contains(ip("10.255.255.255")) && ten.contains(ip("::ffff:10.0.0.1")));
        assert!(!ten.contains(ip("11.0.0.0")) && !ten.contains(ip("a00::")));
        let all = Network::parse("::/0").expect("a network");
        assert!(all.contains(ip("2001:db8::1")) && !all.contains(ip("10.0.0.1")));
    }

    proptest! {
        #[test]
        fn network_contains_exactly_addresses_with_its_prefix(
            bits in any::<u128>(), other in any::<u128>(), prefix in 0_u8..=128,
        ) {
            let (a, b) = (Ipv6Addr::from_bits(bits), Ipv6Addr::from_bits(other));
            let network = Network { address: mask_address(a.into(), prefix), prefix };
            prop_assert!(network.contains(a.into()) || a.to_ipv4_mapped().is_some());
            let same = prefix == 0 || (bits ^ other) >> (128 - u32::from(prefix)) == 0;
            let mapped = b.to_ipv4_mapped().is_some();
            prop_assert_eq!(network.contains(b.into()), same && !mapped);
        }
    }
}
