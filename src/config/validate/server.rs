//! Checks of the settings of the instance: threads, limits, shutdown, headers and paths.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::thread::available_parallelism;

use http::HeaderName;
use rustix::process::{Resource, getrlimit};

use super::access_log::parse_forwarded_headers;
use super::validator::{SettingKey, Validator};
use crate::config::deserialize::ROOT_SPAN;
use crate::config::diagnostics::Problem;
use crate::config::file::{
    Headers, Limits, Located, LocatedTable, MemoryLimitText, Paths, Scalar, Shutdown, WholeNumber,
};
use crate::config::model;
use crate::config::units;
use crate::logic::overload::descriptor_pool;
use crate::logic::overload::descriptor_pool::DescriptorDemand;
use crate::logic::request::identity_fields;
use crate::logic::routing::{EncodedSlash, PathNormalisation};

const WORKERS_RANGE: RangeInclusive<usize> = 1..=1_024;
const CONNECTIONS_RANGE: RangeInclusive<usize> = 1..=10_000_000;
/// The minimum is the smallest read buffer of the HTTP/1 reader.
pub(super) const HEADER_BYTES_RANGE: RangeInclusive<usize> = 8 * 1024..=1024 * 1024;
const BODY_RATE_RANGE: RangeInclusive<usize> = 0..=1024 * 1024;
/// An idle instance needs about half of this.
const MIN_MEMORY_BYTES: u64 = 16 * 1024 * 1024;
const HEADER_COUNT_RANGE: RangeInclusive<usize> = 1..=10_000;

