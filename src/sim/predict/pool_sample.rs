//! A small pool that represents a large one, and one trial on it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::director::Event;
use crate::logic::health::endpoint_health::HealthTransition;
use crate::logic::model::id::Locality;
use crate::logic::model::topology::{EndpointSpec, PoolSpec, Topology, ZoneSpec};
use crate::logic::steering;
use crate::logic::steering::SteeringVariant;

use super::{FaultKind, FaultScope};
use crate::sim::world::{
    ArrivalSpacing, OfferedLoad, Simulation, SimulationEvent, SimulationSettings,
};

/// The maximum number of endpoints. Each endpoint has its own timer and strikes, so that a thousand
/// of them fail as a dozen do, only the last of them later.
const MAX_ENDPOINTS: usize = 12;

/// The maximum number of zones.
const MAX_ZONES: usize = 4;

/// Requests to each endpoint before the failure, so that idle connections are open.
const WARMUP_REQUESTS: f64 = 4.0;

/// The maximum of requests per second to one endpoint. More would detect a failure no earlier: two
/// of them are less than a round trip apart.
const MAX_RATE_RPS: f64 = 1_000.0;

/// The maximum time from the exit of a process until the kernel has closed its connections.
const MAX_EXIT_TIME: Duration = Duration::from_millis(2);

/// The share of requests that must not run twice.
pub(super) const POST_SHARE: f64 = 0.2;

/// The maximum time of traffic before a failure.
const MAX_WARMUP: Duration = Duration::from_secs(30);

pub(super) struct PoolSample {
    topology: Topology,
    /// The index of the failing zone in the sample.
    failing_zone: usize,
    /// The size of the real zone in sizes of the sample's.
    pub(super) zone_groups: f64,
    /// Requests per second to the sample.
    rate_rps: Option<f64>,
}

/// The failure of one trial.
pub(super) struct FaultOnset {
    pub(super) scope: FaultScope,
    pub(super) fault: FaultKind,
    /// When it begins, from the end of the warm-up.
    pub(super) phase: Duration,
    /// The time limit for the verdict.
    pub(super) timeout: Duration,
    /// The time with traffic before it; see [`super::PredictionInput`].
    pub(super) warm_up: Option<Duration>,
}

/// The result of one trial.
pub(super) struct TrialResult {
    /// From the onset to the last verdict, if there was one.
    pub(super) detection_time: Option<Duration>,
    /// Turns of the director.
    pub(super) steps: u64,
}

/// The zone whose failure is predicted: the largest of the first tier, where traffic is.
pub(super) fn default_failing_zone(pool: &PoolSpec, local_zone: Option<&Locality>) -> usize {
    let nearest = first_tier(pool, local_zone);
    // The first of equals.
    let largest = nearest.into_iter().rev().max_by_key(|&zone| pool.zones[zone].endpoints.len());
    largest.unwrap_or(0)
}

impl PoolSample {
    /// Reduces the topology's only pool. Without traffic one zone matters (and a neighbour, if
    /// there is one, so that the pool survives). With traffic all zones do, because they take over
    /// what the failing one leaves.
    pub(super) fn from_topology(topology: &Topology, traffic_rps: Option<f64>) -> Self {
        let failing = default_failing_zone(&topology.pools[0], topology.local.as_ref());
        Self::with_failing_zone(topology, failing, traffic_rps)
    }

    /// The same with this failing zone.
    pub(super) fn with_failing_zone(
        topology: &Topology,
        failing: usize,
        traffic_rps: Option<f64>,
    ) -> Self {
        let pool = &topology.pools[0];
        let local_zone = topology.local.as_ref();
        let is_other = |&zone: &usize| zone != failing && !pool.zones[zone].endpoints.is_empty();
        let others = (0..pool.zones.len()).filter(is_other);
        let neighbours = if traffic_rps.is_some() { MAX_ZONES - 1 } else { 1 };
        let mut kept_zones: Vec<usize> = others.take(neighbours).collect();
        kept_zones.push(failing);
        kept_zones.sort_unstable();
        let total: usize = kept_zones.iter().map(|&zone| pool.zones[zone].endpoints.len()).sum();
        let reduce_zone = |&index: &usize| {
            let zone = &pool.zones[index];
            let all = zone.endpoints.len();
            let left = match traffic_rps {
                Some(_) if total <= MAX_ENDPOINTS => all,
                Some(_) => (all * MAX_ENDPOINTS / total).max(1),
                None if index == failing => all.min(MAX_ENDPOINTS - 1),
                None => 1,
            };
            ZoneSpec { endpoints: zone.endpoints[..left].to_vec(), ..zone.clone() }
        };
        let zones: Vec<ZoneSpec> = kept_zones.iter().map(reduce_zone).collect();
        let position = kept_zones.iter().position(|&zone| zone == failing).unwrap_or(0);
        let (large, small) = (&pool.zones[failing].endpoints, &zones[position].endpoints);
        let zone_groups = large.len() as f64 / small.len() as f64;
        let small = PoolSpec { zones, ..PoolSpec::clone(pool) };
        // Every endpoint receives the rate that it has in the whole pool.
        let rate_rps = traffic_rps.map(|rate_rps| {
            let kept = first_tier_weight(&small, local_zone) as f64
                / first_tier_weight(pool, local_zone) as f64;
            (rate_rps * kept)
                .min(MAX_RATE_RPS * first_tier_endpoint_count(&small, local_zone) as f64)
        });
        let topology = Topology {
            local: local_zone.cloned(),
            pools: vec![Arc::new(small)],
            ..Topology::default()
        };
        Self { topology, failing_zone: position, zone_groups, rate_rps }
    }

