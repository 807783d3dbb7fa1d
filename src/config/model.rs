//! The checked configuration: no optionals where a default exists.

mod otlp;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::logic::descriptors::Needs;
use crate::logic::discovery::{self, Entry, Policy, STAND_INS, UNDER_WAY};
use crate::logic::drill::Practice;
use crate::logic::front::ServerTls;
use crate::logic::network::Network;
use crate::logic::route::{PathRules, RouteSpec};
use crate::logic::topology::{PoolSpec, Topology};

pub use self::otlp::{Otlp, Sampling};

/// A whole configuration that has passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect; never empty.
    pub listen: Vec<Listen>,
    /// Data-plane threads; at least 1.
    pub workers: usize,
    /// Where state that outlives the process is kept.
    pub state_dir: Option<PathBuf>,
    /// How much of the past is kept.
    pub ledger: LedgerBounds,
    /// The operator's listener.
    pub admin: Admin,
    /// Bounds on clients.
    pub limits: Limits,
    /// How a stop goes.
    pub shutdown: Shutdown,
    /// What may be added to messages, and what their fields may be called.
    pub headers: Headers,
    /// What is written down of each request.
    pub access_log: AccessLog,
    /// Where spans of requests go; always `None` without the feature `otlp`.
    pub otlp: Option<Otlp>,
    /// How paths are brought to one form.
    pub paths: PathRules,
    /// How it is known where clients are.
    pub geo: Geo,
    /// Proxies that are believed when they say for whom they ask.
    pub trusted_proxies: Vec<Network>,
    /// Routes in the order of the file; never empty.
    pub routes: Vec<RouteSpec>,
    /// Pools, and where this instance stands. Zones whose endpoints are found by name may have none yet.
    pub topology: Topology,
    /// Endpoints that are found by name.
    pub dns: Dns,
    /// Drills that are run by themselves.
    pub practice: Vec<Practice>,
}

impl Config {
    /// The same with made-up endpoints in place of what names lead to, for whoever looks nothing up.
    #[must_use]
    pub fn with_stand_ins(&self) -> Self {
        let topology = discovery::with_stand_ins(&self.topology, &self.dns.entries);
        Self { topology, ..self.clone() }
    }

    /// What it needs descriptors for, besides connections of clients and to endpoints.
    #[must_use]
    pub fn needs(&self) -> Needs {
        let pools = self.topology.pools.iter().map(|pool| &**pool);
        needs(self.workers, self.listen.len(), pools, &self.dns.entries)
    }
}

/// What such a configuration needs descriptors for.
pub(super) fn needs<'p>(
    workers: usize,
    listeners: usize,
    pools: impl Iterator<Item = &'p PoolSpec>,
    names: &[Entry],
) -> Needs {
    // Before it is known what a name leads to, it is taken for a few.
    let expected = |pool: &PoolSpec| names.iter().filter(|one| one.pool == pool.name).count();
    let endpoints = |pool: &PoolSpec| {
        let known = pool.zones.iter().map(|zone| zone.endpoints.len()).sum::<usize>();
        known.max(expected(pool) * STAND_INS)
    };
    let probes: usize = pools.map(|pool| endpoints(pool) * pool.probes.len()).sum();
    // Addresses of both families are asked for.
    let lookups = (2 * names.len()).min(UNDER_WAY);
    Needs { workers, listeners, probes: probes + lookups }
}

/// Names that lead to endpoints, and how they are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Who is asked; absent, those that the system names. Never empty.
    pub servers: Option<Vec<SocketAddr>>,
    /// An answer must be there by then.
    pub timeout: Duration,
    /// When names are looked up, and what is believed.
    pub policy: Policy,
    /// The names.
    pub entries: Vec<Entry>,
}

/// How it is known where clients are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Geo {
    /// The bytes of a database in MaxMind's format.
    pub database: Option<Arc<[u8]>>,
    /// A header in which trusted proxies name the client's country; it wins.
    pub country_header: Option<HeaderName>,
}

/// One client-facing listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Port 0 takes any free port.
    pub address: SocketAddr,
    /// Whether HTTP/2 is served too.
    pub http2: bool,
    /// How TLS is spoken; absent, all is cleartext.
    pub tls: Option<Arc<ServerTls>>,
    /// The proxies that connect here, and say for whom; absent, clients connect themselves.
    pub proxy_protocol: Option<Arc<[Network]>>,
}

