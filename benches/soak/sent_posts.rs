//! What clients know of what they sent.

use serde::Serialize;

use crate::post::IdempotencyPromise;
use crate::sample::ClientResult;

/// How a client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientKind {
    /// Over HTTP/1.1, on a connection that it keeps.
    Kept,
    /// Over HTTP/1.1, on a connection for this request.
    New,
    /// Over HTTP/2, with others on the same connection.
    Http2,
}

impl ClientKind {
    /// All of them, in the order of reports.
    pub(crate) const ALL: [Self; 3] = [Self::Kept, Self::New, Self::Http2];

    /// What a report calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kept => "HTTP/1.1, kept",
            Self::New => "HTTP/1.1, new",
            Self::Http2 => "HTTP/2",
        }
    }

    /// How many there are of it.
    pub(crate) fn client_count(self) -> usize {
        match self {
            Self::Kept | Self::Http2 => 24,
            Self::New => 8,
        }
    }
}

/// One POST, as its client knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentPost {
    pub(crate) number: u64,
    pub(crate) kind: ClientKind,
    pub(crate) promise: IdempotencyPromise,
    pub(crate) result: ClientResult,
}

impl SentPost {
    /// Whether its client was told that it was done.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.result, ClientResult::Answered(200..300))
    }
}
