//! The control thread: drives the director, runs probes, stores the snapshot. The sole writer.

pub mod control_lag;
pub mod discovery;
mod drill;
mod order_persistence;
pub mod orders;
mod probe_completion;
pub mod reload;
mod shutdown;
mod topology_updates;

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
use crate::config::{LoadError, LoadedConfig};
use crate::logic::director::{Director, Event, HealthExport, Input, Output};
use crate::logic::discovery::CachedLookup;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::ProbeOutcome;
use crate::logic::request::retry::InFlightPolicy;
use crate::logic::routing::RouteTable;
use crate::net::prober::{ProbeConnectionCache, Prober};

use super::dataplane::shared::{HttpPolicy, InstanceShared, WorkerCommand, WorkerReport};
use super::ops::api::{ConfigJson, ProcessJson, RefusedJson, WallClock};
use super::ops::drill::{DrillRefusal, DrillRegistry};
use super::ops::event_log;
use super::ops::ledger::{LedgerConfig, LedgerHandle};
use super::runtime::listeners::Listeners;
use super::runtime::service_manager::Notifier;
use super::runtime::upgrade::{Executable, Successor, UpgradeEvent};
use control_lag::ControlLag;
use discovery::{Discovery, LookupResult, name_cache};
use drill::DrillControlState;
use orders::order_store;
use orders::order_store::OrderStore;
use probe_completion::{ProbeCompletion, ProbeResultGuard};
use reload::{PreparedConfig, ReloadAttempt};

/// Inputs taken in one turn, at most: a flood of reports must not hold up a verdict for ever.
const MAX_TURN_INPUTS: usize = 4096;

/// How often the metrics' recorder tidies up.
const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What control is asked to do from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessCommand {
    /// Fail readiness, drain, end. The second one ends at once.
    Stop,
    Kill,
    /// Have another process take over, then drain and end.
    Upgrade,
}

/// Where the instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecyclePhase {
    Serving,
    /// On the way out.
    Stopping,
}

/// What the admin listener shows; shared on the control thread only.
pub struct AdminState {
    pub director: RefCell<Director>,
    /// Endpoints that are found by name.
    pub discovery: RefCell<Discovery>,
    pub config: RefCell<ConfigJson>,
    pub process: RefCell<ProcessJson>,
    /// Where the instance is in its life.
    pub phase: Cell<LifecyclePhase>,
    /// The operator's listener is served by another process from now on.
    pub handed_over: CancellationToken,
    /// Connections to that listener.
    pub admin_connections: TaskTracker,
    /// How late control woke of late.
    pub lag: ControlLag,
    /// Where incidents are kept.
    pub ledger: LedgerHandle,
    /// Drills: at most one is under way.
    pub drills: RefCell<DrillRegistry>,
    /// Control is to look at them, or at what operators have ordered.
    pub drill_wake: Notify,
    /// Where orders are kept.
    pub order_store: OrderStore,
    /// Another process is about to take over: what is ordered now would be lost.
    pub is_handing_over: Cell<bool>,
    /// Shared with the workers.
    pub shared: Arc<InstanceShared>,
    /// For times of day.
    pub clock: WallClock,
}

/// What reaches control from outside.
#[derive(Debug)]
pub struct ControlInputs {
    pub reports: mpsc::Receiver<WorkerReport>,
    pub commands: mpsc::Receiver<ProcessCommand>,
    /// From who watches the configuration.
    pub reloads: mpsc::Receiver<ReloadAttempt>,
}

/// What came before this process, and what may come after it.
#[derive(Debug)]
pub struct StartupState {
    /// What an upgrade starts; `None` if there is nobody to ask for one.
    pub executable: Option<Executable>,
    /// What a predecessor knew.
    pub health_export: Option<HealthExport>,
    /// What names led to, as an earlier process knew it.
    pub remembered_names: Vec<CachedLookup>,
    pub upgrades: u64,
    /// Who is told how things go.
    pub notifier: Notifier,
    /// Where incidents are kept.
    pub ledger: LedgerHandle,
    /// Where orders are kept.
    pub order_store: OrderStore,
    /// A predecessor's orders; those in the state directory are of no account then.
    pub inherited_orders: Option<Vec<order_store::StoredOrder>>,
}

