//! The checked configuration: no optionals where a default exists.

mod otlp;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::logic::discovery::{
    self, DiscoveryEntry, LookupPolicy, MAX_LOOKUPS_IN_FLIGHT, PLACEHOLDERS_PER_NAME,
};
use crate::logic::drill::PracticeSchedule;
use crate::logic::model::network::Network;
use crate::logic::model::server_tls::ServerTls;
use crate::logic::model::topology::{PoolSpec, Topology};
use crate::logic::overload::descriptor_pool::DescriptorDemand;
use crate::logic::routing::{PathNormalisation, RouteSpec};

pub use self::otlp::{OtlpConfig, TraceSampling};

/// A whole configuration that has passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect; never empty.
    pub listeners: Vec<ListenerSpec>,
    /// Data-plane threads; at least 1.
    pub workers: usize,
    /// Where state that outlives the process is kept.
    pub state_dir: Option<PathBuf>,
    /// How much of the past is kept.
    pub ledger: LedgerRetention,
    pub admin: AdminConfig,
    pub limits: ServerLimits,
    /// How a stop goes.
    pub shutdown: ShutdownConfig,
    /// What may be added to messages, and what their fields may be called.
    pub headers: HeaderPolicy,
    /// What is written down of each request.
    pub access_log: AccessLogConfig,
    /// Where spans of requests go; always `None` without the feature `otlp`.
    pub otlp: Option<OtlpConfig>,
    /// How paths are brought to one form.
    pub paths: PathNormalisation,
    /// How it is known where clients are.
    pub geo: GeoConfig,
    /// Proxies that are believed when they say for whom they ask.
    pub trusted_proxies: Vec<Network>,
    /// Routes in the order of the file; never empty.
    pub routes: Vec<RouteSpec>,
    /// Pools, and where this instance stands. Zones whose endpoints are found by name may have none yet.
    pub topology: Topology,
    /// Endpoints that are found by name.
    pub dns: DnsConfig,
    /// Drills that are run by themselves.
    pub practice: Vec<PracticeSchedule>,
}

impl Config {
    /// The same with made-up endpoints in place of what names lead to, for whoever looks nothing up.
    pub fn with_placeholder_endpoints(&self) -> Self {
        let topology = discovery::with_placeholder_endpoints(&self.topology, &self.dns.entries);
        Self { topology, ..self.clone() }
    }

    /// What it needs descriptors for, besides connections of clients and to endpoints.
    pub fn descriptor_needs(&self) -> DescriptorDemand {
        let pools = self.topology.pools.iter().map(|pool| &**pool);
        descriptor_needs(self.workers, self.listeners.len(), pools, &self.dns.entries)
    }
}

/// What such a configuration needs descriptors for.
pub(super) fn descriptor_needs<'p>(
    workers: usize,
    listeners: usize,
    pools: impl Iterator<Item = &'p PoolSpec>,
    dns_entries: &[DiscoveryEntry],
) -> DescriptorDemand {
    // Before it is known what a name leads to, it is taken for a few.
    let pending = |pool: &PoolSpec| dns_entries.iter().filter(|one| one.pool == pool.name).count();
    let endpoints = |pool: &PoolSpec| {
        let resolved = pool.zones.iter().map(|zone| zone.endpoints.len()).sum::<usize>();
        resolved.max(pending(pool) * PLACEHOLDERS_PER_NAME)
    };
    let probes: usize = pools.map(|pool| endpoints(pool) * pool.probes.len()).sum();
    // Addresses of both families are asked for.
    let lookups = (2 * dns_entries.len()).min(MAX_LOOKUPS_IN_FLIGHT);
    DescriptorDemand { workers, listeners, max_concurrent_probes: probes + lookups }
}

/// Names that lead to endpoints, and how they are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// Who is asked; absent, those that the system names. Never empty.
    pub servers: Option<Vec<SocketAddr>>,
    /// An answer must be there by then.
    pub timeout: Duration,
    /// When names are looked up, and what is believed.
    pub policy: LookupPolicy,
    pub entries: Vec<DiscoveryEntry>,
}

