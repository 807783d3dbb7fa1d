//! How the traffic of a pool is divided among its tiers and their zones.
//!
//! Each tier takes its share by priority and health; inside it, zones share by weight under their
//! capacity bounds (water filling).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::model::snapshot::{Tier, ZoneTargets};
use crate::logic::model::topology::PoolSpec;
use crate::logic::steering;
use crate::logic::steering::{
    Bucket, CapacityBounds, CapacityLimits, FULL_SHARE, PoolDemand, PriorityLevel, SteeringPolicy,
    SteeringVariant, UNBOUNDED_SHARE, WeightTotals, water_fill,
};

use crate::logic::director::pools::roster::ZoneSubsets;
use crate::logic::director::pools::zone::ZoneState;
use crate::logic::director::pools::{PoolState, ZoneTiers};

/// Selects a subset of a zone's endpoints.
pub(crate) type SubsetSelector = fn(&ZoneSubsets) -> Option<&ZoneTargets>;

/// A weight of one under [`SteeringPolicy::Weighted`], times the healthy part of a zone.
const WEIGHT_SCALE: u64 = 1 << 20;

/// The zones of a pool as its traffic is divided among them, at one moment.
pub(crate) struct TrafficSplit {
    spec: Arc<PoolSpec>,
    variants: Vec<(SteeringVariant, ZoneTiers)>,
    zones: Vec<SplitZone>,
    /// The demand, where capacity is declared and the demand is measurable.
    demand: Option<PoolDemand>,
}

struct SplitZone {
    subsets: ZoneSubsets,
    /// The share of its ramp, in thousandths.
    ramp: u32,
    /// How long requests stay in the zone, in seconds.
    residence_s: f64,
}

/// The capacity that is left, in parts of [`FULL_SHARE`]: by zone, and by region.
struct RemainingCapacity<'a> {
    zones: Vec<u64>,
    regions: BTreeMap<&'a str, u64>,
}

impl TrafficSplit {
    pub(crate) fn new(state: &mut PoolState, now: Instant) -> Self {
        let spec = Arc::clone(state.spec());
        let length = spec.recovery.ramp;
        let demand = capacity_demand(state);
        let zones = state.zones_mut().iter_mut().map(|zone| SplitZone {
            subsets: zone.roster_mut().subsets().clone(),
            ramp: zone.ramp().share_permille(length, now),
            residence_s: demand.map_or(0.0, |demand| demand.residence_s(zone.load())),
        });
        let zones = zones.collect();
        let variants = spec.steer.variants().zip(state.tiers().iter().cloned()).collect();
        Self { zones, variants, demand, spec }
    }

    /// The division once all ramps have ended; `subsets` are those of the zones, in their order.
    pub(crate) fn steady(state: &PoolState, subsets: Vec<ZoneSubsets>) -> Self {
        let spec = Arc::clone(state.spec());
        let demand = capacity_demand(state);
        let zones = state.zones().iter().zip(subsets).map(|(zone, subsets)| SplitZone {
            subsets,
            ramp: FULL_SHARE_PERMILLE,
            residence_s: demand.map_or(0.0, |demand| demand.residence_s(zone.load())),
        });
        let zones = zones.collect();
        let variants = spec.steer.variants().zip(state.tiers().iter().cloned()).collect();
        Self { zones, variants, demand, spec }
    }

    pub(crate) fn zone_subsets(&self) -> impl Iterator<Item = &ZoneSubsets> {
        self.zones.iter().map(|zone| &zone.subsets)
    }

