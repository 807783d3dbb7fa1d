//! A data-plane thread: its own runtime, listeners, view of the snapshot and upstream connections.
//! A request never leaves it.

pub(in crate::app) mod accept;
mod client_connections;
mod connection_activity;
mod drill;
mod handshake;
mod http2;
mod timer_queue;
mod tracked_stream;
mod view;

pub use timer_queue::{TimerHandle, TimerQueue};
pub use view::{PoolLocal, WorkerView};

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use bytes::BytesMut;
use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::logic::model::id::EndpointId;
use crate::logic::model::snapshot::{PoolView, Snapshot, Target};
use crate::logic::overload::memory_pressure::MemoryPressureLevel;
use crate::logic::request::retry::InFlightPolicy;
use crate::net::upstream::{ConnectionPool, PoolEvent, PoolOptions};

use super::access::AccessLogBuffers;
use super::proxy::{IdGenerator, LocalReplyReason, MirrorLimiter};
use super::shared::{InstanceShared, WorkerCommand, WorkerReport};

use self::client_connections::{ClientConnections, CloseReason, EvictionCandidates};
use self::drill::WorkerDrill;

/// Task polls between two looks at the sockets: measured best for short requests.
const EVENT_INTERVAL: u32 = 256;

/// Rest while there is no room, unless some is made.
const CAPACITY_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// How often idle connections and budgets are looked after.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(500);

/// Time between two complaints.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

type SnapshotCache = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

/// Connections to endpoints, each in the place that its endpoint has in the director's roster.
#[derive(Default)]
struct EndpointPools(Vec<Option<Rc<ConnectionPool>>>);

impl EndpointPools {
    fn get(&self, id: EndpointId) -> Option<&Rc<ConnectionPool>> {
        let connections = self.0.get(id.slot as usize)?.as_ref()?;
        (connections.target.id == id).then_some(connections)
    }

    /// Takes the place of an endpoint that has gone.
    fn insert(&mut self, connections: Rc<ConnectionPool>) {
        let index = connections.target.id.slot as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some(connections);
    }

    fn iter(&self) -> impl Iterator<Item = &Rc<ConnectionPool>> {
        self.0.iter().flatten()
    }

    fn retain(&mut self, should_keep: impl Fn(&Rc<ConnectionPool>) -> bool) {
        self.0.iter_mut().for_each(|connections| {
            connections.take_if(|home| !should_keep(home));
        });
    }
}

/// The state of one worker; lives on its thread.
pub struct Worker {
    pub shared: Arc<InstanceShared>,
    /// Copies of requests that are under way.
    pub mirror_limiter: Rc<MirrorLimiter>,
    /// Rings for requests that wait.
    pub timers: TimerQueue,
    snapshots: RefCell<SnapshotCache>,
    view: RefCell<Rc<WorkerView>>,
    endpoint_pools: RefCell<EndpointPools>,
    drill: RefCell<WorkerDrill>,
    rng: RefCell<Rng>,
    scratch: RefCell<BytesMut>,
    /// No more connections are accepted.
    drain_token: CancellationToken,
    /// The same, for a look at every request.
    is_draining: Cell<bool>,
    client_connections: Rc<ClientConnections>,
    tasks: TaskTracker,
    last_warning: Cell<Option<Instant>>,
    /// Where lines of the access log are made.
    pub access_buffers: AccessLogBuffers,
    /// Where names of requests come from.
    pub id_generator: IdGenerator,
    rate_limited_counts: RefCell<HashMap<Arc<str>, Arc<AtomicU64>>>,
}

/// Starts worker number `index`. It ends after [`Command::Drain`] when its last connection does.
///
/// # Errors
/// If no thread or runtime can be made.
pub fn spawn(
    index: usize,
    shared: Arc<InstanceShared>,
    commands: mpsc::UnboundedReceiver<WorkerCommand>,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .event_interval(EVENT_INTERVAL)
        .build()?;
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            let worker = Rc::new(Worker::new(shared, index));
            worker.run(commands).await;
            worker.access_buffers.shut_down();
        });
    })
}

