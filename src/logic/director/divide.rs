//! How the traffic of a pool is divided among its tiers and their zones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::logic::recovery::FULL;
use crate::logic::snapshot::{Cell, Tier};
use crate::logic::steer::{
    self, Bounds, Capacity, Demand, Level, Policy, UNBOUNDED, Vessel, WHOLE, Way, Weighed, pour,
};
use crate::logic::topology::PoolSpec;

use super::pools::{Built, PoolState};

/// Which endpoints of a zone.
pub(super) type Choice = fn(&Built) -> Option<&Cell>;

/// A weight of one under [`Policy::Weighted`], times the part of a zone that is healthy.
const FINE: u64 = 1 << 20;

/// The zones of a pool as its traffic is divided among them, at one moment.
pub(super) struct Division {
    spec: Arc<PoolSpec>,
    ways: Vec<(Way, Arc<[Vec<usize>]>)>,
    parts: Vec<Part>,
    /// What is asked for, where capacity is stated and more than hardly anything is asked for.
    demand: Option<Demand>,
}

/// One zone.
struct Part {
    built: Built,
    /// The share of its ramp, in thousandths.
    ramp: u32,
    /// How long requests stay there, in seconds.
    stay_s: f64,
}

/// What there is room for, in parts of [`WHOLE`]: by zone, and by region.
struct Room<'a> {
    zones: Vec<u64>,
    regions: BTreeMap<&'a str, u64>,
}

impl Division {
    pub(super) fn of(state: &mut PoolState, now: Instant) -> Self {
        let spec = Arc::clone(&state.spec);
        let length = spec.recover.ramp;
        let demand = spec
            .states_capacity()
            .then(|| Demand::of(state.zones.iter().map(|zone| &zone.flow)))
            .filter(|demand| demand.rate_rps().is_some());
        let parts = state.zones.iter_mut().map(|zone| Part {
            built: zone.built().clone(),
            ramp: zone.ramp.share(length, now),
            stay_s: demand.map_or(0.0, |demand| demand.stay_s(&zone.flow)),
        });
        let parts = parts.collect();
        let ways = spec.steer.ways().zip(state.tiers.iter().cloned()).collect();
        Self { parts, ways, demand, spec }
    }

    pub(super) fn zones(&self) -> impl Iterator<Item = &Built> {
        self.parts.iter().map(|part| &part.built)
    }

    /// Tiers of the first choice that anybody fits share the traffic; the others follow in their
    /// order, for requests that have been everywhere else. Each way by itself: what is stated of
    /// capacity is held against all that is asked for, as if all of it went this way.
    pub(super) fn assemble(&self, way: usize, choices: &[Choice]) -> Vec<Tier> {
        let Some((way, tiers)) = self.ways.get(way) else { return Vec::new() };
        let fits = |choice: &Choice| self.zones().any(|built| choice(built).is_some());
        let Some(first) = choices.iter().position(fits) else { return Vec::new() };
        let first_choice = choices[first];
        let weigh = |zone: &Part| weighed(zone, first_choice);
        let mut room = self.room(weigh);
        let levels: Vec<Level> =
            tiers.iter().map(|zones| self.level(way, zones, first_choice, &mut room)).collect();
        let shares = steer::shares(&levels, self.spec.steer.overprovisioning, WHOLE);
        // Filled once more: what each tier really gets leaves room for the next.
        let mut room = self.room(weigh);
        let mut assembled = Vec::new();
        for (position, choice) in choices.iter().enumerate().skip(first) {
            for (zones, &share) in tiers.iter().zip(&shares) {
                let share = if position == first { share } else { 0 };
                let serving: SmallVec<[usize; 4]> = zones
                    .iter()
                    .copied()
                    .filter(|&zone| choice(&self.parts[zone].built).is_some())
                    .collect();
                let weights = self.divide(way, &serving, *choice, share, &mut room);
                let cells = serving.iter().zip(weights).filter_map(|(&zone, weight)| {
                    choice(&self.parts[zone].built).map(|cell| (cell.clone(), weight))
                });
                let cells: Vec<(Cell, u64)> = cells.collect();
                if !cells.is_empty() {
                    assembled.push(Tier::new(share, cells));
                }
            }
        }
        assembled
    }

