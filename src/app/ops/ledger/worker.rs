//! The thread of the ledger. Only this thread waits for the disk.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::config::model::LedgerRetention;
use crate::logic::incident::Incident;
use crate::net::ledger_store::{LedgerContents, LedgerStore, OpenedLedger};

use super::error_budgets::ErrorBudgets;
use super::incident_store::{IncidentStore, LedgerEndpointKey, join_window_us};
use super::known_names::KnownNames;
use super::prediction_cache::{PredictionCache, PredictionContext, PredictionKey};
use super::query::{IncidentFormat, IncidentQuery};
use super::record::{DetectionQuantiles, IncidentResolution};
use super::{
    IncidentReport, InstanceShared, LedgerConfig, LedgerHandle, LedgerMessage, LedgerReply,
    WallClock, parse_records, render_reply, slo,
};

/// Limit of messages handled between two writes.
const MAX_BATCH: usize = 4_096;

const MAX_SLEEP: Duration = Duration::from_secs(1);

/// Interval of attempts to open a file that another process holds: a process that stops releases it
/// soon.
const BUSY_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Interval of attempts to open the file after other errors.
const ERROR_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Interval of reading the counters of workers.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Interval of writing budgets: a crash loses at most this much of their history.
const BUDGETS_WRITE_INTERVAL: Duration = Duration::from_secs(60);

/// The log warns when another process has held the file for this long.
const LOCK_WARNING_AFTER: Duration = Duration::from_secs(60);

enum LedgerFile {
    /// Without a state directory, or released to another process.
    Disabled,
    Open(LedgerStore),
    /// Not open yet, or closed after an error: time of the next attempt, and whether it was open
    /// before.
    Closed {
        next: Instant,
        was_open: bool,
    },
}

pub(super) struct LedgerWorker {
    ledger: LedgerHandle,
    clock: WallClock,
    directory: Option<PathBuf>,
    file: LedgerFile,
    incidents: IncidentStore,
    predictions: PredictionCache,
    config: Arc<LedgerConfig>,
    shared: Arc<InstanceShared>,
    budgets: ErrorBudgets,
    sample_due: Instant,
    budgets_due: Instant,
    /// Endpoints that the predecessor left down, once control has reported them.
    inherited_down: Option<HashSet<LedgerEndpointKey>>,
    /// Endpoints that came up before the predecessor's file was open, and the time of it.
    restored_early: HashMap<LedgerEndpointKey, u64>,
    started: Instant,
    has_warned: bool,
}

impl LedgerWorker {
    pub(super) fn new(
        ledger: LedgerHandle,
        shared: Arc<InstanceShared>,
        directory: Option<PathBuf>,
        bounds: LedgerRetention,
    ) -> Self {
        let clock = WallClock::read();
        let now = Instant::now();
        let file = match directory {
            Some(_) => LedgerFile::Closed { next: now, was_open: false },
            None => LedgerFile::Disabled,
        };
        Self {
            ledger,
            clock,
            directory,
            file,
            incidents: IncidentStore::new(clock),
            predictions: PredictionCache::default(),
            config: Arc::new(LedgerConfig { bounds, ..LedgerConfig::default() }),
            shared,
            budgets: ErrorBudgets::default(),
            sample_due: now,
            budgets_due: now + BUDGETS_WRITE_INTERVAL,
            inherited_down: None,
            restored_early: HashMap::new(),
            started: now,
            has_warned: false,
        }
    }

