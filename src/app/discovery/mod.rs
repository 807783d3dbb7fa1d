//! Endpoints that are found by name: has names looked up, and says when what they lead to has changed.
//!
//! Lives on the control thread, and never waits: a lookup is a task of its own.

pub mod json;
pub mod memory;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::config::model;
use crate::logic::director::Event;
use crate::logic::discovery::{
    self, Answer, Composed, Entry, Found, Lack, Located, Lookups, Question, Remembered, Standing,
    Wanted,
};
use crate::logic::health::{Change, Health};
use crate::logic::incident::Subject;
use crate::logic::topology::Topology;
use crate::net::dns::{Dns, Servers};

use super::observe;

/// What came of a lookup.
#[derive(Debug)]
pub struct Heard {
    question: Question,
    answer: Answer,
    took: Duration,
}

/// What is known of names, and what it makes of the configuration.
pub struct Discovery {
    lookups: Lookups,
    declared: Topology,
    entries: Vec<Entry>,
    composed: Composed,
    down: HashSet<Located>,
    is_stale: bool,
    /// Others are down than `lookups` has heard of.
    is_worried: bool,
    dns: Rc<Dns>,
    memory: Option<watch::Sender<Vec<Remembered>>>,
}

impl Discovery {
    /// Nothing is looked up yet. What an earlier process knew is believed until DNS says otherwise;
    /// what this one knows goes to `memory`.
    #[must_use]
    pub fn new(
        seed: u64,
        remembered: Vec<Remembered>,
        memory: Option<watch::Sender<Vec<Remembered>>>,
    ) -> Self {
        let nobody = Servers { addresses: None, timeout: Duration::ZERO };
        Self {
            lookups: Lookups::new(seed, remembered),
            declared: Topology::default(),
            entries: Vec::new(),
            composed: Composed::default(),
            down: HashSet::new(),
            is_stale: false,
            is_worried: false,
            dns: Rc::new(Dns::new(nobody)),
            memory,
        }
    }

    /// Takes up a configuration; gives its topology with the endpoints that are known. Names that stay
    /// keep what they lead to.
    pub fn configure(&mut self, dns: &model::Dns, declared: Topology, now: Instant) -> Topology {
        let servers = Servers { addresses: dns.servers.clone(), timeout: dns.timeout };
        if *self.dns.servers() != servers {
            self.dns = Rc::new(Dns::new(servers));
            self.lookups.ask_anew(now);
        }
        self.lookups.configure(&dns.entries, &dns.policy, now);
        self.tell_refused();
        (self.declared, self.entries) = (declared, dns.entries.clone());
        self.compose(now);
        self.composed.topology.clone()
    }

    fn tell_refused(&mut self) {
        for (question, addresses) in self.lookups.take_refused() {
            observe::refused(&question, &addresses);
        }
    }

    fn compose(&mut self, now: Instant) {
        self.is_stale = false;
        let is_down = |one: &Located| self.down.contains(one);
        self.composed = discovery::compose(&self.declared, &self.entries, &self.lookups, &is_down);
        // Who is gone and comes back begins anew.
        let Composed { origins, dropped, .. } = &self.composed;
        self.down.retain(|one| origins.contains_key(one) || dropped.contains(one));
        self.worry(now);
    }

    fn worry(&mut self, now: Instant) {
        self.is_worried = false;
        let origins = &self.composed.origins;
        let down = self.down.iter().filter_map(|one| origins.get(one)).flatten();
        self.lookups.worry(down, now);
    }

    /// Starts the lookups that are due. Must run on a `LocalSet`.
    pub fn look_up(&mut self, tell: &mpsc::UnboundedSender<Heard>, now: Instant) {
        for question in self.lookups.poll(now) {
            let (dns, tell) = (Rc::clone(&self.dns), tell.clone());
            tokio::task::spawn_local(async move {
                let began = Instant::now();
                let answer = dns.ask(&question).await;
                let _ = tell.send(Heard { question, answer, took: began.elapsed() });
            });
        }
    }

