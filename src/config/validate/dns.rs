//! Checks of the resolution of names.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::endpoint_target::check_reachable;
use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{Dns, Located, LocatedTable};
use crate::config::{address, model};
use crate::logic::discovery::{AddressFamily, EmptyAnswerPolicy, LookupPolicy};

/// The port of DNS servers (RFC 1035).
const DEFAULT_PORT: u16 = 53;
const MAX_ANSWERS_RANGE: RangeInclusive<usize> = 1..=10_000;
const MAX_ALLOWED_NETWORKS: usize = 100;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

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
        let allow = self.networks(given.allow.as_deref().unwrap_or_default(), MAX_ALLOWED_NETWORKS);
        let policy = LookupPolicy {
            family,
            min_ttl: min.value,
            max_ttl: max.value,
            retry_min: retry.value,
            retry_max: retry_max.value,
            on_empty: empty,
            max_answers,
            allowed_networks: allow.into_iter().map(|(network, _)| network).collect(),
        };
        let servers = given.servers.map(|given| self.dns_servers(&given, &table));
        model::DnsConfig {
            servers,
            timeout,
            policy,
            entries: std::mem::take(&mut self.dns_entries),
        }
    }

    fn dns_servers(&mut self, given: &[Located<String>], table: &Range<usize>) -> Vec<SocketAddr> {
        if given.is_empty() {
            let help =
                "name one, such as \"10.0.0.53:53\", or remove `servers` for the system's resolver";
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
    check_reachable(address?)
}

fn parse_family(text: &str) -> Result<AddressFamily, Problem> {
    match text {
        "both" => Ok(AddressFamily::Both),
        "ipv4" => Ok(AddressFamily::Ipv4),
        "ipv6" => Ok(AddressFamily::Ipv6),
        _ => {
            let message = format!("`{text}` is not an address family");
            Err(Problem::new(message, "write \"both\", \"ipv4\" or \"ipv6\""))
        }
    }
}

fn parse_empty_policy(text: &str) -> Result<EmptyAnswerPolicy, Problem> {
    match text {
        "keep" => Ok(EmptyAnswerPolicy::Keep),
        "obey" => Ok(EmptyAnswerPolicy::Remove),
        _ => {
            let message = format!("`{text}` is not a value of `empty`");
            Err(Problem::new(message, "write \"keep\" or \"obey\""))
        }
    }
}
