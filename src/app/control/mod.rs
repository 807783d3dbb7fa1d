//! The control thread: the sole writer of everything that workers read.
//!
//! One loop takes probe results, workers' reports, DNS answers, reloads and commands, passes them
//! to the director, and executes the outputs of the director. All inputs that are ready are handed
//! in first, so that the verdicts of one turn are published as one snapshot.

pub mod admin_state;
mod configuration;
pub mod control_lag;
mod directors;
pub mod discovery;
mod drill;
mod order_persistence;
pub mod orders;
pub mod reload;
mod shutdown;
mod topology_updates;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::model::Config;
use crate::logic::director::{Director, HealthExport, Input};
use crate::logic::discovery::CachedLookup;
use crate::net::prober::{ProbeConnectionCache, Prober};

use super::dataplane::shared::{InstanceShared, WorkerReport};
use super::ops::admin::access::AdminAccess;
use super::ops::api::{ConfigJson, ProcessJson, WallClock};
use super::ops::event_log;
use super::ops::ledger::{LedgerConfig, LedgerHandle};
use super::runtime::listeners::Listeners;
use super::runtime::service_manager::Notifier;
use super::runtime::upgrade::{Executable, Successor, UpgradeEvent};
use admin_state::{AdminState, LifecyclePhase};
use control_lag::ControlLag;
use directors::{Directors, ProbeCompletion, ProbeKey};
use discovery::{Discovery, LookupResult, name_cache};
use drill::DrillControlState;
use orders::order_store::{OrderStore, StoredOrder};
use reload::ReloadAttempt;

/// Limit of inputs taken in one turn: a flood of reports must not delay a verdict without bound.
const MAX_TURN_INPUTS: usize = 4096;

/// Interval at which the ledger receives the state of open incidents.
const OPEN_INCIDENTS_INTERVAL: Duration = Duration::from_secs(5);

/// Commands from signals and from the owner of the [`super::Instance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessCommand {
    /// Fail readiness, drain, exit. A second `Stop` ends the wait that is in progress.
    Stop,
    /// Exit without draining.
    Kill,
    /// Start a successor process; drain and exit once it serves.
    Upgrade,
}

/// Queues that other threads and tasks write to.
#[derive(Debug)]
pub struct ControlInputs {
    pub reports: mpsc::Receiver<WorkerReport>,
    pub commands: mpsc::Receiver<ProcessCommand>,
    /// Results of [`reload::watch_config_file`].
    pub reloads: mpsc::Receiver<ReloadAttempt>,
}

/// State from earlier processes, and handles that control needs from its start.
#[derive(Debug)]
pub struct StartupState {
    /// What an upgrade starts; `None` where the instance is embedded and cannot be upgraded.
    pub executable: Option<Executable>,
    /// Health state of the predecessor of an upgrade.
    pub health_export: Option<HealthExport>,
    /// The last good DNS answers of an earlier process.
    pub remembered_names: Vec<CachedLookup>,
    /// Upgrades from the first process to this one.
    pub upgrades: u64,
    pub notifier: Notifier,
    pub ledger: LedgerHandle,
    pub order_store: OrderStore,
    /// TLS and token of the admin listener.
    pub admin_access: AdminAccess,
    /// The predecessor's orders. They replace those in the state directory.
    pub inherited_orders: Option<Vec<StoredOrder>>,
}

/// An unbounded channel whose two ends the control loop holds: tasks get clones of the sender.
struct TaskResults<T> {
    sender: mpsc::UnboundedSender<T>,
    receiver: mpsc::UnboundedReceiver<T>,
}

impl<T> Default for TaskResults<T> {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver }
    }
}

/// The control loop and the state that it alone owns.
pub struct ControlLoop {
    admin_state: Rc<AdminState>,
    listeners: Listeners,
    running_config: Config,
    /// Predictions and objectives are computed from it.
    ledger_config: Arc<LedgerConfig>,
    prober: Rc<Prober>,
    probe_connections: HashMap<ProbeKey, Rc<ProbeConnectionCache>>,
    probe_results: TaskResults<ProbeCompletion>,
    lookup_results: TaskResults<LookupResult>,
    inputs: ControlInputs,
    executable: Option<Executable>,
    notifier: Notifier,
    /// The process that an upgrade in progress has started.
    successor: Option<Successor>,
    upgrade_events: TaskResults<UpgradeEvent>,
    drill: DrillControlState,
}

