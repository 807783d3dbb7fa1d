//! What control and workers share, and what they tell each other.

use std::hash::RandomState;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::process::{Resource, getrlimit};
use tokio::sync::mpsc;

use crate::config::model::Config;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::Failure;
use crate::logic::model::snapshot::Snapshot;
use crate::logic::model::topology::PoolSpec;
use crate::logic::overload::descriptor_pool::DescriptorPool;
use crate::logic::request::rate_limit::RateLimiter;
use crate::logic::request::retry::InFlightPolicy;
use crate::logic::routing::RouteSpec;
use crate::logic::steering::affinity::{CookieSecrets, SessionAffinity};

use super::access::AccessLogQueue;
use super::cookie_keys::instance_secret;
use super::http_policy::HttpPolicy;
use super::listener_config::ListenerConfig;
use super::memory_gauge::MemoryGauge;
use super::request_metrics::RequestMetrics;

/// Failures that workers have met and control has not heard of yet, at most.
pub const REPORT_QUEUE_LIMIT: usize = 16 * 1024;

/// Clients of whom it is known how much they ask for, at most: 1 MiB of them.
const RATE_TABLE_CLIENTS: usize = 128 * 1024;

/// Shared by all threads of one instance.
#[derive(Debug)]
pub struct InstanceShared {
    /// The zero of all times in microseconds.
    pub epoch: Instant,
    /// What requests steer by. Control alone stores it.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// What of the configuration is neither route nor pool.
    pub http_policy: Arc<ArcSwap<HttpPolicy>>,
    /// Counters by pool, one set per worker.
    pub metrics: RequestMetrics,
    /// Lines of the access log, on their way to its writer.
    pub access_log: Arc<AccessLogQueue>,
    /// What spans are made of, on its way to their exporter.
    #[cfg(feature = "otlp")]
    pub traces: Arc<crate::app::ops::otlp::TraceQueue>,
    /// What clients may still ask for; there once a route has a rate.
    pub rate_table: OnceLock<RateLimiter<RandomState>>,
    /// Descriptors of all workers' connections.
    pub descriptors: Arc<DescriptorPool>,
    /// How much memory is used, and what is to be done about it. Control alone writes it.
    pub pressure: MemoryGauge,
    /// What seals cookies of pools that have no secret of their own; there once one has.
    pub cookie_secret: OnceLock<CookieSecrets>,
    /// The same, of the process that this one takes over from.
    pub inherited_cookie_secret: OnceLock<CookieSecrets>,
    /// Reports that did not fit into the queue.
    pub reports_dropped: AtomicU64,
    reports: mpsc::Sender<WorkerReport>,
}

/// What a worker tells control.
#[derive(Clone, Copy, Debug)]
pub enum WorkerReport {
    /// A request met a failure.
    Traffic {
        endpoint: EndpointId,
        failure: Failure,
        /// When the try began.
        began: Instant,
    },
    /// An idle connection was closed by the endpoint.
    IdleClosed(EndpointId),
    /// The first, of a request that a drill took; the identity is that of the drill's director.
    DrillTraffic {
        drill: u64,
        endpoint: EndpointId,
        failure: Failure,
        /// When the try began.
        began: Instant,
    },
    /// The second, of a drill's connections.
    DrillIdleClosed { drill: u64, endpoint: EndpointId },
}

