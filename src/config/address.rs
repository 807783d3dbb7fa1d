//! `IP:PORT` and host names: text to value, or what is wrong and how to write it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::uri::Authority;

use super::findings::Flaw;
use crate::logic::network::{Network, NetworkError};
use crate::logic::route::HostMatch;

/// Reads `IP:PORT`; `example` is a complete address of the kind that is wanted.
pub(super) fn socket(text: &str, example: &str) -> Result<SocketAddr, Flaw> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some((_, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or(rest);
        return Err(Flaw::new(
            format!("`{text}` is a URL, not an address"),
            if rest.parse::<SocketAddr>().is_ok() {
                format!("write it as \"{rest}\"")
            } else {
                format!("write an ip:port such as \"{example}\"")
            },
        ));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let port = example.rsplit(':').next().unwrap_or_default();
        return Err(Flaw::new(
            format!("`{text}` has no port"),
            format!(
                "write it with one, such as \"{}\"",
                SocketAddr::new(ip, port.parse().unwrap_or(80))
            ),
        ));
    }
    Err(unreadable(text, example))
}

fn unreadable(text: &str, example: &str) -> Flaw {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let numeric_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let such_as = format!("write an ip:port such as \"{example}\"");
    if numeric_port && port.parse::<u16>().is_err() {
        return Flaw::new(format!("the port {port} is too large"), "write a port up to 65535");
    }
    if host.is_empty() && numeric_port {
        let any = format!("write it as \"0.0.0.0:{port}\" for every address of this machine");
        return Flaw::new(format!("`{text}` has no IP address"), any);
    }
    let letters = host.bytes().any(|b| b.is_ascii_alphabetic());
    if letters && !host.contains(':') {
        return Flaw::new(
            format!("`{host}` is a host name, and an ip:port is needed"),
            format!("{such_as}; names are not looked up here"),
        );
    }
    Flaw::new(format!("`{text}` is not an ip:port"), such_as)
}

/// Reads a network such as `10.0.0.0/8`, or one address. Bits beyond the prefix are a mistake.
pub(super) fn network(text: &str) -> Result<Network, Flaw> {
    let such_as = "write a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an IP address";
    Network::parse(text).map_err(|error| match error {
        NetworkError::HostBits(network) => Flaw::new(
            format!("`{text}` has bits set beyond its first {}", network.prefix),
            format!("write it as \"{network}\""),
        ),
        NetworkError::TooLong => {
            Flaw::new(format!("the prefix of `{text}` is longer than its address"), such_as)
        }
        NetworkError::Malformed => Flaw::new(format!("`{text}` is not a network"), such_as),
    })
}

/// Reads the hosts of a route: one, or with `*.` in front all below it.
pub(super) fn hosts(text: &str) -> Result<HostMatch, Flaw> {
    let Some(name) = text.strip_prefix("*.") else { return host(text).map(HostMatch::Exact) };
    let name = host(name)?;
    if name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok() {
        let mend = "write the address, or a name such as \"*.example.com\"";
        return Err(Flaw::new(format!("nothing is below the address {name}"), mend));
    }
    Ok(HostMatch::Under(name))
}

/// Reads a host: lower case, without a port.
fn host(text: &str) -> Result<String, Flaw> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bare.is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) {
        return Ok(lower);
    }
    if let Some((name, port)) = lower.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
        && is_dns_name(name)
    {
        return Err(Flaw::new(
            "a route's host is matched without its port",
            format!("write it as \"{name}\""),
        ));
    }
    if lower.contains('*') {
        return Err(Flaw::new(
            format!("the `*` in `{text}` does not stand for all labels in front of a name"),
            "write it as \"*.example.com\", or leave `host` away to match all",
        ));
    }
    if is_dns_name(&lower) {
        return Ok(lower);
    }
    let trimmed = lower.trim().trim_end_matches('.');
    Err(Flaw::new(
        format!("`{text}` is not a host name"),
        if is_dns_name(trimmed) {
            format!("write it as \"{trimmed}\"")
        } else {
            "write a name such as \"api.example.com\"".to_owned()
        },
    ))
}

