//! When to ask what, and what is believed: a machine over answers and time.

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

/// Lookups that may be under way at once; the others wait.
pub const MAX_LOOKUPS_IN_FLIGHT: usize = 64;

/// Records asked for at most, over all names: targets of services beyond are left out.
const MAX_QUESTIONS: usize = 20_000;

/// What is believed of a host or a service.
pub(super) struct ResolvedSet<T> {
    pub(super) items: Vec<T>,
    /// DNS says that there is nothing; what is here is from before.
    pub(super) is_stale: bool,
}

/// The machine. It asks nobody: its driver takes what is due and hands answers in.
#[derive(Debug)]
pub struct LookupScheduler {
    policy: LookupPolicy,
    rng: Rng,
    names: Vec<DiscoveryName>,
    questions: BTreeMap<LookupQuestion, QuestionState>,
    in_flight: usize,
    cached: BTreeMap<LookupQuestion, (LookupRecords, Instant)>,
    /// Questions that endpoints which are down were found by.
    questions_with_down_endpoints: BTreeSet<LookupQuestion>,
    /// Addresses that may be no endpoint's, of which nobody has been told yet.
    refused: Vec<(LookupQuestion, Vec<IpAddr>)>,
}

impl LookupScheduler {
    /// A machine that asks for nothing yet, and has these answers of an earlier process.
    pub fn new(seed: u64, cached: Vec<CachedLookup>) -> Self {
        let remembered = cached.into_iter().map(|one| (one.question, (one.records, one.good_at)));
        Self {
            policy: LookupPolicy::default(),
            rng: Rng::with_seed(seed),
            names: Vec::new(),
            questions: BTreeMap::new(),
            in_flight: 0,
            cached: remembered.collect(),
            questions_with_down_endpoints: BTreeSet::new(),
            refused: Vec::new(),
        }
    }

    /// From now on these names are looked up, in this way. What is known of those that stay is kept.
    pub fn configure(&mut self, entries: &[DiscoveryEntry], policy: &LookupPolicy, now: Instant) {
        self.policy = policy.clone();
        for (question, asked) in &mut self.questions {
            let lost = asked.apply_allow_list(question, &self.policy.allowed_networks, now);
            self.refused.push((question.clone(), lost));
        }
        let names: BTreeSet<&DiscoveryName> =
            entries.iter().map(|entry| &entry.discovery_name).collect();
        self.names = names.into_iter().cloned().collect();
        let limit = now + policy.max_ttl.max(policy.retry_max);
        for asked in self.questions.values_mut() {
            asked.due_at = asked.due_at.min(limit);
        }
        self.reconcile_questions(now);
        // What no name of the first configuration needs was another's.
        self.cached.clear();
    }

    /// Others are asked from now on: what they say is to be known soon.
    pub fn refresh_all(&mut self, now: Instant) {
        for asked in self.questions.values_mut() {
            asked.due_at = asked.due_at.min(now);
        }
    }