/// The operator's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Loopback only; port 0 takes any free port; absent switches it off.
    pub address: Option<SocketAddr>,
}

/// How many incidents are kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerBounds {
    /// What has been over for longer is forgotten.
    pub keep: Duration,
    /// The oldest are forgotten beyond this many.
    pub at_most: usize,
}

impl Default for LedgerBounds {
    fn default() -> Self {
        Self { keep: Duration::from_hours(90 * 24), at_most: 10_000 }
    }
}

/// Bounds on clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections, per listener and over all workers.
    pub connections: usize,
    /// Request head in bytes, line and headers together.
    pub header_bytes: usize,
    /// Header fields in a request.
    pub header_count: usize,
    /// From the opening of a connection, or a request's first byte on one that was used before, to the
    /// end of the request's head.
    pub header_timeout: Duration,
    /// A connection on which nothing is asked for this long is closed.
    pub idle_timeout: Duration,
    /// Bytes of a request's body in a second, at least; zero is no bound.
    pub body_rate: u64,
    /// A client that takes nothing of a response for this long is cut.
    pub write_timeout: Duration,
    /// What this process may use.
    pub memory: Memory,
}

/// How much memory may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// As much as the control group allows, and no more than most of the machine's.
    #[default]
    System,
    /// So many bytes.
    Bytes(u64),
    /// Nobody minds.
    Unlimited,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_bytes: 60 * 1024,
            header_count: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(5),
            body_rate: 500,
            write_timeout: Duration::from_secs(60),
            memory: Memory::System,
        }
    }
}

/// How a stop goes: readiness fails, new connections still served for `lame_duck`, then no new
/// ones, and running requests have until `drain` to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Time between failing readiness and closing the listeners.
    pub lame_duck: Duration,
    /// Time that running requests have after that.
    pub drain: Duration,
    /// Time that a process has to take over from this one.
    pub upgrade_timeout: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            lame_duck: Duration::ZERO,
            drain: Duration::from_secs(30),
            upgrade_timeout: Duration::from_secs(30),
        }
    }
}

/// What the proxy may add to messages, and what their header fields may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Add `x-gapless-endpoint` and `x-gapless-attempts` to responses.
    pub expose: bool,
    /// The pseudonym in `Via`; empty adds none.
    pub via: String,
    /// What becomes of fields of requests with `_` in their names.
    pub underscores: Underscores,
    /// How endpoints are told for whom they are asked, and which fields of trusted proxies are
    /// believed.
    pub forwarded: Forwarded,
    /// Give each request an `x-request-id`.
    pub request_id: bool,
    /// Take part in traces: a new parent in `traceparent`.
    pub traceparent: bool,
    /// Spans are exported: the share of them where a trace begins here.
    pub sampling: Option<Sampling>,
}

/// What becomes of header fields with `_` in their names: applications may take it for `-`, and so
/// for a field that they trust.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// The request is refused.
    #[default]
    Reject,
    /// They are left out.
    Drop,
    /// They are passed on.
    Allow,
}

/// The fields that say for whom a proxy asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarded {
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    /// All of them; those that begin with `X` are believed.
    Both,
    /// None; those that begin with `X` are believed.
    Off,
}

impl Default for Headers {
    fn default() -> Self {
        Self {
            expose: false,
            via: "gapless".to_owned(),
            underscores: Underscores::default(),
            forwarded: Forwarded::default(),
            request_id: true,
            traceparent: false,
            sampling: None,
        }
    }
}

/// What is written down of each request, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where lines go.
    pub to: LogTarget,
    /// How lines look.
    pub lines: LogLines,
    /// Write the names of a query's parts without their values.
    pub redact_query: bool,
    /// Fields of the request that are written too, in their order.
    pub headers: Vec<HeaderName>,
}

impl AccessLog {
    /// Whether anything is written at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.to != LogTarget::Off
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { to: LogTarget::Off, lines: LogLines::Json, redact_query: true, headers: Vec::new() }
    }
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// To the end of this file.
    File(PathBuf),
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLines {
    /// One JSON object each.
    Json,
    /// The combined format of Apache and nginx.
    Combined,
}
