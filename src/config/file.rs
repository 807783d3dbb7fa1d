//! The file as it is written, and the only place where input is deserialized. Every key is optional
//! here: the checks report a missing key, because they know its place and what to write.
//!
//! The doc comments are the descriptions in the JSON Schema; their readers are operators.

mod action;
mod admin;
mod balance;
mod dns;
mod health;
mod listen;
mod located;
mod matching;
mod observe;
mod otlp;
mod practice;
mod probe;
mod route;
mod scalar;
mod steer;
mod text_or_table;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::Deserializer;

pub(super) use self::action::{Fallback, HeaderChanges, Mirror, Redirect, Respond, Rewrite, Share};
pub(super) use self::admin::{Admin, Status};
pub(super) use self::balance::{Affinity, Balance, HashKey};
pub(super) use self::dns::Dns;
pub(super) use self::health::{Correlate, Evict, ProbeBudget, Recover};
pub(super) use self::listen::{CertificateFiles, Listen, ListenTls, ProxyProtocol};
use self::located::TableShape;
pub(super) use self::located::{Entries, Located, LocatedTable};
pub(super) use self::matching::{Paths, ValueTest};
pub(super) use self::observe::{AccessLog, Ledger, Rate, Slo, SloLatency};
pub(super) use self::otlp::Otlp;
pub(super) use self::practice::Practice;
pub(super) use self::probe::{Degraded, JsonTest, Probe, Probes, Switch, Talk, Tls};
pub(super) use self::route::{Retry, Route, RouteLimits, Timeouts};
pub(super) use self::scalar::{
    AgeText, DeadlineText, DurationText, LimitText, MemoryLimitText, PercentText, Scalar, SizeText,
    StatusText, WholeNumber,
};
pub(super) use self::steer::{Capacity, Decimal, Geo, Region, Steer};
pub(super) use self::text_or_table::TextOrTable;

/// The configuration of one gapless instance.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "gapless configuration")]
pub(super) struct ConfigFile {
    /// The zone of this instance, as `region/zone`. Without it, the order of zones in the file is
    /// the preference.
    #[serde(rename = "self")]
    pub(super) here: Option<Located<String>>,
    /// Number of data-plane threads. Default: the number of cores that this process may use.
    pub(super) workers: Option<Located<WholeNumber>>,
    /// A directory for state that outlives the process. Default: no state is kept.
    pub(super) state_dir: Option<Located<String>>,
    /// How many incidents are kept, and for how long.
    pub(super) ledger: Option<LocatedTable<Ledger>>,
    /// The listener for operators: API, metrics and dashboard.
    pub(super) admin: Option<LocatedTable<Admin>>,
    /// A read-only listener for Prometheus, kubelets and load balancers, which may be reached from
    /// other machines. Default: none.
    pub(super) status: Option<LocatedTable<Status>>,
    /// Limits on clients, and on the memory of this process.
    pub(super) limits: Option<LocatedTable<Limits>>,
    /// The budget for probes, over all pools.
    pub(super) probes: Option<LocatedTable<ProbeBudget>>,
    /// How the names of endpoints are resolved.
    pub(super) dns: Option<LocatedTable<Dns>>,
    /// The steps of a stop, with their times.
    pub(super) shutdown: Option<LocatedTable<Shutdown>>,
    /// Header fields that are added to messages, and names of fields that are accepted.
    pub(super) headers: Option<LocatedTable<Headers>>,
    /// Networks of proxies in front of this one, such as `10.0.0.0/8`. The client address in their
    /// forwarding headers is trusted. Default: none.
    pub(super) trusted_proxies: Option<Vec<Located<String>>>,
    /// How the location of a client is determined, for pools that steer by it.
    pub(super) geo: Option<LocatedTable<Geo>>,
    /// One line for each request, written when the request ends.
    pub(super) access_log: Option<LocatedTable<AccessLog>>,
    /// Where spans of requests are exported to.
    pub(super) otlp: Option<LocatedTable<Otlp>>,
    /// How paths are normalised before they are matched and forwarded.
    pub(super) paths: Option<LocatedTable<Paths>>,
    /// Zones (`region/zone`) and regions that get no requests, in every pool.
    pub(super) evacuate: Option<Vec<Located<String>>>,
    /// Drills that run on a schedule.
    pub(super) practice: Option<Vec<LocatedTable<Practice>>>,
    /// The listeners that clients connect to.
    #[schemars(required, length(min = 1))]
    pub(super) listen: Option<Vec<LocatedTable<Listen>>>,
    /// Which requests go to which pool, in the order of the file.
    #[schemars(required, length(min = 1))]
    pub(super) route: Option<Vec<LocatedTable<Route>>>,
    /// The pools, by name: all endpoints, over all zones and regions, that can serve the same
    /// requests.
    #[schemars(required)]
    pub(super) pool: Option<Located<Entries<LocatedTable<Pool>>>>,
}

