//! The ledger of incidents and error budgets: kept by a thread of its own, in memory and, with a
//! state directory, on disk.
//!
//! Control sends messages through a bounded queue without waiting, and counts those that do not
//! fit. The thread assigns the numbers of incidents, which continue over restarts. It also answers
//! queries, so that no verdict waits for a long table.

mod error_budgets;
mod incident_store;
mod joined_incidents;
pub mod json;
mod known_names;
mod metrics;
mod prediction_cache;
pub mod query;
mod record;
mod slo;
pub mod text;
mod worker;

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

use crate::config::model::{Config, LedgerRetention};
use crate::logic::director::Event;
use crate::logic::health::endpoint_health::HealthTransition;
use crate::logic::incident::Incident;
use crate::logic::incident::slo::SloObjectives;
use crate::logic::model::endpoint_stats::AttemptCounts;
use crate::logic::model::id::Locality;
use crate::logic::model::topology::PoolSpec;
use crate::logic::routing::RouteSpec;
use crate::net::ledger_store;

use super::api::WallClock;
use crate::app::dataplane::shared::InstanceShared;
use error_budgets::ObjectiveStatus;
use known_names::KnownNames;
use prediction_cache::PredictionKey;
use query::{IncidentFormat, IncidentQuery};
use record::{DetectionQuantiles, IncidentRecord};

pub use incident_store::IncidentReport;
pub use joined_incidents::{IncidentEntry, IncidentScope};

/// Limit of messages in the queue to the thread.
const QUEUE_LIMIT: usize = 16 * 1024;

/// Time that a shutdown waits for the last write.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Configuration at the time of an event.
#[derive(Debug, Default)]
pub struct LedgerConfig {
    /// Counts the configurations applied since the start.
    pub generation: u64,
    pub bounds: LedgerRetention,
    /// Location of this instance.
    pub here: Option<Locality>,
    /// Worker threads of this process.
    pub workers: usize,
    pub pools: Vec<Arc<PoolSpec>>,
    /// Objectives of routes, by name.
    pub route_slos: Vec<(Arc<str>, SloObjectives)>,
}

impl LedgerConfig {
    /// The parts of `config` that the ledger needs.
    pub fn from_config(generation: u64, config: &Config) -> Self {
        let route_slo = |route: &RouteSpec| Some((Arc::clone(&route.name), route.slo?));
        Self {
            generation,
            bounds: config.ledger,
            here: config.topology.local.clone(),
            workers: config.workers,
            pools: config.topology.pools.clone(),
            route_slos: config.routes.iter().filter_map(route_slo).collect(),
        }
    }

    /// The longest probe interval of all pools.
    fn max_probe_interval(&self) -> Duration {
        self.pools.iter().map(|pool| pool.detect.interval).max().unwrap_or_default()
    }
}

/// A message to the ledger thread.
enum LedgerMessage {
    /// A verdict began an incident.
    IncidentBegan { incident: Box<Incident>, setup: Arc<LedgerConfig> },
    /// An incident ended.
    IncidentEnded(Box<Incident>),
    /// The current state of all open incidents.
    OpenIncidents(Vec<Incident>),
    /// An endpoint, or a zone without an `address`, has its full share again.
    RampEnded { pool: Arc<str>, place: Locality, address: Option<SocketAddr>, at: Instant },
    /// The endpoint serves; this ends an incident adopted from an earlier process.
    EndpointServes { pool: Arc<str>, address: SocketAddr, at: Instant },
    /// Endpoints that an earlier process left down.
    InheritedDown(Vec<(Arc<str>, SocketAddr)>),
    /// Attempts since the start, by pool and zone.
    ZoneAttempts(Vec<(Arc<str>, Locality, AttemptCounts)>),
    /// A new configuration is in force.
    ConfigChanged(Arc<LedgerConfig>),
    /// A simulation ended.
    Predicted(PredictionKey, Option<DetectionQuantiles>),
    /// An operator's query of incidents.
    QueryIncidents {
        query: IncidentQuery,
        open: Vec<Incident>,
        reply: oneshot::Sender<LedgerReply>,
    },
    /// An operator's query of objectives.
    QuerySlo { form: IncidentFormat, open: Vec<Incident>, reply: oneshot::Sender<LedgerReply> },
    /// Another process takes over the file.
    ReleaseFile,
    /// The last message.
    Shutdown,
}

