//! Checks of a pool's probes: what is asked, and that nothing is said that has no meaning with it.

mod expect;
mod http;

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use super::check::{Check, Key};
use crate::config::file::{Located, Probe, Probes, Switch, Table, Talk, Tls};
use crate::config::findings::Flaw;
use crate::config::units;
use crate::logic::probe::{GrpcProbe, HttpVersion, ProbeKind, ProbeSpec, Role};
use crate::logic::speech::TlsClient;

const PORT: RangeInclusive<u16> = 1..=u16::MAX;

/// Probes of one pool.
const MAX_PROBES: usize = 8;

/// How much of a body a probe may read: all probes share a thread.
const READ: RangeInclusive<usize> = 1..=1024 * 1024;

/// Bytes that are sent or expected.
const MAX_TEXT_BYTES: usize = 64 * 1024;

const ONE_OF: &str = "write one of `http = \"/healthz\"`, `http2 = \"/healthz\"`, `grpc = \"\"`, \
                      `tcp = true` and `tls = true`";

/// What a probe asks, with the place where the file says so.
#[derive(Clone, Copy, Debug)]
enum Asked<'a> {
    Http(&'a Located<String>, HttpVersion),
    Grpc(&'a Located<String>),
    Connection,
    Talk(&'a Talk),
    Handshake,
}

impl Asked<'_> {
    fn key(self) -> &'static str {
        match self {
            Self::Http(_, HttpVersion::H1) => "http",
            Self::Http(_, HttpVersion::H2) => "http2",
            Self::Grpc(_) => "grpc",
            Self::Connection | Self::Talk(_) => "tcp",
            Self::Handshake => "tls",
        }
    }

    fn hears(self) -> bool {
        match self {
            Self::Http(..) | Self::Grpc(_) => true,
            Self::Talk(talk) => talk.expect.is_some(),
            Self::Connection | Self::Handshake => false,
        }
    }

    /// Whether `key` says something about such a probe.
    fn takes(self, key: &str) -> bool {
        match (key, self) {
            ("host", Self::Grpc(_)) => true,
            ("first_byte", asked) => asked.hears(),
            ("read", Self::Grpc(_)) => false,
            ("read", asked) => asked.hears(),
            ("reuse", Self::Grpc(_) | Self::Talk(_)) => true,
            (_, Self::Http(..)) => true,
            _ => false,
        }
    }
}

