//! The names by which operators select a part of a topology.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::id::{Locality, is_valid_name};

/// An endpoint, a zone or a region in an operator's command or in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologySelector {
    /// The address of an endpoint, in any zone.
    Endpoint(SocketAddr),
    Zone(Locality),
    Region(Arc<str>),
}

impl TopologySelector {
    /// Parses `address:port`, `region/zone` or `region`; `None` for other text.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Endpoint(address));
        }
        let zone = || Locality::parse(text).map(Self::Zone);
        zone().or_else(|| is_valid_name(text).then(|| Self::Region(text.into())))
    }

    /// Whether the endpoint at `address` in `locality` is part of the selection.
    pub fn covers(&self, locality: &Locality, address: SocketAddr) -> bool {
        match self {
            Self::Endpoint(own) => *own == address,
            Self::Zone(_) | Self::Region(_) => self.covers_zone(locality),
        }
    }

    /// Whether the whole zone is part of the selection.
    pub fn covers_zone(&self, locality: &Locality) -> bool {
        match self {
            Self::Endpoint(_) => false,
            Self::Zone(own) => own == locality,
            Self::Region(region) => *region == locality.region,
        }
    }
}

impl fmt::Display for TopologySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(address) => address.fmt(f),
            Self::Zone(locality) => locality.fmt(f),
            Self::Region(region) => f.write_str(region),
        }
    }
}
