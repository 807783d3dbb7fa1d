//! Endpoints that serve, as requests choose among them.

use std::net::SocketAddr;
use std::sync::Arc;

use fastrand::Rng;
use smallvec::SmallVec;

use super::balance::ZoneHashTable;
use super::balance::consistent_hash::RendezvousZone;
use super::balance::round_robin::{RoundRobinState, gcd, stride};
use crate::logic::model::endpoint_stats::{EndpointStats, ZoneStats};
use crate::logic::model::id::EndpointId;

/// A weight of one, as [`Cell`] counts: fine enough for a ramp and a degraded endpoint.
pub const WEIGHT_ONE: u32 = 1_000;

/// For how long one endpoint's failure is held against its neighbours, in microseconds. Who is asked
/// often has answered since; who is not need not be avoided for ever.
const NEIGHBOUR_FAILURE_WINDOW_US: u64 = 1_000_000;

/// Draws before all endpoints of a tier are gone through for one that fits.
const MAX_DRAWS: usize = 16;

/// One endpoint that may be chosen.
#[derive(Clone, Debug)]
pub struct Target {
    pub id: EndpointId,
    pub address: SocketAddr,
    /// Index of its zone in the pool.
    pub zone: usize,
    /// Its declared share among its neighbours.
    pub weight: u32,
    /// What the workers write.
    pub stats: Arc<EndpointStats>,
    /// What they write of its zone.
    pub zone_stats: Arc<ZoneStats>,
}

impl Target {
    /// Whether a neighbour has failed a request of late, and this one has answered none well since:
    /// what ails one of a zone may ail them all.
    pub fn has_recent_neighbour_failure(&self, now_us: u64) -> bool {
        let failed_us = self.zone_stats.last_error_us();
        failed_us != 0
            && now_us.saturating_sub(failed_us) < NEIGHBOUR_FAILURE_WINDOW_US
            && self.stats.last_good_us() < failed_us
    }
}

/// Those endpoints of one zone that take traffic.
#[derive(Clone, Debug)]
pub struct ZoneTargets {
    /// All endpoints of the zone; shared by every snapshot until the configuration changes.
    targets: Arc<[Target]>,
    active: Arc<ActiveTargets>,
}

#[derive(Debug)]
struct ActiveTargets {
    /// Positions in `targets`.
    positions: Vec<u32>,
    weight_table: CumulativeWeights,
    total_weight: u64,
    weight_unit: u64,
    /// By what keys find an endpoint, where the pool has any.
    hash_table: Option<Arc<ZoneHashTable>>,
    /// Which part of its keys each of `targets` takes; empty without a seating.
    hash_fractions: Box<[u16]>,
}

/// Running sums of weights, with a guide to where each part of them begins (Chen and Asau, 1974): a
/// point is found by about two looks, however many there are. Empty when all weights are equal, where
/// a plain draw is cheaper.
#[derive(Debug, Default)]
struct CumulativeWeights {
    cumulative: Vec<u64>,
    guide: Vec<u32>,
    shift: u32,
}

/// Cells that are equally near, and the part of the pool's traffic that they get.
#[derive(Debug)]
pub struct Tier {
    /// In parts of [`super::WHOLE`].
    pub share: u64,
    pub(crate) zones: Vec<ZoneTargets>,
    /// Running sums of the cells' weights.
    cumulative_weights: Vec<u64>,
    /// How keys find their cells; empty unless the cells have seatings.
    pub(crate) rendezvous_zones: Vec<RendezvousZone>,
    weight_unit: u64,
    /// The step of a round of the whole in units.
    round_robin_stride: u64,
    /// Sum of the endpoints' weights, whatever the cells weigh: those may be shares of traffic.
    endpoint_weight: u64,
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
        let guide = (0..=sum.saturating_sub(1) >> shift).map(|part| {
            while sums[first] <= part << shift {
                first += 1;
            }
            first as u32
        });
        Self { guide: guide.collect(), shift, cumulative: sums }
    }

    /// Whose the point is.
    fn index_of(&self, point: u64) -> usize {
        let mut index = self.guide[(point >> self.shift) as usize] as usize;
        while self.cumulative[index] <= point {
            index += 1;
        }
        index
    }
}