    /// Takes up what has become a question, and forgets what is none any more.
    fn reconcile_questions(&mut self, now: Instant) {
        let mut wanted = BTreeSet::new();
        let names = std::mem::take(&mut self.names);
        for one in &names {
            match one {
                DiscoveryName::Host { name, .. } => wanted.extend(self.address_questions(name)),
                DiscoveryName::Service { name } => {
                    let question =
                        LookupQuestion { name: Arc::clone(name), record_type: DnsRecordType::Srv };
                    self.ensure_question(&question, now);
                    wanted.insert(question);
                    let services = self.resolve_service(name).items;
                    let targets =
                        services.iter().flat_map(|one| self.address_questions(&one.target));
                    let room = MAX_QUESTIONS.saturating_sub(wanted.len());
                    wanted.extend(targets.take(room));
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
            let mut asked = QuestionState::new(now, self.cached.remove(question));
            let lost = asked.apply_allow_list(question, &self.policy.allowed_networks, now);
            self.refused.push((question.clone(), lost));
            self.questions.insert(question.clone(), asked);
        }
    }

    /// What is to be asked now. Each is to be answered by [`Lookups::answered`].
    pub fn poll(&mut self, now: Instant) -> Vec<LookupQuestion> {
        let mut due = Vec::new();
        for (question, asked) in &mut self.questions {
            if self.in_flight == MAX_LOOKUPS_IN_FLIGHT {
                break;
            }
            if !asked.is_in_flight && asked.due_at <= now {
                asked.is_in_flight = true;
                asked.last_query_at = Some(now);
                self.in_flight += 1;
                due.push(question.clone());
            }
        }
        due
    }

    /// When [`Lookups::poll`] has something next; absent while it has no room.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.questions.values().filter(|asked| !asked.is_in_flight);
        waiting.map(|asked| asked.due_at).min().filter(|_| self.in_flight < MAX_LOOKUPS_IN_FLIGHT)
    }

    /// A question that was handed out has been answered.
    pub fn on_answer(
        &mut self,
        question: &LookupQuestion,
        answer: LookupAnswer,
        now: Instant,
    ) -> LookupChange {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(asked) = self.questions.get_mut(question) else {
            // Nobody wants to know any more.
            return LookupChange::default();
        };
        asked.is_in_flight = false;
        let previous = (asked.last_answer, asked.last_good().cloned());
        let was_failing = asked.failure.map(|(failure, _)| failure);
        let is_conclusive = !matches!(answer, LookupAnswer::Failed(_));
        let (answer, refused) =
            filter_forbidden(&question.name, answer, &self.policy.allowed_networks);
        if is_conclusive && refused != asked.refused {
            asked.refused.clone_from(&refused);
            self.refused.push((question.clone(), refused));
        }
        let answer = normalise_answer(answer, self.policy.max_answers);
        asked.omitted_count = answer.1;
        match answer.0 {
            LookupAnswer::Found { records: data, .. } => {
                asked.last_answer = LastAnswer::Records;
                asked.last_good = Some((data, now));
                (asked.failure, asked.consecutive_empty) = (None, 0);
            }
            LookupAnswer::Negative { reason: lack, .. } => {
                asked.last_answer = LastAnswer::Negative(lack);
                asked.failure = None;
                asked.consecutive_empty += 1;
            }
            LookupAnswer::Failed(failure) => {
                let before = asked.failure.map_or(0, |(_, in_a_row)| in_a_row);
                asked.failure = Some((failure, before + 1));
            }
        }
        let has_changed = (asked.last_answer, asked.last_good().cloned()) != previous;
        let is_first_of_its_kind = match asked.failure {
            Some((failure, _)) => was_failing != Some(failure),
            None => has_changed,
        };
        let left_out = asked.omitted_count;
        if has_changed {
            if previous.0 == LastAnswer::Records
                && !matches!(asked.last_answer, LastAnswer::Records)
            {
                self.requery_sibling_records(question, now);
            }
            self.drop_replaced_records(&question.name);
            self.reconcile_questions(now);
        }
        let pause = self.next_interval(question, answer.2);
        if let Some(asked) = self.questions.get_mut(question) {
            asked.due_at = now + pause;
        }
        LookupChange { has_changed, omitted_count: left_out, is_first_in_row: is_first_of_its_kind }
    }

    /// Addresses that have turned out to be none that an endpoint may have, since this was last asked.
    pub fn take_refused(&mut self) -> Vec<(LookupQuestion, Vec<IpAddr>)> {
        self.refused.retain(|(_, addresses)| !addresses.is_empty());
        std::mem::take(&mut self.refused)
    }

    /// A host has lost its addresses of one kind: it may have got some of another since that was asked.
    fn requery_sibling_records(&mut self, question: &LookupQuestion, now: Instant) {
        let others: Vec<LookupQuestion> =
            self.address_questions(&question.name).filter(|one| one != question).collect();
        for other in others.iter().filter(|_| question.record_type != DnsRecordType::Srv) {
            if let Some(asked) = self.questions.get_mut(other)
                && matches!(asked.last_answer, LastAnswer::Negative(_))
            {
                asked.last_answer = LastAnswer::Unanswered;
                asked.due_at = now;
            }
        }
    }

    /// A host that has addresses keeps none of a kind that is gone.
    fn drop_replaced_records(&mut self, name: &Arc<str>) {
        let questions: Vec<LookupQuestion> = self.address_questions(name).collect();
        let has_some = questions.iter().any(|one| {
            self.questions
                .get(one)
                .and_then(QuestionState::current)
                .is_some_and(|data| data.len() > 0)
        });
        for question in questions.iter().filter(|_| has_some) {
            if let Some(asked) = self.questions.get_mut(question)
                && matches!(asked.last_answer, LastAnswer::Negative(_))
            {
                asked.last_good = None;
            }
        }
    }

    /// Until the question is asked again.
    fn next_interval(&mut self, question: &LookupQuestion, ttl: Option<Duration>) -> Duration {
        let LookupPolicy { min_ttl, max_ttl, retry_min: retry, retry_max, .. } = self.policy;
        let Some(asked) = self.questions.get(question) else { return retry_max };
        let backoff = |in_a_row: u32| {
            retry.saturating_mul(1 << in_a_row.saturating_sub(1).min(20)).min(retry_max)
        };
        let (pause, least) = match (asked.failure, asked.last_answer) {
            (Some((_, in_a_row)), _) => (backoff(in_a_row), retry),
            (None, LastAnswer::Negative(_)) if !self.has_sibling_records(question) => {
                (backoff(asked.consecutive_empty), retry)
            }
            // That a host has addresses of one kind only is no trouble.
            (None, LastAnswer::Negative(_)) => {
                (ttl.unwrap_or(retry_max).clamp(min_ttl, max_ttl), min_ttl)
            }
            (None, _) => (ttl.unwrap_or(min_ttl).clamp(min_ttl, max_ttl), min_ttl),
        };
        let pause = if self.questions_with_down_endpoints.contains(question) {
            pause.min(retry_max)
        } else {
            pause
        };
        // Names are not asked for all at once; and jitter only shortens.
        pause.mul_f64(1.0 - self.rng.f64() / 10.0).max(least)
    }

    /// Whether the host of a question has addresses of another kind.
    fn has_sibling_records(&self, question: &LookupQuestion) -> bool {
        question.record_type != DnsRecordType::Srv
            && self.address_questions(&question.name).filter(|one| one != question).any(|one| {
                self.questions
                    .get(&one)
                    .and_then(QuestionState::current)
                    .is_some_and(|data| data.len() > 0)
            })
    }

    /// What an endpoint of a name is found by.
    fn questions_of_origin(&self, found: &EndpointOrigin) -> Vec<LookupQuestion> {
        let mut questions: Vec<LookupQuestion> = match &found.discovery_name {
            DiscoveryName::Host { name, .. } => self.address_questions(name).collect(),
            DiscoveryName::Service { name } => {
                vec![LookupQuestion { name: Arc::clone(name), record_type: DnsRecordType::Srv }]
            }
        };
        questions.extend(found.target.iter().flat_map(|target| self.address_questions(target)));
        questions
    }

    /// An endpoint has failed, and may have moved: its name is looked up as soon as it may be.
    pub fn expedite(&mut self, found: &EndpointOrigin, now: Instant) {
        for question in self.questions_of_origin(found) {
            if let Some(asked) = self.questions.get_mut(&question) {
                let earliest =
                    asked.last_query_at.map_or(now, |at| at + self.policy.min_ttl).max(now);
                asked.due_at = asked.due_at.min(earliest);
            }
        }
    }

    /// These endpoints, and no others, are down: their names are looked up more often until they are not.
    pub fn set_down_endpoints<'f>(
        &mut self,
        origins: impl Iterator<Item = &'f EndpointOrigin>,
        now: Instant,
    ) {
        self.questions_with_down_endpoints =
            origins.flat_map(|found| self.questions_of_origin(found)).collect();
        let limit = now + self.policy.retry_max.max(self.policy.min_ttl);
        for question in &self.questions_with_down_endpoints {
            if let Some(asked) = self.questions.get_mut(question) {
                asked.due_at = asked.due_at.min(limit);
            }
        }
    }

