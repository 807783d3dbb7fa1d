//! Checks of endpoints that are found by name, and of how names are looked up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use super::check::{Check, Key};
use crate::config::file::{Dns, Located, Table};
use crate::config::findings::Flaw;
use crate::config::{address, model};
use crate::logic::discovery::{Empty, Family, NameError, Policy, Wanted, check_name};
use crate::logic::network::Network;

/// Where DNS is spoken.
const PORT: u16 = 53;
const MAX_ANSWERS: RangeInclusive<usize> = 1..=10_000;
const MAX_ALLOWED: usize = 100;
const TIMEOUT: Duration = Duration::from_secs(2);

/// What an endpoint is written as.
pub(super) enum Target {
    /// By its address.
    Address(SocketAddr),
    /// By a name that leads to it.
    Name(Wanted),
}

impl Check<'_> {
    pub(super) fn dns(&mut self, given: Option<Table<Dns>>) -> model::Dns {
        let Table { value: given, span: table } = given.unwrap_or_default();
        let default = Policy::default();
        let timeout = self.duration(&Key::new(&table, "timeout", &given.timeout), TIMEOUT).value;
        let min = self.duration(&Key::new(&table, "min_ttl", &given.min_ttl), default.min_ttl);
        let max = self.duration(&Key::new(&table, "max_ttl", &given.max_ttl), default.max_ttl);
        self.not_longer(("min_ttl", &min), ("max_ttl", &max));
        let retry = self.duration(&Key::new(&table, "retry", &given.retry), default.retry);
        let key = Key::new(&table, "retry_max", &given.retry_max);
        let retry_max = self.duration(&key, default.retry_max);
        self.not_longer(("retry", &retry), ("retry_max", &retry_max));
        let key = Key::new(&table, "family", &given.family);
        let family = self.setting(&key, default.family, |text| family(text)).value;
        let key = Key::new(&table, "empty", &given.empty);
        let empty = self.setting(&key, default.empty, |text| what_of_empty(text)).value;
        let key = Key::new(&table, "max_answers", &given.max_answers);
        let max_answers = self.whole(&key, &MAX_ANSWERS, default.max_answers);
        let allow = self.allowed(&given.allow.unwrap_or_default());
        let policy = Policy {
            family,
            min_ttl: min.value,
            max_ttl: max.value,
            retry: retry.value,
            retry_max: retry_max.value,
            empty,
            max_answers,
            allow,
        };
        let servers = given.servers.map(|given| self.servers(&given, &table));
        model::Dns { servers, timeout, policy, entries: std::mem::take(&mut self.names) }
    }

    fn allowed(&mut self, given: &[Located<String>]) -> Arc<[Network]> {
        if let Some(beyond) = given.get(MAX_ALLOWED) {
            let message = format!("there are more than {MAX_ALLOWED} networks");
            self.findings.error(&beyond.span, Flaw::new(message, "give larger ones"));
        }
        let read = |one: &Located<String>| match address::network(&one.value) {
            Ok(network) => Some(network),
            Err(flaw) => {
                self.findings.error(&one.span, flaw);
                None
            }
        };
        given.iter().take(MAX_ALLOWED).filter_map(read).collect()
    }

    fn servers(&mut self, given: &[Located<String>], table: &Range<usize>) -> Vec<SocketAddr> {
        if given.is_empty() {
            let mend =
                "name one, such as \"10.0.0.53:53\", or leave `servers` away to go by the system";
            self.findings.error(table, Flaw::new("`servers` has no server", mend));
        }
        let mut seen = HashMap::new();
        let mut servers = Vec::new();
        for one in given {
            match server(&one.value) {
                Ok(address) => {
                    let flaw =
                        Flaw::new(format!("{address} is named twice"), "name each server once");
                    if self.unique(&mut seen, address, &one.span, flaw) {
                        servers.push(address);
                    }
                }
                Err(flaw) => {
                    self.findings.error(&one.span, flaw);
                }
            }
        }
        servers
    }
}

