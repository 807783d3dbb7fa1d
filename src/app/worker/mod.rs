//! A data-plane thread: its own runtime, listeners, view of the snapshot and upstream connections.
//! A request never leaves it.

pub(in crate::app) mod accept;
mod clock;
mod crowd;
mod guarded;
mod http2;
mod lane;
mod opening;
mod pulse;
mod view;

pub use clock::{Bell, Clock};
pub use view::{PoolLocal, View};

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

use crate::logic::id::EndpointId;
use crate::logic::pressure::Level;
use crate::logic::retry::Waiting;
use crate::logic::snapshot::{PoolView, Snapshot, Target};
use crate::net::upstream::{Pool, PoolEvent};

use super::access::Lines;
use super::proxy::{Ids, Mirrors, Reason};
use super::shared::{Command, Report, Shared};

use self::crowd::{Crowd, Oldest, Why};
use self::lane::Lanes;

/// Task polls between two looks at the sockets: measured best for short requests.
const EVENT_INTERVAL: u32 = 256;

/// Rest while there is no room, unless some is made.
const FULL_REST: Duration = Duration::from_millis(10);

/// How often idle connections and budgets are looked after.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// Time between two complaints.
const COMPLAINTS_APART: Duration = Duration::from_secs(1);

type SnapshotCache = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

/// Connections to endpoints, each in the place that its endpoint has in the director's roster.
#[derive(Default)]
struct Homes(Vec<Option<Rc<Pool>>>);

impl Homes {
    fn get(&self, id: EndpointId) -> Option<&Rc<Pool>> {
        let home = self.0.get(id.slot as usize)?.as_ref()?;
        (home.target.id == id).then_some(home)
    }

    /// Takes the place of an endpoint that has gone.
    fn insert(&mut self, home: Rc<Pool>) {
        let place = home.target.id.slot as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        self.0[place] = Some(home);
    }

    fn iter(&self) -> impl Iterator<Item = &Rc<Pool>> {
        self.0.iter().flatten()
    }

    fn retain(&mut self, is_kept: impl Fn(&Rc<Pool>) -> bool) {
        self.0.iter_mut().for_each(|home| {
            home.take_if(|home| !is_kept(home));
        });
    }
}

/// The state of one worker; lives on its thread.
pub struct Worker {
    /// Shared with control.
    pub shared: Arc<Shared>,
    /// Copies of requests that are under way.
    pub mirrors: Rc<Mirrors>,
    /// Rings for requests that wait.
    pub clock: Clock,
    snapshots: RefCell<SnapshotCache>,
    view: RefCell<Rc<View>>,
    homes: RefCell<Homes>,
    lanes: RefCell<Lanes>,
    rng: RefCell<Rng>,
    scratch: RefCell<BytesMut>,
    /// No more connections are accepted.
    leaving: CancellationToken,
    /// The same, for a look at every request.
    is_leaving: Cell<bool>,
    crowd: Rc<Crowd>,
    tasks: TaskTracker,
    complained: Cell<Option<Instant>>,
    /// Where lines of the access log are made.
    pub access: Lines,
    /// Where names of requests come from.
    pub ids: Ids,
    limited: RefCell<HashMap<Arc<str>, Arc<AtomicU64>>>,
}

/// Starts worker number `index`. It ends after [`Command::Drain`] when its last connection does.
///
/// # Errors
/// If no thread or runtime can be made.
pub fn spawn(
    index: usize,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
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
            worker.access.end();
        });
    })
}

