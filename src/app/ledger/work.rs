//! The thread of the ledger. It alone may be held up by a disk.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::config::model::LedgerBounds;
use crate::logic::incident::Incident;
use crate::net::store::{Opened, Store};

use super::book::{Book, Name, together_us};
use super::budgets::{self, Budgets};
use super::oracle::{Case, Oracle};
use super::record::Fate;
use super::{Clock, Ledger, Note, Reply, Setup, Shared, Told, parse, reply, slo};

/// Notes that are taken before they are written, at most: one write serves them all.
const AT_ONCE: usize = 4_096;

/// The longest sleep.
const REST: Duration = Duration::from_secs(1);

/// Between two attempts to open a file that another process has open: one that leaves lets go soon.
const BUSY_REST: Duration = Duration::from_millis(20);

/// The same where it cannot be opened for another reason.
const LOST_REST: Duration = Duration::from_secs(10);

/// Between two looks at what workers have counted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between two writes of budgets: so much of their history a crash may cost.
const BUDGETS_EVERY: Duration = Duration::from_secs(60);

/// Another process may have the file open for this long before anybody is told.
const PATIENCE: Duration = Duration::from_secs(60);

/// The file.
enum Disk {
    /// There is none, and there shall be none.
    None,
    Open(Store),
    /// To be opened; when to try, and whether it has been open before.
    Closed {
        next: Instant,
        was_open: bool,
    },
}

/// The thread's own.
pub(super) struct Work {
    ledger: Ledger,
    clock: Clock,
    directory: Option<PathBuf>,
    disk: Disk,
    book: Book,
    oracle: Oracle,
    setup: Arc<Setup>,
    shared: Arc<Shared>,
    budgets: Budgets,
    look_due: Instant,
    budgets_due: Instant,
    /// What is down as a predecessor has left it, once that is known.
    inherited: Option<HashSet<Name>>,
    /// What serves again before its predecessor's file is open, and since when.
    back: HashMap<Name, u64>,
    started: Instant,
    has_complained: bool,
}

impl Work {
    pub(super) fn new(
        ledger: Ledger,
        shared: Arc<Shared>,
        directory: Option<PathBuf>,
        bounds: LedgerBounds,
    ) -> Self {
        let clock = Clock::read();
        let now = Instant::now();
        let disk = match directory {
            Some(_) => Disk::Closed { next: now, was_open: false },
            None => Disk::None,
        };
        Self {
            ledger,
            clock,
            directory,
            disk,
            book: Book::new(clock),
            oracle: Oracle::default(),
            setup: Arc::new(Setup { bounds, ..Setup::default() }),
            shared,
            budgets: Budgets::default(),
            look_due: now,
            budgets_due: now + BUDGETS_EVERY,
            inherited: None,
            back: HashMap::new(),
            started: now,
            has_complained: false,
        }
    }

