//! Names and identities.

use std::fmt;
use std::sync::Arc;

/// Names one endpoint of one pool for as long as the configuration keeps it; never reused within
/// a process, so a late message about an endpoint that is gone cannot hit another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    /// Its place in the director's roster.
    pub slot: u32,
    /// How many endpoints had that place before.
    pub generation: u32,
}

impl EndpointId {
    /// The endpoint number `generation` in `slot`.
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}.{}", self.slot, self.generation)
    }
}

/// Where something stands: `region/zone`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// The region, for example `us-south`.
    pub region: Arc<str>,
    /// The zone inside the region, for example `us-south-1`.
    pub zone: Arc<str>,
}

impl Locality {
    /// Parses `region/zone`. Both parts must be non-empty and made of letters, digits, `-`, `_`
    /// or `.`; anything else gives `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let (region, zone) = text.split_once('/')?;
        (is_valid_name(region) && is_valid_name(zone))
            .then(|| Self { region: region.into(), zone: zone.into() })
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region, self.zone)
    }
}

/// Whether `text` may name a region, zone, pool or route.
pub fn is_valid_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
