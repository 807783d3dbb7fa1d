//! The file as it is written: the only place where input is deserialized. Everything is optional
//! here, because what is missing is said by the checks, which know where and how to mend it.
//!
//! The doc comments are the descriptions in the JSON Schema, so they speak to operators.

mod action;
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
    /// Where this instance stands, as `region/zone`. Absent, the listed order of zones is the
    /// preference.
    #[serde(rename = "self")]
    pub(super) here: Option<Located<String>>,
    /// Data-plane threads. Default: the cores that this process may use.
    pub(super) workers: Option<Located<WholeNumber>>,
    /// A directory for state that outlives the process. Default: none is kept.
    pub(super) state_dir: Option<Located<String>>,
    /// How much of the past is kept.
    pub(super) ledger: Option<LocatedTable<Ledger>>,
    /// The operator's listener.
    pub(super) admin: Option<LocatedTable<Admin>>,
    /// Bounds on clients.
    pub(super) limits: Option<LocatedTable<Limits>>,
    /// How this instance probes, over all pools.
    pub(super) probes: Option<LocatedTable<ProbeBudget>>,
    /// How names of endpoints are looked up.
    pub(super) dns: Option<LocatedTable<Dns>>,
    /// How a stop goes.
    pub(super) shutdown: Option<LocatedTable<Shutdown>>,
    /// What may be added to messages, and what their header fields may be called.
    pub(super) headers: Option<LocatedTable<Headers>>,
    /// Proxies in front of this one that are believed when they say for whom they ask: networks
    /// such as `10.0.0.0/8`. Default: none.
    pub(super) trusted_proxies: Option<Vec<Located<String>>>,
    /// How it is known where clients are, for pools that are led by that.
    pub(super) geo: Option<LocatedTable<Geo>>,
    /// One line for each request, written when it is over.
    pub(super) access_log: Option<LocatedTable<AccessLog>>,
    /// Where spans of requests go.
    pub(super) otlp: Option<LocatedTable<Otlp>>,
    /// How paths are brought to the one form in which they are matched and forwarded.
    pub(super) paths: Option<LocatedTable<Paths>>,
    /// Zones (`region/zone`) and regions that are to get no requests, in every pool.
    pub(super) evacuate: Option<Vec<Located<String>>>,
    /// Drills that are run by themselves.
    pub(super) practice: Option<Vec<LocatedTable<Practice>>>,
    /// Where clients connect.
    #[schemars(required, length(min = 1))]
    pub(super) listen: Option<Vec<LocatedTable<Listen>>>,
    /// Which requests go to which pool.
    #[schemars(required, length(min = 1))]
    pub(super) route: Option<Vec<LocatedTable<Route>>>,
    /// The endpoints, over all zones and regions, that can serve the same request; by name.
    #[schemars(required)]
    pub(super) pool: Option<Located<Entries<LocatedTable<Pool>>>>,
}

/// The operator's listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    /// `IP:PORT` on loopback, or `off`. Default: `127.0.0.1:9900`.
    pub(super) address: Option<Located<String>>,
}

/// Bounds on clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Client connections, per listener and over all workers. Default: 10000.
    pub(super) connections: Option<Located<WholeNumber>>,
    /// Size of a request head, line and headers together; at least 8 KiB. Default: 60 KiB.
    pub(super) header: Option<Located<SizeText>>,
    /// Header fields in a request. Default: 100.
    pub(super) header_count: Option<Located<WholeNumber>>,
    /// From the opening of a connection, or a request's first byte on one that was used before, to
    /// the end of the request's head. Default: 10s.
    pub(super) header_timeout: Option<Located<DurationText>>,
    /// How long a connection is kept on which nothing is asked. Default: 5m.
    pub(super) idle_timeout: Option<Located<DurationText>>,
    /// Bytes of a request's body that must come in a second, on average: who brings less may keep us
    /// waiting for the route's `timeouts.idle` in all. Streams of gRPC are not bound by it; `0B` binds
    /// nobody. Default: 500B.
    pub(super) body_rate: Option<Located<SizeText>>,
    /// How long a client may take nothing of a response. Default "60s".
    pub(super) write_timeout: Option<Located<DurationText>>,
    /// Memory that this process may use, or `unlimited`, or `system`: the bound of the control group, or
    /// 80 % of the machine's memory if that is less. At 92 % of it idle connections are closed, at 95 %
    /// new requests are answered 503, at 98 % no connections are accepted. Default: `system`.
    pub(super) memory: Option<Located<MemoryLimitText>>,
}

