//! The traffic after a loss: the production director computes it from the changed health.
//!
//! The result is the steady state, after all verdicts and ramps.

use std::net::SocketAddr;
use std::ops::DerefMut;
use std::sync::Arc;
use std::time::Instant;

use crate::logic::director::{
    Director, DirectorDriver, EndpointHealthExport, HealthExport, Input, OutlierExport, Output,
    PoolHealthExport, ZoneHealthExport, ZoneStatus, ZoneVerdict,
};
use crate::logic::health::endpoint_health::Health;
use crate::logic::health::recovery::{FlapHistory, Ramp};
use crate::logic::model::id::Locality;
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::model::selector::TopologySelector;
use crate::logic::model::topology::{PoolSpec, Topology, ZoneSpec};
use crate::logic::orders::OperatorOrder;
use crate::logic::overload::pool_loss::{LossProblem, PoolLoss, ZoneLoss};
use crate::logic::steering::{LatencyOrder, ZoneLoad};

/// Whether any pool has a matching endpoint.
pub fn has_target_in_topology(what: &TopologySelector, topology: &Topology) -> bool {
    let zones = topology.pools.iter().flat_map(|pool| &pool.zones);
    let mut all = zones.flat_map(|zone| zone.endpoints.iter().map(move |one| (zone, one)));
    all.any(|(zone, one)| what.covers(&zone.locality, one.address))
}

/// The load of each pool's zones.
pub type ZoneLoads = Vec<(Arc<str>, Locality, ZoneLoad)>;

/// The current state, and the loss.
#[derive(Clone, Debug)]
pub struct WhatIfInput<'q> {
    /// The pools, and the zone of the instance.
    pub topology: &'q Topology,
    /// The health of their endpoints.
    pub health: HealthExport,
    /// Operator orders, besides the configured ones.
    pub orders: Vec<OperatorOrder>,
    /// The current load.
    pub zone_loads: ZoneLoads,
    /// The order of regions by latency, where it is known.
    pub latency_orders: Vec<(Arc<str>, LatencyOrder)>,
    pub lost_targets: &'q [TopologySelector],
}

/// The traffic of one pool, before and after the loss.
#[derive(Clone, Debug)]
pub struct PoolOutlook {
    pub pool: Arc<PoolSpec>,
    /// Requests per second, if the load is known.
    pub rate_rps: Option<f64>,
    pub before: PoolTraffic,
    /// After the loss.
    pub after: PoolTraffic,
    /// Why the pool does not carry its load after the loss.
    pub problems: Vec<LossProblem>,
}

/// The distribution of a pool's traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolTraffic {
    /// Too few endpoints are healthy: every endpoint receives traffic, lost ones too.
    pub is_panic: bool,
    /// In the order of the pool.
    pub zones: Vec<ZoneTraffic>,
}

/// The traffic of one zone.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneTraffic {
    pub place: Locality,
    /// The share of the pool's traffic, in 0..1.
    pub share: f64,
    /// Endpoints that can serve.
    pub serving_count: u32,
    pub endpoint_count: u32,
    /// The stated capacity of the serving endpoints, in requests per second.
    pub capacity_rps: Option<f64>,
}

impl PoolTraffic {
    /// Whether any endpoint can serve.
    pub fn has_serving_endpoint(&self) -> bool {
        self.zones.iter().any(|zone| zone.serving_count > 0)
    }
}

impl PoolOutlook {
    /// The zones and regions whose load would exceed their stated capacity.
    pub fn overloaded(&self) -> impl Iterator<Item = &str> {
        self.problems.iter().filter_map(LossProblem::overloaded)
    }

    /// Whether the pool still carries its load.
    pub fn can_carry_load(&self) -> bool {
        self.problems.is_empty()
    }
}

