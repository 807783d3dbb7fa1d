//! Checks of the listeners for clients.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use super::server::is_overlapping;
use super::validator::{SettingKey, Validator};
use crate::config::address;
use crate::config::deserialize::ROOT_SPAN;
use crate::config::diagnostics::Problem;
use crate::config::file::{CertificateFiles, Listen, ListenTls, LocatedTable, ProxyProtocol};
use crate::config::model;
use crate::logic::model::server_tls::{
    ClientAuthority, DEFAULT_HANDSHAKE_TIMEOUT, ServerTls, TlsVersion,
};
use crate::logic::model::upstream_protocol::CertificateAndKey;

const MAX_LISTENERS: usize = 256;

/// The most certificates of one listener.
const MAX_CERTIFICATES: usize = 1_000;

/// The most networks of one listener: each connection is compared with all of them.
const MAX_NETWORKS: usize = 256;

/// From the addresses alone to what the length field can state.
const PROXY_HEADER_BYTES_RANGE: RangeInclusive<usize> = 216..=65_535;

const DEFAULT_PROXY_HEADER_BYTES: usize = 8 * 1024;

impl Validator<'_> {
    pub(super) fn listeners(
        &mut self,
        listen: &[LocatedTable<Listen>],
    ) -> Vec<(model::ListenerSpec, Range<usize>)> {
        let mut listeners: Vec<(model::ListenerSpec, Range<usize>)> = Vec::new();
        if let Some(beyond) = listen.get(MAX_LISTENERS) {
            let message = format!("there are more than {MAX_LISTENERS} listeners");
            self.diagnostics.error(&beyond.span, Problem::new(message, "remove some"));
        }
        for entry in listen.iter().take(MAX_LISTENERS) {
            let http_settings = self.http_settings(&entry.value);
            let Some((address, span)) = self.listen_address(entry) else { continue };
            match listeners.iter().find(|(other, _)| is_overlapping(other.address, address)) {
                Some((other, first)) => {
                    let problem = Problem::new(
                        format!("{address} is already in use, as {}", other.address),
                        "listen on each address and port once",
                    );
                    self.diagnostics.error(&span, problem).add_related(first, "first here");
                }
                None => listeners.push((model::ListenerSpec { address, ..http_settings }, span)),
            }
        }
        if listen.is_empty() {
            let help = "add `[[listen]]` with `address = \"0.0.0.0:8080\"`";
            self.report_missing(&ROOT_SPAN, "listen", Problem::new("there is no listener", help));
        }
        listeners
    }

    fn listen_address(&mut self, one: &LocatedTable<Listen>) -> Option<(SocketAddr, Range<usize>)> {
        let Some(given) = &one.value.address else {
            let help = "add `address = \"0.0.0.0:8080\"`";
            self.report_missing(
                &one.span,
                "address",
                Problem::new("a listener needs an address", help),
            );
            return None;
        };
        match address::parse_socket_address(&given.value, "0.0.0.0:8080") {
            Ok(address) => Some((address, given.span.clone())),
            Err(problem) => {
                self.diagnostics.error(&given.span, problem);
                None
            }
        }
    }

    /// The settings of a listener except for its address.
    fn http_settings(&mut self, given: &Listen) -> model::ListenerSpec {
        let http2 = self.bool_or(&given.http2, true);
        let tls = given.tls.as_ref().and_then(|tls| self.listen_tls(tls));
        let proxy_protocol = given.proxy_protocol.as_ref().map(|given| self.proxy_protocol(given));
        model::ListenerSpec {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            has_http2: http2,
            tls: tls.map(Arc::new),
            proxy_protocol,
        }
    }

    fn listen_tls(&mut self, given: &LocatedTable<ListenTls>) -> Option<ServerTls> {
        let LocatedTable { value: tls, span: table } = given;
        let files = tls.certificates.as_deref().unwrap_or_default();
        if files.is_empty() {
            let help = "add `certificates = [{ certificate = \"a.pem\", key = \"a.key\" }]`";
            self.report_missing(
                table,
                "certificates",
                Problem::new("TLS needs a certificate", help),
            );
        }
        if let Some(beyond) = files.get(MAX_CERTIFICATES) {
            let message = format!("there are more than {MAX_CERTIFICATES} certificates");
            self.diagnostics.error(&beyond.span, Problem::new(message, "remove some"));
        }
        let mut seen = HashMap::new();
        let mut certificates = Vec::new();
        for one in files.iter().take(MAX_CERTIFICATES) {
            let certificate = self.listen_certificate(one);
            if let Some(name) = &one.value.certificate {
                let message = format!("`{}` is listed twice", name.value);
                let problem = Problem::new(message, "list each certificate once");
                self.is_unique(&mut seen, name.value.as_str(), &name.span, problem);
            }
            certificates.extend(certificate);
        }
        let key = SettingKey::new(table, "min_version", &tls.min_version);
        let min_version = self.setting(&key, TlsVersion::V12, |text| parse_tls_version(text)).value;
        let key = SettingKey::new(table, "handshake_timeout", &tls.handshake_timeout);
        let handshake_timeout = self.duration(&key, DEFAULT_HANDSHAKE_TIMEOUT).value;
        let clients = self.client_authority(tls, table);
        (!certificates.is_empty()).then_some(ServerTls {
            certificates,
            min_version,
            client_authority: clients,
            handshake_timeout,
        })
    }

    pub(super) fn listen_certificate(
        &mut self,
        one: &LocatedTable<CertificateFiles>,
    ) -> Option<CertificateAndKey> {
        let CertificateFiles { certificate, key } = &one.value;
        if certificate.is_none() {
            let problem = Problem::new("`certificate` is missing", "name the file that it is in");
            self.report_missing(&one.span, "certificate", problem);
        }
        if key.is_none() {
            let problem = Problem::new("`key` is missing", "name the file with the private key");
            self.report_missing(&one.span, "key", problem);
        }
        self.key_pair(certificate.as_ref()?, key.as_ref()?)
    }

    fn client_authority(
        &mut self,
        tls: &ListenTls,
        table: &Range<usize>,
    ) -> Option<ClientAuthority> {
        let key = SettingKey::new(table, "client_auth", &tls.client_auth);
        let is_required = self.setting(&key, true, |text| parse_client_auth(text)).value;
        let Some(file) = &tls.client_ca else {
            if let Some(given) = &tls.client_auth
                && !self.unread.has_key(table, "client_ca")
            {
                let help = "add `client_ca`, the file with the CA certificates of clients";
                let problem =
                    Problem::new("`client_auth` has no meaning without `client_ca`", help);
                self.diagnostics.error(&given.span, problem);
            }
            return None;
        };
        Some(ClientAuthority { roots: self.trusted_roots(file)?, is_required })
    }

    fn proxy_protocol(&mut self, given: &LocatedTable<ProxyProtocol>) -> model::ProxyProtocolSpec {
        let from = given.value.from.as_deref().unwrap_or_default();
        if from.is_empty() {
            let help = "add `from = [\"10.0.0.0/8\"]`, the networks of the proxies";
            let problem = Problem::new("no proxy is listed", help);
            self.report_missing(&given.span, "from", problem);
        }
        let networks = self.networks(from, MAX_NETWORKS);
        let key = SettingKey::new(&given.span, "max_header", &given.value.max_header);
        model::ProxyProtocolSpec {
            from: networks.into_iter().map(|(network, _)| network).collect(),
            max_bytes: self.size(&key, &PROXY_HEADER_BYTES_RANGE, DEFAULT_PROXY_HEADER_BYTES),
        }
    }
}

fn parse_tls_version(text: &str) -> Result<TlsVersion, Problem> {
    match text {
        "1.2" => Ok(TlsVersion::V12),
        "1.3" => Ok(TlsVersion::V13),
        _ => Err(Problem::new(
            format!("`{text}` is not a supported TLS version"),
            "write \"1.2\" or \"1.3\"",
        )),
    }
}

/// Returns whether a certificate is required.
fn parse_client_auth(text: &str) -> Result<bool, Problem> {
    match text {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err(Problem::new(
            format!("`{text}` is not a value of `client_auth`"),
            "write \"required\" or \"optional\"",
        )),
    }
}