impl Validator<'_> {
    pub(super) fn workers(&mut self, given: &Option<Located<WholeNumber>>) -> usize {
        let cores = available_parallelism().map_or(1, usize::from).min(*WORKERS_RANGE.end());
        self.integer(&SettingKey::new(&ROOT_SPAN, "workers", given), &WORKERS_RANGE, cores)
    }

    pub(super) fn state_dir(&mut self, given: Option<Located<String>>) -> Option<PathBuf> {
        let given = given?;
        if given.value.is_empty() || given.value.contains('\0') {
            let help = "write a path such as \"/var/lib/gapless\", or remove `state_dir`";
            self.diagnostics.error(&given.span, Problem::new("`state_dir` is not a path", help));
        }
        Some(given.value.into())
    }

    pub(super) fn limits(&mut self, limits: Option<LocatedTable<Limits>>) -> model::ServerLimits {
        let LocatedTable { value: given, span: table } = limits.unwrap_or_default();
        let default = model::ServerLimits::default();
        let key = SettingKey::new(&table, "connections", &given.connections);
        let connections = self.integer(&key, &CONNECTIONS_RANGE, default.connections);
        let key = SettingKey::new(&table, "header", &given.header);
        let header_bytes = self.size(&key, &HEADER_BYTES_RANGE, default.header_bytes);
        let key = SettingKey::new(&table, "header_count", &given.header_count);
        let header_count = self.integer(&key, &HEADER_COUNT_RANGE, default.header_count);
        let key = SettingKey::new(&table, "header_timeout", &given.header_timeout);
        let header_timeout = self.duration(&key, default.header_timeout).value;
        let key = SettingKey::new(&table, "idle_timeout", &given.idle_timeout);
        let idle_timeout = self.duration(&key, default.idle_timeout).value;
        let key = SettingKey::new(&table, "body_rate", &given.body_rate);
        let body_rate =
            self.size(&key, &BODY_RATE_RANGE, default.min_body_rate_bytes as usize) as u64;
        let key = SettingKey::new(&table, "write_timeout", &given.write_timeout);
        let write_timeout = self.duration(&key, default.write_timeout).value;
        let key = SettingKey::new(&table, "memory", &given.memory);
        let memory = self.setting(&key, default.memory, parse_memory_limit).value;
        model::ServerLimits {
            connections,
            header_bytes,
            header_count,
            header_timeout,
            idle_timeout,
            min_body_rate_bytes: body_rate,
            write_timeout,
            memory,
        }
    }

    /// Reports a configuration that needs more descriptors than the system grants. A default for
    /// `connections` shrinks to the available descriptors instead.
    pub(super) fn descriptors(
        &mut self,
        needs: &DescriptorDemand,
        connections: usize,
        given: Option<Range<usize>>,
    ) {
        let descriptor_limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let descriptor_limit = usize::try_from(descriptor_limit).unwrap_or(usize::MAX);
        let available = needs.available(descriptor_limit);
        let clients = connections.saturating_mul(needs.listeners);
        let raise = |clients| {
            let wanted = needs.required_limit(clients);
            format!("raise the limit to {wanted} (LimitNOFILE of systemd, ulimit -n)")
        };
        if available < descriptor_pool::MIN_USABLE_DESCRIPTORS {
            let message = format!(
                "the system grants {descriptor_limit} descriptors, too few for probes, the operator and \
                 {} workers",
                needs.workers
            );
            self.diagnostics.error(
                &ROOT_SPAN,
                Problem::new(message, raise(descriptor_pool::MIN_USABLE_DESCRIPTORS / 2)),
            );
        } else if let Some(span) = given.filter(|_| clients > available) {
            let most = descriptor_pool::max_clients(available) / needs.listeners.max(1);
            let problem = Problem::new(
                format!(
                    "{connections} connections at {} do not fit into the {descriptor_limit} descriptors \
                     that the system grants",
                    if needs.listeners == 1 { "a listener" } else { "each listener" },
                ),
                format!("write at most {most}, or {}", raise(clients)),
            );
            self.diagnostics.error(&span, problem);
        }
    }

    pub(super) fn shutdown(
        &mut self,
        shutdown: Option<LocatedTable<Shutdown>>,
    ) -> model::ShutdownConfig {
        let LocatedTable { value: given, span: table } = shutdown.unwrap_or_default();
        let default = model::ShutdownConfig::default();
        let key = SettingKey::new(&table, "lame_duck", &given.lame_duck);
        let lame_duck = self.zeroable_duration(&key, default.lame_duck);
        let key = SettingKey::new(&table, "drain", &given.drain);
        let drain = self.zeroable_duration(&key, default.drain);
        let key = SettingKey::new(&table, "upgrade_timeout", &given.upgrade_timeout);
        let upgrade_timeout = self.duration(&key, default.upgrade_timeout).value;
        model::ShutdownConfig { lame_duck, drain, upgrade_timeout }
    }

    pub(super) fn headers(
        &mut self,
        headers: Option<LocatedTable<Headers>>,
    ) -> model::HeaderPolicy {
        let LocatedTable { value: given, span: table } = headers.unwrap_or_default();
        let default = model::HeaderPolicy::default();
        let expose = self.bool_or(&given.expose, default.should_expose);
        let key = SettingKey::new(&table, "via", &given.via);
        let via = self.setting(&key, default.via_pseudonym, |text| parse_via_pseudonym(text)).value;
        let key = SettingKey::new(&table, "underscores", &given.underscores);
        let underscores =
            self.setting(&key, default.underscores, |text| parse_underscore_policy(text)).value;
        let key = SettingKey::new(&table, "forwarded", &given.forwarded);
        let forwarded =
            self.setting(&key, default.forwarded, |text| parse_forwarded_headers(text)).value;
        let passed_fields = self.passed_fields(given.pass.as_deref().unwrap_or_default());
        let request_id = self.bool_or(&given.request_id, default.should_set_request_id);
        let traceparent = self.bool_or(&given.traceparent, default.should_set_traceparent);
        let sampling = None;
        model::HeaderPolicy {
            should_expose: expose,
            via_pseudonym: via,
            underscores,
            forwarded,
            passed_fields,
            should_set_request_id: request_id,
            should_set_traceparent: traceparent,
            sampling,
        }
    }

    fn passed_fields(&mut self, given: &[Located<String>]) -> Vec<HeaderName> {
        let mut names = Vec::new();
        for one in given {
            match parse_passed_field(&one.value) {
                Ok(name) => names.push(name),
                Err(problem) => {
                    self.diagnostics.error(&one.span, problem);
                }
            }
        }
        names
    }

    pub(super) fn paths(&mut self, paths: Option<LocatedTable<Paths>>) -> PathNormalisation {
        let LocatedTable { value: given, span: table } = paths.unwrap_or_default();
        let default = PathNormalisation::default();
        let key = SettingKey::new(&table, "encoded_slash", &given.encoded_slash);
        PathNormalisation {
            should_normalise: self.bool_or(&given.normalise, default.should_normalise),
            should_merge_slashes: self.bool_or(&given.merge_slashes, default.should_merge_slashes),
            encoded_slash: self
                .setting(&key, default.encoded_slash, |text| parse_encoded_slash(text))
                .value,
        }
    }
}

