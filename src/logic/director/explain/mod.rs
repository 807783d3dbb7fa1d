//! Why an endpoint, a zone or a region is in its state: all facts about it, as data.

mod endpoint;
#[cfg(test)]
mod tests;
mod zone;

pub use endpoint::{
    Cadence, EjectionTrial, EndpointFacts, HoldDown, OutlierScore, ProbeFacts, ProbeStreak,
};
pub use zone::{HealthCounts, Quorum, RegionFacts, ZoneFacts, ZoneMemberStatus, ZoneStatus};

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::logic::model::id::Locality;
use crate::logic::model::selector::TopologySelector;

use super::pools::PoolState;
use super::pools::zone::ZoneState;
use super::{Director, EndpointMachine};

/// All facts about an endpoint, a zone or a region in one pool.
#[derive(Clone, Debug)]
pub enum Explanation {
    Endpoint(Box<EndpointFacts>),
    Zone(Box<ZoneFacts>),
    Region(Box<RegionFacts>),
}

impl Director {
    /// Explains `selector` in every pool that has it, or in the one that is named; empty if it is
    /// unknown.
    pub fn explain(
        &self,
        selector: &TopologySelector,
        pool: Option<&str>,
        now: Instant,
    ) -> Vec<Explanation> {
        let pools = self.pools.iter();
        let pools = pools.filter(|state| pool.is_none_or(|name| *state.spec().name == *name));
        let explain = |state| match selector {
            TopologySelector::Endpoint(address) => {
                let facts = self.endpoint_facts(state, *address, now)?;
                Some(Explanation::Endpoint(Box::new(facts)))
            }
            TopologySelector::Zone(place) => {
                let zone = state.zones().iter().find(|zone| zone.place() == place)?;
                Some(Explanation::Zone(Box::new(self.zone_facts(state, zone, now))))
            }
            TopologySelector::Region(region) => {
                let facts = self.region_facts(state, region, now)?;
                Some(Explanation::Region(Box::new(facts)))
            }
        };
        pools.filter_map(explain).collect()
    }

    /// Everything that can be explained: regions, zones, addresses, in this order and each once.
    pub fn selectors(&self) -> Vec<TopologySelector> {
        let places: BTreeSet<&Locality> =
            self.pools.iter().flat_map(PoolState::zones).map(ZoneState::place).collect();
        let regions: BTreeSet<&Arc<str>> = places.iter().map(|place| &place.region).collect();
        let addresses: BTreeSet<SocketAddr> =
            self.endpoints.iter().map(EndpointMachine::address).collect();
        let regions =
            regions.into_iter().map(|region| TopologySelector::Region(Arc::clone(region)));
        let zones = places.iter().map(|&place| TopologySelector::Zone(place.clone()));
        regions.chain(zones).chain(addresses.into_iter().map(TopologySelector::Endpoint)).collect()
    }
}
