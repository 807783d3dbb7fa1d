//! How much of a pool's demand fits where, as operators have stated it.

use super::{CapacityLimits, FULL_SHARE, PoolDemand, UNBOUNDED_SHARE};
use crate::logic::steering::target::WEIGHT_ONE;

/// What there is of something, and what of it serves: sums of weights, in parts of [`WEIGHT_ONE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightTotals {
    pub total: u64,
    pub healthy: u64,
}

impl WeightTotals {
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self { total: self.total + other.total, healthy: self.healthy + other.healthy }
    }

    /// The part that serves, in 0..1.
    fn healthy_fraction(self) -> f64 {
        if self.total == 0 { 0.0 } else { (self.healthy as f64 / self.total as f64).min(1.0) }
    }
}

/// What is asked of a pool, against which capacity is held.
#[derive(Clone, Copy, Debug)]
pub struct CapacityBounds {
    pub demand: PoolDemand,
    /// What an endpoint of weight one can take.
    pub per_endpoint: CapacityLimits,
}

impl CapacityBounds {
    /// What a zone or a region can take that states `capacity` for all of its endpoints and for which
    /// requests stay for `stay_s` seconds; in parts of [`WHOLE`], [`UNBOUNDED`] if nothing is stated
    /// or hardly anything is asked for.
    pub fn bound_for(
        &self,
        capacity: CapacityLimits,
        weighed: WeightTotals,
        residence_s: f64,
    ) -> u64 {
        let Some(rate_rps) = self.demand.rate_rps() else { return UNBOUNDED_SHARE };
        let endpoints = weighed.healthy as f64 / f64::from(WEIGHT_ONE);
        let all = |stated: Option<u32>| {
            stated.map(|stated| f64::from(stated) * weighed.healthy_fraction())
        };
        let each = |stated: Option<u32>| stated.map(|stated| f64::from(stated) * endpoints);
        let rates = [all(capacity.rate_rps), each(self.per_endpoint.rate_rps)];
        let requests = [all(capacity.requests), each(self.per_endpoint.requests)];
        let by_rate = rates.into_iter().flatten().map(|rate| rate / rate_rps);
        let in_flight = rate_rps * residence_s;
        let by_requests = requests.into_iter().flatten().map(|requests| requests / in_flight);
        let least = by_rate.chain(by_requests).min_by(f64::total_cmp);
        // As much as all of it, and more, may count for something when others are full.
        least.map_or(UNBOUNDED_SHARE, |part| {
            (part * FULL_SHARE as f64).min((UNBOUNDED_SHARE / 2) as f64) as u64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::steering::ZoneLoad;
    use std::time::Duration;

    fn weight_totals(healthy: u64, known: u64) -> WeightTotals {
        let one = u64::from(WEIGHT_ONE);
        WeightTotals { total: known * one, healthy: healthy * one }
    }

    fn demand() -> PoolDemand {
        PoolDemand::sum([ZoneLoad::declared(1_000.0, Duration::from_millis(100))].iter())
    }

    fn bound_fraction(
        bounds: &CapacityBounds,
        capacity: CapacityLimits,
        weighed: WeightTotals,
        stay_s: f64,
    ) -> f64 {
        bounds.bound_for(capacity, weighed, stay_s) as f64 / FULL_SHARE as f64
    }

    #[test]
    fn tightest_limit_applies_scaled_by_healthy_weight() {
        let demand = demand();
        let bounds = CapacityBounds {
            demand,
            per_endpoint: CapacityLimits { rate_rps: Some(200), requests: None },
        };
        let nothing = CapacityLimits::default();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} and not {b}");
        close(bound_fraction(&bounds, nothing, weight_totals(3, 4), 0.1), 0.6);
        let zone = CapacityLimits { rate_rps: Some(500), requests: None };
        close(bound_fraction(&bounds, zone, weight_totals(4, 4), 0.1), 0.5);
        close(bound_fraction(&bounds, zone, weight_totals(2, 4), 0.1), 0.25);
        let zone = CapacityLimits { rate_rps: None, requests: Some(20) };
        close(bound_fraction(&bounds, zone, weight_totals(4, 4), 0.1), 0.2);
        close(bound_fraction(&bounds, zone, weight_totals(4, 4), 0.2), 0.1);
        assert_eq!(bounds.bound_for(nothing, weight_totals(0, 4), 0.1), 0);
    }

    #[test]
    fn bound_without_limit_or_demand_is_unbounded() {
        let demand = demand();
        let silent = CapacityBounds { demand, per_endpoint: CapacityLimits::default() };
        assert_eq!(
            silent.bound_for(CapacityLimits::default(), weight_totals(1, 4), 0.1),
            UNBOUNDED_SHARE
        );
        let idle = CapacityBounds {
            demand: PoolDemand::default(),
            per_endpoint: CapacityLimits::default(),
        };
        let zone = CapacityLimits { rate_rps: Some(1), requests: Some(1) };
        assert_eq!(idle.bound_for(zone, weight_totals(1, 4), 0.1), UNBOUNDED_SHARE);
    }
}