/// The answer to an operator's query.
#[derive(Clone, Debug, PartialEq)]
pub enum LedgerReply {
    /// The page in the requested format.
    Rendered(IncidentFormat, String),
    /// The query is invalid: the reason.
    BadQuery(String),
    /// The query names something that is not known: the nearest names.
    UnknownName(String),
}

/// State that the ledger thread publishes.
#[derive(Debug, Default)]
struct LedgerGauges {
    dropped: AtomicU64,
    failed_writes: AtomicU64,
    stored: AtomicU64,
    is_durable: AtomicBool,
    is_successor: AtomicBool,
    /// Budgets and burn rates, as of the last sample.
    objective_statuses: ArcSwap<Vec<ObjectiveStatus>>,
}

/// The handle of the ledger thread.
#[derive(Clone, Debug)]
pub struct LedgerHandle {
    messages: SyncSender<LedgerMessage>,
    gauges: Arc<LedgerGauges>,
}

#[derive(Debug)]
pub struct LedgerThread {
    ledger: LedgerHandle,
    done: Receiver<()>,
    _thread: JoinHandle<()>,
}

/// Starts the thread that keeps the ledger in `directory`, or in memory only. A successor takes
/// over the incidents that its predecessor leaves open, once that has released the file.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(
    shared: &Arc<InstanceShared>,
    directory: Option<PathBuf>,
    bounds: LedgerRetention,
    is_successor: bool,
) -> io::Result<LedgerThread> {
    let (sender, inbox) = sync_channel(QUEUE_LIMIT);
    let gauges = Arc::new(LedgerGauges::default());
    gauges.is_successor.store(is_successor, Relaxed);
    let ledger = LedgerHandle { messages: sender, gauges };
    let (end, done) = sync_channel(1);
    let worker_ledger = ledger.clone();
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
        worker::LedgerWorker::new(worker_ledger, shared, directory, bounds).run(&inbox);
        let _ = end.send(());
    })?;
    Ok(LedgerThread { ledger, done, _thread: thread })
}

impl LedgerThread {
    /// A handle of the thread.
    pub fn ledger(&self) -> LedgerHandle {
        self.ledger.clone()
    }

