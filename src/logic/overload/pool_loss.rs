//! Whether a pool carries its load after a loss: one judgement for orders and for `whatif`.
//!
//! Where capacity is stated, it is compared with the load by zone and region. Elsewhere the rest
//! may get [`MAX_LOAD_GROWTH`] times the load that an endpoint has now. An idle pool loses nothing
//! by either.

use std::fmt;
use std::sync::Arc;

use super::remaining_capacity::{MAX_LOAD_GROWTH, in_flight_limit};
use crate::logic::model::id::Locality;
use crate::logic::model::topology::PoolSpec;
use crate::logic::steering::{CapacityLimits, PoolDemand};

/// Loads are measured, so that a small excess is none.
const OVERLOAD_TOLERANCE: f64 = 1.001;

/// A pool after the loss of some of its endpoints, in its steady state.
#[derive(Clone, Debug)]
pub struct PoolLoss {
    pub spec: Arc<PoolSpec>,
    /// The load of the whole pool, as it is now.
    pub demand: PoolDemand,
    /// In the order of the pool.
    pub zones: Vec<ZoneLoss>,
    /// The endpoints that serve nothing already, as text.
    pub unavailable: Vec<String>,
}

/// A zone after the loss. Endpoints that are drained already are in none of the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ZoneLoss {
    pub endpoints: u32,
    pub lost: u32,
    pub lost_serving: u32,
    /// Endpoints that serve after the loss.
    pub serving: u32,
    /// The weight of those that serve now.
    pub weight_before: u64,
    /// The weight of those that serve after the loss.
    pub weight: u64,
    /// The weight of all endpoints, drained ones included.
    pub declared_weight: u64,
    /// The share of the pool's traffic now, in 0..1.
    pub share_before: f64,
    /// The share after the loss.
    pub share: f64,
}

/// Why a pool does not carry its load after a loss.
#[derive(Clone, Debug, PartialEq)]
pub enum LossProblem {
    NothingLeft {
        endpoints: u32,
    },
    NothingHealthyLeft {
        lost_serving: u32,
    },
    /// Fewer serve than `evict.panic_percent`.
    Panic {
        serving: u32,
        endpoints: u32,
        percent: u32,
    },
    /// Something is out already, and less than half would be left.
    LessThanHalf {
        weight: u64,
        declared_weight: u64,
        unavailable: String,
    },
    /// A zone or region has more than its stated requests per second.
    Rate {
        subject: String,
        rate_rps: f64,
        capacity_rps: f64,
    },
    /// A zone or region has more than its stated requests in flight.
    InFlight {
        subject: String,
        in_flight: f64,
        capacity: f64,
    },
    /// The pool has more requests in flight than its circuit breakers allow.
    BreakerLimit {
        in_flight: f64,
        limit: u64,
    },
    /// No capacity is stated, and endpoints of a zone get many times the present load of one.
    Growth {
        zone: Locality,
        growth: f64,
    },
}

impl LossProblem {
    /// The zone or region whose stated capacity is exceeded.
    pub fn overloaded(&self) -> Option<&str> {
        match self {
            Self::Rate { subject, .. } | Self::InFlight { subject, .. } => Some(subject),
            _ => None,
        }
    }
}

impl fmt::Display for LossProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingLeft { endpoints } => write!(
                f,
                "nothing would be left: all of its {endpoints} endpoints would be out of service"
            ),
            Self::NothingHealthyLeft { lost_serving } => write!(
                f,
                "nothing healthy would be left: {lost_serving} of its endpoints serve, and all of \
                 these would be out of service"
            ),
            Self::Panic { serving, endpoints, percent } => write!(
                f,
                "{serving} of {endpoints} endpoints would be left, less than `evict.panic_percent` \
                 ({percent} %)"
            ),
            Self::LessThanHalf { weight, declared_weight, unavailable } => write!(
                f,
                "{weight} of {declared_weight} of its weight would be left, less than half: \
                 {unavailable} already"
            ),
            Self::Rate { subject, rate_rps, capacity_rps } => {
                write!(
                    f,
                    "{subject} would get {rate_rps:.0} requests/s and can take {capacity_rps:.0}"
                )
            }
            Self::InFlight { subject, in_flight, capacity } => write!(
                f,
                "{subject} would have {in_flight:.0} requests in flight and can take {capacity:.0}"
            ),
            Self::BreakerLimit { in_flight, limit } => write!(
                f,
                "the remaining endpoints may have {limit} requests in flight, and would have \
                 {in_flight:.0}"
            ),
            Self::Growth { zone, growth } => write!(
                f,
                "endpoints of {zone} would get {growth:.1} times the present load of an endpoint; \
                 without a stated capacity the limit is {MAX_LOAD_GROWTH:.0} times"
            ),
        }
    }
}

