//! Checks of what concerns the instance as a whole: threads, limits, stopping.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::thread::available_parallelism;

use rustix::process::{Resource, getrlimit};

use super::check::{Check, Key, Origin};
use super::observe::forwarded_fields;
use crate::config::address;
use crate::config::file::{
    Admin, BoundText, Headers, Limits, Located, Paths, Scalar, Shutdown, Table, Whole,
};
use crate::config::findings::Flaw;
use crate::config::model;
use crate::config::read::ROOT;
use crate::config::units;
use crate::logic::descriptors::{self, Needs};
use crate::logic::route::{EncodedSlash, PathRules};

const WORKERS: RangeInclusive<usize> = 1..=1_024;
const CONNECTIONS: RangeInclusive<usize> = 1..=10_000_000;
/// The least is the smallest read buffer that the HTTP/1 reader takes.
pub(super) const HEAD_BYTES: RangeInclusive<usize> = 8 * 1024..=1024 * 1024;
const BODY_RATE: RangeInclusive<usize> = 0..=1024 * 1024;
/// An instance that serves nobody needs about half of it.
const MEMORY_LEAST: u64 = 16 * 1024 * 1024;
const HEADER_COUNT: RangeInclusive<usize> = 1..=10_000;

/// The address at which an operator looks when the file does not say another.
const ADMIN_ADDRESS: &str = "127.0.0.1:9900";

/// What is written as the admin address to have no such listener.
const ADMIN_OFF: &str = "off";

impl Check<'_> {
    pub(super) fn workers(&mut self, given: &Option<Located<Whole>>) -> usize {
        let cores = available_parallelism().map_or(1, usize::from).min(*WORKERS.end());
        self.whole(&Key::new(&ROOT, "workers", given), &WORKERS, cores)
    }

    pub(super) fn state_dir(&mut self, given: Option<Located<String>>) -> Option<PathBuf> {
        let given = given?;
        if given.value.is_empty() || given.value.contains('\0') {
            let mend = "write a path such as \"/var/lib/gapless\", or leave `state_dir` away";
            self.findings.error(&given.span, Flaw::new("`state_dir` is not a path", mend));
        }
        Some(given.value.into())
    }

    pub(super) fn admin(
        &mut self,
        admin: &Option<Table<Admin>>,
        listen: &[(model::Listen, Range<usize>)],
    ) -> model::Admin {
        let table = admin.clone().unwrap_or_default();
        let key = Key::new(&table.span, "address", &table.value.address);
        let default = ADMIN_ADDRESS.parse().ok();
        let setting = self.setting(&key, default, |text| admin_address(text));
        let clash = setting.value.and_then(|address| {
            listen
                .iter()
                .find(|(other, _)| overlap(other.address, address))
                .map(|(_, span)| (address, span))
        });
        if let Some((address, listener)) = clash {
            match &setting.origin {
                Origin::Given(span) => {
                    let mend = "give the admin listener a port of its own";
                    let flaw = Flaw::new(format!("clients are listened for on {address}"), mend);
                    self.findings.error(span, flaw).also(listener, "here");
                }
                Origin::Default => {
                    let flaw = Flaw::new(
                        format!("{address} is the admin listener's, by default"),
                        "take another port, or move the other one: `[admin] address = …`",
                    );
                    self.findings.error(listener, flaw);
                }
                Origin::Unusable => {}
            }
        }
        model::Admin { address: setting.value }
    }

    pub(super) fn limits(&mut self, limits: Option<Table<Limits>>) -> model::Limits {
        let Table { value: given, span: table } = limits.unwrap_or_default();
        let default = model::Limits::default();
        let key = Key::new(&table, "connections", &given.connections);
        let connections = self.whole(&key, &CONNECTIONS, default.connections);
        let key = Key::new(&table, "header", &given.header);
        let header_bytes = self.size(&key, &HEAD_BYTES, default.header_bytes);
        let key = Key::new(&table, "header_count", &given.header_count);
        let header_count = self.whole(&key, &HEADER_COUNT, default.header_count);
        let key = Key::new(&table, "header_timeout", &given.header_timeout);
        let header_timeout = self.duration(&key, default.header_timeout).value;
        let key = Key::new(&table, "idle_timeout", &given.idle_timeout);
        let idle_timeout = self.duration(&key, default.idle_timeout).value;
        let key = Key::new(&table, "body_rate", &given.body_rate);
        let body_rate = self.size(&key, &BODY_RATE, default.body_rate as usize) as u64;
        let key = Key::new(&table, "write_timeout", &given.write_timeout);
        let write_timeout = self.duration(&key, default.write_timeout).value;
        let key = Key::new(&table, "memory", &given.memory);
        let memory = self.setting(&key, default.memory, memory).value;
        model::Limits {
            connections,
            header_bytes,
            header_count,
            header_timeout,
            idle_timeout,
            body_rate,
            write_timeout,
            memory,
        }
    }

    /// Whether all of it fits into the descriptors that the system grants; a number of `connections`
    /// that nobody wrote is as large as there is room for.
    pub(super) fn descriptors(
        &mut self,
        needs: &Needs,
        connections: usize,
        given: Option<Range<usize>>,
    ) {
        let granted = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let granted = usize::try_from(granted).unwrap_or(usize::MAX);
        let left = needs.left(granted);
        let clients = connections.saturating_mul(needs.listeners);
        let raise = |clients| {
            let wanted = needs.granted_for(clients);
            format!("raise the limit to {wanted} (LimitNOFILE of systemd, ulimit -n)")
        };
        if left < descriptors::LEAST {
            let message = format!(
                "the system grants {granted} descriptors, too few for probes, the operator and \
                 {} workers",
                needs.workers
            );
            self.findings.error(&ROOT, Flaw::new(message, raise(descriptors::LEAST / 2)));
        } else if let Some(span) = given.filter(|_| clients > left) {
            let most = descriptors::for_clients(left) / needs.listeners.max(1);
            let flaw = Flaw::new(
                format!(
                    "{connections} connections at {} do not fit into the {granted} descriptors \
                     that the system grants",
                    if needs.listeners == 1 { "a listener" } else { "each listener" },
                ),
                format!("write at most {most}, or {}", raise(clients)),
            );
            self.findings.error(&span, flaw);
        }
    }

    pub(super) fn shutdown(&mut self, shutdown: Option<Table<Shutdown>>) -> model::Shutdown {
        let Table { value: given, span: table } = shutdown.unwrap_or_default();
        let default = model::Shutdown::default();
        let key = Key::new(&table, "lame_duck", &given.lame_duck);
        let lame_duck = self.duration_or_zero(&key, default.lame_duck);
        let key = Key::new(&table, "drain", &given.drain);
        let drain = self.duration_or_zero(&key, default.drain);
        let key = Key::new(&table, "upgrade_timeout", &given.upgrade_timeout);
        let upgrade_timeout = self.duration(&key, default.upgrade_timeout).value;
        model::Shutdown { lame_duck, drain, upgrade_timeout }
    }

    pub(super) fn headers(&mut self, headers: Option<Table<Headers>>) -> model::Headers {
        let Table { value: given, span: table } = headers.unwrap_or_default();
        let default = model::Headers::default();
        let expose = self.switch(&given.expose, default.expose);
        let key = Key::new(&table, "via", &given.via);
        let via = self.setting(&key, default.via, |text| pseudonym(text)).value;
        let key = Key::new(&table, "underscores", &given.underscores);
        let underscores = self.setting(&key, default.underscores, |text| underscores(text)).value;
        let key = Key::new(&table, "forwarded", &given.forwarded);
        let forwarded = self.setting(&key, default.forwarded, |text| forwarded_fields(text)).value;
        let request_id = self.switch(&given.request_id, default.request_id);
        let traceparent = self.switch(&given.traceparent, default.traceparent);
        let sampling = None;
        model::Headers { expose, via, underscores, forwarded, request_id, traceparent, sampling }
    }

    pub(super) fn paths(&mut self, paths: Option<Table<Paths>>) -> PathRules {
        let Table { value: given, span: table } = paths.unwrap_or_default();
        let default = PathRules::default();
        let key = Key::new(&table, "encoded_slash", &given.encoded_slash);
        PathRules {
            normalise: self.switch(&given.normalise, default.normalise),
            merge_slashes: self.switch(&given.merge_slashes, default.merge_slashes),
            encoded_slash: self
                .setting(&key, default.encoded_slash, |text| encoded_slash(text))
                .value,
        }
    }
}

