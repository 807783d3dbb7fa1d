//! Endpoints that serve, as requests choose among them.

use std::net::SocketAddr;
use std::sync::Arc;

use fastrand::Rng;
use smallvec::SmallVec;

use super::balance::Seating;
use super::balance::keyed::Home;
use super::balance::turns::{Turns, gcd, stride};
use super::id::EndpointId;
use super::live::{Kin, Live};

/// A weight of one, as [`Cell`] counts: fine enough for a ramp and a degraded endpoint.
pub const WEIGHT_ONE: u32 = 1_000;

/// For how long one endpoint's failure is held against its neighbours, in microseconds. Who is asked
/// often has answered since; who is not need not be avoided for ever.
const AILS_US: u64 = 1_000_000;

/// Draws before all endpoints of a tier are gone through for one that fits.
const DRAWS: usize = 16;

/// One endpoint that may be chosen.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its identity.
    pub id: EndpointId,
    /// Where to connect.
    pub address: SocketAddr,
    /// Index of its zone in the pool.
    pub zone: usize,
    /// Its declared share among its neighbours.
    pub weight: u32,
    /// What the workers write.
    pub live: Arc<Live>,
    /// What they write of its zone.
    pub kin: Arc<Kin>,
}

impl Target {
    /// Whether a neighbour has failed a request of late, and this one has answered none well since:
    /// what ails one of a zone may ail them all.
    #[must_use]
    pub fn may_ail(&self, now_us: u64) -> bool {
        let erred_us = self.kin.erred_us();
        erred_us != 0
            && now_us.saturating_sub(erred_us) < AILS_US
            && self.live.last_good_us() < erred_us
    }
}

/// Those endpoints of one zone that take traffic.
#[derive(Clone, Debug)]
pub struct Cell {
    /// All endpoints of the zone; shared by every snapshot until the configuration changes.
    targets: Arc<[Target]>,
    active: Arc<Active>,
}

#[derive(Debug)]
struct Active {
    /// Positions in `targets`.
    positions: Vec<u32>,
    sums: Sums,
    total: u64,
    /// Divides all weights.
    unit: u64,
    /// By what keys find an endpoint, where the pool has any.
    seating: Option<Arc<Seating>>,
    /// Which part of its keys each of `targets` takes; empty without a seating.
    parts: Box<[u16]>,
}

/// Running sums of weights, with a guide to where each part of them begins (Chen and Asau, 1974): a
/// point is found by about two looks, however many there are. Empty when all weights are equal, where
/// a plain draw is cheaper.
#[derive(Debug, Default)]
struct Sums {
    sums: Vec<u64>,
    guide: Vec<u32>,
    shift: u32,
}

/// Cells that are equally near, and the part of the pool's traffic that they get.
#[derive(Debug)]
pub struct Tier {
    /// In parts of [`super::steer::WHOLE`].
    pub share: u64,
    pub(super) cells: Vec<Cell>,
    /// Running sums of the cells' weights.
    sums: Vec<u64>,
    /// How keys find their cells; empty unless the cells have seatings.
    pub(super) homes: Vec<Home>,
    /// Divides all weights.
    unit: u64,
    /// The step of a round of the whole in units.
    stride: u64,
    /// Sum of the endpoints' weights, whatever the cells weigh: those may be shares of traffic.
    own: u64,
}

impl Sums {
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
        Self { guide: guide.collect(), shift, sums }
    }

    /// Whose the point is.
    fn find(&self, point: u64) -> usize {
        let mut index = self.guide[(point >> self.shift) as usize] as usize;
        while self.sums[index] <= point {
            index += 1;
        }
        index
    }
}

impl Cell {
    /// The endpoints of `targets` at these positions, in their order, with their weights in parts of
    /// [`WEIGHT_ONE`]; `None` if there are none.
    #[must_use]
    pub fn new(targets: &Arc<[Target]>, active: &[(u32, u32)]) -> Option<Self> {
        Self::seated(targets, None, active)
    }

    /// The same, where keys find `targets` by `seating`.
    #[must_use]
    pub fn seated(
        targets: &Arc<[Target]>,
        seating: Option<&Arc<Seating>>,
        active: &[(u32, u32)],
    ) -> Option<Self> {
        let &(_, first) = active.first()?;
        let mut total = 0;
        let mut are_equal = true;
        for &(_, weight) in active {
            total += u64::from(weight);
            are_equal &= weight == first;
        }
        let weights = active.iter().map(|&(_, weight)| u64::from(weight));
        let unit = if are_equal { u64::from(first) } else { weights.clone().fold(0, gcd) };
        let sums = if are_equal { Sums::default() } else { Sums::new(weights) };
        let positions = active.iter().map(|&(position, _)| position).collect();
        let parts = seating.map(|seating| seating.parts(active)).unwrap_or_default();
        let seating = seating.cloned();
        let active = Active { positions, sums, total, unit, seating, parts };
        Some(Self { targets: Arc::clone(targets), active: Arc::new(active) })
    }

