//! The checked configuration: a value with a default is never optional.

mod admin;
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

pub use self::admin::{AdminConfig, AdminToken, StatusConfig};
pub use self::otlp::{OtlpConfig, TraceSampling};

/// A configuration that has passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The listeners for clients; never empty.
    pub listeners: Vec<ListenerSpec>,
    /// The number of data-plane threads; at least 1.
    pub workers: usize,
    /// The directory for state that outlives the process.
    pub state_dir: Option<PathBuf>,
    /// Retention of incidents in the ledger.
    pub ledger: LedgerRetention,
    pub admin: AdminConfig,
    pub status: StatusConfig,
    pub limits: ServerLimits,
    /// The steps of a stop, with their times.
    pub shutdown: ShutdownConfig,
    /// Header fields that are added, and names of fields that are accepted.
    pub headers: HeaderPolicy,
    /// The log line of each request.
    pub access_log: AccessLogConfig,
    /// The export of spans; always `None` without the feature `otlp`.
    pub otlp: Option<OtlpConfig>,
    /// The normalisation of paths.
    pub paths: PathNormalisation,
    /// How the location of a client is determined.
    pub geo: GeoConfig,
    /// Networks of proxies whose forwarding headers are trusted.
    pub trusted_proxies: Vec<Network>,
    /// Routes in the order of the file; never empty.
    pub routes: Vec<RouteSpec>,
    /// The pools, and the zone of this instance. A zone whose endpoints are resolved from names may
    /// have none yet.
    pub topology: Topology,
    /// Endpoints that are resolved from names.
    pub dns: DnsConfig,
    /// Drills that run on a schedule.
    pub practice: Vec<PracticeSchedule>,
}

impl Config {
    /// The same configuration with placeholder endpoints for names, for commands that resolve
    /// nothing.
    pub fn with_placeholder_endpoints(&self) -> Self {
        let topology = discovery::with_placeholder_endpoints(&self.topology, &self.dns.entries);
        Self { topology, ..self.clone() }
    }

    /// The descriptors that this configuration needs besides connections of clients and to
    /// endpoints.
    pub fn descriptor_needs(&self) -> DescriptorDemand {
        let pools = self.topology.pools.iter().map(|pool| &**pool);
        DescriptorDemand {
            workers: self.workers,
            listeners: self.listeners.len(),
            max_concurrent_probes: max_concurrent_probes(pools, &self.dns.entries),
            has_status: self.status.address.is_some(),
        }
    }
}

/// Probes and DNS lookups that can run at once.
pub(super) fn max_concurrent_probes<'p>(
    pools: impl Iterator<Item = &'p PoolSpec>,
    dns_entries: &[DiscoveryEntry],
) -> usize {
    // A name that is not resolved yet counts as a few endpoints.
    let pending = |pool: &PoolSpec| dns_entries.iter().filter(|one| one.pool == pool.name).count();
    let endpoints = |pool: &PoolSpec| {
        let resolved = pool.zones.iter().map(|zone| zone.endpoints.len()).sum::<usize>();
        resolved.max(pending(pool) * PLACEHOLDERS_PER_NAME)
    };
    let probes: usize = pools.map(|pool| endpoints(pool) * pool.probes.len()).sum();
    // Each name is queried for addresses of both families.
    let lookups = (2 * dns_entries.len()).min(MAX_LOOKUPS_IN_FLIGHT);
    probes + lookups
}

/// Names that resolve to endpoints, and how they are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The DNS servers, never empty; `None` means those of the system.
    pub servers: Option<Vec<SocketAddr>>,
    /// The time limit of a lookup.
    pub timeout: Duration,
    /// When names are looked up, and which answers are accepted.
    pub policy: LookupPolicy,
    pub entries: Vec<DiscoveryEntry>,
}

/// How the location of a client is determined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GeoConfig {
    /// The content of a database in MaxMind's format.
    pub database: Option<Arc<[u8]>>,
    /// A header field in which trusted proxies send the client's country; it overrides the
    /// database.
    pub country_header: Option<HeaderName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// The address; port 0 stands for any free port.
    pub address: SocketAddr,
    /// Whether HTTP/2 is served besides HTTP/1.1.
    pub has_http2: bool,
    /// TLS settings; `None` means cleartext.
    pub tls: Option<Arc<ServerTls>>,
    /// The proxies that must send PROXY headers; `None` means that clients connect directly.
    pub proxy_protocol: Option<ProxyProtocolSpec>,
}

