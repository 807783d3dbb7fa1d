//! Before a drill begins: how much load there is, and who could carry it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::control::ControlLoop;
use crate::logic::director::EndpointStatus;
use crate::logic::drill::DrillPlan;
use crate::logic::model::topology::PoolSpec;
use crate::logic::overload::remaining_capacity::{PoolCapacity, in_flight_limit};

/// Looks at what is in flight, in all.
const LOAD_SAMPLES: u32 = 10;

/// A load that was looked at for less is not known.
const MIN_SAMPLING_TIME: Duration = Duration::from_millis(500);

/// What is seen while the load is looked at.
pub(in crate::app::control) struct LoadSampling {
    started: Instant,
    /// Requests that were answered before, by pool.
    answered_before: Vec<u64>,
    samples: u32,
    /// The most that was in flight, by pool: in what is to be lost, and beside it.
    peak_in_flight: BTreeMap<Arc<str>, (u32, u32)>,
}

impl ControlLoop {
    /// Pools that a drill concerns, with their places in the configuration.
    pub(super) fn pools_in_plan(&self, plan: &DrillPlan) -> Vec<(usize, Arc<PoolSpec>)> {
        let pools = self.running_config.topology.pools.iter().enumerate();
        let is_meant = |pool: &PoolSpec| {
            plan.pool.as_ref().is_none_or(|only| *only == pool.name)
                && pool.zones.iter().any(|zone| zone.locality == plan.zone)
        };
        let meant = pools.filter(|(_, pool)| is_meant(pool));
        meant.map(|(index, pool)| (index, Arc::clone(pool))).collect()
    }

    fn answered_counts(&self, pools: &[(usize, Arc<PoolSpec>)]) -> Vec<u64> {
        let metrics = &self.admin_state.shared.metrics;
        pools.iter().map(|(_, pool)| metrics.answered(&pool.name)).collect()
    }

    /// Looks again at what is in flight, if it is time.
    pub(super) fn sample_load(&mut self, now: Instant) {
        let plan = {
            let drills = self.admin_state.drills.borrow();
            let Some(run) = drills.running() else { return };
            if !matches!(run.stage, crate::logic::drill::DrillStage::Measuring { .. }) {
                return;
            }
            Arc::clone(&run.plan)
        };
        let pools = self.pools_in_plan(&plan);
        if self.drill.load_sampling.is_none() {
            let before = self.answered_counts(&pools);
            let peak = BTreeMap::new();
            self.drill.load_sampling = Some(LoadSampling {
                started: now,
                answered_before: before,
                samples: 0,
                peak_in_flight: peak,
            });
        }
        let endpoints = match &self.drill.load_sampling {
            Some(sampling) if sampling.samples < LOAD_SAMPLES => {
                self.admin_state.director.borrow().endpoints()
            }
            _ => return,
        };
        let Some(sampling) = &mut self.drill.load_sampling else { return };
        sampling.samples += 1;
        for (_, pool) in &pools {
            let (mut lost, mut remaining) = (0, 0);
            for status in endpoints.iter().filter(|one| one.subject.pool == pool.name) {
                let is_lost = plan.is_target(&status.subject.locality, status.subject.address);
                *(if is_lost { &mut lost } else { &mut remaining }) += status.in_flight;
            }
            let peak = sampling.peak_in_flight.entry(Arc::clone(&pool.name)).or_default();
            *peak = (peak.0.max(lost), peak.1.max(remaining));
        }
    }

    /// The look is over: says what was seen.
    pub(super) fn finish_load_sampling(&mut self, now: Instant) {
        let plan = {
            let drills = self.admin_state.drills.borrow();
            let Some(run) = drills.running() else { return };
            Arc::clone(&run.plan)
        };
        let pools = self.pools_in_plan(&plan);
        let sampled_for = self
            .drill
            .load_sampling
            .as_ref()
            .map(|look| now.saturating_duration_since(look.started));
        if sampled_for.is_none_or(|seen| seen < MIN_SAMPLING_TIME) {
            // Control was late itself: it is asked again.
            return;
        }
        let sampling = self.drill.load_sampling.take();
        let rate_rps = sampling.as_ref().map_or(0.0, |look| {
            let answered = self.answered_counts(&pools);
            let all: u64 =
                answered.iter().zip(&look.answered_before).map(|(now, then)| now - then).sum();
            all as f64 / now.saturating_duration_since(look.started).as_secs_f64().max(1e-3)
        });
        let room = self.capacity_check(&plan, &pools, sampling.as_ref(), now);
        if let Some(run) = self.admin_state.drills.borrow_mut().running_mut() {
            run.on_capacity_measured(&room, rate_rps, now);
        }
    }

    fn capacity_check(
        &self,
        plan: &DrillPlan,
        pools: &[(usize, Arc<PoolSpec>)],
        sampling: Option<&LoadSampling>,
        now: Instant,
    ) -> Vec<PoolCapacity> {
        let director = self.admin_state.director.borrow();
        let endpoints = director.endpoints();
        let zones = director.zones(now);
        let busy: HashSet<_> = zones
            .iter()
            .filter(|zone| zone.share > 0.0)
            .map(|zone| (Arc::clone(&zone.pool), zone.place.clone()))
            .collect();
        let of_pool = |(_, pool): &(usize, Arc<PoolSpec>)| {
            let serving = || {
                let serves =
                    |one: &&EndpointStatus| one.is_in_service && one.subject.pool == pool.name;
                endpoints.iter().filter(serves)
            };
            let is_lost =
                |one: &&EndpointStatus| plan.is_target(&one.subject.locality, one.subject.address);
            let is_busy = |one: &&EndpointStatus| {
                busy.contains(&(Arc::clone(&pool.name), one.subject.locality.clone()))
            };
            let weight = |one: &EndpointStatus| u64::from(one.weight);
            let remaining = || serving().filter(|one| !is_lost(one));
            let peak = sampling
                .and_then(|look| look.peak_in_flight.get(&pool.name))
                .copied()
                .unwrap_or_default();
            PoolCapacity {
                pool: Arc::clone(&pool.name),
                lost_weight: serving().filter(is_lost).filter(is_busy).map(weight).sum(),
                remaining_weight: remaining().map(weight).sum(),
                lost_in_flight: peak.0,
                remaining_in_flight: peak.1,
                remaining_limit: in_flight_limit(pool, remaining().count() as u64),
            }
        };
        pools.iter().map(of_pool).collect()
    }
}
