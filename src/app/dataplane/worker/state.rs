//! The state of one worker, shared by its connections and requests.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use bytes::BytesMut;
use fastrand::Rng;
use http::Request;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::dataplane::access::AccessRecordSink;
use crate::app::dataplane::proxy::{IdGenerator, LocalReplyReason, MirrorLimiter};
use crate::app::dataplane::shared::{InstanceShared, WorkerReport};
use crate::logic::drill::DrillView;
use crate::logic::model::id::EndpointId;
use crate::logic::model::snapshot::{PoolView, Snapshot, Target};
use crate::logic::overload::memory_pressure::MemoryPressureLevel;
use crate::logic::request::retry::InFlightPolicy;
use crate::logic::routing::PoolRoute;
use crate::net::upstream::{ConnectionPool, PoolEvent, PoolOptions};

use super::client_connections::{ClientConnections, CloseReason, EvictionCandidates};
use super::drill::WorkerDrill;
use super::endpoint_pools::EndpointPools;
use super::timer_queue::TimerQueue;
use super::view::WorkerView;

/// Interval of checks for free descriptors and memory.
pub(super) const CAPACITY_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Interval between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

type SnapshotCache = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

/// The state of one worker; it stays on its thread.
pub struct Worker {
    pub shared: Arc<InstanceShared>,
    /// Limits on mirrored requests in progress.
    pub mirror_limiter: Rc<MirrorLimiter>,
    /// Timers of waiting requests.
    pub timers: TimerQueue,
    snapshots: RefCell<SnapshotCache>,
    view: RefCell<Rc<WorkerView>>,
    endpoint_pools: RefCell<EndpointPools>,
    drill: RefCell<WorkerDrill>,
    rng: RefCell<Rng>,
    scratch: RefCell<BytesMut>,
    /// Cancelled when the worker stops accepting connections.
    pub(super) drain_token: CancellationToken,
    /// The same as a flag, which every request reads.
    pub(super) is_draining: Cell<bool>,
    pub(super) client_connections: Rc<ClientConnections>,
    pub(super) tasks: TaskTracker,
    last_warning: Cell<Option<Instant>>,
    /// Receives access records when their requests end.
    pub record_sink: Rc<AccessRecordSink>,
    /// Generates request ids, trace ids and span ids.
    pub id_generator: Rc<IdGenerator>,
    rate_limited_counts: RefCell<HashMap<Arc<str>, Arc<AtomicU64>>>,
}

impl Worker {
    pub(super) fn new(shared: Arc<InstanceShared>, index: usize) -> Self {
        let mut snapshots = Cache::new(Arc::clone(&shared.snapshot));
        let view = WorkerView::new(Arc::clone(snapshots.load()), None, &shared);
        let id_generator = Rc::new(IdGenerator::default());
        let record_sink = AccessRecordSink::new(
            &shared.access_log,
            #[cfg(feature = "otlp")]
            &shared.traces,
            #[cfg(feature = "otlp")]
            &id_generator,
        );
        Self {
            snapshots: RefCell::new(snapshots),
            view: RefCell::new(Rc::new(view)),
            endpoint_pools: RefCell::default(),
            drill: RefCell::default(),
            rng: RefCell::new(Rng::with_seed(
                shared.micros(Instant::now()) ^ ((index as u64) << 48),
            )),
            scratch: RefCell::new(BytesMut::with_capacity(16 * 1024)),
            drain_token: CancellationToken::new(),
            is_draining: Cell::new(false),
            client_connections: Rc::default(),
            tasks: TaskTracker::new(),
            last_warning: Cell::new(None),
            record_sink: Rc::new(record_sink),
            mirror_limiter: Rc::default(),
            timers: TimerQueue::default(),
            id_generator,
            rate_limited_counts: RefCell::default(),
            shared,
        }
    }

    pub(super) fn stop_accepting(&self) {
        self.is_draining.set(true);
        self.drain_token.cancel();
        self.tasks.close();
    }

