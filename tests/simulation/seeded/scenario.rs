//! Random small worlds and their random events.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use gapless::logic::director::EndpointStatus;
use gapless::logic::health::endpoint_health::Health;
use gapless::logic::model::id::EndpointId;
use gapless::logic::model::outcome::FailureClass;
use gapless::logic::model::topology::{DetectionSpec, PoolSpec, RecoverySpec, Topology};
use gapless::logic::probing::detection_window;
use gapless::sim::latency::LatencyModel;
use gapless::sim::predict::FaultKind;
use gapless::sim::world::{
    ArrivalSpacing, EndpointBehavior, FaultyRequests, OfferedLoad, Simulation, SimulationSettings,
};

use super::invariants::InvariantChecker;
use super::topology_generator::{TopologyGenerator, ms, pool_spec, zone};

/// The longest wait of a request at an endpoint that is slow or drops packets.
const MAX_REQUEST_DURATION: Duration = ms(3_000);

/// Time for the trials of all endpoints of a pool at the least rate.
const MAX_TRIALS_DURATION: Duration = ms(15_000);

pub(crate) const HEALTHY: EndpointBehavior = healthy(1);

pub(crate) const fn healthy(latency_ms: u64) -> EndpointBehavior {
    EndpointBehavior::Healthy { latency: LatencyModel::Fixed(ms(latency_ms)) }
}

/// A world and the state that random events need.
pub(crate) struct SimulationScenario {
    pub(crate) simulation: Simulation,
    generator: TopologyGenerator,
    settings: SimulationSettings,
    topology: Topology,
    /// Traffic may hasten or delay verdicts; without it the closed form is exact.
    has_traffic: bool,
    /// Control is stalled until then.
    control_stalled_until: Instant,
}

