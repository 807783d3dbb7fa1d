//! How an endpoint is probed, and what counts as a pass.
//!
//! A probe is data here: its protocol, its request, and the answer that it expects.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::logic::model::upstream_protocol::{ProxyProtocolVersion, UpstreamTls};

/// One probe of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeSpec {
    /// Probe this address instead of the endpoint's own.
    pub address: Option<IpAddr>,
    /// Probe this port instead of the endpoint's own.
    pub port: Option<u16>,
    /// Whether its outcome makes verdicts.
    pub role: ProbeRole,
    /// The first byte of the answer must come within this, apart from the whole timeout.
    pub first_byte_timeout: Option<Duration>,
    /// Keep the connection for the next probe.
    pub is_connection_reused: bool,
    /// The limit of bytes that are read of an answer's body.
    pub max_body_bytes: usize,
    /// The answers that pass and ask for less weight.
    pub degraded: Option<DegradedRule>,
    /// The TLS settings; absent, the probe is in cleartext.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Begin with a PROXY header without a client address, as the pool's connections begin with
    /// one.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    pub kind: ProbeKind,
}

impl ProbeSpec {
    /// The default of [`ProbeSpec::max_body_bytes`].
    pub const DEFAULT_MAX_BODY_BYTES: usize = 64 * 1024;

    /// A gate of this kind, in cleartext, at the endpoint's own address, on a new connection each
    /// time.
    pub fn new(kind: ProbeKind) -> Self {
        Self {
            address: None,
            port: None,
            role: ProbeRole::Gate,
            first_byte_timeout: None,
            is_connection_reused: false,
            max_body_bytes: Self::DEFAULT_MAX_BODY_BYTES,
            degraded: None,
            tls: None,
            proxy_protocol: None,
            kind,
        }
    }

    /// A gate that only connects.
    pub fn tcp() -> Self {
        Self::new(ProbeKind::Tcp { send: None, expect: None })
    }

    /// Whether it connects to the address that requests go to.
    pub fn is_at_endpoint_address(&self) -> bool {
        self.address.is_none() && self.port.is_none()
    }

    /// Whether it uses HTTP/2.
    pub fn is_http2(&self) -> bool {
        match &self.kind {
            ProbeKind::Tcp { .. } | ProbeKind::Tls => false,
            ProbeKind::Http(http) => http.version == ProbeHttpVersion::H2,
            ProbeKind::Grpc(_) => true,
        }
    }

    /// A gate over HTTP.
    pub fn http(probe: HttpProbe) -> Self {
        Self::new(ProbeKind::Http(Box::new(probe)))
    }
}

/// Whether a probe's outcome makes verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeRole {
    /// An endpoint serves only while this probe passes.
    Gate,
    /// It is reported, and decides nothing.
    Watch,
}

/// The protocol of a probe.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeKind {
    /// A TCP connection that is accepted is a pass, if nothing is expected of it.
    Tcp {
        /// Bytes that are sent first.
        send: Option<Vec<u8>>,
        /// Bytes that must be among those that come back.
        expect: Option<Vec<u8>>,
    },
    /// A TLS handshake that completes is a pass.
    Tls,
    Http(Box<HttpProbe>),
    /// The gRPC health checking protocol, `grpc.health.v1.Health/Check`.
    Grpc(Box<GrpcProbe>),
}

/// The version of HTTP that a probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeHttpVersion {
    H1,
    /// HTTP/2 (RFC 9113): with prior knowledge in cleartext, agreed on by ALPN over TLS.
    H2,
}

/// An HTTP probe and what counts as a pass. Redirects are not followed.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpProbe {
    /// The protocol version.
    pub version: ProbeHttpVersion,
    /// The default is GET.
    pub method: Method,
    /// Path and query; begins with `/`.
    pub path: String,
    /// The Host header; absent, the endpoint's `address:port`.
    pub host: Option<String>,
    pub headers: HeaderMap,
    /// The body of the request.
    pub body: Option<Vec<u8>>,
    /// Statuses that pass; never empty.
    pub expect_status: Vec<RangeInclusive<u16>>,
    /// Conditions on the body, all of which must hold.
    pub expect_body: Vec<BodyMatcher>,
}

impl HttpProbe {
    /// A GET of `path` over HTTP/1.1 whose status must be 200 to 299.
    pub fn get(path: &str) -> Self {
        Self {
            version: ProbeHttpVersion::H1,
            method: Method::GET,
            path: path.to_owned(),
            host: None,
            headers: HeaderMap::new(),
            body: None,
            expect_status: vec![200..=299],
            expect_body: Vec::new(),
        }
    }
}

/// A gRPC health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcProbe {
    /// The service to check; empty means the whole server.
    pub service: String,
    /// The `:authority`; absent, the endpoint's `address:port`.
    pub authority: Option<String>,
}

/// A condition on a body.
#[derive(Clone, Debug, PartialEq)]
pub enum BodyMatcher {
    /// It contains this text.
    Contains(String),
    /// It matches this pattern somewhere.
    Regex(BytesRegex),
    /// It is JSON with this value at this place.
    Json(JsonMatcher),
}

/// A value at a place in a JSON document.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonMatcher {
    /// Where (RFC 6901), such as `/status`.
    pub pointer: String,
    pub expected: Value,
}

impl JsonMatcher {
    /// Whether `document` has that value at that place.
    pub fn is_match(&self, document: &Value) -> bool {
        document.pointer(&self.pointer) == Some(&self.expected)
    }
}

/// A regular expression over bytes; two are equal if their text is.
#[derive(Clone)]
pub struct BytesRegex(regex::bytes::Regex);

impl BytesRegex {
    /// Largest compiled form, in bytes.
    const MAX_COMPILED_BYTES: usize = 1024 * 1024;

    /// Reads a pattern; matching takes time linear in the body.
    ///
    /// # Errors
    /// The reason, if the pattern is invalid or too large.
    pub fn parse(text: &str) -> Result<Self, String> {
        let built =
            regex::bytes::RegexBuilder::new(text).size_limit(Self::MAX_COMPILED_BYTES).build();
        built.map(Self).map_err(|error| error.to_string())
    }

    /// Whether it matches somewhere in `bytes`.
    pub fn is_match(&self, bytes: &[u8]) -> bool {
        self.0.is_match(bytes)
    }
}

impl PartialEq for BytesRegex {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Debug for BytesRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.0.as_str())
    }
}

/// The marks of a passing answer that ask for less weight; any of them suffices.
#[derive(Clone, Debug, PartialEq)]
pub struct DegradedRule {
    /// A header with this value.
    pub header: Option<(HeaderName, HeaderValue)>,
    /// A field of a JSON body.
    pub json: Option<JsonMatcher>,
    /// The share of its weight that the endpoint keeps meanwhile, 1 to 99.
    pub weight_percent: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regex_matches_bytes_and_rejects_oversized_patterns() {
        let pattern = |text| BytesRegex::parse(text).expect("a pattern");
        assert!(pattern("stat.s: (ok|good)").is_match(b"the status: good\n"));
        assert!(!pattern("^ok$").is_match(b"not ok"));
        assert_eq!(pattern("a+"), pattern("a+"));
        assert_ne!(pattern("a+"), pattern("aa*"));
        assert!(BytesRegex::parse("a(").is_err());
        assert!(BytesRegex::parse("(a{1000}){1000}").is_err(), "too large");
    }
}
