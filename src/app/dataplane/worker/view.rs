//! A worker's view of the snapshot: the shared part, and the state that only this worker has.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::dataplane::cookie_keys::Keyring;
use crate::app::dataplane::http_policy::HttpPolicy;
use crate::app::dataplane::request_metrics::{PoolMetrics, RoutePoolMetrics};
use crate::app::dataplane::shared::InstanceShared;
use crate::logic::drill::{DrillId, DrillView};
use crate::logic::model::snapshot::{PoolView, Snapshot};
use crate::logic::model::topology::PoolSpec;
use crate::logic::request::attribution::FailingRequests;
use crate::logic::request::pool_latency::PoolLatency;
use crate::logic::request::retry::RetryBudget;
use crate::logic::routing::{PoolRoute, RetrySpec};
use crate::logic::steering::affinity::SessionAffinity;
use crate::logic::steering::balance::RoundRobinState;

/// The snapshot and this worker's state for its pools.
#[derive(Debug)]
pub struct WorkerView {
    pub snapshot: Arc<Snapshot>,
    pub http_policy: Arc<HttpPolicy>,
    /// The drill whose requests this view steers; `None` for production.
    drill: Option<Arc<DrillView>>,
    pools: Vec<Rc<PoolLocal>>,
}

/// One worker's state for one pool; it outlives snapshots.
#[derive(Debug)]
pub struct PoolLocal {
    /// Latency bounds and requests that are slow everywhere.
    pub latency: RefCell<PoolLatency>,
    /// Counters that only this worker writes.
    pub meter: Arc<PoolMetrics>,
    /// This worker's share of the pool's retries.
    pub retry_budget: RefCell<RetryBudget>,
    /// Requests that failed recently, by their keys.
    pub failing: RefCell<FailingRequests>,
    /// Positions of the round-robin balancer.
    pub turns: RoundRobinState,
    /// Keys of the affinity cookies, if the pool uses them.
    keyring: RefCell<Option<Rc<Keyring>>>,
    /// Counters for objectives, by the name of the route.
    route_meters: RefCell<HashMap<Arc<str>, Arc<RoutePoolMetrics>>>,
    name: Arc<str>,
}

impl WorkerView {
    /// A view of `snapshot` that takes over the state of pools of the same name from `previous`.
    pub fn new(snapshot: Arc<Snapshot>, previous: Option<&Self>, shared: &InstanceShared) -> Self {
        let local = |(index, pool): (usize, &Arc<PoolView>)| {
            let same_index = previous.and_then(|before| before.pools.get(index));
            let existing = same_index.filter(|local| local.name == pool.spec.name).or_else(|| {
                previous.and_then(|before| before.pools.iter().find(|p| p.name == pool.spec.name))
            });
            let Some(existing) = existing else {
                return Rc::new(PoolLocal::new(pool, &first_retry_spec(&snapshot, index), shared));
            };
            existing.update_keyring(pool, shared);
            existing.latency.borrow_mut().configure(&pool.spec);
            let retry = first_retry_spec(&snapshot, index);
            existing.retry_budget.borrow_mut().configure(&retry, shared.worker_count);
            Rc::clone(existing)
        };
        let pools: Vec<_> = snapshot.pools.iter().enumerate().map(local).collect();
        let policy = shared.http_policy.load_full();
        Self { snapshot, http_policy: policy, drill: None, pools }
    }

    /// The view for requests of a drill. Its state starts as a copy of production's.
    pub(super) fn for_drill(
        drill: &Arc<DrillView>,
        production: &Self,
        previous: Option<&Self>,
    ) -> Self {
        let share = drill.plan.share.percent();
        let pools = match previous {
            Some(view) => view.pools.clone(),
            None => production.pools.iter().map(|pool| Rc::new(pool.fork(share))).collect(),
        };
        Self {
            snapshot: Arc::clone(&drill.snapshot),
            http_policy: Arc::clone(&production.http_policy),
            drill: Some(Arc::clone(drill)),
            pools,
        }
    }

    /// The tag of requests that this view steers.
    pub fn tag(&self) -> Option<DrillId> {
        self.drill.as_ref().map(|drill| drill.id)
    }

    pub(super) fn drill(&self) -> Option<&DrillView> {
        self.drill.as_deref()
    }

    /// Whether requests with this view's tag go to the pool at `index`.
    pub(super) fn covers(&self, index: usize) -> bool {
        self.drill.as_ref().is_none_or(|drill| drill.pools.get(index) == Some(&true))
    }

