//! Random pools, and what a new configuration makes of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use gapless::logic::id::Place;
use gapless::logic::probe::{BodyTest, HttpProbe, ProbeSpec};
use gapless::logic::topology::{
    Detect, EndpointSpec, Evict, PoolSpec, Recover, Topology, ZoneSpec,
};

/// The zones of a random pool.
const ZONES: [&str; 3] = ["r/a", "r/b", "s/a"];

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Makes topologies, and remembers what is no longer part of one: it may come back.
pub(crate) struct Maker {
    pub(crate) rng: Rng,
    next_host: u16,
    gone_pools: Vec<Arc<PoolSpec>>,
    gone_zones: Vec<(Arc<str>, ZoneSpec)>,
    gone_endpoints: Vec<(Arc<str>, EndpointSpec)>,
}

impl Maker {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            rng,
            next_host: 100,
            gone_pools: Vec::new(),
            gone_zones: Vec::new(),
            gone_endpoints: Vec::new(),
        }
    }

    pub(crate) fn topology(&mut self, pools: usize) -> Topology {
        let pools = (0..pools).map(|index| Arc::new(self.pool(&format!("pool-{index}")))).collect();
        let here = self.rng.bool().then(|| place(ZONES[0]));
        Topology { here, pools, ..Topology::default() }
    }

    fn pool(&mut self, name: &str) -> PoolSpec {
        let detect = self.detect();
        let zones = 1 + self.rng.usize(..ZONES.len());
        let zones = ZONES[..zones].iter().map(|name| {
            let hosts: Vec<u16> = (0..self.rng.usize(1..4)).map(|_| self.host()).collect();
            zone(name, &hosts)
        });
        let zones = zones.collect();
        let recover = Recover {
            hold_down: ms(self.rng.u64(..500)),
            hold_down_max: ms(self.rng.u64(500..2_000)),
            ramp: ms(self.rng.u64(..2_000)),
        };
        PoolSpec { zones, recover, ..pool_spec(name, detect) }
    }

    fn host(&mut self) -> u16 {
        self.next_host += 1;
        self.next_host
    }

    /// A budget, in every other pool.
    pub(crate) fn evict(&mut self) -> Evict {
        if self.rng.bool() {
            return Evict::default();
        }
        Evict {
            percent: self.rng.u32(20..100),
            endpoints: if self.rng.bool() { self.rng.u32(1..4) } else { u32::MAX },
            ..Evict::default()
        }
    }

    fn detect(&mut self) -> Detect {
        let interval = ms(self.rng.u64(200..1_500));
        let timeout = ms(self.rng.u64(20..200));
        Detect {
            interval,
            timeout,
            fast_interval: ms(self.rng.u64(10..200)),
            down_interval: timeout + ms(self.rng.u64(..1_000)),
            down_after: self.rng.u32(1..4),
            up_after: self.rng.u32(1..4),
            target: None,
        }
    }

    /// Another configuration: zones in another order, other weights, other periods; endpoints,
    /// zones and pools that move, go, and come back.
    pub(crate) fn change(&mut self, topology: &mut Topology) {
        let index = self.rng.usize(..topology.pools.len());
        let mut pool = PoolSpec::clone(&topology.pools[index]);
        match self.rng.u32(..10) {
            0 => self.rng.shuffle(&mut pool.zones),
            1 => {
                for endpoint in pool.zones.iter_mut().flat_map(|zone| &mut zone.endpoints) {
                    endpoint.weight = self.rng.u32(1..10);
                }
            }
            2 => pool.detect = self.detect(),
            3 => {
                let endpoint = EndpointSpec { address: address(self.host()), weight: 1 };
                pool.zones[0].endpoints.push(endpoint);
            }
            4 => self.move_endpoint(&mut pool),
            5 => self.drop_endpoint(&mut pool),
            6 => self.drop_zone(&mut pool),
            7 => self.bring_back(&mut pool),
            8 => {
                if topology.pools.len() > 1 {
                    self.gone_pools.push(topology.pools.swap_remove(index));
                    return;
                }
            }
            _ => topology.pools.extend(self.gone_pools.pop()),
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

    fn drop_endpoint(&mut self, pool: &mut PoolSpec) {
        let largest = pool.zones.iter_mut().max_by_key(|zone| zone.endpoints.len());
        if let Some(zone) = largest.filter(|zone| zone.endpoints.len() > 1) {
            let gone = zone.endpoints.pop().map(|endpoint| (Arc::clone(&pool.name), endpoint));
            self.gone_endpoints.extend(gone);
        }
    }

    fn drop_zone(&mut self, pool: &mut PoolSpec) {
        if pool.zones.len() > 1 {
            let gone = pool.zones.remove(self.rng.usize(..pool.zones.len()));
            self.gone_zones.push((Arc::clone(&pool.name), gone));
        }
    }

    /// A zone or an endpoint of before.
    fn bring_back(&mut self, pool: &mut PoolSpec) {
        let of_it = |name: &Arc<str>| *name == pool.name;
        if let Some(index) = self.gone_zones.iter().position(|(name, _)| of_it(name)) {
            pool.zones.push(self.gone_zones.remove(index).1);
        } else if let Some(index) = self.gone_endpoints.iter().position(|(name, _)| of_it(name)) {
            pool.zones[0].endpoints.push(self.gone_endpoints.remove(index).1);
        }
    }
}

pub(crate) fn place(text: &str) -> Place {
    Place::parse(text).expect("a place")
}

fn address(host: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (host >> 8) as u8, host as u8], 9_000))
}

pub(crate) fn zone(name: &str, hosts: &[u16]) -> ZoneSpec {
    let endpoints = hosts.iter().map(|&host| EndpointSpec { address: address(host), weight: 1 });
    ZoneSpec::new(place(name), endpoints.collect())
}

/// A pool without zones, whose probe looks at status and body.
pub(crate) fn pool_spec(name: &str, detect: Detect) -> PoolSpec {
    let expect_body = vec![BodyTest::Contains("ok".to_owned())];
    let http = HttpProbe { expect_body, ..HttpProbe::get("/healthz") };
    PoolSpec { probes: vec![ProbeSpec::http(http)], detect, ..PoolSpec::new(name, Vec::new()) }
}
