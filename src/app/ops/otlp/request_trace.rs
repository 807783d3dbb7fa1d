//! What the spans of one request are made of: all that a worker knows when it is over, on its way to
//! the thread that exports it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Version};

use crate::app::dataplane::proxy::{SpanId, TraceIds};
use crate::logic::model::id::Locality;

/// A request that is over. Its texts are cut to a few kilobytes together.
#[derive(Clone, Debug)]
pub struct RequestTrace {
    /// Its arrival, since 1970.
    pub started: Duration,
    /// From there to its end.
    pub elapsed: Duration,
    /// The trace, and the request's own part of it.
    pub trace: TraceIds,
    /// The part that it came from, if somebody else has begun the trace.
    pub parent: Option<SpanId>,
    /// The trace's `tracestate`; empty, none.
    pub tracestate: String,
    pub method: Method,
    /// Its version of HTTP.
    pub version: Version,
    /// How the client speaks.
    pub scheme: &'static str,
    /// The host that it was for, with its port if that was said; empty, none.
    pub host: String,
    pub path: String,
    /// Its query, as far as it may be shown.
    pub query: Option<String>,
    /// What endpoints were asked for, without the scheme.
    pub url: String,
    /// Who says that he asks.
    pub user_agent: Option<String>,
    pub client_ip: IpAddr,
    /// Who has the connection.
    pub peer_ip: IpAddr,
    /// The status that the client got.
    pub status: Option<u16>,
    /// The word for how it ended, if it did not end well.
    pub reason: Option<&'static str>,
    /// The client got less than was promised.
    pub is_truncated: bool,
    pub route: Option<Arc<str>>,
    /// The pool that was asked last.
    pub pool: Option<Arc<str>>,
    /// Its id; empty, none.
    pub request_id: String,
    /// Tries, those included that are not among `legs`.
    pub attempts: u32,
    pub attempt_spans: Vec<AttemptSpan>,
}

impl RequestTrace {
    /// How many spans it makes.
    pub fn span_count(&self) -> u64 {
        1 + self.attempt_spans.len() as u64
    }
}

/// One try at one endpoint.
#[derive(Clone, Debug)]
pub struct AttemptSpan {
    pub endpoint: SocketAddr,
    pub place: Locality,
    /// Its own part of the trace: what the endpoint was told.
    pub span_id: SpanId,
    pub prior_attempts: u32,
    /// From the request's arrival to its beginning.
    pub started: Duration,
    pub ended: Duration,
    /// How the endpoint is spoken to.
    pub scheme: &'static str,
    /// The status that came.
    pub status: Option<u16>,
    /// The word for what came instead.
    pub outcome: Option<&'static str>,
}