    /// Counts a failure that a client saw, if a drill took its request.
    pub fn record_client_failure(&self, now_us: u64, is_retryable: bool) {
        if let Some(drill) = &self.drill {
            drill.counters.record_failure(now_us, is_retryable);
        }
    }

    /// The shared and the local part of the route's pool.
    pub fn pool(&self, route: &PoolRoute) -> (&Arc<PoolView>, &Rc<PoolLocal>) {
        (&self.snapshot.pools[route.pool], &self.pools[route.pool])
    }

    /// Whether the route, which may be from an older view, refers to a pool of this view.
    pub fn has_pool(&self, route: &PoolRoute) -> bool {
        self.pools.get(route.pool).is_some_and(|pool| pool.name == route.pool_name)
    }

    /// Decays the retry budgets, and removes expired entries of failed and slow requests.
    pub fn decay_request_state(&self, now: Instant) {
        for pool in &self.pools {
            pool.retry_budget.borrow_mut().decay(now);
            pool.failing.borrow_mut().remove_expired(now);
            pool.latency.borrow_mut().remove_expired(now);
        }
    }
}

/// The retry settings of the first route to the pool: their floor is the initial budget.
fn first_retry_spec(snapshot: &Snapshot, pool: usize) -> RetrySpec {
    let mut routes = snapshot.routes.pool_routes().iter();
    routes.find(|route| route.pool == pool).map(|route| route.spec.retry).unwrap_or_default()
}

impl PoolLocal {
    /// A copy with `percent` of the retry budget, so that its requests spend none of the original.
    fn fork(&self, percent: u32) -> Self {
        let retry_budget = self.retry_budget.borrow().fraction(percent);
        Self {
            latency: self.latency.clone(),
            meter: Arc::clone(&self.meter),
            retry_budget: RefCell::new(retry_budget),
            failing: self.failing.clone(),
            turns: self.turns.clone(),
            keyring: self.keyring.clone(),
            route_meters: self.route_meters.clone(),
            name: Arc::clone(&self.name),
        }
    }

    fn new(pool: &PoolView, retry: &RetrySpec, shared: &InstanceShared) -> Self {
        let (name, now) = (Arc::clone(&pool.spec.name), Instant::now());
        let local = Self {
            latency: RefCell::new(PoolLatency::new(&pool.spec)),
            meter: shared.metrics.register_pool(&name),
            retry_budget: RefCell::new(RetryBudget::new(retry, shared.worker_count, now)),
            failing: RefCell::new(FailingRequests::new(now)),
            turns: RoundRobinState::default(),
            keyring: RefCell::default(),
            route_meters: RefCell::default(),
            name,
        };
        local.update_keyring(pool, shared);
        local
    }

    /// Keys of the affinity cookies, if the pool uses them.
    pub fn keyring(&self) -> Option<Rc<Keyring>> {
        self.keyring.borrow().clone()
    }

    /// Derives new keys if the secrets of the pool, or else of the instance, have changed.
    fn update_keyring(&self, pool: &PoolView, shared: &InstanceShared) {
        let secrets = match pool.spec.affinity.as_deref() {
            Some(SessionAffinity::Cookie(cookie)) => {
                cookie.secrets.as_ref().or_else(|| shared.cookie_secret.get())
            }
            _ => None,
        };
        let mut keyring = self.keyring.borrow_mut();
        let is_same = match (&*keyring, secrets) {
            (Some(keyring), Some(secrets)) => keyring.is_derived_from(secrets),
            (keyring, secrets) => keyring.is_none() && secrets.is_none(),
        };
        if !is_same {
            *keyring = secrets.map(|secrets| Rc::new(Keyring::new(&self.name, secrets)));
        }
    }

    /// Counts a response to a request of `route`, after `elapsed`, if the route or the pool has an
    /// objective. Returns the counters for the end of the body.
    pub fn record_slo(
        &self,
        shared: &InstanceShared,
        route: &PoolRoute,
        pool: &PoolSpec,
        status: u16,
        elapsed: Duration,
    ) -> Option<Arc<RoutePoolMetrics>> {
        if route.spec.slo.is_none() && pool.slo.is_none() {
            return None;
        }
        let mut route_meters = self.route_meters.borrow_mut();
        let new = || shared.metrics.register_route_pool(&route.spec.name, &self.name);
        let meter = match route_meters.get(&route.spec.name) {
            Some(meter) => meter,
            None => route_meters.entry(Arc::clone(&route.spec.name)).or_insert_with(new),
        };
        meter.record_response(status, elapsed, &route.spec, pool);
        Some(Arc::clone(meter))
    }
}