    /// Writes all pending changes, if that takes at most two seconds.
    pub fn shut_down(&self) {
        let end = Instant::now() + FLUSH_TIMEOUT;
        while let Err(TrySendError::Full(_)) =
            self.ledger.messages.try_send(LedgerMessage::Shutdown)
            && Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.done.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

impl Drop for LedgerThread {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl LedgerHandle {
    /// Sends the director's event, if it concerns the ledger.
    pub fn record_event(&self, event: &Event, config: &Arc<LedgerConfig>) {
        let message = match event {
            Event::IncidentBegan(incident) => LedgerMessage::IncidentBegan {
                incident: incident.clone(),
                setup: Arc::clone(config),
            },
            Event::IncidentEnded(incident) => LedgerMessage::IncidentEnded(incident.clone()),
            Event::RampEnded { pool, place, address } => LedgerMessage::RampEnded {
                pool: Arc::clone(pool),
                place: place.clone(),
                address: *address,
                at: Instant::now(),
            },
            Event::HealthChanged {
                subject,
                change: HealthTransition::Restored | HealthTransition::Started,
                ..
            } if self.gauges.is_successor.load(Relaxed) => {
                let (pool, address) = (Arc::clone(&subject.pool), subject.address);
                LedgerMessage::EndpointServes { pool, address, at: Instant::now() }
            }
            _ => return,
        };
        self.send(message);
    }

    /// Announces a new configuration.
    pub fn configure(&self, config: &Arc<LedgerConfig>) {
        self.send(LedgerMessage::ConfigChanged(Arc::clone(config)));
    }

    /// Announces the endpoints that an earlier process left down.
    pub fn set_inherited_down(&self, down: Vec<(Arc<str>, SocketAddr)>) {
        self.send(LedgerMessage::InheritedDown(down));
    }

    /// Updates all open incidents.
    pub fn update_open_incidents(&self, open: Vec<Incident>) {
        self.send(LedgerMessage::OpenIncidents(open));
    }

    /// Reports attempts since the start, by pool and zone.
    pub fn record_zone_attempts(&self, zones: Vec<(Arc<str>, Locality, AttemptCounts)>) {
        self.send(LedgerMessage::ZoneAttempts(zones));
    }

    /// Requests the status of objectives; otherwise as [`Self::query_incidents`].
    pub fn query_slo(
        &self,
        format: IncidentFormat,
        open: Vec<Incident>,
    ) -> Option<oneshot::Receiver<LedgerReply>> {
        let (reply, answer) = oneshot::channel();
        self.messages.try_send(LedgerMessage::QuerySlo { form: format, open, reply }).ok()?;
        Some(answer)
    }

    /// Releases the file to another process.
    pub fn release_file(&self) {
        self.send(LedgerMessage::ReleaseFile);
    }

    /// Requests incidents; `open` is the current state of the open ones. `None` if the queue is
    /// full.
    pub fn query_incidents(
        &self,
        query: IncidentQuery,
        open: Vec<Incident>,
    ) -> Option<oneshot::Receiver<LedgerReply>> {
        let (reply, answer) = oneshot::channel();
        self.messages.try_send(LedgerMessage::QueryIncidents { query, open, reply }).ok()?;
        Some(answer)
    }

    fn send(&self, message: LedgerMessage) {
        if self.messages.try_send(message).is_err() {
            self.gauges.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Answers a query from the state directory alone, also while no process runs.
///
/// # Errors
/// If there is no ledger, or it cannot be read.
pub fn query_directory(directory: &Path, query: &IncidentQuery) -> io::Result<LedgerReply> {
    let (records, _) = parse_records(&ledger_store::read_copy(directory)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    // The probe interval is not stored.
    let names = KnownNames::default();
    Ok(render_reply((query, names), records.iter(), Duration::ZERO, now_us, |_| None))
}

/// `names` are the known ones besides those of the records.
fn render_reply<'r>(
    (query, mut names): (&IncidentQuery, KnownNames),
    records: impl DoubleEndedIterator<Item = &'r IncidentRecord> + Clone,
    interval: Duration,
    now_us: u64,
    allowed: impl Fn(&str) -> Option<f64>,
) -> LedgerReply {
    names.add_records(records.clone());
    if let Err(why) = names.check(query) {
        return LedgerReply::UnknownName(why);
    }
    let mut report = match query.evaluate(records.clone(), interval, now_us) {
        Ok(report) => report,
        Err(why) => return LedgerReply::BadQuery(why),
    };
    if let Some(id) = query.id.filter(|_| report.all_entries().next().is_none()) {
        return LedgerReply::UnknownName(known_names::unknown_incident(id, records));
    }
    report.set_budget_shares(allowed);
    let page = match query.format {
        IncidentFormat::Json => {
            let json = serde_json::to_string_pretty(&json::IncidentsJson::from(&report));
            json.unwrap_or_default() + "\n"
        }
        IncidentFormat::Csv => json::render_csv(&report),
        IncidentFormat::Text if query.id.is_some() => text::render_timelines(&report),
        IncidentFormat::Text => text::render_table(&report),
    };
    LedgerReply::Rendered(query.format, page)
}

/// The parsed records with their numbers, and how many cannot be parsed: another version may have
/// written them.
fn parse_records(contents: &ledger_store::LedgerContents) -> (Vec<IncidentRecord>, usize) {
    let record = |(id, bytes): &(u64, Vec<u8>)| {
        let record: IncidentRecord = serde_json::from_slice(bytes).ok()?;
        Some(IncidentRecord { id: *id, ..record })
    };
    let records: Vec<IncidentRecord> = contents.incidents.iter().filter_map(record).collect();
    let lost = contents.incidents.len() - records.len();
    (records, lost)
}
