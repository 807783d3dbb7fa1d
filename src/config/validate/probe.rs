//! Checks of a pool's probes: their kind, and keys that the kind does not use.

mod expect;
mod http;

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{Located, LocatedTable, Probe, Probes, Switch, Talk, Tls};
use crate::config::units;
use crate::logic::model::upstream_protocol::UpstreamTls;
use crate::logic::probing::probe::{GrpcProbe, ProbeHttpVersion, ProbeKind, ProbeRole, ProbeSpec};

const PORT_RANGE: RangeInclusive<u16> = 1..=u16::MAX;

/// The most probes of one pool.
const MAX_PROBES: usize = 8;

/// The size of a body that a probe reads is limited, because all probes share a thread.
const READ_BYTES_RANGE: RangeInclusive<usize> = 1..=1024 * 1024;

/// The most bytes that a probe sends or expects.
const MAX_TEXT_BYTES: usize = 64 * 1024;

const PROBE_KINDS_HELP: &str = "write one of `http = \"/healthz\"`, `http2 = \"/healthz\"`, `grpc = \"\"`, \
                      `tcp = true` and `tls = true`";

/// The kind of a probe, with its place in the file.
#[derive(Clone, Copy, Debug)]
enum ProbeRequest<'a> {
    Http(&'a Located<String>, ProbeHttpVersion),
    Grpc(&'a Located<String>),
    Connection,
    Exchange(&'a Talk),
    Handshake,
}

impl ProbeRequest<'_> {
    fn key(self) -> &'static str {
        match self {
            Self::Http(_, ProbeHttpVersion::H1) => "http",
            Self::Http(_, ProbeHttpVersion::H2) => "http2",
            Self::Grpc(_) => "grpc",
            Self::Connection | Self::Exchange(_) => "tcp",
            Self::Handshake => "tls",
        }
    }

    fn can_receive(self) -> bool {
        match self {
            Self::Http(..) | Self::Grpc(_) => true,
            Self::Exchange(talk) => talk.expect.is_some(),
            Self::Connection | Self::Handshake => false,
        }
    }

    /// Whether a probe of this kind uses `key`.
    fn can_use_key(self, key: &str) -> bool {
        match (key, self) {
            ("host", Self::Grpc(_)) => true,
            ("first_byte", request) => request.can_receive(),
            ("read", Self::Grpc(_)) => false,
            ("read", request) => request.can_receive(),
            ("reuse", Self::Grpc(_) | Self::Exchange(_)) => true,
            (_, Self::Http(..)) => true,
            _ => false,
        }
    }
}

