//! Declared capacity as a bound on the share of a zone or a region.

use super::{CapacityLimits, FULL_SHARE, PoolDemand, UNBOUNDED_SHARE};
use crate::logic::steering::target::WEIGHT_ONE;

/// Sums of endpoint weights, in parts of [`WEIGHT_ONE`]: all, and those that serve.
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

    /// The fraction that serves, in 0..1.
    fn healthy_fraction(self) -> f64 {
        if self.total == 0 { 0.0 } else { (self.healthy as f64 / self.total as f64).min(1.0) }
    }
}

/// The demand on a pool and the declared capacity of its endpoints.
#[derive(Clone, Copy, Debug)]
pub struct CapacityBounds {
    pub demand: PoolDemand,
    /// Capacity of an endpoint of weight one.
    pub per_endpoint: CapacityLimits,
}

impl CapacityBounds {
    /// The largest share that a zone or a region can take, in parts of [`FULL_SHARE`];
    /// [`UNBOUNDED_SHARE`] without declared capacity or demand.
    ///
    /// `capacity` is declared for all of its endpoints, and requests stay for `residence_s`
    /// seconds.
    pub fn bound_for(
        &self,
        capacity: CapacityLimits,
        weights: WeightTotals,
        residence_s: f64,
    ) -> u64 {
        let Some(rate_rps) = self.demand.rate_rps() else { return UNBOUNDED_SHARE };
        let endpoints = weights.healthy as f64 / f64::from(WEIGHT_ONE);
        let for_all = |declared: Option<u32>| {
            declared.map(|declared| f64::from(declared) * weights.healthy_fraction())
        };
        let per_endpoint =
            |declared: Option<u32>| declared.map(|declared| f64::from(declared) * endpoints);
        let rates = [for_all(capacity.rate_rps), per_endpoint(self.per_endpoint.rate_rps)];
        let requests = [for_all(capacity.requests), per_endpoint(self.per_endpoint.requests)];
        let by_rate = rates.into_iter().flatten().map(|rate| rate / rate_rps);
        let in_flight = rate_rps * residence_s;
        let by_requests = requests.into_iter().flatten().map(|requests| requests / in_flight);
        let least = by_rate.chain(by_requests).min_by(f64::total_cmp);
        // A bound above the whole matters when other zones are full.
        least.map_or(UNBOUNDED_SHARE, |fraction| {
            (fraction * FULL_SHARE as f64).min((UNBOUNDED_SHARE / 2) as f64) as u64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::steering::ZoneLoad;
    use std::time::Duration;

    fn weight_totals(healthy: u64, total: u64) -> WeightTotals {
        let one = u64::from(WEIGHT_ONE);
        WeightTotals { total: total * one, healthy: healthy * one }
    }

    fn demand() -> PoolDemand {
        PoolDemand::sum([ZoneLoad::declared(1_000.0, Duration::from_millis(100))].iter())
    }

    fn bound_fraction(
        bounds: &CapacityBounds,
        capacity: CapacityLimits,
        weights: WeightTotals,
        residence_s: f64,
    ) -> f64 {
        bounds.bound_for(capacity, weights, residence_s) as f64 / FULL_SHARE as f64
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
        let undeclared = CapacityBounds { demand, per_endpoint: CapacityLimits::default() };
        assert_eq!(
            undeclared.bound_for(CapacityLimits::default(), weight_totals(1, 4), 0.1),
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
