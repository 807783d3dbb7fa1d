//! How an endpoint is chosen inside a tier.
//!
//! Each method has a file; what a tier does with them is in [`super::tier`] and, for requests that have
//! a key, in [`keyed`].

pub mod consistent_hash;
pub mod hash;
mod hash_ring;
mod maglev;
pub mod peak_ewma;
pub mod round_robin;
pub mod zone_hash_table;

use std::sync::Arc;

use http::header::HeaderName;

pub use round_robin::RoundRobinState;
pub use zone_hash_table::ZoneHashTable;

use self::hash_ring::HashRing;
use self::maglev::MaglevTable;

/// How an endpoint is chosen among those of a tier (`balance` in the file).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BalancePolicy {
    /// The one of two draws that has fewer requests in flight for its weight.
    #[default]
    LeastRequests,
    /// The one of two draws that promises the shorter wait, by its latency and what is in flight.
    PeakEwma,
    /// In turn, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// By a key of the request; by [`Self::LeastRequests`] where it has none.
    ConsistentHash(ConsistentHashConfig),
}

/// Requests with the same key go to the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistentHashConfig {
    /// What finds the endpoint.
    pub table: HashTableKind,
    /// What the key is.
    pub key: HashKeySource,
    /// What an endpoint may have in flight, as a part of the mean, in per cent: beyond that its keys go
    /// elsewhere (Mirrokni et al., "Consistent Hashing with Bounded Loads", 2016).
    pub max_load_percent: Option<u32>,
}

/// Which table finds a key's endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashTableKind {
    /// A ring with so many points for a unit of weight.
    Ring {
        /// From 1 to 65536.
        points: u32,
    },
    Maglev,
}

/// Points of a ring for a unit of weight, unless said otherwise.
pub const DEFAULT_RING_POINTS: u32 = 512;

impl Default for HashTableKind {
    fn default() -> Self {
        Self::Ring { points: DEFAULT_RING_POINTS }
    }
}

/// What of a request is its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKeySource {
    /// The first field of this name.
    Header(HeaderName),
    /// The first cookie of this name.
    Cookie(Arc<str>),
    /// The path, without the query.
    Path,
    Source,
}

impl BalancePolicy {
    /// The word that stands for it in the file and in output.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::LeastRequests => "least_requests",
            Self::PeakEwma => "peak_ewma",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::ConsistentHash(ConsistentHashConfig {
                table: HashTableKind::Ring { .. },
                ..
            }) => "ring_hash",
            Self::ConsistentHash(ConsistentHashConfig { table: HashTableKind::Maglev, .. }) => {
                "maglev"
            }
        }
    }
}

/// A table by which keys find the members of a zone: of all that are declared, whether they take
/// traffic or not.
#[derive(Debug)]
enum HashTable {
    Ring(HashRing),
    Maglev(MaglevTable),
}

impl HashTable {
    /// There must be at least one of `members`, each with its identity and weight.
    fn new(kind: HashTableKind, members: &[(u64, u32)]) -> Self {
        match kind {
            HashTableKind::Ring { points } => Self::Ring(HashRing::new(members, points)),
            HashTableKind::Maglev => Self::Maglev(MaglevTable::new(members)),
        }
    }

    /// The index of the member that a hash belongs to.
    fn owner(&self, hash: u64) -> u32 {
        match self {
            Self::Ring(ring) => ring.owner(hash),
            Self::Maglev(maglev) => maglev.owner(hash),
        }
    }
}

#[cfg(test)]
mod tests;
