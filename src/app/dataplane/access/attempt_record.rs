//! The part of an access record that describes one attempt at an endpoint.

use std::net::SocketAddr;
use std::time::Duration;

#[cfg(feature = "otlp")]
use crate::app::dataplane::proxy::SpanId;
use crate::logic::model::id::Locality;
use crate::logic::model::outcome;
use crate::logic::model::outcome::{Failure, FailureLayer};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptResult {
    /// Abandoned after a verdict, or because the client disconnected.
    Abandoned,
    Status(u16),
    Failed(Failure),
    /// The client did not send the rest of the request.
    Client,
}

/// The entry of one attempt at one endpoint.
#[derive(Debug)]
pub(super) struct AttemptRecord {
    pub(super) endpoint: SocketAddr,
    pub(super) place: Locality,
    pub(super) result: AttemptResult,
    pub(super) elapsed: Option<Duration>,
    #[cfg(feature = "otlp")]
    pub(super) span_record: AttemptSpanRecord,
}

/// The data of an attempt that only its span needs.
#[cfg(feature = "otlp")]
#[derive(Debug)]
pub(super) struct AttemptSpanRecord {
    pub(super) span: SpanId,
    pub(super) ordinal: u32,
    /// From the request's arrival to the attempt's start.
    pub(super) started_after: Duration,
    pub(super) ended_after: Option<Duration>,
    pub(super) scheme: &'static str,
}

#[cfg(feature = "otlp")]
impl AttemptSpanRecord {
    /// The attempt is over, `age` after the request's arrival.
    pub(super) fn end(&mut self, age: Duration) {
        self.ended_after = Some(age);
    }
}

impl AttemptResult {
    /// The word in the log line; `None` for a status.
    pub(super) fn reason_word(self) -> Option<&'static str> {
        let failure = match self {
            Self::Abandoned => return Some("left"),
            Self::Client => return Some("client"),
            Self::Status(_) => return None,
            Self::Failed(failure) => failure,
        };
        Some(match (failure.layer, failure.reason) {
            (_, outcome::FailureReason::Refused) => "refused",
            (_, outcome::FailureReason::Unreachable) => "unreachable",
            (FailureLayer::Connect | FailureLayer::Tls, outcome::FailureReason::Timeout) => {
                "connect_timeout"
            }
            (_, outcome::FailureReason::Timeout) => "timeout",
            (_, outcome::FailureReason::Reset) => "reset",
            (_, outcome::FailureReason::Closed) => "closed",
            (_, outcome::FailureReason::Stall | outcome::FailureReason::Slow) => "slow",
            (_, outcome::FailureReason::Cut) => "cut",
            (_, outcome::FailureReason::Certificate(_)) => "certificate",
            (_, outcome::FailureReason::Handshake) => "handshake",
            (_, outcome::FailureReason::Status(_)) => return None,
            _ => "malformed",
        })
    }

    pub(super) fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status),
            Self::Failed(Failure { reason: outcome::FailureReason::Status(status), .. }) => {
                Some(status)
            }
            _ => None,
        }
    }
}
