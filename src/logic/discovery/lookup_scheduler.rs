//! The lookup scheduler: when to query which name, and the current answers.
//!
//! A state machine over answers and time. Intervals follow the TTL within bounds, failures back off
//! exponentially, and jitter spreads the queries. Records of a host replace each other across
//! address families, so that a move from A to AAAA is no empty answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::address_filter::filter_forbidden;
use super::discovery_name::{DiscoveryEntry, DiscoveryName};
use super::lookup_answer::{DnsRecordType, LookupAnswer, LookupQuestion, LookupRecords, SrvTarget};
use super::lookup_policy::{EmptyAnswerPolicy, LookupPolicy};
use super::lookup_status::{CachedLookup, LookupChange, LookupStatus};
use super::origin::EndpointOrigin;
use super::question_state::{LastAnswer, QuestionState, normalise_answer};
use crate::logic::model::network::Network;

/// Upper bound on concurrent lookups; further ones wait.
pub const MAX_LOOKUPS_IN_FLIGHT: usize = 64;

/// Upper bound on questions over all names; targets of services beyond it are ignored.
const MAX_QUESTIONS: usize = 20_000;

/// The current records of a host or a service.
pub(super) struct ResolvedSet<T> {
    pub(super) items: Vec<T>,
    /// The records are from before a negative answer.
    pub(super) is_stale: bool,
}

/// The scheduler. Its driver takes due questions from [`Self::poll`], queries DNS, and passes the
/// answers to [`Self::on_answer`].
#[derive(Debug)]
pub struct LookupScheduler {
    policy: LookupPolicy,
    rng: Rng,
    names: Vec<DiscoveryName>,
    questions: BTreeMap<LookupQuestion, QuestionState>,
    in_flight: usize,
    cached: BTreeMap<LookupQuestion, (LookupRecords, Instant)>,
    /// Questions that led to endpoints which are down.
    questions_with_down_endpoints: BTreeSet<LookupQuestion>,
    /// Forbidden addresses that the driver has not collected yet.
    refused: Vec<(LookupQuestion, Vec<IpAddr>)>,
}

impl LookupScheduler {
    /// A scheduler without names, with the cached answers of an earlier process.
    pub fn new(seed: u64, cached: Vec<CachedLookup>) -> Self {
        let cached =
            cached.into_iter().map(|lookup| (lookup.question, (lookup.records, lookup.good_at)));
        Self {
            policy: LookupPolicy::default(),
            rng: Rng::with_seed(seed),
            names: Vec::new(),
            questions: BTreeMap::new(),
            in_flight: 0,
            cached: cached.collect(),
            questions_with_down_endpoints: BTreeSet::new(),
            refused: Vec::new(),
        }
    }

    /// Replaces the names and the policy. The answers to remaining questions are kept.
    pub fn configure(&mut self, entries: &[DiscoveryEntry], policy: &LookupPolicy, now: Instant) {
        self.policy = policy.clone();
        for (question, state) in &mut self.questions {
            let removed = state.apply_allow_list(question, &self.policy.allowed_networks, now);
            self.refused.push((question.clone(), removed));
        }
        let names: BTreeSet<&DiscoveryName> =
            entries.iter().map(|entry| &entry.discovery_name).collect();
        self.names = names.into_iter().cloned().collect();
        let limit = now + policy.max_ttl.max(policy.retry_max);
        for state in self.questions.values_mut() {
            state.due_at = state.due_at.min(limit);
        }
        self.reconcile_questions(now);
        // Cached answers that the first configuration does not use belong to removed names.
        self.cached.clear();
    }

    /// Makes all questions due, after a change of the DNS servers.
    pub fn refresh_all(&mut self, now: Instant) {
        for state in self.questions.values_mut() {
            state.due_at = state.due_at.min(now);
        }
    }

    /// Adds new questions and removes those that no name needs.
    fn reconcile_questions(&mut self, now: Instant) {
        let mut wanted = BTreeSet::new();
        let names = std::mem::take(&mut self.names);
        for name in &names {
            match name {
                DiscoveryName::Host { name, .. } => wanted.extend(self.address_questions(name)),
                DiscoveryName::Service { name } => {
                    let question =
                        LookupQuestion { name: Arc::clone(name), record_type: DnsRecordType::Srv };
                    self.ensure_question(&question, now);
                    wanted.insert(question);
                    let services = self.resolve_service(name).items;
                    let targets =
                        services.iter().flat_map(|service| self.address_questions(&service.target));
                    let remaining = MAX_QUESTIONS.saturating_sub(wanted.len());
                    wanted.extend(targets.take(remaining));
                }
            }
        }
        self.names = names;
        for question in &wanted {
            self.ensure_question(question, now);
        }
        self.questions.retain(|question, _| wanted.contains(question));
    }

