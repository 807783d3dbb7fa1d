//! The POSTs that clients sent, with their results.

use serde::Serialize;

use crate::post::IdempotencyPromise;
use crate::sample::ClientResult;

/// The kind of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientKind {
    /// Over HTTP/1.1 on a kept connection.
    Kept,
    /// Over HTTP/1.1 on a new connection per request.
    New,
    /// Over HTTP/2 on a shared connection.
    Http2,
}

impl ClientKind {
    /// All kinds, in the order of reports.
    pub(crate) const ALL: [Self; 3] = [Self::Kept, Self::New, Self::Http2];

    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kept => "HTTP/1.1, kept",
            Self::New => "HTTP/1.1, new",
            Self::Http2 => "HTTP/2",
        }
    }

    /// The number of clients of this kind.
    pub(crate) fn client_count(self) -> usize {
        match self {
            Self::Kept | Self::Http2 => 24,
            Self::New => 8,
        }
    }
}

/// One POST with its result at the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentPost {
    pub(crate) number: u64,
    pub(crate) kind: ClientKind,
    pub(crate) promise: IdempotencyPromise,
    pub(crate) result: ClientResult,
}

impl SentPost {
    /// Whether the client got a success.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.result, ClientResult::Answered(200..300))
    }
}
