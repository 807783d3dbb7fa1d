//! The export of spans, and the sampling of traces.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Uri};

use crate::logic::model::upstream_protocol::UpstreamTls;

/// A collector of spans, and the export to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpConfig {
    /// The URL that spans are posted to: absolute, with its path.
    pub endpoint: Uri,
    /// Further header fields of each request; their values are marked as sensitive and never shown.
    pub headers: HeaderMap,
    /// TLS settings, for a URL with `https`.
    pub tls: Option<Arc<UpstreamTls>>,
    /// The `service.name` of the spans.
    pub service: String,
    /// The time limit of one export.
    pub timeout: Duration,
    /// The most requests whose spans wait for export.
    pub queue_spans: usize,
    /// The approximate number of spans in one export.
    pub batch_spans: usize,
}

/// The share of exported traces among those that begin here, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceSampling {
    millionths: u32,
}

impl TraceSampling {
    /// The exclusive upper bound of random draws.
    pub const MAX_MILLIONTHS: u32 = 1_000_000;

    /// `None` for more than [`Self::MAX_MILLIONTHS`].
    pub fn new(millionths: u32) -> Option<Self> {
        (millionths <= Self::MAX_MILLIONTHS).then_some(Self { millionths })
    }

    /// Whether a trace with this random `draw` below [`Self::MAX_MILLIONTHS`] is exported.
    pub fn is_sampled(self, draw: u32) -> bool {
        draw < self.millionths
    }
}