/// What control tells a worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Accept on this listener too; a door may have several.
    Listen(Listener),
    /// Accept there no more; running connections go on.
    Unlisten(SocketAddr),
    /// The verdict on the endpoint is down.
    AbortEndpoint {
        endpoint: EndpointId,
        /// What becomes of the requests that wait for it.
        waiting: InFlightPolicy,
    },
    /// Nobody is to go to the endpoint any more, because an operator has said so.
    EndpointDrained {
        endpoint: EndpointId,
        /// The time of what lasts there is up.
        is_over: bool,
    },
    /// As [`Command::Cut`], for the requests that a drill took.
    AbortDrillEndpoint {
        drill: u64,
        endpoint: EndpointId,
        /// What becomes of the requests that wait for it.
        waiting: InFlightPolicy,
    },
    /// The drill is over: what was not really sent goes where everybody goes. If something real came
    /// in between, so does all that may be sent again.
    EndDrill {
        drill: u64,
        /// Whether something real came in between.
        is_interrupted: bool,
    },
    /// Accept no more: another process does. Who asks for something is told that it was the last
    /// answer on that connection; who does not ask may stay until [`Command::Drain`].
    StopAccepting,
    /// Accept no more, end connections after their running request, then end.
    Drain,
}

/// A client-facing listener, as one worker gets it.
#[derive(Debug)]
pub struct Listener {
    /// The configured address: its name.
    pub address: SocketAddr,
    /// A handle to a socket that may be this worker's alone, or not.
    pub listener: TcpListener,
    /// Connections through this door, over all workers.
    pub connections: Arc<AtomicUsize>,
    /// How connections are taken from now on. Control alone stores it.
    pub config: Arc<ArcSwap<ListenerConfig>>,
}

impl InstanceShared {
    /// Shared state, and the end of the queue that control reads.
    pub fn new(http_policy: HttpPolicy) -> (Arc<Self>, mpsc::Receiver<WorkerReport>) {
        let (reports, receiver) = mpsc::channel(REPORT_QUEUE_LIMIT);
        let shared = Self {
            // Times are counted from here, and zero means never: no event may fall on it.
            epoch: Instant::now() - Duration::from_millis(1),
            snapshot: Arc::default(),
            http_policy: Arc::new(ArcSwap::from_pointee(http_policy)),
            metrics: RequestMetrics::default(),
            access_log: Arc::default(),
            #[cfg(feature = "otlp")]
            traces: Arc::default(),
            rate_table: OnceLock::new(),
            cookie_secret: OnceLock::new(),
            inherited_cookie_secret: OnceLock::new(),
            descriptors: Arc::default(),
            pressure: MemoryGauge::default(),
            reports_dropped: AtomicU64::new(0),
            reports,
        };
        (Arc::new(shared), receiver)
    }

    /// Tells control, or counts a drop if it has too much to hear already.
    /// Whether there was room.
    pub fn send_report(&self, report: WorkerReport) -> bool {
        let is_told = self.reports.try_send(report).is_ok();
        if !is_told {
            self.reports_dropped.fetch_add(1, Relaxed);
        }
        is_told
    }

    /// Makes ready what `routes` need. Workers only read.
    pub fn prepare(&self, routes: &[RouteSpec]) {
        for route in routes.iter().filter(|route| route.rate_limit.is_some()) {
            self.rate_table
                .get_or_init(|| RateLimiter::new(RATE_TABLE_CLIENTS, RandomState::new()));
            let _ = self.metrics.rate_limited_counter(&route.name);
        }
    }

    /// Has a secret for the pools of `config` that seal cookies and have none of their own.
    pub fn prepare_cookie_secret(&self, config: &Config) {
        let mut pools = config.topology.pools.iter();
        let wants = |pool: &Arc<PoolSpec>| matches!(pool.affinity.as_deref(), Some(SessionAffinity::Cookie(one)) if one.secrets.is_none());
        if pools.any(wants) {
            let directory = config.state_dir.as_deref();
            self.cookie_secret
                .get_or_init(|| instance_secret(directory, self.inherited_cookie_secret.get()));
        }
    }

    /// Lets workers use what `config` leaves of the descriptors that are granted.
    pub fn allow_descriptors(&self, config: &Config) {
        let granted = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let granted = usize::try_from(granted).unwrap_or(usize::MAX);
        self.descriptors.set_limit(config.descriptor_needs().available(granted));
    }

    /// Microseconds since the epoch.
    pub fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_micros() as u64
    }
}
