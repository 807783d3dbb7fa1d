//! The control thread: drives the director, runs probes, stores the snapshot. The sole writer.

mod discover;
mod drill;
mod leave;
mod orders;
mod probed;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::model::Config;
use crate::config::{LoadError, Loaded};
use crate::logic::director::{Director, Event, Input, Legacy, Output};
use crate::logic::discovery::Remembered;
use crate::logic::id::EndpointId;
use crate::logic::outcome::Outcome;
use crate::logic::retry::Waiting;
use crate::logic::route::RouteTable;
use crate::net::prober::{Kept, Prober};

use super::api::{Clock, ConfigJson, ProcessJson, RefusedJson};
use super::discovery::{Discovery, Heard, memory};
use super::doors::Doors;
use super::drill::{Drills, Refusal};
use super::lag::Lag;
use super::ledger::{Ledger, Setup};
use super::notify::Notifier;
use super::observe;
use super::orders::keeper::{self, Keeper};
use super::reload::{Attempt, Prepared};
use super::shared::{Command, Manners, Report, Shared};
use super::upgrade::{Executable, Step, Successor};
use drill::DrillControl;
use probed::{ProbeResult, Probed};

/// Inputs taken in one turn, at most: a flood of reports must not hold up a verdict for ever.
const TURN_INPUTS: usize = 4096;

/// How often the metrics' recorder tidies up.
const UPKEEP: Duration = Duration::from_secs(5);

/// What control is asked to do from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Fail readiness, drain, end. The second one ends at once.
    Stop,
    /// End at once.
    Kill,
    /// Have another process take over, then drain and end.
    Upgrade,
}

/// Where the instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Serving.
    Serving,
    /// On the way out.
    Stopping,
}

/// What the admin listener shows; shared on the control thread only.
pub struct Board {
    /// The machine itself.
    pub director: RefCell<Director>,
    /// Endpoints that are found by name.
    pub discovery: RefCell<Discovery>,
    /// What runs.
    pub config: RefCell<ConfigJson>,
    /// The process itself.
    pub process: RefCell<ProcessJson>,
    /// Where the instance is in its life.
    pub phase: Cell<Phase>,
    /// The operator's listener is served by another process from now on.
    pub left: CancellationToken,
    /// Connections to that listener.
    pub visits: TaskTracker,
    /// How late control woke of late.
    pub lag: Lag,
    /// Where incidents are kept.
    pub ledger: Ledger,
    /// Drills: at most one is under way.
    pub drills: RefCell<Drills>,
    /// Control is to look at them, or at what operators have ordered.
    pub drill_wake: Notify,
    /// Where orders are kept.
    pub keeper: Keeper,
    /// Another process is about to take over: what is ordered now would be lost.
    pub is_succeeded: Cell<bool>,
    /// Shared with the workers.
    pub shared: Arc<Shared>,
    /// For times of day.
    pub clock: Clock,
}

/// What reaches control from outside.
#[derive(Debug)]
pub struct Inlets {
    /// From workers.
    pub reports: mpsc::Receiver<Report>,
    /// From the operator.
    pub orders: mpsc::Receiver<Order>,
    /// From who watches the configuration.
    pub attempts: mpsc::Receiver<Attempt>,
}

/// What came before this process, and what may come after it.
#[derive(Debug)]
pub struct Life {
    /// What an upgrade starts; `None` if there is nobody to ask for one.
    pub executable: Option<Executable>,
    /// What a predecessor knew.
    pub legacy: Option<Legacy>,
    /// What names led to, as an earlier process knew it.
    pub names: Vec<Remembered>,
    /// Upgrades so far.
    pub upgrades: u64,
    /// Who is told how things go.
    pub notifier: Notifier,
    /// Where incidents are kept.
    pub ledger: Ledger,
    /// Where orders are kept.
    pub keeper: Keeper,
    /// A predecessor's orders; those in the state directory are of no account then.
    pub orders: Option<Vec<keeper::Kept>>,
}

