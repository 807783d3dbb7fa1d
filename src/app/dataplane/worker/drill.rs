//! A worker's part of a drill: which requests are taken, and the connections that those have.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;

use crate::app::dataplane::shared::WorkerReport;
use crate::logic::drill::{DrillView, ShareSampler};
use crate::logic::model::id::EndpointId;
use crate::logic::model::snapshot::{PoolView, Target};
use crate::logic::request::retry::InFlightPolicy;
use crate::logic::routing::PoolRoute;
use crate::net::upstream::{ConnectionPool, FaultInjection, PoolEvent, PoolOptions};

use super::{EndpointPools, Worker, WorkerView};

/// What a worker keeps for a drill.
#[derive(Default)]
pub(super) struct WorkerDrill {
    drill_id: u64,
    /// The last one that is over: a request that began before must not take part in it.
    last_ended_id: u64,
    endpoint_pools: EndpointPools,
    sampler: ShareSampler,
}

impl Worker {
    /// The view by which a request steers while a drill is on: that of its lane, if it is drawn.
    #[cold]
    pub fn view_for_request<'v, B>(
        &self,
        base_view: &'v Rc<WorkerView>,
        drill_view: &'v Rc<WorkerView>,
        route: &PoolRoute,
        request: &Request<B>,
    ) -> &'v Rc<WorkerView> {
        let Some(drill) = &drill_view.drill else { return base_view };
        if !drill.is_selected(route.pool, request.headers()) || !drill_view.has_pool(route) {
            return base_view;
        }
        let mut worker_drill = self.drill.borrow_mut();
        if drill.id <= worker_drill.last_ended_id {
            return base_view;
        }
        let is_drawn = self.with_rng(|rng| worker_drill.sampler.is_sampled(drill.plan.share, rng));
        drill.counters.record_request(is_drawn);
        if is_drawn { drill_view } else { base_view }
    }

    /// The newest view of the same kind as `old`: that of a drill's lane for as long as it is on.
    pub fn latest_view_like(&self, old: &WorkerView) -> Rc<WorkerView> {
        let new = self.view();
        let Some(drill) = &old.drill else { return new };
        let is_same = |drill_view: &&Rc<WorkerView>| {
            drill_view.drill.as_ref().is_some_and(|d| d.id == drill.id)
        };
        let same = new.drill_view.as_ref().filter(is_same);
        Rc::clone(same.unwrap_or(&new))
    }

    /// The connections to `target` that requests of a drill have.
    pub fn drill_connections_to(
        &self,
        target: &Target,
        view: &PoolView,
        drill: &DrillView,
    ) -> Rc<ConnectionPool> {
        let mut worker_drill = self.drill.borrow_mut();
        if worker_drill.drill_id != drill.id {
            let last_ended_id = worker_drill.last_ended_id;
            *worker_drill =
                WorkerDrill { drill_id: drill.id, last_ended_id, ..WorkerDrill::default() };
        }
        let zone = view.spec.zones.get(target.zone);
        let is_meant =
            zone.is_some_and(|zone| drill.plan.is_target(&zone.locality, target.address));
        let fault = drill.plan.fault;
        let fault = (is_meant && drill.is_failing).then_some(fault);
        if let Some(pool) = worker_drill.endpoint_pools.get(target.id) {
            if let Some(injection) = &pool.fault_injection {
                injection.fault.set(fault);
            }
            return Rc::clone(pool);
        }
        let (shared, drill_id) = (Arc::clone(&self.shared), drill.id);
        let on_event = move |PoolEvent::IdleClosed(endpoint)| {
            shared.send_report(WorkerReport::DrillIdleClosed { drill: drill_id, endpoint });
        };
        let injection = FaultInjection::new(drill_id, is_meant, Arc::clone(&drill.counters));
        injection.fault.set(fault);
        let options = PoolOptions {
            target: target.clone(),
            pool_stats: Arc::clone(&view.stats),
            descriptors: Arc::clone(&self.shared.descriptors),
            protocol: &view.spec.upstream_protocol,
            limits: &view.spec.limits,
            on_event: Rc::new(on_event),
        };
        let pool = ConnectionPool::with_fault_injection(options, Rc::new(injection));
        worker_drill.endpoint_pools.insert(Rc::clone(&pool));
        pool
    }

    /// A verdict of a drill's director is down: requests that wait for the endpoint go elsewhere.
    pub(super) fn abort_drill_requests(
        &self,
        drill_id: u64,
        endpoint: EndpointId,
        waiting: InFlightPolicy,
    ) {
        let _ = self.view();
        let worker_drill = self.drill.borrow();
        if worker_drill.drill_id == drill_id
            && waiting.should_abort(true)
            && let Some(pool) = worker_drill.endpoint_pools.get(endpoint)
        {
            pool.abort_waiting(waiting.should_abort(false));
            self.timers.wake_all();
        }
    }

    /// The drill is over.
    pub(super) fn end_drill(&self, drill_id: u64, is_interrupted: bool) {
        let _ = self.view();
        let mut worker_drill = self.drill.borrow_mut();
        worker_drill.last_ended_id = worker_drill.last_ended_id.max(drill_id);
        if worker_drill.drill_id != drill_id {
            return;
        }
        let endpoint_pools = std::mem::take(&mut worker_drill.endpoint_pools);
        for pool in endpoint_pools.iter() {
            let Some(injection) = &pool.fault_injection else { continue };
            injection.is_finished.set(true);
            let seemed_to_fail = injection.fault.get().is_some();
            if seemed_to_fail || is_interrupted {
                pool.abort_waiting(seemed_to_fail);
            }
        }
        self.timers.wake_all();
    }

    /// Looks after the connections of a drill, as after the others.
    pub(super) fn maintain_drill(&self, view: &WorkerView, now: Instant, is_under_pressure: bool) {
        let worker_drill = self.drill.borrow();
        let Some(drill_view) = &view.drill_view else { return };
        for pool in worker_drill.endpoint_pools.iter() {
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
