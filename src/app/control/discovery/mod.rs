//! DNS discovery: runs the lookups that `logic::discovery` schedules, and reports a changed
//! topology.
//!
//! It runs on the control thread and never blocks: each lookup is a task of its own.

pub mod json;
pub mod name_cache;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::config::model;
use crate::logic::director::Event;
use crate::logic::discovery::{
    self, CachedLookup, ComposedTopology, DiscoveryEntry, DiscoveryName, EndpointOrigin,
    LookupAnswer, LookupQuestion, LookupScheduler, LookupState, NegativeReason, PoolAddress,
};
use crate::logic::health::endpoint_health::{Health, HealthTransition};
use crate::logic::incident::IncidentSubject;
use crate::logic::model::topology::Topology;
use crate::net::dns_client::{DnsClient, DnsServers};

use crate::app::ops::event_log;

/// Result of one lookup.
#[derive(Debug)]
pub struct LookupResult {
    question: LookupQuestion,
    answer: LookupAnswer,
    took: Duration,
}

/// The state of all names, and the topology composed of the configuration and their endpoints.
pub struct Discovery {
    lookups: LookupScheduler,
    declared: Topology,
    entries: Vec<DiscoveryEntry>,
    composed: ComposedTopology,
    down: HashSet<PoolAddress>,
    /// `composed` must be computed again.
    is_stale: bool,
    /// `down` has changed since it was last passed to `lookups`.
    has_new_failures: bool,
    dns: Rc<DnsClient>,
    saved_answers: Option<watch::Sender<Vec<CachedLookup>>>,
}

impl Discovery {
    /// Starts without a configuration. `remembered` answers of an earlier process are used until
    /// DNS answers; new answers are sent to `saved_answers`.
    pub fn new(
        seed: u64,
        remembered: Vec<CachedLookup>,
        saved_answers: Option<watch::Sender<Vec<CachedLookup>>>,
    ) -> Self {
        let no_servers = DnsServers { addresses: None, timeout: Duration::ZERO };
        Self {
            lookups: LookupScheduler::new(seed, remembered),
            declared: Topology::default(),
            entries: Vec::new(),
            composed: ComposedTopology::default(),
            down: HashSet::new(),
            is_stale: false,
            has_new_failures: false,
            dns: Rc::new(DnsClient::new(no_servers)),
            saved_answers,
        }
    }

    /// Applies a configuration. Returns its topology with the endpoints known so far; names that
    /// stay keep their endpoints.
    pub fn configure(
        &mut self,
        dns: &model::DnsConfig,
        declared: Topology,
        now: Instant,
    ) -> Topology {
        let servers = DnsServers { addresses: dns.servers.clone(), timeout: dns.timeout };
        if *self.dns.servers() != servers {
            self.dns = Rc::new(DnsClient::new(servers));
            self.lookups.refresh_all(now);
        }
        self.lookups.configure(&dns.entries, &dns.policy, now);
        self.log_refused();
        (self.declared, self.entries) = (declared, dns.entries.clone());
        self.compose(now);
        self.composed.topology.clone()
    }

    fn log_refused(&mut self) {
        for (question, addresses) in self.lookups.take_refused() {
            event_log::log_refused_addresses(&question, &addresses);
        }
    }

    fn compose(&mut self, now: Instant) {
        self.is_stale = false;
        let is_down = |one: &PoolAddress| self.down.contains(one);
        self.composed = discovery::compose(&self.declared, &self.entries, &self.lookups, &is_down);
        // An endpoint that leaves and comes back starts without history.
        let ComposedTopology { origins, dropped_stale: dropped, .. } = &self.composed;
        self.down.retain(|one| origins.contains_key(one) || dropped.contains(one));
        self.update_failing_names(now);
    }

    fn update_failing_names(&mut self, now: Instant) {
        self.has_new_failures = false;
        let origins = &self.composed.origins;
        let down = self.down.iter().filter_map(|one| origins.get(one)).flatten();
        self.lookups.set_down_endpoints(down, now);
    }

    /// Starts the lookups that are due. Must run on a `LocalSet`.
    pub fn start_due_lookups(
        &mut self,
        results: &mpsc::UnboundedSender<LookupResult>,
        now: Instant,
    ) {
        for question in self.lookups.poll(now) {
            let (dns, results) = (Rc::clone(&self.dns), results.clone());
            tokio::task::spawn_local(async move {
                let began = Instant::now();
                let answer = dns.lookup(&question).await;
                let _ = results.send(LookupResult { question, answer, took: began.elapsed() });
            });
        }
    }