    /// The addresses of a host.
    pub(super) fn resolve_host(&self, name: &Arc<str>) -> ResolvedSet<IpAddr> {
        self.resolve_set(self.address_questions(name), |data| match data {
            LookupRecords::Addresses(all) => all,
            LookupRecords::SrvTargets(_) => &[],
        })
    }

    /// The targets of a service.
    pub(super) fn resolve_service(&self, name: &Arc<str>) -> ResolvedSet<SrvTarget> {
        let question = LookupQuestion { name: Arc::clone(name), record_type: DnsRecordType::Srv };
        self.resolve_set([question].into_iter(), |data| match data {
            LookupRecords::SrvTargets(all) => all,
            LookupRecords::Addresses(_) => &[],
        })
    }

    /// What questions lead to together. What one of them has lost is kept until all of them are known to
    /// have nothing, or for longer.
    fn resolve_set<T: Clone>(
        &self,
        questions: impl Iterator<Item = LookupQuestion>,
        select: fn(&LookupRecords) -> &[T],
    ) -> ResolvedSet<T> {
        let all: Vec<&QuestionState> =
            questions.filter_map(|one| self.questions.get(&one)).collect();
        let of = |data: fn(&QuestionState) -> Option<&LookupRecords>| -> Vec<T> {
            all.iter().filter_map(|asked| data(asked)).flat_map(select).cloned().collect()
        };
        let current = of(QuestionState::current);
        let is_empty =
            || all.iter().all(|asked| matches!(asked.last_answer, LastAnswer::Negative(_)));
        if !current.is_empty() || self.policy.on_empty == EmptyAnswerPolicy::Remove && is_empty() {
            return ResolvedSet { items: current, is_stale: false };
        }
        let all = of(QuestionState::last_good);
        ResolvedSet { is_stale: !all.is_empty(), items: all }
    }