pub fn all_healthy(topology: &Topology, now: Instant) -> HealthExport {
    let endpoint = |address: SocketAddr| EndpointHealthExport {
        address,
        health: Health::Up,
        outlier: OutlierExport::Normal,
        since: now,
        last_success: Some(now),
        held_until: None,
        flaps: FlapHistory::default(),
        ramp: Ramp::Full,
        unproven_since: None,
        is_degraded: false,
        is_contradicted: false,
        withheld: None,
        cause: None,
        evidence: Vec::new(),
    };
    let zone = |zone: &ZoneSpec| ZoneHealthExport {
        latency_p999: None,
        place: zone.locality.clone(),
        verdict: ZoneVerdict::Up,
        flaps: FlapHistory::default(),
        ramp: Ramp::Full,
        endpoints: zone.endpoints.iter().map(|one| endpoint(one.address)).collect(),
    };
    let pool = |pool: &Arc<PoolSpec>| PoolHealthExport {
        name: Arc::clone(&pool.name),
        is_diverging: false,
        zones: pool.zones.iter().map(zone).collect(),
    };
    HealthExport { pools: topology.pools.iter().map(pool).collect() }
}

/// The traffic of every pool before and after the loss.
pub fn whatif(input: &WhatIfInput<'_>, now: Instant) -> Vec<PoolOutlook> {
    let mut steady = input.health.clone();
    for zone in steady.pools.iter_mut().flat_map(|pool| &mut pool.zones) {
        zone.ramp = Ramp::Full;
        zone.endpoints.iter_mut().for_each(|one| one.ramp = Ramp::Full);
    }
    let mut lost = steady.clone();
    let down = Health::Down { failure: Failure::connect(FailureReason::Refused) };
    for zone in lost.pools.iter_mut().flat_map(|pool| &mut pool.zones) {
        for one in &mut zone.endpoints {
            if input.lost_targets.iter().any(|what| what.covers(&zone.place, one.address)) {
                one.health = down;
            }
        }
    }
    let (before, after) = (steady_state(input, steady, now), steady_state(input, lost, now));
    // Orders are judged by the same function, of the director in production.
    let losses = before.pool_losses(input.lost_targets);
    let traffic = pool_traffic(&before, &losses, |zone| zone.weight_before, now);
    let traffic_after = pool_traffic(&after, &losses, |zone| zone.weight, now);
    let pools = losses.iter().zip(traffic.into_iter().zip(traffic_after));
    let pool_outlook = |(loss, (before, after)): (&PoolLoss, (PoolTraffic, PoolTraffic))| {
        let (pool, rate_rps) = (Arc::clone(&loss.spec), loss.demand.rate_rps());
        PoolOutlook { pool, rate_rps, before, after, problems: loss.problems() }
    };
    pools.map(pool_outlook).collect()
}

/// A director whose outputs change nothing: only the shares that it computes are read.
struct Forecast {
    director: Director,
    now: Instant,
}

