//! Starts and stops an instance: its listeners, its threads, and the handover from a predecessor.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::config::model::Config;
use crate::net::listener::{InheritedListeners, ListenerRole};

use super::listeners::{BindError, Listeners};
use super::memory_monitor;
use super::service_manager::Notifier;
use super::upgrade::{Executable, Predecessor};
use crate::app::control::admin_state::{AdminState, LifecyclePhase};
use crate::app::control::discovery::name_cache;
use crate::app::control::orders::order_store::OrderStore;
use crate::app::control::reload;
use crate::app::control::reload::{ReloadAttempt, WatchedConfigFile};
use crate::app::control::{ControlInputs, ControlLoop, ProcessCommand, StartupState};
use crate::app::dataplane::access;
use crate::app::dataplane::http_policy::HttpPolicy;
use crate::app::dataplane::listener_config;
use crate::app::dataplane::shared::InstanceShared;
use crate::app::dataplane::worker;
use crate::app::ops::admin;
use crate::app::ops::admin::OperatorListener;
use crate::app::ops::admin::access::AdminAccess;
use crate::app::ops::ledger;
use crate::app::ops::ledger::LedgerHandle;

/// A successor waits this long for first probes of pools whose health it has not inherited.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval of the checks during that wait.
const SETTLE_POLL_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct InstanceOptions {
    pub config: Config,
    /// The file that it was loaded from, which is watched for changes.
    pub file: Option<WatchedConfigFile>,
    /// Handles HUP, USR1, USR2, TERM and INT, and notifies the service manager.
    pub should_handle_signals: bool,
    /// State inherited from other processes.
    pub origin: ProcessOrigin,
}

/// State inherited from the service manager or from the predecessor of an upgrade.
#[derive(Debug, Default)]
pub struct ProcessOrigin {
    /// What an upgrade starts.
    pub executable: Option<Executable>,
    pub inherited_sockets: InheritedListeners,
    /// The process that this one takes over from.
    pub predecessor: Option<Predecessor>,
}

