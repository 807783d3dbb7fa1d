//! The ledger of incidents: kept by a thread of its own, in memory and, where there is a state
//! directory, on the disk.
//!
//! Control only sends notes, through a bounded queue, and never waits: what has no room is counted.
//! The thread alone knows the numbers that incidents have, since these go on where an earlier process
//! stopped; it also answers the operator's questions, so that nobody's verdict waits for a long table.

mod book;
mod budgets;
mod entry;
pub mod json;
mod oracle;
pub mod query;
mod record;
mod slo;
pub mod text;
mod work;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use crate::config::model::{Config, LedgerBounds};
use crate::logic::director::Event;
use crate::logic::health::Change;
use crate::logic::id::Place;
use crate::logic::incident::Incident;
use crate::logic::live::Tries;
use crate::logic::route::RouteSpec;
use crate::logic::slo::Slo;
use crate::logic::topology::PoolSpec;
use crate::net::store;

use super::api::Clock;
use super::shared::Shared;
use oracle::Key;
use query::{Form, Query};
use record::{Quantiles, Record};

pub use book::Told;
pub use entry::{Entry, Scope};

/// Notes on their way to the thread, at most.
const QUEUE: usize = 16 * 1024;

/// Time that an end grants to what is not written yet.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The configuration as it stands when something happens.
#[derive(Debug, Default)]
pub struct Setup {
    /// Counts up with every configuration that is obeyed.
    pub generation: u64,
    /// What is kept.
    pub bounds: LedgerBounds,
    /// Where this instance stands.
    pub here: Option<Place>,
    /// The pools.
    pub pools: Vec<Arc<PoolSpec>>,
    /// What is promised of routes, by their names.
    pub promises: Vec<(Arc<str>, Slo)>,
}

impl Setup {
    /// What `config` says.
    #[must_use]
    pub fn new(generation: u64, config: &Config) -> Self {
        let promise = |route: &RouteSpec| Some((Arc::clone(&route.name), route.slo?));
        Self {
            generation,
            bounds: config.ledger,
            here: config.topology.here.clone(),
            pools: config.topology.pools.clone(),
            promises: config.routes.iter().filter_map(promise).collect(),
        }
    }

    /// The longest between two probes of an endpoint.
    fn interval(&self) -> Duration {
        self.pools.iter().map(|pool| pool.detect.interval).max().unwrap_or_default()
    }
}

/// What the thread is told.
enum Note {
    /// A verdict began an incident.
    Began { incident: Box<Incident>, setup: Arc<Setup> },
    /// An incident is over.
    Ended(Box<Incident>),
    /// All that are open, as they are now.
    Open(Vec<Incident>),
    /// What came back has its whole share again.
    RampEnded { pool: Arc<str>, place: Place, address: Option<SocketAddr>, at: Instant },
    /// The endpoint serves, whatever an earlier process has thought of it.
    Serves { pool: Arc<str>, address: SocketAddr, at: Instant },
    /// What is down as an earlier process has left it.
    Inherited(Vec<(Arc<str>, SocketAddr)>),
    /// How tries ended so far, by pool and zone.
    Zones(Vec<(Arc<str>, Place, Tries)>),
    /// Another configuration is obeyed.
    Setup(Arc<Setup>),
    /// A simulation is over.
    Predicted(Key, Option<Quantiles>),
    /// The operator wants to know.
    Ask { query: Query, open: Vec<Incident>, reply: oneshot::Sender<Reply> },
    /// The operator wants to know how promises stand.
    AskSlo { form: Form, open: Vec<Incident>, reply: oneshot::Sender<Reply> },
    /// Another process goes on with the file.
    Release,
    /// Nothing more will come.
    End,
}

/// An answer to the operator.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// In the form that was asked for.
    Page(Form, String),
    /// The question makes no sense: why.
    Senseless(String),
}

/// What others may know of the thread.
#[derive(Debug, Default)]
struct Gauges {
    dropped: AtomicU64,
    failed_writes: AtomicU64,
    kept: AtomicU64,
    is_durable: AtomicBool,
    is_heir: AtomicBool,
    /// Budgets and burn rates for `/metrics`.
    page: ArcSwap<String>,
}

/// The way to the ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    notes: SyncSender<Note>,
    gauges: Arc<Gauges>,
}

/// The thread itself.
#[derive(Debug)]
pub struct Keeper {
    ledger: Ledger,
    ended: Receiver<()>,
    _thread: JoinHandle<()>,
}

/// Starts the thread that keeps the ledger in `directory`, or in memory only. An heir takes over what
/// its predecessor leaves open, when that has let go of the file.
///
/// # Errors
/// If no thread can be made.
pub fn start(
    shared: &Arc<Shared>,
    directory: Option<PathBuf>,
    bounds: LedgerBounds,
    is_heir: bool,
) -> io::Result<Keeper> {
    let (notes, inbox) = sync_channel(QUEUE);
    let gauges = Arc::new(Gauges::default());
    gauges.is_heir.store(is_heir, Relaxed);
    let ledger = Ledger { notes, gauges };
    let (end, ended) = sync_channel(1);
    let own = ledger.clone();
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
        work::Work::new(own, shared, directory, bounds).run(&inbox);
        let _ = end.send(());
    })?;
    Ok(Keeper { ledger, ended, _thread: thread })
}

