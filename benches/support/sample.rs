//! The results of requests.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

/// The result of one request.
#[derive(Clone, Debug)]
pub(crate) struct ClientSample {
    /// The number, which is also the last segment of the path.
    pub(crate) number: u64,
    /// The time when the request was due. Latency counts from then, so that a stall delays all
    /// requests behind it in the figures.
    pub(crate) due: Instant,
    /// The delay of the send behind the due time.
    pub(crate) send_delay: Duration,
    /// The time when the response was complete, or the client gave up.
    pub(crate) ended: Instant,
    /// The same time by the wall clock, which all processes share.
    pub(crate) ended_at: SystemTime,
    /// Whether it must not be executed twice.
    pub(crate) is_post: bool,
    /// The end of the request.
    pub(crate) result: ClientResult,
    /// The endpoint that answered.
    pub(crate) served_by: Option<SocketAddr>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientResult {
    /// With a complete response of this status.
    Answered(u16),
    /// The connection could not be opened, or broke before the response was complete.
    Lost,
    /// The client timed out.
    TimedOut,
}

impl fmt::Display for ClientResult {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => status.fmt(out),
            Self::Lost => out.write_str("lost"),
            Self::TimedOut => out.write_str("timeout"),
        }
    }
}

impl ClientSample {
    /// Whether it has a complete response below 500.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.result, ClientResult::Answered(status) if status < 500)
    }

    /// From when it was due to its end.
    pub(crate) fn latency(&self) -> Duration {
        self.ended.saturating_duration_since(self.due)
    }
}

/// Counts of samples.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct SampleCounts {
    pub(crate) sent: usize,
    /// GETs without a response below 500.
    pub(crate) failed_get: usize,
    pub(crate) failed_post: usize,
    /// The largest delay of a request behind its due time, in milliseconds.
    pub(crate) late_ms: f64,
}

impl SampleCounts {
    pub(crate) fn from_samples(samples: &[ClientSample]) -> Self {
        let failed = |is_post: bool| {
            samples.iter().filter(|sample| !sample.is_good() && sample.is_post == is_post).count()
        };
        let late = samples.iter().map(|sample| sample.send_delay).max().unwrap_or_default();
        Self {
            sent: samples.len(),
            failed_get: failed(false),
            failed_post: failed(true),
            late_ms: late.as_secs_f64() * 1e3,
        }
    }
}