    fn address_questions(&self, name: &Arc<str>) -> impl Iterator<Item = LookupQuestion> + use<> {
        let name = Arc::clone(name);
        let records = self.policy.family.record_types().iter();
        records.map(move |&record| LookupQuestion { name: Arc::clone(&name), record_type: record })
    }

    fn ensure_question(&mut self, question: &LookupQuestion, now: Instant) {
        if !self.questions.contains_key(question) {
            let mut state = QuestionState::new(now, self.cached.remove(question));
            let removed = state.apply_allow_list(question, &self.policy.allowed_networks, now);
            self.refused.push((question.clone(), removed));
            self.questions.insert(question.clone(), state);
        }
    }

    /// The questions to query now. Each must be answered by [`Self::on_answer`].
    pub fn poll(&mut self, now: Instant) -> Vec<LookupQuestion> {
        let mut due = Vec::new();
        for (question, state) in &mut self.questions {
            if self.in_flight == MAX_LOOKUPS_IN_FLIGHT {
                break;
            }
            if !state.is_in_flight && state.due_at <= now {
                state.is_in_flight = true;
                state.last_query_at = Some(now);
                self.in_flight += 1;
                due.push(question.clone());
            }
        }
        due
    }

    /// Time of the next due question; `None` while the limit of concurrent lookups is reached.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.questions.values().filter(|state| !state.is_in_flight);
        waiting.map(|state| state.due_at).min().filter(|_| self.in_flight < MAX_LOOKUPS_IN_FLIGHT)
    }

    /// Passes in the answer to a question of [`Self::poll`].
    pub fn on_answer(
        &mut self,
        question: &LookupQuestion,
        answer: LookupAnswer,
        now: Instant,
    ) -> LookupChange {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(state) = self.questions.get_mut(question) else {
            // The question was removed meanwhile.
            return LookupChange::default();
        };
        state.is_in_flight = false;
        let previous = (state.last_answer, state.last_good().cloned());
        let was_failing = state.failure.map(|(failure, _)| failure);
        let is_conclusive = !matches!(answer, LookupAnswer::Failed(_));
        let (answer, refused) =
            filter_forbidden(&question.name, answer, &self.policy.allowed_networks);
        if is_conclusive && refused != state.refused {
            state.refused.clone_from(&refused);
            self.refused.push((question.clone(), refused));
        }
        let answer = normalise_answer(answer, self.policy.max_answers);
        state.omitted_count = answer.1;
        match answer.0 {
            LookupAnswer::Found { records, .. } => {
                state.last_answer = LastAnswer::Records;
                state.last_good = Some((records, now));
                (state.failure, state.consecutive_empty) = (None, 0);
            }
            LookupAnswer::Negative { reason, .. } => {
                state.last_answer = LastAnswer::Negative(reason);
                state.failure = None;
                state.consecutive_empty += 1;
            }
            LookupAnswer::Failed(failure) => {
                let failure_count = state.failure.map_or(0, |(_, in_a_row)| in_a_row);
                state.failure = Some((failure, failure_count + 1));
            }
        }
        let has_changed = (state.last_answer, state.last_good().cloned()) != previous;
        let is_first_in_row = match state.failure {
            Some((failure, _)) => was_failing != Some(failure),
            None => has_changed,
        };
        let omitted_count = state.omitted_count;
        if has_changed {
            if previous.0 == LastAnswer::Records
                && !matches!(state.last_answer, LastAnswer::Records)
            {
                self.requery_sibling_records(question, now);
            }
            self.drop_replaced_records(&question.name);
            self.reconcile_questions(now);
        }
        let interval = self.next_interval(question, answer.2);
        if let Some(state) = self.questions.get_mut(question) {
            state.due_at = now + interval;
        }
        LookupChange { has_changed, omitted_count, is_first_in_row }
    }

    /// Takes the forbidden addresses found since the last call.
    pub fn take_refused(&mut self) -> Vec<(LookupQuestion, Vec<IpAddr>)> {
        self.refused.retain(|(_, addresses)| !addresses.is_empty());
        std::mem::take(&mut self.refused)
    }

    /// A host has lost its records of one type: those of the other type may have appeared since the
    /// last query.
    fn requery_sibling_records(&mut self, question: &LookupQuestion, now: Instant) {
        let siblings: Vec<LookupQuestion> =
            self.address_questions(&question.name).filter(|sibling| sibling != question).collect();
        for sibling in siblings.iter().filter(|_| question.record_type != DnsRecordType::Srv) {
            if let Some(state) = self.questions.get_mut(sibling)
                && matches!(state.last_answer, LastAnswer::Negative(_))
            {
                state.last_answer = LastAnswer::Unanswered;
                state.due_at = now;
            }
        }
    }

    /// A host with current records forgets the old records of its other types.
    fn drop_replaced_records(&mut self, name: &Arc<str>) {
        let questions: Vec<LookupQuestion> = self.address_questions(name).collect();
        let has_records = questions.iter().any(|question| {
            self.questions
                .get(question)
                .and_then(QuestionState::current)
                .is_some_and(|records| records.len() > 0)
        });
        for question in questions.iter().filter(|_| has_records) {
            if let Some(state) = self.questions.get_mut(question)
                && matches!(state.last_answer, LastAnswer::Negative(_))
            {
                state.last_good = None;
            }
        }
    }

    /// The interval to the next query of the question.
    fn next_interval(&mut self, question: &LookupQuestion, ttl: Option<Duration>) -> Duration {
        let LookupPolicy { min_ttl, max_ttl, retry_min, retry_max, .. } = self.policy;
        let Some(state) = self.questions.get(question) else { return retry_max };
        let backoff = |in_a_row: u32| {
            retry_min.saturating_mul(1 << in_a_row.saturating_sub(1).min(20)).min(retry_max)
        };
        let (interval, minimum) = match (state.failure, state.last_answer) {
            (Some((_, in_a_row)), _) => (backoff(in_a_row), retry_min),
            (None, LastAnswer::Negative(_)) if !self.has_sibling_records(question) => {
                (backoff(state.consecutive_empty), retry_min)
            }
            // Records of one address family only are no error.
            (None, LastAnswer::Negative(_)) => {
                (ttl.unwrap_or(retry_max).clamp(min_ttl, max_ttl), min_ttl)
            }
            (None, _) => (ttl.unwrap_or(min_ttl).clamp(min_ttl, max_ttl), min_ttl),
        };
        let interval = if self.questions_with_down_endpoints.contains(question) {
            interval.min(retry_max)
        } else {
            interval
        };
        // Jitter spreads the queries. It only shortens the interval.
        interval.mul_f64(1.0 - self.rng.f64() / 10.0).max(minimum)
    }

    /// Whether the host has current records of another type.
    fn has_sibling_records(&self, question: &LookupQuestion) -> bool {
        question.record_type != DnsRecordType::Srv
            && self.address_questions(&question.name).filter(|sibling| sibling != question).any(
                |sibling| {
                    self.questions
                        .get(&sibling)
                        .and_then(QuestionState::current)
                        .is_some_and(|records| records.len() > 0)
                },
            )
    }

    /// The questions that led to an endpoint.
    fn questions_of_origin(&self, origin: &EndpointOrigin) -> Vec<LookupQuestion> {
        let mut questions: Vec<LookupQuestion> = match &origin.discovery_name {
            DiscoveryName::Host { name, .. } => self.address_questions(name).collect(),
            DiscoveryName::Service { name } => {
                vec![LookupQuestion { name: Arc::clone(name), record_type: DnsRecordType::Srv }]
            }
        };
        questions.extend(origin.target.iter().flat_map(|target| self.address_questions(target)));
        questions
    }

    /// Queries the names of a failed endpoint again as soon as the policy permits: it may have
    /// moved.
    pub fn expedite(&mut self, origin: &EndpointOrigin, now: Instant) {
        for question in self.questions_of_origin(origin) {
            if let Some(state) = self.questions.get_mut(&question) {
                let earliest =
                    state.last_query_at.map_or(now, |at| at + self.policy.min_ttl).max(now);
                state.due_at = state.due_at.min(earliest);
            }
        }
    }

    /// Replaces the set of endpoints that are down. Their names are queried more often.
    pub fn set_down_endpoints<'f>(
        &mut self,
        origins: impl Iterator<Item = &'f EndpointOrigin>,
        now: Instant,
    ) {
        self.questions_with_down_endpoints =
            origins.flat_map(|origin| self.questions_of_origin(origin)).collect();
        let limit = now + self.policy.retry_max.max(self.policy.min_ttl);
        for question in &self.questions_with_down_endpoints {
            if let Some(state) = self.questions.get_mut(question) {
                state.due_at = state.due_at.min(limit);
            }
        }
    }

    pub(super) fn resolve_host(&self, name: &Arc<str>) -> ResolvedSet<IpAddr> {
        self.resolve_set(self.address_questions(name), |records| match records {
            LookupRecords::Addresses(all) => all,
            LookupRecords::SrvTargets(_) => &[],
        })
    }

    pub(super) fn resolve_service(&self, name: &Arc<str>) -> ResolvedSet<SrvTarget> {
        let question = LookupQuestion { name: Arc::clone(name), record_type: DnsRecordType::Srv };
        self.resolve_set([question].into_iter(), |records| match records {
            LookupRecords::SrvTargets(all) => all,
            LookupRecords::Addresses(_) => &[],
        })
    }

    /// The union of the records of several questions. Old records are used until all questions have
    /// negative answers, or beyond that under [`EmptyAnswerPolicy::Keep`].
    fn resolve_set<T: Clone>(
        &self,
        questions: impl Iterator<Item = LookupQuestion>,
        select: fn(&LookupRecords) -> &[T],
    ) -> ResolvedSet<T> {
        let all: Vec<&QuestionState> =
            questions.filter_map(|question| self.questions.get(&question)).collect();
        let collect = |records: fn(&QuestionState) -> Option<&LookupRecords>| -> Vec<T> {
            all.iter().filter_map(|state| records(state)).flat_map(select).cloned().collect()
        };
        let current = collect(QuestionState::current);
        let is_empty =
            || all.iter().all(|state| matches!(state.last_answer, LastAnswer::Negative(_)));
        if !current.is_empty() || self.policy.on_empty == EmptyAnswerPolicy::Remove && is_empty() {
            return ResolvedSet { items: current, is_stale: false };
        }
        let all = collect(QuestionState::last_good);
        ResolvedSet { is_stale: !all.is_empty(), items: all }
    }

    /// Whether every question has an answer, a failure, or a cached answer.
    pub fn has_initial_answers(&self) -> bool {
        self.questions.values().all(|state| {
            state.last_answer != LastAnswer::Unanswered
                || state.failure.is_some()
                || state.last_good.is_some()
        })
    }

    /// The status of every question.
    pub fn statuses(&self) -> impl Iterator<Item = LookupStatus> {
        self.questions.iter().map(|(question, state)| state.status(question))
    }

    /// The status of the questions that the name itself needs.
    pub fn status_of_name(&self, name: &DiscoveryName) -> Vec<LookupStatus> {
        let direct = EndpointOrigin { discovery_name: name.clone(), target: None, is_stale: false };
        self.status_of_questions(self.questions_of_origin(&direct))
    }

    /// The status of the questions for the targets of a service.
    pub fn status_of_targets(&self, name: &DiscoveryName) -> Vec<LookupStatus> {
        let DiscoveryName::Service { name } = name else { return Vec::new() };
        let services = self.resolve_service(name).items;
        self.status_of_questions(
            services.iter().flat_map(|service| self.address_questions(&service.target)),
        )
    }

    fn status_of_questions(
        &self,
        all: impl IntoIterator<Item = LookupQuestion>,
    ) -> Vec<LookupStatus> {
        let status = |question: LookupQuestion| {
            self.questions.get(&question).map(|state| state.status(&question))
        };
        all.into_iter().filter_map(status).collect()
    }

    /// The last good answers, for a later process.
    pub fn export_cache(&self) -> Vec<CachedLookup> {
        let cached = |(question, state): (&LookupQuestion, &QuestionState)| {
            let (records, good_at) = state.last_good.clone()?;
            Some(CachedLookup { question: question.clone(), records, good_at })
        };
        self.questions.iter().filter_map(cached).collect()
    }

    pub(super) fn allowed_networks(&self) -> &[Network] {
        &self.policy.allowed_networks
    }

    pub(super) fn max_answers(&self) -> usize {
        self.policy.max_answers
    }
}
