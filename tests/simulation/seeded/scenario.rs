//! Random small worlds and what befalls them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use gapless::logic::director::EndpointStatus;
use gapless::logic::health::Health;
use gapless::logic::id::EndpointId;
use gapless::logic::outcome::Class;
use gapless::logic::topology::{Detect, PoolSpec, Recover, Topology};
use gapless::logic::window;
use gapless::sim::latency::Latency;
use gapless::sim::predict::Fault;
use gapless::sim::world::{Behavior, Offer, Settings, Spacing, World};

use super::rules::Rules;
use super::topologies::{Maker, ms, pool_spec, zone};

/// The longest that a request waits for an endpoint that is slow or drops its packets.
const UNDER_WAY: Duration = ms(3_000);

/// Time for the trials of all endpoints of a pool at the least rate.
const TRIALS: Duration = ms(15_000);

pub(crate) const HEALTHY: Behavior = healthy(1);

pub(crate) const fn healthy(latency_ms: u64) -> Behavior {
    Behavior::Healthy { latency: Latency::Fixed(ms(latency_ms)) }
}

/// A world, and what a random course of events needs to know of it.
pub(crate) struct Scenario {
    pub(crate) world: World,
    maker: Maker,
    settings: Settings,
    topology: Topology,
    /// Traffic may bring verdicts forward and hold them up; without it the closed form is exact.
    has_traffic: bool,
    /// Control stands still until then.
    attended_from: Instant,
}

