//! What is told of lookups.

use std::net::IpAddr;
use std::time::Instant;

use super::lookup_answer::{LookupFailure, LookupQuestion, LookupRecords, NegativeReason};

/// The last good answer to one question, for a process that comes after this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedLookup {
    pub question: LookupQuestion,
    pub records: LookupRecords,
    /// When that was last so.
    pub good_at: Instant,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupState {
    /// DNS has not said anything yet.
    Pending,
    /// DNS says so, or did when it last answered.
    Found,
    /// An earlier process found it, and DNS has not said anything since.
    Cached,
    /// DNS says that there is nothing.
    Negative(NegativeReason),
}

impl LookupState {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Found => "found",
            Self::Cached => "remembered",
            Self::Negative(lack) => lack.as_str(),
        }
    }
}

/// How it stands with one question.
#[derive(Clone, Debug)]
pub struct LookupStatus {
    pub question: LookupQuestion,
    pub state: LookupState,
    /// The last good answer.
    pub records: Option<LookupRecords>,
    /// When that was last so.
    pub good_at: Option<Instant>,
    /// Parts of the last answer that were left out.
    pub omitted_count: usize,
    /// Addresses in it that may be no endpoint's.
    pub refused: Vec<IpAddr>,
    /// Why the last lookup failed, if it did, and how many in a row have.
    pub failure: Option<(LookupFailure, u32)>,
    /// When it was last asked.
    pub last_query_at: Option<Instant>,
    /// When it is asked next; absent while it is being asked.
    pub due_at: Option<Instant>,
}

/// What an answer has led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookupChange {
    /// Whether something else is known now than before.
    pub has_changed: bool,
    /// Parts of the answer that were left out.
    pub omitted_count: usize,
    /// The first of a row of failures, or of empty answers.
    pub is_first_in_row: bool,
}
