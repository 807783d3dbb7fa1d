//! Endpoints that serve, as requests choose among them.

use std::net::SocketAddr;
use std::sync::Arc;

use fastrand::Rng;
use smallvec::SmallVec;

use super::id::EndpointId;
use super::live::Live;

/// A weight of one, as [`Cell`] counts: fine enough for a ramp and a degraded endpoint.
pub const WEIGHT_ONE: u32 = 1_000;

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
    /// Running sums of the weights; empty when all are equal, where a plain draw is cheaper.
    sums: Vec<u64>,
    total: u64,
}

/// Cells that are equally near, and the part of the pool's traffic that they get.
#[derive(Debug)]
pub struct Tier {
    /// In parts of [`super::steer::WHOLE`].
    pub share: u64,
    cells: Vec<Cell>,
    /// Running sums of the cells' weights.
    sums: Vec<u64>,
}

impl Cell {
    /// The endpoints of `targets` at these positions, with their weights in parts of
    /// [`WEIGHT_ONE`]; `None` if there are none.
    #[must_use]
    pub fn new(targets: &Arc<[Target]>, active: &[(u32, u32)]) -> Option<Self> {
        let &(_, first) = active.first()?;
        let mut total = 0;
        let mut are_equal = true;
        for &(_, weight) in active {
            total += u64::from(weight);
            are_equal &= weight == first;
        }
        let running = active.iter().scan(0u64, |sum, (_, weight)| {
            *sum += u64::from(*weight);
            Some(*sum)
        });
        let sums = if are_equal { Vec::new() } else { running.collect() };
        let positions = active.iter().map(|&(position, _)| position).collect();
        let active = Arc::new(Active { positions, sums, total });
        Some(Self { targets: Arc::clone(targets), active })
    }

    /// All of `targets`, by their declared weights.
    #[must_use]
    pub fn everybody(targets: &Arc<[Target]>) -> Option<Self> {
        let all = targets.iter().zip(0..);
        let active: Vec<(u32, u32)> =
            all.map(|(target, position)| (position, target.weight * WEIGHT_ONE)).collect();
        Self::new(targets, &active)
    }

    /// Sum of the weights of those that take traffic, in parts of [`WEIGHT_ONE`].
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.active.total
    }

    /// Endpoints that take traffic.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.active.positions.iter().map(|&position| &self.targets[position as usize])
    }

    /// Endpoints that take traffic, each with its part of the cell's, in 0..1.
    fn parts(&self) -> impl Iterator<Item = (&Target, f64)> {
        let Active { positions, sums, total } = &*self.active;
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
        let index = match self.active.sums.last() {
            None => rng.usize(..self.active.positions.len()),
            Some(&sum) => {
                let point = rng.u64(..sum);
                self.active.sums.partition_point(|&upto| upto <= point)
            }
        };
        &self.targets[self.active.positions[index] as usize]
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
        let sums = running.collect();
        Self { share, cells: cells.into_iter().map(|(cell, _)| cell).collect(), sums }
    }

    /// A tier of one cell with all of `targets`, by their declared weights.
    #[must_use]
    pub fn of(share: u64, targets: Vec<Target>) -> Self {
        let cell = Cell::everybody(&targets.into());
        Self::new(share, cell.into_iter().map(|cell| (cell.clone(), cell.weight())).collect())
    }

    /// The endpoints of the tier.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.cells.iter().flat_map(Cell::targets)
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

    fn draw(&self, rng: &mut Rng) -> &Target {
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
