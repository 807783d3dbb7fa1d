//! The names by which operators select a part of a topology.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::id::{Locality, is_valid_name};

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