/// A stated capacity in requests per second and in requests in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StatedCapacity {
    pub rate_rps: Option<f64>,
    pub in_flight: Option<f64>,
}

impl StatedCapacity {
    fn is_stated(self) -> bool {
        self.rate_rps.is_some() || self.in_flight.is_some()
    }

    /// `limits` times `factor`.
    fn scaled(limits: CapacityLimits, factor: f64) -> Self {
        let scale = |limit: Option<u32>| limit.map(|limit| f64::from(limit) * factor);
        Self { rate_rps: scale(limits.rate_rps), in_flight: scale(limits.requests) }
    }

    fn tightest(self, other: Self) -> Self {
        let least =
            |a: Option<f64>, b: Option<f64>| [a, b].into_iter().flatten().min_by(f64::total_cmp);
        Self {
            rate_rps: least(self.rate_rps, other.rate_rps),
            in_flight: least(self.in_flight, other.in_flight),
        }
    }
}

impl PoolLoss {
    /// Why the pool does not carry its load after the loss; empty if it does, or if it loses
    /// nothing that serves.
    pub fn problems(&self) -> Vec<LossProblem> {
        let sum = |count: fn(&ZoneLoss) -> u32| self.zones.iter().map(count).sum::<u32>();
        let (endpoints, lost) = (sum(|zone| zone.endpoints), sum(|zone| zone.lost));
        let (lost_serving, serving) = (sum(|zone| zone.lost_serving), sum(|zone| zone.serving));
        if lost == 0 {
            return Vec::new();
        }
        if lost == endpoints {
            let endpoints = self.zones_endpoint_count();
            return vec![LossProblem::NothingLeft { endpoints }];
        }
        // What does not serve can be taken away.
        if lost_serving == 0 {
            return Vec::new();
        }
        if serving == 0 {
            return vec![LossProblem::NothingHealthyLeft { lost_serving }];
        }
        let percent = self.spec.eviction.panic_percent;
        if serving * 100 < percent * endpoints {
            return vec![LossProblem::Panic { serving, endpoints, percent }];
        }
        let mut problems = self.overloads();
        problems.extend(self.breaker_problem(serving));
        problems.extend(self.unstated_problem());
        problems
    }