    pub(super) fn drain(&self) {
        self.stop_accepting();
        self.client_connections.drain();
    }

    /// The current view. Costs one load unless a new snapshot was published since the last call.
    pub fn view(&self) -> Rc<WorkerView> {
        let mut cache = self.snapshots.borrow_mut();
        let snapshot = cache.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(snapshot, &view.snapshot) {
            *view = Rc::new(WorkerView::new(Arc::clone(snapshot), Some(&view), &self.shared));
        }
        Rc::clone(&view)
    }

    /// Runs `f` with this worker's random number generator.
    pub fn with_rng<T>(&self, f: impl FnOnce(&mut Rng) -> T) -> T {
        f(&mut self.rng.borrow_mut())
    }

    /// Runs `f` with the worker's scratch buffer, cleared.
    pub fn with_scratch<T>(&self, f: impl FnOnce(&mut BytesMut) -> T) -> T {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        f(&mut scratch)
    }

    /// This worker's connections to `target`, an endpoint of `view`.
    pub fn connections_to(&self, target: &Target, view: &PoolView) -> Rc<ConnectionPool> {
        if let Some(pool) = self.endpoint_pools.borrow().get(target.id) {
            pool.set_protocol(&view.spec.upstream_protocol);
            return Rc::clone(pool);
        }
        let shared = Arc::clone(&self.shared);
        let on_event = move |PoolEvent::IdleClosed(id)| {
            shared.send_report(WorkerReport::IdleClosed(id));
        };
        let pool = ConnectionPool::new(PoolOptions {
            target: target.clone(),
            pool_stats: Arc::clone(&view.stats),
            descriptors: Arc::clone(&self.shared.descriptors),
            protocol: &view.spec.upstream_protocol,
            limits: &view.spec.limits,
            on_event: Rc::new(on_event),
        });
        self.endpoint_pools.borrow_mut().insert(Rc::clone(&pool));
        pool
    }

    /// Closes idle connections until a descriptor is free or `timeout` has passed.
    pub async fn free_descriptor(&self, timeout: Duration) {
        let began = Instant::now();
        let descriptors = &self.shared.descriptors;
        let mut candidates = EvictionCandidates::default();
        while !descriptors.has_capacity() && began.elapsed() < timeout {
            self.endpoint_pools.borrow().iter().for_each(|pool| pool.close_idle());
            if descriptors.has_capacity() {
                return;
            }
            self.client_connections.evict_oldest_idle(
                CloseReason::Descriptors,
                None,
                &mut candidates,
                Instant::now(),
            );
            tokio::time::sleep(CAPACITY_RETRY_INTERVAL).await;
        }
    }

    /// Closes idle connections to the endpoint and aborts requests that wait for it, so that they
    /// are retried elsewhere.
    pub(super) fn abort_endpoint(&self, endpoint: EndpointId, waiting: InFlightPolicy) {
        // Aborted requests must not select the endpoint from the old view.
        let _ = self.view();
        if let Some(pool) = self.endpoint_pools.borrow().get(endpoint) {
            if waiting.should_abort(false) {
                pool.reset_shared_on_close();
            }
            pool.close_idle();
            if waiting.should_abort(true) {
                pool.abort_waiting(waiting.should_abort(false));
                self.timers.wake_all();
            }
        }
    }

    /// Stops new requests to a drained endpoint; ends its streams once the deadline has passed.
    pub(super) fn drain_endpoint(&self, endpoint: EndpointId, is_over: bool) {
        let _ = self.view();
        if let Some(pool) = self.endpoint_pools.borrow().get(endpoint) {
            pool.start_draining();
            if is_over {
                pool.end_streams();
                self.timers.wake_all();
            }
        }
    }