impl ZoneTargets {
    /// The endpoints of `targets` at these positions, in their order, with their weights in parts of
    /// [`WEIGHT_ONE`]; `None` if there are none.
    pub fn new(targets: &Arc<[Target]>, active: &[(u32, u32)]) -> Option<Self> {
        Self::with_hash_table(targets, None, active)
    }

    /// The same, where keys find `targets` by `seating`.
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
            hash_table.map(|seating| seating.hash_fractions(active)).unwrap_or_default();
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

    /// By what keys find an endpoint, where the pool has any.
    pub(crate) fn hash_table(&self) -> Option<&ZoneHashTable> {
        self.active.hash_table.as_deref()
    }

    /// Which part of its keys the endpoint at a position takes.
    pub(crate) fn hash_fraction(&self, position: u32) -> Option<u16> {
        self.active.hash_fractions.get(position as usize).copied()
    }

    /// All of `targets`, by their declared weights.
    pub fn all_targets(
        targets: &Arc<[Target]>,
        hash_table: Option<&Arc<ZoneHashTable>>,
    ) -> Option<Self> {
        let all = targets.iter().zip(0..);
        let active: Vec<(u32, u32)> =
            all.map(|(target, position)| (position, target.weight * WEIGHT_ONE)).collect();
        Self::with_hash_table(targets, hash_table, &active)
    }

    /// Sum of the weights of those that take traffic, in parts of [`WEIGHT_ONE`].
    pub fn weight(&self) -> u64 {
        self.active.total_weight
    }

    /// Endpoints that take traffic.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.active.positions.iter().map(|&position| self.target(position))
    }

    /// The endpoint at a position in the zone, if it takes traffic.
    pub fn active_target(&self, position: u32) -> Option<&Target> {
        let found = self.active.positions.binary_search(&position);
        found.is_ok().then(|| self.target(position))
    }

    pub(crate) fn target(&self, position: u32) -> &Target {
        &self.targets[position as usize]
    }

    /// Endpoints that take traffic, each with its part of the cell's, in 0..1.
    fn traffic_fractions(&self) -> impl Iterator<Item = (&Target, f64)> {
        let ActiveTargets {
            positions,
            weight_table: CumulativeWeights { cumulative: sums, .. },
            total_weight: total,
            ..
        } = &*self.active;
        positions.iter().enumerate().map(move |(index, &position)| {
            let part = match sums.get(index) {
                None => 1.0 / positions.len() as f64,
                Some(upto) => {
                    let before = index.checked_sub(1).map_or(0, |before| sums[before]);
                    (upto - before) as f64 / (*total).max(1) as f64
                }
            };
            (&self.targets[position as usize], part)
        })
    }

    fn pick_random(&self, rng: &mut Rng) -> &Target {
        let index = match self.active.weight_table.cumulative.last() {
            None => rng.usize(..self.active.positions.len()),
            Some(&sum) => self.active.weight_table.index_of(rng.u64(..sum)),
        };
        self.target(self.active.positions[index])
    }

    /// The endpoint to which a point below the total weight belongs.
    fn target_at_point(&self, point: u64) -> &Target {
        let ActiveTargets { positions, weight_table: sums, weight_unit: unit, .. } = &*self.active;
        let index =
            if sums.cumulative.is_empty() { (point / unit) as usize } else { sums.index_of(point) };
        self.target(positions[index])
    }
}