    /// When the next lookup is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lookups.poll_timeout()
    }

    /// Applies and logs the result of a lookup.
    pub fn on_lookup_result(&mut self, result: LookupResult, now: Instant) {
        let LookupResult { question, answer, took } = result;
        event_log::record_lookup(&question, &answer, took);
        let lookup_update = self.lookups.on_answer(&question, answer.clone(), now);
        if lookup_update.is_first_in_row {
            event_log::log_first_answer(&question, &answer);
        }
        self.log_refused();
        if lookup_update.has_changed {
            if lookup_update.omitted_count > 0 {
                let (name, record) = (&question.name, question.record_type.as_str());
                let left_out = lookup_update.omitted_count;
                tracing::warn!(%name, record, left_out, "parts of a DNS answer were ignored");
            }
            self.is_stale = true;
        }
        if let Some(saved_answers) =
            self.saved_answers.as_ref().filter(|_| lookup_update.has_changed)
        {
            saved_answers.send_replace(self.lookups.export_cache());
        }
    }

    /// Stops saving answers: after a handover the other process writes the file.
    pub fn stop_saving(&mut self) {
        self.saved_answers = None;
    }

    /// Looks up the names of a failing endpoint early, since it may have moved.
    pub fn on_event(&mut self, event: &Event, now: Instant) {
        match event {
            Event::HealthChanged {
                subject,
                change: HealthTransition::Suspected,
                health: Health::Suspect { failure, .. },
            } if failure.is_connection_level() => self.expedite_lookups(subject, now),
            Event::HealthChanged { subject, change: HealthTransition::WentDown, .. } => {
                self.expedite_lookups(subject, now);
                self.record_endpoint_state(subject, true);
            }
            Event::HealthChanged {
                subject,
                change: HealthTransition::Started | HealthTransition::Restored,
                ..
            } => {
                self.record_endpoint_state(subject, false);
            }
            Event::HealthImported { subject, health } => {
                self.record_endpoint_state(subject, !health.can_serve(true));
            }
            _ => {}
        }
    }

    fn expedite_lookups(&mut self, subject: &IncidentSubject, now: Instant) {
        let key = (Arc::clone(&subject.pool), subject.address);
        for found in self.composed.origins.get(&key).into_iter().flatten() {
            self.lookups.expedite(found, now);
        }
    }

    fn record_endpoint_state(&mut self, subject: &IncidentSubject, is_down: bool) {
        let key = (Arc::clone(&subject.pool), subject.address);
        let Some(found) = self.composed.origins.get(&key) else { return };
        // Only SRV priorities and kept endpoints depend on which endpoints are down.
        let matters = found.iter().any(|one| one.is_stale || one.target.is_some());
        let has_changed = if is_down { self.down.insert(key) } else { self.down.remove(&key) };
        self.is_stale |= has_changed && matters;
        self.has_new_failures |= has_changed;
    }

    /// The topology, if it has changed since the last call.
    pub fn take_changed_topology(&mut self, now: Instant) -> Option<Topology> {
        if !self.is_stale {
            if self.has_new_failures {
                self.update_failing_names(now);
            }
            return None;
        }
        let before = std::mem::take(&mut self.composed);
        self.compose(now);
        if self.composed.topology == before.topology {
            return None;
        }
        for entry in &self.entries {
            log_change(entry, &before, &self.composed);
        }
        if self.composed.omitted_count > before.omitted_count {
            let left_out = self.composed.omitted_count;
            tracing::warn!(left_out, "DNS names resolve to more endpoints than `dns.max_answers`");
        }
        Some(self.composed.topology.clone())
    }

    /// Whether every name has been looked up, successfully or not.
    pub fn is_settled(&self) -> bool {
        !self.is_stale && self.lookups.has_initial_answers()
    }

    pub fn names_of(&self, pool: &str, address: SocketAddr) -> Vec<&EndpointOrigin> {
        let key = (Arc::from(pool), address);
        self.composed.origins.get(&key).into_iter().flatten().collect()
    }

    /// Endpoints that a name of a pool resolves to, ordered by address.
    fn endpoints_of(
        &self,
        entry: &DiscoveryEntry,
    ) -> Option<&BTreeMap<SocketAddr, EndpointOrigin>> {
        entry_endpoints(entry, &self.composed)
    }

    /// The last good answers, for an upgrade.
    pub fn remembered_answers(&self) -> Vec<CachedLookup> {
        self.lookups.export_cache()
    }
}

fn entry_endpoints<'c>(
    entry: &DiscoveryEntry,
    composed: &'c ComposedTopology,
) -> Option<&'c BTreeMap<SocketAddr, EndpointOrigin>> {
    composed.endpoints_by_name.get(&(Arc::clone(&entry.pool), entry.discovery_name.clone()))
}

fn log_change(entry: &DiscoveryEntry, before: &ComposedTopology, after: &ComposedTopology) {
    let addresses = |composed| -> BTreeSet<SocketAddr> {
        entry_endpoints(entry, composed).into_iter().flat_map(BTreeMap::keys).copied().collect()
    };
    let (before, after) = (addresses(before), addresses(after));
    let list = |all: &BTreeSet<SocketAddr>, without: &BTreeSet<SocketAddr>| {
        let differing: Vec<&SocketAddr> = all.difference(without).collect();
        let more = differing.len().saturating_sub(event_log::MAX_LOGGED_ADDRESSES);
        let shown: Vec<String> = differing
            .iter()
            .take(event_log::MAX_LOGGED_ADDRESSES)
            .map(ToString::to_string)
            .collect();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("[{}{more}]", shown.join(", "))
    };
    if before != after {
        tracing::info!(
            pool = %entry.pool,
            zone = %entry.place,
            name = %entry.discovery_name,
            endpoints = after.len(),
            added = list(&after, &before),
            removed = list(&before, &after),
            "endpoints of a DNS name have changed"
        );
    }
}

/// The state of a name, combined from the states of its questions.
fn name_status(lookups: &LookupScheduler, name: &DiscoveryName) -> LookupState {
    let all: Vec<LookupState> =
        lookups.status_of_name(name).into_iter().map(|status| status.state).collect();
    let order = [LookupState::Found, LookupState::Cached, LookupState::Pending];
    let first = order.into_iter().find(|one| all.contains(one));
    // NXDOMAIN applies to all record types of a name (RFC 2308 2.1).
    let negative = [NegativeReason::Forbidden, NegativeReason::NxDomain].map(LookupState::Negative);
    let worst = negative.into_iter().find(|one| all.contains(one));
    first.or(worst).unwrap_or(LookupState::Negative(NegativeReason::NoData))
}
