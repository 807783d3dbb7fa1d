//! State that control and workers share, and the messages between them.

use std::hash::RandomState;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::Method;
use rustix::process::{Resource, getrlimit};
use tokio::sync::mpsc;

use crate::config::model::Config;
use crate::logic::drill::{DrillId, DrillView};
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::Failure;
use crate::logic::model::snapshot::Snapshot;
use crate::logic::model::topology::PoolSpec;
use crate::logic::overload::descriptor_pool::DescriptorPool;
use crate::logic::request::attribution::RequestKey;
use crate::logic::request::rate_limit::RateLimiter;
use crate::logic::request::retry::InFlightPolicy;
use crate::logic::routing::RouteSpec;
use crate::logic::steering::affinity::{CookieSecrets, SessionAffinity};
use crate::net::upstream::ConnectionPool;

use super::access::AccessLogQueue;
use super::cookie_keys::instance_secret;
use super::http_policy::HttpPolicy;
use super::listener_config::ListenerConfig;
use super::memory_gauge::MemoryGauge;
use super::request_metrics::RequestMetrics;

/// Limit of reports in the queue to control.
pub const REPORT_QUEUE_LIMIT: usize = 16 * 1024;

/// Limit of clients in the rate table, which then takes 1 MiB.
const RATE_TABLE_CLIENTS: usize = 128 * 1024;

/// Shared by all threads of one instance.
#[derive(Debug)]
pub struct InstanceShared {
    /// Times in microseconds count from here.
    pub epoch: Instant,
    /// The snapshots that steer requests. Written by control only.
    pub published: Arc<ArcSwap<Publication>>,
    /// Settings for client traffic. Written by control only.
    pub http_policy: Arc<ArcSwap<HttpPolicy>>,
    /// Counters by pool, one set for each worker.
    pub metrics: RequestMetrics,
    /// Lines of the access log for the writer thread.
    pub access_log: Arc<AccessLogQueue>,
    /// Traces of finished requests for the exporter thread.
    #[cfg(feature = "otlp")]
    pub traces: Arc<crate::app::ops::otlp::TraceQueue>,
    /// Rates of clients; set once a route has a rate limit.
    pub rate_table: OnceLock<RateLimiter<RandomState>>,
    /// Descriptors of all workers' connections.
    pub descriptors: Arc<DescriptorPool>,
    /// Memory use and pressure level. Written by control only.
    pub pressure: MemoryGauge,
    /// Secret of affinity cookies for pools without their own; set once one exists.
    pub cookie_secret: OnceLock<CookieSecrets>,
    /// The cookie secret of the process that this one replaces.
    pub inherited_cookie_secret: OnceLock<CookieSecrets>,
    /// Reports that did not fit into the queue.
    pub reports_dropped: AtomicU64,
    reports: mpsc::Sender<WorkerReport>,
    /// Seeds the keys of requests.
    request_hasher: foldhash::quality::RandomState,
    /// The number of workers.
    pub worker_count: usize,
}

/// Everything that steers requests, as control publishes it.
#[derive(Debug, Default)]
pub struct Publication {
    pub production: Arc<Snapshot>,
    /// The drill that takes requests, with its own snapshot.
    pub drill: Option<Arc<DrillView>>,
}

/// A message from a worker to control.
#[derive(Clone, Copy, Debug)]
pub struct WorkerReport {
    /// The drill of the request or connection. Endpoint identities are those of its director.
    pub drill: Option<DrillId>,
    pub evidence: WorkerEvidence,
}

impl WorkerReport {
    /// Evidence from `connections`, with their tag.
    pub fn new(connections: &ConnectionPool, evidence: WorkerEvidence) -> Self {
        let drill = connections.fault_injection.as_ref().map(|injection| injection.drill);
        Self { drill, evidence }
    }
}

/// Evidence from a worker's traffic.
#[derive(Clone, Copy, Debug)]
pub enum WorkerEvidence {
    /// A request met a failure.
    TrafficFailed {
        endpoint: EndpointId,
        failure: Failure,
        /// Start of the attempt.
        began: Instant,
    },
    /// The endpoint closed an idle connection.
    IdleClosed { endpoint: EndpointId },
}

/// A down verdict that aborts requests.
#[derive(Clone, Copy, Debug)]
pub struct EndpointAbort {
    /// The drill whose director gave the verdict.
    pub drill: Option<DrillId>,
    pub endpoint: EndpointId,
    /// Which waiting requests are aborted.
    pub waiting: InFlightPolicy,
}

