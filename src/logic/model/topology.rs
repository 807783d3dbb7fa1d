//! What an operator declares: pools, zones, endpoints, and how each pool is watched.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::id::Locality;
use super::selector::TopologySelector;
use super::upstream_protocol::UpstreamProtocol;
use crate::logic::incident::slo::SloObjectives;
use crate::logic::probing::probe::ProbeSpec;
use crate::logic::request::limits::CircuitBreakers;
use crate::logic::steering::affinity::SessionAffinity;
use crate::logic::steering::balance::{
    BalancePolicy, ConsistentHashConfig, HashKeySource, HashTableKind,
};
use crate::logic::steering::{SteeringConfig, ZoneSettings};

/// All pools, and where this instance stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// The `self` of the configuration; absent, the listed order of zones is the preference.
    pub local: Option<Locality>,
    /// The pools, in the order of the file.
    pub pools: Vec<Arc<PoolSpec>>,
    /// Probes that may start in a second, over all pools; suspects are probed whatever it says.
    pub probes_per_second: u32,
}

/// Probes a second, unless said otherwise.
pub const PROBES_PER_SECOND: u32 = 10_000;

impl Default for Topology {
    fn default() -> Self {
        Self { local: None, pools: Vec::new(), probes_per_second: PROBES_PER_SECOND }
    }
}

/// The endpoints, over all zones and regions, that can serve the same request.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// The pool's name, unique in a topology.
    pub name: Arc<str>,
    /// Zones in the listed order; never empty.
    pub zones: Vec<ZoneSpec>,
    /// The active checks; never empty, gates first.
    pub probes: Vec<ProbeSpec>,
    /// How requests are sent.
    pub upstream_protocol: Arc<UpstreamProtocol>,
    /// How traffic is led.
    pub steer: SteeringConfig,
    pub detect: DetectionSpec,
    /// When a waiting request becomes evidence.
    pub stall: StallBounds,
    /// Serve from a new endpoint before its first pass.
    pub is_optimistic: bool,
    /// A rescued request answered later than this after its arrival counts as late.
    pub late_after: Duration,
    /// Bounds on what is kept and under way.
    pub limits: PoolLimitSpec,
    /// When a zone or a region is down as a whole.
    pub correlation: CorrelationSpec,
    /// How what was down comes back.
    pub recovery: RecoverySpec,
    /// How much may be down at once.
    pub eviction: EvictionSpec,
    pub slo: Option<SloObjectives>,
    /// What of it is to get no requests.
    pub drained_scopes: Vec<TopologySelector>,
    /// How an endpoint is chosen among those that are equally near.
    pub balance: BalancePolicy,
    /// By what requests stay with an endpoint.
    pub affinity: Option<Arc<SessionAffinity>>,
}

impl PoolSpec {
    /// A pool with every default, whose probe only connects.
    pub fn new(name: &str, zones: Vec<ZoneSpec>) -> Self {
        Self {
            name: name.into(),
            zones,
            probes: vec![ProbeSpec::tcp()],
            upstream_protocol: Arc::default(),
            steer: SteeringConfig::default(),
            detect: DetectionSpec::default(),
            stall: StallBounds::default(),
            is_optimistic: false,
            late_after: Duration::from_millis(250),
            limits: PoolLimitSpec::default(),
            correlation: CorrelationSpec::default(),
            recovery: RecoverySpec::default(),
            eviction: EvictionSpec::default(),
            slo: None,
            drained_scopes: Vec::new(),
            balance: BalancePolicy::default(),
            affinity: None,
        }
    }

    /// Whether it matters how long answers take.
    pub fn has_latency_tracking(&self) -> bool {
        self.balance == BalancePolicy::PeakEwma || self.steer.has_latency_variant()
    }

    /// The tables that keys need, where requests have any.
    pub fn hash_table_kind(&self) -> Option<HashTableKind> {
        match (&self.balance, self.affinity.as_deref()) {
            (BalancePolicy::ConsistentHash(keyed), _) => Some(keyed.table),
            (_, Some(SessionAffinity::Key(_))) => Some(HashTableKind::default()),
            _ => None,
        }
    }

    /// What may be a request's key; the first that it has is.
    pub fn hash_keys(&self) -> impl Iterator<Item = &HashKeySource> {
        let by_affinity = match self.affinity.as_deref() {
            Some(SessionAffinity::Key(key)) => Some(key),
            _ => None,
        };
        let by_balance = match &self.balance {
            BalancePolicy::ConsistentHash(ConsistentHashConfig { key, .. }) => Some(key),
            _ => None,
        };
        by_affinity.into_iter().chain(by_balance)
    }

