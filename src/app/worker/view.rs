//! A worker's own view of the snapshot: the shared part, and what only this worker keeps.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::keyring::Keyring;
use crate::app::meter::{PoolMeter, WayMeter};
use crate::app::shared::{Manners, Shared};
use crate::logic::affinity::Affinity;
use crate::logic::balance::Turns;
use crate::logic::drill::Lane;
use crate::logic::evidence::LatencyWindow;
use crate::logic::retry::Budget;
use crate::logic::route::{RetrySpec, Route};
use crate::logic::snapshot::{PoolView, Snapshot};
use crate::logic::topology::PoolSpec;

/// The snapshot with this worker's own state beside it.
#[derive(Debug)]
pub struct View {
    /// As published.
    pub snapshot: Arc<Snapshot>,
    /// How clients are treated.
    pub manners: Arc<Manners>,
    /// For the requests that a drill takes, while one is on.
    pub lane: Option<Rc<Self>>,
    /// The drill whose lane this is.
    pub drill: Option<Arc<Lane>>,
    pools: Vec<Rc<PoolLocal>>,
}

/// What one worker keeps for one pool; outlives snapshots.
#[derive(Debug)]
pub struct PoolLocal {
    /// Latencies seen by this worker.
    pub latency: RefCell<LatencyWindow>,
    /// Counters written by this worker.
    pub meter: Arc<PoolMeter>,
    /// What this worker may send again.
    pub budget: RefCell<Budget>,
    /// Whose turn it is, where endpoints are taken in turn.
    pub turns: Turns,
    /// What seals cookies, where clients stay with an endpoint by one.
    keyring: RefCell<Option<Rc<Keyring>>>,
    /// What objectives are measured by, for each route that leads here.
    ways: RefCell<HashMap<Arc<str>, Arc<WayMeter>>>,
    name: Arc<str>,
}

impl View {
    /// A view of `snapshot` that takes over what `before` had learnt about pools of the same name.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, before: Option<&Self>, shared: &Shared) -> Self {
        let local = |(index, pool): (usize, &Arc<PoolView>)| {
            let same_place = before.and_then(|before| before.pools.get(index));
            let known = same_place.filter(|known| known.name == pool.spec.name).or_else(|| {
                before.and_then(|before| before.pools.iter().find(|p| p.name == pool.spec.name))
            });
            let Some(known) = known else {
                return Rc::new(PoolLocal::new(pool, &retry_of(&snapshot, index), shared));
            };
            known.keep_keys(pool, shared);
            known.latency.borrow_mut().configure(pool.spec.detect.timeout, pool.spec.stall);
            Rc::clone(known)
        };
        let pools: Vec<_> = snapshot.pools.iter().enumerate().map(local).collect();
        let manners = shared.manners.load_full();
        let before = before.and_then(|before| before.lane.as_ref());
        let lane = snapshot.drill.as_ref().map(|drill| {
            let before =
                before.filter(|lane| lane.drill.as_ref().is_some_and(|d| d.id == drill.id));
            let begin = |(index, pool): (usize, &Rc<PoolLocal>)| {
                Rc::new(pool.in_lane(drill, &retry_of(&snapshot, index)))
            };
            let pools = match before {
                Some(lane) => lane.pools.clone(),
                None => pools.iter().enumerate().map(begin).collect(),
            };
            let (snapshot, manners) = (Arc::clone(&drill.snapshot), Arc::clone(&manners));
            Rc::new(Self { snapshot, manners, lane: None, drill: Some(Arc::clone(drill)), pools })
        });
        Self { snapshot, manners, lane, drill: None, pools }
    }

    /// The route's pool, in both its parts.
    #[must_use]
    pub fn pool(&self, route: &Route) -> (&Arc<PoolView>, &Rc<PoolLocal>) {
        (&self.snapshot.pools[route.pool], &self.pools[route.pool])
    }

    /// Whether the route, which may be from an older view, finds its pool in this one.
    #[must_use]
    pub fn has_pool(&self, route: &Route) -> bool {
        self.pools.get(route.pool).is_some_and(|pool| pool.name == route.pool_name)
    }

    /// Lets what budgets earned long ago fade.
    pub fn settle_budgets(&self, now: Instant) {
        for route in self.snapshot.routes.routes() {
            if let Some(pool) = self.pools.get(route.pool) {
                pool.budget.borrow_mut().settle(&route.spec.retry, now);
            }
        }
        if let Some(lane) = &self.lane {
            lane.settle_budgets(now);
        }
    }
}

