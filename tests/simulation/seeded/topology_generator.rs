//! Random pools and their random reconfigurations.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use gapless::logic::model::id::Locality;
use gapless::logic::model::topology::{
    DetectionSpec, EndpointSpec, EvictionSpec, PoolSpec, RecoverySpec, Topology, ZoneSpec,
};
use gapless::logic::probing::probe::{BodyMatcher, HttpProbe, ProbeSpec};

/// The zones of a random pool.
const ZONES: [&str; 3] = ["r/a", "r/b", "s/a"];

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Generates topologies, and remembers removed parts, which may return.
pub(crate) struct TopologyGenerator {
    pub(crate) rng: Rng,
    next_host: u16,
    removed_pools: Vec<Arc<PoolSpec>>,
    removed_zones: Vec<(Arc<str>, ZoneSpec)>,
    removed_endpoints: Vec<(Arc<str>, EndpointSpec)>,
}

impl TopologyGenerator {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            rng,
            next_host: 100,
            removed_pools: Vec::new(),
            removed_zones: Vec::new(),
            removed_endpoints: Vec::new(),
        }
    }

    pub(crate) fn random_topology(&mut self, pools: usize) -> Topology {
        let pools =
            (0..pools).map(|index| Arc::new(self.random_pool(&format!("pool-{index}")))).collect();
        let local_zone = self.rng.bool().then(|| parse_locality(ZONES[0]));
        Topology { local: local_zone, pools, ..Topology::default() }
    }

    fn random_pool(&mut self, name: &str) -> PoolSpec {
        let detect = self.random_detect();
        let zones = 1 + self.rng.usize(..ZONES.len());
        let zones = ZONES[..zones].iter().map(|name| {
            let hosts: Vec<u16> = (0..self.rng.usize(1..4)).map(|_| self.allocate_host()).collect();
            zone(name, &hosts)
        });
        let zones = zones.collect();
        let recover = RecoverySpec {
            hold_down: ms(self.rng.u64(..500)),
            hold_down_max: ms(self.rng.u64(500..2_000)),
            ramp: ms(self.rng.u64(..2_000)),
        };
        PoolSpec { zones, recovery: recover, ..pool_spec(name, detect) }
    }

    fn allocate_host(&mut self) -> u16 {
        self.next_host += 1;
        self.next_host
    }

    /// An eviction budget in every other pool.
    pub(crate) fn random_evict(&mut self) -> EvictionSpec {
        if self.rng.bool() {
            return EvictionSpec::default();
        }
        EvictionSpec {
            max_down_percent: self.rng.u32(20..100),
            max_down_endpoints: if self.rng.bool() { self.rng.u32(1..4) } else { u32::MAX },
            ..EvictionSpec::default()
        }
    }

    fn random_detect(&mut self) -> DetectionSpec {
        let interval = ms(self.rng.u64(200..1_500));
        let timeout = ms(self.rng.u64(20..200));
        DetectionSpec {
            interval,
            timeout,
            fast_interval: ms(self.rng.u64(10..200)),
            down_interval: timeout + ms(self.rng.u64(..1_000)),
            down_after: self.rng.u32(1..4),
            up_after: self.rng.u32(1..4),
            target: None,
        }
    }

    /// A changed configuration: order of zones, weights, periods; endpoints,
    /// zones and pools that move, leave and return.
    pub(crate) fn mutate(&mut self, topology: &mut Topology) {
        let index = self.rng.usize(..topology.pools.len());
        let mut pool = PoolSpec::clone(&topology.pools[index]);
        match self.rng.u32(..10) {
            0 => self.rng.shuffle(&mut pool.zones),
            1 => {
                for endpoint in pool.zones.iter_mut().flat_map(|zone| &mut zone.endpoints) {
                    endpoint.weight = self.rng.u32(1..10);
                }
            }
            2 => pool.detect = self.random_detect(),
            3 => {
                let endpoint = EndpointSpec { address: address(self.allocate_host()), weight: 1 };
                pool.zones[0].endpoints.push(endpoint);
            }
            4 => self.move_endpoint(&mut pool),
            5 => self.remove_endpoint(&mut pool),
            6 => self.remove_zone(&mut pool),
            7 => self.restore_removed(&mut pool),
            8 => {
                if topology.pools.len() > 1 {
                    self.removed_pools.push(topology.pools.swap_remove(index));
                    return;
                }
            }
            _ => topology.pools.extend(self.removed_pools.pop()),
        }
        topology.pools[index] = Arc::new(pool);
        if self.rng.bool() {
            topology.pools.reverse();
        }
    }

    fn move_endpoint(&mut self, pool: &mut PoolSpec) {
        let from = self.rng.usize(..pool.zones.len());
        let to = self.rng.usize(..pool.zones.len());
        if pool.zones[from].endpoints.len() > 1 {
            let moved = pool.zones[from].endpoints.remove(0);
            pool.zones[to].endpoints.push(moved);
        }
    }

    fn remove_endpoint(&mut self, pool: &mut PoolSpec) {
        let largest = pool.zones.iter_mut().max_by_key(|zone| zone.endpoints.len());
        if let Some(zone) = largest.filter(|zone| zone.endpoints.len() > 1) {
            let removed = zone.endpoints.pop().map(|endpoint| (Arc::clone(&pool.name), endpoint));
            self.removed_endpoints.extend(removed);
        }
    }

    fn remove_zone(&mut self, pool: &mut PoolSpec) {
        if pool.zones.len() > 1 {
            let removed = pool.zones.remove(self.rng.usize(..pool.zones.len()));
            self.removed_zones.push((Arc::clone(&pool.name), removed));
        }
    }

    /// An earlier zone or endpoint.
    fn restore_removed(&mut self, pool: &mut PoolSpec) {
        let is_of_pool = |name: &Arc<str>| *name == pool.name;
        if let Some(index) = self.removed_zones.iter().position(|(name, _)| is_of_pool(name)) {
            pool.zones.push(self.removed_zones.remove(index).1);
        } else if let Some(index) =
            self.removed_endpoints.iter().position(|(name, _)| is_of_pool(name))
        {
            pool.zones[0].endpoints.push(self.removed_endpoints.remove(index).1);
        }
    }
}

pub(crate) fn parse_locality(text: &str) -> Locality {
    Locality::parse(text).expect("a place")
}

fn address(host: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (host >> 8) as u8, host as u8], 9_000))
}

pub(crate) fn zone(name: &str, hosts: &[u16]) -> ZoneSpec {
    let endpoints = hosts.iter().map(|&host| EndpointSpec { address: address(host), weight: 1 });
    ZoneSpec::new(parse_locality(name), endpoints.collect())
}

/// A pool without zones with a probe that checks status and body.
pub(crate) fn pool_spec(name: &str, detect: DetectionSpec) -> PoolSpec {
    let expect_body = vec![BodyMatcher::Contains("ok".to_owned())];
    let http = HttpProbe { expect_body, ..HttpProbe::get("/healthz") };
    PoolSpec { probes: vec![ProbeSpec::http(http)], detect, ..PoolSpec::new(name, Vec::new()) }
}
