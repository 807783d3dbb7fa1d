//! The data of one request's spans, on its way from the worker to the exporter thread.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Version};

use crate::app::dataplane::proxy::{SpanId, TraceIds};
use crate::logic::model::id::Locality;

/// A finished request. Its texts are truncated to a few kilobytes in total.
#[derive(Clone, Debug)]
pub struct RequestTrace {
    /// Arrival since the Unix epoch.
    pub started: Duration,
    /// From the arrival to the end.
    pub elapsed: Duration,
    /// The trace id and the request's span id.
    pub trace: TraceIds,
    /// The parent span, if the client continues a trace.
    pub parent: Option<SpanId>,
    /// The trace's `tracestate`; may be empty.
    pub tracestate: String,
    pub method: Method,
    /// The HTTP version of the request.
    pub version: Version,
    /// The scheme that the client used.
    pub scheme: &'static str,
    /// Host and port of the request; may be empty.
    pub host: String,
    pub path: String,
    /// The query, redacted as configured.
    pub query: Option<String>,
    /// The URL that endpoints received, without the scheme.
    pub url: String,
    /// The User-Agent header.
    pub user_agent: Option<String>,
    pub client_ip: IpAddr,
    /// The address of the connection's peer.
    pub peer_ip: IpAddr,
    /// The status that the client received.
    pub status: Option<u16>,
    /// The word for an abnormal end.
    pub reason: Option<&'static str>,
    /// The client received less than the whole response.
    pub is_truncated: bool,
    pub route: Option<Arc<str>>,
    /// The last pool that was tried.
    pub pool: Option<Arc<str>>,
    /// The request id; may be empty.
    pub request_id: String,
    /// All attempts, including those without an entry in `attempt_spans`.
    pub attempts: u32,
    pub attempt_spans: Vec<AttemptSpan>,
}

impl RequestTrace {
    /// Number of spans of the request.
    pub fn span_count(&self) -> u64 {
        1 + self.attempt_spans.len() as u64
    }
}

/// One attempt at one endpoint.
#[derive(Clone, Debug)]
pub struct AttemptSpan {
    pub endpoint: SocketAddr,
    pub place: Locality,
    /// The span id that the endpoint received as its parent.
    pub span_id: SpanId,
    pub prior_attempts: u32,
    /// From the request's arrival to the attempt's start.
    pub started: Duration,
    pub ended: Duration,
    /// The scheme of the upstream connection.
    pub scheme: &'static str,
    /// The status of the response.
    pub status: Option<u16>,
    /// The word for an attempt without a response.
    pub outcome: Option<&'static str>,
}