impl Keeper {
    /// The way to it.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Has what is left written, if that goes fast.
    pub fn finish(&self) {
        let end = Instant::now() + LAST_WORDS;
        while let Err(TrySendError::Full(_)) = self.ledger.notes.try_send(Note::End)
            && Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.ended.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Ledger {
    /// Notes what the director says, as far as it is of interest here.
    pub fn note(&self, event: &Event, setup: &Arc<Setup>) {
        let note = match event {
            Event::IncidentBegan(incident) => {
                Note::Began { incident: incident.clone(), setup: Arc::clone(setup) }
            }
            Event::IncidentEnded(incident) => Note::Ended(incident.clone()),
            Event::RampEnded { pool, place, address } => Note::RampEnded {
                pool: Arc::clone(pool),
                place: place.clone(),
                address: *address,
                at: Instant::now(),
            },
            Event::Health { subject, change: Change::Restored | Change::Started, .. }
                if self.gauges.is_heir.load(Relaxed) =>
            {
                let (pool, address) = (Arc::clone(&subject.pool), subject.address);
                Note::Serves { pool, address, at: Instant::now() }
            }
            _ => return,
        };
        self.send(note);
    }

    /// Another configuration is obeyed.
    pub fn configure(&self, setup: &Arc<Setup>) {
        self.send(Note::Setup(Arc::clone(setup)));
    }

    /// What an earlier process has left as down.
    pub fn inherit(&self, down: Vec<(Arc<str>, SocketAddr)>) {
        self.send(Note::Inherited(down));
    }

    /// Brings all that are open up to date.
    pub fn see(&self, open: Vec<Incident>) {
        self.send(Note::Open(open));
    }

    /// Has zones measured by how tries ended so far.
    pub fn zones(&self, zones: Vec<(Arc<str>, Place, Tries)>) {
        self.send(Note::Zones(zones));
    }

    /// Asks how promises stand; otherwise as [`Ledger::ask`].
    #[must_use]
    pub fn ask_slo(&self, form: Form, open: Vec<Incident>) -> Option<oneshot::Receiver<Reply>> {
        let (reply, answer) = oneshot::channel();
        self.notes.try_send(Note::AskSlo { form, open, reply }).ok()?;
        Some(answer)
    }

    /// Budgets and burn rates in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> Arc<String> {
        self.gauges.page.load_full()
    }

    /// Lets go of the file: another process goes on with it.
    pub fn release(&self) {
        self.send(Note::Release);
    }

    /// Asks; `open` are the incidents that are open, as they are now. `None` if there is too much to do.
    #[must_use]
    pub fn ask(&self, query: Query, open: Vec<Incident>) -> Option<oneshot::Receiver<Reply>> {
        let (reply, answer) = oneshot::channel();
        self.notes.try_send(Note::Ask { query, open, reply }).ok()?;
        Some(answer)
    }

    fn send(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            self.gauges.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Notes that had no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.gauges.dropped.load(Relaxed)
    }

    /// Writes that failed.
    #[must_use]
    pub fn failed_writes(&self) -> u64 {
        self.gauges.failed_writes.load(Relaxed)
    }

    /// Incidents that are kept.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.gauges.kept.load(Relaxed)
    }

    /// Whether all of it is on the disk, or soon will be.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.gauges.is_durable.load(Relaxed)
    }
}

/// Answers out of the state directory of a process that need not run.
///
/// # Errors
/// If there is no ledger, or it cannot be read.
pub fn read(directory: &Path, query: &Query) -> io::Result<Reply> {
    let (records, _) = parse(&store::read(directory)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    // How far probes were apart is not known here.
    Ok(reply(query, records.iter(), Duration::ZERO, now_us, |_| None))
}

fn reply<'r>(
    query: &Query,
    records: impl DoubleEndedIterator<Item = &'r Record>,
    interval: Duration,
    now_us: u64,
    allowed: impl Fn(&str) -> Option<f64>,
) -> Reply {
    let mut told = match query.answer(records, interval, now_us) {
        Ok(told) => told,
        Err(why) => return Reply::Senseless(why),
    };
    told.weigh(allowed);
    let page = match query.form {
        Form::Json => {
            let json = serde_json::to_string_pretty(&json::IncidentsJson::from(&told));
            json.unwrap_or_default() + "\n"
        }
        Form::Csv => json::csv(&told),
        Form::Text if query.id.is_some() => text::stories(&told),
        Form::Text => text::table(&told),
    };
    Reply::Page(query.form, page)
}

/// The records in a file, by their numbers, and how many cannot be understood: another version may
/// have written them.
fn parse(contents: &store::Contents) -> (Vec<Record>, usize) {
    let record = |(id, bytes): &(u64, Vec<u8>)| {
        let record: Record = serde_json::from_slice(bytes).ok()?;
        Some(Record { id: *id, ..record })
    };
    let records: Vec<Record> = contents.incidents.iter().filter_map(record).collect();
    let lost = contents.incidents.len() - records.len();
    (records, lost)
}
