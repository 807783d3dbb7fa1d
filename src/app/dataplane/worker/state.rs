//! The state of one worker, shared by its connections and requests.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use fastrand::Rng;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::dataplane::access::AccessRecordSink;
use crate::app::dataplane::proxy::{IdGenerator, LocalReplyReason, MirrorLimiter};
use crate::app::dataplane::shared::{
    EndpointAbort, FaultInjectionEnd, FaultInjectionStart, InstanceShared,
};
use crate::app::runtime::scheduling_delay::ThreadDelay;
use crate::logic::model::id::EndpointId;
use crate::logic::model::snapshot::{PoolView, Target};
use crate::logic::overload::memory_pressure::MemoryPressureLevel;
use crate::logic::routing::PoolRoute;
use crate::net::upstream::ConnectionPool;

use super::client_connections::{ClientConnections, CloseReason, EvictionCandidates};
use super::tags::{TaggedPools, WorkerViews};
use super::timer_queue::TimerQueue;
use super::view::WorkerView;

/// Interval of checks for free descriptors and memory.
pub(super) const CAPACITY_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Interval between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// The state of one worker; it stays on its thread.
pub struct Worker {
    pub shared: Arc<InstanceShared>,
    /// Limits on mirrored requests in progress.
    pub mirror_limiter: Rc<MirrorLimiter>,
    /// Timers of waiting requests.
    pub timers: TimerQueue,
    /// The time for which this thread waits for a processor.
    scheduling_delay: ThreadDelay,
    views: RefCell<WorkerViews>,
    endpoint_pools: RefCell<TaggedPools>,
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
        let id_generator = Rc::new(IdGenerator::default());
        let record_sink = AccessRecordSink::new(
            &shared.access_log,
            #[cfg(feature = "otlp")]
            &shared.traces,
            #[cfg(feature = "otlp")]
            &id_generator,
        );
        Self {
            views: RefCell::new(WorkerViews::new(&shared)),
            endpoint_pools: RefCell::default(),
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
            scheduling_delay: ThreadDelay::default(),
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

    /// Production's current view. Costs one load unless control has published since the last call.
    pub fn view(&self) -> Rc<WorkerView> {
        self.views.borrow_mut().production(&self.shared)
    }

    /// The current view with the tag of `old`; production's if there is none any more.
    pub fn latest_view(&self, old: &WorkerView) -> Rc<WorkerView> {
        self.views.borrow_mut().latest(old, &self.shared)
    }

    /// The tagged view that steers this request; `None` if the request is production's.
    pub fn draw_view(&self, route: &PoolRoute, headers: &HeaderMap) -> Option<Rc<WorkerView>> {
        let mut views = self.views.borrow_mut();
        if !views.has_tagged() {
            return None;
        }
        self.with_rng(|rng| views.draw(route, headers, rng))
    }

    /// This worker's connections to `target`, an endpoint of `pool` in `view`.
    pub fn connections_to(
        &self,
        target: &Target,
        pool: &PoolView,
        view: &WorkerView,
    ) -> Rc<ConnectionPool> {
        self.endpoint_pools.borrow_mut().connections_to(target, pool, view, &self.shared)
    }

    /// Applies a down verdict, so that requests which wait for the endpoint are retried elsewhere.
    pub(super) fn abort_endpoint(&self, abort: EndpointAbort) {
        // Aborted requests must not select the endpoint from the old view.
        let _ = self.view();
        if self.endpoint_pools.borrow().abort_endpoint(abort) {
            self.timers.wake_all();
        }
    }

    /// Ends an injection, so that requests which wait for an injected response are sent for real.
    pub(super) fn end_fault_injection(&self, end: FaultInjectionEnd) {
        // Aborted requests must find production's view.
        let _ = self.view();
        if self.endpoint_pools.borrow_mut().end_fault_injection(end) {
            self.timers.wake_all();
        }
    }

    /// Starts a fault injection in the existing connection pools.
    pub(super) fn start_fault_injection(&self, start: FaultInjectionStart) {
        self.endpoint_pools.borrow().start_fault_injection(start);
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

    /// Closes idle connections until a descriptor is free or `timeout` has passed.
    pub async fn free_descriptor(&self, timeout: Duration) {
        let began = Instant::now();
        let descriptors = &self.shared.descriptors;
        let mut candidates = EvictionCandidates::default();
        while !descriptors.has_capacity() && began.elapsed() < timeout {
            self.endpoint_pools.borrow().production.iter().for_each(|pool| pool.close_idle());
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

    /// Stops new requests to a drained endpoint; ends its streams once the deadline has passed.
    pub(super) fn drain_endpoint(&self, endpoint: EndpointId, is_over: bool) {
        let _ = self.view();
        if let Some(pool) = self.endpoint_pools.borrow().production.get(endpoint) {
            pool.start_draining();
            if is_over {
                pool.end_streams();
                self.timers.wake_all();
            }
        }
    }

    /// Whether this thread has waited for a processor so long that its latencies are no evidence.
    pub fn is_late(&self) -> bool {
        self.scheduling_delay.is_late(Instant::now())
    }

    /// Closes connections that were idle for too long and pools of removed endpoints; decays retry
    /// budgets.
    pub(super) fn housekeep(&self) {
        let now = Instant::now();
        self.scheduling_delay.sample(now);
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
        self.endpoint_pools.borrow_mut().maintain(&self.views.borrow(), now, is_under_pressure);
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
        if last.is_none_or(|last| now.saturating_duration_since(last) >= WARNING_INTERVAL) {
            self.last_warning.set(Some(now));
            tracing::warn!("{message}");
        }
    }
}