/// The control loop and all that it owns.
pub struct ControlLoop {
    admin_state: Rc<AdminState>,
    listeners: Listeners,
    running_config: Config,
    /// What incidents are compared with.
    ledger_config: Arc<LedgerConfig>,
    prober: Rc<Prober>,
    /// What each probe of an endpoint keeps, by its place in the pool's list.
    probe_states: HashMap<(EndpointId, u8), Rc<ProbeConnectionCache>>,
    probe_results:
        (mpsc::UnboundedSender<ProbeCompletion>, mpsc::UnboundedReceiver<ProbeCompletion>),
    lookup_results: (mpsc::UnboundedSender<LookupResult>, mpsc::UnboundedReceiver<LookupResult>),
    inputs: ControlInputs,
    executable: Option<Executable>,
    notifier: Notifier,
    /// Who is about to take over.
    successor: Option<Successor>,
    upgrade_events: (mpsc::UnboundedSender<UpgradeEvent>, mpsc::UnboundedReceiver<UpgradeEvent>),
    drill: DrillControlState,
}

impl ControlLoop {
    /// Takes the checked configuration to its first snapshot. Probes and lookups start with
    /// [`Control::run`]. Must be called on a `LocalSet`.
    pub fn new(
        shared: Arc<InstanceShared>,
        config: Config,
        path: Option<PathBuf>,
        listeners: Listeners,
        inputs: ControlInputs,
        startup_state: StartupState,
    ) -> Self {
        let clock = WallClock::read();
        let now = Instant::now();
        let seed = shared.micros(now) ^ u64::from(std::process::id());
        let status = ConfigJson {
            path: path.map(|path| path.display().to_string()),
            loaded_at: clock.to_rfc3339(now),
            generation: 1,
            ..ConfigJson::default()
        };
        let memory = config.state_dir.clone().map(|directory| {
            let (latest, saved_answers) = watch::channel(Vec::new());
            tokio::task::spawn_local(name_cache::run_writer(directory, saved_answers, clock));
            latest
        });
        let admin_state = AdminState {
            director: RefCell::new(Director::new(shared.epoch, seed)),
            discovery: RefCell::new(Discovery::new(seed, startup_state.remembered_names, memory)),
            config: RefCell::new(status),
            process: RefCell::new(ProcessJson::new(
                startup_state.executable.as_ref(),
                startup_state.upgrades,
            )),
            phase: Cell::new(LifecyclePhase::Serving),
            handed_over: CancellationToken::new(),
            admin_connections: TaskTracker::new(),
            lag: ControlLag::default(),
            ledger: startup_state.ledger,
            drills: RefCell::default(),
            drill_wake: Notify::new(),
            order_store: startup_state.order_store,
            is_handing_over: Cell::new(false),
            shared,
            clock,
        };
        let mut control = Self {
            admin_state: Rc::new(admin_state),
            listeners,
            running_config: config.clone(),
            ledger_config: Arc::default(),
            prober: Rc::default(),
            probe_states: HashMap::new(),
            probe_results: mpsc::unbounded_channel(),
            lookup_results: mpsc::unbounded_channel(),
            inputs,
            executable: startup_state.executable,
            notifier: startup_state.notifier,
            successor: None,
            upgrade_events: mpsc::unbounded_channel(),
            drill: DrillControlState::default(),
        };
        control.restore_orders(startup_state.inherited_orders.as_deref());
        control.apply_config(config);
        if let Some(health_export) = startup_state.health_export {
            control
                .admin_state
                .director
                .borrow_mut()
                .handle(Input::ImportHealth(health_export), Instant::now());
            control.admin_state.ledger.set_inherited_down(control.down_endpoints());
        }
        control.apply_outputs();
        control
    }

    /// What the admin listener shows.
    pub fn admin_state(&self) -> Rc<AdminState> {
        Rc::clone(&self.admin_state)
    }

    /// Runs until it is told to stop, then drains. Must run on a `LocalSet`.
    pub async fn run(mut self) {
        let mut upkeep = tokio::time::interval(METRICS_UPKEEP_INTERVAL);
        loop {
            self.run_turn();
            let due = self.next_deadline();
            let wake = due.unwrap_or_else(|| Instant::now() + METRICS_UPKEEP_INTERVAL);
            tokio::select! {
                biased;
                order = self.inputs.commands.recv() => match order {
                    Some(ProcessCommand::Upgrade) => self.start_upgrade(),
                    Some(ProcessCommand::Stop) => return self.shut_down().await,
                    Some(ProcessCommand::Kill) | None => return self.cancel_upgrade(),
                },
                Some(event) = self.upgrade_events.1.recv() => {
                    if self.on_upgrade_event(event) {
                        return self.leave_after_handover().await;
                    }
                }
                Some(probed) = self.probe_results.1.recv() => self.on_probe_result(probed),
                Some(report) = self.inputs.reports.recv() => self.on_worker_report(report),
                Some(result) = self.lookup_results.1.recv() => self.on_lookup_result(result),
                Some(attempt) = self.inputs.reloads.recv() => self.on_reload(attempt),
                drilled = self.drill.next_input() => self.on_drill_input(drilled),
                () = self.admin_state.drill_wake.notified() => {}
                () = tokio::time::sleep_until(wake.into()) => {}
                _ = upkeep.tick() => {
                    if let Some(recorder) = event_log::recorder() {
                        recorder.run_upkeep();
                    }
                    self.update_open_incidents();
                }
            }
            // Whatever woke it: after a long sleep of the whole process that is not the timer.
            self.admin_state.lag.record_wakeup(wake, Instant::now());
        }
    }