    pub(super) fn pool(&self) -> &PoolSpec {
        &self.topology.pools[0]
    }

    /// Requests per second to the sample, if it has traffic.
    pub(super) fn rate_rps(&self) -> Option<f64> {
        self.rate_rps
    }

    pub(super) fn endpoint_count(&self) -> usize {
        self.pool().zones.iter().map(|zone| zone.endpoints.len()).sum()
    }

    /// Starts the failure in a warm simulation, and waits for the last verdict.
    pub(super) fn run_trial(
        &self,
        settings: SimulationSettings,
        base: Instant,
        failure: &FaultOnset,
        rng: &mut Rng,
    ) -> TrialResult {
        let mut world = Simulation::new(base, settings);
        let topology = self.with_random_addresses(rng);
        let zone = topology.pools[0].zones[self.failing_zone].endpoints.clone();
        world.configure(topology);
        let warm =
            failure.warm_up.filter(|_| self.rate_rps.is_some()).unwrap_or_else(|| self.warm_up());
        let onset = base + self.pool().detect.interval.max(warm) + failure.phase;
        if let Some(rate_rps) = self.rate_rps {
            world.run_until(onset - warm);
            let pool = Arc::clone(&self.pool().name);
            let spacing = ArrivalSpacing::Exponential;
            world.add_load(OfferedLoad {
                pool,
                rate_rps,
                spacing,
                post_share: POST_SHARE,
                faulty: None,
            });
        }
        world.run_until(onset);
        let failing = match failure.scope {
            FaultScope::Endpoint => vec![zone[rng.usize(..zone.len())]],
            FaultScope::Zone => zone,
        };
        let max_delay = match (failure.fault, self.rate_rps) {
            (FaultKind::Refused, Some(_)) => MAX_EXIT_TIME,
            _ => Duration::ZERO,
        };
        for endpoint in &failing {
            let at = onset + max_delay.mul_f64(rng.f64());
            world.schedule(at, endpoint.address, failure.fault.behavior());
        }
        world.take_log();
        let place = &self.pool().zones[self.failing_zone].locality;
        let mut pending: Vec<SocketAddr> =
            failing.iter().map(|endpoint| endpoint.address).collect();
        while !pending.is_empty() && world.step_until(onset + failure.timeout) {
            for record in world.take_log() {
                pending.retain(|address| !is_verdict_for(&record.event, *address, place));
            }
        }
        TrialResult {
            detection_time: pending.is_empty().then(|| world.now() - onset),
            steps: world.step_count(),
        }
    }

    fn warm_up(&self) -> Duration {
        let Some(rate_rps) = self.rate_rps else { return Duration::ZERO };
        let seconds = WARMUP_REQUESTS * self.endpoint_count() as f64 / rate_rps;
        Duration::try_from_secs_f64(seconds).unwrap_or(MAX_WARMUP).min(MAX_WARMUP)
    }

    /// The same pool with random addresses. Probe phases follow from addresses, and in a
    /// long-running process jitter makes them independent. Random addresses make them so from the
    /// start.
    pub(super) fn with_random_addresses(&self, rng: &mut Rng) -> Topology {
        let high = rng.u32(..) & 0x00ff_ff00;
        let mut next = 0;
        let mut rename = |endpoint: &EndpointSpec| {
            next += 1;
            let host = Ipv4Addr::from_bits(0x0a00_0000 | high | next);
            EndpointSpec { address: SocketAddr::from((host, rng.u16(1..))), ..*endpoint }
        };
        let zones = self.pool().zones.iter().map(|zone| ZoneSpec {
            endpoints: zone.endpoints.iter().map(&mut rename).collect(),
            ..zone.clone()
        });
        let pool = PoolSpec { zones: zones.collect(), ..self.pool().clone() };
        Topology {
            local: self.topology.local.clone(),
            pools: vec![Arc::new(pool)],
            ..Topology::default()
        }
    }
}

/// Whether this is a verdict down on the endpoint at `address` or on its zone.
fn is_verdict_for(event: &SimulationEvent, address: SocketAddr, zone: &Locality) -> bool {
    match event {
        SimulationEvent::Director(Event::HealthChanged {
            subject,
            change: HealthTransition::WentDown,
            ..
        }) => subject.address == address,
        SimulationEvent::Director(Event::ZoneVerdictChanged {
            place, verdict: Some(_), ..
        }) => place == zone,
        _ => false,
    }
}

/// The zones of the first tier with an endpoint: names may not be resolved yet.
fn first_tier(pool: &PoolSpec, local_zone: Option<&Locality>) -> Vec<usize> {
    let has_some =
        |tier: &Vec<usize>| tier.iter().any(|&zone| !pool.zones[zone].endpoints.is_empty());
    let variant = SteeringVariant::Policy(pool.steer.policy);
    steering::group_into_tiers(pool, &variant, local_zone, &[])
        .into_iter()
        .find(has_some)
        .unwrap_or_default()
}

fn first_tier_endpoints(pool: &PoolSpec, local_zone: Option<&Locality>) -> Vec<EndpointSpec> {
    first_tier(pool, local_zone)
        .into_iter()
        .flat_map(|zone| pool.zones[zone].endpoints.clone())
        .collect()
}

fn first_tier_weight(pool: &PoolSpec, local_zone: Option<&Locality>) -> u64 {
    first_tier_endpoints(pool, local_zone).iter().map(|endpoint| u64::from(endpoint.weight)).sum()
}

fn first_tier_endpoint_count(pool: &PoolSpec, local_zone: Option<&Locality>) -> usize {
    first_tier_endpoints(pool, local_zone).len()
}