impl SimulationScenario {
    /// A world of any kind.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let grain = if rng.bool() { ms(1) } else { Duration::from_nanos(1) };
        let reorder = if rng.bool() { ms(rng.u64(..30)) } else { Duration::ZERO };
        let (probe_loss, traffic_loss) =
            if rng.bool() { (0.3 * rng.f64(), 0.03 * rng.f64()) } else { (0.0, 0.0) };
        let settings = SimulationSettings {
            seed,
            time_granularity: grain,
            max_report_delay: reorder,
            probe_loss,
            traffic_loss,
            ..SimulationSettings::default()
        };
        let has_traffic = rng.bool();
        let pools = if has_traffic { rng.usize(1..3) } else { 1 };
        let rate_rps = 30.0 + rng.f64() * 270.0;
        let mut generator = TopologyGenerator::new(Rng::with_seed(seed ^ 0x5eed));
        let mut topology = generator.random_topology(pools);
        for pool in &mut topology.pools {
            let evict = generator.random_evict();
            *pool = Arc::new(PoolSpec { eviction: evict, ..PoolSpec::clone(pool) });
        }
        let mut scenario = Self::from_parts(settings, generator, topology);
        if has_traffic {
            scenario.add_traffic(rate_rps, 0.3);
        }
        scenario
    }

    /// Probes alone, on a network without loss or reordering.
    pub(crate) fn without_traffic(seed: u64) -> Self {
        let mut generator = TopologyGenerator::new(Rng::with_seed(seed));
        let topology = generator.random_topology(1);
        Self::from_parts(
            SimulationSettings { seed, ..SimulationSettings::default() },
            generator,
            topology,
        )
    }

    /// Two zones of equal endpoints under steady traffic with every hundredth request a POST.
    pub(crate) fn two_zones_with_traffic(seed: u64) -> Self {
        let mut scenario = Self::two_zones_without_traffic(
            SimulationSettings { seed, ..SimulationSettings::default() },
            DetectionSpec::default(),
        );
        scenario.simulation.run_until(scenario.simulation.now() + ms(20));
        scenario.add_traffic(200.0, 0.01);
        scenario
    }

    /// Two zones of three endpoints without traffic.
    pub(crate) fn two_zones_without_traffic(
        settings: SimulationSettings,
        detect: DetectionSpec,
    ) -> Self {
        let pool = PoolSpec {
            zones: vec![zone("r/a", &[1, 2, 3]), zone("r/b", &[4, 5, 6])],
            recovery: RecoverySpec { hold_down_max: ms(2_000), ..RecoverySpec::default() },
            ..pool_spec("web", detect)
        };
        let topology = Topology { pools: vec![Arc::new(pool)], ..Topology::default() };
        let generator = TopologyGenerator::new(Rng::with_seed(settings.seed));
        Self::from_parts(settings, generator, topology)
    }

    fn from_parts(
        settings: SimulationSettings,
        generator: TopologyGenerator,
        topology: Topology,
    ) -> Self {
        let base = Instant::now();
        let mut simulation = Simulation::new(base, settings.clone());
        simulation.configure(topology.clone());
        Self {
            simulation,
            generator,
            settings,
            topology,
            has_traffic: false,
            control_stalled_until: base,
        }
    }

    /// A world of this topology.
    pub(crate) fn with_topology(settings: SimulationSettings, topology: Topology) -> Self {
        let generator = TopologyGenerator::new(Rng::with_seed(settings.seed));
        Self::from_parts(settings, generator, topology)
    }

    pub(crate) fn add_traffic(&mut self, rate_rps: f64, post_share: f64) {
        self.add_faulty_traffic(rate_rps, post_share, None);
    }

    pub(crate) fn add_faulty_traffic(
        &mut self,
        rate_rps: f64,
        post_share: f64,
        faulty: Option<FaultyRequests>,
    ) {
        self.has_traffic = true;
        let spacing = if self.generator.rng.bool() {
            ArrivalSpacing::Even
        } else {
            ArrivalSpacing::Exponential
        };
        for pool in &self.topology.pools {
            let pool = Arc::clone(&pool.name);
            self.simulation.add_load(OfferedLoad { pool, rate_rps, spacing, post_share, faulty });
        }
    }

    /// One random event, and some time after it.
    pub(crate) fn random_step(&mut self, checker: &mut InvariantChecker) {
        match self.generator.rng.u32(..12) {
            0..5 => {
                let behavior = self.random_behavior();
                if let Some(address) = self.random_address() {
                    self.simulation.schedule(self.simulation.now(), address, behavior);
                }
            }
            5 | 6 => {
                let behavior = self.random_behavior();
                let pool = self.generator.rng.usize(..self.topology.pools.len());
                let zones = &self.topology.pools[pool].zones;
                for endpoint in &zones[self.generator.rng.usize(..zones.len())].endpoints {
                    let now = self.simulation.now();
                    self.simulation.schedule(now, endpoint.address, behavior.clone());
                }
            }
            7 => {
                for address in self.addresses() {
                    self.simulation.schedule(self.simulation.now(), address, HEALTHY);
                }
            }
            8 => {
                let time = ms(self.generator.rng.u64(1..3_000));
                self.simulation.stall_control(time);
                self.control_stalled_until =
                    self.control_stalled_until.max(self.simulation.now() + time);
            }
            _ => self.reload(checker),
        }
        let pause = ms(self.generator.rng.u64(1..2_500));
        self.run_for(pause, checker);
    }

    fn random_behavior(&mut self) -> EndpointBehavior {
        let rng = &mut self.generator.rng;
        match rng.usize(..FaultKind::ALL.len() + 4) {
            0 => EndpointBehavior::SlowTraffic { latency: ms(rng.u64(100..3_000)) },
            1 => EndpointBehavior::Degraded,
            2 | 3 => healthy(rng.u64(..8)),
            fault => FaultKind::ALL[fault - 4].behavior(),
        }
    }

    fn reload(&mut self, checker: &mut InvariantChecker) {
        self.generator.mutate(&mut self.topology);
        checker.check_new_records(&mut self.simulation);
        self.simulation.configure(self.topology.clone());
        checker.check_new_records(&mut self.simulation);
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let zones = self.topology.pools.iter().flat_map(|pool| &pool.zones);
        zones.flat_map(|zone| &zone.endpoints).map(|endpoint| endpoint.address).collect()
    }

    fn random_address(&mut self) -> Option<SocketAddr> {
        let all = self.addresses();
        self.generator.rng.choice(all)
    }

    pub(crate) fn run_for(&mut self, time: Duration, checker: &mut InvariantChecker) {
        self.simulation.run_until(self.simulation.now() + time);
        checker.check_new_records(&mut self.simulation);
    }

    /// Runs until every timer has its own phase.
    pub(crate) fn settle(&mut self, checker: &mut InvariantChecker) {
        let longest = self.topology.pools.iter().map(|pool| pool.detect.interval).max();
        let phase = ms(self.generator.rng.u64(..1_000));
        self.run_for(longest.unwrap_or_default() + phase, checker);
    }

    /// Heals everything. Within the return bound every endpoint must be up.
    pub(crate) fn heal(&mut self, checker: &mut InvariantChecker) {
        let remaining_stall =
            self.control_stalled_until.saturating_duration_since(self.simulation.now());
        self.run_for(remaining_stall, checker);
        self.simulation.set_loss(0.0, 0.0);
        let now = self.simulation.now();
        for address in self.addresses() {
            if self.simulation.behavior(address) != HEALTHY {
                self.simulation.schedule(now, address, HEALTHY);
            }
        }
        let end = self.simulation.now() + self.max_recovery_time();
        while !self.unrecovered().is_empty() && self.simulation.now() < end {
            self.run_for(ms(200), checker);
        }
        let missing = self.unrecovered();
        assert!(missing.is_empty(), "not back after {:?}: {missing:?}", self.max_recovery_time());
    }

    /// Endpoints that do not serve, and pools in panic.
    fn unrecovered(&mut self) -> Vec<String> {
        let is_back = |status: &EndpointStatus| {
            status.is_in_service && matches!(status.health, Health::Up | Health::Suspect { .. })
        };
        let all = self.simulation.director().endpoints();
        let missing = all.iter().filter(|status| !is_back(status));
        let missing =
            missing.map(|status| format!("{} {:?}", status.subject.address, status.health));
        let pools = self.simulation.snapshot().pools.iter().filter(|pool| pool.is_panicking);
        missing.chain(pools.map(|pool| format!("panic in {}", pool.spec.name))).collect()
    }

    /// A down endpoint waits for its period, then passes in a row. A probe under way at
    /// the heal may still fail, and a suspect may go down for that, or for
    /// a request under way. An endpoint that traffic put down needs trials, one request each.
    fn max_recovery_time(&self) -> Duration {
        let pool_recovery_time = |pool: &Arc<PoolSpec>| {
            let detect = &pool.detect;
            let consecutive_passes =
                detect.fast_interval.max(self.max_probe_round_trip()) * (detect.up_after - 1);
            let in_flight =
                if self.settings.probe_loss > 0.0 { detect.timeout } else { Duration::ZERO };
            let passes = detect.down_interval
                + consecutive_passes
                + self.max_probe_round_trip() * detect.up_after;
            // After enough passes the next check is the end of the hold-down, its own or its
            // zone's.
            let hold_down = pool.recovery.hold_down_max.max(pool.recovery.hold_down);
            in_flight
                + passes
                + hold_down
                + 2 * detect.fast_interval.max(self.max_probe_round_trip())
        };
        let longest = self.topology.pools.iter().map(pool_recovery_time).max();
        let longest = longest.unwrap_or_default();
        if self.has_traffic {
            MAX_REQUEST_DURATION + longest + MAX_TRIALS_DURATION
        } else {
            longest
        }
    }

    /// From the start of a probe until its result reaches the director.
    fn max_probe_round_trip(&self) -> Duration {
        self.settings.round_trip.mul_f64(2.0 * (1.0 + self.settings.round_trip_jitter))
            + ms(1)
            + self.settings.max_report_delay
            + 6 * self.settings.time_granularity
    }

    /// The closed form's worst case with the longest exchange.
    pub(crate) fn max_detection_time(&self, class: FailureClass) -> Duration {
        let worst = |pool: &Arc<PoolSpec>| {
            detection_window::detection_bounds(class, &pool.detect, self.max_probe_round_trip())
                .worst
        };
        self.topology.pools.iter().map(worst).max().unwrap_or_default()
    }

    /// Makes one endpoint fail and returns its detection time.
    pub(crate) fn fail_endpoint(
        &mut self,
        behavior: EndpointBehavior,
        checker: &mut InvariantChecker,
    ) -> (SocketAddr, Duration) {
        let address = self.random_address().expect("an endpoint");
        let onset = self.simulation.now();
        self.simulation.schedule(onset, address, behavior);
        let mut detection_time = None;
        while detection_time.is_none()
            && self.simulation.step_until(onset + Duration::from_secs(60))
        {
            checker.check_new_records(&mut self.simulation);
            let id = self.endpoint_id(address);
            let verdict = checker.verdicts.iter().find(|(of, at)| *of == id && *at >= onset);
            detection_time = verdict.map(|(_, at)| *at - onset);
        }
        (address, detection_time.expect("a verdict within a minute"))
    }

    /// Makes a zone fail until all of it is down.
    pub(crate) fn fail_zone(
        &mut self,
        zone: usize,
        behavior: &EndpointBehavior,
        checker: &mut InvariantChecker,
    ) {
        for endpoint in &self.topology.pools[0].zones[zone].endpoints {
            self.simulation.schedule(self.simulation.now(), endpoint.address, behavior.clone());
        }
        self.run_for(self.max_detection_time(FailureClass::Silent), checker);
        let down = self.topology.pools[0].zones[zone].endpoints.len();
        assert_eq!(checker.verdicts.len(), down);
    }

    /// Makes a zone fail, and returns the time until none of its endpoints takes traffic.
    pub(crate) fn zone_detection_time(
        &mut self,
        zone: usize,
        fault: FaultKind,
        checker: &mut InvariantChecker,
    ) -> Duration {
        let onset = self.simulation.now();
        let endpoints = self.topology.pools[0].zones[zone].endpoints.clone();
        for endpoint in &endpoints {
            self.simulation.schedule(onset, endpoint.address, fault.behavior());
        }
        let failing: Vec<EndpointId> =
            endpoints.iter().map(|endpoint| self.endpoint_id(endpoint.address)).collect();
        while self.simulation.step_until(onset + Duration::from_secs(30)) {
            checker.check_new_records(&mut self.simulation);
            let has_verdict = |id| checker.verdicts.iter().any(|(of, _)| of == id);
            if failing.iter().all(has_verdict) {
                break;
            }
        }
        self.simulation.now() - onset
    }

    fn endpoint_id(&mut self, address: SocketAddr) -> EndpointId {
        let all = self.simulation.director().endpoints();
        let status = all.iter().find(|status| status.subject.address == address);
        status.expect("known").subject.endpoint
    }
}
