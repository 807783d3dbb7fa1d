//! A small pool that stands for a large one, and one trial on it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::director::Event;
use crate::logic::health::Change;
use crate::logic::id::Place;
use crate::logic::steer::{self, Way};
use crate::logic::topology::{EndpointSpec, PoolSpec, Topology, ZoneSpec};

use super::{Fault, Scope};
use crate::sim::world::{Offer, Settings, Spacing, What, World};

/// Endpoints of a sample. Each endpoint has its own timer and its own row of strikes, so that a
/// thousand of them fail no differently than a dozen, only the last of them later.
const ENDPOINTS_AT_MOST: usize = 12;

/// Zones of a sample.
const ZONES_AT_MOST: usize = 4;

/// Requests that each endpoint should have had before the failure: idle connections are open then.
const WARM_REQUESTS: f64 = 4.0;

/// Requests a second to one endpoint, at most: more tells of a failure no earlier, for between two
/// of them lies no more than a round trip.
const RATE_AT_MOST_RPS: f64 = 1_000.0;

/// The share of requests that must not run twice.
pub(super) const POST_SHARE: f64 = 0.2;

/// Traffic runs this long before a failure, at most.
const WARM_AT_MOST: Duration = Duration::from_secs(30);

/// The small pool.
pub(super) struct Sample {
    topology: Topology,
    /// The zone that fails, as an index into the sample.
    zone: usize,
    /// How many times the real zone is as large as the sample's.
    pub(super) zone_groups: f64,
    /// Requests a second to the sample.
    rate_rps: Option<f64>,
}

/// A failure that is to be tried.
pub(super) struct Onset {
    pub(super) scope: Scope,
    pub(super) fault: Fault,
    /// When it begins, from the end of the warm-up.
    pub(super) phase: Duration,
    /// The verdict is waited for this long.
    pub(super) patience: Duration,
}

/// What came of a trial.
pub(super) struct Ended {
    /// From the onset to the last verdict, if there was one.
    pub(super) took: Option<Duration>,
    /// Turns of the director.
    pub(super) turns: u64,
}

/// The zone whose failure is predicted: the largest of the nearest tier, where traffic is.
pub(super) fn zone(pool: &PoolSpec, here: Option<&Place>) -> usize {
    let nearest = nearest_tier(pool, here);
    // The first of equals.
    let largest = nearest.into_iter().rev().max_by_key(|&zone| pool.zones[zone].endpoints.len());
    largest.unwrap_or(0)
}

impl Sample {
    /// Cuts the topology's only pool down. Without traffic one zone is all that matters (and a
    /// neighbour, if there is one, so that the pool survives); with it all of them are, for they
    /// take over what the failing one leaves.
    pub(super) fn of(topology: &Topology, traffic_rps: Option<f64>) -> Self {
        let failing = zone(&topology.pools[0], topology.here.as_ref());
        Self::with(topology, failing, traffic_rps)
    }

    /// The same, where this zone is the one that fails.
    pub(super) fn with(topology: &Topology, failing: usize, traffic_rps: Option<f64>) -> Self {
        let pool = &topology.pools[0];
        let here = topology.here.as_ref();
        let is_other = |&zone: &usize| zone != failing && !pool.zones[zone].endpoints.is_empty();
        let others = (0..pool.zones.len()).filter(is_other);
        let neighbours = if traffic_rps.is_some() { ZONES_AT_MOST - 1 } else { 1 };
        let mut kept: Vec<usize> = others.take(neighbours).collect();
        kept.push(failing);
        kept.sort_unstable();
        let total: usize = kept.iter().map(|&zone| pool.zones[zone].endpoints.len()).sum();
        let cut = |&index: &usize| {
            let zone = &pool.zones[index];
            let all = zone.endpoints.len();
            let left = match traffic_rps {
                Some(_) if total <= ENDPOINTS_AT_MOST => all,
                Some(_) => (all * ENDPOINTS_AT_MOST / total).max(1),
                None if index == failing => all.min(ENDPOINTS_AT_MOST - 1),
                None => 1,
            };
            ZoneSpec { endpoints: zone.endpoints[..left].to_vec(), ..zone.clone() }
        };
        let zones: Vec<ZoneSpec> = kept.iter().map(cut).collect();
        let position = kept.iter().position(|&zone| zone == failing).unwrap_or(0);
        let (large, small) = (&pool.zones[failing].endpoints, &zones[position].endpoints);
        let zone_groups = large.len() as f64 / small.len() as f64;
        let small = PoolSpec { zones, ..PoolSpec::clone(pool) };
        // Every endpoint gets what it would get in the whole pool.
        let rate_rps = traffic_rps.map(|rate_rps| {
            let kept = nearest_weight(&small, here) as f64 / nearest_weight(pool, here) as f64;
            (rate_rps * kept).min(RATE_AT_MOST_RPS * nearest_endpoints(&small, here) as f64)
        });
        let topology =
            Topology { here: here.cloned(), pools: vec![Arc::new(small)], ..Topology::default() };
        Self { topology, zone: position, zone_groups, rate_rps }
    }