    /// The tiers of a steering variant. The first of the `selectors` that has endpoints shares the
    /// traffic; the others follow without a share, for requests that have tried all others.
    /// Declared capacity is compared with the whole demand, as if all of it took this variant.
    pub(crate) fn build_tiers(&self, variant: usize, selectors: &[SubsetSelector]) -> Vec<Tier> {
        let Some((variant, tiers)) = self.variants.get(variant) else { return Vec::new() };
        let has_endpoints =
            |choice: &SubsetSelector| self.zone_subsets().any(|built| choice(built).is_some());
        let Some(first) = selectors.iter().position(has_endpoints) else { return Vec::new() };
        let first_selector = selectors[first];
        let weigh_zone = |zone: &SplitZone| weigh_subset(zone, first_selector);
        let mut capacity = self.remaining_capacity(weigh_zone);
        let levels: Vec<PriorityLevel> = tiers
            .iter()
            .map(|zones| self.tier_level(variant, zones, first_selector, &mut capacity))
            .collect();
        let shares = steering::tier_shares(&levels, self.spec.steer.overprovisioning, FULL_SHARE);
        // Filled a second time with the real shares: each tier leaves capacity for the next.
        let mut capacity = self.remaining_capacity(weigh_zone);
        let mut assembled = Vec::new();
        for (position, selector) in selectors.iter().enumerate().skip(first) {
            for (zones, &share) in tiers.iter().zip(&shares) {
                let share = if position == first { share } else { 0 };
                let serving: SmallVec<[usize; 4]> = zones
                    .iter()
                    .copied()
                    .filter(|&zone| selector(&self.zones[zone].subsets).is_some())
                    .collect();
                let weights = self.split_share(variant, &serving, *selector, share, &mut capacity);
                let cells = serving.iter().zip(weights).filter_map(|(&zone, weight)| {
                    selector(&self.zones[zone].subsets).map(|cell| (cell.clone(), weight))
                });
                let cells: Vec<(ZoneTargets, u64)> = cells.collect();
                if !cells.is_empty() {
                    assembled.push(Tier::new(share, cells));
                }
            }
        }
        assembled
    }

    /// Panic: all endpoints that are not drained, by their declared weights.
    pub(crate) fn panic_tiers(&self, variant: usize, state: &PoolState) -> Vec<Tier> {
        let Some((_, tiers)) = self.variants.get(variant) else { return Vec::new() };
        let cells: Vec<Vec<(ZoneTargets, u64)>> = tiers
            .iter()
            .map(|zones| {
                let cells = zones.iter().filter_map(|&zone| state.zone(zone).roster().undrained());
                cells.map(|cell| (cell.clone(), cell.weight())).collect()
            })
            .collect();
        let level = |cells: &Vec<(ZoneTargets, u64)>| {
            let total = cells.iter().map(|(_, weight)| weight).sum();
            PriorityLevel { total, healthy: total, bound: UNBOUNDED_SHARE }
        };
        let levels: Vec<PriorityLevel> = cells.iter().map(level).collect();
        let shares = steering::tier_shares(&levels, self.spec.steer.overprovisioning, FULL_SHARE);
        let tiers = cells.into_iter().zip(shares).filter(|(cells, _)| !cells.is_empty());
        tiers.map(|(cells, share)| Tier::new(share, cells)).collect()
    }

    /// The part of the demand that each zone can take by its declared capacity, in parts of
    /// [`FULL_SHARE`]; empty where none is declared.
    pub(crate) fn capacity_bounds(&self) -> Vec<u64> {
        let serving_subset: SubsetSelector = |zone| zone.eligible().or_else(|| zone.suspects());
        let Some(capacity) = self.remaining_capacity(|zone| weigh_subset(zone, serving_subset))
        else {
            return Vec::new();
        };
        let region = |zone: usize| capacity.regions.get(self.region(zone)).copied();
        let zones = capacity.zones.iter().enumerate();
        zones
            .map(|(zone, &bound)| {
                bound.min(region(zone).unwrap_or(UNBOUNDED_SHARE)).min(FULL_SHARE)
            })
            .collect()
    }

    fn region(&self, zone: usize) -> &str {
        &self.spec.zones[zone].locality.region
    }

