//! The state of one question: its answers so far, and the time of the next query.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::address_filter::is_permitted;
use super::lookup_answer::{
    LookupAnswer, LookupFailure, LookupQuestion, LookupRecords, NegativeReason,
};
use super::lookup_status::{LookupState, LookupStatus};
use crate::logic::model::network::Network;

/// The state of one question.
#[derive(Debug)]
pub(super) struct QuestionState {
    pub(super) last_answer: LastAnswer,
    /// The last records. Kept after a negative answer until the name has other records.
    pub(super) last_good: Option<(LookupRecords, Instant)>,
    pub(super) omitted_count: usize,
    pub(super) refused: Vec<IpAddr>,
    pub(super) failure: Option<(LookupFailure, u32)>,
    pub(super) consecutive_empty: u32,
    pub(super) last_query_at: Option<Instant>,
    pub(super) is_in_flight: bool,
    pub(super) due_at: Instant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LastAnswer {
    #[default]
    Unanswered,
    Records,
    Negative(NegativeReason),
}

impl QuestionState {
    pub(super) fn new(now: Instant, cached: Option<(LookupRecords, Instant)>) -> Self {
        Self {
            last_answer: LastAnswer::default(),
            last_good: cached,
            omitted_count: 0,
            refused: Vec::new(),
            failure: None,
            consecutive_empty: 0,
            last_query_at: None,
            is_in_flight: false,
            due_at: now,
        }
    }

    /// Applies a new allow list: removes addresses that are no longer permitted and returns them.
    /// Makes the question due if the result may differ.
    pub(super) fn apply_allow_list(
        &mut self,
        question: &LookupQuestion,
        allow: &[Network],
        now: Instant,
    ) -> Vec<IpAddr> {
        let is_allowed = |ip: &IpAddr| is_permitted(&question.name, *ip, allow);
        let mut removed = Vec::new();
        if let Some((LookupRecords::Addresses(all), _)) = &mut self.last_good {
            removed = all.extract_if(.., |ip| !is_allowed(ip)).collect();
            if all.is_empty() {
                self.last_good = None;
            }
        }
        if !removed.is_empty() || self.refused.iter().any(is_allowed) {
            self.due_at = now;
        }
        self.refused.extend_from_slice(&removed);
        self.refused.sort_unstable();
        removed
    }

    /// The records that count now; before the first answer, the cached ones.
    pub(super) fn current(&self) -> Option<&LookupRecords> {
        match self.last_answer {
            LastAnswer::Negative(_) => None,
            LastAnswer::Records | LastAnswer::Unanswered => self.last_good(),
        }
    }

    pub(super) fn last_good(&self) -> Option<&LookupRecords> {
        self.last_good.as_ref().map(|(records, _)| records)
    }

    pub(super) fn status(&self, question: &LookupQuestion) -> LookupStatus {
        LookupStatus {
            question: question.clone(),
            state: self.lookup_state(),
            records: self.last_good().cloned(),
            good_at: self.last_good.as_ref().map(|&(_, good_at)| good_at),
            omitted_count: self.omitted_count,
            refused: self.refused.clone(),
            failure: self.failure,
            last_query_at: self.last_query_at,
            due_at: Some(self.due_at).filter(|_| !self.is_in_flight),
        }
    }

    fn lookup_state(&self) -> LookupState {
        match self.last_answer {
            LastAnswer::Negative(reason) => LookupState::Negative(reason),
            LastAnswer::Records => LookupState::Found,
            LastAnswer::Unanswered if self.last_good.is_some() => LookupState::Cached,
            LastAnswer::Unanswered => LookupState::Pending,
        }
    }
}

/// Normalises the records of an answer. Returns the answer, the number of ignored records, and the
/// TTL.
pub(super) fn normalise_answer(
    answer: LookupAnswer,
    max_records: usize,
) -> (LookupAnswer, usize, Option<Duration>) {
    match answer {
        LookupAnswer::Found { records, ttl } => {
            let (records, omitted_count) = records.normalise(max_records);
            if records.len() == 0 {
                let answer =
                    LookupAnswer::Negative { reason: NegativeReason::NoData, ttl: Some(ttl) };
                return (answer, omitted_count, Some(ttl));
            }
            (LookupAnswer::Found { records, ttl }, omitted_count, Some(ttl))
        }
        LookupAnswer::Negative { reason, ttl } => (LookupAnswer::Negative { reason, ttl }, 0, ttl),
        LookupAnswer::Failed(failure) => (LookupAnswer::Failed(failure), 0, None),
    }
}
