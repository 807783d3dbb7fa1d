//! Before a drill begins: how much load there is, and who could carry it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::control::Control;
use crate::logic::director::EndpointStatus;
use crate::logic::drill::{Plan, PoolRoom, Room, limit};
use crate::logic::topology::PoolSpec;

/// Looks at what is in flight, in all.
const LOOKS: u32 = 10;

/// A load that was looked at for less is not known.
const SEEN_LEAST: Duration = Duration::from_millis(500);

/// What is seen while the load is looked at.
pub(in crate::app::control) struct Look {
    began: Instant,
    /// Requests that were answered before, by pool.
    before: Vec<u64>,
    looks: u32,
    /// The most that was in flight, by pool: in what is to be lost, and beside it.
    most: BTreeMap<Arc<str>, (u32, u32)>,
}

impl Control {
    /// Pools that a drill concerns, with their places in the configuration.
    pub(super) fn concerned(&self, plan: &Plan) -> Vec<(usize, Arc<PoolSpec>)> {
        let pools = self.running.topology.pools.iter().enumerate();
        let is_meant = |pool: &PoolSpec| {
            plan.pool.as_ref().is_none_or(|only| *only == pool.name)
                && pool.zones.iter().any(|zone| zone.place == plan.lose)
        };
        let meant = pools.filter(|(_, pool)| is_meant(pool));
        meant.map(|(index, pool)| (index, Arc::clone(pool))).collect()
    }

    fn answered(&self, pools: &[(usize, Arc<PoolSpec>)]) -> Vec<u64> {
        let meters = &self.board.shared.meters;
        pools.iter().map(|(_, pool)| meters.answered(&pool.name)).collect()
    }

    /// Looks again at what is in flight, if it is time.
    pub(super) fn look_on(&mut self, now: Instant) {
        let plan = {
            let drills = self.board.drills.borrow();
            let Some(run) = drills.running() else { return };
            if !matches!(run.stage, crate::logic::drill::Stage::Looking { .. }) {
                return;
            }
            Arc::clone(&run.plan)
        };
        let pools = self.concerned(&plan);
        if self.drill.look.is_none() {
            let before = self.answered(&pools);
            let most = BTreeMap::new();
            self.drill.look = Some(Look { began: now, before, looks: 0, most });
        }
        let endpoints = match &self.drill.look {
            Some(look) if look.looks < LOOKS => self.board.director.borrow().endpoints(),
            _ => return,
        };
        let Some(look) = &mut self.drill.look else { return };
        look.looks += 1;
        for (_, pool) in &pools {
            let (mut lost, mut left) = (0, 0);
            for status in endpoints.iter().filter(|one| one.subject.pool == pool.name) {
                let is_lost = plan.hits(&status.subject.place, status.subject.address);
                *(if is_lost { &mut lost } else { &mut left }) += status.in_flight;
            }
            let most = look.most.entry(Arc::clone(&pool.name)).or_default();
            *most = (most.0.max(lost), most.1.max(left));
        }
    }

    /// The look is over: says what was seen.
    pub(super) fn looked(&mut self, now: Instant) {
        let plan = {
            let drills = self.board.drills.borrow();
            let Some(run) = drills.running() else { return };
            Arc::clone(&run.plan)
        };
        let pools = self.concerned(&plan);
        let seen = self.drill.look.as_ref().map(|look| now.saturating_duration_since(look.began));
        if seen.is_none_or(|seen| seen < SEEN_LEAST) {
            // Control was late itself: it is asked again.
            return;
        }
        let look = self.drill.look.take();
        let rate_rps = look.as_ref().map_or(0.0, |look| {
            let answered = self.answered(&pools);
            let all: u64 = answered.iter().zip(&look.before).map(|(now, then)| now - then).sum();
            all as f64 / now.saturating_duration_since(look.began).as_secs_f64().max(1e-3)
        });
        let room = self.room(&plan, &pools, look.as_ref(), now);
        if let Some(run) = self.board.drills.borrow_mut().running_mut() {
            run.looked(&room, rate_rps, now);
        }
    }

    fn room(
        &self,
        plan: &Plan,
        pools: &[(usize, Arc<PoolSpec>)],
        look: Option<&Look>,
        now: Instant,
    ) -> Room {
        let director = self.board.director.borrow();
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
                    |one: &&EndpointStatus| one.in_service && one.subject.pool == pool.name;
                endpoints.iter().filter(serves)
            };
            let is_lost =
                |one: &&EndpointStatus| plan.hits(&one.subject.place, one.subject.address);
            let is_busy = |one: &&EndpointStatus| {
                busy.contains(&(Arc::clone(&pool.name), one.subject.place.clone()))
            };
            let weight = |one: &EndpointStatus| u64::from(one.weight);
            let left = || serving().filter(|one| !is_lost(one));
            let most = look.and_then(|look| look.most.get(&pool.name)).copied().unwrap_or_default();
            PoolRoom {
                pool: Arc::clone(&pool.name),
                lost_weight: serving().filter(is_lost).filter(is_busy).map(weight).sum(),
                left_weight: left().map(weight).sum(),
                lost_in_flight: most.0,
                left_in_flight: most.1,
                left_limit: limit(pool, left().count() as u64),
            }
        };
        Room { pools: pools.iter().map(of_pool).collect() }
    }
}