#[derive(Debug)]
pub enum StartError {
    /// A listener could not be opened.
    Bind(BindError),
    /// The TLS configuration of a listener is unusable.
    Tls(rustls::Error),
    /// The handover protocol with the predecessor failed.
    TakeOver(io::Error),
    /// A thread or runtime could not be started.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "cannot set up TLS: {error}"),
            Self::TakeOver(error) => write!(f, "cannot take over: {error}"),
            Self::System(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// A running instance. Dropping it ends it at once.
#[derive(Debug)]
pub struct Instance {
    /// Addresses of the client listeners, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Address of the admin listener.
    pub admin: Option<SocketAddr>,
    /// Address of the status listener.
    pub status: Option<SocketAddr>,
    commands: mpsc::Sender<ProcessCommand>,
    control: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    #[cfg(feature = "otlp")]
    shared: Arc<InstanceShared>,
    access_log_writer: access::AccessLogWriter,
    ledger_thread: ledger::LedgerThread,
}

/// Collects the state to start with, from the predecessor or else from the state directory.
fn startup_state(
    mut predecessor: Option<&mut Predecessor>,
    config: &Config,
    (executable, ledger, notifier): (Option<Executable>, LedgerHandle, Notifier),
) -> Result<StartupState, StartError> {
    let names = match (&mut predecessor, &config.state_dir) {
        (Some(predecessor), _) if !predecessor.remembered_names.is_empty() => {
            std::mem::take(&mut predecessor.remembered_names)
        }
        (_, Some(directory)) if !config.dns.entries.is_empty() => name_cache::load_names(directory),
        _ => Vec::new(),
    };
    Ok(StartupState {
        remembered_names: names,
        executable,
        health_export: predecessor.as_mut().map(|one| std::mem::take(&mut one.health_export)),
        upgrades: predecessor.as_ref().map_or(0, |one| one.upgrades),
        notifier,
        ledger,
        order_store: OrderStore::start(config.state_dir.clone())?,
        admin_access: AdminAccess::prepare(&config.admin).map_err(StartError::Tls)?,
        inherited_orders: predecessor.map(|one| std::mem::take(&mut one.orders)),
    })
}

impl Instance {
    /// Opens every listener, then starts control and, after its first snapshot, the workers. A
    /// successor starts its workers once its pools are probed and the predecessor has agreed.
    ///
    /// # Errors
    /// [`StartError`]; no thread or listener is left.
    pub fn start(options: InstanceOptions) -> Result<Self, StartError> {
        let InstanceOptions { config, file, should_handle_signals: signals, origin } = options;
        let ProcessOrigin { executable, inherited_sockets: sockets, mut predecessor } = origin;
        let (shared, reports) =
            InstanceShared::new(HttpPolicy::from_config(&config), config.workers);
        let log = access::start(&shared.access_log)?;
        let is_successor = predecessor.is_some();
        if let Some(secret) = predecessor.as_mut().and_then(|one| one.cookie_secret.take()) {
            let _ = shared.inherited_cookie_secret.set(secret);
        }
        let ledger_thread =
            ledger::start(&shared, config.state_dir.clone(), config.ledger, is_successor)?;
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..config.workers).map(|_| mpsc::unbounded_channel()).unzip();
        let mut listeners = Listeners::new(senders, sockets);
        let (addresses, operator) = open_listeners(&mut listeners, &config)?;
        let bound_address = |listener: &Option<TcpListener>| {
            listener.as_ref().map(TcpListener::local_addr).transpose()
        };
        let admin = bound_address(&operator.admin)?;
        let status = bound_address(&operator.status)?;
        let (command_sender, commands) = mpsc::channel(4);
        let (attempt_sender, attempts) = mpsc::channel(1);
        let (reload_sender, reload_requests) = mpsc::channel(1);
        let notifier = if signals { Notifier::start() } else { Notifier::default() };
        let handles = (executable, ledger_thread.ledger(), notifier.clone());
        let startup_state = startup_state(predecessor.as_mut(), &config, handles)?;
        let thread = ControlThread {
            inputs: ControlInputs { reports, commands, reloads: attempts },
            startup_state,
            operator,
            file: file.map(|file| (file, reload_requests, attempt_sender)),
            signals: signals.then(|| SignalHandler {
                commands: command_sender.clone(),
                reload_requests: reload_sender,
                shared: Arc::clone(&shared),
                notifier: notifier.clone(),
            }),
        };
        let (control, milestones) = thread.spawn(Arc::clone(&shared), config, listeners)?;
        let mut instance = Self {
            addresses,
            admin,
            status,
            commands: command_sender,
            control: Some(control),
            workers: Vec::new(),
            #[cfg(feature = "otlp")]
            shared: Arc::clone(&shared),
            access_log_writer: log,
            ledger_thread,
        };
        // The first connection must find the routes.
        let _ = milestones.published.recv();
        if let Some(predecessor) = &mut predecessor {
            let is_settled = milestones.settled.recv().is_ok();
            let stopped = || io::Error::other("stopped during the handover");
            is_settled.then_some(()).ok_or_else(stopped).map_err(StartError::TakeOver)?;
            predecessor.report_settled().map_err(StartError::TakeOver)?;
        }
        for (index, commands) in receivers.into_iter().enumerate() {
            instance.workers.push(worker::spawn(index, Arc::clone(&shared), commands)?);
        }
        let _ = milestones.serve_admin.send(());
        let has_taken_over = predecessor.is_some();
        if let Some(predecessor) = predecessor {
            predecessor.report_accepting().map_err(StartError::TakeOver)?;
            crate::app::ops::event_log::record_upgrade(true);
        }
        notifier.notify_ready(has_taken_over);
        Ok(instance)
    }

    /// Starts a shutdown: fails readiness, drains and ends.
    pub fn stop(&self) {
        let _ = self.commands.try_send(ProcessCommand::Stop);
    }

    /// Waits for the end. Returns whether every thread ended without a panic.
    pub fn wait(mut self) -> bool {
        self.join()
    }

    fn join(&mut self) -> bool {
        let control = self.control.take().is_none_or(|control| control.join().is_ok());
        let workers = self.workers.drain(..).map(|worker| worker.join().is_ok());
        let all = workers.fold(control, |all, one| all && one);
        self.access_log_writer.finish();
        #[cfg(feature = "otlp")]
        self.shared.traces.flush();
        self.ledger_thread.shut_down();
        all
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.control.is_some() {
            let _ = self.commands.try_send(ProcessCommand::Kill);
            self.join();
        }
    }
}

/// The listeners that the control thread serves.
struct OperatorListeners {
    admin: Option<TcpListener>,
    status: Option<TcpListener>,
}

/// Opens the configured listeners. Returns the addresses of those for clients, and the others.
fn open_listeners(
    listeners: &mut Listeners,
    config: &Config,
) -> Result<(Vec<SocketAddr>, OperatorListeners), StartError> {
    let mut open = |address: Option<SocketAddr>, role| {
        address.map(|address| listeners.open_operator(address, role)).transpose()
    };
    let admin = open(config.admin.address, ListenerRole::Operator)?;
    let status = open(config.status.address, ListenerRole::Status)?;
    let configs = listener_config::prepare_listeners(&config.listeners).map_err(StartError::Tls)?;
    let configs: Vec<_> = configs.into_iter().map(Arc::new).collect();
    let addresses = listeners.open_missing(&configs)?;
    for socket in listeners.unused_sockets() {
        tracing::warn!("an inherited socket is not used: no listener is configured on {socket}");
    }
    Ok((addresses, OperatorListeners { admin, status }))
}

impl OperatorListeners {
    /// Starts to serve, in tasks of their own.
    fn serve(self, admin_state: &Rc<AdminState>) {
        let listeners =
            [(self.admin, OperatorListener::Admin), (self.status, OperatorListener::Status)];
        for (listener, kind) in listeners {
            if let Some(listener) = listener {
                let admin_state = Rc::clone(admin_state);
                tokio::task::spawn_local(admin::serve(listener, kind, admin_state));
            }
        }
    }
}

/// Everything that the control thread starts with.
struct ControlThread {
    inputs: ControlInputs,
    startup_state: StartupState,
    operator: OperatorListeners,
    file: Option<(WatchedConfigFile, mpsc::Receiver<()>, mpsc::Sender<ReloadAttempt>)>,
    signals: Option<SignalHandler>,
}

/// Signals between the control thread and [`Instance::start`].
struct StartupMilestones {
    /// The first snapshot is published.
    published: Receiver<()>,
    /// See [`crate::logic::director::Director::is_ready_to_serve`].
    settled: Receiver<()>,
    /// The admin listener and the status listener may serve.
    serve_admin: oneshot::Sender<()>,
}

impl ControlThread {
    fn spawn(
        self,
        shared: Arc<InstanceShared>,
        config: Config,
        listeners: Listeners,
    ) -> io::Result<(JoinHandle<()>, StartupMilestones)> {
        let Self { inputs, startup_state, operator, file, signals } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (publish, published) = std::sync::mpsc::channel();
        let (settle, settled) = std::sync::mpsc::channel();
        let (serve_admin, may_serve_admin) = oneshot::channel();
        let is_successor = startup_state.health_export.is_some();
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                let path = file.as_ref().map(|(file, ..)| file.path.clone());
                tokio::task::spawn_local(memory_monitor::watch(Arc::clone(&shared)));
                let control =
                    ControlLoop::new(shared, config, path, listeners, inputs, startup_state);
                let _ = publish.send(());
                let admin_state = control.admin_state();
                if is_successor {
                    tokio::task::spawn_local(notify_when_settled(Rc::clone(&admin_state), settle));
                }
                tokio::task::spawn_local(async move {
                    if may_serve_admin.await.is_ok() {
                        operator.serve(&admin_state);
                    }
                });
                if let Some((file, reload_requests, attempts)) = file {
                    tokio::task::spawn_local(reload::watch_config_file(
                        file,
                        reload_requests,
                        attempts,
                    ));
                }
                if let Some(signals) = signals {
                    tokio::task::spawn_local(signals.run());
                }
                control.run().await;
            });
        })?;
        Ok((thread, StartupMilestones { published, settled, serve_admin }))
    }
}

