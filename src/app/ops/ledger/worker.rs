//! The thread of the ledger. It alone may be held up by a disk.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::config::model::LedgerRetention;
use crate::logic::incident::Incident;
use crate::net::ledger_store::{LedgerStore, OpenedLedger};

use super::error_budgets::ErrorBudgets;
use super::incident_store::{IncidentStore, LedgerEndpointKey, join_window_us};
use super::prediction_cache::{PredictionCache, PredictionContext};
use super::record::IncidentResolution;
use super::{
    IncidentReport, InstanceShared, LedgerConfig, LedgerHandle, LedgerMessage, LedgerReply,
    WallClock, parse_records, render_reply, slo,
};

/// Notes that are taken before they are written, at most: one write serves them all.
const MAX_BATCH: usize = 4_096;

const MAX_SLEEP: Duration = Duration::from_secs(1);

/// Between two attempts to open a file that another process has open: one that leaves lets go soon.
const BUSY_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The same where it cannot be opened for another reason.
const ERROR_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Between two looks at what workers have counted.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Between two writes of budgets: so much of their history a crash may cost.
const BUDGETS_WRITE_INTERVAL: Duration = Duration::from_secs(60);

/// Another process may have the file open for this long before anybody is told.
const LOCK_WARNING_AFTER: Duration = Duration::from_secs(60);

