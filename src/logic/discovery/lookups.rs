//! When to ask what, and what is believed: a machine over answers and time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::network::Network;

use super::guard::{guard, is_permitted};
use super::{
    Answer, Data, Empty, Entry, Failure, Found, Lack, Looked, Policy, Question, Record, Remembered,
    Service, Standing, Status, UNDER_WAY, Wanted,
};

/// Records asked for at most, over all names: targets of services beyond are left out.
const QUESTIONS: usize = 20_000;

/// One question and what is known of it.
#[derive(Debug)]
struct Asked {
    /// What DNS said when it last answered; the default before it ever has.
    said: Said,
    /// The last records that were found. Kept when they are gone, until the name has others.
    good: Option<(Data, Instant)>,
    left_out: usize,
    refused: Vec<IpAddr>,
    failing: Option<(Failure, u32)>,
    empty_in_a_row: u32,
    asked_at: Option<Instant>,
    is_under_way: bool,
    due: Instant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Said {
    #[default]
    Nothing,
    Records,
    Lacks(Lack),
}

impl Asked {
    fn new(now: Instant, remembered: Option<(Data, Instant)>) -> Self {
        Self {
            said: Said::default(),
            good: remembered,
            left_out: 0,
            refused: Vec::new(),
            failing: None,
            empty_in_a_row: 0,
            asked_at: None,
            is_under_way: false,
            due: now,
        }
    }

    /// From now on these may be endpoints besides: what is known is brought in line, and asked for
    /// anew where that makes a difference. Gives what may be none any more.
    fn permit(&mut self, question: &Question, allow: &[Network], now: Instant) -> Vec<IpAddr> {
        let may = |ip: &IpAddr| is_permitted(&question.name, *ip, allow);
        let mut lost = Vec::new();
        if let Some((Data::Addresses(all), _)) = &mut self.good {
            lost = all.extract_if(.., |ip| !may(ip)).collect();
            if all.is_empty() {
                self.good = None;
            }
        }
        if !lost.is_empty() || self.refused.iter().any(may) {
            self.due = now;
        }
        self.refused.extend_from_slice(&lost);
        self.refused.sort_unstable();
        lost
    }

    /// What it adds to what is known: before DNS has said anything, that is what is remembered.
    fn current(&self) -> Option<&Data> {
        match self.said {
            Said::Lacks(_) => None,
            Said::Records | Said::Nothing => self.last_good(),
        }
    }

    fn last_good(&self) -> Option<&Data> {
        self.good.as_ref().map(|(data, _)| data)
    }

    fn status(&self, question: &Question) -> Status {
        Status {
            question: question.clone(),
            standing: self.standing(),
            data: self.last_good().cloned(),
            good_at: self.good.as_ref().map(|&(_, at)| at),
            left_out: self.left_out,
            refused: self.refused.clone(),
            failing: self.failing,
            asked_at: self.asked_at,
            due: Some(self.due).filter(|_| !self.is_under_way),
        }
    }

    fn standing(&self) -> Standing {
        match self.said {
            Said::Lacks(lack) => Standing::Lacking(lack),
            Said::Records => Standing::Found,
            Said::Nothing if self.good.is_some() => Standing::Remembered,
            Said::Nothing => Standing::Pending,
        }
    }
}

/// What is believed of a host or a service.
pub(super) struct Belief<T> {
    pub(super) all: Vec<T>,
    /// DNS says that there is nothing; what is here is from before.
    pub(super) is_kept: bool,
}

/// The machine. It asks nobody: its driver takes what is due and hands answers in.
#[derive(Debug)]
pub struct Lookups {
    policy: Policy,
    rng: Rng,
    names: Vec<Wanted>,
    asked: BTreeMap<Question, Asked>,
    under_way: usize,
    remembered: BTreeMap<Question, (Data, Instant)>,
    /// Questions that endpoints which are down were found by.
    uneasy: BTreeSet<Question>,
    /// Addresses that may be no endpoint's, of which nobody has been told yet.
    refused: Vec<(Question, Vec<IpAddr>)>,
}

impl Lookups {
    /// A machine that asks for nothing yet, and has these answers of an earlier process.
    #[must_use]
    pub fn new(seed: u64, remembered: Vec<Remembered>) -> Self {
        let remembered = remembered.into_iter().map(|one| (one.question, (one.data, one.at)));
        Self {
            policy: Policy::default(),
            rng: Rng::with_seed(seed),
            names: Vec::new(),
            asked: BTreeMap::new(),
            under_way: 0,
            remembered: remembered.collect(),
            uneasy: BTreeSet::new(),
            refused: Vec::new(),
        }
    }