/// How a stop goes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Shutdown {
    /// Time between failing readiness and closing the listeners. Default: 0s.
    pub(super) lame_duck: Option<Located<DurationText>>,
    /// Time that running requests have after that. Default: 30s.
    pub(super) drain: Option<Located<DurationText>>,
    /// At an upgrade in place: time in which the new process must be ready to take over. Default:
    /// 30s.
    pub(super) upgrade_timeout: Option<Located<DurationText>>,
}

/// What may be added to messages, and what their header fields may be called.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Headers {
    /// Add `x-gapless-endpoint` and `x-gapless-attempts` to responses. Default: false.
    pub(super) expose: Option<Located<bool>>,
    /// The pseudonym in `Via`; empty adds none. Default: `gapless`.
    pub(super) via: Option<Located<String>>,
    /// What becomes of header fields with `_` in their names, which some take for `-`: `reject` the
    /// request, `drop` the field, or `allow` it. Default: `reject`.
    pub(super) underscores: Option<Located<String>>,
    /// How endpoints are told for whom they are asked: `x-forwarded`, `forwarded` (RFC 7239),
    /// `both` or `off`. What clients have put there is replaced, unless they are
    /// `trusted_proxies`. Default: `x-forwarded`.
    pub(super) forwarded: Option<Located<String>>,
    /// Give each request an `x-request-id`, for the endpoint, the access log and answers of the
    /// proxy's own; that of a trusted proxy is kept. Default: true.
    pub(super) request_id: Option<Located<bool>>,
    /// Take part in traces (W3C Trace Context): give `traceparent` a new parent, or begin it.
    /// Otherwise it passes as it is. Default: false.
    pub(super) traceparent: Option<Located<bool>>,
}

/// The endpoints that can serve the same request, and how they are watched.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    /// How an endpoint is probed: one probe, or a list of them. Default: `{ tcp = true }`.
    pub(super) probe: Option<Located<Probes>>,
    /// The parameters of the detection window.
    pub(super) detect: Option<LocatedTable<Detect>>,
    /// When a request that waits for its answer becomes evidence.
    pub(super) stall: Option<LocatedTable<Stall>>,
    /// When a zone is down as a whole.
    pub(super) correlate: Option<LocatedTable<Correlate>>,
    /// How what was down comes back.
    pub(super) recover: Option<LocatedTable<Recover>>,
    /// How much may be down at once.
    pub(super) evict: Option<LocatedTable<Evict>>,
    /// What is promised of the pool, over all its routes.
    pub(super) slo: Option<LocatedTable<Slo>>,
    /// Serve from a new endpoint before its first pass. Default: false.
    pub(super) optimistic: Option<Located<bool>>,
    /// A rescued request answered later than this after its arrival counts as late.
    /// Default: 250ms.
    pub(super) late_after: Option<Located<DurationText>>,
    /// Bounds on what is kept and under way.
    pub(super) limits: Option<LocatedTable<PoolLimits>>,
    /// Send requests over TLS: `true`, or a table with its options. Default: in cleartext.
    pub(super) tls: Option<Located<Switch<Tls>>>,
    /// What requests are sent over: `http1`; `http2`, in cleartext with prior knowledge; or `auto`,
    /// over TLS what the endpoint chooses, in cleartext HTTP/1.1. Default: `http1`.
    pub(super) protocol: Option<Located<String>>,
    /// Begin each connection with the client's address, in version `v1` or `v2` of the PROXY
    /// protocol; a connection then serves one client's connection only. Probes of the same address
    /// begin with a header that speaks for nobody. Default: do not.
    pub(super) proxy_protocol: Option<Located<String>>,
    /// How traffic is led: a policy, or a table that says more. Default: `nearest`.
    pub(super) steer: Option<Located<TextOrTable<Steer>>>,
    /// What an endpoint of weight 1 can take before traffic spills to others. Default: no bound.
    pub(super) capacity: Option<LocatedTable<Capacity>>,
    /// What is said of a region, by its name.
    pub(super) region: Option<Entries<LocatedTable<Region>>>,
    /// How an endpoint is chosen among those that are equally near. Default: `least_requests`.
    pub(super) balance: Option<Located<TextOrTable<Balance>>>,
    /// By what requests stay with an endpoint. Default: they do not.
    pub(super) affinity: Option<LocatedTable<Affinity>>,
    /// The zones that the endpoints stand in.
    #[schemars(required, length(min = 1))]
    pub(super) zone: Option<Vec<LocatedTable<Zone>>>,
}