/// Whether two listeners would conflict. Port 0 stands for another port each time.
pub(super) fn is_overlapping(a: SocketAddr, b: SocketAddr) -> bool {
    let is_same_ip = a.ip() == b.ip();
    let is_any_address =
        a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() != 0 && a.port() == b.port() && (is_same_ip || is_any_address)
}

fn parse_passed_field(text: &str) -> Result<HeaderName, Problem> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        let message = format!("`{text}` is not the name of a header field");
        return Err(Problem::new(message, "write a name such as \"x-forwarded-port\""));
    };
    if identity_fields::is_generated(&name) {
        let message = format!("`{name}` is always set by gapless");
        let help = "add the networks of your proxies to `trusted_proxies` instead";
        return Err(Problem::new(message, help));
    }
    if !identity_fields::is_identity_field(&name) {
        let message = format!("`{name}` passes without being listed");
        return Err(Problem::new(message, "remove it from `pass`"));
    }
    Ok(name)
}

/// The pseudonym in `Via` is a token (RFC 9110 7.6.3); so is a method, whose parser checks it here.
fn parse_via_pseudonym(text: &str) -> Result<String, Problem> {
    if text.is_empty() || http::Method::from_bytes(text.as_bytes()).is_ok() {
        return Ok(text.to_owned());
    }
    let help = "use letters, digits and `-`, such as \"gapless\"; empty adds no `Via`";
    Err(Problem::new(format!("`{text}` cannot stand in a `Via` header"), help))
}

fn parse_memory_limit(text: &MemoryLimitText) -> Result<model::MemoryLimit, Problem> {
    match &text.0 {
        Scalar::Text(word) if word.trim() == "unlimited" => Ok(model::MemoryLimit::Unlimited),
        Scalar::Text(word) if word.trim() == "system" => Ok(model::MemoryLimit::System),
        given => match units::parse_size(given)? {
            bytes if bytes >= MIN_MEMORY_BYTES => Ok(model::MemoryLimit::Bytes(bytes)),
            _ => {
                let message =
                    format!("`memory` must be at least {}", units::format_size(MIN_MEMORY_BYTES));
                Err(Problem::new(message, "write a size such as \"512MiB\", or \"unlimited\""))
            }
        },
    }
}

fn parse_underscore_policy(text: &str) -> Result<model::UnderscorePolicy, Problem> {
    match text {
        "reject" => Ok(model::UnderscorePolicy::Reject),
        "drop" => Ok(model::UnderscorePolicy::Drop),
        "allow" => Ok(model::UnderscorePolicy::Allow),
        _ => {
            let message = format!("`{text}` is not a value of `underscores`");
            Err(Problem::new(message, "write \"reject\", \"drop\" or \"allow\""))
        }
    }
}

fn parse_encoded_slash(text: &str) -> Result<EncodedSlash, Problem> {
    match text {
        "keep" => Ok(EncodedSlash::Keep),
        "reject" => Ok(EncodedSlash::Reject),
        "decode" => Ok(EncodedSlash::Decode),
        _ => {
            let message = format!("`{text}` is not a value of `encoded_slash`");
            Err(Problem::new(message, "write \"keep\", \"reject\" or \"decode\""))
        }
    }
}
