//! Parsers of `IP:PORT`, networks and host names; their errors explain how to write the value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::uri::Authority;

use super::diagnostics::Problem;
use crate::logic::model::network::{Network, NetworkError};
use crate::logic::routing::HostMatch;

/// Parses `IP:PORT`; `example` is a valid address for the help text.
pub(super) fn parse_socket_address(text: &str, example: &str) -> Result<SocketAddr, Problem> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some((_, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or(rest);
        return Err(Problem::new(
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
        return Err(Problem::new(
            format!("`{text}` has no port"),
            format!(
                "write it with one, such as \"{}\"",
                SocketAddr::new(ip, port.parse().unwrap_or(80))
            ),
        ));
    }
    Err(socket_address_problem(text, example))
}

fn socket_address_problem(text: &str, example: &str) -> Problem {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let has_numeric_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let such_as = format!("write an ip:port such as \"{example}\"");
    if has_numeric_port && port.parse::<u16>().is_err() {
        return Problem::new(format!("the port {port} is too large"), "write a port up to 65535");
    }
    if host.is_empty() && has_numeric_port {
        let any = format!("write it as \"0.0.0.0:{port}\" for every address of this machine");
        return Problem::new(format!("`{text}` has no IP address"), any);
    }
    let has_letter = host.bytes().any(|b| b.is_ascii_alphabetic());
    if has_letter && !host.contains(':') {
        return Problem::new(
            format!("`{host}` is a host name, and an ip:port is needed"),
            format!("{such_as}; names are not looked up here"),
        );
    }
    Problem::new(format!("`{text}` is not an ip:port"), such_as)
}

/// Parses a network such as `10.0.0.0/8`, or one address. Host bits beyond the prefix are an error.
pub(super) fn parse_network(text: &str) -> Result<Network, Problem> {
    let such_as = "write a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an IP address";
    Network::parse(text).map_err(|error| match error {
        NetworkError::HostBits(network) => Problem::new(
            format!("`{text}` has bits set beyond its first {}", network.prefix),
            format!("write it as \"{network}\""),
        ),
        NetworkError::PrefixTooLong => {
            Problem::new(format!("the prefix of `{text}` is longer than its address"), such_as)
        }
        NetworkError::Malformed => Problem::new(format!("`{text}` is not a network"), such_as),
    })
}

/// Parses the host of a route: an exact name, or `*.` and a name for all names below it.
pub(super) fn parse_host_match(text: &str) -> Result<HostMatch, Problem> {
    let Some(name) = text.strip_prefix("*.") else { return parse_host(text).map(HostMatch::Exact) };
    let name = parse_host(name)?;
    if name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok() {
        let help = "write the address, or a name such as \"*.example.com\"";
        return Err(Problem::new(format!("an address has no subdomains: {name}"), help));
    }
    Ok(HostMatch::Wildcard(name))
}

/// Parses a host without a port; returns it in lower case.
fn parse_host(text: &str) -> Result<String, Problem> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bare.is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) {
        return Ok(lower);
    }
    if let Some((name, port)) = lower.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
        && is_dns_name(name)
    {
        return Err(Problem::new(
            "a route's host is matched without its port",
            format!("write it as \"{name}\""),
        ));
    }
    if lower.contains('*') {
        return Err(Problem::new(
            format!("the `*` in `{text}` does not stand for all labels in front of a name"),
            "write it as \"*.example.com\", or remove `host` to match all",
        ));
    }
    if is_dns_name(&lower) {
        return Ok(lower);
    }
    let trimmed = lower.trim().trim_end_matches('.');
    Err(Problem::new(
        format!("`{text}` is not a host name"),
        if is_dns_name(trimmed) {
            format!("write it as \"{trimmed}\"")
        } else {
            "write a name such as \"api.example.com\"".to_owned()
        },
    ))
}

/// Parses the value of a Host header: a name or an address, with or without a port.
pub(super) fn parse_authority(text: &str) -> Result<String, Problem> {
    match text.parse::<Authority>() {
        Ok(authority) if !authority.as_str().contains('@') => Ok(text.to_owned()),
        _ => Err(Problem::new(
            format!("`{text}` cannot be a Host header"),
            "write a name such as \"web.internal\", with `:port` if needed",
        )),
    }
}

/// Longest name in DNS (RFC 1035).
const DNS_NAME_BYTES: usize = 253;

/// Longest label in DNS (RFC 1035).
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
    fn ip_with_port_parses_as_socket_address() {
        assert!(parse_socket_address("10.0.1.11:9000", "").is_ok());
        assert!(parse_socket_address("[::1]:9000", "").is_ok());
    }

    #[test]
    fn bad_socket_address_explains_the_syntax() {
        let problem_for = |text| parse_socket_address(text, "10.0.1.11:9000").unwrap_err();
        assert!(problem_for("db.internal:9000").message.contains("host name"));
        assert!(problem_for("localhost").message.contains("host name"));
        assert_eq!(problem_for("10.0.0.1").help, "write it with one, such as \"10.0.0.1:9000\"");
        assert_eq!(problem_for("::1").help, "write it with one, such as \"[::1]:9000\"");
        assert!(problem_for(":8080").help.contains("\"0.0.0.0:8080\""));
        assert_eq!(problem_for("10.0.0.1:99999").message, "the port 99999 is too large");
        assert_eq!(problem_for("http://10.0.0.1:80/x").help, "write it as \"10.0.0.1:80\"");
        assert!(problem_for("http://web/").help.contains("10.0.1.11:9000"));
        assert!(problem_for("").message.contains("not an ip:port"));
        assert!(problem_for("10.0.0.256:80").message.contains("not an ip:port"));
    }

    #[test]
    fn host_is_lowercased_and_port_is_rejected() {
        assert_eq!(parse_host("API.Example.com").as_deref(), Ok("api.example.com"));
        assert_eq!(parse_host("[::1]").as_deref(), Ok("[::1]"));
        assert_eq!(parse_host("10.0.0.1").as_deref(), Ok("10.0.0.1"));
        let help_for = |text| parse_host(text).unwrap_err().help;
        assert_eq!(help_for("example.com:8080"), "write it as \"example.com\"");
        assert_eq!(help_for("example.com."), "write it as \"example.com\"");
        assert!(help_for("a*.example.com").starts_with("write it as \"*.example.com\""));
        assert!(help_for("*").ends_with("remove `host` to match all"));
        assert_eq!(
            parse_host_match("*.Example.com"),
            Ok(HostMatch::Wildcard("example.com".to_owned()))
        );
        assert_eq!(parse_host_match("a.b"), Ok(HostMatch::Exact("a.b".to_owned())));
        for bad in ["*.", "*.*.b", "*.10.0.0.1", "*.[::1]", "*.b:80"] {
            assert!(parse_host_match(bad).is_err(), "{bad}");
        }
        assert!(help_for("").starts_with("write a name"));
        assert!(help_for("exämple.com").starts_with("write a name"));
    }

    #[test]
    fn network_with_host_bits_is_rejected() {
        let read = |text| parse_network(text).map(|network| network.to_string());
        assert_eq!(read("10.0.0.0/8").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(read("::1").as_deref(), Ok("::1/128"));
        assert_eq!(parse_network("10.1.0.0/8").unwrap_err().help, "write it as \"10.0.0.0/8\"");
        for bad in ["", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "web"] {
            assert!(parse_network(bad).unwrap_err().message.ends_with("is not a network"), "{bad}");
        }
        for long in ["10.0.0.0/33", "::/129"] {
            let message = parse_network(long).unwrap_err().message;
            assert!(message.ends_with("is longer than its address"), "{long}");
        }
    }
}
