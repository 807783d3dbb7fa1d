//! Where traffic goes when something is lost: the production director is told so, and asked.
//!
//! This is the steady state, once every verdict has been made and every ramp has ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::logic::director::{
    Director, EndpointLegacy, Input, Legacy, PoolLegacy, Sentence, What, ZoneLegacy, ZoneVerdict,
};
use crate::logic::health::Health;
use crate::logic::id::Place;
use crate::logic::operator::Order;
use crate::logic::outcome::{Failure, Reason};
use crate::logic::recovery::{Flaps, Ramp};
use crate::logic::steer::{Capacity, Demand, Flow, Nearness};
use crate::logic::topology::{PoolSpec, Topology, ZoneSpec};

/// Whether any pool has it.
#[must_use]
pub fn is_known(what: &What, topology: &Topology) -> bool {
    let zones = topology.pools.iter().flat_map(|pool| &pool.zones);
    let mut all = zones.flat_map(|zone| zone.endpoints.iter().map(move |one| (zone, one)));
    all.any(|(zone, one)| what.covers(&zone.place, one.address))
}

/// Requests to the zones of a pool.
pub type Flows = Vec<(Arc<str>, Place, Flow)>;

/// How things are, and what is lost.
#[derive(Clone, Debug)]
pub struct Question<'q> {
    /// Pools, and where the instance stands.
    pub topology: &'q Topology,
    /// What is believed of their endpoints.
    pub legacy: Legacy,
    /// What operators have ordered, besides what the configuration says.
    pub orders: Vec<Order>,
    /// What is asked for.
    pub flows: Flows,
    /// How soon regions answer, where that is known.
    pub nearness: Vec<(Arc<str>, Nearness)>,
    /// What is lost.
    pub lose: &'q [What],
}

/// One pool, before and after.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// As declared.
    pub pool: Arc<PoolSpec>,
    /// Requests a second, if there are any that are known of.
    pub rate_rps: Option<f64>,
    /// As it is.
    pub before: State,
    /// As it would be.
    pub after: State,
}

/// Where the traffic of a pool goes.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Too little is healthy: everything gets traffic, what is lost too.
    pub panic: bool,
    /// In the order of the pool.
    pub zones: Vec<ZoneState>,
}

/// What a zone gets.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneState {
    /// Which.
    pub place: Place,
    /// Of the pool's traffic, in 0..1.
    pub share: f64,
    /// Endpoints that can serve.
    pub serving: u32,
    /// All of them.
    pub endpoints: u32,
    /// Requests a second that what serves of it can take by its own statement.
    pub capacity_rps: Option<f64>,
}

/// More than there is room for.
#[derive(Clone, Debug, PartialEq)]
pub struct Overload {
    /// A zone or a region.
    pub what: String,
    /// What it would get, in requests a second.
    pub rate_rps: f64,
    /// What it can take.
    pub capacity_rps: f64,
}

impl State {
    /// Whether there is somebody to serve.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.zones.iter().any(|zone| zone.serving > 0)
    }
}

impl Outlook {
    /// Zones and regions that would get more than they can take.
    #[must_use]
    pub fn overloads(&self) -> Vec<Overload> {
        let rate_rps = self.rate_rps.unwrap_or(0.0);
        let of = |what: String, share: f64, capacity_rps: Option<f64>| {
            let capacity_rps = capacity_rps?;
            // Shares are exact, rates are measured: a hair over is not over.
            let is_over = share * rate_rps > capacity_rps * 1.001;
            is_over.then_some(Overload { what, rate_rps: share * rate_rps, capacity_rps })
        };
        let zones = self.after.zones.iter();
        let zones = zones.map(|zone| of(zone.place.to_string(), zone.share, zone.capacity_rps));
        let regions = self.pool.steer.regions.iter().map(|(name, capacity)| {
            let inside = || self.after.zones.iter().filter(|zone| zone.place.region == *name);
            let serving: u32 = inside().map(|zone| zone.serving).sum();
            let all: u32 = inside().map(|zone| zone.endpoints).sum();
            let part = f64::from(serving) / f64::from(all.max(1));
            let capacity_rps = capacity.rate.map(|rate| f64::from(rate) * part);
            of(name.to_string(), inside().map(|zone| zone.share).sum(), capacity_rps)
        });
        zones.chain(regions).flatten().collect()
    }