/// The parameters of the detection window.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Detect {
    /// Period of probes, start to start, of an endpoint that is up. Default: 1s.
    pub(super) interval: Option<Located<DurationText>>,
    /// A probe that took this long has failed. Default: 500ms.
    pub(super) timeout: Option<Located<DurationText>>,
    /// Period while an endpoint is suspect or coming back. Default: 100ms.
    pub(super) fast_interval: Option<Located<DurationText>>,
    /// Period while an endpoint is down. Default: 1s.
    pub(super) down_interval: Option<Located<DurationText>>,
    /// Strikes in a row that make a verdict down. Default: 2.
    pub(super) down_after: Option<Located<WholeNumber>>,
    /// Passes in a row that bring an endpoint back. Default: 2.
    pub(super) up_after: Option<Located<WholeNumber>>,
    /// While live traffic vouches for an endpoint its probes may be further apart, as long as the
    /// worst case of the window stays within this. Default: they never are.
    pub(super) target: Option<Located<DurationText>>,
}

/// When a request that waits for its answer becomes evidence: after three times the pool's 99.9th
/// percentile it makes the endpoint looked at, after twelve times the 99th it counts as failed. Both
/// are kept between these bounds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Stall {
    /// Never before. Default: 50ms.
    pub(super) floor: Option<Located<DurationText>>,
    /// Never later. Default: 5s.
    pub(super) ceiling: Option<Located<DurationText>>,
}

/// Bounds on what is kept and under way.
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
    /// For each endpoint, over all workers. Who finds one at a limit goes to another.
    pub(super) endpoint: Option<LocatedTable<Caps>>,
    /// For all endpoints of the pool together, over all workers.
    pub(super) pool: Option<LocatedTable<Caps>>,
}

/// Circuit breakers: what may be under way at once.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Caps {
    /// Open connections, idle ones included. Default: `unlimited`.
    pub(super) connections: Option<Located<LimitText>>,
    /// Requests in flight, those that wait for a connection included. Default: `unlimited`.
    pub(super) requests: Option<Located<LimitText>>,
    /// Requests that wait, for `timeouts.connect` at most, until one of `connections` is free.
    /// Default: `unlimited`.
    pub(super) pending: Option<Located<LimitText>>,
    /// Requests in flight that another endpoint has got before. Default: `unlimited`.
    pub(super) retries: Option<Located<LimitText>>,
}

/// The endpoints of one pool in one zone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Zone {
    /// `region/zone`, unique in the pool.
    #[schemars(required)]
    pub(super) name: Option<Located<String>>,
    /// Addresses, or names that lead to them; unique in the pool.
    #[schemars(required, length(min = 1))]
    pub(super) endpoints: Option<Vec<Located<Endpoint>>>,
    /// With the policy `weighted`: its share among the zones, 0 to 1000. Default: 1.
    pub(super) weight: Option<Located<WholeNumber>>,
    /// `active`: serves with all other active zones, before the rest. `standby`: serves after all
    /// others. Default: as the policy has it.
    pub(super) role: Option<Located<String>>,
    /// So many of its endpoints must be able to serve before it gets traffic, unless nobody else can.
    /// Default: 0.
    pub(super) min_capacity: Option<Located<WholeNumber>>,
    /// What it can take with all of its endpoints before traffic spills. Default: no bound.
    pub(super) capacity: Option<LocatedTable<Capacity>>,
    /// The zone is to get no requests of this pool. Default: false.
    pub(super) drain: Option<Located<bool>>,
}

/// `IP:PORT`, or `NAME:PORT` whose addresses (A and AAAA) are endpoints, or a table that gives it a weight
/// as well.
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
    /// endpoints. Those of the best priority serve; the others join when all of them are down.
    pub(super) srv: Option<Located<String>>,
    /// Relative share of the zone's traffic, 1 to 1000: of each address of a name; for `srv`, what the
    /// weights of its records are multiplied by. Default: 1.
    pub(super) weight: Option<Located<WholeNumber>>,
    /// It is to get no requests. Default: false.
    pub(super) drain: Option<Located<bool>>,
}

impl TableShape for Admin {
    const EXPECTED: &str = "a table such as { address = \"127.0.0.1:9900\" }";
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