    /// When there is something to look up next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lookups.poll_timeout()
    }

    /// Takes in what came of a lookup.
    pub fn heard(&mut self, heard: Heard, now: Instant) {
        let Heard { question, answer, took } = heard;
        observe::looked_up(&question, &answer, took);
        let looked = self.lookups.answered(&question, answer.clone(), now);
        if looked.is_first_of_its_kind {
            observe::first_answer(&question, &answer);
        }
        self.tell_refused();
        if looked.has_changed {
            if looked.left_out > 0 {
                let (name, record) = (&question.name, question.record.as_str());
                let left_out = looked.left_out;
                tracing::warn!(%name, record, left_out, "parts of an answer were left out");
            }
            self.is_stale = true;
        }
        if let Some(memory) = self.memory.as_ref().filter(|_| looked.has_changed) {
            memory.send_replace(self.lookups.remember());
        }
    }

    /// Nothing is written down any more: another process does it.
    pub fn forget_memory(&mut self) {
        self.memory = None;
    }

    /// Takes in what the director tells: an endpoint that fails may have moved.
    pub fn hears(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Health {
                subject,
                change: Change::Suspected,
                health: Health::Suspect { failure, .. },
            } if failure.is_connection_level() => self.hurry(subject, now),
            Event::Health { subject, change: Change::WentDown, .. } => {
                self.hurry(subject, now);
                self.turned(subject, true);
            }
            Event::Health { subject, change: Change::Started | Change::Restored, .. } => {
                self.turned(subject, false);
            }
            Event::Inherited { subject, health } => self.turned(subject, !health.serves(true)),
            _ => {}
        }
    }

    fn hurry(&mut self, subject: &Subject, now: Instant) {
        let key = (Arc::clone(&subject.pool), subject.address);
        for found in self.composed.origins.get(&key).into_iter().flatten() {
            self.lookups.hurry(found, now);
        }
    }

    fn turned(&mut self, subject: &Subject, is_down: bool) {
        let key = (Arc::clone(&subject.pool), subject.address);
        let Some(found) = self.composed.origins.get(&key) else { return };
        // Only priorities and emptied names ask who is down.
        let matters = found.iter().any(|one| one.is_kept || one.target.is_some());
        let is_other = if is_down { self.down.insert(key) } else { self.down.remove(&key) };
        self.is_stale |= is_other && matters;
        self.is_worried |= is_other;
    }

    /// The topology, if it is another one than it was.
    pub fn rearranged(&mut self, now: Instant) -> Option<Topology> {
        if !self.is_stale {
            if self.is_worried {
                self.worry(now);
            }
            return None;
        }
        let before = std::mem::take(&mut self.composed);
        self.compose(now);
        if self.composed.topology == before.topology {
            return None;
        }
        for entry in &self.entries {
            tell_change(entry, &before, &self.composed);
        }
        if self.composed.left_out > before.left_out {
            let left_out = self.composed.left_out;
            tracing::warn!(left_out, "names lead to more endpoints than `dns.max_answers`");
        }
        Some(self.composed.topology.clone())
    }

    /// Whether every name has been looked up, well or not.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.is_stale && self.lookups.is_settled()
    }

    /// The names by which an endpoint was found.
    #[must_use]
    pub fn names_of(&self, pool: &str, address: SocketAddr) -> Vec<&Found> {
        let key = (Arc::from(pool), address);
        self.composed.origins.get(&key).into_iter().flatten().collect()
    }

    /// The endpoints that a name of a pool leads to, in their order.
    fn endpoints_of(&self, entry: &Entry) -> Option<&BTreeMap<SocketAddr, Found>> {
        of_entry(entry, &self.composed)
    }

    /// The last good answers.
    #[must_use]
    pub fn remember(&self) -> Vec<Remembered> {
        self.lookups.remember()
    }
}

fn of_entry<'c>(entry: &Entry, composed: &'c Composed) -> Option<&'c BTreeMap<SocketAddr, Found>> {
    composed.of_names.get(&(Arc::clone(&entry.pool), entry.wanted.clone()))
}

fn tell_change(entry: &Entry, before: &Composed, after: &Composed) {
    let addresses = |composed| -> BTreeSet<SocketAddr> {
        of_entry(entry, composed).into_iter().flat_map(BTreeMap::keys).copied().collect()
    };
    let (before, after) = (addresses(before), addresses(after));
    let list = |of: &BTreeSet<SocketAddr>, without: &BTreeSet<SocketAddr>| {
        let all: Vec<&SocketAddr> = of.difference(without).collect();
        let more = all.len().saturating_sub(observe::SHOWN);
        let shown: Vec<String> = all.iter().take(observe::SHOWN).map(ToString::to_string).collect();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("[{}{more}]", shown.join(", "))
    };
    if before != after {
        tracing::info!(
            pool = %entry.pool,
            zone = %entry.place,
            name = %entry.wanted,
            endpoints = after.len(),
            come = list(&after, &before),
            gone = list(&before, &after),
            "a name leads elsewhere"
        );
    }
}

/// How it stands with a name, of how it stands with each of its questions.
fn standing(lookups: &Lookups, wanted: &Wanted) -> Standing {
    let all: Vec<Standing> =
        lookups.status_of(wanted).into_iter().map(|status| status.standing).collect();
    let order = [Standing::Found, Standing::Remembered, Standing::Pending];
    let first = order.into_iter().find(|one| all.contains(one));
    // That a name does not exist is said of all its records (RFC 2308 2.1).
    let lacks = [Lack::Forbidden, Lack::NxDomain].map(Standing::Lacking);
    let worst = lacks.into_iter().find(|one| all.contains(one));
    first.or(worst).unwrap_or(Standing::Lacking(Lack::NoData))
}