/// The control loop and all that it owns.
pub struct Control {
    board: Rc<Board>,
    doors: Doors,
    running: Config,
    /// What incidents are compared with.
    setup: Arc<Setup>,
    prober: Rc<Prober>,
    /// What each probe of an endpoint keeps, by its place in the pool's list.
    kept: HashMap<(EndpointId, u8), Rc<Kept>>,
    probes: (mpsc::UnboundedSender<Probed>, mpsc::UnboundedReceiver<Probed>),
    /// What lookups bring.
    heard: (mpsc::UnboundedSender<Heard>, mpsc::UnboundedReceiver<Heard>),
    inlets: Inlets,
    executable: Option<Executable>,
    notifier: Notifier,
    /// Who is about to take over.
    successor: Option<Successor>,
    steps: (mpsc::UnboundedSender<Step>, mpsc::UnboundedReceiver<Step>),
    drill: DrillControl,
}

impl Control {
    /// Takes the checked configuration to its first snapshot. Probes and lookups start with
    /// [`Control::run`]. Must be called on a `LocalSet`.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        config: Config,
        path: Option<PathBuf>,
        doors: Doors,
        inlets: Inlets,
        life: Life,
    ) -> Self {
        let clock = Clock::read();
        let now = Instant::now();
        let seed = shared.micros(now) ^ u64::from(std::process::id());
        let status = ConfigJson {
            path: path.map(|path| path.display().to_string()),
            loaded_at: clock.text(now),
            generation: 1,
            ..ConfigJson::default()
        };
        let memory = config.state_dir.clone().map(|directory| {
            let (latest, kept) = watch::channel(Vec::new());
            tokio::task::spawn_local(memory::keep(directory, kept, clock));
            latest
        });
        let board = Board {
            director: RefCell::new(Director::new(shared.epoch, seed)),
            discovery: RefCell::new(Discovery::new(seed, life.names, memory)),
            config: RefCell::new(status),
            process: RefCell::new(ProcessJson::new(life.executable.as_ref(), life.upgrades)),
            phase: Cell::new(Phase::Serving),
            left: CancellationToken::new(),
            visits: TaskTracker::new(),
            lag: Lag::default(),
            ledger: life.ledger,
            drills: RefCell::default(),
            drill_wake: Notify::new(),
            keeper: life.keeper,
            is_succeeded: Cell::new(false),
            shared,
            clock,
        };
        let mut control = Self {
            board: Rc::new(board),
            doors,
            running: config.clone(),
            setup: Arc::default(),
            prober: Rc::default(),
            kept: HashMap::new(),
            probes: mpsc::unbounded_channel(),
            heard: mpsc::unbounded_channel(),
            inlets,
            executable: life.executable,
            notifier: life.notifier,
            successor: None,
            steps: mpsc::unbounded_channel(),
            drill: DrillControl::default(),
        };
        control.resume_orders(life.orders.as_deref());
        control.configure(config);
        if let Some(legacy) = life.legacy {
            control.board.director.borrow_mut().handle(Input::Inherit(legacy), Instant::now());
            control.board.ledger.inherit(control.down());
        }
        control.obey();
        control
    }

    /// What the admin listener shows.
    #[must_use]
    pub fn board(&self) -> Rc<Board> {
        Rc::clone(&self.board)
    }

    /// Runs until it is told to stop, then drains. Must run on a `LocalSet`.
    pub async fn run(mut self) {
        let mut upkeep = tokio::time::interval(UPKEEP);
        loop {
            self.turn();
            let due = self.due();
            let wake = due.unwrap_or_else(|| Instant::now() + UPKEEP);
            tokio::select! {
                biased;
                order = self.inlets.orders.recv() => match order {
                    Some(Order::Upgrade) => self.upgrade(),
                    Some(Order::Stop) => return self.stop().await,
                    Some(Order::Kill) | None => return self.abandon_upgrade(),
                },
                Some(step) = self.steps.1.recv() => {
                    if self.step(step) {
                        return self.leave().await;
                    }
                }
                Some(probed) = self.probes.1.recv() => self.probed(probed),
                Some(report) = self.inlets.reports.recv() => self.reported(report),
                Some(heard) = self.heard.1.recv() => self.heard(heard),
                Some(attempt) = self.inlets.attempts.recv() => self.reload(attempt),
                drilled = self.drill.next() => self.drilled(drilled),
                () = self.board.drill_wake.notified() => {}
                () = tokio::time::sleep_until(wake.into()) => {}
                _ = upkeep.tick() => {
                    if let Some(recorder) = observe::recorder() {
                        recorder.run_upkeep();
                    }
                    self.see_open();
                }
            }
            // Whatever woke it: after a long sleep of the whole process that is not the timer.
            self.board.lag.woke(wake, Instant::now());
        }
    }

    /// Has the ledger know how incidents stand that are open: what it knows last is what is left if
    /// this process dies.
    fn see_open(&self) {
        let open = self.board.director.borrow_mut().open_incidents();
        if !open.is_empty() {
            self.board.ledger.see(open);
        }
        if self.running.topology.pools.iter().any(|pool| pool.slo.is_some()) {
            self.board.ledger.zones(self.board.director.borrow().zone_tries());
        }
    }

    /// What is down, by pool and address.
    fn down(&self) -> Vec<(Arc<str>, SocketAddr)> {
        let endpoints = self.board.director.borrow().endpoints();
        let down = endpoints.iter().filter(|status| !status.health.serves(true));
        down.map(|status| (Arc::clone(&status.subject.pool), status.subject.address)).collect()
    }

    /// Takes in all that has happened, lets due probes start, and does what the director says.
    fn turn(&mut self) {
        for _ in 0..TURN_INPUTS {
            if let Ok(probed) = self.probes.1.try_recv() {
                self.probed(probed);
            } else if let Ok(report) = self.inlets.reports.try_recv() {
                self.reported(report);
            } else {
                break;
            }
        }
        self.board.director.borrow_mut().handle_timeout(Instant::now());
        self.obey();
        self.discover();
        self.drill_turn();
    }

    /// When there is something to do next.
    fn due(&self) -> Option<Instant> {
        let due = self.board.director.borrow().poll_timeout();
        let look = self.board.discovery.borrow().poll_timeout();
        [due, look, self.drill_due(Instant::now())].into_iter().flatten().min()
    }

    /// Does what the director says.
    fn obey(&mut self) {
        loop {
            let output = self.board.director.borrow_mut().poll_output();
            match output {
                Some(output) => self.perform(output),
                None => break,
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Probe { endpoint, ticket, address, pool, timeout } => {
                let void = Probed { endpoint, ticket, outcome: Outcome::Void };
                let mut result = ProbeResult { probed: void, done: self.probes.0.clone() };
                let kept = Rc::clone(self.kept.entry((endpoint, ticket.probe)).or_default());
                let prober = Rc::clone(&self.prober);
                tokio::task::spawn_local(async move {
                    let probe = &pool.probes[usize::from(ticket.probe)];
                    let outcome = prober.probe(address, probe, timeout, &kept).await;
                    observe::probe(&pool.name, outcome);
                    result.is(outcome);
                });
            }
            Output::Publish(snapshot) => {
                observe::published(snapshot.version);
                self.publish(snapshot);
                self.board.director.borrow_mut().handle(Input::Published, Instant::now());
            }
            Output::Cut { endpoint, failure } => {
                let waiting = Waiting::after(failure);
                self.doors.tell(|| Command::Cut { endpoint, waiting });
            }
            Output::Drained { endpoint, is_over } => {
                self.doors.tell(|| Command::Drained { endpoint, is_over });
            }
            Output::Event(event) => {
                observe::event(&event);
                self.board.discovery.borrow_mut().hears(&event, Instant::now());
                self.board.ledger.note(&event, &self.setup);
                if matches!(event, Event::Order { .. }) {
                    self.keep_orders();
                }
                self.drill_hears(&event);
            }
        }
    }

    fn probed(&self, probed: Probed) {
        let Probed { endpoint, ticket, outcome } = probed;
        let input = Input::Probed { endpoint, ticket, outcome };
        self.board.director.borrow_mut().handle(input, Instant::now());
    }

    fn reported(&mut self, report: Report) {
        let input = match report {
            Report::Traffic { endpoint, failure, began } => {
                Input::Traffic { endpoint, failure, began }
            }
            Report::IdleClosed(endpoint) => Input::IdleClosed { endpoint },
            Report::LaneTraffic { drill, endpoint, failure, began } => {
                let input = Input::Traffic { endpoint, failure, began };
                return self.lane_reported(drill, input);
            }
            Report::LaneIdleClosed { drill, endpoint } => {
                return self.lane_reported(drill, Input::IdleClosed { endpoint });
            }
        };
        self.board.director.borrow_mut().handle(input, Instant::now());
    }

    /// Obeys a checked configuration.
    fn configure(&mut self, config: Config) {
        let config = self.with_found(config);
        let names = config.topology.pools.iter().map(|pool| &*pool.name);
        let routes = Arc::new(RouteTable::compile(&config.routes, names));
        self.board.shared.manners.store(Arc::new(Manners::of(&config)));
        self.board.shared.prepare(&config.routes);
        self.board.shared.prepare_secret(&config);
        self.board.shared.allow_descriptors(&config);
        self.board.shared.access.aim(&config.access_log.to);
        #[cfg(feature = "otlp")]
        super::otlp::aim(&self.board.shared, config.otlp.as_ref());
        let input = Input::Configure { topology: config.topology.clone(), routes };
        self.arrange(input, config);
        self.plan_practice();
    }

    /// Has the director obey, and all others know it.
    fn arrange(&mut self, input: Input, config: Config) {
        let mut director = self.board.director.borrow_mut();
        director.handle(input, Instant::now());
        let endpoints = director.endpoints();
        let here: HashSet<_> = endpoints.iter().map(|status| status.subject.endpoint).collect();
        self.kept.retain(|(endpoint, _), _| here.contains(endpoint));
        drop(director);
        let generation = self.setup.generation + 1;
        self.setup = Arc::new(Setup::new(generation, &config));
        self.board.ledger.configure(&self.setup);
        self.running = config;
    }

    /// Obeys what was loaded, or says why not and changes nothing.
    fn reload(&mut self, attempt: Attempt) {
        let refused = match attempt.result {
            Ok(Prepared { loaded, fronts }) => match self.doors.rearrange(fronts) {
                Ok(()) => return self.accept(loaded),
                Err(error) => RefusedJson {
                    at: String::new(),
                    report: error.to_string(),
                    errors: serde_json::json!([{ "message": error.to_string() }]),
                },
            },
            Err(LoadError::Invalid(report)) => RefusedJson {
                at: String::new(),
                report: report.render(false),
                errors: serde_json::to_value(&report.diagnostics).unwrap_or_default(),
            },
            Err(error @ LoadError::Unreadable { .. }) => RefusedJson {
                at: String::new(),
                report: error.to_string(),
                errors: serde_json::json!([{ "message": error.to_string() }]),
            },
        };
        observe::reloaded(false);
        self.notifier.reloaded(false);
        tracing::error!("configuration refused, the old one stays:\n{}", refused.report);
        let at = self.board.clock.text(Instant::now());
        self.board.config.borrow_mut().refused = Some(RefusedJson { at, ..refused });
    }

    fn accept(&mut self, loaded: Loaded) {
        self.end_drill("a new configuration was loaded");
        let restart = needs_restart(&self.running, &loaded.config);
        // What cannot change while running is compared with what does run, also next time.
        let (workers, admin, state_dir) =
            (self.running.workers, self.running.admin.clone(), self.running.state_dir.clone());
        self.configure(Config { workers, admin, state_dir, ..loaded.config });
        self.turn();
        observe::reloaded(true);
        self.notifier.reloaded(true);
        let mut status = self.board.config.borrow_mut();
        status.generation += 1;
        status.loaded_at = self.board.clock.text(Instant::now());
        status.refused = None;
        tracing::info!(generation = status.generation, "configuration loaded");
        if !restart.is_empty() {
            tracing::warn!(keys = ?restart, "these keys take effect at the next start or upgrade");
        }
        status.needs_restart = restart;
    }
}

/// The keys in which `new` differs from what runs, and that only a start can change.
fn needs_restart(running: &Config, new: &Config) -> Vec<&'static str> {
    let differing = [
        ("workers", running.workers != new.workers),
        ("admin.address", running.admin != new.admin),
        ("state_dir", running.state_dir != new.state_dir),
    ];
    differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}
