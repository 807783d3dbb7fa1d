//! Checks of how a pool's endpoints are spoken to.

use std::ops::Range;
use std::sync::Arc;

use super::check::{Check, Key};
use crate::config::file::{Located, Pool, Switch, Tls};
use crate::config::findings::Flaw;
use crate::logic::speech::{Protocol, ProxyProtocol, Speech, TlsClient};

impl Check<'_> {
    pub(super) fn speech(&mut self, given: &Pool, table: &Range<usize>) -> Arc<Speech> {
        let key = Key::new(table, "protocol", &given.protocol);
        let protocol = self.setting(&key, Protocol::default(), |text| protocol(text)).value;
        let key = Key::new(table, "proxy_protocol", &given.proxy_protocol);
        let proxy_protocol = self.setting(&key, None, |text| proxy_protocol(text).map(Some)).value;
        let tls = given.tls.as_ref().and_then(|tls| self.pool_tls(tls, protocol));
        if let Some(key) = &given.protocol
            && protocol == Protocol::Auto
            && given.tls.is_none()
            && !self.gaps.has(table, "tls")
        {
            let mend = "add `tls = true`, or write \"http2\" if the endpoints speak it";
            let flaw = Flaw::new("without `tls` there is no choice: this is HTTP/1.1", mend);
            self.findings.warning(&key.span, flaw);
        }
        Arc::new(Speech { tls, protocol, proxy_protocol })
    }

    fn pool_tls(
        &mut self,
        given: &Located<Switch<Tls>>,
        protocol: Protocol,
    ) -> Option<Arc<TlsClient>> {
        let options = match &given.value {
            Switch::Plain(true) => &Tls::default(),
            Switch::Plain(false) => {
                let mend = "leave it away, or write `tls = true`";
                let flaw = Flaw::new("without `tls` a pool is spoken to in cleartext", mend);
                self.findings.error(&given.span, flaw);
                return None;
            }
            Switch::Table(options) => options,
        };
        Some(self.tls_client(options, None, protocol.alpn()))
    }
}

fn protocol(text: &str) -> Result<Protocol, Flaw> {
    match text {
        "http1" => Ok(Protocol::H1),
        "http2" => Ok(Protocol::H2),
        "auto" => Ok(Protocol::Auto),
        _ => Err(Flaw::new(
            format!("`{text}` is not a protocol that endpoints are spoken to in"),
            "write \"http1\", \"http2\" or \"auto\"",
        )),
    }
}

fn proxy_protocol(text: &str) -> Result<ProxyProtocol, Flaw> {
    match text {
        "v1" => Ok(ProxyProtocol::V1),
        "v2" => Ok(ProxyProtocol::V2),
        _ => Err(Flaw::new(
            format!("`{text}` is not a version of the PROXY protocol"),
            "write \"v1\" or \"v2\", or leave `proxy_protocol` away",
        )),
    }
}