    /// From now on these names are looked up, in this way. What is known of those that stay is kept.
    pub fn configure(&mut self, entries: &[Entry], policy: &Policy, now: Instant) {
        self.policy = policy.clone();
        for (question, asked) in &mut self.asked {
            let lost = asked.permit(question, &self.policy.allow, now);
            self.refused.push((question.clone(), lost));
        }
        let names: BTreeSet<&Wanted> = entries.iter().map(|entry| &entry.wanted).collect();
        self.names = names.into_iter().cloned().collect();
        let limit = now + policy.max_ttl.max(policy.retry_max);
        for asked in self.asked.values_mut() {
            asked.due = asked.due.min(limit);
        }
        self.settle(now);
        // What no name of the first configuration needs was another's.
        self.remembered.clear();
    }

    /// Others are asked from now on: what they say is to be known soon.
    pub fn ask_anew(&mut self, now: Instant) {
        for asked in self.asked.values_mut() {
            asked.due = asked.due.min(now);
        }
    }

    /// Takes up what has become a question, and forgets what is none any more.
    fn settle(&mut self, now: Instant) {
        let mut wanted = BTreeSet::new();
        let names = std::mem::take(&mut self.names);
        for one in &names {
            match one {
                Wanted::Host { name, .. } => wanted.extend(self.hosts(name)),
                Wanted::Service { name } => {
                    let question = Question { name: Arc::clone(name), record: Record::Srv };
                    self.ask(&question, now);
                    wanted.insert(question);
                    let services = self.services(name).all;
                    let targets = services.iter().flat_map(|one| self.hosts(&one.target));
                    let room = QUESTIONS.saturating_sub(wanted.len());
                    wanted.extend(targets.take(room));
                }
            }
        }
        self.names = names;
        for question in &wanted {
            self.ask(question, now);
        }
        self.asked.retain(|question, _| wanted.contains(question));
    }

    fn hosts(&self, name: &Arc<str>) -> impl Iterator<Item = Question> + use<> {
        let name = Arc::clone(name);
        let records = self.policy.family.records().iter();
        records.map(move |&record| Question { name: Arc::clone(&name), record })
    }

    fn ask(&mut self, question: &Question, now: Instant) {
        if !self.asked.contains_key(question) {
            let mut asked = Asked::new(now, self.remembered.remove(question));
            let lost = asked.permit(question, &self.policy.allow, now);
            self.refused.push((question.clone(), lost));
            self.asked.insert(question.clone(), asked);
        }
    }

    /// What is to be asked now. Each is to be answered by [`Lookups::answered`].
    pub fn poll(&mut self, now: Instant) -> Vec<Question> {
        let mut due = Vec::new();
        for (question, asked) in &mut self.asked {
            if self.under_way == UNDER_WAY {
                break;
            }
            if !asked.is_under_way && asked.due <= now {
                asked.is_under_way = true;
                asked.asked_at = Some(now);
                self.under_way += 1;
                due.push(question.clone());
            }
        }
        due
    }

    /// When [`Lookups::poll`] has something next; absent while it has no room.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.asked.values().filter(|asked| !asked.is_under_way);
        waiting.map(|asked| asked.due).min().filter(|_| self.under_way < UNDER_WAY)
    }

    /// A question that was handed out has been answered.
    pub fn answered(&mut self, question: &Question, answer: Answer, now: Instant) -> Looked {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(asked) = self.asked.get_mut(question) else {
            // Nobody wants to know any more.
            return Looked::default();
        };
        asked.is_under_way = false;
        let before = (asked.said, asked.last_good().cloned());
        let was_failing = asked.failing.map(|(failure, _)| failure);
        let has_said = !matches!(answer, Answer::Failed(_));
        let (answer, refused) = guard(&question.name, answer, &self.policy.allow);
        if has_said && refused != asked.refused {
            asked.refused.clone_from(&refused);
            self.refused.push((question.clone(), refused));
        }
        let answer = tidied(answer, self.policy.max_answers);
        asked.left_out = answer.1;
        match answer.0 {
            Answer::Found { data, .. } => {
                asked.said = Said::Records;
                asked.good = Some((data, now));
                (asked.failing, asked.empty_in_a_row) = (None, 0);
            }
            Answer::Lacking { lack, .. } => {
                asked.said = Said::Lacks(lack);
                asked.failing = None;
                asked.empty_in_a_row += 1;
            }
            Answer::Failed(failure) => {
                let before = asked.failing.map_or(0, |(_, in_a_row)| in_a_row);
                asked.failing = Some((failure, before + 1));
            }
        }
        let has_changed = (asked.said, asked.last_good().cloned()) != before;
        let is_first_of_its_kind = match asked.failing {
            Some((failure, _)) => was_failing != Some(failure),
            None => has_changed,
        };
        let left_out = asked.left_out;
        if has_changed {
            if before.0 == Said::Records && !matches!(asked.said, Said::Records) {
                self.doubt_others(question, now);
            }
            self.forget_what_was_replaced(&question.name);
            self.settle(now);
        }
        let pause = self.pause(question, answer.2);
        if let Some(asked) = self.asked.get_mut(question) {
            asked.due = now + pause;
        }
        Looked { has_changed, left_out, is_first_of_its_kind }
    }