    pub(super) fn pool(&self) -> &PoolSpec {
        &self.topology.pools[0]
    }

    /// Requests a second to the sample, if it has traffic.
    pub(super) fn rate_rps(&self) -> Option<f64> {
        self.rate_rps
    }

    pub(super) fn endpoints(&self) -> usize {
        self.pool().zones.iter().map(|zone| zone.endpoints.len()).sum()
    }

    /// Lets the failure begin in a warm world, and waits for the last verdict.
    pub(super) fn trial(
        &self,
        settings: Settings,
        base: Instant,
        failure: &Onset,
        rng: &mut Rng,
    ) -> Ended {
        let mut world = World::new(base, settings);
        let topology = self.renamed(rng);
        let zone = topology.pools[0].zones[self.zone].endpoints.clone();
        world.configure(topology);
        let warm = self.warm_up();
        let onset = base + self.pool().detect.interval.max(warm) + failure.phase;
        if let Some(rate_rps) = self.rate_rps {
            world.run_until(onset - warm);
            let pool = Arc::clone(&self.pool().name);
            let spacing = Spacing::Exponential;
            world.offer(Offer { pool, rate_rps, spacing, post_share: POST_SHARE });
        }
        world.run_until(onset);
        let failing = match failure.scope {
            Scope::Endpoint => vec![zone[rng.usize(..zone.len())]],
            Scope::Zone => zone,
        };
        for endpoint in &failing {
            world.schedule(onset, endpoint.address, failure.fault.behavior());
        }
        world.take_log();
        let place = &self.pool().zones[self.zone].place;
        let mut left: Vec<SocketAddr> = failing.iter().map(|endpoint| endpoint.address).collect();
        while !left.is_empty() && world.turn(onset + failure.patience) {
            for mark in world.take_log() {
                left.retain(|address| !is_verdict(&mark.what, *address, place));
            }
        }
        Ended { took: left.is_empty().then(|| world.now() - onset), turns: world.turns() }
    }

    fn warm_up(&self) -> Duration {
        let Some(rate_rps) = self.rate_rps else { return Duration::ZERO };
        let seconds = WARM_REQUESTS * self.endpoints() as f64 / rate_rps;
        Duration::try_from_secs_f64(seconds).unwrap_or(WARM_AT_MOST).min(WARM_AT_MOST)
    }

    /// The same pool with made-up addresses. Phases follow from addresses, and in a process that
    /// runs for long the jitter makes them independent of each other; drawn anew for every trial
    /// they are so from the start.
    pub(super) fn renamed(&self, rng: &mut Rng) -> Topology {
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
            here: self.topology.here.clone(),
            pools: vec![Arc::new(pool)],
            ..Topology::default()
        }
    }
}

/// Whether this is a verdict down that covers the endpoint at `address`: its own, or its zone's.
fn is_verdict(what: &What, address: SocketAddr, zone: &Place) -> bool {
    match what {
        What::Event(Event::Health { subject, change: Change::WentDown, .. }) => {
            subject.address == address
        }
        What::Event(Event::Zone { place, verdict: Some(_), .. }) => place == zone,
        _ => false,
    }
}

/// The zones of the nearest tier that has any endpoint: what names lead to may not be known yet.
fn nearest_tier(pool: &PoolSpec, here: Option<&Place>) -> Vec<usize> {
    let has_some =
        |tier: &Vec<usize>| tier.iter().any(|&zone| !pool.zones[zone].endpoints.is_empty());
    let way = Way::By(pool.steer.policy);
    steer::tiers(pool, &way, here, &[]).into_iter().find(has_some).unwrap_or_default()
}

fn nearest(pool: &PoolSpec, here: Option<&Place>) -> Vec<EndpointSpec> {
    nearest_tier(pool, here)
        .into_iter()
        .flat_map(|zone| pool.zones[zone].endpoints.clone())
        .collect()
}

fn nearest_weight(pool: &PoolSpec, here: Option<&Place>) -> u64 {
    nearest(pool, here).iter().map(|endpoint| u64::from(endpoint.weight)).sum()
}

fn nearest_endpoints(pool: &PoolSpec, here: Option<&Place>) -> usize {
    nearest(pool, here).len()
}
