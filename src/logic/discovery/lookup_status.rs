//! The status of lookups, for output and for a later process.

use std::net::IpAddr;
use std::time::Instant;

use super::lookup_answer::{LookupFailure, LookupQuestion, LookupRecords, NegativeReason};

/// The last good answer to a question, for a later process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedLookup {
    pub question: LookupQuestion,
    pub records: LookupRecords,
    /// Time of that answer.
    pub good_at: Instant,
}

/// The content of the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupState {
    /// The lookup has no answer yet.
    Pending,
    /// The last answer has records.
    Found,
    /// No answer yet; the records are from an earlier process.
    Cached,
    /// The last answer has no records.
    Negative(NegativeReason),
}

impl LookupState {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Found => "found",
            Self::Cached => "remembered",
            Self::Negative(reason) => reason.as_str(),
        }
    }
}

/// The status of one question.
#[derive(Clone, Debug)]
pub struct LookupStatus {
    pub question: LookupQuestion,
    pub state: LookupState,
    /// The last good answer.
    pub records: Option<LookupRecords>,
    /// Time of the last good answer.
    pub good_at: Option<Instant>,
    /// The number of ignored records in the last answer.
    pub omitted_count: usize,
    /// Forbidden addresses in the last answer.
    pub refused: Vec<IpAddr>,
    /// The current failure, and how many lookups in a row have failed.
    pub failure: Option<(LookupFailure, u32)>,
    pub last_query_at: Option<Instant>,
    /// Time of the next query; `None` while one is in flight.
    pub due_at: Option<Instant>,
}

/// The effect of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookupChange {
    /// The records or the state have changed.
    pub has_changed: bool,
    /// The number of ignored records in the answer.
    pub omitted_count: usize,
    /// The first failure or empty answer of a series.
    pub is_first_in_row: bool,
}
