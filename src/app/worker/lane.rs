//! A worker's part of a drill: which requests are taken, and the connections that those have.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;

use crate::app::shared::Report;
use crate::logic::drill::{Lane, Lot};
use crate::logic::id::EndpointId;
use crate::logic::retry::Waiting;
use crate::logic::route::Route;
use crate::logic::snapshot::{PoolView, Target};
use crate::net::upstream::{Pool, PoolEvent, Staging};

use super::{Homes, View, Worker};

/// What a worker keeps for a drill.
#[derive(Default)]
pub(super) struct Lanes {
    drill: u64,
    /// The last one that is over: a request that began before must not take part in it.
    ended: u64,
    homes: Homes,
    lot: Lot,
}

impl Worker {
    /// The view by which a request steers while a drill is on: that of its lane, if it is drawn.
    #[cold]
    pub fn takes_part<'v, B>(
        &self,
        all: &'v Rc<View>,
        lane: &'v Rc<View>,
        route: &Route,
        request: &Request<B>,
    ) -> &'v Rc<View> {
        let Some(drill) = &lane.drill else { return all };
        if !drill.concerns(route.pool, request.headers()) || !lane.has_pool(route) {
            return all;
        }
        let mut lanes = self.lanes.borrow_mut();
        if drill.id <= lanes.ended {
            return all;
        }
        let is_drawn = self.chance(|rng| lanes.lot.draw(drill.plan.share, rng));
        drill.tallies.came(is_drawn);
        if is_drawn { lane } else { all }
    }

    /// The newest view of the same kind as `old`: that of a drill's lane for as long as it is on.
    #[must_use]
    pub fn view_beside(&self, old: &View) -> Rc<View> {
        let new = self.view();
        let Some(drill) = &old.drill else { return new };
        let is_same = |lane: &&Rc<View>| lane.drill.as_ref().is_some_and(|d| d.id == drill.id);
        let same = new.lane.as_ref().filter(is_same);
        Rc::clone(same.unwrap_or(&new))
    }

    /// The connections to `target` that requests of a drill have.
    #[must_use]
    pub fn lane_pool(&self, target: &Target, view: &PoolView, lane: &Lane) -> Rc<Pool> {
        let mut lanes = self.lanes.borrow_mut();
        if lanes.drill != lane.id {
            let ended = lanes.ended;
            *lanes = Lanes { drill: lane.id, ended, ..Lanes::default() };
        }
        let zone = view.spec.zones.get(target.zone);
        let is_meant = zone.is_some_and(|zone| lane.plan.hits(&zone.place, target.address));
        let fault = lane.plan.fault;
        let fault = (is_meant && lane.is_failing).then_some(fault);
        if let Some(pool) = lanes.homes.get(target.id) {
            if let Some(staging) = &pool.staging {
                staging.fault.set(fault);
            }
            return Rc::clone(pool);
        }
        let (shared, drill) = (Arc::clone(&self.shared), lane.id);
        let listener = move |PoolEvent::IdleClosed(endpoint)| {
            shared.report(Report::LaneIdleClosed { drill, endpoint });
        };
        let staging = Staging::new(drill, is_meant, Arc::clone(&lane.tallies));
        staging.fault.set(fault);
        let pool = Pool::staged(
            target.clone(),
            (Arc::clone(&view.live), Arc::clone(&self.shared.descriptors)),
            &view.spec.speech,
            &view.spec.limits,
            (Rc::new(listener), Some(Rc::new(staging))),
        );
        lanes.homes.insert(Rc::clone(&pool));
        pool
    }

    /// A verdict of a drill's director is down: requests that wait for the endpoint go elsewhere.
    pub(super) fn cut_lane(&self, drill: u64, endpoint: EndpointId, waiting: Waiting) {
        let _ = self.view();
        let lanes = self.lanes.borrow();
        if lanes.drill == drill
            && waiting.leaves(true)
            && let Some(pool) = lanes.homes.get(endpoint)
        {
            pool.cut_waiting(waiting.leaves(false));
            self.clock.wake_all();
        }
    }

    /// The drill is over.
    pub(super) fn end_lane(&self, drill: u64, is_interrupted: bool) {
        let _ = self.view();
        let mut lanes = self.lanes.borrow_mut();
        lanes.ended = lanes.ended.max(drill);
        if lanes.drill != drill {
            return;
        }
        let homes = std::mem::take(&mut lanes.homes);
        for pool in homes.iter() {
            let Some(staging) = &pool.staging else { continue };
            staging.is_over.set(true);
            let seemed_to_fail = staging.fault.get().is_some();
            if seemed_to_fail || is_interrupted {
                pool.cut_waiting(seemed_to_fail);
            }
        }
        self.clock.wake_all();
    }

    /// Looks after the connections of a drill, as after the others.
    pub(super) fn keep_lane(&self, view: &View, now: Instant, is_pressed: bool) {
        let lanes = self.lanes.borrow();
        let Some(lane) = &view.lane else { return };
        for pool in lanes.homes.iter() {
            let id = pool.target.id;
            let mut views = lane.snapshot.pools.iter();
            let timeout = views
                .find(|pool| pool.members.binary_search(&id).is_ok())
                .map(|pool| pool.spec.limits.idle_timeout);
            let timeout = timeout.filter(|_| !is_pressed).unwrap_or(Duration::ZERO);
            pool.reap(now, timeout);
        }
    }
}