/// Limits on clients, and on the memory of this process.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Client connections at each listener, over all workers. Default: 10000.
    pub(super) connections: Option<Located<WholeNumber>>,
    /// Size of a request head (request line and header fields); at least 8 KiB. Default: 60 KiB.
    pub(super) header: Option<Located<SizeText>>,
    /// Header fields in a request. Default: 100.
    pub(super) header_count: Option<Located<WholeNumber>>,
    /// Time for a request head: from the opening of the connection, or on a reused connection from
    /// the first byte of the request, to the end of the head. Default: 10s.
    pub(super) header_timeout: Option<Located<DurationText>>,
    /// How long a connection without a request is kept open. Default: 5m.
    pub(super) idle_timeout: Option<Located<DurationText>>,
    /// Bytes of a request body that must arrive in a second, on average. A slower client may delay
    /// the body by the route's `timeouts.idle` in total. Streams of gRPC are exempt; `0B` switches
    /// the limit off. Default: 500B.
    pub(super) body_rate: Option<Located<SizeText>>,
    /// How long a client may read nothing of a response. Default: 60s.
    pub(super) write_timeout: Option<Located<DurationText>>,
    /// Memory that this process may use, or `unlimited`, or `system`: the limit of the control
    /// group, or 80 % of the machine's memory if that is less. At 92 % of it idle connections are
    /// closed, at 95 % new requests are answered 503, at 98 % no connections are accepted. Default:
    /// `system`.
    pub(super) memory: Option<Located<MemoryLimitText>>,
}

/// The steps of a stop, with their times.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Shutdown {
    /// Time between failing readiness and closing the listeners. Default: 0s.
    pub(super) lame_duck: Option<Located<DurationText>>,
    /// Time for running requests to end, after the listeners are closed. Default: 30s.
    pub(super) drain: Option<Located<DurationText>>,
    /// Time for the new process to become ready in an upgrade in place. Default: 30s.
    pub(super) upgrade_timeout: Option<Located<DurationText>>,
}

/// Header fields that are added to messages, and names of fields that are accepted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Headers {
    /// Add `x-gapless-endpoint` and `x-gapless-attempts` to responses. Default: false.
    pub(super) expose: Option<Located<bool>>,
    /// The pseudonym in `Via`; empty adds none. Default: `gapless`.
    pub(super) via: Option<Located<String>>,
    /// How header fields with `_` in their names are handled, which some applications treat as `-`:
    /// `reject` the request, `drop` the field, or `allow` it. Default: `reject`.
    #[schemars(extend("enum" = ["reject", "drop", "allow"]))]
    pub(super) underscores: Option<Located<String>>,
    /// Header fields with the client address for endpoints: `x-forwarded`, `forwarded` (RFC 7239),
    /// `both` or `off`. Values from the client are replaced, unless it is one of `trusted_proxies`.
    /// Default: `x-forwarded`.
    #[schemars(extend("enum" = ["x-forwarded", "forwarded", "both", "off"]))]
    pub(super) forwarded: Option<Located<String>>,
    /// Header fields about the client that endpoints receive from any peer, such as
    /// `x-forwarded-port`. The others of their family (`x-forwarded-*`, `x-real-ip`,
    /// `x-original-*`, `x-rewrite-*`, `x-gapless-*`) are removed, unless one of `trusted_proxies`
    /// sends them. Default: none.
    pub(super) pass: Option<Vec<Located<String>>>,
    /// Add an `x-request-id` to each request, for the endpoint, the access log and local replies;
    /// the id from a trusted proxy is kept. Default: true.
    pub(super) request_id: Option<Located<bool>>,
    /// Take part in traces (W3C Trace Context): update the parent in `traceparent`, or begin a
    /// trace. Otherwise the field passes unchanged. Default: false.
    pub(super) traceparent: Option<Located<bool>>,
}

