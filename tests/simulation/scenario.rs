//! Random small worlds and what befalls them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use gapless::logic::health::Health;
use gapless::logic::id::{EndpointId, Place};
use gapless::logic::outcome::Class;
use gapless::logic::probe::{HttpProbe, ProbeSpec};
use gapless::logic::topology::{Detect, EndpointSpec, PoolSpec, Recover, Topology, ZoneSpec};
use gapless::logic::window;
use gapless::sim::world::{Behavior, Offer, Settings, Spacing, World};

use crate::rules::Rules;

const HEALTHY: Behavior = Behavior::Healthy { latency: ms(1) };

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A world, and what a random course of events needs to know of it.
pub(crate) struct Scenario {
    pub(crate) world: World,
    rng: Rng,
    settings: Settings,
    topology: Topology,
    next_host: u16,
    /// Traffic may bring verdicts forward and hold them up; without it the closed form is exact.
    has_traffic: bool,
}

impl Scenario {
    /// Anything may be in it.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let grain = if rng.bool() { ms(1) } else { Duration::from_nanos(1) };
        let reorder = if rng.bool() { ms(rng.u64(..30)) } else { Duration::ZERO };
        let has_traffic = rng.bool();
        Self::with(seed, rng, Settings { seed, grain, reorder, ..Settings::default() }, has_traffic)
    }

    /// Probes alone, on a network that keeps their order.
    pub(crate) fn quiet(seed: u64) -> Self {
        Self::with(seed, Rng::with_seed(seed), Settings { seed, ..Settings::default() }, false)
    }

    /// Two zones of equal endpoints under steady traffic with every hundredth request a POST.
    pub(crate) fn steady(seed: u64) -> Self {
        let mut scenario = Self::quiet(seed);
        let pool = PoolSpec {
            zones: vec![zone("r/a", &[1, 2, 3]), zone("r/b", &[4, 5, 6])],
            ..pool_spec("web", Detect::default())
        };
        scenario.topology =
            Topology { here: None, pools: vec![Arc::new(pool)], ..Topology::default() };
        scenario.world = World::new(Instant::now(), scenario.settings);
        scenario.world.configure(scenario.topology.clone());
        scenario.world.run_until(scenario.world.now() + ms(20));
        scenario.offer(200.0, 0.01);
        scenario
    }

    fn with(seed: u64, mut rng: Rng, settings: Settings, has_traffic: bool) -> Self {
        let mut scenario = Self {
            world: World::new(Instant::now(), settings),
            settings,
            topology: Topology::default(),
            next_host: 1,
            has_traffic,
            rng: Rng::with_seed(seed ^ 0x5eed),
        };
        let pools = if has_traffic { rng.usize(1..3) } else { 1 };
        for index in 0..pools {
            let pool = scenario.random_pool(&format!("pool-{index}"));
            scenario.topology.pools.push(Arc::new(pool));
        }
        scenario.topology.here = rng.bool().then(|| place("r/a"));
        scenario.world.configure(scenario.topology.clone());
        if has_traffic {
            let rate_rps = rng.f64() * 300.0;
            scenario.offer(rate_rps, 0.3);
        }
        scenario
    }

    fn offer(&mut self, rate_rps: f64, post_share: f64) {
        self.has_traffic = true;
        let spacing = if self.rng.bool() { Spacing::Even } else { Spacing::Exponential };
        for pool in &self.topology.pools {
            let pool = Arc::clone(&pool.name);
            self.world.offer(Offer { pool, rate_rps, spacing, post_share });
        }
    }

    fn random_pool(&mut self, name: &str) -> PoolSpec {
        let detect = self.random_detect();
        let zones = self.rng.usize(1..4);
        let zones = ["r/a", "r/b", "s/a"][..zones].iter().map(|name| {
            let hosts: Vec<u16> = (0..self.rng.usize(1..4)).map(|_| self.new_host()).collect();
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

    fn new_host(&mut self) -> u16 {
        self.next_host += 1;
        self.next_host
    }

    fn random_detect(&mut self) -> Detect {
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

    /// One thing that happens, and some time after it.
    pub(crate) fn step(&mut self, rules: &mut Rules) {
        match self.rng.u32(..10) {
            0..5 => {
                let behavior = self.random_behavior();
                if let Some(address) = self.random_address() {
                    self.world.schedule(self.world.now(), address, behavior);
                }
            }
            5 | 6 => {
                let behavior = self.random_behavior();
                let pool = self.rng.usize(..self.topology.pools.len());
                let zones = &self.topology.pools[pool].zones;
                for endpoint in &zones[self.rng.usize(..zones.len())].endpoints {
                    self.world.schedule(self.world.now(), endpoint.address, behavior);
                }
            }
            7 => {
                let all: Vec<_> = self.addresses();
                for address in all {
                    self.world.schedule(self.world.now(), address, HEALTHY);
                }
            }
            _ => self.reload(rules),
        }
        let pause = ms(self.rng.u64(1..2_500));
        self.run(pause, rules);
    }

    fn random_behavior(&mut self) -> Behavior {
        match self.rng.usize(..6) {
            class @ 0..4 => Behavior::of(Class::ALL[class]),
            _ => Behavior::Healthy { latency: ms(self.rng.u64(..8)) },
        }
    }

    /// Another configuration: zones in another order, other weights, other periods, endpoints that
    /// move to another zone, come and go.
    fn reload(&mut self, rules: &mut Rules) {
        let index = self.rng.usize(..self.topology.pools.len());
        let mut pool = PoolSpec::clone(&self.topology.pools[index]);
        match self.rng.u32(..6) {
            0 => self.rng.shuffle(&mut pool.zones),
            1 => {
                for endpoint in pool.zones.iter_mut().flat_map(|zone| &mut zone.endpoints) {
                    endpoint.weight = self.rng.u32(1..10);
                }
            }
            2 => pool.detect = self.random_detect(),
            3 => {
                let endpoint = EndpointSpec { address: address(self.new_host()), weight: 1 };
                pool.zones[0].endpoints.push(endpoint);
            }
            4 => {
                let from = self.rng.usize(..pool.zones.len());
                let to = self.rng.usize(..pool.zones.len());
                if pool.zones[from].endpoints.len() > 1 {
                    let moved = pool.zones[from].endpoints.remove(0);
                    pool.zones[to].endpoints.push(moved);
                }
            }
            _ => {
                let largest = pool.zones.iter_mut().max_by_key(|zone| zone.endpoints.len());
                if let Some(zone) = largest.filter(|zone| zone.endpoints.len() > 1) {
                    zone.endpoints.pop();
                }
            }
        }
        self.topology.pools[index] = Arc::new(pool);
        if self.rng.bool() {
            self.topology.pools.reverse();
        }
        rules.watch(&mut self.world);
        self.world.configure(self.topology.clone());
        rules.watch(&mut self.world);
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let zones = self.topology.pools.iter().flat_map(|pool| &pool.zones);
        zones.flat_map(|zone| &zone.endpoints).map(|endpoint| endpoint.address).collect()
    }

    fn random_address(&mut self) -> Option<SocketAddr> {
        let all = self.addresses();
        self.rng.choice(all)
    }

    fn run(&mut self, time: Duration, rules: &mut Rules) {
        self.world.run_until(self.world.now() + time);
        rules.watch(&mut self.world);
    }

    /// Until every timer runs at its own phase.
    pub(crate) fn settle(&mut self, rules: &mut Rules) {
        let longest = self.topology.pools.iter().map(|pool| pool.detect.interval).max();
        let phase = ms(self.rng.u64(..1_000));
        self.run(longest.unwrap_or_default() + phase, rules);
    }

    /// Heals everything. After the bound of return every endpoint must be up.
    pub(crate) fn heal(&mut self, rules: &mut Rules) {
        let now = self.world.now();
        for address in self.addresses() {
            if self.world.behavior(address) != HEALTHY {
                self.world.schedule(now, address, HEALTHY);
            }
        }
        self.run(self.return_at_most(), rules);
        for status in self.world.director().endpoints() {
            let back = matches!(status.health, Health::Up | Health::Suspect { .. });
            assert!(back, "{} is {:?}", status.subject.address, status.health);
            assert!(status.in_service);
        }
        assert!(self.world.snapshot().pools.iter().all(|pool| !pool.panic));
    }

    /// A down endpoint waits for its period, then passes in a row. A probe that was under way when
    /// it healed may fail yet, and an endpoint that is suspect may go down for that.
    fn return_at_most(&self) -> Duration {
        let of = |pool: &PoolSpec| {
            let detect = &pool.detect;
            let row = detect.fast_interval.max(self.answer()) * (detect.up_after - 1);
            let passes = detect.down_interval + row + self.answer() * detect.up_after;
            // What has passed often enough looks again at the end of its hold-down, or its zone's.
            let held = pool.recover.hold_down_max.max(pool.recover.hold_down);
            passes + held + 2 * detect.fast_interval.max(self.answer())
        };
        let longest = self.topology.pools.iter().map(|pool| of(pool)).max();
        longest.unwrap_or_default()
    }

    /// From the start of a probe until the director has heard of a healthy endpoint's answer.
    fn answer(&self) -> Duration {
        self.settings.round_trip.mul_f64(2.0 * (1.0 + self.settings.round_trip_jitter))
            + ms(1)
            + self.settings.reorder
            + 6 * self.settings.grain
    }

    /// The closed form's worst with the longest exchange.
    pub(crate) fn detection_at_most(&self, class: Class) -> Duration {
        let worst = |pool: &Arc<PoolSpec>| window::bounds(class, &pool.detect, self.answer()).worst;
        self.topology.pools.iter().map(worst).max().unwrap_or_default()
    }

    /// Lets one endpoint fail, and says how long its verdict took.
    pub(crate) fn fail_one(
        &mut self,
        behavior: Behavior,
        rules: &mut Rules,
    ) -> (SocketAddr, Duration) {
        let address = self.random_address().expect("an endpoint");
        let onset = self.world.now();
        self.world.schedule(onset, address, behavior);
        let mut took = None;
        while took.is_none() && self.world.turn(onset + Duration::from_secs(60)) {
            rules.watch(&mut self.world);
            let id = self.id_of(address);
            let verdict = rules.verdicts.iter().find(|(of, at)| *of == id && *at >= onset);
            took = verdict.map(|(_, at)| *at - onset);
        }
        (address, took.expect("a verdict within a minute"))
    }

    /// Lets a zone fail until all of it is down.
    pub(crate) fn fail_zone(&mut self, zone: usize, behavior: Behavior, rules: &mut Rules) {
        for endpoint in &self.topology.pools[0].zones[zone].endpoints {
            self.world.schedule(self.world.now(), endpoint.address, behavior);
        }
        self.run(self.detection_at_most(Class::Silent), rules);
        let down = self.topology.pools[0].zones[zone].endpoints.len();
        assert_eq!(rules.verdicts.len(), down);
    }

    fn id_of(&mut self, address: SocketAddr) -> EndpointId {
        let all = self.world.director().endpoints();
        let status = all.iter().find(|status| status.subject.address == address);
        status.expect("known").subject.endpoint
    }
}

fn place(text: &str) -> Place {
    Place::parse(text).expect("a place")
}

fn address(host: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (host >> 8) as u8, host as u8], 9_000))
}

fn zone(name: &str, hosts: &[u16]) -> ZoneSpec {
    let endpoints = hosts.iter().map(|&host| EndpointSpec { address: address(host), weight: 1 });
    ZoneSpec { place: place(name), endpoints: endpoints.collect() }
}

fn pool_spec(name: &str, detect: Detect) -> PoolSpec {
    PoolSpec {
        probes: vec![ProbeSpec::http(HttpProbe::get("/healthz"))],
        detect,
        ..PoolSpec::new(name, Vec::new())
    }
}
