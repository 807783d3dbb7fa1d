//! The hash table of one zone: from a key's hash to an endpoint.

use std::sync::Arc;

use super::hash::{endpoint_hash, xxh64};
use super::{HashTable, HashTableKind};
use crate::logic::model::id::Locality;
use crate::logic::steering::target::{Target, WEIGHT_ONE};

/// The fraction of an endpoint that takes all of its keys.
pub(super) const FULL_HASH_FRACTION: u16 = u16::MAX;

/// A zone as a tier's weighted rendezvous sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RendezvousZone {
    pub(super) zone_hash: u64,
    pub(super) weight: f64,
}

/// The hash table of one zone; kept until its members or their weights change.
#[derive(Debug)]
pub struct ZoneHashTable {
    kind: HashTableKind,
    members: Box<[(u64, u32)]>,
    table: HashTable,
    /// Distinguishes the zones of a tier.
    zone_hash: u64,
    /// Sum of the declared weights, in parts of [`WEIGHT_ONE`].
    total_weight: u64,
}

impl ZoneHashTable {
    /// Returns `previous` if the kind and the members are unchanged, else a new table; `None` if
    /// there are no endpoints.
    pub fn build_or_reuse(
        kind: HashTableKind,
        locality: &Locality,
        targets: &[Target],
        previous: Option<Arc<Self>>,
    ) -> Option<Arc<Self>> {
        let members = targets.iter().map(|target| (endpoint_hash(target.address), target.weight));
        let members: Box<[(u64, u32)]> = members.collect();
        if members.is_empty() {
            return None;
        }
        if let Some(same) = previous.filter(|old| old.kind == kind && old.members == members) {
            return Some(same);
        }
        let weights = members.iter().map(|&(_, weight)| u64::from(weight * WEIGHT_ONE));
        Some(Arc::new(Self {
            kind,
            table: HashTable::new(kind, &members),
            zone_hash: xxh64(locality.to_string().as_bytes()),
            total_weight: weights.sum(),
            members,
        }))
    }

    /// The zone's weight in a tier's rendezvous. `weight` is its weight in the tier, `own_weight`
    /// the sum of its endpoints that take traffic; they differ while the zone ramps.
    pub(crate) fn rendezvous_zone(&self, weight: u64, own_weight: u64) -> RendezvousZone {
        let ramp_fraction = weight.max(1) as f64 / own_weight.max(1) as f64;
        RendezvousZone {
            zone_hash: self.zone_hash,
            weight: self.total_weight as f64 * ramp_fraction,
        }
    }

    /// The position in the zone of the endpoint that owns the hash.
    pub(super) fn owner(&self, hash: u64) -> u32 {
        self.table.owner(hash)
    }

    pub fn kind(&self) -> HashTableKind {
        self.kind
    }

    /// The fraction of its keys that each member takes. `active` holds the position and the current
    /// weight of each endpoint that takes traffic.
    pub(in crate::logic) fn hash_fractions(&self, active: &[(u32, u32)]) -> Box<[u16]> {
        let mut fractions = vec![0; self.members.len()];
        for &(position, weight) in active {
            let whole = u64::from(self.members[position as usize].1 * WEIGHT_ONE);
            let hash_fraction = u64::from(weight) * u64::from(FULL_HASH_FRACTION) / whole;
            fractions[position as usize] =
                hash_fraction.clamp(1, u64::from(FULL_HASH_FRACTION)) as u16;
        }
        fractions.into()
    }
}