/// Reads what can be a Host header: a name or an address, with a port or without.
pub(super) fn authority(text: &str) -> Result<String, Flaw> {
    match text.parse::<Authority>() {
        Ok(authority) if !authority.as_str().contains('@') => Ok(text.to_owned()),
        _ => Err(Flaw::new(
            format!("`{text}` cannot be a Host header"),
            "write a name such as \"web.internal\", with `:port` if need be",
        )),
    }
}

/// Longest name that DNS carries.
const DNS_NAME_BYTES: usize = 253;

/// Longest part between two dots.
const DNS_LABEL_BYTES: usize = 63;

fn is_dns_name(text: &str) -> bool {
    text.len() <= DNS_NAME_BYTES
        && text.split('.').all(|label| {
            (1..=DNS_LABEL_BYTES).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_and_a_port() {
        assert!(socket("10.0.1.11:9000", "").is_ok());
        assert!(socket("[::1]:9000", "").is_ok());
    }

    #[test]
    fn what_is_no_address_says_how_to_write_it() {
        let flaw = |text| socket(text, "10.0.1.11:9000").unwrap_err();
        assert!(flaw("db.internal:9000").message.contains("host name"));
        assert!(flaw("localhost").message.contains("host name"));
        assert_eq!(flaw("10.0.0.1").mend, "write it with one, such as \"10.0.0.1:9000\"");
        assert_eq!(flaw("::1").mend, "write it with one, such as \"[::1]:9000\"");
        assert!(flaw(":8080").mend.contains("\"0.0.0.0:8080\""));
        assert_eq!(flaw("10.0.0.1:99999").message, "the port 99999 is too large");
        assert_eq!(flaw("http://10.0.0.1:80/x").mend, "write it as \"10.0.0.1:80\"");
        assert!(flaw("http://web/").mend.contains("10.0.1.11:9000"));
        assert!(flaw("").message.contains("not an ip:port"));
        assert!(flaw("10.0.0.256:80").message.contains("not an ip:port"));
    }

    #[test]
    fn a_host_is_lower_case_and_without_a_port() {
        assert_eq!(host("API.Example.com").as_deref(), Ok("api.example.com"));
        assert_eq!(host("[::1]").as_deref(), Ok("[::1]"));
        assert_eq!(host("10.0.0.1").as_deref(), Ok("10.0.0.1"));
        let mend = |text| host(text).unwrap_err().mend;
        assert_eq!(mend("example.com:8080"), "write it as \"example.com\"");
        assert_eq!(mend("example.com."), "write it as \"example.com\"");
        assert!(mend("a*.example.com").starts_with("write it as \"*.example.com\""));
        assert!(mend("*").ends_with("leave `host` away to match all"));
        assert_eq!(hosts("*.Example.com"), Ok(HostMatch::Under("example.com".to_owned())));
        assert_eq!(hosts("a.b"), Ok(HostMatch::Exact("a.b".to_owned())));
        for bad in ["*.", "*.*.b", "*.10.0.0.1", "*.[::1]", "*.b:80"] {
            assert!(hosts(bad).is_err(), "{bad}");
        }
        assert!(mend("").starts_with("write a name"));
        assert!(mend("exämple.com").starts_with("write a name"));
    }

    #[test]
    fn a_network_is_written_without_surplus_bits() {
        let read = |text| network(text).map(|network| network.to_string());
        assert_eq!(read("10.0.0.0/8").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(read("::1").as_deref(), Ok("::1/128"));
        assert_eq!(network("10.1.0.0/8").unwrap_err().mend, "write it as \"10.0.0.0/8\"");
        for bad in ["", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "web"] {
            assert!(network(bad).unwrap_err().message.ends_with("is not a network"), "{bad}");
        }
        for long in ["10.0.0.0/33", "::/129"] {
            let message = network(long).unwrap_err().message;
            assert!(message.ends_with("is longer than its address"), "{long}");
        }
    }
}
