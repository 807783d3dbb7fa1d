//! The load before a drill: request rate, peaks of requests in flight, and the capacity that would
//! remain.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::{Director, EndpointStatus};
use crate::logic::overload::remaining_capacity::{PoolCapacity, in_flight_limit};

use super::plan::{CoveredPool, DrillPlan};

/// Number of samples of the requests in flight.
const LOAD_SAMPLES: u32 = 10;

/// Minimum time over which the request rate is measured.
const MIN_SAMPLING_TIME: Duration = Duration::from_millis(500);

/// Peak of the requests in flight in one pool.
#[derive(Clone, Copy, Debug, Default)]
struct InFlightPeak {
    lost: u32,
    remaining: u32,
}

/// The measurement of the load before a drill.
#[derive(Debug)]
pub struct LoadSampling {
    started: Instant,
    answered_before: u64,
    samples: u32,
    peaks: BTreeMap<Arc<str>, InFlightPeak>,
}

impl LoadSampling {
    /// Starts a measurement. `answered` is the number of requests that the drill's pools have
    /// answered.
    pub fn new(answered: u64, now: Instant) -> Self {
        Self { started: now, answered_before: answered, samples: 0, peaks: BTreeMap::new() }
    }

    /// Whether further samples are wanted.
    pub fn is_sampling(&self) -> bool {
        self.samples < LOAD_SAMPLES
    }

    /// Whether the measurement took long enough; it does not if control itself was late.
    pub fn is_complete(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.started) >= MIN_SAMPLING_TIME
    }

    /// Adds a sample of the requests in flight.
    pub fn add_sample(
        &mut self,
        plan: &DrillPlan,
        pools: &[CoveredPool],
        endpoints: &[EndpointStatus],
    ) {
        self.samples += 1;
        for pool in pools {
            let mut sum = InFlightPeak::default();
            for status in endpoints.iter().filter(|status| status.subject.pool == pool.spec.name) {
                let is_lost = plan.is_target(&status.subject.locality, status.subject.address);
                *(if is_lost { &mut sum.lost } else { &mut sum.remaining }) += status.in_flight;
            }
            let peak = self.peaks.entry(Arc::clone(&pool.spec.name)).or_default();
            peak.lost = peak.lost.max(sum.lost);
            peak.remaining = peak.remaining.max(sum.remaining);
        }
    }

    /// Requests per second since the start; `answered` as in [`Self::new`].
    pub fn rate_rps(&self, answered: u64, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.started).as_secs_f64();
        answered.saturating_sub(self.answered_before) as f64 / seconds.max(1e-3)
    }

    /// Weight and load of each pool, split into the drill's targets and the rest.
    pub fn capacities(
        &self,
        plan: &DrillPlan,
        pools: &[CoveredPool],
        director: &Director,
        now: Instant,
    ) -> Vec<PoolCapacity> {
        let endpoints = director.endpoints();
        let zones = director.zones(now);
        let zones_with_traffic: HashSet<_> = zones
            .iter()
            .filter(|zone| zone.share > 0.0)
            .map(|zone| (Arc::clone(&zone.pool), zone.place.clone()))
            .collect();
        let of_pool = |pool: &CoveredPool| {
            let name = &pool.spec.name;
            let serving =
                || endpoints.iter().filter(|one| one.is_in_service && one.subject.pool == *name);
            let is_lost =
                |one: &&EndpointStatus| plan.is_target(&one.subject.locality, one.subject.address);
            let has_traffic = |one: &&EndpointStatus| {
                zones_with_traffic.contains(&(Arc::clone(name), one.subject.locality.clone()))
            };
            let weight = |one: &EndpointStatus| u64::from(one.weight);
            let remaining = || serving().filter(|one| !is_lost(one));
            let peak = self.peaks.get(name).copied().unwrap_or_default();
            PoolCapacity {
                pool: Arc::clone(name),
                lost_weight: serving().filter(is_lost).filter(has_traffic).map(weight).sum(),
                remaining_weight: remaining().map(weight).sum(),
                lost_in_flight: peak.lost,
                remaining_in_flight: peak.remaining,
                remaining_limit: in_flight_limit(&pool.spec, remaining().count() as u64),
            }
        };
        pools.iter().map(of_pool).collect()
    }
}