fn server(text: &str) -> Result<SocketAddr, Flaw> {
    let read = match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, PORT)),
        Err(_) => address::socket(text, "10.0.0.53:53"),
    };
    super::pool::reachable(read?)
}

fn family(text: &str) -> Result<Family, Flaw> {
    match text {
        "both" => Ok(Family::Both),
        "ipv4" => Ok(Family::Ipv4),
        "ipv6" => Ok(Family::Ipv6),
        _ => {
            let message = format!("`{text}` is no family of addresses");
            Err(Flaw::new(message, "write \"both\", \"ipv4\" or \"ipv6\""))
        }
    }
}

fn what_of_empty(text: &str) -> Result<Empty, Flaw> {
    match text {
        "keep" => Ok(Empty::Keep),
        "obey" => Ok(Empty::Obey),
        _ => {
            let message = format!("`{text}` is not what can be done when a name has no endpoints");
            Err(Flaw::new(message, "write \"keep\" or \"obey\""))
        }
    }
}

/// Reads `IP:PORT` or `NAME:PORT`.
pub(super) fn target(text: &str) -> Result<Target, Flaw> {
    let example = "10.0.1.11:9000";
    if let Ok(address) = text.parse() {
        return super::pool::reachable(address).map(Target::Address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.contains("://") => (host, Some(port)),
        _ => (text, None),
    };
    // What ends in a number is meant as an address (RFC 1123 2.1), and is none.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let has_letter = last.bytes().any(|b| b.is_ascii_alphabetic());
    if !has_letter || host.contains(['/', ':', '[', ' ']) {
        return address::socket(text, example)
            .and_then(super::pool::reachable)
            .map(Target::Address);
    }
    let name = name(host)?;
    let flaw = || {
        let mend = format!(
            "write it as \"{host}:9000\"; a service, whose records have ports, as {{ srv = \"_http._tcp.{host}\" }}"
        );
        Flaw::new(format!("`{text}` has no port"), mend)
    };
    let port = port.filter(|port| !port.is_empty()).ok_or_else(flaw)?;
    match port.parse::<u16>() {
        Ok(0) => Err(Flaw::new(
            "nothing can be reached at port 0",
            "write the port that the endpoint listens on",
        )),
        Ok(port) => Ok(Target::Name(Wanted::Host { name, port })),
        Err(_) => Err(Flaw::new(format!("`{port}` is no port"), "write a number from 1 to 65535")),
    }
}

/// Reads the name of a service.
pub(super) fn service(text: &str) -> Result<Wanted, Flaw> {
    if let Some((host, _)) = text.rsplit_once(':') {
        let mend = format!("write it as \"{host}\"");
        return Err(Flaw::new("a service has no port: its records say which", mend));
    }
    name(text).map(|name| Wanted::Service { name })
}

fn name(text: &str) -> Result<Arc<str>, Flaw> {
    let flaw = |what: String, mend: &str| Err(Flaw::new(format!("`{text}` {what}"), mend));
    let such_as = "write a name such as \"web.example\"";
    match check_name(text) {
        Ok(name) => Ok(name.into()),
        Err(NameError::Empty) => flaw("is not a name".to_owned(), such_as),
        Err(NameError::TooLong(bytes)) => {
            let what = format!("has {bytes} characters");
            flaw(what, "names in DNS have 253 at most (RFC 1035)")
        }
        Err(NameError::LongLabel(label)) => {
            let what = format!("has a part of {} characters", label.len());
            flaw(what, "parts of names in DNS have 63 at most (RFC 1035)")
        }
        Err(NameError::EmptyLabel) => flaw("has nothing between two dots".to_owned(), such_as),
        Err(NameError::Character(c)) => {
            let mend =
                "names have letters, digits, `-`, `_` and `.`; others are written as \"xn--…\"";
            flaw(format!("has a `{c}` in it"), mend)
        }
        Err(NameError::Hyphen(label)) => flaw(
            format!("has the part `{label}`"),
            "a part begins and ends with a letter or a digit",
        ),
    }
}
