//! Keeps the requests of a drill apart from production's: views and connections of a worker by tag.
//!
//! A request that a drill takes is steered by the view with the drill's tag until its end. The tag
//! also selects its connections, and goes with the evidence that these produce.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use fastrand::Rng;
use http::HeaderMap;

use crate::app::dataplane::shared::{
    EndpointAbort, FaultInjectionEnd, FaultInjectionStart, InstanceShared, Publication,
    WorkerEvidence, WorkerReport,
};
use crate::logic::drill::{DrillId, DrillView, ShareSampler};
use crate::logic::model::snapshot::{PoolView, Target};
use crate::logic::routing::PoolRoute;
use crate::net::upstream::{ConnectionPool, FaultInjection, PoolEvent, PoolOptions};

use super::endpoint_pools::EndpointPools;
use super::view::WorkerView;

/// The newest views of a worker.
pub(super) struct WorkerViews {
    publications: Cache<Arc<ArcSwap<Publication>>, Arc<Publication>>,
    /// The publication from which the views are built.
    current: Arc<Publication>,
    production: Rc<WorkerView>,
    /// The view of the drill that takes requests, with the sampler of its share.
    drill: Option<(Rc<WorkerView>, ShareSampler)>,
}

impl WorkerViews {
    pub(super) fn new(shared: &InstanceShared) -> Self {
        let mut publications = Cache::new(Arc::clone(&shared.published));
        let current = Arc::clone(publications.load());
        let production = WorkerView::new(Arc::clone(&current.production), None, shared);
        let mut views =
            Self { publications, current, production: Rc::new(production), drill: None };
        views.update_drill();
        views
    }

    /// Takes up a new publication. Costs one load if there is none.
    fn refresh(&mut self, shared: &InstanceShared) {
        let publication = self.publications.load();
        if Arc::ptr_eq(publication, &self.current) {
            return;
        }
        self.current = Arc::clone(publication);
        let snapshot = Arc::clone(&self.current.production);
        self.production = Rc::new(WorkerView::new(snapshot, Some(&self.production), shared));
        self.update_drill();
    }

    fn update_drill(&mut self) {
        let previous = self.drill.take();
        let Some(drill) = &self.current.drill else { return };
        let same = previous.filter(|(view, _)| view.tag() == Some(drill.id));
        let (previous, sampler) = same.map_or_else(
            || (None, ShareSampler::default()),
            |(view, sampler)| (Some(view), sampler),
        );
        let view = WorkerView::for_drill(drill, &self.production, previous.as_deref());
        self.drill = Some((Rc::new(view), sampler));
    }

    /// Production's current view.
    pub(super) fn production(&mut self, shared: &InstanceShared) -> Rc<WorkerView> {
        self.refresh(shared);
        Rc::clone(&self.production)
    }

    /// The current view with the tag of `old`; production's after the end of a drill.
    pub(super) fn latest(&mut self, old: &WorkerView, shared: &InstanceShared) -> Rc<WorkerView> {
        self.refresh(shared);
        Rc::clone(self.get(old.tag()).unwrap_or(&self.production))
    }

    /// Whether a drill takes requests.
    pub(super) fn has_tagged(&self) -> bool {
        self.drill.is_some()
    }

    /// The view with this tag; `None` if its drill takes no more requests.
    fn get(&self, tag: Option<DrillId>) -> Option<&Rc<WorkerView>> {
        match tag {
            None => Some(&self.production),
            Some(_) => self.drill.as_ref().map(|(view, _)| view).filter(|view| view.tag() == tag),
        }
    }

    /// The drill's view if the drill takes this request.
    #[cold]
    pub(super) fn draw(
        &mut self,
        route: &PoolRoute,
        headers: &HeaderMap,
        rng: &mut Rng,
    ) -> Option<Rc<WorkerView>> {
        let (view, sampler) = self.drill.as_mut()?;
        let drill = view.drill()?;
        if !drill.is_selected(route.pool, headers) || !view.has_pool(route) {
            return None;
        }
        let is_drawn = sampler.is_sampled(drill.plan.share, rng);
        drill.counters.record_request(is_drawn);
        is_drawn.then(|| Rc::clone(view))
    }
}

/// The connections of a worker.
#[derive(Default)]
pub(super) struct TaggedPools {
    pub(super) production: EndpointPools,
    drill: Option<(DrillId, EndpointPools)>,
}

impl TaggedPools {
    fn get(&self, tag: Option<DrillId>) -> Option<&EndpointPools> {
        match (tag, &self.drill) {
            (None, _) => Some(&self.production),
            (Some(id), Some((drill, pools))) if *drill == id => Some(pools),
            (Some(_), _) => None,
        }
    }

    /// The pools of a tag. Those of a drill are empty at first.
    fn get_or_insert(&mut self, tag: Option<DrillId>) -> &mut EndpointPools {
        let Some(id) = tag else { return &mut self.production };
        if self.drill.as_ref().is_some_and(|(drill, _)| *drill != id) {
            self.drill = None;
        }
        &mut self.drill.get_or_insert_with(|| (id, EndpointPools::default())).1
    }