    /// By what keys find an endpoint, where the pool has any.
    pub(super) fn seating(&self) -> Option<&Seating> {
        self.active.seating.as_deref()
    }

    /// Which part of its keys the endpoint at a position takes.
    pub(super) fn part(&self, position: u32) -> Option<u16> {
        self.active.parts.get(position as usize).copied()
    }

    /// All of `targets`, by their declared weights.
    #[must_use]
    pub fn everybody(targets: &Arc<[Target]>, seating: Option<&Arc<Seating>>) -> Option<Self> {
        let all = targets.iter().zip(0..);
        let active: Vec<(u32, u32)> =
            all.map(|(target, position)| (position, target.weight * WEIGHT_ONE)).collect();
        Self::seated(targets, seating, &active)
    }

    /// Sum of the weights of those that take traffic, in parts of [`WEIGHT_ONE`].
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.active.total
    }

    /// Endpoints that take traffic.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.active.positions.iter().map(|&position| self.target(position))
    }

    /// The endpoint at a position in the zone, if it takes traffic.
    #[must_use]
    pub fn takes(&self, position: u32) -> Option<&Target> {
        let found = self.active.positions.binary_search(&position);
        found.is_ok().then(|| self.target(position))
    }

    pub(super) fn target(&self, position: u32) -> &Target {
        &self.targets[position as usize]
    }

    /// Endpoints that take traffic, each with its part of the cell's, in 0..1.
    fn parts(&self) -> impl Iterator<Item = (&Target, f64)> {
        let Active { positions, sums: Sums { sums, .. }, total, .. } = &*self.active;
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

    fn draw(&self, rng: &mut Rng) -> &Target {
        let index = match self.active.sums.sums.last() {
            None => rng.usize(..self.active.positions.len()),
            Some(&sum) => self.active.sums.find(rng.u64(..sum)),
        };
        self.target(self.active.positions[index])
    }

    /// The endpoint to which a point below the total weight belongs.
    fn at(&self, point: u64) -> &Target {
        let Active { positions, sums, unit, .. } = &*self.active;
        let index = if sums.sums.is_empty() { (point / unit) as usize } else { sums.find(point) };
        self.target(positions[index])
    }
}

impl Tier {
    /// A tier of `cells`, which must not be empty; each has its own weight, or, scaled by a ramp of
    /// its zone, another.
    #[must_use]
    pub fn new(share: u64, cells: Vec<(Cell, u64)>) -> Self {
        let running = cells.iter().scan(0u64, |sum, (_, weight)| {
            *sum += (*weight).max(1);
            Some(*sum)
        });
        let sums: Vec<u64> = running.collect();
        let units = cells.iter().map(|(cell, weight)| gcd(cell.active.unit, (*weight).max(1)));
        let unit = units.fold(0, gcd).max(1);
        let homes = cells.iter().map_while(|(cell, weight)| Home::of(cell, *weight)).collect();
        let stride = stride(sums.last().copied().unwrap_or(1) / unit);
        let own = cells.iter().map(|(cell, _)| cell.weight()).sum();
        let cells = cells.into_iter().map(|(cell, _)| cell).collect();
        Self { share, cells, sums, homes, unit, stride, own }
    }

    /// A tier of one cell with all of `targets`, by their declared weights.
    #[must_use]
    pub fn of(share: u64, targets: Vec<Target>) -> Self {
        let cell = Cell::everybody(&targets.into(), None);
        Self::new(share, cell.into_iter().map(|cell| (cell.clone(), cell.weight())).collect())
    }