    /// Whether the pool serves all the same, and nothing is asked for more than it can take.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.after.serves() && !self.after.panic && self.overloads().is_empty()
    }
}

/// Everything is healthy.
#[must_use]
pub fn all_well(topology: &Topology, now: Instant) -> Legacy {
    let endpoint = |address: SocketAddr| EndpointLegacy {
        address,
        health: Health::Up,
        sentence: Sentence::Sound,
        since: now,
        last_proof: Some(now),
        held_until: None,
        flaps: Flaps::default(),
        ramp: Ramp::Full,
        unproven_since: None,
        is_degraded: false,
        is_contradicted: false,
        withheld: None,
        cause: None,
        evidence: Vec::new(),
    };
    let zone = |zone: &ZoneSpec| ZoneLegacy {
        place: zone.place.clone(),
        verdict: ZoneVerdict::Up,
        flaps: Flaps::default(),
        ramp: Ramp::Full,
        endpoints: zone.endpoints.iter().map(|one| endpoint(one.address)).collect(),
    };
    let pool = |pool: &Arc<PoolSpec>| PoolLegacy {
        name: Arc::clone(&pool.name),
        diverges: false,
        zones: pool.zones.iter().map(zone).collect(),
    };
    Legacy { pools: topology.pools.iter().map(pool).collect() }
}

/// What becomes of every pool.
#[must_use]
pub fn whatif(question: &Question<'_>, now: Instant) -> Vec<Outlook> {
    let mut settled = question.legacy.clone();
    for zone in settled.pools.iter_mut().flat_map(|pool| &mut pool.zones) {
        zone.ramp = Ramp::Full;
        zone.endpoints.iter_mut().for_each(|one| one.ramp = Ramp::Full);
    }
    let mut lost = settled.clone();
    let gone = Health::Down { failure: Failure::connect(Reason::Refused) };
    for zone in lost.pools.iter_mut().flat_map(|pool| &mut pool.zones) {
        for one in &mut zone.endpoints {
            if question.lose.iter().any(|what| what.covers(&zone.place, one.address)) {
                one.health = gone;
            }
        }
    }
    let before = states(question, settled, now);
    let after = states(question, lost, now);
    let pools = question.topology.pools.iter().zip(before.into_iter().zip(after));
    let outlook = |(pool, (before, after)): (&Arc<PoolSpec>, (State, State))| {
        let own = question.flows.iter().filter(|(name, ..)| *name == pool.name);
        let demand = Demand::of(own.map(|(.., flow)| flow));
        Outlook { pool: Arc::clone(pool), rate_rps: demand.rate_rps(), before, after }
    };
    pools.map(outlook).collect()
}

fn states(question: &Question<'_>, legacy: Legacy, now: Instant) -> Vec<State> {
    let mut director = Director::new(now, 1);
    let topology = question.topology.clone();
    director.handle(Input::Orders(question.orders.clone()), now);
    director.handle(Input::Configure { topology, routes: Arc::default() }, now);
    director.handle(Input::Inherit(legacy), now);
    director.presume(&question.flows, &question.nearness);
    while director.poll_output().is_some() {}
    let pools = director.pools();
    let zones = director.zones(now);
    let state = |(spec, panic): (&Arc<PoolSpec>, bool)| State {
        panic,
        zones: zones
            .iter()
            .filter(|zone| zone.pool == spec.name)
            .zip(&spec.zones)
            .map(|(zone, declared)| {
                let serving = zone.counts.up + zone.counts.suspect;
                let rates = Rates { steer: spec.steer.endpoint, declared, serving };
                ZoneState {
                    place: zone.place.clone(),
                    share: zone.share,
                    serving,
                    endpoints: zone.counts.all,
                    capacity_rps: rates.capacity_rps(),
                }
            })
            .collect(),
    };
    question.topology.pools.iter().zip(pools.iter().map(|pool| pool.panic)).map(state).collect()
}

