//! Parsers of the target of an endpoint: an address, a name with a port, or the name of a service.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::address;
use crate::config::diagnostics::Problem;
use crate::logic::discovery::{DiscoveryName, DnsNameError, normalise_dns_name};

/// The target of an endpoint.
pub(super) enum EndpointTarget {
    Address(SocketAddr),
    /// A name that resolves to endpoints.
    Name(DiscoveryName),
}

/// Parses `IP:PORT` or `NAME:PORT`.
pub(super) fn parse_target(text: &str) -> Result<EndpointTarget, Problem> {
    let example = "10.0.1.11:9000";
    if let Ok(address) = text.parse() {
        return check_reachable(address).map(EndpointTarget::Address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.contains("://") => (host, Some(port)),
        _ => (text, None),
    };
    // A host that ends in a number is a malformed address (RFC 1123 2.1).
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let has_letter = last.bytes().any(|b| b.is_ascii_alphabetic());
    if !has_letter || host.contains(['/', ':', '[', ' ']) {
        return address::parse_socket_address(text, example)
            .and_then(check_reachable)
            .map(EndpointTarget::Address);
    }
    let name = parse_name(host)?;
    let problem = || {
        let help = format!(
            "write it as \"{host}:9000\"; a service, whose records have ports, as {{ srv = \"_http._tcp.{host}\" }}"
        );
        Problem::new(format!("`{text}` has no port"), help)
    };
    let port = port.filter(|port| !port.is_empty()).ok_or_else(problem)?;
    match port.parse::<u16>() {
        Ok(0) => Err(Problem::new(
            "nothing can be reached at port 0",
            "write the port that the endpoint listens on",
        )),
        Ok(port) => Ok(EndpointTarget::Name(DiscoveryName::Host { name, port })),
        Err(_) => {
            Err(Problem::new(format!("`{port}` is not a port"), "write a number from 1 to 65535"))
        }
    }
}

/// Parses the name of a service.
pub(super) fn parse_service(text: &str) -> Result<DiscoveryName, Problem> {
    if let Some((host, _)) = text.rsplit_once(':') {
        let help = format!("write it as \"{host}\"");
        return Err(Problem::new("a service has no port: its records say which", help));
    }
    parse_name(text).map(|name| DiscoveryName::Service { name })
}

fn parse_name(text: &str) -> Result<Arc<str>, Problem> {
    let problem = |what: String, help: &str| Err(Problem::new(format!("`{text}` {what}"), help));
    let such_as = "write a name such as \"web.example\"";
    match normalise_dns_name(text) {
        Ok(name) => Ok(name.into()),
        Err(DnsNameError::Empty) => problem("is not a name".to_owned(), such_as),
        Err(DnsNameError::NameTooLong(bytes)) => {
            let what = format!("has {bytes} characters");
            problem(what, "a DNS name has at most 253 characters (RFC 1035)")
        }
        Err(DnsNameError::LabelTooLong(label)) => {
            let what = format!("has a label of {} characters", label.len());
            problem(what, "a label has at most 63 characters (RFC 1035)")
        }
        Err(DnsNameError::EmptyLabel) => problem("has an empty label".to_owned(), such_as),
        Err(DnsNameError::InvalidCharacter(c)) => {
            let help =
                "names have letters, digits, `-`, `_` and `.`; others are written as \"xn--…\"";
            problem(format!("has a `{c}` in it"), help)
        }
        Err(DnsNameError::MisplacedHyphen(label)) => problem(
            format!("has the label `{label}`"),
            "a label begins and ends with a letter or a digit",
        ),
    }
}

/// Rejects addresses that cannot be connected to: port 0 and the unspecified address.
pub(super) fn check_reachable(address: SocketAddr) -> Result<SocketAddr, Problem> {
    if address.port() == 0 {
        let help = "write the port that the endpoint listens on";
        return Err(Problem::new("nothing can be reached at port 0", help));
    }
    if address.ip().is_unspecified() {
        let help =
            format!("write the endpoint's own address, such as \"127.0.0.1:{}\"", address.port());
        return Err(Problem::new(format!("{} stands for every address", address.ip()), help));
    }
    Ok(address)
}
