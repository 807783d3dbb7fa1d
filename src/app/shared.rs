//! What control and workers share, and what they tell each other.

use std::hash::RandomState;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderName;
use rustix::process::{Resource, getrlimit};
use tokio::sync::mpsc;

use crate::config::model::{AccessLog, Config, Headers, Limits};
use crate::logic::affinity::{Affinity, Secrets};
use crate::logic::descriptors::Descriptors;
use crate::logic::id::EndpointId;
use crate::logic::network::Network;
use crate::logic::outcome::Failure;
use crate::logic::rate::RateTable;
use crate::logic::retry::Waiting;
use crate::logic::route::{PathRules, RouteSpec};
use crate::logic::snapshot::Snapshot;
use crate::logic::topology::PoolSpec;
use crate::net::geo::GeoDatabase;

use super::access;
use super::front::Front;
use super::keyring::instance_secret;
use super::meter::Meters;
use super::pressure::Pressure;

/// Failures that workers have met and control has not heard of yet, at most.
pub const REPORTS: usize = 16 * 1024;

/// Clients of whom it is known how much they ask for, at most: 1 MiB of them.
const RATES: usize = 128 * 1024;

/// Shared by all threads of one instance.
#[derive(Debug)]
pub struct Shared {
    /// The zero of all times in microseconds.
    pub epoch: Instant,
    /// What requests steer by. Control alone stores it.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// What of the configuration is neither route nor pool.
    pub manners: Arc<ArcSwap<Manners>>,
    /// Counters by pool, one set per worker.
    pub meters: Meters,
    /// Lines of the access log, on their way to its writer.
    pub access: access::AccessLog,
    /// What spans are made of, on its way to their exporter.
    #[cfg(feature = "otlp")]
    pub otlp: super::otlp::Exports,
    /// What clients may still ask for; there once a route has a rate.
    pub rates: OnceLock<RateTable<RandomState>>,
    /// Descriptors of all workers' connections.
    pub descriptors: Arc<Descriptors>,
    /// How much memory is used, and what is to be done about it. Control alone writes it.
    pub pressure: Pressure,
    /// What seals cookies of pools that have no secret of their own; there once one has.
    pub secret: OnceLock<Secrets>,
    /// The same, of the process that this one takes over from.
    pub inherited_secret: OnceLock<Secrets>,
    /// Reports that did not fit into the queue.
    pub reports_dropped: AtomicU64,
    reports: mpsc::Sender<Report>,
}

/// How clients are treated, whatever they ask for.
#[derive(Debug)]
pub struct Manners {
    /// Bounds on clients.
    pub limits: Limits,
    /// What is added to messages, and what their fields may be called.
    pub headers: Headers,
    /// What is written down of each request.
    pub access_log: AccessLog,
    /// How paths are brought to one form.
    pub paths: PathRules,
    /// Proxies that are believed when they say for whom they ask.
    pub trusted_proxies: Vec<Network>,
    /// Knows where clients are.
    pub places: Option<GeoDatabase>,
    /// In which trusted proxies name the client's country.
    pub country_header: Option<HeaderName>,
}

impl Manners {
    /// What `config` says of them.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let Config { limits, headers, access_log, paths, .. } = config;
        Self {
            limits: limits.clone(),
            headers: headers.clone(),
            access_log: access_log.clone(),
            paths: *paths,
            trusted_proxies: config.trusted_proxies.clone(),
            places: config.geo.database.clone().and_then(GeoDatabase::new),
            country_header: config.geo.country_header.clone(),
        }
    }
}

/// What a worker tells control.
#[derive(Clone, Copy, Debug)]
pub enum Report {
    /// A request met a failure.
    Traffic {
        /// Whose.
        endpoint: EndpointId,
        /// Which.
        failure: Failure,
        /// When the try began.
        began: Instant,
    },
    /// An idle connection was closed by the endpoint.
    IdleClosed(EndpointId),
    /// The first, of a request that a drill took; the identity is that of the drill's director.
    LaneTraffic {
        /// Which drill.
        drill: u64,
        /// Whose.
        endpoint: EndpointId,
        /// Which.
        failure: Failure,
        /// When the try began.
        began: Instant,
    },
    /// The second, of a drill's connections.
    LaneIdleClosed {
        /// Which drill.
        drill: u64,
        /// Whose.
        endpoint: EndpointId,
    },
}