    /// Addresses that have turned out to be none that an endpoint may have, since this was last asked.
    pub fn take_refused(&mut self) -> Vec<(Question, Vec<IpAddr>)> {
        self.refused.retain(|(_, addresses)| !addresses.is_empty());
        std::mem::take(&mut self.refused)
    }

    /// A host has lost its addresses of one kind: it may have got some of another since that was asked.
    fn doubt_others(&mut self, question: &Question, now: Instant) {
        let others: Vec<Question> =
            self.hosts(&question.name).filter(|one| one != question).collect();
        for other in others.iter().filter(|_| question.record != Record::Srv) {
            if let Some(asked) = self.asked.get_mut(other)
                && matches!(asked.said, Said::Lacks(_))
            {
                asked.said = Said::Nothing;
                asked.due = now;
            }
        }
    }

    /// A host that has addresses keeps none of a kind that is gone.
    fn forget_what_was_replaced(&mut self, name: &Arc<str>) {
        let questions: Vec<Question> = self.hosts(name).collect();
        let has_some = questions.iter().any(|one| {
            self.asked.get(one).and_then(Asked::current).is_some_and(|data| data.len() > 0)
        });
        for question in questions.iter().filter(|_| has_some) {
            if let Some(asked) = self.asked.get_mut(question)
                && matches!(asked.said, Said::Lacks(_))
            {
                asked.good = None;
            }
        }
    }

    /// Until the question is asked again.
    fn pause(&mut self, question: &Question, ttl: Option<Duration>) -> Duration {
        let Policy { min_ttl, max_ttl, retry, retry_max, .. } = self.policy;
        let Some(asked) = self.asked.get(question) else { return retry_max };
        let backoff = |in_a_row: u32| {
            retry.saturating_mul(1 << in_a_row.saturating_sub(1).min(20)).min(retry_max)
        };
        let (pause, least) = match (asked.failing, asked.said) {
            (Some((_, in_a_row)), _) => (backoff(in_a_row), retry),
            (None, Said::Lacks(_)) if !self.has_others(question) => {
                (backoff(asked.empty_in_a_row), retry)
            }
            // That a host has addresses of one kind only is no trouble.
            (None, Said::Lacks(_)) => (ttl.unwrap_or(retry_max).clamp(min_ttl, max_ttl), min_ttl),
            (None, _) => (ttl.unwrap_or(min_ttl).clamp(min_ttl, max_ttl), min_ttl),
        };
        let pause = if self.uneasy.contains(question) { pause.min(retry_max) } else { pause };
        // Names are not asked for all at once; and jitter only shortens.
        pause.mul_f64(1.0 - self.rng.f64() / 10.0).max(least)
    }

    /// Whether the host of a question has addresses of another kind.
    fn has_others(&self, question: &Question) -> bool {
        question.record != Record::Srv
            && self.hosts(&question.name).filter(|one| one != question).any(|one| {
                self.asked.get(&one).and_then(Asked::current).is_some_and(|data| data.len() > 0)
            })
    }

    /// What an endpoint of a name is found by.
    fn questions(&self, found: &Found) -> Vec<Question> {
        let mut questions: Vec<Question> = match &found.wanted {
            Wanted::Host { name, .. } => self.hosts(name).collect(),
            Wanted::Service { name } => {
                vec![Question { name: Arc::clone(name), record: Record::Srv }]
            }
        };
        questions.extend(found.target.iter().flat_map(|target| self.hosts(target)));
        questions
    }

    /// An endpoint has failed, and may have moved: its name is looked up as soon as it may be.
    pub fn hurry(&mut self, found: &Found, now: Instant) {
        for question in self.questions(found) {
            if let Some(asked) = self.asked.get_mut(&question) {
                let soonest = asked.asked_at.map_or(now, |at| at + self.policy.min_ttl).max(now);
                asked.due = asked.due.min(soonest);
            }
        }
    }