/// Reports when all pools can serve, or after [`SETTLE_TIMEOUT`].
async fn notify_when_settled(admin_state: Rc<AdminState>, settle: std::sync::mpsc::Sender<()>) {
    let end = Instant::now() + SETTLE_TIMEOUT;
    let is_settled = || {
        admin_state.discovery.borrow().is_settled() && admin_state.director().is_ready_to_serve()
    };
    while !is_settled() && Instant::now() < end {
        tokio::time::sleep(SETTLE_POLL_INTERVAL).await;
    }
    if admin_state.phase.get() == LifecyclePhase::Serving {
        let _ = settle.send(());
    }
}

/// Maps signals to commands.
struct SignalHandler {
    commands: mpsc::Sender<ProcessCommand>,
    reload_requests: mpsc::Sender<()>,
    shared: Arc<InstanceShared>,
    notifier: Notifier,
}

impl SignalHandler {
    /// HUP reloads, USR1 reopens the access log, USR2 upgrades, TERM stops; INT or a second TERM
    /// ends at once.
    async fn run(self) {
        let signals = (
            signal(SignalKind::hangup()),
            signal(SignalKind::user_defined1()),
            signal(SignalKind::user_defined2()),
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        );
        let (Ok(mut hup), Ok(mut usr1), Ok(mut usr2), Ok(mut term), Ok(mut int)) = signals else {
            tracing::error!("signal handlers cannot be installed");
            return;
        };
        loop {
            let command = tokio::select! {
                _ = hup.recv() => {
                    self.notifier.notify_reloading();
                    let _ = self.reload_requests.try_send(());
                    continue;
                }
                _ = usr1.recv() => {
                    self.shared.access_log.reopen();
                    continue;
                }
                _ = usr2.recv() => ProcessCommand::Upgrade,
                _ = term.recv() => ProcessCommand::Stop,
                _ = int.recv() => ProcessCommand::Kill,
            };
            let _ = self.commands.try_send(command);
        }
    }
}