/// What control tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Accept on this listener too; a door may have several.
    Listen(Door),
    /// Accept there no more; running connections go on.
    Unlisten(SocketAddr),
    /// The verdict on the endpoint is down.
    Cut {
        /// Whose.
        endpoint: EndpointId,
        /// What becomes of the requests that wait for it.
        waiting: Waiting,
    },
    /// Nobody is to go to the endpoint any more, because an operator has said so.
    Drained {
        /// Which.
        endpoint: EndpointId,
        /// The time of what lasts there is up.
        is_over: bool,
    },
    /// As [`Command::Cut`], for the requests that a drill took.
    CutLane {
        /// Which drill.
        drill: u64,
        /// Whose.
        endpoint: EndpointId,
        /// What becomes of the requests that wait for it.
        waiting: Waiting,
    },
    /// The drill is over: what was not really sent goes where everybody goes. If something real came
    /// in between, so does all that may be sent again.
    EndLane {
        /// Which drill.
        drill: u64,
        /// Whether something real came in between.
        is_interrupted: bool,
    },
    /// Accept no more: another process does. Who asks for something is told that it was the last
    /// answer on that connection; who does not ask may stay until [`Command::Drain`].
    Leave,
    /// Accept no more, end connections after their running request, then end.
    Drain,
}

/// A client-facing listener, as one worker gets it.
#[derive(Debug)]
pub struct Door {
    /// The configured address: its name.
    pub name: SocketAddr,
    /// A handle to a socket that may be this worker's alone, or not.
    pub listener: TcpListener,
    /// Connections through this door, over all workers.
    pub connections: Arc<AtomicUsize>,
    /// How connections are taken from now on. Control alone stores it.
    pub front: Arc<ArcSwap<Front>>,
}

impl Shared {
    /// Shared state, and the end of the queue that control reads.
    #[must_use]
    pub fn new(manners: Manners) -> (Arc<Self>, mpsc::Receiver<Report>) {
        let (reports, receiver) = mpsc::channel(REPORTS);
        let shared = Self {
            // Times are counted from here, and zero means never: no event may fall on it.
            epoch: Instant::now() - Duration::from_millis(1),
            snapshot: Arc::default(),
            manners: Arc::new(ArcSwap::from_pointee(manners)),
            meters: Meters::default(),
            access: access::AccessLog::default(),
            #[cfg(feature = "otlp")]
            otlp: super::otlp::Exports::default(),
            rates: OnceLock::new(),
            secret: OnceLock::new(),
            inherited_secret: OnceLock::new(),
            descriptors: Arc::default(),
            pressure: Pressure::default(),
            reports_dropped: AtomicU64::new(0),
            reports,
        };
        (Arc::new(shared), receiver)
    }

    /// Tells control, or counts a drop if it has too much to hear already.
    /// Whether there was room.
    pub fn report(&self, report: Report) -> bool {
        let is_told = self.reports.try_send(report).is_ok();
        if !is_told {
            self.reports_dropped.fetch_add(1, Relaxed);
        }
        is_told
    }

    /// Makes ready what `routes` need. Workers only read.
    pub fn prepare(&self, routes: &[RouteSpec]) {
        for route in routes.iter().filter(|route| route.rate.is_some()) {
            self.rates.get_or_init(|| RateTable::new(RATES, RandomState::new()));
            let _ = self.meters.limited(&route.name);
        }
    }

    /// Has a secret for the pools of `config` that seal cookies and have none of their own.
    pub fn prepare_secret(&self, config: &Config) {
        let mut pools = config.topology.pools.iter();
        let wants = |pool: &Arc<PoolSpec>| matches!(pool.affinity.as_deref(), Some(Affinity::Cookie(one)) if one.secrets.is_none());
        if pools.any(wants) {
            let directory = config.state_dir.as_deref();
            self.secret.get_or_init(|| instance_secret(directory, self.inherited_secret.get()));
        }
    }

    /// Lets workers use what `config` leaves of the descriptors that are granted.
    pub fn allow_descriptors(&self, config: &Config) {
        let granted = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let granted = usize::try_from(granted).unwrap_or(usize::MAX);
        self.descriptors.allow(config.needs().left(granted));
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_micros() as u64
    }
}