    pub(super) fn run(mut self, inbox: &Receiver<Note>) {
        loop {
            self.open();
            let mut is_over = match inbox.recv_timeout(self.rest()) {
                Ok(note) => self.take(note),
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            for _ in 0..AT_ONCE {
                match inbox.try_recv() {
                    Ok(note) if !is_over => is_over = self.take(note),
                    _ => break,
                }
            }
            self.look(is_over);
            self.write(is_over);
            if is_over {
                return;
            }
        }
    }

    fn rest(&self) -> Duration {
        match self.disk {
            Disk::None | Disk::Open(_) => REST,
            Disk::Closed { next, .. } => {
                next.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), REST)
            }
        }
    }

    fn now_us(&self) -> u64 {
        self.clock.micros(Instant::now())
    }

    /// Takes a note; whether it is the last.
    fn take(&mut self, note: Note) -> bool {
        let now_us = self.now_us();
        match note {
            Note::Began { incident, setup } => self.began(&incident, &setup),
            Note::Ended(incident) => self.book.end(&incident, now_us),
            Note::Open(open) => self.book.see(&open, now_us),
            Note::RampEnded { pool, place, address, at } => {
                let address = address.map(|address| address.to_string());
                let of = (&*pool, place.to_string());
                let at_us = self.clock.micros(at);
                self.book.ramp_ended((of.0, &of.1, address.as_deref()), at_us);
            }
            Note::Serves { pool, address, at } => {
                let name = (pool.to_string(), address.to_string());
                let at_us = self.clock.micros(at);
                self.book.end_adopted(&name, Fate::Restored, Some(at_us));
                if matches!(self.disk, Disk::Closed { was_open: false, .. }) {
                    self.back.insert(name, at_us);
                }
                self.settle_inheritance();
            }
            Note::Inherited(down) => {
                let name =
                    |(pool, address): (Arc<str>, _)| (pool.to_string(), format!("{address}"));
                let down: HashSet<Name> = down.into_iter().map(name).collect();
                self.book.keep_adopted(|name| down.contains(name));
                self.inherited = Some(down);
                self.settle_inheritance();
            }
            Note::Setup(setup) => {
                self.budgets.configure(&setup.promises, &setup.pools);
                self.setup = setup;
            }
            Note::Zones(zones) => self.budgets.look_at_zones(zones, now_us / 1_000_000),
            Note::Predicted(key, simulated) => {
                let is_zone = key.is_zone();
                for id in self.oracle.answered(&key, simulated, &self.ledger.notes) {
                    self.book.change(id, |record| {
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
            Note::Ask { query, open, reply: to } => {
                self.book.see(&open, now_us);
                let interval = self.setup.interval();
                let allowed = |pool: &str| self.budgets.allowed(pool, now_us / 1_000_000);
                let _ = to.send(reply(&query, self.book.records(), interval, now_us, allowed));
            }
            Note::AskSlo { form, open, reply: to } => {
                self.book.see(&open, now_us);
                self.look(true);
                let told = Told::of(self.book.records(), self.setup.interval());
                let standings = self.budgets.standings(now_us / 1_000_000);
                let _ = to.send(Reply::Page(form, slo::page(&standings, &told, form)));
            }
            Note::Release => {
                self.look(true);
                self.write(true);
                self.disk = Disk::None;
                self.ledger.gauges.is_durable.store(false, Relaxed);
            }
            Note::End => return true,
        }
        false
    }

    /// Notes an incident, and asks what was to be expected of it: as one of an endpoint, and as one of
    /// its zone once there are others.
    fn began(&mut self, incident: &Incident, setup: &Arc<Setup>) {
        let now_us = self.now_us();
        let id = self.book.begin(incident, now_us);
        let Some(pool) = setup.pools.iter().find(|pool| pool.name == incident.subject.pool) else {
            return;
        };
        let here = setup.here.as_ref();
        let rate_rps = self.budgets.rate_rps(&pool.name);
        let case = Case { generation: setup.generation, here, pool, rate_rps };
        let notes = &self.ledger.notes;
        let predicted = self.oracle.ask(id, incident, false, case, notes);
        self.book.change(id, |record| record.predicted = Some(predicted));
        // The first one stands for its zone, where it does.
        let others = self.book.others_near(id, together_us(setup.interval()));
        if let Some(first) = others.into_iter().min() {
            let predicted = self.oracle.ask(first, incident, true, case, notes);
            self.book.change(first, |record| {
                record.predicted_zone.get_or_insert(predicted);
            });
        }
    }

    /// When nothing is left of what a predecessor left open, nobody need tell what serves.
    fn settle_inheritance(&self) {
        let is_open = matches!(self.disk, Disk::Open(_) | Disk::None);
        if is_open && self.inherited.is_some() && !self.book.has_adopted() {
            self.ledger.gauges.is_heir.store(false, Relaxed);
        }
    }

    /// Opens the file if it is time to.
    fn open(&mut self) {
        let (Disk::Closed { next, was_open }, Some(directory)) = (&self.disk, &self.directory)
        else {
            return;
        };
        let (now, was_open) = (Instant::now(), *was_open);
        if now < *next {
            return;
        }
        let shown = directory.display();
        let Opened { store, contents, aside } = match Store::open(directory) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !self.has_complained && self.started.elapsed() > PATIENCE {
                    self.has_complained = true;
                    tracing::warn!("the ledger in {shown} is still open in another process");
                }
                self.disk = Disk::Closed { next: now + BUSY_REST, was_open };
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the ledger in {shown} cannot be opened; kept in memory");
                self.disk = Disk::Closed { next: now + LOST_REST, was_open };
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
            let (records, lost) = parse(&contents);
            if lost > 0 {
                tracing::warn!(lost, "incidents in the ledger cannot be understood");
            }
            let is_heir = self.ledger.gauges.is_heir.load(Relaxed);
            let (inherited, back) = (&self.inherited, &self.back);
            let goes_on = |name: &Name| {
                is_heir
                    && (back.contains_key(name)
                        || inherited.as_ref().is_none_or(|down| down.contains(name)))
            };
            self.budgets.adopt(&contents.budgets);
            let shift = self.book.adopt(records, goes_on);
            self.oracle.renumber(shift);
            for (name, at_us) in std::mem::take(&mut self.back) {
                self.book.end_adopted(&name, Fate::Restored, Some(at_us));
            }
        } else if aside.is_some() {
            self.book.soil();
            self.budgets.soil();
        }
        self.disk = Disk::Open(store);
        self.ledger.gauges.is_durable.store(true, Relaxed);
        self.settle_inheritance();
    }

    /// Looks at what workers have counted, once a second or now.
    fn look(&mut self, at_once: bool) {
        let now = Instant::now();
        if !at_once && now < self.look_due {
            return;
        }
        self.look_due = now + LOOK_EVERY;
        let now_s = self.now_us() / 1_000_000;
        self.budgets.look(&self.shared.meters, now, now_s);
        let page = budgets::metrics(&self.budgets.standings(now_s));
        self.ledger.gauges.page.store(Arc::new(page));
    }

    /// Lets go of what is too much, and has the rest on the disk.
    fn write(&mut self, is_last: bool) {
        let now_us = self.now_us();
        self.book.prune(&self.setup.bounds, now_us);
        self.ledger.gauges.kept.store(self.book.len() as u64, Relaxed);
        let store = match &self.disk {
            Disk::Open(store) => store,
            // Nothing will ever be written, or all that is there.
            Disk::None => return self.book.written(),
            Disk::Closed { .. } => return,
        };
        let mut change = self.book.pending();
        let now = Instant::now();
        if is_last || now >= self.budgets_due {
            self.budgets_due = now + BUDGETS_EVERY;
            change.budgets = self.budgets.pending(now_us / 1_000_000);
        }
        if change.is_empty() {
            return;
        }
        match store.write(&change) {
            Ok(()) => self.book.written(),
            Err(error) => {
                self.budgets.soil();
                self.ledger.gauges.failed_writes.fetch_add(1, Relaxed);
                self.ledger.gauges.is_durable.store(false, Relaxed);
                tracing::error!(%error, "the ledger cannot be written; kept in memory");
                self.disk = Disk::Closed { next: Instant::now() + LOST_REST, was_open: true };
            }
        }
    }
}