/// The endpoints that can serve the same requests, and how they are probed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    /// How an endpoint is probed: one probe, or a list of them. Default: `{ tcp = true }`.
    pub(super) probe: Option<Located<Probes>>,
    /// The parameters of the detection window.
    pub(super) detect: Option<LocatedTable<Detect>>,
    /// When a request without a response becomes evidence.
    pub(super) stall: Option<LocatedTable<Stall>>,
    /// When a zone is down as a whole, by correlated failures.
    pub(super) correlate: Option<LocatedTable<Correlate>>,
    /// How endpoints and zones that were down return.
    pub(super) recover: Option<LocatedTable<Recover>>,
    /// How many endpoints may be down at once.
    pub(super) evict: Option<LocatedTable<Evict>>,
    /// The objectives of the pool, over all its routes.
    pub(super) slo: Option<LocatedTable<Slo>>,
    /// Serve from a new endpoint before its first pass. Default: false.
    pub(super) optimistic: Option<Located<bool>>,
    /// A rescued request answered later than this after its arrival counts as late.
    /// Default: 250ms.
    pub(super) late_after: Option<Located<DurationText>>,
    /// Limits on connections and requests.
    pub(super) limits: Option<LocatedTable<PoolLimits>>,
    /// Send requests over TLS: `true`, or a table with its options. Default: in cleartext.
    pub(super) tls: Option<Located<Switch<Tls>>>,
    /// The protocol to endpoints: `http1`; `http2` (in cleartext with prior knowledge); or `auto`
    /// (over TLS as the endpoint chooses, in cleartext HTTP/1.1). Default: `http1`.
    #[schemars(extend("enum" = ["http1", "http2", "auto"]))]
    pub(super) protocol: Option<Located<String>>,
    /// Begin each connection with the client's address, in version `v1` or `v2` of the PROXY
    /// protocol; a connection then serves one client connection only. Probes of the same address
    /// begin with a header without a client (`UNKNOWN` or `LOCAL`). Default: no header.
    #[schemars(extend("enum" = ["v1", "v2"]))]
    pub(super) proxy_protocol: Option<Located<String>>,
    /// How traffic is steered: a policy, or a table with further keys. Default: `nearest`.
    pub(super) steer: Option<Located<TextOrTable<Steer>>>,
    /// Capacity of an endpoint of weight 1; more traffic spills to other zones. Default: no limit.
    pub(super) capacity: Option<LocatedTable<Capacity>>,
    /// Settings of regions, by name.
    pub(super) region: Option<Entries<LocatedTable<Region>>>,
    /// How an endpoint is chosen among those that are equally near. Default: `least_requests`.
    pub(super) balance: Option<Located<TextOrTable<Balance>>>,
    /// How requests of a client stay with an endpoint. Default: no affinity.
    pub(super) affinity: Option<LocatedTable<Affinity>>,
    /// The zones with their endpoints.
    #[schemars(required, length(min = 1))]
    pub(super) zone: Option<Vec<LocatedTable<Zone>>>,
}

/// The parameters of the detection window.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Detect {
    /// Period of probes, from start to start, while an endpoint is up. Default: 1s.
    pub(super) interval: Option<Located<DurationText>>,
    /// A probe without a result after this time has failed. Default: 500ms.
    pub(super) timeout: Option<Located<DurationText>>,
    /// Period while an endpoint is suspect or coming back. Default: 100ms.
    pub(super) fast_interval: Option<Located<DurationText>>,
    /// Period while an endpoint is down. Default: 1s.
    pub(super) down_interval: Option<Located<DurationText>>,
    /// Strikes in a row that make a verdict down. Default: 2.
    pub(super) down_after: Option<Located<WholeNumber>>,
    /// Passes in a row that bring an endpoint back. Default: 2.
    pub(super) up_after: Option<Located<WholeNumber>>,
    /// While live traffic proves an endpoint healthy, its probes may be further apart, as long as
    /// the worst case of the detection window stays within this time. Default: the period never
    /// grows.
    pub(super) target: Option<Located<DurationText>>,
}

/// When a request without a response becomes evidence: after three times the pool's 99.9th
/// percentile of latency the endpoint is probed, after twelve times the 99th the request counts as
/// failed. Both times stay between these bounds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Stall {
    /// The shortest time. Default: 50ms.
    pub(super) floor: Option<Located<DurationText>>,
    /// The longest time. Default: 5s.
    pub(super) ceiling: Option<Located<DurationText>>,
}