/// What the first route to a pool says of sending again: its floor is what a budget begins with.
fn retry_of(snapshot: &Snapshot, pool: usize) -> RetrySpec {
    let mut routes = snapshot.routes.routes().iter();
    routes.find(|route| route.pool == pool).map(|route| route.spec.retry).unwrap_or_default()
}

impl PoolLocal {
    /// What this is at the begin of a drill's lane: it knows as much, and has the lane's part of the
    /// budget for its own, so that a drill spends nothing of anybody else's.
    fn in_lane(&self, lane: &Lane, retry: &RetrySpec) -> Self {
        let budget = self.budget.borrow().portion(lane.plan.share.percent(), retry);
        Self {
            latency: RefCell::new(self.latency.borrow().clone()),
            meter: Arc::clone(&self.meter),
            budget: RefCell::new(budget),
            turns: self.turns.clone(),
            keyring: self.keyring.clone(),
            ways: self.ways.clone(),
            name: Arc::clone(&self.name),
        }
    }

    fn new(pool: &PoolView, retry: &RetrySpec, shared: &Shared) -> Self {
        let name = Arc::clone(&pool.spec.name);
        let local = Self {
            latency: RefCell::new(LatencyWindow::new(pool.spec.detect.timeout, pool.spec.stall)),
            meter: shared.meters.meter(&name),
            budget: RefCell::new(Budget::new(retry, Instant::now())),
            turns: Turns::default(),
            keyring: RefCell::default(),
            ways: RefCell::default(),
            name,
        };
        local.keep_keys(pool, shared);
        local
    }

    /// What seals cookies, where clients stay with an endpoint by one.
    #[must_use]
    pub fn keyring(&self) -> Option<Rc<Keyring>> {
        self.keyring.borrow().clone()
    }

    /// Makes keys of the pool's secrets, or of the instance's, if they are others than before.
    fn keep_keys(&self, pool: &PoolView, shared: &Shared) {
        let secrets = match pool.spec.affinity.as_deref() {
            Some(Affinity::Cookie(cookie)) => {
                cookie.secrets.as_ref().or_else(|| shared.secret.get())
            }
            _ => None,
        };
        let mut keyring = self.keyring.borrow_mut();
        let is_same = match (&*keyring, secrets) {
            (Some(keyring), Some(secrets)) => keyring.is_of(secrets),
            (keyring, secrets) => keyring.is_none() && secrets.is_none(),
        };
        if !is_same {
            *keyring = secrets.map(|secrets| Rc::new(Keyring::new(&self.name, secrets)));
        }
    }

    /// A request of `route` was answered with this status after `elapsed`: counts it where the route
    /// or the pool has an objective, and gives what counts what becomes of the answer.
    pub fn measure(
        &self,
        shared: &Shared,
        (route, pool): (&Route, &PoolSpec),
        status: u16,
        elapsed: Duration,
    ) -> Option<Arc<WayMeter>> {
        if route.spec.slo.is_none() && pool.slo.is_none() {
            return None;
        }
        let mut ways = self.ways.borrow_mut();
        let new = || shared.meters.way(&route.spec.name, &self.name);
        let meter = match ways.get(&route.spec.name) {
            Some(meter) => meter,
            None => ways.entry(Arc::clone(&route.spec.name)).or_insert_with(new),
        };
        meter.answered(status, elapsed, &route.spec, pool);
        Some(Arc::clone(meter))
    }
}
