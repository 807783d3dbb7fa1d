//! The state of one question: its answers so far, and when it is asked next.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::address_filter::is_permitted;
use super::lookup_answer::{
    LookupAnswer, LookupFailure, LookupQuestion, LookupRecords, NegativeReason,
};
use super::lookup_status::{LookupState, LookupStatus};
use crate::logic::model::network::Network;

/// One question and what is known of it.
#[derive(Debug)]
pub(super) struct QuestionState {
    /// What DNS said when it last answered; the default before it ever has.
    pub(super) last_answer: LastAnswer,
    /// The last records that were found. Kept when they are gone, until the name has others.
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

    /// From now on these may be endpoints besides: what is known is brought in line, and asked for
    /// anew where that makes a difference. Gives what may be none any more.
    pub(super) fn apply_allow_list(
        &mut self,
        question: &LookupQuestion,
        allow: &[Network],
        now: Instant,
    ) -> Vec<IpAddr> {
        let may = |ip: &IpAddr| is_permitted(&question.name, *ip, allow);
        let mut removed = Vec::new();
        if let Some((LookupRecords::Addresses(all), _)) = &mut self.last_good {
            removed = all.extract_if(.., |ip| !may(ip)).collect();
            if all.is_empty() {
                self.last_good = None;
            }
        }
        if !removed.is_empty() || self.refused.iter().any(may) {
            self.due_at = now;
        }
        self.refused.extend_from_slice(&removed);
        self.refused.sort_unstable();
        removed
    }

    /// What it adds to what is known: before DNS has said anything, that is what is remembered.
    pub(super) fn current(&self) -> Option<&LookupRecords> {
        match self.last_answer {
            LastAnswer::Negative(_) => None,
            LastAnswer::Records | LastAnswer::Unanswered => self.last_good(),
        }
    }

    pub(super) fn last_good(&self) -> Option<&LookupRecords> {
        self.last_good.as_ref().map(|(data, _)| data)
    }

    pub(super) fn status(&self, question: &LookupQuestion) -> LookupStatus {
        LookupStatus {
            question: question.clone(),
            state: self.lookup_state(),
            records: self.last_good().cloned(),
            good_at: self.last_good.as_ref().map(|&(_, at)| at),
            omitted_count: self.omitted_count,
            refused: self.refused.clone(),
            failure: self.failure,
            last_query_at: self.last_query_at,
            due_at: Some(self.due_at).filter(|_| !self.is_in_flight),
        }
    }

    fn lookup_state(&self) -> LookupState {
        match self.last_answer {
            LastAnswer::Negative(lack) => LookupState::Negative(lack),
            LastAnswer::Records => LookupState::Found,
            LastAnswer::Unanswered if self.last_good.is_some() => LookupState::Cached,
            LastAnswer::Unanswered => LookupState::Pending,
        }
    }
}

/// The answer as it is believed, what was left out of it, and how long it may be believed.
pub(super) fn normalise_answer(
    answer: LookupAnswer,
    max_records: usize,
) -> (LookupAnswer, usize, Option<Duration>) {
    match answer {
        LookupAnswer::Found { records: data, ttl } => {
            let (data, left_out) = data.normalise(max_records);
            if data.len() == 0 {
                let answer =
                    LookupAnswer::Negative { reason: NegativeReason::NoData, ttl: Some(ttl) };
                return (answer, left_out, Some(ttl));
            }
            (LookupAnswer::Found { records: data, ttl }, left_out, Some(ttl))
        }
        LookupAnswer::Negative { reason: lack, ttl } => {
            (LookupAnswer::Negative { reason: lack, ttl }, 0, ttl)
        }
        LookupAnswer::Failed(failure) => (LookupAnswer::Failed(failure), 0, None),
    }
}
