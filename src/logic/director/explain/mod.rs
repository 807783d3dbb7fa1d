//! Why something is as it is: what the director knows of an endpoint, a zone or a region, as data.

mod endpoint;
#[cfg(test)]
mod tests;
mod zone;

pub use endpoint::{
    Cadence, EjectionTrial, EndpointFacts, HoldDown, OutlierScore, ProbeFacts, ProbeStreak,
};
pub(super) use zone::endpoint_shares;
pub use zone::{
    EvictionBudget, HealthCounts, Quorum, RegionFacts, ZoneFacts, ZoneMemberStatus, ZoneStatus,
};

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::logic::model::id::{Locality, is_valid_name};

use super::Director;

/// An endpoint, a zone or a region, as operators name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologySelector {
    /// The endpoint at this address.
    Endpoint(SocketAddr),
    Zone(Locality),
    Region(Arc<str>),
}

impl TopologySelector {
    /// Reads `address:port`, `region/zone` or `region`; `None` if it is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Endpoint(address));
        }
        let zone = || Locality::parse(text).map(Self::Zone);
        zone().or_else(|| is_valid_name(text).then(|| Self::Region(text.into())))
    }

    /// Whether it is an endpoint at this address of this zone, or has it.
    pub fn covers(&self, place: &Locality, address: SocketAddr) -> bool {
        match self {
            Self::Endpoint(own) => *own == address,
            Self::Zone(_) | Self::Region(_) => self.covers_zone(place),
        }
    }

    /// Whether it is this zone, or has it.
    pub fn covers_zone(&self, place: &Locality) -> bool {
        match self {
            Self::Endpoint(_) => false,
            Self::Zone(own) => own == place,
            Self::Region(region) => *region == place.region,
        }
    }
}

impl fmt::Display for TopologySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(address) => address.fmt(f),
            Self::Zone(place) => place.fmt(f),
            Self::Region(region) => f.write_str(region),
        }
    }
}

/// Everything that is known of one thing in one pool.
#[derive(Clone, Debug)]
pub enum Explanation {
    Endpoint(Box<EndpointFacts>),
    Zone(Box<ZoneFacts>),
    Region(Box<RegionFacts>),
}

impl Director {
    /// Explains `what` in every pool that has it, or in the one that is named; nothing where it is
    /// not known.
    pub fn explain(
        &self,
        selector: &TopologySelector,
        pool: Option<&str>,
        now: Instant,
    ) -> Vec<Explanation> {
        let pools = self.pools.iter();
        let pools = pools.filter(|state| pool.is_none_or(|name| *state.spec.name == *name));
        let explain = |state| match selector {
            TopologySelector::Endpoint(address) => {
                let facts = self.endpoint_facts(state, *address, now)?;
                Some(Explanation::Endpoint(Box::new(facts)))
            }
            TopologySelector::Zone(place) => {
                let zone = state.zones.iter().find(|zone| zone.place == *place)?;
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
            self.pools.iter().flat_map(|pool| &pool.zones).map(|zone| &zone.place).collect();
        let regions: BTreeSet<&Arc<str>> = places.iter().map(|place| &place.region).collect();
        let addresses: BTreeSet<SocketAddr> =
            self.endpoints.iter().map(|endpoint| endpoint.address).collect();
        let regions =
            regions.into_iter().map(|region| TopologySelector::Region(Arc::clone(region)));
        let zones = places.iter().map(|&place| TopologySelector::Zone(place.clone()));
        regions.chain(zones).chain(addresses.into_iter().map(TopologySelector::Endpoint)).collect()
    }
}
