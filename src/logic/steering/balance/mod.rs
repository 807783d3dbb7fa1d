//! Balancers: the choice of an endpoint inside a tier.
//!
//! Each algorithm has a file. [`super::tier::Tier`] applies them, and [`consistent_hash`] serves
//! requests that have a key.

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

/// The choice among the endpoints of a tier (`balance` in the file).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BalancePolicy {
    /// The less loaded of two random endpoints, by requests in flight per weight.
    #[default]
    LeastRequests,
    /// The cheaper of two random endpoints, by latency average and requests in flight.
    PeakEwma,
    /// Smooth weighted round robin.
    RoundRobin,
    /// Random choice by weight.
    Random,
    /// By a key of the request; [`Self::LeastRequests`] for requests without a key.
    ConsistentHash(ConsistentHashConfig),
}

/// Requests with the same key go to the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistentHashConfig {
    /// The lookup table of each zone.
    pub table: HashTableKind,
    /// The source of the key.
    pub key: HashKeySource,
    /// Load bound per endpoint, in per cent of the mean of requests in flight. Beyond it, keys go
    /// elsewhere (Mirrokni et al., "Consistent Hashing with Bounded Loads", 2016).
    pub max_load_percent: Option<u32>,
}

/// The table that maps a key to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashTableKind {
    /// A hash ring with virtual points.
    Ring {
        /// Points per unit of weight, from 1 to 65536.
        points: u32,
    },
    Maglev,
}

/// Default number of points per unit of weight.
pub const DEFAULT_RING_POINTS: u32 = 512;

impl Default for HashTableKind {
    fn default() -> Self {
        Self::Ring { points: DEFAULT_RING_POINTS }
    }
}

/// The part of a request that is its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKeySource {
    /// The first header field of this name.
    Header(HeaderName),
    /// The first cookie of this name.
    Cookie(Arc<str>),
    /// The path without the query.
    Path,
    Source,
}

impl BalancePolicy {
    /// The word used in the file and in output.
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

/// The lookup table of one zone: all declared members, whether they take traffic or not.
#[derive(Debug)]
enum HashTable {
    Ring(HashRing),
    Maglev(MaglevTable),
}

impl HashTable {
    /// `members` are hashes and weights of endpoints; at least one.
    fn new(kind: HashTableKind, members: &[(u64, u32)]) -> Self {
        match kind {
            HashTableKind::Ring { points } => Self::Ring(HashRing::new(members, points)),
            HashTableKind::Maglev => Self::Maglev(MaglevTable::new(members)),
        }
    }

    /// The index of the member that owns the hash.
    fn owner(&self, hash: u64) -> u32 {
        match self {
            Self::Ring(ring) => ring.owner(hash),
            Self::Maglev(maglev) => maglev.owner(hash),
        }
    }
}

#[cfg(test)]
mod tests;
