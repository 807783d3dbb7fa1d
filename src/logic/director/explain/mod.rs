//! Why something is as it is: what the director knows of an endpoint, a zone or a region, as data.

mod endpoint;
#[cfg(test)]
mod tests;
mod zone;

pub use endpoint::{Cadence, Doubt, EndpointFacts, Hold, ProbeFacts, Row, Trial};
pub(super) use zone::parts;
pub use zone::{Budget, Member, Quorum, RegionFacts, StateCounts, ZoneFacts, ZoneStatus};

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::logic::id::{Place, is_name};

use super::Director;

/// An endpoint, a zone or a region, as operators name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The endpoint at this address.
    Endpoint(SocketAddr),
    /// A zone.
    Zone(Place),
    /// A region.
    Region(Arc<str>),
}

impl What {
    /// Reads `address:port`, `region/zone` or `region`; `None` if it is none of them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Endpoint(address));
        }
        let zone = || Place::parse(text).map(Self::Zone);
        zone().or_else(|| is_name(text).then(|| Self::Region(text.into())))
    }

    /// Whether it is an endpoint at this address of this zone, or has it.
    #[must_use]
    pub fn covers(&self, place: &Place, address: SocketAddr) -> bool {
        match self {
            Self::Endpoint(own) => *own == address,
            Self::Zone(_) | Self::Region(_) => self.covers_zone(place),
        }
    }

    /// Whether it is this zone, or has it.
    #[must_use]
    pub fn covers_zone(&self, place: &Place) -> bool {
        match self {
            Self::Endpoint(_) => false,
            Self::Zone(own) => own == place,
            Self::Region(region) => *region == place.region,
        }
    }
}

impl fmt::Display for What {
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
    /// Of an endpoint.
    Endpoint(Box<EndpointFacts>),
    /// Of a zone.
    Zone(Box<ZoneFacts>),
    /// Of a region.
    Region(Box<RegionFacts>),
}

impl Director {
    /// Explains `what` in every pool that has it, or in the one that is named; nothing where it is
    /// not known.
    #[must_use]
    pub fn explain(&self, what: &What, pool: Option<&str>, now: Instant) -> Vec<Explanation> {
        let pools = self.pools.iter();
        let pools = pools.filter(|state| pool.is_none_or(|name| *state.spec.name == *name));
        let explain = |state| match what {
            What::Endpoint(address) => {
                let facts = self.endpoint_facts(state, *address, now)?;
                Some(Explanation::Endpoint(Box::new(facts)))
            }
            What::Zone(place) => {
                let zone = state.zones.iter().find(|zone| zone.place == *place)?;
                Some(Explanation::Zone(Box::new(self.zone_facts(state, zone, now))))
            }
            What::Region(region) => {
                let facts = self.region_facts(state, region, now)?;
                Some(Explanation::Region(Box::new(facts)))
            }
        };
        pools.filter_map(explain).collect()
    }

    /// Everything that can be explained: regions, zones, addresses, in this order and each once.
    #[must_use]
    pub fn names(&self) -> Vec<What> {
        let places: BTreeSet<&Place> =
            self.pools.iter().flat_map(|pool| &pool.zones).map(|zone| &zone.place).collect();
        let regions: BTreeSet<&Arc<str>> = places.iter().map(|place| &place.region).collect();
        let addresses: BTreeSet<SocketAddr> =
            self.roster.iter().map(|endpoint| endpoint.address).collect();
        let regions = regions.into_iter().map(|region| What::Region(Arc::clone(region)));
        let zones = places.iter().map(|&place| What::Zone(place.clone()));
        regions.chain(zones).chain(addresses.into_iter().map(What::Endpoint)).collect()
    }
}