    fn remaining_capacity(
        &self,
        weigh: impl Fn(&SplitZone) -> WeightTotals,
    ) -> Option<RemainingCapacity<'_>> {
        let bounds = CapacityBounds {
            demand: self.demand?,
            per_endpoint: self.spec.steer.endpoint_capacity,
        };
        let zones = self.zones.iter().zip(&self.spec.zones).map(|(part, spec)| {
            bounds.bound_for(spec.settings.capacity, weigh(part), part.residence_s)
        });
        let zones = zones.collect();
        let mut regions: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, capacity) in &self.spec.steer.region_capacities {
            let members = self.zones.iter().zip(&self.spec.zones);
            let members = members.filter(|(_, spec)| spec.locality.region == *name);
            let (mut sum, mut stay_s, mut count) = (WeightTotals::default(), 0.0, 0.0);
            for (part, _) in members {
                sum = sum.merge(weigh(part));
                (stay_s, count) = (stay_s + part.residence_s, count + 1.0);
            }
            let of_all = CapacityBounds { per_endpoint: CapacityLimits::default(), ..bounds };
            regions.insert(name, of_all.bound_for(*capacity, sum, stay_s / f64::max(count, 1.0)));
        }
        Some(RemainingCapacity { zones, regions })
    }

    /// The level of a tier. Suspects and doubted endpoints count as healthy where the tier has
    /// anything better: one among others moves nothing to the next tier, a tier of suspects alone
    /// moves all.
    fn tier_level<'s>(
        &'s self,
        variant: &SteeringVariant,
        zones: &[usize],
        selector: SubsetSelector,
        capacity: &mut Option<RemainingCapacity<'s>>,
    ) -> PriorityLevel {
        let is_weighted =
            *variant == SteeringVariant::Policy(SteeringPolicy::Weighted) && zones.len() > 1;
        let serves = zones.iter().any(|&zone| selector(&self.zones[zone].subsets).is_some());
        let (mut total, mut healthy) = (0, 0);
        for &zone in zones {
            let sum = weigh_subset(&self.zones[zone], selector);
            if is_weighted {
                let weight = u64::from(self.spec.zones[zone].settings.weight) * WEIGHT_SCALE;
                total += weight;
                healthy +=
                    (weight * sum.healthy.min(sum.total)).checked_div(sum.total).unwrap_or(0);
            } else {
                (total, healthy) = (total + sum.total, healthy + sum.healthy);
            }
        }
        let mut level = PriorityLevel {
            total,
            healthy: if serves { healthy } else { 0 },
            bound: UNBOUNDED_SHARE,
        };
        if capacity.is_some() && serves {
            level.bound = self.capacity_bound(zones, capacity.as_ref());
            let filled = level.capacity(self.spec.steer.overprovisioning, FULL_SHARE);
            let _ = self.split_share(variant, zones, selector, filled, capacity);
        }
        level
    }

    /// The part that these zones can take together, in parts of [`FULL_SHARE`].
    fn capacity_bound(&self, zones: &[usize], capacity: Option<&RemainingCapacity<'_>>) -> u64 {
        let Some(capacity) = capacity else { return UNBOUNDED_SHARE };
        let mut regions: BTreeMap<&str, u64> = BTreeMap::new();
        for &zone in zones {
            let sum = regions.entry(self.region(zone)).or_default();
            *sum = sum.saturating_add(capacity.zones[zone]);
        }
        let bound = |(name, &zones): (&&str, &u64)| {
            capacity.regions.get(name).map_or(zones, |region| zones.min(*region))
        };
        regions.iter().map(bound).fold(0, u64::saturating_add)
    }

    /// The weights of `zones` inside their tier, which receives `share`. What they take is
    /// subtracted from `capacity`; without bounds these are the weights of what serves.
    fn split_share<'s>(
        &'s self,
        variant: &SteeringVariant,
        zones: &[usize],
        selector: SubsetSelector,
        share: u64,
        capacity: &mut Option<RemainingCapacity<'s>>,
    ) -> Vec<u64> {
        let weights: Vec<u64> =
            zones.iter().map(|&zone| self.zone_weight(variant, zone, selector)).collect();
        let Some(capacity) = capacity.as_mut().filter(|_| share > 0) else { return weights };
        let mut regions: Vec<(&str, Vec<usize>)> = Vec::new();
        for (at, &zone) in zones.iter().enumerate() {
            let name = self.region(zone);
            match regions.iter_mut().find(|(region, _)| *region == name) {
                Some((_, members)) => members.push(at),
                None => regions.push((name, vec![at])),
            }
        }
        let bucket = |at: usize| Bucket { weight: weights[at], bound: capacity.zones[zones[at]] };
        let buckets: Vec<Bucket> = regions
            .iter()
            .map(|(name, members)| {
                let zones = members.iter().map(|&at| bucket(at).bound).fold(0, u64::saturating_add);
                let bound = capacity.regions.get(name).map_or(zones, |region| zones.min(*region));
                Bucket { weight: members.iter().map(|&at| weights[at]).sum(), bound }
            })
            .collect();
        let mut zone_shares = vec![0; zones.len()];
        for ((name, members), amount) in regions.iter().zip(water_fill(share, &buckets)) {
            let region_buckets: Vec<Bucket> = members.iter().map(|&at| bucket(at)).collect();
            for (&at, zone_amount) in members.iter().zip(water_fill(amount, &region_buckets)) {
                zone_shares[at] = zone_amount;
            }
            if let Some(region) = capacity.regions.get_mut(name) {
                *region = region.saturating_sub(amount);
            }
        }
        for (&zone, &amount) in zones.iter().zip(&zone_shares) {
            capacity.zones[zone] = capacity.zones[zone].saturating_sub(amount);
        }
        zone_shares
    }

    /// The weight of a zone among those of its tier.
    fn zone_weight(&self, variant: &SteeringVariant, zone: usize, selector: SubsetSelector) -> u64 {
        let split_zone = &self.zones[zone];
        let Some(cell) = selector(&split_zone.subsets) else { return 0 };
        if *variant != SteeringVariant::Policy(SteeringPolicy::Weighted) {
            return scale_by_ramp(cell.weight(), split_zone.ramp);
        }
        // Envoy's locality weights: a zone keeps its share while what is healthy of it carries it.
        let WeightTotals { total: known, healthy } = weigh_subset(split_zone, selector);
        let over = u64::from(self.spec.steer.overprovisioning.hundredths());
        let healthy_weight =
            proportion(WEIGHT_SCALE, healthy * over, known * 100).min(WEIGHT_SCALE);
        u64::from(self.spec.zones[zone].settings.weight) * healthy_weight
    }
}

