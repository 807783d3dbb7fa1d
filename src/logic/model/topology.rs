//! The declared topology: pools, zones, endpoints, and the detection and recovery settings of each
//! pool.

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

/// All pools, and the locality of this instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// The `self` of the configuration. Without it the listed order of zones is the preference.
    pub local: Option<Locality>,
    /// In the order of the file.
    pub pools: Vec<Arc<PoolSpec>>,
    /// Upper bound on probes started in one second, over all pools. Probes of suspects are exempt.
    pub probes_per_second: u32,
}

/// Default of [`Topology::probes_per_second`]: 10,000 endpoints at an interval of one second.
pub const PROBES_PER_SECOND: u32 = 10_000;

impl Default for Topology {
    fn default() -> Self {
        Self { local: None, pools: Vec::new(), probes_per_second: PROBES_PER_SECOND }
    }
}

/// One pool: the endpoints, over all zones and regions, that can serve the same requests.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// Unique in a topology.
    pub name: Arc<str>,
    /// In the listed order; never empty.
    pub zones: Vec<ZoneSpec>,
    /// The active checks; never empty. The first one decides the verdict schedule.
    pub probes: Vec<ProbeSpec>,
    pub upstream_protocol: Arc<UpstreamProtocol>,
    pub steer: SteeringConfig,
    pub detect: DetectionSpec,
    /// The bounds between which a waiting request becomes evidence.
    pub stall: StallBounds,
    /// A new endpoint serves before its first pass.
    pub is_optimistic: bool,
    /// A rescued request that is answered later than this after its arrival counts as late.
    pub late_after: Duration,
    pub limits: PoolLimitSpec,
    pub correlation: CorrelationSpec,
    pub recovery: RecoverySpec,
    pub eviction: EvictionSpec,
    pub slo: Option<SloObjectives>,
    /// Scopes that the configuration drains.
    pub drained_scopes: Vec<TopologySelector>,
    /// The choice among the endpoints of a tier.
    pub balance: BalancePolicy,
    /// Keeps a client's requests at one endpoint.
    pub affinity: Option<Arc<SessionAffinity>>,
}

impl PoolSpec {
    /// A pool with default settings and a TCP probe.
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

    /// Whether the pool needs the latencies of its responses.
    pub fn has_latency_tracking(&self) -> bool {
        self.balance == BalancePolicy::PeakEwma || self.steer.has_latency_variant()
    }

    /// The kind of hash table, where requests have keys.
    pub fn hash_table_kind(&self) -> Option<HashTableKind> {
        match (&self.balance, self.affinity.as_deref()) {
            (BalancePolicy::ConsistentHash(config), _) => Some(config.table),
            (_, Some(SessionAffinity::Key(_))) => Some(HashTableKind::default()),
            _ => None,
        }
    }

    /// The sources of a request's key, in order of precedence.
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

    /// Whether all requests of the pool are counted, even without a limit on them.
    pub fn has_request_counting(&self) -> bool {
        matches!(
            self.balance,
            BalancePolicy::ConsistentHash(ConsistentHashConfig { max_load_percent: Some(_), .. })
        )
    }

    pub fn primary_probe(&self) -> &ProbeSpec {
        &self.probes[0]
    }

    /// Whether the capacity of endpoints, zones or regions is declared.
    pub fn has_declared_capacity(&self) -> bool {
        self.steer.endpoint_capacity.is_stated()
            || self.steer.region_capacities.iter().any(|(_, capacity)| capacity.is_stated())
            || self.zones.iter().any(|zone| zone.settings.capacity.is_stated())
    }
}

/// The endpoints of one pool in one zone.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneSpec {
    /// Unique in its pool.
    pub locality: Locality,
    /// Unique addresses in the pool. Empty while DNS names have not been resolved.
    pub endpoints: Vec<EndpointSpec>,
    pub settings: ZoneSettings,
}

impl ZoneSpec {
    /// A zone with default settings.
    pub fn new(locality: Locality, endpoints: Vec<EndpointSpec>) -> Self {
        Self { locality, endpoints, settings: ZoneSettings::default() }
    }
}

/// One `address:port` and its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    pub address: SocketAddr,
    /// Relative share among the zone's endpoints, 1 to 1000.
    pub weight: u32,
}

/// The parameters of the detection window (`detect` in the file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectionSpec {
    /// Period of probes, start to start, of an endpoint that is up.
    pub interval: Duration,
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// Period while an endpoint is suspect or recovering.
    pub fast_interval: Duration,
    /// Period while an endpoint is down.
    pub down_interval: Duration,
    /// Consecutive strikes that make the verdict down; at least 1.
    pub down_after: u32,
    /// Consecutive passes that bring an endpoint back; at least 1.
    pub up_after: u32,
    /// Longest worst case of the detection window. Probes of an endpoint with successful traffic
    /// may be stretched up to it; `None` never stretches them.
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

/// The bounds between which a waiting request becomes evidence (`stall` in the file). The value
/// between them follows the pool's latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallBounds {
    /// Not earlier, however fast the pool is.
    pub floor: Duration,
    /// Not later, however slow the pool is.
    pub ceiling: Duration,
}

impl Default for StallBounds {
    fn default() -> Self {
        Self { floor: Duration::from_millis(50), ceiling: Duration::from_secs(5) }
    }
}

/// The rule by which a zone is down as a whole (`correlate` in the file). A region is down when the
/// same share of its zones is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorrelationSpec {
    /// The share of a zone's endpoints (at least two) whose connections must fail, in per cent.
    /// More than 100 disables zone verdicts.
    pub quorum_percent: u32,
    pub window: Duration,
    /// The zone returns when at least this share of its endpoints is healthy, in per cent.
    pub return_percent: u32,
}

impl CorrelationSpec {
    /// A [`CorrelationSpec::quorum_percent`] that no zone can reach.
    pub const OFF_PERCENT: u32 = 101;
}

impl Default for CorrelationSpec {
    fn default() -> Self {
        Self { quorum_percent: 60, window: Duration::from_secs(2), return_percent: 50 }
    }
}

/// The recovery of endpoints and zones (`recover` in the file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverySpec {
    /// Minimum time that a flapping endpoint stays down; it grows with every repetition.
    pub hold_down: Duration,
    /// Upper bound of the hold-down. Earlier verdicts are forgotten with this half-life.
    pub hold_down_max: Duration,
    /// The share of a returning endpoint or zone grows to its full value over this time.
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

/// The eviction budget (`evict` in the file): a verdict that would exceed it is withheld. A pool
/// without any remaining endpoint serves from all of them, whatever the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvictionSpec {
    /// Endpoints of the pool that may be down at once.
    pub max_down_endpoints: u32,
    /// Share of the pool's endpoints that may be down at once, in per cent.
    pub max_down_percent: u32,
    /// Share of a zone's endpoints that may be down at once, in per cent.
    pub max_zone_down_percent: u32,
    /// The pool panics when at most this share of it is healthy, in per cent.
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

/// Limits on the pool's connections and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimitSpec {
    /// Idle connections kept for reuse, per worker and endpoint.
    pub max_idle_connections: usize,
    /// Lifetime of an idle connection; should be below the endpoint's own timeout.
    pub idle_timeout: Duration,
    /// Largest accepted response head, in bytes.
    pub max_response_head_bytes: usize,
    /// Limits over all workers together.
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
