//! The endpoints of one zone that take traffic, and weighted draws among them.

use std::sync::Arc;

use fastrand::Rng;

use super::balance::round_robin::gcd;
use super::balance::zone_hash_table::{RendezvousZone, ZoneHashTable};
use super::target::{Target, WEIGHT_ONE};

/// The endpoints of one zone that take traffic. Clones are cheap.
#[derive(Clone, Debug)]
pub struct ZoneTargets {
    /// All endpoints of the zone; shared by all snapshots until the configuration changes.
    targets: Arc<[Target]>,
    active: Arc<ActiveTargets>,
}

#[derive(Debug)]
struct ActiveTargets {
    /// Indices into `targets`, in ascending order.
    positions: Vec<u32>,
    weight_table: CumulativeWeights,
    total_weight: u64,
    weight_unit: u64,
    /// Present where the pool hashes keys.
    hash_table: Option<Arc<ZoneHashTable>>,
    /// The fraction of its keys that each of `targets` takes; empty without a hash table.
    hash_fractions: Box<[u16]>,
}

/// Cumulative weights with a guide table (Chen and Asau, 1974): about two probes find the owner of
/// a point, whatever the number of endpoints. Empty when all weights are equal, because a plain
/// draw is cheaper.
#[derive(Debug, Default)]
struct CumulativeWeights {
    cumulative: Vec<u64>,
    guide: Vec<u32>,
    shift: u32,
}

impl CumulativeWeights {
    fn new(weights: impl Iterator<Item = u64> + Clone) -> Self {
        let mut sum = 0;
        let sums: Vec<u64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        let shift = (sum / sums.len().max(1) as u64).max(1).ilog2();
        let mut first = 0;
        let guide = (0..=sum.saturating_sub(1) >> shift).map(|slot| {
            while sums[first] <= slot << shift {
                first += 1;
            }
            first as u32
        });
        Self { guide: guide.collect(), shift, cumulative: sums }
    }

    /// The index of the owner of a point below the total weight.
    fn index_of(&self, point: u64) -> usize {
        let mut index = self.guide[(point >> self.shift) as usize] as usize;
        while self.cumulative[index] <= point {
            index += 1;
        }
        index
    }
}

impl ZoneTargets {
    /// `active` holds the index in `targets` and the weight in parts of [`WEIGHT_ONE`] of each
    /// endpoint that takes traffic. `None` if it is empty.
    pub fn new(targets: &Arc<[Target]>, active: &[(u32, u32)]) -> Option<Self> {
        Self::with_hash_table(targets, None, active)
    }

    /// Like [`Self::new`], with a hash table of `targets`.
    pub fn with_hash_table(
        targets: &Arc<[Target]>,
        hash_table: Option<&Arc<ZoneHashTable>>,
        active: &[(u32, u32)],
    ) -> Option<Self> {
        let &(_, first) = active.first()?;
        let mut total_weight = 0;
        let mut is_uniform = true;
        for &(_, weight) in active {
            total_weight += u64::from(weight);
            is_uniform &= weight == first;
        }
        let weights = active.iter().map(|&(_, weight)| u64::from(weight));
        let weight_unit = if is_uniform { u64::from(first) } else { weights.clone().fold(0, gcd) };
        let weight_table =
            if is_uniform { CumulativeWeights::default() } else { CumulativeWeights::new(weights) };
        let positions = active.iter().map(|&(position, _)| position).collect();
        let hash_fractions =
            hash_table.map(|hash_table| hash_table.hash_fractions(active)).unwrap_or_default();
        let hash_table = hash_table.cloned();
        let active = ActiveTargets {
            positions,
            weight_table,
            total_weight,
            weight_unit,
            hash_table,
            hash_fractions,
        };
        Some(Self { targets: Arc::clone(targets), active: Arc::new(active) })
    }

    pub(crate) fn hash_table(&self) -> Option<&ZoneHashTable> {
        self.active.hash_table.as_deref()
    }

    /// The fraction of its keys that the endpoint at `position` takes.
    pub(crate) fn hash_fraction(&self, position: u32) -> Option<u16> {
        self.active.hash_fractions.get(position as usize).copied()
    }

    /// All of `targets` at their declared weights.
    pub fn all_targets(
        targets: &Arc<[Target]>,
        hash_table: Option<&Arc<ZoneHashTable>>,
    ) -> Option<Self> {
        let all = targets.iter().zip(0..);
        let active: Vec<(u32, u32)> =
            all.map(|(target, position)| (position, target.weight * WEIGHT_ONE)).collect();
        Self::with_hash_table(targets, hash_table, &active)
    }

    /// Sum of the weights of the endpoints that take traffic, in parts of [`WEIGHT_ONE`].
    pub fn weight(&self) -> u64 {
        self.active.total_weight
    }

    /// The number of endpoints that take traffic; never zero.
    pub(super) fn len(&self) -> usize {
        self.active.positions.len()
    }

    /// The greatest common divisor of the endpoints' weights.
    pub(super) fn weight_unit(&self) -> u64 {
        self.active.weight_unit
    }

    /// The zone's weight in rendezvous hashing, where the pool has hash tables.
    pub(super) fn rendezvous_zone(&self, weight: u64) -> Option<RendezvousZone> {
        Some(self.hash_table()?.rendezvous_zone(weight, self.weight()))
    }

    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.active.positions.iter().map(|&position| self.target(position))
    }

    /// The endpoint at `position` in the zone, if it takes traffic.
    pub fn active_target(&self, position: u32) -> Option<&Target> {
        let found = self.active.positions.binary_search(&position);
        found.is_ok().then(|| self.target(position))
    }

    pub(crate) fn target(&self, position: u32) -> &Target {
        &self.targets[position as usize]
    }

    /// The endpoints that take traffic, each with its fraction (0..1) of the zone's traffic.
    pub(super) fn traffic_fractions(&self) -> impl Iterator<Item = (&Target, f64)> {
        let ActiveTargets {
            positions,
            weight_table: CumulativeWeights { cumulative: sums, .. },
            total_weight: total,
            ..
        } = &*self.active;
        positions.iter().enumerate().map(move |(index, &position)| {
            let fraction = match sums.get(index) {
                None => 1.0 / positions.len() as f64,
                Some(end) => {
                    let before = index.checked_sub(1).map_or(0, |before| sums[before]);
                    (end - before) as f64 / (*total).max(1) as f64
                }
            };
            (&self.targets[position as usize], fraction)
        })
    }

    pub(super) fn pick_random(&self, rng: &mut Rng) -> &Target {
        let index = match self.active.weight_table.cumulative.last() {
            None => rng.usize(..self.active.positions.len()),
            Some(&sum) => self.active.weight_table.index_of(rng.u64(..sum)),
        };
        self.target(self.active.positions[index])
    }

    /// The owner of a point below the total weight.
    pub(super) fn target_at_point(&self, point: u64) -> &Target {
        let ActiveTargets { positions, weight_table: sums, weight_unit: unit, .. } = &*self.active;
        let index =
            if sums.cumulative.is_empty() { (point / unit) as usize } else { sums.index_of(point) };
        self.target(positions[index])
    }
}