    /// Closes connections that were idle for too long and pools of removed endpoints; decays retry
    /// budgets.
    pub(super) fn housekeep(&self) {
        let now = Instant::now();
        let view = self.view();
        let is_under_pressure = self.shared.pressure.level() >= MemoryPressureLevel::Shrink;
        if is_under_pressure {
            self.client_connections.evict_for_memory(now);
        }
        let is_full = !self.shared.descriptors.has_client_capacity();
        self.client_connections.enforce_timeouts(
            now,
            &view.http_policy.limits,
            is_under_pressure || is_full,
        );
        self.endpoint_pools.borrow_mut().retain(|connections| {
            let id = connections.target.id;
            let pool =
                view.snapshot.pools.iter().find(|pool| pool.members.binary_search(&id).is_ok());
            if let Some(pool) = pool {
                connections.set_limits(&pool.spec.limits);
                let timeout = pool.spec.limits.idle_timeout;
                connections
                    .retire_idle(now, if is_under_pressure { Duration::ZERO } else { timeout });
            }
            pool.is_some()
        });
        self.drill.borrow().maintain(&view, now, is_under_pressure);
        view.decay_budgets(now);
    }

    /// Counts a request that is refused for lack of memory.
    pub fn record_overload(&self) -> LocalReplyReason {
        self.shared.pressure.record_refusal();
        self.warn_rate_limited("requests are refused: `limits.memory` is nearly reached");
        LocalReplyReason::Overload
    }

    /// Counts a request that exceeds the rate limit of `route`.
    pub fn record_rate_limited(&self, route: &Arc<str>) {
        let mut counts = self.rate_limited_counts.borrow_mut();
        if let Some(count) = counts.get(route) {
            count.fetch_add(1, Relaxed);
            return;
        }
        let count = self.shared.metrics.rate_limited_counter(route);
        count.fetch_add(1, Relaxed);
        counts.insert(Arc::clone(route), count);
    }

    /// Logs a warning about a single request, at most once a second.
    pub fn warn_rate_limited(&self, message: &str) {
        let now = Instant::now();
        let last = self.last_warning.get();
        if last.is_none_or(|said| now.saturating_duration_since(said) >= WARNING_INTERVAL) {
            self.last_warning.set(Some(now));
            tracing::warn!("{message}");
        }
    }

    /// The view that a request steers by while a drill is on: the drill's if the drill selects the
    /// request.
    #[cold]
    pub fn view_for_request<'v, B>(
        &self,
        base_view: &'v Rc<WorkerView>,
        drill_view: &'v Rc<WorkerView>,
        route: &PoolRoute,
        request: &Request<B>,
    ) -> &'v Rc<WorkerView> {
        let mut drill = self.drill.borrow_mut();
        let is_selected =
            self.with_rng(|rng| drill.is_selected(drill_view, route, request.headers(), rng));
        if is_selected { drill_view } else { base_view }
    }

    /// The newest view of the same kind as `old`: the same drill's for as long as it is on.
    pub fn latest_view_like(&self, old: &WorkerView) -> Rc<WorkerView> {
        let new = self.view();
        let Some(drill) = &old.drill else { return new };
        let is_same = |drill_view: &&Rc<WorkerView>| {
            drill_view.drill.as_ref().is_some_and(|d| d.id == drill.id)
        };
        let same = new.drill_view.as_ref().filter(is_same);
        Rc::clone(same.unwrap_or(&new))
    }

    /// The connections to `target` for requests of a drill.
    pub fn drill_connections_to(
        &self,
        target: &Target,
        view: &PoolView,
        drill: &DrillView,
    ) -> Rc<ConnectionPool> {
        self.drill.borrow_mut().connections_to(&self.shared, target, view, drill)
    }

    /// Aborts requests that wait for an endpoint that the drill's director put down.
    pub(super) fn abort_drill_requests(
        &self,
        drill_id: u64,
        endpoint: EndpointId,
        waiting: InFlightPolicy,
    ) {
        let _ = self.view();
        if self.drill.borrow().abort_requests(drill_id, endpoint, waiting) {
            self.timers.wake_all();
        }
    }

    pub(super) fn end_drill(&self, drill_id: u64, is_interrupted: bool) {
        let _ = self.view();
        if self.drill.borrow_mut().end(drill_id, is_interrupted) {
            self.timers.wake_all();
        }
    }
}