    pub(super) fn run(mut self, inbox: &Receiver<LedgerMessage>) {
        loop {
            self.open_file_if_due();
            let mut is_over = match inbox.recv_timeout(self.sleep_duration()) {
                Ok(message) => self.handle_message(message),
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            for _ in 0..MAX_BATCH {
                match inbox.try_recv() {
                    Ok(message) if !is_over => is_over = self.handle_message(message),
                    _ => break,
                }
            }
            self.sample_counters(is_over);
            self.flush(is_over);
            if is_over {
                return;
            }
        }
    }

    fn sleep_duration(&self) -> Duration {
        match self.file {
            LedgerFile::Disabled | LedgerFile::Open(_) => MAX_SLEEP,
            LedgerFile::Closed { next, .. } => next
                .saturating_duration_since(Instant::now())
                .clamp(Duration::from_millis(1), MAX_SLEEP),
        }
    }

    fn now_us(&self) -> u64 {
        self.clock.unix_micros(Instant::now())
    }

    /// Handles one message; returns whether it is the last.
    fn handle_message(&mut self, message: LedgerMessage) -> bool {
        let now_us = self.now_us();
        match message {
            LedgerMessage::IncidentBegan { incident, setup } => {
                self.on_incident_began(&incident, &setup);
            }
            LedgerMessage::IncidentEnded(incident) => {
                self.incidents.end_incident(&incident, now_us);
            }
            LedgerMessage::OpenIncidents(open) => self.incidents.update_open(&open, now_us),
            LedgerMessage::RampEnded { pool, place, address, at } => {
                let (place, address) = (place.to_string(), address.map(|one| one.to_string()));
                let at_us = self.clock.unix_micros(at);
                self.incidents.ramp_ended((&pool, &place, address.as_deref()), at_us);
            }
            LedgerMessage::EndpointServes { pool, address, at } => {
                self.on_endpoint_serves((pool.to_string(), address.to_string()), at);
            }
            LedgerMessage::InheritedDown(down) => self.on_inherited_down(down),
            LedgerMessage::ConfigChanged(setup) => {
                self.budgets.configure(&setup.route_slos, &setup.pools);
                self.config = setup;
            }
            LedgerMessage::ZoneAttempts(zones) => {
                self.budgets.sample_zones(zones, now_us / 1_000_000);
            }
            LedgerMessage::Predicted(key, simulated) => self.on_predicted(&key, simulated),
            LedgerMessage::QueryIncidents { query, open, reply } => {
                self.incidents.update_open(&open, now_us);
                let _ = reply.send(self.incidents_reply(&query, now_us));
            }
            LedgerMessage::QuerySlo { form, open, reply } => {
                self.incidents.update_open(&open, now_us);
                let _ = reply.send(self.slo_reply(form, now_us));
            }
            LedgerMessage::ReleaseFile => {
                self.sample_counters(true);
                self.flush(true);
                self.file = LedgerFile::Disabled;
                self.ledger.gauges.is_durable.store(false, Relaxed);
            }
            LedgerMessage::Shutdown => return true,
        }
        false
    }

    fn on_endpoint_serves(&mut self, key: LedgerEndpointKey, at: Instant) {
        let at_us = self.clock.unix_micros(at);
        self.incidents.end_adopted(&key, IncidentResolution::Restored, Some(at_us));
        if matches!(self.file, LedgerFile::Closed { was_open: false, .. }) {
            self.restored_early.insert(key, at_us);
        }
        self.finish_inheritance();
    }

    fn on_inherited_down(&mut self, down: Vec<(Arc<str>, SocketAddr)>) {
        let key = |(pool, address): (Arc<str>, SocketAddr)| (pool.to_string(), address.to_string());
        let down: HashSet<LedgerEndpointKey> = down.into_iter().map(key).collect();
        self.incidents.retain_adopted(|key| down.contains(key));
        self.inherited_down = Some(down);
        self.finish_inheritance();
    }

    fn on_predicted(&mut self, key: &PredictionKey, simulated: Option<DetectionQuantiles>) {
        let is_zone = key.is_zone();
        for id in self.predictions.complete(key, simulated, &self.ledger.messages) {
            self.incidents.update_record(id, |record| {
                let prediction =
                    if is_zone { &mut record.predicted_zone } else { &mut record.predicted };
                if let Some(prediction) = prediction {
                    prediction.simulated = simulated;
                }
            });
        }
    }

    fn incidents_reply(&self, query: &IncidentQuery, now_us: u64) -> LedgerReply {
        let interval = self.config.max_probe_interval();
        let allowed = |pool: &str| self.budgets.allowed_failures(pool, now_us / 1_000_000);
        let names = KnownNames::from_config(&self.config);
        render_reply((query, names), self.incidents.records(), interval, now_us, allowed)
    }

    fn slo_reply(&mut self, format: IncidentFormat, now_us: u64) -> LedgerReply {
        self.sample_counters(true);
        let interval = self.config.max_probe_interval();
        let report = IncidentReport::from_records(self.incidents.records(), interval);
        let statuses = self.budgets.objective_statuses(now_us / 1_000_000);
        LedgerReply::Rendered(format, slo::render(&statuses, &report, format))
    }

    /// Adds an incident and requests its prediction: for the endpoint, and for the zone once other
    /// endpoints of it have failed too.
    fn on_incident_began(&mut self, incident: &Incident, config: &Arc<LedgerConfig>) {
        let now_us = self.now_us();
        let id = self.incidents.begin_incident(incident, now_us);
        let Some(pool) = config.pools.iter().find(|pool| pool.name == incident.subject.pool) else {
            return;
        };
        let here = config.here.as_ref();
        let rate_rps = self.budgets.rate_rps(&pool.name);
        let &LedgerConfig { generation, workers, .. } = &**config;
        let context = PredictionContext { generation, here, pool, rate_rps, workers };
        let messages = &self.ledger.messages;
        let predicted = self.predictions.predict(id, incident, false, context, messages);
        self.incidents.update_record(id, |record| record.predicted = Some(predicted));
        // The first incident of a zone carries the prediction for the zone.
        let others = self.incidents.neighbors_of(id, join_window_us(config.max_probe_interval()));
        if let Some(first) = others.into_iter().min() {
            let predicted = self.predictions.predict(first, incident, true, context, messages);
            self.incidents.update_record(first, |record| {
                record.predicted_zone.get_or_insert(predicted);
            });
        }
    }

    /// Once no adopted incident is left, messages about endpoints that serve are no longer needed.
    fn finish_inheritance(&self) {
        let is_open = matches!(self.file, LedgerFile::Open(_) | LedgerFile::Disabled);
        if is_open && self.inherited_down.is_some() && !self.incidents.has_adopted() {
            self.ledger.gauges.is_successor.store(false, Relaxed);
        }
    }

    /// Opens the file if the next attempt is due.
    fn open_file_if_due(&mut self) {
        let (LedgerFile::Closed { next, was_open }, Some(directory)) =
            (&self.file, &self.directory)
        else {
            return;
        };
        let (now, was_open) = (Instant::now(), *was_open);
        if now < *next {
            return;
        }
        let opened = match LedgerStore::open(directory) {
            Ok(opened) => opened,
            Err(error) => {
                let retry_interval = self.on_open_error(&error);
                self.file = LedgerFile::Closed { next: now + retry_interval, was_open };
                return;
            }
        };
        let OpenedLedger { store, contents, quarantined } = opened;
        if let Some((path, reason)) = &quarantined {
            let path = path.display();
            tracing::error!(
                "the ledger could not be read ({reason}): it is moved to {path}, a new one begins"
            );
        }
        if !was_open {
            self.adopt_contents(&contents);
        } else if quarantined.is_some() {
            self.incidents.mark_all_dirty();
            self.budgets.mark_dirty();
        }
        self.file = LedgerFile::Open(store);
        self.ledger.gauges.is_durable.store(true, Relaxed);
        self.finish_inheritance();
    }

    /// Logs why the file cannot be opened; returns the time until the next attempt.
    fn on_open_error(&mut self, error: &io::Error) -> Duration {
        let path = self.directory.as_deref().map(Path::display);
        let path = path.map_or_else(String::new, |path| path.to_string());
        if error.kind() != ErrorKind::WouldBlock {
            tracing::error!(%error, "the ledger in {path} cannot be opened; kept in memory");
            return ERROR_RETRY_INTERVAL;
        }
        if !self.has_warned && self.started.elapsed() > LOCK_WARNING_AFTER {
            self.has_warned = true;
            tracing::warn!("the ledger in {path} is still held by another process");
        }
        BUSY_RETRY_INTERVAL
    }

    /// Takes over what earlier processes stored. An incident that a predecessor left open continues
    /// if its endpoint is still down, or came up since: then it ends at that time.
    fn adopt_contents(&mut self, contents: &LedgerContents) {
        let (records, lost) = parse_records(contents);
        if lost > 0 {
            tracing::warn!(lost, "incidents in the ledger cannot be parsed");
        }
        let is_successor = self.ledger.gauges.is_successor.load(Relaxed);
        let (inherited_down, restored) = (&self.inherited_down, &self.restored_early);
        let is_still_down = |key: &LedgerEndpointKey| {
            is_successor
                && (restored.contains_key(key)
                    || inherited_down.as_ref().is_none_or(|down| down.contains(key)))
        };
        self.budgets.load_series(&contents.budgets);
        let shift = self.incidents.adopt(records, is_still_down);
        self.predictions.shift_incident_ids(shift);
        for (key, at_us) in std::mem::take(&mut self.restored_early) {
            self.incidents.end_adopted(&key, IncidentResolution::Restored, Some(at_us));
        }
    }

    /// Reads the counters of workers if a sample is due, or if `is_immediate`.
    fn sample_counters(&mut self, is_immediate: bool) {
        let now = Instant::now();
        if !is_immediate && now < self.sample_due {
            return;
        }
        self.sample_due = now + SAMPLE_INTERVAL;
        let now_s = self.now_us() / 1_000_000;
        self.budgets.sample(&self.shared.metrics, now, now_s);
        let statuses = self.budgets.objective_statuses(now_s);
        self.ledger.gauges.objective_statuses.store(Arc::new(statuses));
    }

    /// Prunes incidents, and writes all changes.
    fn flush(&mut self, is_last: bool) {
        let now_us = self.now_us();
        self.incidents.prune(&self.config.bounds, now_us);
        self.ledger.gauges.stored.store(self.incidents.len() as u64, Relaxed);
        let store = match &self.file {
            LedgerFile::Open(store) => store,
            // Nothing will be written, or everything is.
            LedgerFile::Disabled => return self.incidents.mark_written(),
            LedgerFile::Closed { .. } => return,
        };
        let mut change = self.incidents.pending_changes();
        let now = Instant::now();
        if is_last || now >= self.budgets_due {
            self.budgets_due = now + BUDGETS_WRITE_INTERVAL;
            change.budgets = self.budgets.pending_writes(now_us / 1_000_000);
        }
        if change.is_empty() {
            return;
        }
        match store.write(&change) {
            Ok(()) => self.incidents.mark_written(),
            Err(error) => {
                self.budgets.mark_dirty();
                self.ledger.gauges.failed_writes.fetch_add(1, Relaxed);
                self.ledger.gauges.is_durable.store(false, Relaxed);
                tracing::error!(%error, "the ledger cannot be written; kept in memory");
                self.file = LedgerFile::Closed {
                    next: Instant::now() + ERROR_RETRY_INTERVAL,
                    was_open: true,
                };
            }
        }
    }
}