    /// The endpoints of the tier.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.cells.iter().flat_map(Cell::targets)
    }

    /// Whether endpoints of the pool's zone with this index get traffic by it.
    #[must_use]
    pub(super) fn reaches(&self, zone: usize) -> bool {
        self.share > 0
            && self.cells.iter().any(|cell| cell.targets().next().is_some_and(|t| t.zone == zone))
    }

    /// The endpoints of the tier, each with the part of the tier's traffic that is drawn for it, in
    /// 0..1.
    pub fn parts(&self) -> impl Iterator<Item = (&Target, f64)> {
        let whole = self.sums.last().copied().unwrap_or(1).max(1) as f64;
        self.cells.iter().enumerate().flat_map(move |(index, cell)| {
            let before = index.checked_sub(1).map_or(0, |before| self.sums[before]);
            let of_cell = (self.sums[index] - before) as f64 / whole;
            cell.parts().map(move |(target, part)| (target, of_cell * part))
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.iter().map(|cell| cell.active.positions.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Sum of the endpoints' weights, in parts of [`WEIGHT_ONE`].
    pub(super) fn own_weight(&self) -> u64 {
        self.own
    }

    /// Whether keys find their endpoints here.
    pub(super) fn is_seated(&self) -> bool {
        !self.homes.is_empty()
    }

    /// By chance, by weight.
    pub(super) fn draw(&self, rng: &mut Rng) -> &Target {
        let cell = match self.sums.as_slice() {
            [_] => &self.cells[0],
            sums => {
                let point = rng.u64(..sums[sums.len() - 1]);
                &self.cells[sums.partition_point(|&upto| upto <= point)]
            }
        };
        cell.draw(rng)
    }

    /// The power of two choices (Mitzenmacher): two draws by weight, and the less loaded of them.
    pub(super) fn pick(&self, rng: &mut Rng) -> &Target {
        let first = self.draw(rng);
        if self.cells.len() == 1 && self.cells[0].active.positions.len() == 1 {
            return first;
        }
        less_loaded(first, self.draw(rng))
    }

    /// Of two draws by weight the one that costs less for its weight.
    pub(super) fn pick_by(&self, rng: &mut Rng, cost: impl Fn(&Target) -> f64) -> &Target {
        let (first, second) = (self.draw(rng), self.draw(rng));
        let is_less =
            cost(second) * f64::from(first.weight) < cost(first) * f64::from(second.weight);
        if is_less { second } else { first }
    }

    /// Whose turn it is in the round of this tier, which is the pool's number `index`.
    pub(super) fn turn(&self, turns: &Turns, index: usize, rng: &mut Rng) -> &Target {
        let whole = self.sums.last().copied().unwrap_or(0);
        let point = turns.next(index, self.stride, whole / self.unit, rng) * self.unit;
        let place = self.sums.partition_point(|&upto| upto <= point);
        let before = place.checked_sub(1).map_or(0, |before| self.sums[before]);
        let (given, own) = (self.sums[place] - before, self.cells[place].weight());
        let mut point = point - before;
        if given != own {
            // A ramp of the zone has made it smaller than its parts are together.
            point = (u128::from(point) * u128::from(own) / u128::from(given)) as u64;
        }
        self.cells[place].at(point)
    }

    /// The less loaded of two among those that fit; `None` if none does.
    pub(super) fn pick_fitting(
        &self,
        rng: &mut Rng,
        fits: impl Fn(&Target) -> bool,
    ) -> Option<&Target> {
        if self.len() > DRAWS {
            let mut drawn = (0..DRAWS).map(|_| self.draw(rng)).filter(|target| fits(target));
            if let Some(first) = drawn.next() {
                let second = drawn.next();
                return Some(second.map_or(first, |second| less_loaded(first, second)));
            }
        }
        let left: SmallVec<[&Target; DRAWS]> =
            self.targets().filter(|target| fits(target)).collect();
        if left.is_empty() {
            return None;
        }
        Some(less_loaded(left[rng.usize(..left.len())], left[rng.usize(..left.len())]))
    }
}

fn less_loaded<'a>(a: &'a Target, b: &'a Target) -> &'a Target {
    let load = |x: &Target, y: &Target| u64::from(x.live.in_flight()) * u64::from(y.weight);
    if load(b, a) < load(a, b) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(first: u32, weights: &[u32]) -> Cell {
        let target = |id: u32| Target {
            id: EndpointId::new(id, 0),
            address: SocketAddr::from(([127, 0, 0, 1], 9000)),
            zone: 0,
            weight: 1,
            live: Arc::default(),
            kin: Arc::default(),
        };
        let ids = first..first + weights.len() as u32;
        let active = (0..).zip(weights.iter().copied()).filter(|(_, weight)| *weight > 0);
        let active: Vec<(u32, u32)> = active.collect();
        Cell::new(&ids.map(target).collect(), &active).expect("a weight")
    }

    #[test]
    fn parts_are_what_is_drawn() {
        let (equal, unequal) = (cell(0, &[5, 0, 5]), cell(3, &[10, 30]));
        let tier = Tier::new(1, vec![(equal, 10), (unequal, 30)]);
        let parts: Vec<(u32, f64)> =
            tier.parts().map(|(target, part)| (target.id.slot, part)).collect();
        assert_eq!(parts, [(0, 0.125), (2, 0.125), (3, 0.1875), (4, 0.5625)]);
        let mut rng = Rng::with_seed(7);
        let mut counts = [0_u32; 5];
        for _ in 0..100_000 {
            counts[tier.draw(&mut rng).id.slot as usize] += 1;
        }
        for (slot, part) in parts {
            let drawn = f64::from(counts[slot as usize]) / 100_000.0;
            assert!((drawn - part).abs() < 0.01, "{slot}: {drawn} and not {part}");
        }
    }
}