    /// Whether all requests of the pool are counted, limited or not.
    pub fn has_request_counting(&self) -> bool {
        matches!(
            self.balance,
            BalancePolicy::ConsistentHash(ConsistentHashConfig { max_load_percent: Some(_), .. })
        )
    }

    pub fn primary_probe(&self) -> &ProbeSpec {
        &self.probes[0]
    }

    /// Whether anything is said of what endpoints, zones or regions can take.
    pub fn has_declared_capacity(&self) -> bool {
        self.steer.endpoint_capacity.is_stated()
            || self.steer.region_capacities.iter().any(|(_, capacity)| capacity.is_stated())
            || self.zones.iter().any(|zone| zone.settings.capacity.is_stated())
    }
}

/// The endpoints of one pool in one zone.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneSpec {
    /// `region/zone`, unique in its pool.
    pub locality: Locality,
    /// Addresses are unique in the pool. Empty while names that are to lead to them have not.
    pub endpoints: Vec<EndpointSpec>,
    /// What is said of it besides.
    pub settings: ZoneSettings,
}

impl ZoneSpec {
    /// A zone of which nothing else is said.
    pub fn new(locality: Locality, endpoints: Vec<EndpointSpec>) -> Self {
        Self { locality, endpoints, settings: ZoneSettings::default() }
    }
}

/// One `address:port` and its share of the zone's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    pub address: SocketAddr,
    /// Relative share, 1 to 1000.
    pub weight: u32,
}

/// The parameters of the detection window (`detect` in the file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectionSpec {
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
    /// While live traffic vouches for an endpoint its probes may be further apart, as long as the
    /// worst case of the window stays within this; `None` never stretches them.
    pub target: Option<Duration>,
}

impl Default for DetectionSpec {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            fast_interval: Duration::from_millis(100),
            down_interval: Duration::from_secs(1),
            down_after: 2,
            up_after: 2,
            target: None,
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

/// When a zone is down as a whole (`correlate` in the file). A region is, when that share of its
/// zones is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorrelationSpec {
    /// The share of a zone's endpoints (at least two) whose connections must fail, in per cent; more
    /// than 100 switches verdicts on zones off.
    pub quorum_percent: u32,
    pub window: Duration,
    /// The zone returns when at least this share of its endpoints is healthy, in per cent.
    pub return_percent: u32,
}

impl CorrelationSpec {
    /// A [`Correlate::quorum_percent`] that no zone can reach.
    pub const OFF_PERCENT: u32 = 101;
}

impl Default for CorrelationSpec {
    fn default() -> Self {
        Self { quorum_percent: 60, window: Duration::from_secs(2), return_percent: 50 }
    }
}

/// How what was down comes back (`recover` in the file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverySpec {
    /// What goes down again soon stays down at least this long, and longer every time.
    pub hold_down: Duration,
    /// But no longer than this; the same time halves the count of earlier verdicts.
    pub hold_down_max: Duration,
    /// The share of an endpoint or a zone that returns grows to the whole over this time.
    pub ramp: Duration,
}

impl Default for RecoverySpec {
    fn default() -> Self {
        Self {
            hold_down: Duration::from_secs(1),
            hold_down_max: Duration::from_secs(60),
            ramp: Duration::from_secs(10),
        }
    }
}

/// The eviction budget (`evict` in the file): a verdict that would exceed it is withheld. In a pool
/// of which nothing would be left, all of it serves, whatever the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvictionSpec {
    /// Endpoints of the pool that may be down at once.
    pub max_down_endpoints: u32,
    /// Of all endpoints of the pool, in per cent.
    pub max_down_percent: u32,
    /// Of the endpoints of one zone, in per cent.
    pub max_zone_down_percent: u32,
    /// The pool panics when no more than this share of it is healthy, in per cent.
    pub panic_percent: u32,
}

impl Default for EvictionSpec {
    fn default() -> Self {
        Self {
            max_down_endpoints: u32::MAX,
            max_down_percent: 100,
            max_zone_down_percent: 100,
            panic_percent: 0,
        }
    }
}

/// Bounds on what is kept and under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimitSpec {
    /// Idle connections kept for reuse, per worker and endpoint.
    pub max_idle_connections: usize,
    /// How long an idle connection is kept; keep it below the endpoint's own timeout.
    pub idle_timeout: Duration,
    /// Largest response head that is accepted, in bytes.
    pub max_response_head_bytes: usize,
    /// What all workers together may have under way.
    pub circuit_breakers: CircuitBreakers,
}

impl Default for PoolLimitSpec {
    fn default() -> Self {
        Self {
            max_idle_connections: 256,
            idle_timeout: Duration::from_secs(30),
            max_response_head_bytes: 64 * 1024,
            circuit_breakers: CircuitBreakers::default(),
        }
    }
}