impl Tier {
    /// A tier of `cells`, which must not be empty; each has its own weight, or, scaled by a ramp of
    /// its zone, another.
    pub fn new(share: u64, zones: Vec<(ZoneTargets, u64)>) -> Self {
        let running = zones.iter().scan(0u64, |sum, (_, weight)| {
            *sum += (*weight).max(1);
            Some(*sum)
        });
        let cumulative_weights: Vec<u64> = running.collect();
        let weight_units =
            zones.iter().map(|(cell, weight)| gcd(cell.active.weight_unit, (*weight).max(1)));
        let weight_unit = weight_units.fold(0, gcd).max(1);
        let rendezvous_zones = zones
            .iter()
            .map_while(|(cell, weight)| RendezvousZone::for_cell(cell, *weight))
            .collect();
        let stride = stride(cumulative_weights.last().copied().unwrap_or(1) / weight_unit);
        let endpoint_weight = zones.iter().map(|(cell, _)| cell.weight()).sum();
        let zones = zones.into_iter().map(|(cell, _)| cell).collect();
        Self {
            share,
            zones,
            cumulative_weights,
            rendezvous_zones,
            weight_unit,
            round_robin_stride: stride,
            endpoint_weight,
        }
    }

    /// A tier of one cell with all of `targets`, by their declared weights.
    pub fn from_targets(share: u64, targets: Vec<Target>) -> Self {
        let zone_targets = ZoneTargets::all_targets(&targets.into(), None);
        Self::new(
            share,
            zone_targets.into_iter().map(|cell| (cell.clone(), cell.weight())).collect(),
        )
    }