impl Worker {
    fn new(shared: Arc<InstanceShared>, index: usize) -> Self {
        let mut snapshots = Cache::new(Arc::clone(&shared.snapshot));
        let view = WorkerView::new(Arc::clone(snapshots.load()), None, &shared);
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
            access_buffers: AccessLogBuffers::default(),
            mirror_limiter: Rc::default(),
            timers: TimerQueue::default(),
            id_generator: IdGenerator::default(),
            rate_limited_counts: RefCell::default(),
            shared,
        }
    }

    async fn run(self: &Rc<Self>, mut commands: mpsc::UnboundedReceiver<WorkerCommand>) {
        let mut listeners: HashMap<SocketAddr, CancellationToken> = HashMap::new();
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING_INTERVAL);
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move { worker.timers.run().await });
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(WorkerCommand::Listen(listener)) => {
                        let close = listeners.entry(listener.address);
                        let close = close.or_insert_with(|| self.drain_token.child_token()).clone();
                        // Its last look at the door is waited for.
                        self.tasks.spawn_local(accept::run_accept_loop(Rc::clone(self), listener, close));
                    }
                    Some(WorkerCommand::Unlisten(name)) => {
                        if let Some(close) = listeners.remove(&name) {
                            close.cancel();
                        }
                    }
                    Some(WorkerCommand::AbortEndpoint { endpoint, waiting }) => self.abort_endpoint(endpoint, waiting),
                    Some(WorkerCommand::EndpointDrained { endpoint, is_over }) => self.drain_endpoint(endpoint, is_over),
                    Some(WorkerCommand::AbortDrillEndpoint { drill, endpoint, waiting }) => {
                        self.abort_drill_requests(drill, endpoint, waiting);
                    }
                    Some(WorkerCommand::EndDrill { drill, is_interrupted }) => {
                        self.end_drill(drill, is_interrupted);
                    }
                    Some(WorkerCommand::StopAccepting) => break self.stop_accepting(),
                    Some(WorkerCommand::Drain) | None => break self.drain(),
                },
                _ = housekeeping.tick() => self.housekeep(),
            }
        }
        loop {
            tokio::select! {
                () = self.tasks.wait() => return,
                command = commands.recv() => match command {
                    // A request that waits for a dead endpoint is rescued on the way out too.
                    Some(WorkerCommand::AbortEndpoint { endpoint, waiting }) => self.abort_endpoint(endpoint, waiting),
                    Some(WorkerCommand::EndpointDrained { endpoint, is_over }) => self.drain_endpoint(endpoint, is_over),
                    Some(WorkerCommand::EndDrill { drill, is_interrupted }) => {
                        self.end_drill(drill, is_interrupted);
                    }
                    Some(WorkerCommand::Drain) => self.drain(),
                    Some(_) => {}
                    // Control has gone: the deadline is over.
                    None => return,
                },
                _ = housekeeping.tick() => self.housekeep(),
            }
        }
    }

    fn stop_accepting(&self) {
        self.is_draining.set(true);
        self.drain_token.cancel();
        self.tasks.close();
    }

    fn drain(&self) {
        self.stop_accepting();
        self.client_connections.drain();
    }

    /// The current view. Costs one load unless a snapshot was published since the last call.
    pub fn view(&self) -> Rc<WorkerView> {
        let mut cache = self.snapshots.borrow_mut();
        let snapshot = cache.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(snapshot, &view.snapshot) {
            *view = Rc::new(WorkerView::new(Arc::clone(snapshot), Some(&view), &self.shared));
        }
        Rc::clone(&view)
    }

    /// Runs `f` with this worker's source of chance.
    pub fn with_rng<T>(&self, f: impl FnOnce(&mut Rng) -> T) -> T {
        f(&mut self.rng.borrow_mut())
    }

    /// Runs `f` with an empty scratch buffer.
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

    /// Gives up what is idle until there is a descriptor for something else, or `timeout` is over.
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

    /// Closes what the endpoint has idle, and has requests that wait for it sent elsewhere.
    fn abort_endpoint(&self, endpoint: EndpointId, waiting: InFlightPolicy) {
        // A request that was waiting must not find the endpoint in the old view.
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

    /// An operator wants nobody there.
    fn drain_endpoint(&self, endpoint: EndpointId, is_over: bool) {
        let _ = self.view();
        if let Some(pool) = self.endpoint_pools.borrow().get(endpoint) {
            pool.start_draining();
            if is_over {
                pool.end_streams();
                self.timers.wake_all();
            }
        }
    }

    /// Closes what has been idle for too long, from clients and to endpoints, and what leads to endpoints that are in no snapshot
    /// any more; lets budgets fade.
    fn housekeep(&self) {
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
        self.maintain_drill(&view, now, is_under_pressure);
        view.decay_budgets(now);
    }

    /// Counts a request that there is no memory for.
    pub fn record_overload(&self) -> LocalReplyReason {
        self.shared.pressure.record_refusal();
        self.warn_rate_limited("requests are refused: `limits.memory` is nearly reached");
        LocalReplyReason::Overload
    }

    /// Counts a request beyond the rate of `route`.
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

    /// Says at most once a second what no operator wants to read for every request.
    pub fn warn_rate_limited(&self, message: &str) {
        let now = Instant::now();
        let last = self.last_warning.get();
        if last.is_none_or(|said| now.saturating_duration_since(said) >= WARNING_INTERVAL) {
            self.last_warning.set(Some(now));
            tracing::warn!("{message}");
        }
    }
}