impl Worker {
    fn new(shared: Arc<Shared>, index: usize) -> Self {
        let mut snapshots = Cache::new(Arc::clone(&shared.snapshot));
        let view = View::new(Arc::clone(snapshots.load()), None, &shared);
        Self {
            snapshots: RefCell::new(snapshots),
            view: RefCell::new(Rc::new(view)),
            homes: RefCell::default(),
            lanes: RefCell::default(),
            rng: RefCell::new(Rng::with_seed(
                shared.micros(Instant::now()) ^ ((index as u64) << 48),
            )),
            scratch: RefCell::new(BytesMut::with_capacity(16 * 1024)),
            leaving: CancellationToken::new(),
            is_leaving: Cell::new(false),
            crowd: Rc::default(),
            tasks: TaskTracker::new(),
            complained: Cell::new(None),
            access: Lines::default(),
            mirrors: Rc::default(),
            clock: Clock::default(),
            ids: Ids::default(),
            limited: RefCell::default(),
            shared,
        }
    }

    async fn run(self: &Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut doors: HashMap<SocketAddr, CancellationToken> = HashMap::new();
        let mut chores = tokio::time::interval(HOUSEKEEPING);
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move { worker.clock.keep().await });
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Listen(door)) => {
                        let close = doors.entry(door.name);
                        let close = close.or_insert_with(|| self.leaving.child_token()).clone();
                        // Its last look at the door is waited for.
                        self.tasks.spawn_local(accept::accept(Rc::clone(self), door, close));
                    }
                    Some(Command::Unlisten(name)) => {
                        if let Some(close) = doors.remove(&name) {
                            close.cancel();
                        }
                    }
                    Some(Command::Cut { endpoint, waiting }) => self.cut(endpoint, waiting),
                    Some(Command::Drained { endpoint, is_over }) => self.drained(endpoint, is_over),
                    Some(Command::CutLane { drill, endpoint, waiting }) => {
                        self.cut_lane(drill, endpoint, waiting);
                    }
                    Some(Command::EndLane { drill, is_interrupted }) => {
                        self.end_lane(drill, is_interrupted);
                    }
                    Some(Command::Leave) => break self.leave(),
                    Some(Command::Drain) | None => break self.drain(),
                },
                _ = chores.tick() => self.housekeep(),
            }
        }
        loop {
            tokio::select! {
                () = self.tasks.wait() => return,
                command = commands.recv() => match command {
                    // A request that waits for a dead endpoint is rescued on the way out too.
                    Some(Command::Cut { endpoint, waiting }) => self.cut(endpoint, waiting),
                    Some(Command::Drained { endpoint, is_over }) => self.drained(endpoint, is_over),
                    Some(Command::EndLane { drill, is_interrupted }) => {
                        self.end_lane(drill, is_interrupted);
                    }
                    Some(Command::Drain) => self.drain(),
                    Some(_) => {}
                    // Control has gone: the deadline is over.
                    None => return,
                },
                _ = chores.tick() => self.housekeep(),
            }
        }
    }

    fn leave(&self) {
        self.is_leaving.set(true);
        self.leaving.cancel();
        self.tasks.close();
    }

    fn drain(&self) {
        self.leave();
        self.crowd.leave();
    }

    /// The current view. Costs one load unless a snapshot was published since the last call.
    #[must_use]
    pub fn view(&self) -> Rc<View> {
        let mut cache = self.snapshots.borrow_mut();
        let snapshot = cache.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(snapshot, &view.snapshot) {
            *view = Rc::new(View::new(Arc::clone(snapshot), Some(&view), &self.shared));
        }
        Rc::clone(&view)
    }

    /// Runs `f` with this worker's source of chance.
    pub fn chance<T>(&self, f: impl FnOnce(&mut Rng) -> T) -> T {
        f(&mut self.rng.borrow_mut())
    }

    /// Runs `f` with an empty scratch buffer.
    pub fn scratch<T>(&self, f: impl FnOnce(&mut BytesMut) -> T) -> T {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        f(&mut scratch)
    }

    /// This worker's connections to `target`, an endpoint of `view`.
    #[must_use]
    pub fn pool(&self, target: &Target, view: &PoolView) -> Rc<Pool> {
        if let Some(pool) = self.homes.borrow().get(target.id) {
            pool.speak(&view.spec.speech);
            return Rc::clone(pool);
        }
        let shared = Arc::clone(&self.shared);
        let listener = move |PoolEvent::IdleClosed(id)| {
            shared.report(Report::IdleClosed(id));
        };
        let live = Arc::clone(&view.live);
        let pool = Pool::new(
            target.clone(),
            (live, Arc::clone(&self.shared.descriptors)),
            &view.spec.speech,
            &view.spec.limits,
            Rc::new(listener),
        );
        self.homes.borrow_mut().insert(Rc::clone(&pool));
        pool
    }

    /// Gives up what is idle until there is a descriptor for something else, or `timeout` is over.
    pub async fn make_room(&self, timeout: Duration) {
        let began = Instant::now();
        let descriptors = &self.shared.descriptors;
        let mut oldest = Oldest::default();
        while !descriptors.has_room() && began.elapsed() < timeout {
            self.homes.borrow().iter().for_each(|pool| pool.close_idle());
            if descriptors.has_room() {
                return;
            }
            self.crowd.shed(Why::Descriptors, None, &mut oldest, Instant::now());
            tokio::time::sleep(FULL_REST).await;
        }
    }

    /// Closes what the endpoint has idle, and has requests that wait for it sent elsewhere.
    fn cut(&self, endpoint: EndpointId, waiting: Waiting) {
        // A request that was waiting must not find the endpoint in the old view.
        let _ = self.view();
        if let Some(pool) = self.homes.borrow().get(endpoint) {
            if waiting.leaves(false) {
                pool.reset_shared();
            }
            pool.close_idle();
            if waiting.leaves(true) {
                pool.cut_waiting(waiting.leaves(false));
                self.clock.wake_all();
            }
        }
    }

    /// An operator wants nobody there.
    fn drained(&self, endpoint: EndpointId, is_over: bool) {
        let _ = self.view();
        if let Some(pool) = self.homes.borrow().get(endpoint) {
            pool.leave();
            if is_over {
                pool.end_lasting();
                self.clock.wake_all();
            }
        }
    }

    /// Closes what has been idle for too long, from clients and to endpoints, and what leads to endpoints that are in no snapshot
    /// any more; lets budgets fade.
    fn housekeep(&self) {
        let now = Instant::now();
        let view = self.view();
        let is_pressed = self.shared.pressure.level() >= Level::Shrink;
        if is_pressed {
            self.crowd.shrink(now);
        }
        let is_full = !self.shared.descriptors.has_room_for_client();
        self.crowd.look(now, &view.manners.limits, is_pressed || is_full);
        self.homes.borrow_mut().retain(|connections| {
            let id = connections.target.id;
            let pool =
                view.snapshot.pools.iter().find(|pool| pool.members.binary_search(&id).is_ok());
            if let Some(pool) = pool {
                connections.keep_to(&pool.spec.limits);
                let timeout = pool.spec.limits.idle_timeout;
                connections.reap(now, if is_pressed { Duration::ZERO } else { timeout });
            }
            pool.is_some()
        });
        self.keep_lane(&view, now, is_pressed);
        view.settle_budgets(now);
    }

    /// Counts a request that there is no memory for.
    #[must_use]
    pub fn overloaded(&self) -> Reason {
        self.shared.pressure.refused();
        self.complain("requests are refused: `limits.memory` is nearly reached");
        Reason::Overload
    }

    /// Counts a request beyond the rate of `route`.
    pub fn limited(&self, route: &Arc<str>) {
        let mut limited = self.limited.borrow_mut();
        if let Some(count) = limited.get(route) {
            count.fetch_add(1, Relaxed);
            return;
        }
        let count = self.shared.meters.limited(route);
        count.fetch_add(1, Relaxed);
        limited.insert(Arc::clone(route), count);
    }

    /// Says at most once a second what no operator wants to read for every request.
    pub fn complain(&self, what: &str) {
        let now = Instant::now();
        let said = self.complained.get();
        if said.is_none_or(|said| now.saturating_duration_since(said) >= COMPLAINTS_APART) {
            self.complained.set(Some(now));
            tracing::warn!("{what}");
        }
    }
}