    /// The endpoints of the tier.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.zones.iter().flat_map(ZoneTargets::targets)
    }

    /// Whether endpoints of the pool's zone with this index get traffic by it.
    pub(crate) fn has_traffic_for_zone(&self, zone: usize) -> bool {
        self.share > 0
            && self.zones.iter().any(|cell| cell.targets().next().is_some_and(|t| t.zone == zone))
    }

    /// The endpoints of the tier, each with the part of the tier's traffic that is drawn for it, in
    /// 0..1.
    pub fn traffic_fractions(&self) -> impl Iterator<Item = (&Target, f64)> {
        let whole = self.cumulative_weights.last().copied().unwrap_or(1).max(1) as f64;
        self.zones.iter().enumerate().flat_map(move |(index, cell)| {
            let before = index.checked_sub(1).map_or(0, |before| self.cumulative_weights[before]);
            let zone_fraction = (self.cumulative_weights[index] - before) as f64 / whole;
            cell.traffic_fractions().map(move |(target, part)| (target, zone_fraction * part))
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.zones.iter().map(|cell| cell.active.positions.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    /// Sum of the endpoints' weights, in parts of [`WEIGHT_ONE`].
    pub(crate) fn endpoint_weight(&self) -> u64 {
        self.endpoint_weight
    }

    /// Whether keys find their endpoints here.
    pub(crate) fn has_hash_tables(&self) -> bool {
        !self.rendezvous_zones.is_empty()
    }

    /// By chance, by weight.
    pub(crate) fn pick_random(&self, rng: &mut Rng) -> &Target {
        let zone_targets = match self.cumulative_weights.as_slice() {
            [_] => &self.zones[0],
            sums => {
                let point = rng.u64(..sums[sums.len() - 1]);
                &self.zones[sums.partition_point(|&upto| upto <= point)]
            }
        };
        zone_targets.pick_random(rng)
    }

    /// The power of two choices (Mitzenmacher): two draws by weight, and the less loaded of them.
    pub(crate) fn pick_two_choices(&self, rng: &mut Rng) -> &Target {
        let first = self.pick_random(rng);
        if self.zones.len() == 1 && self.zones[0].active.positions.len() == 1 {
            return first;
        }
        less_loaded(first, self.pick_random(rng))
    }

    /// Of two draws by weight the one that costs less for its weight.
    pub(crate) fn pick_two_choices_by_cost(
        &self,
        rng: &mut Rng,
        cost: impl Fn(&Target) -> f64,
    ) -> &Target {
        let (first, second) = (self.pick_random(rng), self.pick_random(rng));
        let is_less =
            cost(second) * f64::from(first.weight) < cost(first) * f64::from(second.weight);
        if is_less { second } else { first }
    }

    /// Whose turn it is in the round of this tier, which is the pool's number `index`.
    pub(crate) fn pick_round_robin(
        &self,
        state: &RoundRobinState,
        index: usize,
        rng: &mut Rng,
    ) -> &Target {
        let whole = self.cumulative_weights.last().copied().unwrap_or(0);
        let point = state.next_point(index, self.round_robin_stride, whole / self.weight_unit, rng)
            * self.weight_unit;
        let index = self.cumulative_weights.partition_point(|&upto| upto <= point);
        let before = index.checked_sub(1).map_or(0, |before| self.cumulative_weights[before]);
        let (given, own) = (self.cumulative_weights[index] - before, self.zones[index].weight());
        let mut point = point - before;
        if given != own {
            // A ramp of the zone has made it smaller than its parts are together.
            point = (u128::from(point) * u128::from(own) / u128::from(given)) as u64;
        }
        self.zones[index].target_at_point(point)
    }

    /// The less loaded of two among those that fit; `None` if none does.
    pub(crate) fn pick_matching(
        &self,
        rng: &mut Rng,
        is_match: impl Fn(&Target) -> bool,
    ) -> Option<&Target> {
        if self.len() > MAX_DRAWS {
            let mut drawn =
                (0..MAX_DRAWS).map(|_| self.pick_random(rng)).filter(|target| is_match(target));
            if let Some(first) = drawn.next() {
                let second = drawn.next();
                return Some(second.map_or(first, |second| less_loaded(first, second)));
            }
        }
        let matching: SmallVec<[&Target; MAX_DRAWS]> =
            self.targets().filter(|target| is_match(target)).collect();
        if matching.is_empty() {
            return None;
        }
        Some(less_loaded(
            matching[rng.usize(..matching.len())],
            matching[rng.usize(..matching.len())],
        ))
    }
}

fn less_loaded<'a>(a: &'a Target, b: &'a Target) -> &'a Target {
    let load = |x: &Target, y: &Target| u64::from(x.stats.in_flight()) * u64::from(y.weight);
    if load(b, a) < load(a, b) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone_targets(first: u32, weights: &[u32]) -> ZoneTargets {
        let target = |id: u32| Target {
            id: EndpointId::new(id, 0),
            address: SocketAddr::from(([127, 0, 0, 1], 9000)),
            zone: 0,
            weight: 1,
            stats: Arc::default(),
            zone_stats: Arc::default(),
        };
        let ids = first..first + weights.len() as u32;
        let active = (0..).zip(weights.iter().copied()).filter(|(_, weight)| *weight > 0);
        let active: Vec<(u32, u32)> = active.collect();
        ZoneTargets::new(&ids.map(target).collect(), &active).expect("a weight")
    }

    #[test]
    fn traffic_fractions_match_random_picks() {
        let (equal, unequal) = (zone_targets(0, &[5, 0, 5]), zone_targets(3, &[10, 30]));
        let tier = Tier::new(1, vec![(equal, 10), (unequal, 30)]);
        let parts: Vec<(u32, f64)> =
            tier.traffic_fractions().map(|(target, part)| (target.id.slot, part)).collect();
        assert_eq!(parts, [(0, 0.125), (2, 0.125), (3, 0.1875), (4, 0.5625)]);
        let mut rng = Rng::with_seed(7);
        let mut counts = [0_u32; 5];
        for _ in 0..100_000 {
            counts[tier.pick_random(&mut rng).id.slot as usize] += 1;
        }
        for (slot, part) in parts {
            let drawn = f64::from(counts[slot as usize]) / 100_000.0;
            assert!((drawn - part).abs() < 0.01, "{slot}: {drawn} and not {part}");
        }
    }
}