impl Validator<'_> {
    /// The probes of the pool at `table`, gates first; never empty. `timeout` bounds each of them.
    pub(super) fn probes(
        &mut self,
        given: Option<Located<Probes>>,
        table: &Range<usize>,
        timeout: Duration,
    ) -> Vec<ProbeSpec> {
        let Some(Located { value, span }) = given else { return vec![ProbeSpec::tcp()] };
        let given = match value {
            Probes::One(probe) => vec![LocatedTable { value: *probe, span: span.clone() }],
            Probes::Many(probes) => probes,
        };
        // After an unreadable probe the list may lack entries.
        let is_fully_read = !self.unread.has_key(table, "probe");
        if given.is_empty() && is_fully_read {
            let problem = Problem::new("the list of probes is empty", "add one, or remove it");
            self.diagnostics.error(&span, problem);
        }
        if given.len() > MAX_PROBES {
            let message = format!("a pool has at most {MAX_PROBES} probes, not {}", given.len());
            self.diagnostics.error(&span, Problem::new(message, "remove some"));
        }
        let mut probes: Vec<_> = given.iter().map(|probe| self.probe(probe, timeout)).collect();
        probes.sort_by_key(|probe| probe.role == ProbeRole::Watch);
        if is_fully_read && probes.first().is_some_and(|probe| probe.role == ProbeRole::Watch) {
            let help = "remove `role` from a probe that shows whether the endpoint can serve";
            self.diagnostics.error(&span, Problem::new("no probe of the pool is a gate", help));
        }
        probes
    }

    fn probe(&mut self, probe: &LocatedTable<Probe>, timeout: Duration) -> ProbeSpec {
        let LocatedTable { value: given, span: table } = probe;
        let Some(request) = self.requested_kind(given, table) else { return ProbeSpec::tcp() };
        self.reject_unused_keys(request, given);
        let key = SettingKey::new(table, "address", &given.address);
        let address = self.setting(&key, None, |text| parse_address(text).map(Some)).value;
        let key = SettingKey::new(table, "port", &given.port);
        let port = given.port.is_some().then(|| self.integer(&key, &PORT_RANGE, 1));
        let key = SettingKey::new(table, "role", &given.role);
        let role = self.setting(&key, ProbeRole::Gate, |text| parse_role(text)).value;
        let first_byte = self.first_byte(given, table, timeout);
        let key = SettingKey::new(table, "read", &given.read);
        let read_bytes = self.size(&key, &READ_BYTES_RANGE, ProbeSpec::DEFAULT_MAX_BODY_BYTES);
        let tls = self.probe_tls(request, given);
        let kind = match request {
            ProbeRequest::Http(path, version) => {
                let http = self.http_probe(path, version, given, table, read_bytes);
                ProbeKind::Http(Box::new(http))
            }
            ProbeRequest::Grpc(service) => {
                let authority = self.authority(given, table);
                ProbeKind::Grpc(Box::new(GrpcProbe { service: service.value.clone(), authority }))
            }
            ProbeRequest::Connection => ProbeKind::Tcp { send: None, expect: None },
            ProbeRequest::Exchange(talk) => self.exchange_probe(talk),
            ProbeRequest::Handshake => ProbeKind::Tls,
        };
        let degraded =
            given.degraded.as_ref().and_then(|degraded| self.degraded(degraded, &kind, role));
        let reuse = self.bool_or(&given.reuse, false);
        let proxy_protocol = None;
        ProbeSpec {
            address,
            port,
            role,
            first_byte_timeout: first_byte,
            is_connection_reused: reuse,
            max_body_bytes: read_bytes,
            degraded,
            tls,
            proxy_protocol,
            kind,
        }
    }

    /// The kind of the probe; reports a probe with no kind or with several.
    fn requested_kind<'a>(
        &mut self,
        given: &'a Probe,
        table: &Range<usize>,
    ) -> Option<ProbeRequest<'a>> {
        self.reject_disabled("tcp", &given.tcp);
        self.reject_disabled("tls", &given.tls);
        let tcp = given.tcp.as_ref().map(|tcp| {
            let request = match &tcp.value {
                Switch::Plain(_) => ProbeRequest::Connection,
                Switch::Table(talk) => ProbeRequest::Exchange(talk),
            };
            (request, &tcp.span)
        });
        let http = given
            .http
            .as_ref()
            .map(|path| (ProbeRequest::Http(path, ProbeHttpVersion::H1), &path.span));
        let http2 = given
            .http2
            .as_ref()
            .map(|path| (ProbeRequest::Http(path, ProbeHttpVersion::H2), &path.span));
        let grpc = given.grpc.as_ref().map(|service| (ProbeRequest::Grpc(service), &service.span));
        let mut request = [http, http2, grpc, tcp].into_iter().flatten();
        let Some((first, first_span)) = request.next() else {
            let known = ["http", "http2", "grpc", "tcp", "tls"];
            if given.tls.is_none() && !known.iter().any(|key| self.unread.has_key(table, key)) {
                let problem = Problem::new("the probe has no kind", PROBE_KINDS_HELP);
                self.diagnostics.error(table, problem);
            }
            return given.tls.as_ref().map(|_| ProbeRequest::Handshake);
        };
        if let Some((second, span)) = request.next() {
            let (first, second) = (first.key(), second.key());
            let message = format!("a probe is either `{first}` or `{second}`, not both");
            let help = "make two probes of it, as a list in []";
            self.diagnostics
                .error(span, Problem::new(message, help))
                .add_related(first_span, "the other one");
            return None;
        }
        if let (ProbeRequest::Connection, Some(tls)) = (first, &given.tls) {
            let help = "remove `tcp`: `tls` alone checks the handshake";
            let problem = Problem::new("`tcp = true` has no effect beside `tls`", help);
            self.diagnostics
                .error(first_span, problem)
                .add_related(&tls.span, "this connects as well");
        }
        Some(first)
    }

    fn probe_tls(&mut self, request: ProbeRequest<'_>, given: &Probe) -> Option<Arc<UpstreamTls>> {
        let options = match &given.tls.as_ref()?.value {
            Switch::Plain(_) => &Tls::default(),
            Switch::Table(options) => options,
        };
        let alpn: &[&[u8]] = match request {
            ProbeRequest::Http(_, ProbeHttpVersion::H1) => &[b"http/1.1"],
            ProbeRequest::Http(_, ProbeHttpVersion::H2) | ProbeRequest::Grpc(_) => &[b"h2"],
            ProbeRequest::Connection | ProbeRequest::Exchange(_) | ProbeRequest::Handshake => &[],
        };
        Some(self.tls_client(options, given.host.as_ref(), alpn))
    }

    fn reject_disabled<T>(&mut self, key: &str, given: &Option<Located<Switch<T>>>) {
        if let Some(Located { value: Switch::Plain(false), span }) = given {
            let problem = Problem::new(format!("`{key} = false` has no effect"), PROBE_KINDS_HELP);
            self.diagnostics.error(span, problem);
        }
    }

    fn reject_unused_keys(&mut self, request: ProbeRequest<'_>, given: &Probe) {
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
            let Some(span) = span.filter(|_| !request.can_use_key(name)) else { continue };
            let message = format!("`{name}` has no meaning with `{}`", request.key());
            let help = format!("remove `{name}`, or probe with `http = \"/healthz\"`");
            self.diagnostics.error(span, Problem::new(message, help));
        }
    }

    fn first_byte(
        &mut self,
        given: &Probe,
        table: &Range<usize>,
        timeout: Duration,
    ) -> Option<Duration> {
        let span = given.first_byte.as_ref().map(|given| &given.span)?;
        let first_byte =
            self.duration(&SettingKey::new(table, "first_byte", &given.first_byte), timeout);
        if first_byte.value > timeout {
            let (longer, bound) =
                (units::format_duration(first_byte.value), units::format_duration(timeout));
            let problem = Problem::new(
                format!("`first_byte` ({longer}) is longer than `detect.timeout` ({bound})"),
                format!(
                    "set `first_byte` to \"{bound}\" or less, or `detect.timeout` to \"{longer}\" \
                     or more"
                ),
            );
            self.diagnostics.error(span, problem);
        }
        Some(first_byte.value)
    }

    fn exchange_probe(&mut self, talk: &Talk) -> ProbeKind {
        let send = talk.send.as_ref().map(|text| self.text_bytes(text, "send"));
        let expect = talk.expect.as_ref().map(|text| self.text_bytes(text, "expect"));
        ProbeKind::Tcp { send, expect }
    }

    fn text_bytes(&mut self, text: &Located<String>, key: &str) -> Vec<u8> {
        if text.value.is_empty() {
            let problem = Problem::new(format!("`{key}` is empty"), "remove it, or write a value");
            self.diagnostics.error(&text.span, problem);
        }
        self.check_text_length(text, key, MAX_TEXT_BYTES);
        text.value.clone().into_bytes()
    }

    fn check_text_length(&mut self, text: &Located<String>, key: &str, max_bytes: usize) {
        if text.value.len() > max_bytes {
            let most = units::format_size(max_bytes as u64);
            let problem =
                Problem::new(format!("`{key}` is longer than {most}"), "write a shorter text");
            self.diagnostics.error(&text.span, problem);
        }
    }
}

fn parse_role(text: &str) -> Result<ProbeRole, Problem> {
    match text {
        "gate" => Ok(ProbeRole::Gate),
        "watch" => Ok(ProbeRole::Watch),
        _ => Err(Problem::new(
            format!("`{text}` is not the role of a probe"),
            "write \"gate\" if the endpoint serves only while it passes, or \"watch\"",
        )),
    }
}

fn parse_address(text: &str) -> Result<IpAddr, Problem> {
    let help = "write an IP address such as \"10.0.1.11\"; `port` is a key of its own";
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(Problem::new(format!("`{text}` is not an IP address"), help));
    };
    if address.is_unspecified() {
        return Err(Problem::new(format!("{address} stands for every address"), help));
    }
    Ok(address)
}