    /// Has the ledger know how incidents stand that are open: what it knows last is what is left if
    /// this process dies.
    fn update_open_incidents(&self) {
        let open = self.admin_state.director.borrow_mut().open_incidents();
        if !open.is_empty() {
            self.admin_state.ledger.update_open_incidents(open);
        }
        if self.running_config.topology.pools.iter().any(|pool| pool.slo.is_some()) {
            self.admin_state
                .ledger
                .record_zone_attempts(self.admin_state.director.borrow().zone_attempts());
        }
    }

    /// What is down, by pool and address.
    fn down_endpoints(&self) -> Vec<(Arc<str>, SocketAddr)> {
        let endpoints = self.admin_state.director.borrow().endpoints();
        let down = endpoints.iter().filter(|status| !status.health.can_serve(true));
        down.map(|status| (Arc::clone(&status.subject.pool), status.subject.address)).collect()
    }

    /// Takes in all that has happened, lets due probes start, and does what the director says.
    fn run_turn(&mut self) {
        for _ in 0..MAX_TURN_INPUTS {
            if let Ok(probed) = self.probe_results.1.try_recv() {
                self.on_probe_result(probed);
            } else if let Ok(report) = self.inputs.reports.try_recv() {
                self.on_worker_report(report);
            } else {
                break;
            }
        }
        self.admin_state.director.borrow_mut().handle_timeout(Instant::now());
        self.apply_outputs();
        self.run_discovery();
        self.run_drill_turn();
    }

    /// When there is something to do next.
    fn next_deadline(&self) -> Option<Instant> {
        let due = self.admin_state.director.borrow().poll_timeout();
        let next_lookup = self.admin_state.discovery.borrow().poll_timeout();
        [due, next_lookup, self.drill_deadline(Instant::now())].into_iter().flatten().min()
    }

    /// Does what the director says.
    fn apply_outputs(&mut self) {
        loop {
            let output = self.admin_state.director.borrow_mut().poll_output();
            match output {
                Some(output) => self.apply_output(output),
                None => break,
            }
        }
    }

    fn apply_output(&mut self, output: Output) {
        match output {
            Output::StartProbe { endpoint, ticket, address, pool, timeout } => {
                let void =
                    ProbeCompletion { endpoint, ticket, outcome: ProbeOutcome::Inconclusive };
                let mut result =
                    ProbeResultGuard { completion: void, results: self.probe_results.0.clone() };
                let probe_state =
                    Rc::clone(self.probe_states.entry((endpoint, ticket.probe)).or_default());
                let prober = Rc::clone(&self.prober);
                tokio::task::spawn_local(async move {
                    let probe = &pool.probes[usize::from(ticket.probe)];
                    let outcome = prober.probe(address, probe, timeout, &probe_state).await;
                    event_log::record_probe(&pool.name, outcome);
                    result.set_outcome(outcome);
                });
            }
            Output::Publish(snapshot) => {
                event_log::record_snapshot(snapshot.version);
                self.publish_snapshot(snapshot);
                self.admin_state.director.borrow_mut().handle(Input::Published, Instant::now());
            }
            Output::AbortRequests { endpoint, failure } => {
                let waiting = InFlightPolicy::for_failure(failure);
                self.listeners.broadcast(|| WorkerCommand::AbortEndpoint { endpoint, waiting });
            }
            Output::Drained { endpoint, is_deadline_passed: is_over } => {
                self.listeners.broadcast(|| WorkerCommand::EndpointDrained { endpoint, is_over });
            }
            Output::Event(event) => {
                event_log::record_event(&event);
                self.admin_state.discovery.borrow_mut().on_event(&event, Instant::now());
                self.admin_state.ledger.record_event(&event, &self.ledger_config);
                if matches!(event, Event::OrderChanged { .. }) {
                    self.save_orders();
                }
                self.abort_drill_on_event(&event);
            }
        }
    }

    fn on_probe_result(&self, probed: ProbeCompletion) {
        let ProbeCompletion { endpoint, ticket, outcome } = probed;
        let input = Input::ProbeFinished { endpoint, ticket, outcome };
        self.admin_state.director.borrow_mut().handle(input, Instant::now());
    }

