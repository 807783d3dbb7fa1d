//! The part of an access record that describes one attempt at an endpoint.

use std::net::SocketAddr;
use std::time::Duration;

#[cfg(feature = "otlp")]
use crate::app::dataplane::proxy::SpanId;
use crate::logic::model::id::Locality;
use crate::logic::model::outcome;
use crate::logic::model::outcome::{Failure, FailureLayer};

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptResult {
    /// It was given up on: by a verdict, or because its client went.
    Abandoned,
    Status(u16),
    Failed(Failure),
    /// The rest of the request did not come.
    Client,
}

/// A try at one endpoint.
#[derive(Debug)]
pub(super) struct AttemptRecord {
    pub(super) endpoint: SocketAddr,
    pub(super) place: Locality,
    pub(super) result: AttemptResult,
    pub(super) elapsed: Option<Duration>,
    #[cfg(feature = "otlp")]
    pub(super) span_record: AttemptSpanRecord,
}

/// What a try's span has besides what its line has.
#[cfg(feature = "otlp")]
#[derive(Debug)]
pub(super) struct AttemptSpanRecord {
    pub(super) span: SpanId,
    pub(super) ordinal: u32,
    /// From the request's beginning to its own.
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
    /// The word in the line; a status has none.
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

    /// The status, where there is one.
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