    /// These endpoints, and no others, are down: their names are looked up more often until they are not.
    pub fn worry<'f>(&mut self, about: impl Iterator<Item = &'f Found>, now: Instant) {
        self.uneasy = about.flat_map(|found| self.questions(found)).collect();
        let limit = now + self.policy.retry_max.max(self.policy.min_ttl);
        for question in &self.uneasy {
            if let Some(asked) = self.asked.get_mut(question) {
                asked.due = asked.due.min(limit);
            }
        }
    }

    /// The addresses of a host.
    pub(super) fn addresses(&self, name: &Arc<str>) -> Belief<IpAddr> {
        self.believed(self.hosts(name), |data| match data {
            Data::Addresses(all) => all,
            Data::Services(_) => &[],
        })
    }

    /// The targets of a service.
    pub(super) fn services(&self, name: &Arc<str>) -> Belief<Service> {
        let question = Question { name: Arc::clone(name), record: Record::Srv };
        self.believed([question].into_iter(), |data| match data {
            Data::Services(all) => all,
            Data::Addresses(_) => &[],
        })
    }

    /// What questions lead to together. What one of them has lost is kept until all of them are known to
    /// have nothing, or for longer.
    fn believed<T: Clone>(
        &self,
        questions: impl Iterator<Item = Question>,
        part: fn(&Data) -> &[T],
    ) -> Belief<T> {
        let all: Vec<&Asked> = questions.filter_map(|one| self.asked.get(&one)).collect();
        let of = |data: fn(&Asked) -> Option<&Data>| -> Vec<T> {
            all.iter().filter_map(|asked| data(asked)).flat_map(part).cloned().collect()
        };
        let current = of(Asked::current);
        let is_empty = || all.iter().all(|asked| matches!(asked.said, Said::Lacks(_)));
        if !current.is_empty() || self.policy.empty == Empty::Obey && is_empty() {
            return Belief { all: current, is_kept: false };
        }
        let all = of(Asked::last_good);
        Belief { is_kept: !all.is_empty(), all }
    }

    /// Whether every question has been answered, well or not, or is remembered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.asked.values().all(|asked| {
            asked.said != Said::Nothing || asked.failing.is_some() || asked.good.is_some()
        })
    }

    /// How it stands with every question.
    pub fn statuses(&self) -> impl Iterator<Item = Status> {
        self.asked.iter().map(|(question, asked)| asked.status(question))
    }

    /// How it stands with the questions that a name leads to directly.
    #[must_use]
    pub fn status_of(&self, wanted: &Wanted) -> Vec<Status> {
        let direct = Found { wanted: wanted.clone(), target: None, is_kept: false };
        self.status_of_questions(self.questions(&direct))
    }

    /// The same of the hosts that a service leads to.
    #[must_use]
    pub fn status_of_targets(&self, wanted: &Wanted) -> Vec<Status> {
        let Wanted::Service { name } = wanted else { return Vec::new() };
        let services = self.services(name).all;
        self.status_of_questions(services.iter().flat_map(|one| self.hosts(&one.target)))
    }

    fn status_of_questions(&self, all: impl IntoIterator<Item = Question>) -> Vec<Status> {
        let status = |one: Question| self.asked.get(&one).map(|asked| asked.status(&one));
        all.into_iter().filter_map(status).collect()
    }

    /// The last good answers.
    #[must_use]
    pub fn remember(&self) -> Vec<Remembered> {
        let one = |(question, asked): (&Question, &Asked)| {
            let (data, at) = asked.good.clone()?;
            Some(Remembered { question: question.clone(), data, at })
        };
        self.asked.iter().filter_map(one).collect()
    }

    /// Networks of which addresses may be endpoints' that else may not.
    pub(super) fn allow(&self) -> &[Network] {
        &self.policy.allow
    }

    /// Endpoints that one name may lead to.
    pub(super) fn max_answers(&self) -> usize {
        self.policy.max_answers
    }
}

/// The answer as it is believed, what was left out of it, and how long it may be believed.
fn tidied(answer: Answer, at_most: usize) -> (Answer, usize, Option<Duration>) {
    match answer {
        Answer::Found { data, ttl } => {
            let (data, left_out) = data.tidy(at_most);
            if data.len() == 0 {
                let answer = Answer::Lacking { lack: Lack::NoData, ttl: Some(ttl) };
                return (answer, left_out, Some(ttl));
            }
            (Answer::Found { data, ttl }, left_out, Some(ttl))
        }
        Answer::Lacking { lack, ttl } => (Answer::Lacking { lack, ttl }, 0, ttl),
        Answer::Failed(failure) => (Answer::Failed(failure), 0, None),
    }
}