    fn zones_endpoint_count(&self) -> u32 {
        let declared = self.spec.zones.iter().map(|zone| zone.endpoints.len());
        u32::try_from(declared.sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// The stated capacity of a zone, of which this weight serves.
    pub fn zone_capacity(&self, zone: usize, weight: u64) -> StatedCapacity {
        let (Some(spec), Some(loss)) = (self.spec.zones.get(zone), self.zones.get(zone)) else {
            return StatedCapacity::default();
        };
        let part = weight as f64 / loss.declared_weight.max(1) as f64;
        let of_zone = StatedCapacity::scaled(spec.settings.capacity, part);
        of_zone.tightest(StatedCapacity::scaled(self.spec.steer.endpoint_capacity, weight as f64))
    }

    fn region_capacity(&self, region: &str) -> StatedCapacity {
        let stated = self.spec.steer.region_capacities.iter().find(|(name, _)| **name == *region);
        let Some((_, limits)) = stated else { return StatedCapacity::default() };
        let sum = |weight: fn(&ZoneLoss) -> u64| self.in_region(region).map(weight).sum::<u64>();
        let declared = sum(|zone| zone.declared_weight).max(1) as f64;
        StatedCapacity::scaled(*limits, sum(|zone| zone.weight) as f64 / declared)
    }

    fn in_region(&self, region: &str) -> impl Iterator<Item = &ZoneLoss> {
        let zones = self.spec.zones.iter().zip(&self.zones);
        zones.filter(move |(spec, _)| *spec.locality.region == *region).map(|(_, zone)| zone)
    }

    /// The zones and regions whose load would exceed their stated capacity.
    fn overloads(&self) -> Vec<LossProblem> {
        let mut problems = Vec::new();
        let rate_rps = self.demand.rate_rps().unwrap_or(0.0);
        let mut compare = |subject: String, share: f64, capacity: StatedCapacity| {
            let (rate_rps, in_flight) = (share * rate_rps, share * self.demand.in_flight());
            let exceeds = |load: f64, capacity: &f64| load > capacity * OVERLOAD_TOLERANCE;
            if let Some(capacity_rps) = capacity.rate_rps.filter(|one| exceeds(rate_rps, one)) {
                problems.push(LossProblem::Rate { subject, rate_rps, capacity_rps });
            } else if let Some(capacity) = capacity.in_flight.filter(|one| exceeds(in_flight, one))
            {
                problems.push(LossProblem::InFlight { subject, in_flight, capacity });
            }
        };
        for (index, (spec, zone)) in self.spec.zones.iter().zip(&self.zones).enumerate() {
            let capacity = self.zone_capacity(index, zone.weight);
            compare(spec.locality.to_string(), zone.share, capacity);
        }
        for (region, _) in &self.spec.steer.region_capacities {
            let share = self.in_region(region).map(|zone| zone.share).sum();
            compare(region.to_string(), share, self.region_capacity(region));
        }
        problems
    }

    fn breaker_problem(&self, serving: u32) -> Option<LossProblem> {
        let (in_flight, limit) =
            (self.demand.in_flight(), in_flight_limit(&self.spec, u64::from(serving))?);
        (in_flight > limit as f64 * OVERLOAD_TOLERANCE)
            .then_some(LossProblem::BreakerLimit { in_flight, limit })
    }

    /// What is judged by weights where no capacity is stated.
    fn unstated_problem(&self) -> Option<LossProblem> {
        let zones = || self.spec.zones.iter().zip(&self.zones).enumerate();
        let unstated = || {
            zones().filter(|(index, (spec, zone))| {
                zone.weight > 0
                    && !self.zone_capacity(*index, zone.weight).is_stated()
                    && !self.region_capacity(&spec.locality.region).is_stated()
            })
        };
        unstated().next()?;
        let sum = |weight: fn(&ZoneLoss) -> u64| self.zones.iter().map(weight).sum::<u64>();
        let (weight, declared_weight) = (sum(|zone| zone.weight), sum(|zone| zone.declared_weight));
        if !self.unavailable.is_empty() && weight * 2 < declared_weight {
            let unavailable = self.unavailable.join(", ");
            return Some(LossProblem::LessThanHalf { weight, declared_weight, unavailable });
        }
        self.demand.rate_rps()?;
        let load = |share: f64, weight: u64| share / weight.max(1) as f64;
        let present = self.zones.iter().map(|zone| load(zone.share_before, zone.weight_before));
        let present = present.max_by(f64::total_cmp).filter(|load| *load > 0.0)?;
        let growths =
            unstated().map(|(_, (spec, zone))| (spec, load(zone.share, zone.weight) / present));
        let (spec, growth) = growths.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        (growth > MAX_LOAD_GROWTH * OVERLOAD_TOLERANCE)
            .then(|| LossProblem::Growth { zone: spec.locality.clone(), growth })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::topology::{EndpointSpec, ZoneSpec};
    use crate::logic::steering::ZoneLoad;
    use std::time::Duration;

    /// Zones of these many endpoints; the first has all of the traffic and is lost, and the second
    /// takes it over.
    fn first_zone_lost(counts: &[u32], rate_rps: f64, change: fn(&mut PoolSpec)) -> PoolLoss {
        let zone_spec = |(index, &count): (usize, &u32)| {
            let endpoint = |port| EndpointSpec { address: ([10, 0, 0, 1], port).into(), weight: 1 };
            let ports = (0..count as u16).map(|port| 100 * index as u16 + port + 1);
            let place = Locality::parse(&format!("r/{index}")).expect("a place");
            ZoneSpec::new(place, ports.map(endpoint).collect())
        };
        let mut spec = PoolSpec::new("web", counts.iter().enumerate().map(zone_spec).collect());
        change(&mut spec);
        let zone = |(index, &count): (usize, &u32)| {
            let is_lost = index == 0;
            let lost = if is_lost { count } else { 0 };
            let share = |zone: usize| f64::from(u8::from(index == zone));
            ZoneLoss {
                endpoints: count,
                lost,
                lost_serving: lost,
                serving: count - lost,
                weight_before: u64::from(count),
                weight: u64::from(count - lost),
                declared_weight: u64::from(count),
                share_before: share(0),
                share: share(1),
            }
        };
        let load = ZoneLoad::declared(rate_rps, Duration::from_millis(100));
        PoolLoss {
            spec: Arc::new(spec),
            demand: PoolDemand::sum([load].iter()),
            zones: counts.iter().enumerate().map(zone).collect(),
            unavailable: Vec::new(),
        }
    }

    fn problem_text(loss: &PoolLoss) -> String {
        loss.problems().iter().map(LossProblem::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn growth_counts_only_with_load_and_without_stated_capacity() {
        let text = problem_text(&first_zone_lost(&[6, 1], 500.0, |_| {}));
        assert!(text.contains("r/1 would get 6.0 times"), "{text}");
        assert_eq!(problem_text(&first_zone_lost(&[6, 1], 0.0, |_| {})), "", "it is idle");
        assert_eq!(problem_text(&first_zone_lost(&[2, 1], 500.0, |_| {})), "", "twice the load");
        let stated = |spec: &mut PoolSpec| spec.steer.endpoint_capacity.rate_rps = Some(100_000);
        assert_eq!(problem_text(&first_zone_lost(&[6, 1], 500.0, stated)), "", "it is stated");
    }

    #[test]
    fn stated_capacity_is_compared_with_the_load() {
        let by_rate = |spec: &mut PoolSpec| spec.steer.endpoint_capacity.rate_rps = Some(100);
        let text = problem_text(&first_zone_lost(&[2, 2], 500.0, by_rate));
        assert_eq!(text, "r/1 would get 500 requests/s and can take 200");
        assert_eq!(problem_text(&first_zone_lost(&[2, 2], 200.0, by_rate)), "");
        let by_requests = |spec: &mut PoolSpec| {
            spec.zones[1].settings.capacity.requests = Some(40);
        };
        let text = problem_text(&first_zone_lost(&[2, 2], 500.0, by_requests));
        assert_eq!(text, "r/1 would have 50 requests in flight and can take 40");
        let by_region = |spec: &mut PoolSpec| {
            let limits = CapacityLimits { rate_rps: Some(600), requests: None };
            spec.steer.region_capacities = vec![("r".into(), limits)];
        };
        let text = problem_text(&first_zone_lost(&[2, 2], 500.0, by_region));
        assert_eq!(text, "r would get 500 requests/s and can take 300");
    }

    #[test]
    fn rest_must_be_healthy_and_within_breaker_limits() {
        assert!(problem_text(&first_zone_lost(&[2], 0.0, |_| {})).contains("all of its 2"));
        let mut sick = first_zone_lost(&[2, 2], 0.0, |_| {});
        (sick.zones[1].serving, sick.zones[1].weight) = (0, 0);
        assert!(problem_text(&sick).contains("nothing healthy would be left: 2"));
        let panic = |spec: &mut PoolSpec| spec.eviction.panic_percent = 60;
        assert!(problem_text(&first_zone_lost(&[2, 2], 0.0, panic)).contains("2 of 4"));
        let limit = |spec: &mut PoolSpec| {
            spec.limits.circuit_breakers.endpoint.requests = Some(10);
        };
        let text = problem_text(&first_zone_lost(&[2, 2], 500.0, limit));
        assert!(text.contains("20 requests in flight, and would have 50"), "{text}");
        let mut small = first_zone_lost(&[2, 1, 1], 0.0, |_| {});
        small.zones[2] = ZoneLoss { declared_weight: 2, ..ZoneLoss::default() };
        small.unavailable = vec!["r/2 is drained (order 1)".to_owned()];
        let text = problem_text(&small);
        assert!(text.contains("1 of 5") && text.contains("r/2 is drained"), "{text}");
    }
}