impl ControlLoop {
    /// Publishes the first snapshot of `config`, which has passed validation. Probes and lookups
    /// start with [`Self::run`]. Must be called on a `LocalSet`.
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
        let saved_answers = config.state_dir.clone().map(|directory| {
            let (latest, to_write) = watch::channel(Vec::new());
            tokio::task::spawn_local(name_cache::run_writer(directory, to_write, clock));
            latest
        });
        let admin_state = AdminState {
            directors: RefCell::new(Directors::new(Director::new(shared.epoch, seed))),
            discovery: RefCell::new(Discovery::new(
                seed,
                startup_state.remembered_names,
                saved_answers,
            )),
            config: RefCell::new(status),
            process: RefCell::new(ProcessJson::new(
                startup_state.executable.as_ref(),
                startup_state.upgrades,
            )),
            phase: Cell::new(LifecyclePhase::Serving),
            handed_over: CancellationToken::new(),
            admin_access: RefCell::new(startup_state.admin_access),
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
            probe_connections: HashMap::new(),
            probe_results: TaskResults::default(),
            lookup_results: TaskResults::default(),
            inputs,
            executable: startup_state.executable,
            notifier: startup_state.notifier,
            successor: None,
            upgrade_events: TaskResults::default(),
            drill: DrillControlState::default(),
        };
        control.restore_orders(startup_state.inherited_orders.as_deref());
        control.apply_config(config);
        if let Some(health_export) = startup_state.health_export {
            control
                .admin_state
                .director_mut()
                .handle(Input::ImportHealth(health_export), Instant::now());
            control.admin_state.ledger.set_inherited_down(control.down_endpoints());
        }
        control.drain_production_outputs();
        control
    }

    pub fn admin_state(&self) -> Rc<AdminState> {
        Rc::clone(&self.admin_state)
    }

    /// Runs until a command ends it, then drains. Must run on a `LocalSet`.
    pub async fn run(mut self) {
        let mut upkeep = tokio::time::interval(OPEN_INCIDENTS_INTERVAL);
        loop {
            self.run_turn();
            let due = self.next_deadline();
            let wake = due.unwrap_or_else(|| Instant::now() + OPEN_INCIDENTS_INTERVAL);
            tokio::select! {
                biased;
                command = self.inputs.commands.recv() => match command {
                    Some(ProcessCommand::Upgrade) => self.start_upgrade(),
                    Some(ProcessCommand::Stop) => return self.shut_down().await,
                    Some(ProcessCommand::Kill) | None => return self.cancel_upgrade(),
                },
                Some(event) = self.upgrade_events.receiver.recv() => {
                    if self.on_upgrade_event(event) {
                        return self.leave_after_handover().await;
                    }
                }
                Some(probed) = self.probe_results.receiver.recv() => self.on_probe_result(probed),
                Some(report) = self.inputs.reports.recv() => self.on_worker_report(report),
                Some(result) = self.lookup_results.receiver.recv() => self.on_lookup_result(result),
                Some(attempt) = self.inputs.reloads.recv() => self.on_reload(attempt),
                Some((id, prediction)) = self.drill.next_prediction() => {
                    self.on_prediction(id, prediction);
                }
                () = self.admin_state.drill_wake.notified() => {}
                () = tokio::time::sleep_until(wake.into()) => {}
                _ = upkeep.tick() => self.update_open_incidents(),
            }
            // Not only the timer: after a suspension of the process another input may wake it
            // first.
            self.admin_state.lag.record_wakeup(wake, Instant::now());
        }
    }

    /// Writes open incidents to the ledger. After a crash their last written state remains.
    fn update_open_incidents(&self) {
        event_log::log_repeated_lines(Instant::now());
        let open = self.admin_state.director_mut().open_incidents();
        if !open.is_empty() {
            self.admin_state.ledger.update_open_incidents(open);
        }
        if self.running_config.topology.pools.iter().any(|pool| pool.slo.is_some()) {
            self.admin_state
                .ledger
                .record_zone_attempts(self.admin_state.director().zone_attempts());
        }
    }

    fn down_endpoints(&self) -> Vec<(Arc<str>, SocketAddr)> {
        let endpoints = self.admin_state.director().endpoints();
        let down = endpoints.iter().filter(|status| !status.health.can_serve(true));
        down.map(|status| (Arc::clone(&status.subject.pool), status.subject.address)).collect()
    }

    /// Takes in queued inputs, starts due probes and lookups, and carries out the outputs.
    fn run_turn(&mut self) {
        for _ in 0..MAX_TURN_INPUTS {
            if let Ok(probed) = self.probe_results.receiver.try_recv() {
                self.on_probe_result(probed);
            } else if let Ok(report) = self.inputs.reports.try_recv() {
                self.on_worker_report(report);
            } else {
                break;
            }
        }
        self.drive_directors();
        self.run_discovery();
        self.run_drill_turn();
    }

    /// When [`Self::run_turn`] is due next, if no input arrives before.
    fn next_deadline(&self) -> Option<Instant> {
        let due = self.admin_state.directors.borrow().poll_timeout();
        let next_lookup = self.admin_state.discovery.borrow().poll_timeout();
        [due, next_lookup, self.drill_deadline(Instant::now())].into_iter().flatten().min()
    }
}
