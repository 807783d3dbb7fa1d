//! Where spans of requests go, and of which requests.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Uri};

use crate::logic::model::upstream_protocol::UpstreamTls;

/// A collector, and how it gets spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Where spans are posted to: an absolute URL, with its path.
    pub endpoint: Uri,
    /// Further fields of each post; their values are marked as sensitive and never shown.
    pub headers: HeaderMap,
    /// How TLS is spoken, where the URL asks for it.
    pub tls: Option<Arc<UpstreamTls>>,
    /// What the spans say that they are of.
    pub service: String,
    /// How long a post may take.
    pub timeout: Duration,
    /// Requests whose spans wait, at most.
    pub queue_spans: usize,
    /// Spans in a post, about.
    pub batch_spans: usize,
}

/// The share of traces that are exported of those that begin here, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceSampling {
    millionths: u32,
}

impl TraceSampling {
    /// Draws for it are below this.
    pub const MAX_MILLIONTHS: u32 = 1_000_000;

    /// So many millionths; `None` for more than all.
    pub fn new(millionths: u32) -> Option<Self> {
        (millionths <= Self::MAX_MILLIONTHS).then_some(Self { millionths })
    }

    /// Whether a trace is exported that has drawn this number below [`Self::WHOLE`].
    pub fn is_sampled(self, draw: u32) -> bool {
        draw < self.millionths
    }
}
