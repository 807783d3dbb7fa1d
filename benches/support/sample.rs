//! What became of requests.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

/// How one request went.
#[derive(Clone, Debug)]
pub(crate) struct ClientSample {
    /// Its number, and the last part of its path.
    pub(crate) number: u64,
    /// When it was to be sent. Its latency counts from then, so that a stall delays in the figures
    /// all that was due meanwhile.
    pub(crate) due: Instant,
    /// By how much later it was.
    pub(crate) send_delay: Duration,
    /// When its answer was read to the end, or the client gave up.
    pub(crate) ended: Instant,
    /// The same by the clock that processes share.
    pub(crate) ended_at: SystemTime,
    /// It must not run twice.
    pub(crate) is_post: bool,
    /// What came of it.
    pub(crate) result: ClientResult,
    /// The endpoint that answered.
    pub(crate) served_by: Option<SocketAddr>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientResult {
    /// With a whole answer of this status.
    Answered(u16),
    /// Its connection could not be opened, or broke before the answer was whole.
    Lost,
    /// The client went away.
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
    /// Whether it has a whole answer below 500.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.result, ClientResult::Answered(status) if status < 500)
    }

    /// From when it was due to its end.
    pub(crate) fn latency(&self) -> Duration {
        self.ended.saturating_duration_since(self.due)
    }
}

/// The same in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct SampleCounts {
    pub(crate) sent: usize,
    /// GETs without an answer below 500.
    pub(crate) failed_get: usize,
    pub(crate) failed_post: usize,
    /// The most by which a request went out later than it was due.
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
