//! Checks of where clients connect, and how they may speak there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::check::{Check, Key};
use super::server::overlap;
use crate::config::address;
use crate::config::file::{CertificateFiles, Listen, ListenTls, ProxyProtocol, Table};
use crate::config::findings::Flaw;
use crate::config::model;
use crate::config::read::ROOT;
use crate::logic::front::{ClientAuthority, HANDSHAKE_TIMEOUT, ServerTls, TlsVersion};
use crate::logic::network::Network;
use crate::logic::speech::ClientCertificate;

const MAX_LISTENERS: usize = 256;

/// Certificates of one listener.
const MAX_CERTIFICATES: usize = 1_000;

/// Networks that one listener looks through for each connection.
const MAX_NETWORKS: usize = 256;

impl Check<'_> {
    pub(super) fn listen(
        &mut self,
        listen: &[Table<Listen>],
    ) -> Vec<(model::Listen, Range<usize>)> {
        let mut listeners: Vec<(model::Listen, Range<usize>)> = Vec::new();
        if let Some(beyond) = listen.get(MAX_LISTENERS) {
            let message = format!("there are more than {MAX_LISTENERS} listeners");
            self.findings.error(&beyond.span, Flaw::new(message, "leave some away"));
        }
        for one in listen.iter().take(MAX_LISTENERS) {
            let manners = self.manners(&one.value);
            let Some((address, span)) = self.listen_address(one) else { continue };
            match listeners.iter().find(|(other, _)| overlap(other.address, address)) {
                Some((other, first)) => {
                    let flaw = Flaw::new(
                        format!("{address} is already listened on, as {}", other.address),
                        "listen on each address and port once",
                    );
                    self.findings.error(&span, flaw).also(first, "first here");
                }
                None => listeners.push((model::Listen { address, ..manners }, span)),
            }
        }
        if listen.is_empty() {
            let mend = "add `[[listen]]` with `address = \"0.0.0.0:8080\"`";
            self.missing(&ROOT, "listen", Flaw::new("there is no listener", mend));
        }
        listeners
    }

    fn listen_address(&mut self, one: &Table<Listen>) -> Option<(SocketAddr, Range<usize>)> {
        let Some(given) = &one.value.address else {
            let mend = "add `address = \"0.0.0.0:8080\"`";
            self.missing(&one.span, "address", Flaw::new("a listener needs an address", mend));
            return None;
        };
        match address::socket(&given.value, "0.0.0.0:8080") {
            Ok(address) => Some((address, given.span.clone())),
            Err(flaw) => {
                self.findings.error(&given.span, flaw);
                None
            }
        }
    }

    /// Everything but the address.
    fn manners(&mut self, given: &Listen) -> model::Listen {
        let http2 = self.switch(&given.http2, true);
        let tls = given.tls.as_ref().and_then(|tls| self.listen_tls(tls));
        let proxy_protocol = given.proxy_protocol.as_ref().map(|given| self.proxies(given));
        model::Listen {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            http2,
            tls: tls.map(Arc::new),
            proxy_protocol,
        }
    }

    fn listen_tls(&mut self, given: &Table<ListenTls>) -> Option<ServerTls> {
        let Table { value: tls, span: table } = given;
        let files = tls.certificates.as_deref().unwrap_or_default();
        if files.is_empty() {
            let mend = "add `certificates = [{ certificate = \"a.pem\", key = \"a.key\" }]`";
            self.missing(table, "certificates", Flaw::new("TLS needs a certificate", mend));
        }
        if let Some(beyond) = files.get(MAX_CERTIFICATES) {
            let message = format!("there are more than {MAX_CERTIFICATES} certificates");
            self.findings.error(&beyond.span, Flaw::new(message, "leave some away"));
        }
        let mut seen = HashMap::new();
        let mut certificates = Vec::new();
        for one in files.iter().take(MAX_CERTIFICATES) {
            let certificate = self.listen_certificate(one);
            if let Some(name) = &one.value.certificate {
                let message = format!("`{}` is listed twice", name.value);
                let flaw = Flaw::new(message, "list each certificate once");
                self.unique(&mut seen, name.value.as_str(), &name.span, flaw);
            }
            certificates.extend(certificate);
        }
        let key = Key::new(table, "min_version", &tls.min_version);
        let least = self.setting(&key, TlsVersion::V12, |text| version(text)).value;
        let key = Key::new(table, "handshake_timeout", &tls.handshake_timeout);
        let handshake_timeout = self.duration(&key, HANDSHAKE_TIMEOUT).value;
        let clients = self.client_authority(tls, table);
        (!certificates.is_empty()).then_some(ServerTls {
            certificates,
            least,
            clients,
            handshake_timeout,
        })
    }

    fn listen_certificate(&mut self, one: &Table<CertificateFiles>) -> Option<ClientCertificate> {
        let CertificateFiles { certificate, key } = &one.value;
        if certificate.is_none() {
            let flaw = Flaw::new("`certificate` is missing", "name the file that it is in");
            self.missing(&one.span, "certificate", flaw);
        }
        if key.is_none() {
            let flaw = Flaw::new("`key` is missing", "name the file with the private key");
            self.missing(&one.span, "key", flaw);
        }
        self.key_pair(certificate.as_ref()?, key.as_ref()?)
    }

    fn client_authority(
        &mut self,
        tls: &ListenTls,
        table: &Range<usize>,
    ) -> Option<ClientAuthority> {
        let key = Key::new(table, "client_auth", &tls.client_auth);
        let is_required = self.setting(&key, true, |text| client_auth(text)).value;
        let Some(file) = &tls.client_ca else {
            if let Some(given) = &tls.client_auth
                && !self.gaps.has(table, "client_ca")
            {
                let mend = "add `client_ca`, the file with who issues clients' certificates";
                let flaw = Flaw::new("`client_auth` has no meaning without `client_ca`", mend);
                self.findings.error(&given.span, flaw);
            }
            return None;
        };
        Some(ClientAuthority { roots: self.roots(file)?, is_required })
    }

    fn proxies(&mut self, given: &Table<ProxyProtocol>) -> Arc<[Network]> {
        let from = given.value.from.as_deref().unwrap_or_default();
        if from.is_empty() {
            let mend = "add `from = [\"10.0.0.0/8\"]`, the networks that they connect from";
            let flaw = Flaw::new("it is not said which proxies may connect", mend);
            self.missing(&given.span, "from", flaw);
        }
        if let Some(beyond) = from.get(MAX_NETWORKS) {
            let message = format!("there are more than {MAX_NETWORKS} networks");
            self.findings.error(&beyond.span, Flaw::new(message, "write larger ones"));
        }
        let mut networks = Vec::new();
        for one in from.iter().take(MAX_NETWORKS) {
            match address::network(&one.value) {
                Ok(network) => networks.push(network),
                Err(flaw) => drop(self.findings.error(&one.span, flaw)),
            }
        }
        networks.into()
    }
}

fn version(text: &str) -> Result<TlsVersion, Flaw> {
    match text {
        "1.2" => Ok(TlsVersion::V12),
        "1.3" => Ok(TlsVersion::V13),
        _ => Err(Flaw::new(
            format!("`{text}` is not a version of TLS that is spoken here"),
            "write \"1.2\" or \"1.3\"",
        )),
    }
}

/// Whether a certificate is required.
fn client_auth(text: &str) -> Result<bool, Flaw> {
    match text {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err(Flaw::new(
            format!("`{text}` does not say whether clients must have a certificate"),
            "write \"required\" or \"optional\"",
        )),
    }
}
