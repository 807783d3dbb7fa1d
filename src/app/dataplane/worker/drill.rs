//! A worker's part of a drill: the selection of requests, and their connections.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use http::HeaderMap;

use crate::app::dataplane::shared::{InstanceShared, WorkerReport};
use crate::logic::drill::{DrillView, ShareSampler};
use crate::logic::model::id::EndpointId;
use crate::logic::model::snapshot::{PoolView, Target};
use crate::logic::request::retry::InFlightPolicy;
use crate::logic::routing::PoolRoute;
use crate::net::upstream::{ConnectionPool, FaultInjection, PoolEvent, PoolOptions};

use super::endpoint_pools::EndpointPools;
use super::view::WorkerView;

/// The state of the newest drill at this worker.
#[derive(Default)]
pub(super) struct WorkerDrill {
    drill_id: u64,
    /// The last drill that has ended. A request that began before its end must not join it.
    last_ended_id: u64,
    endpoint_pools: EndpointPools,
    sampler: ShareSampler,
}

impl WorkerDrill {
    /// Whether the drill of `drill_view` takes a request of `route`.
    pub(super) fn is_selected(
        &mut self,
        drill_view: &WorkerView,
        route: &PoolRoute,
        headers: &HeaderMap,
        rng: &mut Rng,
    ) -> bool {
        let Some(drill) = &drill_view.drill else { return false };
        if !drill.is_selected(route.pool, headers) || !drill_view.has_pool(route) {
            return false;
        }
        if drill.id <= self.last_ended_id {
            return false;
        }
        let is_drawn = self.sampler.is_sampled(drill.plan.share, rng);
        drill.counters.record_request(is_drawn);
        is_drawn
    }

    /// The connections to `target` for requests of a drill.
    pub(super) fn connections_to(
        &mut self,
        shared: &Arc<InstanceShared>,
        target: &Target,
        view: &PoolView,
        drill: &DrillView,
    ) -> Rc<ConnectionPool> {
        if self.drill_id != drill.id {
            let last_ended_id = self.last_ended_id;
            *self = Self { drill_id: drill.id, last_ended_id, ..Self::default() };
        }
        let zone = view.spec.zones.get(target.zone);
        let is_meant =
            zone.is_some_and(|zone| drill.plan.is_target(&zone.locality, target.address));
        let fault = drill.plan.fault;
        let fault = (is_meant && drill.is_failing).then_some(fault);
        if let Some(pool) = self.endpoint_pools.get(target.id) {
            if let Some(injection) = &pool.fault_injection {
                injection.fault.set(fault);
            }
            return Rc::clone(pool);
        }
        let (drill_id, report_queue) = (drill.id, Arc::clone(shared));
        let on_event = move |PoolEvent::IdleClosed(endpoint)| {
            report_queue.send_report(WorkerReport::DrillIdleClosed { drill: drill_id, endpoint });
        };
        let injection = FaultInjection::new(drill_id, is_meant, Arc::clone(&drill.counters));
        injection.fault.set(fault);
        let options = PoolOptions {
            target: target.clone(),
            pool_stats: Arc::clone(&view.stats),
            descriptors: Arc::clone(&shared.descriptors),
            protocol: &view.spec.upstream_protocol,
            limits: &view.spec.limits,
            on_event: Rc::new(on_event),
        };
        let pool = ConnectionPool::with_fault_injection(options, Rc::new(injection));
        self.endpoint_pools.insert(Rc::clone(&pool));
        pool
    }

    /// Aborts requests of the drill that wait for `endpoint`, as `waiting` says. Returns whether
    /// the waiting requests must be woken.
    pub(super) fn abort_requests(
        &self,
        drill_id: u64,
        endpoint: EndpointId,
        waiting: InFlightPolicy,
    ) -> bool {
        if self.drill_id == drill_id
            && waiting.should_abort(true)
            && let Some(pool) = self.endpoint_pools.get(endpoint)
        {
            pool.abort_waiting(waiting.should_abort(false));
            return true;
        }
        false
    }

    /// Ends the drill. Returns whether requests of it may wait and must be woken.
    pub(super) fn end(&mut self, drill_id: u64, is_interrupted: bool) -> bool {
        self.last_ended_id = self.last_ended_id.max(drill_id);
        if self.drill_id != drill_id {
            return false;
        }
        let endpoint_pools = std::mem::take(&mut self.endpoint_pools);
        for pool in endpoint_pools.iter() {
            let Some(injection) = &pool.fault_injection else { continue };
            injection.is_finished.set(true);
            let seemed_to_fail = injection.fault.get().is_some();
            if seemed_to_fail || is_interrupted {
                pool.abort_waiting(seemed_to_fail);
            }
        }
        true
    }

    /// Closes idle connections of the drill, as housekeeping does for the others.
    pub(super) fn maintain(&self, view: &WorkerView, now: Instant, is_under_pressure: bool) {
        let Some(drill_view) = &view.drill_view else { return };
        for pool in self.endpoint_pools.iter() {
            let id = pool.target.id;
            let mut views = drill_view.snapshot.pools.iter();
            let timeout = views
                .find(|pool| pool.members.binary_search(&id).is_ok())
                .map(|pool| pool.spec.limits.idle_timeout);
            let timeout = timeout.filter(|_| !is_under_pressure).unwrap_or(Duration::ZERO);
            pool.retire_idle(now, timeout);
        }
    }
}