impl DirectorDriver for Forecast {
    fn director(&mut self) -> Option<impl DerefMut<Target = Director>> {
        Some(&mut self.director)
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn apply_output(&mut self, _: Output) {}
}

/// A director that has published its view of this health.
fn steady_state(input: &WhatIfInput<'_>, health: HealthExport, now: Instant) -> Director {
    let mut director = Director::new(now, 1);
    let topology = input.topology.clone();
    director.handle(Input::LoadOrders(input.orders.clone()), now);
    director.handle(Input::Configure { topology, routes: Arc::default() }, now);
    director.handle(Input::ImportHealth(health), now);
    director.seed_estimates(&input.zone_loads, &input.latency_orders);
    let mut driver = Forecast { director, now };
    driver.drain_outputs();
    driver.director
}

/// The traffic of every pool; `serving_weight` selects the weight that serves then.
fn pool_traffic(
    director: &Director,
    losses: &[PoolLoss],
    serving_weight: fn(&ZoneLoss) -> u64,
    now: Instant,
) -> Vec<PoolTraffic> {
    let pools = director.pools();
    let zones = director.zones(now);
    let traffic = |(loss, is_panic): (&PoolLoss, bool)| {
        let of_pool = zones.iter().filter(|zone| zone.pool == loss.spec.name);
        let of_zone = |(index, (zone, weights)): (usize, (&ZoneStatus, &ZoneLoss))| ZoneTraffic {
            place: zone.place.clone(),
            share: zone.share,
            serving_count: zone.counts.up + zone.counts.suspect,
            endpoint_count: zone.counts.all,
            capacity_rps: loss.zone_capacity(index, serving_weight(weights)).rate_rps,
        };
        PoolTraffic { is_panic, zones: of_pool.zip(&loss.zones).enumerate().map(of_zone).collect() }
    };
    losses.iter().zip(pools.iter().map(|pool| pool.is_in_panic)).map(traffic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::topology::EndpointSpec;
    use std::time::Duration;

    fn topology(change: impl FnOnce(&mut PoolSpec)) -> Topology {
        let zone = |(name, ports): (&str, [u16; 2])| {
            let endpoint = |port| EndpointSpec { address: ([10, 0, 0, 1], port).into(), weight: 1 };
            ZoneSpec::new(Locality::parse(name).expect("a place"), ports.map(endpoint).into())
        };
        let zones = [("a/1", [1, 2]), ("a/2", [3, 4]), ("b/1", [5, 6])].map(zone);
        let mut pool = PoolSpec::new("web", zones.into());
        change(&mut pool);
        Topology { pools: vec![Arc::new(pool)], ..Topology::default() }
    }

    fn lose_from_healthy(topology: &Topology, rate_rps: f64, lose: &[&str]) -> PoolOutlook {
        let now = Instant::now();
        let lose: Vec<TopologySelector> =
            lose.iter().map(|text| TopologySelector::parse(text).expect("known")).collect();
        assert!(lose.iter().all(|what| has_target_in_topology(what, topology)));
        let pool = &topology.pools[0];
        let flow = ZoneLoad::declared(rate_rps, Duration::from_millis(10));
        let flows = vec![(Arc::clone(&pool.name), pool.zones[0].locality.clone(), flow)];
        let health = all_healthy(topology, now);
        let input = WhatIfInput {
            topology,
            health,
            orders: Vec::new(),
            zone_loads: flows,
            latency_orders: Vec::new(),
            lost_targets: &lose,
        };
        whatif(&input, now).remove(0)
    }

    fn percent_shares(state: &PoolTraffic) -> Vec<f64> {
        state.zones.iter().map(|zone| (zone.share * 1_000.0).round() / 10.0).collect()
    }

    #[test]
    fn shares_before_and_after_a_loss_are_reported() {
        let topology = topology(|_| {});
        let outlook = lose_from_healthy(&topology, 0.0, &["10.0.0.1:1"]);
        assert_eq!(percent_shares(&outlook.before), [100.0, 0.0, 0.0]);
        assert_eq!(percent_shares(&outlook.after), [70.0, 30.0, 0.0]);
        assert_eq!(outlook.after.zones[0].serving_count, 1);
        assert_eq!(
            percent_shares(&lose_from_healthy(&topology, 0.0, &["a/1"]).after),
            [0.0, 100.0, 0.0]
        );
        assert_eq!(
            percent_shares(&lose_from_healthy(&topology, 0.0, &["a"]).after),
            [0.0, 0.0, 100.0]
        );
        let none = lose_from_healthy(&topology, 0.0, &["a", "b"]);
        assert!(none.after.is_panic && !none.can_carry_load());
        assert!(!has_target_in_topology(
            &TopologySelector::parse("c/1").expect("a place"),
            &topology
        ));
    }

    #[test]
    fn overload_after_a_loss_is_reported() {
        let topology = topology(|pool| pool.steer.endpoint_capacity.rate_rps = Some(100));
        let outlook = lose_from_healthy(&topology, 500.0, &["a/1"]);
        assert_eq!(percent_shares(&outlook.before), [40.0, 40.0, 20.0]);
        assert_eq!(percent_shares(&outlook.after), [0.0, 50.0, 50.0]);
        assert_eq!(outlook.overloaded().collect::<Vec<_>>(), ["a/2", "b/1"]);
        assert!(!outlook.can_carry_load());
        assert!(lose_from_healthy(&topology, 390.0, &["a/1"]).can_carry_load());
    }
}