enum LedgerFile {
    /// There is none, and there shall be none.
    Disabled,
    Open(LedgerStore),
    /// To be opened; when to try, and whether it has been open before.
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
    /// What is down as a predecessor has left it, once that is known.
    inherited_down: Option<HashSet<LedgerEndpointKey>>,
    /// What serves again before its predecessor's file is open, and since when.
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
        let disk = match directory {
            Some(_) => LedgerFile::Closed { next: now, was_open: false },
            None => LedgerFile::Disabled,
        };
        Self {
            ledger,
            clock,
            directory,
            file: disk,
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

    /// Takes a note; whether it is the last.
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
                let address = address.map(|address| address.to_string());
                let of = (&*pool, place.to_string());
                let at_us = self.clock.unix_micros(at);
                self.incidents.ramp_ended((of.0, &of.1, address.as_deref()), at_us);
            }
            LedgerMessage::EndpointServes { pool, address, at } => {
                let name = (pool.to_string(), address.to_string());
                let at_us = self.clock.unix_micros(at);
                self.incidents.end_adopted(&name, IncidentResolution::Restored, Some(at_us));
                if matches!(self.file, LedgerFile::Closed { was_open: false, .. }) {
                    self.restored_early.insert(name, at_us);
                }
                self.finish_inheritance();
            }
            LedgerMessage::InheritedDown(down) => {
                let name =
                    |(pool, address): (Arc<str>, _)| (pool.to_string(), format!("{address}"));
                let down: HashSet<LedgerEndpointKey> = down.into_iter().map(name).collect();
                self.incidents.retain_adopted(|name| down.contains(name));
                self.inherited_down = Some(down);
                self.finish_inheritance();
            }
            LedgerMessage::ConfigChanged(setup) => {
                self.budgets.configure(&setup.route_slos, &setup.pools);
                self.config = setup;
            }
            LedgerMessage::ZoneAttempts(zones) => {
                self.budgets.sample_zones(zones, now_us / 1_000_000);
            }
            LedgerMessage::Predicted(key, simulated) => {
                let is_zone = key.is_zone();
                for id in self.predictions.complete(&key, simulated, &self.ledger.messages) {
                    self.incidents.update_record(id, |record| {
                        let part = if is_zone {
                            &mut record.predicted_zone
                        } else {
                            &mut record.predicted
                        };
                        if let Some(predicted) = part {
                            predicted.simulated = simulated;
                        }
                    });
                }
            }
            LedgerMessage::QueryIncidents { query, open, reply: to } => {
                self.incidents.update_open(&open, now_us);
                let interval = self.config.max_probe_interval();
                let allowed = |pool: &str| self.budgets.allowed_failures(pool, now_us / 1_000_000);
                let _ = to.send(render_reply(
                    &query,
                    self.incidents.records(),
                    interval,
                    now_us,
                    allowed,
                ));
            }
            LedgerMessage::QuerySlo { form, open, reply: to } => {
                self.incidents.update_open(&open, now_us);
                self.sample_counters(true);
                let report = IncidentReport::from_records(
                    self.incidents.records(),
                    self.config.max_probe_interval(),
                );
                let statuses = self.budgets.objective_statuses(now_us / 1_000_000);
                let _ = to.send(LedgerReply::Rendered(form, slo::render(&statuses, &report, form)));
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

    /// Notes an incident, and asks what was to be expected of it: as one of an endpoint, and as one of
    /// its zone once there are others.
    fn on_incident_began(&mut self, incident: &Incident, config: &Arc<LedgerConfig>) {
        let now_us = self.now_us();
        let id = self.incidents.begin_incident(incident, now_us);
        let Some(pool) = config.pools.iter().find(|pool| pool.name == incident.subject.pool) else {
            return;
        };
        let here = config.here.as_ref();
        let rate_rps = self.budgets.rate_rps(&pool.name);
        let case = PredictionContext { generation: config.generation, here, pool, rate_rps };
        let messages = &self.ledger.messages;
        let predicted = self.predictions.predict(id, incident, false, case, messages);
        self.incidents.update_record(id, |record| record.predicted = Some(predicted));
        // The first one stands for its zone, where it does.
        let others = self.incidents.neighbors_of(id, join_window_us(config.max_probe_interval()));
        if let Some(first) = others.into_iter().min() {
            let predicted = self.predictions.predict(first, incident, true, case, messages);
            self.incidents.update_record(first, |record| {
                record.predicted_zone.get_or_insert(predicted);
            });
        }
    }

    /// When nothing is left of what a predecessor left open, nobody need tell what serves.
    fn finish_inheritance(&self) {
        let is_open = matches!(self.file, LedgerFile::Open(_) | LedgerFile::Disabled);
        if is_open && self.inherited_down.is_some() && !self.incidents.has_adopted() {
            self.ledger.gauges.is_successor.store(false, Relaxed);
        }
    }

    /// Opens the file if it is time to.
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
        let shown = directory.display();
        let OpenedLedger { store, contents, quarantined: aside } = match LedgerStore::open(
            directory,
        ) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !self.has_warned && self.started.elapsed() > LOCK_WARNING_AFTER {
                    self.has_warned = true;
                    tracing::warn!("the ledger in {shown} is still open in another process");
                }
                self.file = LedgerFile::Closed { next: now + BUSY_RETRY_INTERVAL, was_open };
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the ledger in {shown} cannot be opened; kept in memory");
                self.file = LedgerFile::Closed { next: now + ERROR_RETRY_INTERVAL, was_open };
                return;
            }
        };
        if let Some((aside, why)) = &aside {
            let aside = aside.display();
            tracing::error!(
                "the ledger could not be read ({why}): it lies in {aside}, a new one begins"
            );
        }
        if !was_open {
            let (records, lost) = parse_records(&contents);
            if lost > 0 {
                tracing::warn!(lost, "incidents in the ledger cannot be understood");
            }
            let is_successor = self.ledger.gauges.is_successor.load(Relaxed);
            let (inherited, back) = (&self.inherited_down, &self.restored_early);
            let is_still_down = |name: &LedgerEndpointKey| {
                is_successor
                    && (back.contains_key(name)
                        || inherited.as_ref().is_none_or(|down| down.contains(name)))
            };
            self.budgets.load_series(&contents.budgets);
            let shift = self.incidents.adopt(records, is_still_down);
            self.predictions.shift_incident_ids(shift);
            for (name, at_us) in std::mem::take(&mut self.restored_early) {
                self.incidents.end_adopted(&name, IncidentResolution::Restored, Some(at_us));
            }
        } else if aside.is_some() {
            self.incidents.mark_all_dirty();
            self.budgets.mark_dirty();
        }
        self.file = LedgerFile::Open(store);
        self.ledger.gauges.is_durable.store(true, Relaxed);
        self.finish_inheritance();
    }

    /// Looks at what workers have counted, once a second or now.
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

    /// Lets go of what is too much, and has the rest on the disk.
    fn flush(&mut self, is_last: bool) {
        let now_us = self.now_us();
        self.incidents.prune(&self.config.bounds, now_us);
        self.ledger.gauges.stored.store(self.incidents.len() as u64, Relaxed);
        let store = match &self.file {
            LedgerFile::Open(store) => store,
            // Nothing will ever be written, or all that is there.
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