/// The PROXY headers that a listener accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocolSpec {
    /// The networks of the proxies.
    pub from: Arc<[Network]>,
    /// Bound of the part of a version 2 header that holds addresses and TLVs, in bytes.
    pub max_bytes: usize,
}

/// Retention of incidents in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerRetention {
    /// Incidents that ended earlier are deleted.
    pub retention: Duration,
    /// Beyond this number the oldest incidents are deleted.
    pub max_incidents: usize,
}

impl Default for LedgerRetention {
    fn default() -> Self {
        Self { retention: Duration::from_hours(90 * 24), max_incidents: 10_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Client connections at each listener, over all workers.
    pub connections: usize,
    /// Largest request head (request line and header fields).
    pub header_bytes: usize,
    /// The most header fields in a request.
    pub header_count: usize,
    /// Time for a request head: from the opening of the connection, or on a reused connection from
    /// the first byte of the request.
    pub header_timeout: Duration,
    /// A connection without a request for this long is closed.
    pub idle_timeout: Duration,
    /// The least bytes of a request body per second, on average; zero switches the limit off.
    pub min_body_rate_bytes: u64,
    /// The connection of a client that reads nothing of a response for this long is closed.
    pub write_timeout: Duration,
    /// The memory limit of this process.
    pub memory: MemoryLimit,
}

/// The source of the memory limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryLimit {
    /// The limit of the control group, or 80 % of the machine's memory if that is less.
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

/// The steps of a stop: readiness fails while new connections are served for `lame_duck`; then the
/// listeners close, and running requests have `drain` to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// Time between the failure of readiness and the closing of the listeners.
    pub lame_duck: Duration,
    /// Time for running requests to end after that.
    pub drain: Duration,
    /// Time for a new process to take over from this one.
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

/// Header fields that the proxy adds, and names of fields that it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPolicy {
    /// Add `x-gapless-endpoint` and `x-gapless-attempts` to responses.
    pub should_expose: bool,
    /// The pseudonym in `Via`; empty adds none.
    pub via_pseudonym: String,
    /// How request fields with `_` in their names are handled.
    pub underscores: UnderscorePolicy,
    /// The fields that carry the client's address to endpoints, and that are trusted from proxies.
    pub forwarded: ForwardedHeaders,
    /// Fields about the client that endpoints receive from any peer. Others of their family are
    /// removed unless a trusted proxy sends them.
    pub passed_fields: Vec<HeaderName>,
    /// Add an `x-request-id` to each request.
    pub should_set_request_id: bool,
    /// Take part in traces: set a new parent in `traceparent`.
    pub should_set_traceparent: bool,
    /// The share of exported traces among those that begin here; `None` if spans are not exported.
    pub sampling: Option<TraceSampling>,
}

/// How header fields with `_` in their names are handled: an application may treat `_` as `-` and
/// take the field for a trusted one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnderscorePolicy {
    /// The request is rejected with 400.
    #[default]
    Reject,
    /// The fields are removed.
    Drop,
    /// The fields are forwarded.
    Allow,
}

/// The fields that carry the address of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeaders {
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    /// Both kinds; those that begin with `X` are trusted.
    Both,
    /// No field is sent; those that begin with `X` are trusted.
    Off,
}

impl Default for HeaderPolicy {
    fn default() -> Self {
        Self {
            should_expose: false,
            via_pseudonym: "gapless".to_owned(),
            underscores: UnderscorePolicy::default(),
            forwarded: ForwardedHeaders::default(),
            passed_fields: Vec::new(),
            should_set_request_id: true,
            should_set_traceparent: false,
            sampling: None,
        }
    }
}

/// The access log: its target, format and fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    pub target: AccessLogTarget,
    pub format: AccessLogFormat,
    /// Write the names of query parameters without their values.
    pub should_redact_query: bool,
    /// Request fields that are added to a line, in this order.
    pub headers: Vec<HeaderName>,
}

impl AccessLogConfig {
    /// Whether lines are written at all.
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
    /// Appended to this file.
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object per line.
    Json,
    /// The combined format of Apache and nginx.
    Combined,
}