/// The start of a drill's fault injection.
#[derive(Clone, Copy, Debug)]
pub struct FaultInjectionStart {
    pub drill: DrillId,
    /// The endpoints close their idle connections, as a process does when it exits.
    pub closes_idle_connections: bool,
}

/// The end of a drill's fault injection.
#[derive(Clone, Copy, Debug)]
pub struct FaultInjectionEnd {
    pub drill: DrillId,
    /// A real event ended the drill: all its requests that can be resent are resent.
    pub is_interrupted: bool,
}

/// A message from control to a worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Accept connections on this listener; an address may have several.
    Listen(Listener),
    /// Stop accepting at this address; existing connections continue.
    Unlisten(SocketAddr),
    /// The endpoint went down.
    AbortEndpoint(EndpointAbort),
    /// An operator has drained the endpoint: no new requests go there.
    EndpointDrained {
        endpoint: EndpointId,
        /// The drain deadline has passed: running streams end too.
        is_over: bool,
    },
    /// A drill starts to inject its fault.
    StartFaultInjection(FaultInjectionStart),
    /// A drill has ended. Requests with injected faults go to real endpoints.
    EndFaultInjection(FaultInjectionEnd),
    /// Another process accepts now. Responses carry `connection: close`; idle connections may stay
    /// until [`Self::Drain`].
    StopAccepting,
    /// Stop accepting, close connections after their current request, then exit.
    Drain,
}

/// A client-facing listener as one worker receives it.
#[derive(Debug)]
pub struct Listener {
    /// The configured address, which identifies the listener.
    pub address: SocketAddr,
    /// The socket, which other workers may share.
    pub listener: TcpListener,
    /// Connections of this listener over all workers.
    pub connections: Arc<AtomicUsize>,
    /// Settings for new connections. Written by control only.
    pub config: Arc<ArcSwap<ListenerConfig>>,
}

impl InstanceShared {
    /// The shared state, and the receiver of reports for control.
    pub fn new(
        http_policy: HttpPolicy,
        worker_count: usize,
    ) -> (Arc<Self>, mpsc::Receiver<WorkerReport>) {
        let (reports, receiver) = mpsc::channel(REPORT_QUEUE_LIMIT);
        let shared = Self {
            // Zero means never, so no event may have that time.
            epoch: Instant::now() - Duration::from_millis(1),
            published: Arc::default(),
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
            request_hasher: foldhash::quality::RandomState::default(),
            worker_count,
        };
        (Arc::new(shared), receiver)
    }

    /// The key of requests that are likely to fail alike.
    pub fn request_key(&self, method: &Method, host: &str, path: &str) -> RequestKey {
        RequestKey::new(&self.request_hasher, method, host, path)
    }

    /// Queues a report, or counts a drop if the queue is full. Returns whether it was queued.
    pub fn send_report(&self, report: WorkerReport) -> bool {
        let is_queued = self.reports.try_send(report).is_ok();
        if !is_queued {
            self.reports_dropped.fetch_add(1, Relaxed);
        }
        is_queued
    }

    /// Creates what `routes` need; workers only read it.
    pub fn prepare(&self, routes: &[RouteSpec]) {
        for route in routes.iter().filter(|route| route.rate_limit.is_some()) {
            self.rate_table
                .get_or_init(|| RateLimiter::new(RATE_TABLE_CLIENTS, RandomState::new()));
            let _ = self.metrics.rate_limited_counter(&route.name);
        }
    }

    /// Creates the instance's cookie secret if a pool of `config` needs it.
    pub fn prepare_cookie_secret(&self, config: &Config) {
        let mut pools = config.topology.pools.iter();
        let needs_secret = |pool: &Arc<PoolSpec>| match pool.affinity.as_deref() {
            Some(SessionAffinity::Cookie(cookie)) => cookie.secrets.is_none(),
            _ => false,
        };
        if pools.any(needs_secret) {
            let directory = config.state_dir.as_deref();
            self.cookie_secret
                .get_or_init(|| instance_secret(directory, self.inherited_cookie_secret.get()));
        }
    }

    /// Sets the workers' limit: the granted descriptors less those that `config` needs elsewhere.
    pub fn allow_descriptors(&self, config: &Config) {
        let granted = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let granted = usize::try_from(granted).unwrap_or(usize::MAX);
        self.descriptors.set_limit(config.descriptor_needs().available(granted));
    }

    /// Microseconds since the epoch; zero for times before it.
    pub fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_micros() as u64
    }
}