/// What is said of a zone's rate.
struct Rates<'z> {
    steer: Capacity,
    declared: &'z ZoneSpec,
    serving: u32,
}

impl Rates<'_> {
    fn capacity_rps(&self) -> Option<f64> {
        let part = f64::from(self.serving) / self.declared.endpoints.len().max(1) as f64;
        let zone = self.declared.terms.capacity.rate.map(|rate| f64::from(rate) * part);
        let weight: u32 = self.declared.endpoints.iter().map(|one| one.weight).sum();
        let each = self.steer.rate.map(|rate| f64::from(rate) * f64::from(weight) * part);
        [zone, each].into_iter().flatten().min_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::topology::EndpointSpec;
    use std::time::Duration;

    fn topology(change: impl FnOnce(&mut PoolSpec)) -> Topology {
        let zone = |(name, ports): (&str, [u16; 2])| {
            let endpoint = |port| EndpointSpec { address: ([10, 0, 0, 1], port).into(), weight: 1 };
            ZoneSpec::new(Place::parse(name).expect("a place"), ports.map(endpoint).into())
        };
        let zones = [("a/1", [1, 2]), ("a/2", [3, 4]), ("b/1", [5, 6])].map(zone);
        let mut pool = PoolSpec::new("web", zones.into());
        change(&mut pool);
        Topology { pools: vec![Arc::new(pool)], ..Topology::default() }
    }

    fn ask(topology: &Topology, rate_rps: f64, lose: &[&str]) -> Outlook {
        let now = Instant::now();
        let lose: Vec<What> = lose.iter().map(|text| What::parse(text).expect("known")).collect();
        assert!(lose.iter().all(|what| is_known(what, topology)));
        let pool = &topology.pools[0];
        let flow = Flow::stated(rate_rps, Duration::from_millis(10));
        let flows = vec![(Arc::clone(&pool.name), pool.zones[0].place.clone(), flow)];
        let legacy = all_well(topology, now);
        let question = Question {
            topology,
            legacy,
            orders: Vec::new(),
            flows,
            nearness: Vec::new(),
            lose: &lose,
        };
        whatif(&question, now).remove(0)
    }

    fn shares(state: &State) -> Vec<f64> {
        state.zones.iter().map(|zone| (zone.share * 1_000.0).round() / 10.0).collect()
    }

    #[test]
    fn shares_are_told_before_and_after() {
        let topology = topology(|_| {});
        let outlook = ask(&topology, 0.0, &["10.0.0.1:1"]);
        assert_eq!(shares(&outlook.before), [100.0, 0.0, 0.0]);
        assert_eq!(shares(&outlook.after), [70.0, 30.0, 0.0]);
        assert_eq!(outlook.after.zones[0].serving, 1);
        assert_eq!(shares(&ask(&topology, 0.0, &["a/1"]).after), [0.0, 100.0, 0.0]);
        assert_eq!(shares(&ask(&topology, 0.0, &["a"]).after), [0.0, 0.0, 100.0]);
        let none = ask(&topology, 0.0, &["a", "b"]);
        assert!(none.after.panic && !none.holds());
        assert!(!is_known(&What::parse("c/1").expect("a place"), &topology));
    }

    #[test]
    fn what_is_too_much_is_told() {
        let topology = topology(|pool| pool.steer.endpoint.rate = Some(100));
        let outlook = ask(&topology, 500.0, &["a/1"]);
        assert_eq!(shares(&outlook.before), [40.0, 40.0, 20.0]);
        assert_eq!(shares(&outlook.after), [0.0, 50.0, 50.0]);
        let over: Vec<String> = outlook.overloads().into_iter().map(|over| over.what).collect();
        assert_eq!(over, ["a/2", "b/1"]);
        assert!(!outlook.holds());
        assert!(ask(&topology, 390.0, &["a/1"]).holds());
    }
}
