//! What an operator declares: pools, zones, endpoints, and how each pool is watched.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::affinity::Affinity;
use super::balance::{Balance, HashKey, Keyed, Kind};
use super::breaker::Breakers;
use super::director::What;
use super::id::Place;
use super::probe::ProbeSpec;
use super::slo::Slo;
use super::speech::Speech;
use super::steer::{Steer, ZoneTerms};

/// All pools, and where this instance stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// The `self` of the configuration; absent, the listed order of zones is the preference.
    pub here: Option<Place>,
    /// The pools, in the order of the file.
    pub pools: Vec<Arc<PoolSpec>>,
    /// Probes that may start in a second, over all pools; suspects are probed whatever it says.
    pub probes_per_second: u32,
}

/// Probes a second, unless said otherwise.
pub const PROBES_PER_SECOND: u32 = 10_000;

impl Default for Topology {
    fn default() -> Self {
        Self { here: None, pools: Vec::new(), probes_per_second: PROBES_PER_SECOND }
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
    pub speech: Arc<Speech>,
    /// How traffic is led.
    pub steer: Steer,
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
    /// When a zone or a region is down as a whole.
    pub correlate: Correlate,
    /// How what was down comes back.
    pub recover: Recover,
    /// How much may be down at once.
    pub evict: Evict,
    /// What is promised.
    pub slo: Option<Slo>,
    /// What of it is to get no requests.
    pub drained: Vec<What>,
    /// How an endpoint is chosen among those that are equally near.
    pub balance: Balance,
    /// By what requests stay with an endpoint.
    pub affinity: Option<Arc<Affinity>>,
}

impl PoolSpec {
    /// A pool with every default, whose probe only connects.
    #[must_use]
    pub fn new(name: &str, zones: Vec<ZoneSpec>) -> Self {
        Self {
            name: name.into(),
            zones,
            probes: vec![ProbeSpec::tcp()],
            speech: Arc::default(),
            steer: Steer::default(),
            detect: Detect::default(),
            stall: StallBounds::default(),
            optimistic: false,
            late_after: Duration::from_millis(250),
            limits: PoolLimits::default(),
            correlate: Correlate::default(),
            recover: Recover::default(),
            evict: Evict::default(),
            slo: None,
            drained: Vec::new(),
            balance: Balance::default(),
            affinity: None,
        }
    }

    /// Whether it matters how long answers take.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.balance == Balance::PeakEwma || self.steer.is_timed()
    }

    /// The tables that keys need, where requests have any.
    #[must_use]
    pub fn tables(&self) -> Option<Kind> {
        match (&self.balance, self.affinity.as_deref()) {
            (Balance::Keyed(keyed), _) => Some(keyed.table),
            (_, Some(Affinity::Key(_))) => Some(Kind::default()),
            _ => None,
        }
    }

    /// What may be a request's key; the first that it has is.
    pub fn keys(&self) -> impl Iterator<Item = &HashKey> {
        let by_affinity = match self.affinity.as_deref() {
            Some(Affinity::Key(key)) => Some(key),
            _ => None,
        };
        let by_balance = match &self.balance {
            Balance::Keyed(Keyed { key, .. }) => Some(key),
            _ => None,
        };
        by_affinity.into_iter().chain(by_balance)
    }

    /// Whether all requests of the pool are counted, limited or not.
    #[must_use]
    pub fn counts_requests(&self) -> bool {
        matches!(self.balance, Balance::Keyed(Keyed { max_load_percent: Some(_), .. }))
    }

    /// The first gate.
    #[must_use]
    pub fn primary(&self) -> &ProbeSpec {
        &self.probes[0]
    }

    /// Whether anything is said of what endpoints, zones or regions can take.
    #[must_use]
    pub fn states_capacity(&self) -> bool {
        self.steer.endpoint.is_stated()
            || self.steer.regions.iter().any(|(_, capacity)| capacity.is_stated())
            || self.zones.iter().any(|zone| zone.terms.capacity.is_stated())
    }
}

/// The endpoints of one pool in one zone.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneSpec {
    /// `region/zone`, unique in its pool.
    pub place: Place,
    /// Addresses are unique in the pool. Empty while names that are to lead to them have not.
    pub endpoints: Vec<EndpointSpec>,
    /// What is said of it besides.
    pub terms: ZoneTerms,
}

impl ZoneSpec {
    /// A zone of which nothing else is said.
    #[must_use]
    pub fn new(place: Place, endpoints: Vec<EndpointSpec>) -> Self {
        Self { place, endpoints, terms: ZoneTerms::default() }
    }
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
    /// While live traffic vouches for an endpoint its probes may be further apart, as long as the
    /// worst case of the window stays within this; `None` never stretches them.
    pub target: Option<Duration>,
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
pub struct Correlate {
    /// The share of a zone's endpoints (at least two) whose connections must fail, in per cent; more
    /// than 100 switches verdicts on zones off.
    pub quorum_percent: u32,
    /// Within this time.
    pub window: Duration,
    /// The zone returns when at least this share of its endpoints is healthy, in per cent.
    pub return_percent: u32,
}

impl Correlate {
    /// A [`Correlate::quorum_percent`] that no zone can reach.
    pub const OFF_PERCENT: u32 = 101;
}

impl Default for Correlate {
    fn default() -> Self {
        Self { quorum_percent: 60, window: Duration::from_secs(2), return_percent: 50 }
    }
}

/// How what was down comes back (`recover` in the file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recover {
    /// What goes down again soon stays down at least this long, and longer every time.
    pub hold_down: Duration,
    /// But no longer than this; the same time halves the count of earlier verdicts.
    pub hold_down_max: Duration,
    /// The share of an endpoint or a zone that returns grows to the whole over this time.
    pub ramp: Duration,
}

impl Default for Recover {
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
pub struct Evict {
    /// Endpoints of the pool that may be down at once.
    pub endpoints: u32,
    /// Of all endpoints of the pool, in per cent.
    pub percent: u32,
    /// Of the endpoints of one zone, in per cent.
    pub zone_percent: u32,
    /// The pool panics when no more than this share of it is healthy, in per cent.
    pub panic_percent: u32,
}

impl Default for Evict {
    fn default() -> Self {
        Self { endpoints: u32::MAX, percent: 100, zone_percent: 100, panic_percent: 0 }
    }
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
