//! A tier: zones of equal preference, and the choice of an endpoint among them.

use fastrand::Rng;
use smallvec::SmallVec;

use super::balance::round_robin::{RoundRobinState, gcd, stride};
use super::balance::zone_hash_table::RendezvousZone;
use super::target::Target;
use super::zone_targets::ZoneTargets;

/// Random draws before all endpoints of the tier are scanned for a match.
const MAX_DRAWS: usize = 16;

/// Zones of equal preference, and their share of the pool's traffic.
#[derive(Debug)]
pub struct Tier {
    /// In parts of [`super::FULL_SHARE`].
    pub share: u64,
    pub(crate) zones: Vec<ZoneTargets>,
    /// Running sums of the zones' weights.
    cumulative_weights: Vec<u64>,
    /// The zones' weights in rendezvous hashing; empty without hash tables.
    pub(crate) rendezvous_zones: Vec<RendezvousZone>,
    weight_unit: u64,
    /// The round-robin step through the total weight, in units of `weight_unit`.
    round_robin_stride: u64,
    /// Sum of the endpoints' weights. The zones' weights may be on another scale: shares of
    /// traffic.
    endpoint_weight: u64,
}

impl Tier {
    /// A tier of `zones`, which must not be empty, each with its weight: the sum of its endpoints,
    /// or less while the zone ramps.
    pub fn new(share: u64, zones: Vec<(ZoneTargets, u64)>) -> Self {
        let running = zones.iter().scan(0u64, |sum, (_, weight)| {
            *sum += (*weight).max(1);
            Some(*sum)
        });
        let cumulative_weights: Vec<u64> = running.collect();
        let weight_units =
            zones.iter().map(|(zone, weight)| gcd(zone.weight_unit(), (*weight).max(1)));
        let weight_unit = weight_units.fold(0, gcd).max(1);
        let rendezvous_zones =
            zones.iter().map_while(|(zone, weight)| zone.rendezvous_zone(*weight)).collect();
        let stride = stride(cumulative_weights.last().copied().unwrap_or(1) / weight_unit);
        let endpoint_weight = zones.iter().map(|(zone, _)| zone.weight()).sum();
        let zones = zones.into_iter().map(|(zone, _)| zone).collect();
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

    /// A tier of one zone with all of `targets` at their declared weights.
    pub fn from_targets(share: u64, targets: Vec<Target>) -> Self {
        let zone_targets = ZoneTargets::all_targets(&targets.into(), None);
        Self::new(
            share,
            zone_targets.into_iter().map(|zone| (zone.clone(), zone.weight())).collect(),
        )
    }

    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.zones.iter().flat_map(ZoneTargets::targets)
    }

    /// Whether endpoints of the pool's zone with this index receive traffic from the tier.
    pub(crate) fn has_traffic_for_zone(&self, zone: usize) -> bool {
        self.share > 0
            && self
                .zones
                .iter()
                .any(|targets| targets.targets().next().is_some_and(|t| t.zone == zone))
    }

    /// The endpoints that take traffic, each with its fraction (0..1) of the tier's traffic.
    pub fn traffic_fractions(&self) -> impl Iterator<Item = (&Target, f64)> {
        let whole = self.cumulative_weights.last().copied().unwrap_or(1).max(1) as f64;
        self.zones.iter().enumerate().flat_map(move |(index, zone)| {
            let before = index.checked_sub(1).map_or(0, |before| self.cumulative_weights[before]);
            let zone_fraction = (self.cumulative_weights[index] - before) as f64 / whole;
            zone.traffic_fractions().map(move |(target, part)| (target, zone_fraction * part))
        })
    }

    /// The number of endpoints that take traffic.
    pub fn len(&self) -> usize {
        self.zones.iter().map(|zone| zone.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    /// Sum of the endpoints' weights, in parts of [`WEIGHT_ONE`].
    ///
    /// [`WEIGHT_ONE`]: super::target::WEIGHT_ONE
    pub(crate) fn endpoint_weight(&self) -> u64 {
        self.endpoint_weight
    }

    /// Whether requests can be routed by key.
    pub(crate) fn has_hash_tables(&self) -> bool {
        !self.rendezvous_zones.is_empty()
    }

    /// Draws an endpoint at random by weight.
    pub(crate) fn pick_random(&self, rng: &mut Rng) -> &Target {
        let zone_targets = match self.cumulative_weights.as_slice() {
            [_] => &self.zones[0],
            cumulative => {
                let point = rng.u64(..cumulative[cumulative.len() - 1]);
                &self.zones[cumulative.partition_point(|&end| end <= point)]
            }
        };
        zone_targets.pick_random(rng)
    }

    /// The power of two choices (Mitzenmacher, 2001): the less loaded of two weighted draws.
    pub(crate) fn pick_two_choices(&self, rng: &mut Rng) -> &Target {
        let first = self.pick_random(rng);
        if self.zones.len() == 1 && self.zones[0].len() == 1 {
            return first;
        }
        less_loaded(first, self.pick_random(rng))
    }

    /// The cheaper of two weighted draws, by cost per weight.
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

    /// The next endpoint of the round; `index` is the tier's index in the pool.
    pub(crate) fn pick_round_robin(
        &self,
        state: &RoundRobinState,
        index: usize,
        rng: &mut Rng,
    ) -> &Target {
        let whole = self.cumulative_weights.last().copied().unwrap_or(0);
        let point = state.next_point(index, self.round_robin_stride, whole / self.weight_unit, rng)
            * self.weight_unit;
        let index = self.cumulative_weights.partition_point(|&end| end <= point);
        let before = index.checked_sub(1).map_or(0, |before| self.cumulative_weights[before]);
        let (given, own) = (self.cumulative_weights[index] - before, self.zones[index].weight());
        let mut point = point - before;
        if given != own {
            // A ramp scales the zone's weight in the tier below the sum of its endpoints.
            point = (u128::from(point) * u128::from(own) / u128::from(given)) as u64;
        }
        self.zones[index].target_at_point(point)
    }

    /// The less loaded of two random endpoints that match; `None` if none matches.
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
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::logic::model::id::EndpointId;

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
