//! What is told of lookups.

use std::net::IpAddr;
use std::time::Instant;

use super::{Data, Failure, Lack, Question};

/// The last good answer to one question, for a process that comes after this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// What was asked.
    pub question: Question,
    /// What was found.
    pub data: Data,
    /// When that was last so.
    pub at: Instant,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// DNS has not said anything yet.
    Pending,
    /// DNS says so, or did when it last answered.
    Found,
    /// An earlier process found it, and DNS has not said anything since.
    Remembered,
    /// DNS says that there is nothing.
    Lacking(Lack),
}

impl Standing {
    /// The word used in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Found => "found",
            Self::Remembered => "remembered",
            Self::Lacking(lack) => lack.as_str(),
        }
    }
}

/// How it stands with one question.
#[derive(Clone, Debug)]
pub struct Status {
    /// What is asked.
    pub question: Question,
    /// What is known.
    pub standing: Standing,
    /// The last good answer.
    pub data: Option<Data>,
    /// When that was last so.
    pub good_at: Option<Instant>,
    /// Parts of the last answer that were left out.
    pub left_out: usize,
    /// Addresses in it that may be no endpoint's.
    pub refused: Vec<IpAddr>,
    /// Why the last lookup failed, if it did, and how many in a row have.
    pub failing: Option<(Failure, u32)>,
    /// When it was last asked.
    pub asked_at: Option<Instant>,
    /// When it is asked next; absent while it is being asked.
    pub due: Option<Instant>,
}

/// What an answer has led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Whether something else is known now than before.
    pub has_changed: bool,
    /// Parts of the answer that were left out.
    pub left_out: usize,
    /// The first of a row of failures, or of empty answers.
    pub is_first_of_its_kind: bool,
}