/// Whether one socket could not be told from the other. Port 0 is another port each time.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip();
    let any = a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() != 0 && a.port() == b.port() && (same_ip || any)
}

fn admin_address(text: &str) -> Result<Option<SocketAddr>, Flaw> {
    if text == ADMIN_OFF {
        return Ok(None);
    }
    let address = address::socket(text, ADMIN_ADDRESS)?;
    if address.ip().is_loopback() {
        return Ok(Some(address));
    }
    let port = address.port();
    Err(Flaw::new(
        format!("{} can be reached by others, and admin has neither TLS nor a token", address.ip()),
        format!("use a loopback address, such as \"127.0.0.1:{port}\", or \"{ADMIN_OFF}\""),
    ))
}

/// The pseudonym in `Via` is a token, in the sense of HTTP; a method happens to be one too.
fn pseudonym(text: &str) -> Result<String, Flaw> {
    if text.is_empty() || http::Method::from_bytes(text.as_bytes()).is_ok() {
        return Ok(text.to_owned());
    }
    let mend = "use letters, digits and `-`, such as \"gapless\"; empty adds no `Via`";
    Err(Flaw::new(format!("`{text}` cannot stand in a `Via` header"), mend))
}

fn memory(text: &BoundText) -> Result<model::Memory, Flaw> {
    match &text.0 {
        Scalar::Text(word) if word.trim() == "unlimited" => Ok(model::Memory::Unlimited),
        Scalar::Text(word) if word.trim() == "system" => Ok(model::Memory::System),
        given => match units::size(given)? {
            bytes if bytes >= MEMORY_LEAST => Ok(model::Memory::Bytes(bytes)),
            _ => {
                let message =
                    format!("`memory` must be at least {}", units::size_text(MEMORY_LEAST));
                Err(Flaw::new(message, "write a size such as \"512MiB\", or \"unlimited\""))
            }
        },
    }
}

fn underscores(text: &str) -> Result<model::Underscores, Flaw> {
    match text {
        "reject" => Ok(model::Underscores::Reject),
        "drop" => Ok(model::Underscores::Drop),
        "allow" => Ok(model::Underscores::Allow),
        _ => {
            let message = format!("`{text}` is not what can be done with underscores");
            Err(Flaw::new(message, "write \"reject\", \"drop\" or \"allow\""))
        }
    }
}

fn encoded_slash(text: &str) -> Result<EncodedSlash, Flaw> {
    match text {
        "keep" => Ok(EncodedSlash::Keep),
        "reject" => Ok(EncodedSlash::Reject),
        "decode" => Ok(EncodedSlash::Decode),
        _ => {
            let message = format!("`{text}` is not what can be done with an encoded slash");
            Err(Flaw::new(message, "write \"keep\", \"reject\" or \"decode\""))
        }
    }
}
