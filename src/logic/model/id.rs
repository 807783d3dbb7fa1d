//! Identities of endpoints and localities.

use std::fmt;
use std::sync::Arc;

/// Identifies one endpoint of one pool for as long as the configuration keeps it. An id is never
/// reused within a process, so a late message about a removed endpoint cannot reach another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    /// Index in the director's endpoint slab.
    pub slot: u32,
    /// Number of endpoints that used this slot before.
    pub generation: u32,
}

impl EndpointId {
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}.{}", self.slot, self.generation)
    }
}

/// A zone and its region, written `region/zone`.
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

/// Whether `text` is a valid name of a region, zone, pool or route.
pub fn is_valid_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