/// The demand, where capacity is declared and the demand is measurable.
fn capacity_demand(state: &PoolState) -> Option<PoolDemand> {
    let demand = || PoolDemand::sum(state.zones().iter().map(ZoneState::load));
    let is_declared = state.spec().has_declared_capacity();
    is_declared.then(demand).filter(|demand| demand.rate_rps().is_some())
}

fn weigh_subset(split_zone: &SplitZone, selector: SubsetSelector) -> WeightTotals {
    let subsets = &split_zone.subsets;
    let of = |cell: Option<&ZoneTargets>| cell.map_or(0, ZoneTargets::weight);
    let (open, suspects) = (of(subsets.eligible()), of(subsets.suspects()));
    let weight = if open > 0 { open + suspects } else { suspects.max(of(selector(subsets))) };
    WeightTotals {
        total: subsets.known_capacity(),
        healthy: scale_by_ramp(weight, split_zone.ramp),
    }
}

/// The part `of` / `whole` of an amount; zero of an empty whole.
fn proportion(amount: u64, of: u64, whole: u64) -> u64 {
    (u128::from(amount) * u128::from(of)).checked_div(u128::from(whole)).unwrap_or(0) as u64
}

fn scale_by_ramp(weight: u64, ramp: u32) -> u64 {
    (weight * u64::from(ramp) / u64::from(FULL_SHARE_PERMILLE)).max(u64::from(weight > 0))
}
