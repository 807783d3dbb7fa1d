//! Checks of endpoints that are found by name, and of how names are looked up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{Dns, Located, LocatedTable};
use crate::config::{address, model};
use crate::logic::discovery::{
    AddressFamily, DiscoveryName, DnsNameError, EmptyAnswerPolicy, LookupPolicy, normalise_dns_name,
};
use crate::logic::model::network::Network;

/// Where DNS is spoken.
const DEFAULT_PORT: u16 = 53;
const MAX_ANSWERS_RANGE: RangeInclusive<usize> = 1..=10_000;
const MAX_ALLOWED_NETWORKS: usize = 100;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// What an endpoint is written as.
pub(super) enum EndpointTarget {
    Address(SocketAddr),
    /// By a name that leads to it.
    Name(DiscoveryName),
}

impl Validator<'_> {
    pub(super) fn dns(&mut self, given: Option<LocatedTable<Dns>>) -> model::DnsConfig {
        let LocatedTable { value: given, span: table } = given.unwrap_or_default();
        let default = LookupPolicy::default();
        let timeout = self
            .duration(&SettingKey::new(&table, "timeout", &given.timeout), DEFAULT_TIMEOUT)
            .value;
        let min =
            self.duration(&SettingKey::new(&table, "min_ttl", &given.min_ttl), default.min_ttl);
        let max =
            self.duration(&SettingKey::new(&table, "max_ttl", &given.max_ttl), default.max_ttl);
        self.check_not_longer(("min_ttl", &min), ("max_ttl", &max));
        let retry =
            self.duration(&SettingKey::new(&table, "retry", &given.retry), default.retry_min);
        let key = SettingKey::new(&table, "retry_max", &given.retry_max);
        let retry_max = self.duration(&key, default.retry_max);
        self.check_not_longer(("retry", &retry), ("retry_max", &retry_max));
        let key = SettingKey::new(&table, "family", &given.family);
        let family = self.setting(&key, default.family, |text| parse_family(text)).value;
        let key = SettingKey::new(&table, "empty", &given.empty);
        let empty = self.setting(&key, default.on_empty, |text| parse_empty_policy(text)).value;
        let key = SettingKey::new(&table, "max_answers", &given.max_answers);
        let max_answers = self.integer(&key, &MAX_ANSWERS_RANGE, default.max_answers);
        let allow = self.allowed_networks(&given.allow.unwrap_or_default());
        let policy = LookupPolicy {
            family,
            min_ttl: min.value,
            max_ttl: max.value,
            retry_min: retry.value,
            retry_max: retry_max.value,
            on_empty: empty,
            max_answers,
            allowed_networks: allow,
        };
        let servers = given.servers.map(|given| self.dns_servers(&given, &table));
        model::DnsConfig {
            servers,
            timeout,
            policy,
            entries: std::mem::take(&mut self.dns_entries),
        }
    }

    fn allowed_networks(&mut self, given: &[Located<String>]) -> Arc<[Network]> {
        if let Some(beyond) = given.get(MAX_ALLOWED_NETWORKS) {
            let message = format!("there are more than {MAX_ALLOWED_NETWORKS} networks");
            self.diagnostics.error(&beyond.span, Problem::new(message, "give larger ones"));
        }
        let read = |one: &Located<String>| match address::parse_network(&one.value) {
            Ok(network) => Some(network),
            Err(problem) => {
                self.diagnostics.error(&one.span, problem);
                None
            }
        };
        given.iter().take(MAX_ALLOWED_NETWORKS).filter_map(read).collect()
    }

    fn dns_servers(&mut self, given: &[Located<String>], table: &Range<usize>) -> Vec<SocketAddr> {
        if given.is_empty() {
            let help =
                "name one, such as \"10.0.0.53:53\", or leave `servers` away to go by the system";
            self.diagnostics.error(table, Problem::new("`servers` has no server", help));
        }
        let mut seen = HashMap::new();
        let mut servers = Vec::new();
        for one in given {
            match parse_server(&one.value) {
                Ok(address) => {
                    let problem =
                        Problem::new(format!("{address} is named twice"), "name each server once");
                    if self.is_unique(&mut seen, address, &one.span, problem) {
                        servers.push(address);
                    }
                }
                Err(problem) => {
                    self.diagnostics.error(&one.span, problem);
                }
            }
        }
        servers
    }
}

fn parse_server(text: &str) -> Result<SocketAddr, Problem> {
    let address = match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, DEFAULT_PORT)),
        Err(_) => address::parse_socket_address(text, "10.0.0.53:53"),
    };
    super::pool::check_reachable(address?)
}

fn parse_family(text: &str) -> Result<AddressFamily, Problem> {
    match text {
        "both" => Ok(AddressFamily::Both),
        "ipv4" => Ok(AddressFamily::Ipv4),
        "ipv6" => Ok(AddressFamily::Ipv6),
        _ => {
            let message = format!("`{text}` is no family of addresses");
            Err(Problem::new(message, "write \"both\", \"ipv4\" or \"ipv6\""))
        }
    }
}

fn parse_empty_policy(text: &str) -> Result<EmptyAnswerPolicy, Problem> {
    match text {
        "keep" => Ok(EmptyAnswerPolicy::Keep),
        "obey" => Ok(EmptyAnswerPolicy::Remove),
        _ => {
            let message = format!("`{text}` is not what can be done when a name has no endpoints");
            Err(Problem::new(message, "write \"keep\" or \"obey\""))
        }
    }
}

/// Reads `IP:PORT` or `NAME:PORT`.
pub(super) fn parse_target(text: &str) -> Result<EndpointTarget, Problem> {
    let example = "10.0.1.11:9000";
    if let Ok(address) = text.parse() {
        return super::pool::check_reachable(address).map(EndpointTarget::Address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.contains("://") => (host, Some(port)),
        _ => (text, None),
    };
    // What ends in a number is meant as an address (RFC 1123 2.1), and is none.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let has_letter = last.bytes().any(|b| b.is_ascii_alphabetic());
    if !has_letter || host.contains(['/', ':', '[', ' ']) {
        return address::parse_socket_address(text, example)
            .and_then(super::pool::check_reachable)
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
            Err(Problem::new(format!("`{port}` is no port"), "write a number from 1 to 65535"))
        }
    }
}

/// Reads the name of a service.
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
            problem(what, "names in DNS have 253 at most (RFC 1035)")
        }
        Err(DnsNameError::LabelTooLong(label)) => {
            let what = format!("has a part of {} characters", label.len());
            problem(what, "parts of names in DNS have 63 at most (RFC 1035)")
        }
        Err(DnsNameError::EmptyLabel) => {
            problem("has nothing between two dots".to_owned(), such_as)
        }
        Err(DnsNameError::InvalidCharacter(c)) => {
            let help =
                "names have letters, digits, `-`, `_` and `.`; others are written as \"xn--…\"";
            problem(format!("has a `{c}` in it"), help)
        }
        Err(DnsNameError::MisplacedHyphen(label)) => problem(
            format!("has the part `{label}`"),
            "a part begins and ends with a letter or a digit",
        ),
    }
}
