//! What an operator declares: pools, zones, endpoints, and how each pool is watched.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};

use super::breaker::Breakers;
use super::id::Place;

/// All pools, and where this instance stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// The `self` of the configuration; absent, the listed order of zones is the preference.
    pub here: Option<Place>,
    /// The pools, in the order of the file.
    pub pools: Vec<Arc<PoolSpec>>,
}

/// The endpoints, over all zones and regions, that can serve the same request.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// The pool's name, unique in a topology.
    pub name: Arc<str>,
    /// Zones in the listed order; never empty.
    pub zones: Vec<ZoneSpec>,
    /// The active check.
    pub probe: ProbeSpec,
    /// The detection window.
    pub detect: Detect,
    /// When a waiting request becomes evidence.
    pub stall: StallBounds,
    /// Serve from a new endpoint before its first pass.
    pub optimistic: bool,
    /// A rescued request answered later than this after its arrival counts as late.
    pub late_after: Duration,
    /// Bounds on what is kept and under way.
    pub limits: PoolLimits,
}

/// The endpoints of one pool in one zone.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneSpec {
    /// `region/zone`, unique in its pool.
    pub place: Place,
    /// Never empty; addresses are unique in the pool.
    pub endpoints: Vec<EndpointSpec>,
}

/// One `address:port` and its share of the zone's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Where requests go.
    pub address: SocketAddr,
    /// Relative share, 1 to 1000.
    pub weight: u32,
}

/// The parameters of the detection window (`detect` in the file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detect {
    /// Period of probes, start to start, of an endpoint that is up.
    pub interval: Duration,
    /// A probe that took this long has failed.
    pub timeout: Duration,
    /// Period while an endpoint is suspect or coming back.
    pub fast_interval: Duration,
    /// Period while an endpoint is down.
    pub down_interval: Duration,
    /// Strikes in a row that make a verdict down; at least 1.
    pub down_after: u32,
    /// Passes in a row that bring an endpoint back; at least 1.
    pub up_after: u32,
}

impl Default for Detect {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            fast_interval: Duration::from_millis(100),
            down_interval: Duration::from_secs(1),
            down_after: 2,
            up_after: 2,
        }
    }
}

/// Between what bounds a waiting request becomes evidence, whatever the pool's latencies (`stall`
/// in the file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallBounds {
    /// Never before, however fast the pool.
    pub floor: Duration,
    /// Never later, however slow the pool.
    pub ceiling: Duration,
}

impl Default for StallBounds {
    fn default() -> Self {
        Self { floor: Duration::from_millis(50), ceiling: Duration::from_secs(5) }
    }
}

/// How an endpoint is probed.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeSpec {
    /// Probe this port instead of the endpoint's own.
    pub port: Option<u16>,
    /// What is asked.
    pub kind: ProbeKind,
}

/// The protocol of a probe.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeKind {
    /// A TCP connection that is accepted is a pass.
    Tcp,
    /// An HTTP/1.1 exchange.
    Http(Box<HttpProbe>),
}

/// An HTTP/1.1 probe and what counts as a pass.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpProbe {
    /// GET unless said otherwise.
    pub method: Method,
    /// Path and query; begins with `/`.
    pub path: String,
    /// The Host header; absent, the endpoint's `address:port`.
    pub host: Option<String>,
    /// Further headers.
    pub headers: HeaderMap,
    /// Statuses that pass; never empty.
    pub expect_status: Vec<RangeInclusive<u16>>,
    /// Text that the first 64 KiB of the body must contain.
    pub expect_body: Option<String>,
}

/// Bounds on what is kept and under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections kept for reuse, per worker and endpoint.
    pub idle_connections: usize,
    /// How long an idle connection is kept; keep it below the endpoint's own timeout.
    pub idle_timeout: Duration,
    /// Largest response head that is accepted, in bytes.
    pub response_head_bytes: usize,
    /// What all workers together may have under way.
    pub breakers: Breakers,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            idle_connections: 256,
            idle_timeout: Duration::from_secs(30),
            response_head_bytes: 64 * 1024,
            breakers: Breakers::default(),
        }
    }
}