    /// Panic: all endpoints that are not drained, by their declared weights.
    pub(super) fn everybody(&self, way: usize, state: &PoolState) -> Vec<Tier> {
        let Some((_, tiers)) = self.ways.get(way) else { return Vec::new() };
        let cells: Vec<Vec<(Cell, u64)>> = tiers
            .iter()
            .map(|zones| {
                let cells = zones.iter().filter_map(|&zone| state.zones[zone].everybody());
                cells.map(|cell| (cell.clone(), cell.weight())).collect()
            })
            .collect();
        let level = |cells: &Vec<(Cell, u64)>| {
            let total = cells.iter().map(|(_, weight)| weight).sum();
            Level { total, healthy: total, bound: UNBOUNDED }
        };
        let levels: Vec<Level> = cells.iter().map(level).collect();
        let shares = steer::shares(&levels, self.spec.steer.overprovisioning, WHOLE);
        let tiers = cells.into_iter().zip(shares).filter(|(cells, _)| !cells.is_empty());
        tiers.map(|(cells, share)| Tier::new(share, cells)).collect()
    }

    /// What each zone can take of the demand by its own statement, in parts of [`WHOLE`]; empty where
    /// nothing is stated.
    pub(super) fn bounds(&self) -> Vec<u64> {
        let serving: Choice = |zone| zone.open.as_ref().or(zone.suspects.as_ref());
        let Some(room) = self.room(|zone| weighed(zone, serving)) else { return Vec::new() };
        let region = |zone: usize| room.regions.get(self.region(zone)).copied();
        let zones = room.zones.iter().enumerate();
        zones
            .map(|(zone, &bound)| bound.min(region(zone).unwrap_or(UNBOUNDED)).min(WHOLE))
            .collect()
    }

    fn region(&self, zone: usize) -> &str {
        &self.spec.zones[zone].place.region
    }