/// How it is known where clients are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GeoConfig {
    /// The bytes of a database in MaxMind's format.
    pub database: Option<Arc<[u8]>>,
    /// A header in which trusted proxies name the client's country; it wins.
    pub country_header: Option<HeaderName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Port 0 takes any free port.
    pub address: SocketAddr,
    /// Whether HTTP/2 is served too.
    pub has_http2: bool,
    /// How TLS is spoken; absent, all is cleartext.
    pub tls: Option<Arc<ServerTls>>,
    /// The proxies that connect here, and say for whom; absent, clients connect themselves.
    pub proxy_protocol: Option<Arc<[Network]>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Loopback only; port 0 takes any free port; absent switches it off.
    pub address: Option<SocketAddr>,
}

/// How many incidents are kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerRetention {
    /// What has been over for longer is forgotten.
    pub retention: Duration,
    /// The oldest are forgotten beyond this many.
    pub max_incidents: usize,
}

impl Default for LedgerRetention {
    fn default() -> Self {
        Self { retention: Duration::from_hours(90 * 24), max_incidents: 10_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
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
    pub min_body_rate_bytes: u64,
    /// A client that takes nothing of a response for this long is cut.
    pub write_timeout: Duration,
    /// What this process may use.
    pub memory: MemoryLimit,
}

/// How much memory may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryLimit {
    /// As much as the control group allows, and no more than most of the machine's.
    #[default]
    System,
    Bytes(u64),
    Unlimited,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_bytes: 60 * 1024,
            header_count: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(5),
            min_body_rate_bytes: 500,
            write_timeout: Duration::from_secs(60),
            memory: MemoryLimit::System,
        }
    }
}

/// How a stop goes: readiness fails, new connections still served for `lame_duck`, then no new
/// ones, and running requests have until `drain` to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// Time between failing readiness and closing the listeners.
    pub lame_duck: Duration,
    /// Time that running requests have after that.
    pub drain: Duration,
    /// Time that a process has to take over from this one.
    pub upgrade_timeout: Duration,
}

impl Default for ShutdownConfig {
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
pub struct HeaderPolicy {
    /// Add `x-gapless-endpoint` and `x-gapless-attempts` to responses.
    pub should_expose: bool,
    /// The pseudonym in `Via`; empty adds none.
    pub via_pseudonym: String,
    /// What becomes of fields of requests with `_` in their names.
    pub underscores: UnderscorePolicy,
    /// How endpoints are told for whom they are asked, and which fields of trusted proxies are
    /// believed.
    pub forwarded: ForwardedHeaders,
    /// Give each request an `x-request-id`.
    pub should_set_request_id: bool,
    /// Take part in traces: a new parent in `traceparent`.
    pub should_set_traceparent: bool,
    /// Spans are exported: the share of them where a trace begins here.
    pub sampling: Option<TraceSampling>,
}

/// What becomes of header fields with `_` in their names: applications may take it for `-`, and so
/// for a field that they trust.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnderscorePolicy {
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
pub enum ForwardedHeaders {
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

impl Default for HeaderPolicy {
    fn default() -> Self {
        Self {
            should_expose: false,
            via_pseudonym: "gapless".to_owned(),
            underscores: UnderscorePolicy::default(),
            forwarded: ForwardedHeaders::default(),
            should_set_request_id: true,
            should_set_traceparent: false,
            sampling: None,
        }
    }
}

/// What is written down of each request, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    pub target: AccessLogTarget,
    pub format: AccessLogFormat,
    /// Write the names of a query's parts without their values.
    pub should_redact_query: bool,
    /// Fields of the request that are written too, in their order.
    pub headers: Vec<HeaderName>,
}

impl AccessLogConfig {
    /// Whether anything is written at all.
    pub fn is_on(&self) -> bool {
        self.target != AccessLogTarget::Off
    }
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self {
            target: AccessLogTarget::Off,
            format: AccessLogFormat::Json,
            should_redact_query: true,
            headers: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTarget {
    #[default]
    Off,
    Stdout,
    /// To the end of this file.
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object each.
    Json,
    /// The combined format of Apache and nginx.
    Combined,
}