    fn on_worker_report(&mut self, report: WorkerReport) {
        let input = match report {
            WorkerReport::Traffic { endpoint, failure, began } => {
                Input::TrafficFailed { endpoint, failure, attempt_started: began }
            }
            WorkerReport::IdleClosed(endpoint) => Input::IdleClosed { endpoint },
            WorkerReport::DrillTraffic { drill, endpoint, failure, began } => {
                let input = Input::TrafficFailed { endpoint, failure, attempt_started: began };
                return self.on_drill_report(drill, input);
            }
            WorkerReport::DrillIdleClosed { drill, endpoint } => {
                return self.on_drill_report(drill, Input::IdleClosed { endpoint });
            }
        };
        self.admin_state.director.borrow_mut().handle(input, Instant::now());
    }

    /// Obeys a checked configuration.
    fn apply_config(&mut self, config: Config) {
        let config = self.with_discovered(config);
        let names = config.topology.pools.iter().map(|pool| &*pool.name);
        let routes = Arc::new(RouteTable::compile(&config.routes, names));
        self.admin_state.shared.http_policy.store(Arc::new(HttpPolicy::from_config(&config)));
        self.admin_state.shared.prepare(&config.routes);
        self.admin_state.shared.prepare_cookie_secret(&config);
        self.admin_state.shared.allow_descriptors(&config);
        self.admin_state.shared.access_log.set_target(&config.access_log.target);
        #[cfg(feature = "otlp")]
        super::ops::otlp::set_target(&self.admin_state.shared, config.otlp.as_ref());
        let input = Input::Configure { topology: config.topology.clone(), routes };
        self.apply_config_input(input, config);
        self.schedule_practice();
    }

    /// Has the director obey, and all others know it.
    fn apply_config_input(&mut self, input: Input, config: Config) {
        let mut director = self.admin_state.director.borrow_mut();
        director.handle(input, Instant::now());
        let endpoints = director.endpoints();
        let here: HashSet<_> = endpoints.iter().map(|status| status.subject.endpoint).collect();
        self.probe_states.retain(|(endpoint, _), _| here.contains(endpoint));
        drop(director);
        let generation = self.ledger_config.generation + 1;
        self.ledger_config = Arc::new(LedgerConfig::from_config(generation, &config));
        self.admin_state.ledger.configure(&self.ledger_config);
        self.running_config = config;
    }

    /// Obeys what was loaded, or says why not and changes nothing.
    fn on_reload(&mut self, attempt: ReloadAttempt) {
        let refused = match attempt.result {
            Ok(PreparedConfig { loaded, listeners: fronts }) => {
                match self.listeners.reconcile(fronts) {
                    Ok(()) => return self.apply_loaded(loaded),
                    Err(error) => RefusedJson {
                        at: String::new(),
                        report: error.to_string(),
                        errors: serde_json::json!([{ "message": error.to_string() }]),
                    },
                }
            }
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
        event_log::record_reload(false);
        self.notifier.notify_reloaded(false);
        tracing::error!("configuration refused, the old one stays:\n{}", refused.report);
        let at = self.admin_state.clock.to_rfc3339(Instant::now());
        self.admin_state.config.borrow_mut().refused = Some(RefusedJson { at, ..refused });
    }

    fn apply_loaded(&mut self, loaded: LoadedConfig) {
        self.end_drill_now("a new configuration was loaded");
        let restart = keys_needing_restart(&self.running_config, &loaded.config);
        // What cannot change while running is compared with what does run, also next time.
        let (workers, admin, state_dir) = (
            self.running_config.workers,
            self.running_config.admin.clone(),
            self.running_config.state_dir.clone(),
        );
        self.apply_config(Config { workers, admin, state_dir, ..loaded.config });
        self.run_turn();
        event_log::record_reload(true);
        self.notifier.notify_reloaded(true);
        let mut status = self.admin_state.config.borrow_mut();
        status.generation += 1;
        status.loaded_at = self.admin_state.clock.to_rfc3339(Instant::now());
        status.refused = None;
        tracing::info!(generation = status.generation, "configuration loaded");
        if !restart.is_empty() {
            tracing::warn!(keys = ?restart, "these keys take effect at the next start or upgrade");
        }
        status.needs_restart = restart;
    }
}

/// The keys in which `new` differs from what runs, and that only a start can change.
fn keys_needing_restart(running: &Config, new: &Config) -> Vec<&'static str> {
    let differing = [
        ("workers", running.workers != new.workers),
        ("admin.address", running.admin != new.admin),
        ("state_dir", running.state_dir != new.state_dir),
    ];
    differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}
