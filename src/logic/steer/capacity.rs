//! How much of a pool's demand fits where, as operators have stated it.

use super::{Capacity, Demand, UNBOUNDED, WHOLE};
use crate::logic::tier::WEIGHT_ONE;

/// What there is of something, and what of it serves: sums of weights, in parts of [`WEIGHT_ONE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weighed {
    /// All of it.
    pub known: u64,
    /// What serves.
    pub healthy: u64,
}

impl Weighed {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { known: self.known + other.known, healthy: self.healthy + other.healthy }
    }

    /// The part that serves, in 0..1.
    fn part(self) -> f64 {
        if self.known == 0 { 0.0 } else { (self.healthy as f64 / self.known as f64).min(1.0) }
    }
}

/// What is asked of a pool, against which capacity is held.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// All of it.
    pub demand: Demand,
    /// What an endpoint of weight one can take.
    pub endpoint: Capacity,
}

impl Bounds {
    /// What a zone or a region can take that states `capacity` for all of its endpoints and for which
    /// requests stay for `stay_s` seconds; in parts of [`WHOLE`], [`UNBOUNDED`] if nothing is stated
    /// or hardly anything is asked for.
    #[must_use]
    pub fn of(&self, capacity: Capacity, weighed: Weighed, stay_s: f64) -> u64 {
        let Some(rate_rps) = self.demand.rate_rps() else { return UNBOUNDED };
        let endpoints = weighed.healthy as f64 / f64::from(WEIGHT_ONE);
        let all = |stated: Option<u32>| stated.map(|stated| f64::from(stated) * weighed.part());
        let each = |stated: Option<u32>| stated.map(|stated| f64::from(stated) * endpoints);
        let rates = [all(capacity.rate), each(self.endpoint.rate)];
        let requests = [all(capacity.requests), each(self.endpoint.requests)];
        let by_rate = rates.into_iter().flatten().map(|rate| rate / rate_rps);
        let in_flight = rate_rps * stay_s;
        let by_requests = requests.into_iter().flatten().map(|requests| requests / in_flight);
        let least = by_rate.chain(by_requests).min_by(f64::total_cmp);
        // As much as all of it, and more, may count for something when others are full.
        least.map_or(UNBOUNDED, |part| (part * WHOLE as f64).min((UNBOUNDED / 2) as f64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::steer::Flow;
    use std::time::Duration;

    fn weighed(healthy: u64, known: u64) -> Weighed {
        let one = u64::from(WEIGHT_ONE);
        Weighed { known: known * one, healthy: healthy * one }
    }

    fn demand() -> Demand {
        Demand::of([Flow::stated(1_000.0, Duration::from_millis(100))].iter())
    }

    fn parts(bounds: &Bounds, capacity: Capacity, weighed: Weighed, stay_s: f64) -> f64 {
        bounds.of(capacity, weighed, stay_s) as f64 / WHOLE as f64
    }

    #[test]
    fn the_tightest_statement_counts_and_only_for_what_is_healthy() {
        let demand = demand();
        let bounds = Bounds { demand, endpoint: Capacity { rate: Some(200), requests: None } };
        let nothing = Capacity::default();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} and not {b}");
        close(parts(&bounds, nothing, weighed(3, 4), 0.1), 0.6);
        let zone = Capacity { rate: Some(500), requests: None };
        close(parts(&bounds, zone, weighed(4, 4), 0.1), 0.5);
        close(parts(&bounds, zone, weighed(2, 4), 0.1), 0.25);
        let zone = Capacity { rate: None, requests: Some(20) };
        close(parts(&bounds, zone, weighed(4, 4), 0.1), 0.2);
        close(parts(&bounds, zone, weighed(4, 4), 0.2), 0.1);
        assert_eq!(bounds.of(nothing, weighed(0, 4), 0.1), 0);
    }

    #[test]
    fn without_statement_or_demand_there_is_no_bound() {
        let demand = demand();
        let silent = Bounds { demand, endpoint: Capacity::default() };
        assert_eq!(silent.of(Capacity::default(), weighed(1, 4), 0.1), UNBOUNDED);
        let idle = Bounds { demand: Demand::default(), endpoint: Capacity::default() };
        let zone = Capacity { rate: Some(1), requests: Some(1) };
        assert_eq!(idle.of(zone, weighed(1, 4), 0.1), UNBOUNDED);
    }
}