/// Limits on connections and requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolLimits {
    /// Idle connections kept for reuse, per worker and endpoint. Default: 256.
    pub(super) idle_connections: Option<Located<WholeNumber>>,
    /// How long an idle connection is kept; keep it below the endpoint's own timeout.
    /// Default: 30s.
    pub(super) idle_timeout: Option<Located<DurationText>>,
    /// Largest response head that is accepted; at least 8 KiB. Default: 64 KiB.
    pub(super) response_head: Option<Located<SizeText>>,
    /// Limits of each endpoint, over all workers. At a limit, a request goes to another endpoint.
    pub(super) endpoint: Option<LocatedTable<Caps>>,
    /// Limits of all endpoints of the pool together, over all workers.
    pub(super) pool: Option<LocatedTable<Caps>>,
}

/// Circuit breakers: limits on concurrent connections and requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Caps {
    /// Open connections, including idle ones. Default: `unlimited`.
    pub(super) connections: Option<Located<LimitText>>,
    /// Requests in flight, including those that wait for a connection. Default: `unlimited`.
    pub(super) requests: Option<Located<LimitText>>,
    /// Requests that wait, for `timeouts.connect` at most, until one of `connections` is free.
    /// Default: `unlimited`.
    pub(super) pending: Option<Located<LimitText>>,
    /// Retries in flight: requests that were sent to another endpoint before. Default: `unlimited`.
    pub(super) retries: Option<Located<LimitText>>,
}

/// The endpoints of one pool in one zone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Zone {
    /// `region/zone`, unique in the pool.
    #[schemars(required)]
    pub(super) name: Option<Located<String>>,
    /// Addresses, or names that resolve to them; unique in the pool.
    #[schemars(required, length(min = 1))]
    pub(super) endpoints: Option<Vec<Located<Endpoint>>>,
    /// With the policy `weighted`: the relative share of the zone, 0 to 1000. Default: 1.
    pub(super) weight: Option<Located<WholeNumber>>,
    /// `active`: the zone serves together with all other active zones, before the rest. `standby`:
    /// it serves after all others. Default: by the policy.
    #[schemars(extend("enum" = ["active", "standby"]))]
    pub(super) role: Option<Located<String>>,
    /// Number of its endpoints that must be able to serve before the zone gets traffic, unless no
    /// other zone can serve. Default: 0.
    pub(super) min_capacity: Option<Located<WholeNumber>>,
    /// Capacity of the zone with all of its endpoints up; more traffic spills to other zones.
    /// Default: no limit.
    pub(super) capacity: Option<LocatedTable<Capacity>>,
    /// The zone gets no requests of this pool. Default: false.
    pub(super) drain: Option<Located<bool>>,
}

/// `IP:PORT`, or `NAME:PORT`, whose addresses (A and AAAA) are endpoints, or a table with further
/// keys.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(super) enum Endpoint {
    /// `IP:PORT` or `NAME:PORT`.
    Address(String),
    /// An address and its weight.
    Table(EndpointTable),
}

/// An endpoint with a weight.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointTable {
    /// `IP:PORT` or `NAME:PORT`. This or `srv` is required.
    pub(super) address: Option<Located<String>>,
    /// The name of a service, such as `_http._tcp.web.example`: the targets of its SRV records are
    /// endpoints. The targets of the best priority serve; the others join when all of those are
    /// down.
    pub(super) srv: Option<Located<String>>,
    /// Relative share of the zone's traffic, 1 to 1000. For a name, it is the share of each
    /// address; for `srv`, a factor for the weights of the records. Default: 1.
    pub(super) weight: Option<Located<WholeNumber>>,
    /// The endpoint gets no requests. Default: false.
    pub(super) drain: Option<Located<bool>>,
}

impl TableShape for Limits {}

impl TableShape for Shutdown {
    const EXPECTED: &str = "a table such as { drain = \"30s\" }";
}

impl TableShape for Headers {
    const EXPECTED: &str = "a table such as { expose = true }";
}

impl TableShape for Pool {}

impl TableShape for Detect {
    const EXPECTED: &str = "a table such as { interval = \"1s\" }";
}

impl TableShape for Stall {
    const EXPECTED: &str = "a table such as { floor = \"50ms\" }";
}

impl TableShape for PoolLimits {
    const EXPECTED: &str = "a table such as { idle_connections = 256 }";
}

impl TableShape for Caps {
    const EXPECTED: &str = "a table such as { requests = 1000 }";
}

impl TableShape for Zone {
    const EXPECTED: &str = "a table with `name` and `endpoints`";
}

impl TableShape for EndpointTable {
    const EXPECTED: &str = "an address such as \"10.0.1.11:9000\"";
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match TextOrTable::deserialize(deserializer)? {
            TextOrTable::Text(address) => Self::Address(address),
            TextOrTable::Table(table) => Self::Table(table),
        })
    }
}