impl Scenario {
    /// Anything may be in it.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let grain = if rng.bool() { ms(1) } else { Duration::from_nanos(1) };
        let reorder = if rng.bool() { ms(rng.u64(..30)) } else { Duration::ZERO };
        let (probe_loss, traffic_loss) =
            if rng.bool() { (0.3 * rng.f64(), 0.03 * rng.f64()) } else { (0.0, 0.0) };
        let settings =
            Settings { seed, grain, reorder, probe_loss, traffic_loss, ..Settings::default() };
        let has_traffic = rng.bool();
        let pools = if has_traffic { rng.usize(1..3) } else { 1 };
        let rate_rps = 30.0 + rng.f64() * 270.0;
        let mut maker = Maker::new(Rng::with_seed(seed ^ 0x5eed));
        let mut topology = maker.topology(pools);
        for pool in &mut topology.pools {
            let evict = maker.evict();
            *pool = Arc::new(PoolSpec { evict, ..PoolSpec::clone(pool) });
        }
        let mut scenario = Self::with(settings, maker, topology);
        if has_traffic {
            scenario.offer(rate_rps, 0.3);
        }
        scenario
    }

    /// Probes alone, on a network that keeps their order and loses nothing.
    pub(crate) fn quiet(seed: u64) -> Self {
        let mut maker = Maker::new(Rng::with_seed(seed));
        let topology = maker.topology(1);
        Self::with(Settings { seed, ..Settings::default() }, maker, topology)
    }

    /// Two zones of equal endpoints under steady traffic with every hundredth request a POST.
    pub(crate) fn steady(seed: u64) -> Self {
        let mut scenario = Self::idle(Settings { seed, ..Settings::default() }, Detect::default());
        scenario.world.run_until(scenario.world.now() + ms(20));
        scenario.offer(200.0, 0.01);
        scenario
    }

    /// Two zones of three endpoints without traffic.
    pub(crate) fn idle(settings: Settings, detect: Detect) -> Self {
        let pool = PoolSpec {
            zones: vec![zone("r/a", &[1, 2, 3]), zone("r/b", &[4, 5, 6])],
            recover: Recover { hold_down_max: ms(2_000), ..Recover::default() },
            ..pool_spec("web", detect)
        };
        let topology = Topology { pools: vec![Arc::new(pool)], ..Topology::default() };
        let maker = Maker::new(Rng::with_seed(settings.seed));
        Self::with(settings, maker, topology)
    }

    fn with(settings: Settings, maker: Maker, topology: Topology) -> Self {
        let base = Instant::now();
        let mut world = World::new(base, settings.clone());
        world.configure(topology.clone());
        Self { world, maker, settings, topology, has_traffic: false, attended_from: base }
    }

    pub(crate) fn offer(&mut self, rate_rps: f64, post_share: f64) {
        self.has_traffic = true;
        let spacing = if self.maker.rng.bool() { Spacing::Even } else { Spacing::Exponential };
        for pool in &self.topology.pools {
            let pool = Arc::clone(&pool.name);
            self.world.offer(Offer { pool, rate_rps, spacing, post_share });
        }
    }

    /// One thing that happens, and some time after it.
    pub(crate) fn step(&mut self, rules: &mut Rules) {
        match self.maker.rng.u32(..12) {
            0..5 => {
                let behavior = self.random_behavior();
                if let Some(address) = self.random_address() {
                    self.world.schedule(self.world.now(), address, behavior);
                }
            }
            5 | 6 => {
                let behavior = self.random_behavior();
                let pool = self.maker.rng.usize(..self.topology.pools.len());
                let zones = &self.topology.pools[pool].zones;
                for endpoint in &zones[self.maker.rng.usize(..zones.len())].endpoints {
                    let now = self.world.now();
                    self.world.schedule(now, endpoint.address, behavior.clone());
                }
            }
            7 => {
                for address in self.addresses() {
                    self.world.schedule(self.world.now(), address, HEALTHY);
                }
            }
            8 => {
                let time = ms(self.maker.rng.u64(1..3_000));
                self.world.stall_control(time);
                self.attended_from = self.attended_from.max(self.world.now() + time);
            }
            _ => self.reload(rules),
        }
        let pause = ms(self.maker.rng.u64(1..2_500));
        self.run(pause, rules);
    }

    fn random_behavior(&mut self) -> Behavior {
        let rng = &mut self.maker.rng;
        match rng.usize(..Fault::ALL.len() + 4) {
            0 => Behavior::SlowTraffic { latency: ms(rng.u64(100..3_000)) },
            1 => Behavior::Degraded,
            2 | 3 => healthy(rng.u64(..8)),
            fault => Fault::ALL[fault - 4].behavior(),
        }
    }

    fn reload(&mut self, rules: &mut Rules) {
        self.maker.change(&mut self.topology);
        rules.watch(&mut self.world);
        self.world.configure(self.topology.clone());
        rules.watch(&mut self.world);
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let zones = self.topology.pools.iter().flat_map(|pool| &pool.zones);
        zones.flat_map(|zone| &zone.endpoints).map(|endpoint| endpoint.address).collect()
    }

    fn random_address(&mut self) -> Option<SocketAddr> {
        let all = self.addresses();
        self.maker.rng.choice(all)
    }

    pub(crate) fn run(&mut self, time: Duration, rules: &mut Rules) {
        self.world.run_until(self.world.now() + time);
        rules.watch(&mut self.world);
    }

    /// Until every timer runs at its own phase.
    pub(crate) fn settle(&mut self, rules: &mut Rules) {
        let longest = self.topology.pools.iter().map(|pool| pool.detect.interval).max();
        let phase = ms(self.maker.rng.u64(..1_000));
        self.run(longest.unwrap_or_default() + phase, rules);
    }

    /// Heals everything, the network too. After the bound of return every endpoint must be up.
    pub(crate) fn heal(&mut self, rules: &mut Rules) {
        let unattended = self.attended_from.saturating_duration_since(self.world.now());
        self.run(unattended, rules);
        self.world.lose(0.0, 0.0);
        let now = self.world.now();
        for address in self.addresses() {
            if self.world.behavior(address) != HEALTHY {
                self.world.schedule(now, address, HEALTHY);
            }
        }
        let end = self.world.now() + self.return_at_most();
        while !self.missing().is_empty() && self.world.now() < end {
            self.run(ms(200), rules);
        }
        let missing = self.missing();
        assert!(missing.is_empty(), "not back after {:?}: {missing:?}", self.return_at_most());
    }

    /// Who does not serve, and which pools are in panic.
    fn missing(&mut self) -> Vec<String> {
        let is_back = |status: &EndpointStatus| {
            status.in_service && matches!(status.health, Health::Up | Health::Suspect { .. })
        };
        let all = self.world.director().endpoints();
        let missing = all.iter().filter(|status| !is_back(status));
        let missing =
            missing.map(|status| format!("{} {:?}", status.subject.address, status.health));
        let pools = self.world.snapshot().pools.iter().filter(|pool| pool.panic);
        missing.chain(pools.map(|pool| format!("panic in {}", pool.spec.name))).collect()
    }

    /// A down endpoint waits for its period, then passes in a row. A probe that was under way when
    /// it healed may fail yet, and an endpoint that is suspect may go down for that; so it may for
    /// a request that was under way. What traffic put down takes trials, one request each.
    fn return_at_most(&self) -> Duration {
        let of = |pool: &Arc<PoolSpec>| {
            let detect = &pool.detect;
            let row = detect.fast_interval.max(self.answer()) * (detect.up_after - 1);
            let under_way =
                if self.settings.probe_loss > 0.0 { detect.timeout } else { Duration::ZERO };
            let passes = detect.down_interval + row + self.answer() * detect.up_after;
            // What has passed often enough looks again at the end of its hold-down, or its zone's.
            let held = pool.recover.hold_down_max.max(pool.recover.hold_down);
            under_way + passes + held + 2 * detect.fast_interval.max(self.answer())
        };
        let longest = self.topology.pools.iter().map(of).max();
        let longest = longest.unwrap_or_default();
        if self.has_traffic { UNDER_WAY + longest + TRIALS } else { longest }
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
    pub(crate) fn fail_zone(&mut self, zone: usize, behavior: &Behavior, rules: &mut Rules) {
        for endpoint in &self.topology.pools[0].zones[zone].endpoints {
            self.world.schedule(self.world.now(), endpoint.address, behavior.clone());
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