    /// Whether every question has been answered, well or not, or is remembered.
    pub fn has_initial_answers(&self) -> bool {
        self.questions.values().all(|asked| {
            asked.last_answer != LastAnswer::Unanswered
                || asked.failure.is_some()
                || asked.last_good.is_some()
        })
    }

    /// How it stands with every question.
    pub fn statuses(&self) -> impl Iterator<Item = LookupStatus> {
        self.questions.iter().map(|(question, asked)| asked.status(question))
    }

    /// How it stands with the questions that a name leads to directly.
    pub fn status_of_name(&self, wanted: &DiscoveryName) -> Vec<LookupStatus> {
        let direct =
            EndpointOrigin { discovery_name: wanted.clone(), target: None, is_stale: false };
        self.status_of_questions(self.questions_of_origin(&direct))
    }

    /// The same of the hosts that a service leads to.
    pub fn status_of_targets(&self, wanted: &DiscoveryName) -> Vec<LookupStatus> {
        let DiscoveryName::Service { name } = wanted else { return Vec::new() };
        let services = self.resolve_service(name).items;
        self.status_of_questions(
            services.iter().flat_map(|one| self.address_questions(&one.target)),
        )
    }

    fn status_of_questions(
        &self,
        all: impl IntoIterator<Item = LookupQuestion>,
    ) -> Vec<LookupStatus> {
        let status = |one: LookupQuestion| self.questions.get(&one).map(|asked| asked.status(&one));
        all.into_iter().filter_map(status).collect()
    }

    /// The last good answers.
    pub fn export_cache(&self) -> Vec<CachedLookup> {
        let one = |(question, asked): (&LookupQuestion, &QuestionState)| {
            let (data, at) = asked.last_good.clone()?;
            Some(CachedLookup { question: question.clone(), records: data, good_at: at })
        };
        self.questions.iter().filter_map(one).collect()
    }

    /// Networks of which addresses may be endpoints' that else may not.
    pub(super) fn allowed_networks(&self) -> &[Network] {
        &self.policy.allowed_networks
    }

    /// Endpoints that one name may lead to.
    pub(super) fn max_answers(&self) -> usize {
        self.policy.max_answers
    }
}
