//! Checks of the protocol to a pool's endpoints.

use std::ops::Range;
use std::sync::Arc;

use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{Located, Pool, Switch, Tls};
use crate::logic::model::upstream_protocol::{
    ProxyProtocolVersion, UpstreamHttpVersion, UpstreamProtocol, UpstreamTls,
};

impl Validator<'_> {
    pub(super) fn upstream_protocol(
        &mut self,
        given: &Pool,
        table: &Range<usize>,
    ) -> Arc<UpstreamProtocol> {
        let key = SettingKey::new(table, "protocol", &given.protocol);
        let protocol =
            self.setting(&key, UpstreamHttpVersion::default(), |text| parse_protocol(text)).value;
        let key = SettingKey::new(table, "proxy_protocol", &given.proxy_protocol);
        let proxy_protocol =
            self.setting(&key, None, |text| parse_proxy_protocol(text).map(Some)).value;
        let tls = given.tls.as_ref().and_then(|tls| self.pool_tls(tls, protocol));
        if let Some(key) = &given.protocol
            && protocol == UpstreamHttpVersion::Auto
            && given.tls.is_none()
            && !self.unread.has_key(table, "tls")
        {
            let help = "add `tls = true`, or write \"http2\" if the endpoints support it";
            let problem = Problem::new("without `tls` the protocol is always HTTP/1.1", help);
            self.diagnostics.warning(&key.span, problem);
        }
        Arc::new(UpstreamProtocol { tls, http_version: protocol, proxy_protocol })
    }

    fn pool_tls(
        &mut self,
        given: &Located<Switch<Tls>>,
        protocol: UpstreamHttpVersion,
    ) -> Option<Arc<UpstreamTls>> {
        let options = match &given.value {
            Switch::Plain(true) => &Tls::default(),
            Switch::Plain(false) => {
                let help = "remove it, or write `tls = true`";
                let problem = Problem::new("without `tls` the pool uses cleartext", help);
                self.diagnostics.error(&given.span, problem);
                return None;
            }
            Switch::Table(options) => options,
        };
        Some(self.tls_client(options, None, protocol.alpn()))
    }
}

fn parse_protocol(text: &str) -> Result<UpstreamHttpVersion, Problem> {
    match text {
        "http1" => Ok(UpstreamHttpVersion::H1),
        "http2" => Ok(UpstreamHttpVersion::H2),
        "auto" => Ok(UpstreamHttpVersion::Auto),
        _ => Err(Problem::new(
            format!("`{text}` is not a protocol for endpoints"),
            "write \"http1\", \"http2\" or \"auto\"",
        )),
    }
}

fn parse_proxy_protocol(text: &str) -> Result<ProxyProtocolVersion, Problem> {
    match text {
        "v1" => Ok(ProxyProtocolVersion::V1),
        "v2" => Ok(ProxyProtocolVersion::V2),
        _ => Err(Problem::new(
            format!("`{text}` is not a version of the PROXY protocol"),
            "write \"v1\" or \"v2\", or remove `proxy_protocol`",
        )),
    }
}