impl Check<'_> {
    /// The probes of the pool at `table`, gates first; never empty. `timeout` bounds each of them.
    pub(super) fn probes(
        &mut self,
        given: Option<Located<Probes>>,
        table: &Range<usize>,
        timeout: Duration,
    ) -> Vec<ProbeSpec> {
        let Some(Located { value, span }) = given else { return vec![ProbeSpec::tcp()] };
        let given = match value {
            Probes::One(probe) => vec![Table { value: *probe, span: span.clone() }],
            Probes::Many(probes) => probes,
        };
        // What could not be read may be what is missing.
        let is_whole = !self.gaps.has(table, "probe");
        if given.is_empty() && is_whole {
            let flaw = Flaw::new("the list of probes is empty", "add one, or leave it away");
            self.findings.error(&span, flaw);
        }
        if given.len() > MAX_PROBES {
            let message = format!("a pool has at most {MAX_PROBES} probes, not {}", given.len());
            self.findings.error(&span, Flaw::new(message, "leave some away"));
        }
        let mut probes: Vec<_> = given.iter().map(|probe| self.probe(probe, timeout)).collect();
        probes.sort_by_key(|probe| probe.role == Role::Watch);
        if is_whole && probes.first().is_some_and(|probe| probe.role == Role::Watch) {
            let mend = "leave `role` away from one that says whether the endpoint can serve";
            self.findings.error(&span, Flaw::new("no probe of the pool is a gate", mend));
        }
        probes
    }

    fn probe(&mut self, probe: &Table<Probe>, timeout: Duration) -> ProbeSpec {
        let Table { value: given, span: table } = probe;
        let Some(asked) = self.asked(given, table) else { return ProbeSpec::tcp() };
        self.only_with(asked, given);
        let key = Key::new(table, "address", &given.address);
        let address = self.setting(&key, None, |text| address(text).map(Some)).value;
        let key = Key::new(table, "port", &given.port);
        let port = given.port.is_some().then(|| self.whole(&key, &PORT, 1));
        let key = Key::new(table, "role", &given.role);
        let role = self.setting(&key, Role::Gate, |text| role(text)).value;
        let first_byte = self.first_byte(given, table, timeout);
        let key = Key::new(table, "read", &given.read);
        let read_bytes = self.size(&key, &READ, ProbeSpec::READ_BYTES);
        let tls = self.probe_tls(asked, given);
        let kind = match asked {
            Asked::Http(path, version) => {
                let http = self.http_probe(path, version, given, table, read_bytes);
                ProbeKind::Http(Box::new(http))
            }
            Asked::Grpc(service) => {
                let authority = self.authority(given, table);
                ProbeKind::Grpc(Box::new(GrpcProbe { service: service.value.clone(), authority }))
            }
            Asked::Connection => ProbeKind::Tcp { send: None, expect: None },
            Asked::Talk(talk) => self.talk(talk),
            Asked::Handshake => ProbeKind::Tls,
        };
        let degraded =
            given.degraded.as_ref().and_then(|degraded| self.degraded(degraded, &kind, role));
        let reuse = self.switch(&given.reuse, false);
        let proxy_protocol = None;
        ProbeSpec {
            address,
            port,
            role,
            first_byte,
            reuse,
            read_bytes,
            degraded,
            tls,
            proxy_protocol,
            kind,
        }
    }

    /// What the probe asks; reports it if that is nothing or too much.
    fn asked<'a>(&mut self, given: &'a Probe, table: &Range<usize>) -> Option<Asked<'a>> {
        self.not_off("tcp", &given.tcp);
        self.not_off("tls", &given.tls);
        let tcp = given.tcp.as_ref().map(|tcp| {
            let asked = match &tcp.value {
                Switch::Plain(_) => Asked::Connection,
                Switch::Table(talk) => Asked::Talk(talk),
            };
            (asked, &tcp.span)
        });
        let http = given.http.as_ref().map(|path| (Asked::Http(path, HttpVersion::H1), &path.span));
        let http2 =
            given.http2.as_ref().map(|path| (Asked::Http(path, HttpVersion::H2), &path.span));
        let grpc = given.grpc.as_ref().map(|service| (Asked::Grpc(service), &service.span));
        let mut asked = [http, http2, grpc, tcp].into_iter().flatten();
        let Some((first, first_span)) = asked.next() else {
            let known = ["http", "http2", "grpc", "tcp", "tls"];
            if given.tls.is_none() && !known.iter().any(|key| self.gaps.has(table, key)) {
                let flaw = Flaw::new("the probe does not say what to ask", ONE_OF);
                self.findings.error(table, flaw);
            }
            return given.tls.as_ref().map(|_| Asked::Handshake);
        };
        if let Some((second, span)) = asked.next() {
            let (first, second) = (first.key(), second.key());
            let message = format!("a probe is either `{first}` or `{second}`, not both");
            let mend = "make two probes of it, as a list in []";
            self.findings.error(span, Flaw::new(message, mend)).also(first_span, "the other one");
            return None;
        }
        if let (Asked::Connection, Some(tls)) = (first, &given.tls) {
            let mend = "leave `tcp` away: `tls` alone asks for a handshake";
            let flaw = Flaw::new("`tcp = true` asks for nothing beside `tls`", mend);
            self.findings.error(first_span, flaw).also(&tls.span, "this connects as well");
        }
        Some(first)
    }

    fn probe_tls(&mut self, asked: Asked<'_>, given: &Probe) -> Option<Arc<TlsClient>> {
        let options = match &given.tls.as_ref()?.value {
            Switch::Plain(_) => &Tls::default(),
            Switch::Table(options) => options,
        };
        let alpn: &[&[u8]] = match asked {
            Asked::Http(_, HttpVersion::H1) => &[b"http/1.1"],
            Asked::Http(_, HttpVersion::H2) | Asked::Grpc(_) => &[b"h2"],
            Asked::Connection | Asked::Talk(_) | Asked::Handshake => &[],
        };
        Some(self.tls_client(options, given.host.as_ref(), alpn))
    }

    fn not_off<T>(&mut self, key: &str, given: &Option<Located<Switch<T>>>) {
        if let Some(Located { value: Switch::Plain(false), span }) = given {
            let flaw = Flaw::new(format!("`{key} = false` asks for nothing"), ONE_OF);
            self.findings.error(span, flaw);
        }
    }

    fn only_with(&mut self, asked: Asked<'_>, given: &Probe) {
        let spans = [
            ("first_byte", given.first_byte.as_ref().map(|key| &key.span)),
            ("reuse", given.reuse.as_ref().map(|key| &key.span)),
            ("read", given.read.as_ref().map(|key| &key.span)),
            ("method", given.method.as_ref().map(|key| &key.span)),
            ("host", given.host.as_ref().map(|key| &key.span)),
            ("headers", given.headers.as_ref().map(|key| &key.span)),
            ("body", given.body.as_ref().map(|key| &key.span)),
            ("expect_status", given.expect_status.as_ref().map(|key| &key.span)),
            ("expect_body", given.expect_body.as_ref().map(|key| &key.span)),
            ("expect_body_regex", given.expect_body_regex.as_ref().map(|key| &key.span)),
            ("expect_json", given.expect_json.as_ref().map(|key| &key.span)),
            ("degraded", given.degraded.as_ref().map(|key| &key.span)),
        ];
        for (name, span) in spans {
            let Some(span) = span.filter(|_| !asked.takes(name)) else { continue };
            let message = format!("`{name}` has no meaning with `{}`", asked.key());
            let mend = format!("leave `{name}` away, or probe with `http = \"/healthz\"`");
            self.findings.error(span, Flaw::new(message, mend));
        }
    }

    fn first_byte(
        &mut self,
        given: &Probe,
        table: &Range<usize>,
        timeout: Duration,
    ) -> Option<Duration> {
        let span = given.first_byte.as_ref().map(|given| &given.span)?;
        let first_byte = self.duration(&Key::new(table, "first_byte", &given.first_byte), timeout);
        if first_byte.value > timeout {
            let (longer, bound) =
                (units::duration_text(first_byte.value), units::duration_text(timeout));
            let flaw = Flaw::new(
                format!("`first_byte` ({longer}) is longer than `detect.timeout` ({bound})"),
                format!(
                    "set `first_byte` to \"{bound}\" or less, or `detect.timeout` to \"{longer}\" \
                     or more"
                ),
            );
            self.findings.error(span, flaw);
        }
        Some(first_byte.value)
    }

    fn talk(&mut self, talk: &Talk) -> ProbeKind {
        let send = talk.send.as_ref().map(|text| self.bytes(text, "send"));
        let expect = talk.expect.as_ref().map(|text| self.bytes(text, "expect"));
        ProbeKind::Tcp { send, expect }
    }

    fn bytes(&mut self, text: &Located<String>, key: &str) -> Vec<u8> {
        if text.value.is_empty() {
            let flaw = Flaw::new(format!("`{key}` is empty"), "leave it away, or write what it is");
            self.findings.error(&text.span, flaw);
        }
        self.not_too_long(text, key, MAX_TEXT_BYTES);
        text.value.clone().into_bytes()
    }

    fn not_too_long(&mut self, text: &Located<String>, key: &str, most: usize) {
        if text.value.len() > most {
            let most = units::size_text(most as u64);
            let flaw = Flaw::new(format!("`{key}` is longer than {most}"), "write a shorter text");
            self.findings.error(&text.span, flaw);
        }
    }
}

fn role(text: &str) -> Result<Role, Flaw> {
    match text {
        "gate" => Ok(Role::Gate),
        "watch" => Ok(Role::Watch),
        _ => Err(Flaw::new(
            format!("`{text}` is not the role of a probe"),
            "write \"gate\" if the endpoint serves only while it passes, or \"watch\"",
        )),
    }
}

fn address(text: &str) -> Result<IpAddr, Flaw> {
    let mend = "write an IP address such as \"10.0.1.11\"; `port` is a key of its own";
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(Flaw::new(format!("`{text}` is not an IP address"), mend));
    };
    if address.is_unspecified() {
        return Err(Flaw::new(format!("{address} stands for every address"), mend));
    }
    Ok(address)
}