    fn room(&self, weigh: impl Fn(&Part) -> Weighed) -> Option<Room<'_>> {
        let bounds = Bounds { demand: self.demand?, endpoint: self.spec.steer.endpoint };
        let zones = self
            .parts
            .iter()
            .zip(&self.spec.zones)
            .map(|(part, spec)| bounds.of(spec.terms.capacity, weigh(part), part.stay_s));
        let zones = zones.collect();
        let mut regions: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, capacity) in &self.spec.steer.regions {
            let members = self.parts.iter().zip(&self.spec.zones);
            let members = members.filter(|(_, spec)| spec.place.region == *name);
            let (mut sum, mut stay_s, mut count) = (Weighed::default(), 0.0, 0.0);
            for (part, _) in members {
                sum = sum.and(weigh(part));
                (stay_s, count) = (stay_s + part.stay_s, count + 1.0);
            }
            let of_all = Bounds { endpoint: Capacity::default(), ..bounds };
            regions.insert(name, of_all.of(*capacity, sum, stay_s / f64::max(count, 1.0)));
        }
        Some(Room { zones, regions })
    }

    /// The suspected and the doubted count as healthy where their tier has anything better: one among
    /// others moves nothing to the next tier; a tier that has only such moves all.
    fn level<'s>(
        &'s self,
        way: &Way,
        zones: &[usize],
        choice: Choice,
        room: &mut Option<Room<'s>>,
    ) -> Level {
        let is_weighted = *way == Way::By(Policy::Weighted) && zones.len() > 1;
        let serves = zones.iter().any(|&zone| choice(&self.parts[zone].built).is_some());
        let (mut total, mut healthy) = (0, 0);
        for &zone in zones {
            let sum = weighed(&self.parts[zone], choice);
            if is_weighted {
                let weight = u64::from(self.spec.zones[zone].terms.weight) * FINE;
                total += weight;
                healthy +=
                    (weight * sum.healthy.min(sum.known)).checked_div(sum.known).unwrap_or(0);
            } else {
                (total, healthy) = (total + sum.known, healthy + sum.healthy);
            }
        }
        let mut level =
            Level { total, healthy: if serves { healthy } else { 0 }, bound: UNBOUNDED };
        if room.is_some() && serves {
            level.bound = self.bound(zones, room.as_ref());
            let filled = level.capacity(self.spec.steer.overprovisioning, WHOLE);
            let _ = self.divide(way, zones, choice, filled, room);
        }
        level
    }

    /// What these zones can take together.
    fn bound(&self, zones: &[usize], room: Option<&Room<'_>>) -> u64 {
        let Some(room) = room else { return UNBOUNDED };
        let mut regions: BTreeMap<&str, u64> = BTreeMap::new();
        for &zone in zones {
            let sum = regions.entry(self.region(zone)).or_default();
            *sum = sum.saturating_add(room.zones[zone]);
        }
        let bound = |(name, &zones): (&&str, &u64)| {
            room.regions.get(name).map_or(zones, |region| zones.min(*region))
        };
        regions.iter().map(bound).fold(0, u64::saturating_add)
    }

    /// The weights of `zones` inside their tier, which gets `share`; what they take of the room for
    /// it is gone. Without bounds these are the weights of what serves.
    fn divide<'s>(
        &'s self,
        way: &Way,
        zones: &[usize],
        choice: Choice,
        share: u64,
        room: &mut Option<Room<'s>>,
    ) -> Vec<u64> {
        let weights: Vec<u64> = zones.iter().map(|&zone| self.weight(way, zone, choice)).collect();
        let Some(room) = room.as_mut().filter(|_| share > 0) else { return weights };
        let mut regions: Vec<(&str, Vec<usize>)> = Vec::new();
        for (at, &zone) in zones.iter().enumerate() {
            let name = self.region(zone);
            match regions.iter_mut().find(|(region, _)| *region == name) {
                Some((_, members)) => members.push(at),
                None => regions.push((name, vec![at])),
            }
        }
        let vessel = |at: usize| Vessel { weight: weights[at], bound: room.zones[zones[at]] };
        let vessels: Vec<Vessel> = regions
            .iter()
            .map(|(name, members)| {
                let zones = members.iter().map(|&at| vessel(at).bound).fold(0, u64::saturating_add);
                let bound = room.regions.get(name).map_or(zones, |region| zones.min(*region));
                Vessel { weight: members.iter().map(|&at| weights[at]).sum(), bound }
            })
            .collect();
        let mut divided = vec![0; zones.len()];
        for ((name, members), amount) in regions.iter().zip(pour(share, &vessels)) {
            let inside: Vec<Vessel> = members.iter().map(|&at| vessel(at)).collect();
            for (&at, part) in members.iter().zip(pour(amount, &inside)) {
                divided[at] = part;
            }
            if let Some(region) = room.regions.get_mut(name) {
                *region = region.saturating_sub(amount);
            }
        }
        for (&zone, &part) in zones.iter().zip(&divided) {
            room.zones[zone] = room.zones[zone].saturating_sub(part);
        }
        divided
    }

    /// What a zone weighs among those of its tier.
    fn weight(&self, way: &Way, zone: usize, choice: Choice) -> u64 {
        let one = &self.parts[zone];
        let Some(cell) = choice(&one.built) else { return 0 };
        if *way != Way::By(Policy::Weighted) {
            return scaled(cell.weight(), one.ramp);
        }
        // Envoy's locality weights: a zone keeps its share while what is healthy of it carries it.
        let Weighed { known, healthy } = weighed(one, choice);
        let over = u64::from(self.spec.steer.overprovisioning.hundredths());
        let carried = part(FINE, healthy * over, known * 100).min(FINE);
        u64::from(self.spec.zones[zone].terms.weight) * carried
    }
}

fn weighed(part: &Part, choice: Choice) -> Weighed {
    let built = &part.built;
    let of = |cell: Option<&Cell>| cell.map_or(0, Cell::weight);
    let (open, suspects) = (of(built.open.as_ref()), of(built.suspects.as_ref()));
    let weight = if open > 0 { open + suspects } else { suspects.max(of(choice(built))) };
    Weighed { known: built.known, healthy: scaled(weight, part.ramp) }
}

/// `of` of `whole` of an amount; none of nothing.
fn part(amount: u64, of: u64, whole: u64) -> u64 {
    (u128::from(amount) * u128::from(of)).checked_div(u128::from(whole)).unwrap_or(0) as u64
}

fn scaled(weight: u64, ramp: u32) -> u64 {
    (weight * u64::from(ramp) / u64::from(FULL)).max(u64::from(weight > 0))
}