    /// This worker's connections to `target`, an endpoint of `pool` in `view`.
    pub(super) fn connections_to(
        &mut self,
        target: &Target,
        pool: &PoolView,
        view: &WorkerView,
        shared: &Arc<InstanceShared>,
    ) -> Rc<ConnectionPool> {
        let pools = self.get_or_insert(view.tag());
        if let Some(connections) = pools.get(target.id) {
            connections.set_protocol(&pool.spec.upstream_protocol);
            if let (Some(injection), Some(drill)) = (&connections.fault_injection, view.drill()) {
                update_fault(injection, drill);
            }
            return Rc::clone(connections);
        }
        let (report_queue, drill) = (Arc::clone(shared), view.tag());
        let on_event = move |PoolEvent::IdleClosed(endpoint)| {
            let evidence = WorkerEvidence::IdleClosed { endpoint };
            report_queue.send_report(WorkerReport { drill, evidence });
        };
        let options = PoolOptions {
            target: target.clone(),
            pool_stats: Arc::clone(&pool.stats),
            descriptors: Arc::clone(&shared.descriptors),
            protocol: &pool.spec.upstream_protocol,
            limits: &pool.spec.limits,
            on_event: Rc::new(on_event),
        };
        let connections = match view.drill() {
            None => ConnectionPool::new(options),
            Some(drill) => {
                let injection = fault_injection(drill, target, pool);
                ConnectionPool::with_fault_injection(options, Rc::new(injection))
            }
        };
        pools.insert(Rc::clone(&connections));
        connections
    }

    /// Closes idle connections to an endpoint with a new down verdict, and aborts requests that
    /// wait for it. A drill's verdict closes no connection, since the endpoint may be well. Returns
    /// whether waiting requests must be woken.
    pub(super) fn abort_endpoint(&self, abort: EndpointAbort) -> bool {
        let EndpointAbort { drill, endpoint, waiting } = abort;
        let Some(connections) = self.get(drill).and_then(|pools| pools.get(endpoint)) else {
            return false;
        };
        if drill.is_none() {
            if waiting.should_abort(false) {
                connections.reset_shared_on_close();
            }
            connections.close_idle();
        }
        if waiting.should_abort(true) {
            connections.abort_waiting(waiting.should_abort(false));
        }
        waiting.should_abort(true)
    }

    /// Starts the fault injection of a drill. Reports idle connections that its targets close.
    pub(super) fn start_fault_injection(&self, start: FaultInjectionStart) {
        let Some(pools) = self.get(Some(start.drill)) else { return };
        if !start.closes_idle_connections {
            return;
        }
        let is_target = |connections: &&Rc<ConnectionPool>| {
            connections.fault_injection.as_ref().is_some_and(|injection| injection.is_target)
        };
        pools.iter().filter(is_target).for_each(|connections| connections.close_idle_by_endpoint());
    }

    /// Ends the fault injection of a drill. Requests that wait for an injected response are
    /// aborted, and after an interruption all others that can be resent. Returns whether waiting
    /// requests must be woken.
    pub(super) fn end_fault_injection(&mut self, end: FaultInjectionEnd) -> bool {
        let FaultInjectionEnd { drill, is_interrupted } = end;
        let ended = self.drill.take_if(|(id, _)| *id == drill);
        let Some((_, pools)) = ended else { return false };
        for connections in pools.iter() {
            let Some(injection) = &connections.fault_injection else { continue };
            injection.is_finished.set(true);
            let seemed_to_fail = injection.fault.get().is_some();
            if seemed_to_fail || is_interrupted {
                connections.abort_waiting(seemed_to_fail);
            }
        }
        true
    }

    /// Closes connections that have been idle for too long, drops pools of removed endpoints, and
    /// decays retry budgets.
    pub(super) fn maintain(&mut self, views: &WorkerViews, now: Instant, is_under_pressure: bool) {
        let tagged = self.drill.as_mut().map(|(id, pools)| (Some(*id), pools));
        for (tag, pools) in [(None, &mut self.production)].into_iter().chain(tagged) {
            let Some(view) = views.get(tag) else { continue };
            pools.retain(|connections| {
                let id = connections.target.id;
                // Identities of other pools are those of another director.
                let all = view.snapshot.pools.iter().enumerate();
                let mut covered = all.filter(|(index, _)| view.covers(*index));
                let pool = covered.find(|(_, pool)| pool.members.binary_search(&id).is_ok());
                if let Some((_, pool)) = pool {
                    connections.set_limits(&pool.spec.limits);
                    let timeout = pool.spec.limits.idle_timeout;
                    let timeout = if is_under_pressure { Duration::ZERO } else { timeout };
                    connections.retire_idle(now, timeout);
                }
                pool.is_some()
            });
            view.decay_request_state(now);
        }
    }
}

fn fault_injection(drill: &DrillView, target: &Target, pool: &PoolView) -> FaultInjection {
    let zone = pool.spec.zones.get(target.zone);
    let is_target = zone.is_some_and(|zone| drill.plan.is_target(&zone.locality, target.address));
    let injection = FaultInjection::new(drill.id, is_target, Arc::clone(&drill.counters));
    update_fault(&injection, drill);
    injection
}

/// Applies the drill's stage: its fault is injected only after the warm-up.
fn update_fault(injection: &FaultInjection, drill: &DrillView) {
    let is_failing = injection.is_target && drill.is_failing;
    injection.fault.set(is_failing.then_some(drill.plan.fault));
}
