//! A running gapless: threads, listeners, and the way to stop it.

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
use crate::net::listener::InheritedListeners;

use super::listeners::{BindError, Listeners};
use super::memory_monitor;
use super::service_manager::Notifier;
use super::upgrade::{Executable, Predecessor};
use crate::app::control::discovery::name_cache;
use crate::app::control::orders::order_store::OrderStore;
use crate::app::control::reload;
use crate::app::control::reload::{ReloadAttempt, WatchedConfigFile};
use crate::app::control::{
    AdminState, ControlInputs, ControlLoop, LifecyclePhase, ProcessCommand, StartupState,
};
use crate::app::dataplane::access;
use crate::app::dataplane::listener_config;
use crate::app::dataplane::shared::{HttpPolicy, InstanceShared};
use crate::app::dataplane::worker;
use crate::app::ops::admin;
use crate::app::ops::ledger;
use crate::app::ops::ledger::LedgerHandle;

/// A process that takes over gives pools of which it has inherited nothing this long to be probed.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks whether that is over.
const SETTLE_POLL_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct InstanceOptions {
    pub config: Config,
    /// The file that it came from, to be watched.
    pub file: Option<WatchedConfigFile>,
    /// Whether HUP, USR1, USR2, TERM and INT are this instance's to obey, and the service manager is
    /// told how it goes.
    pub should_handle_signals: bool,
    /// What it has from other processes.
    pub origin: ProcessOrigin,
}

/// What an instance has from the processes before it and around it.
#[derive(Debug, Default)]
pub struct ProcessOrigin {
    /// What an upgrade starts.
    pub executable: Option<Executable>,
    pub inherited_sockets: InheritedListeners,
    /// Who is taken over from.
    pub predecessor: Option<Predecessor>,
}

#[derive(Debug)]
pub enum StartError {
    /// A listener could not be opened.
    Bind(BindError),
    /// TLS cannot be spoken with what is configured.
    Tls(rustls::Error),
    /// The process that was to be taken over from does not play its part.
    TakeOver(io::Error),
    /// No thread or runtime could be made.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "cannot speak TLS: {error}"),
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
    /// Where clients connect, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Where the operator connects.
    pub admin: Option<SocketAddr>,
    commands: mpsc::Sender<ProcessCommand>,
    control: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    #[cfg(feature = "otlp")]
    shared: Arc<InstanceShared>,
    access_log_writer: access::AccessLogWriter,
    ledger_thread: ledger::LedgerThread,
}

/// What a process begins with: of a predecessor, of the state directory, or of nothing.
fn startup_state(
    mut predecessor: Option<&mut Predecessor>,
    config: &Config,
    (executable, ledger, notifier): (Option<Executable>, LedgerHandle, Notifier),
) -> Result<StartupState, StartError> {
    let names = match (&mut predecessor, &config.state_dir) {
        (Some(left), _) if !left.remembered_names.is_empty() => {
            std::mem::take(&mut left.remembered_names)
        }
        (_, Some(directory)) if !config.dns.entries.is_empty() => name_cache::load_names(directory),
        _ => Vec::new(),
    };
    Ok(StartupState {
        remembered_names: names,
        executable,
        health_export: predecessor
            .as_mut()
            .map(|predecessor_state| std::mem::take(&mut predecessor_state.health_export)),
        upgrades: predecessor.as_ref().map_or(0, |predecessor_state| predecessor_state.upgrades),
        notifier,
        ledger,
        order_store: OrderStore::start(config.state_dir.clone())?,
        inherited_orders: predecessor
            .map(|predecessor_state| std::mem::take(&mut predecessor_state.orders)),
    })
}

impl Instance {
    /// Opens every listener, then starts control and, with its first snapshot, the workers. A process
    /// that takes over from another waits before that until it could serve, and is told to.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(options: InstanceOptions) -> Result<Self, StartError> {
        let InstanceOptions { config, file, should_handle_signals: signals, origin } = options;
        let ProcessOrigin { executable, inherited_sockets: sockets, mut predecessor } = origin;
        let (shared, reports) = InstanceShared::new(HttpPolicy::from_config(&config));
        let log = access::start(&shared)?;
        let is_successor = predecessor.is_some();
        if let Some(secret) = predecessor
            .as_mut()
            .and_then(|predecessor_state| predecessor_state.cookie_secret.take())
        {
            let _ = shared.inherited_cookie_secret.set(secret);
        }
        let ledger_thread =
            ledger::start(&shared, config.state_dir.clone(), config.ledger, is_successor)?;
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..config.workers).map(|_| mpsc::unbounded_channel()).unzip();
        let mut listeners = Listeners::new(senders, sockets);
        let (addresses, admin) = open_listeners(&mut listeners, &config)?;
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let (order_sender, orders) = mpsc::channel(4);
        let (attempt_sender, attempts) = mpsc::channel(1);
        let (reload_sender, reload_requests) = mpsc::channel(1);
        let notifier = if signals { Notifier::start() } else { Notifier::default() };
        let before = (executable, ledger_thread.ledger(), notifier.clone());
        let startup_state = startup_state(predecessor.as_mut(), &config, before)?;
        let thread = ControlThread {
            inputs: ControlInputs { reports, commands: orders, reloads: attempts },
            startup_state,
            admin,
            file: file.map(|file| (file, reload_requests, attempt_sender)),
            signals: signals.then(|| SignalHandler {
                commands: order_sender.clone(),
                reload_requests: reload_sender,
                shared: Arc::clone(&shared),
                notifier: notifier.clone(),
            }),
        };
        let (control, milestones) = thread.spawn(Arc::clone(&shared), config, listeners)?;
        let mut instance = Self {
            addresses,
            admin: admin_address,
            commands: order_sender,
            control: Some(control),
            workers: Vec::new(),
            #[cfg(feature = "otlp")]
            shared: Arc::clone(&shared),
            access_log_writer: log,
            ledger_thread,
        };
        // Whoever connects at once must find the routes.
        let _ = milestones.published.recv();
        if let Some(predecessor) = &mut predecessor {
            let is_settled = milestones.settled.recv().is_ok();
            let gone = || io::Error::other("stopped while it was about to take over");
            is_settled.then_some(()).ok_or_else(gone).map_err(StartError::TakeOver)?;
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

    /// Fails readiness, drains and ends.
    pub fn stop(&self) {
        let _ = self.commands.try_send(ProcessCommand::Stop);
    }

    /// Waits for the end; whether every thread came to it in good order.
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

/// Opens what the configuration asks for: the addresses of the clients' listeners, and the operator's
/// listener.
fn open_listeners(
    listeners: &mut Listeners,
    config: &Config,
) -> Result<(Vec<SocketAddr>, Option<TcpListener>), StartError> {
    let admin = config.admin.address.map(|address| listeners.open_admin(address)).transpose()?;
    let configs = listener_config::prepare_listeners(&config.listeners).map_err(StartError::Tls)?;
    let configs: Vec<_> = configs.into_iter().map(Arc::new).collect();
    let addresses = listeners.open_missing(&configs)?;
    for socket in listeners.unused_sockets() {
        tracing::warn!(
            "a socket that was passed is not used: no listener of the configuration is on {socket}"
        );
    }
    Ok((addresses, admin))
}

/// What the control thread is made of.
struct ControlThread {
    inputs: ControlInputs,
    startup_state: StartupState,
    admin: Option<TcpListener>,
    file: Option<(WatchedConfigFile, mpsc::Receiver<()>, mpsc::Sender<ReloadAttempt>)>,
    signals: Option<SignalHandler>,
}

/// How far control has come.
struct StartupMilestones {
    /// The first snapshot is there.
    published: Receiver<()>,
    /// See [`crate::logic::director::Director::is_settled`].
    settled: Receiver<()>,
    /// The operator may be answered.
    serve_admin: oneshot::Sender<()>,
}

impl ControlThread {
    fn spawn(
        self,
        shared: Arc<InstanceShared>,
        config: Config,
        listeners: Listeners,
    ) -> io::Result<(JoinHandle<()>, StartupMilestones)> {
        let Self { inputs: inlets, startup_state: life, admin, file, signals } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (publish, published) = std::sync::mpsc::channel();
        let (settle, settled) = std::sync::mpsc::channel();
        let (serve_admin, may_serve_admin) = oneshot::channel();
        let is_successor = life.health_export.is_some();
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                let path = file.as_ref().map(|(file, ..)| file.path.clone());
                tokio::task::spawn_local(memory_monitor::watch(Arc::clone(&shared)));
                let control = ControlLoop::new(shared, config, path, listeners, inlets, life);
                let _ = publish.send(());
                let admin_state = control.admin_state();
                if is_successor {
                    tokio::task::spawn_local(notify_when_settled(Rc::clone(&admin_state), settle));
                }
                if let Some(listener) = admin {
                    tokio::task::spawn_local(async move {
                        if may_serve_admin.await.is_ok() {
                            admin::serve(listener, admin_state).await;
                        }
                    });
                }
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

/// Says when all pools can serve, or have had time to.
async fn notify_when_settled(admin_state: Rc<AdminState>, settle: std::sync::mpsc::Sender<()>) {
    let end = Instant::now() + SETTLE_TIMEOUT;
    let is_settled = || {
        admin_state.discovery.borrow().is_settled()
            && admin_state.director.borrow().is_ready_to_serve()
    };
    while !is_settled() && Instant::now() < end {
        tokio::time::sleep(SETTLE_POLL_INTERVAL).await;
    }
    if admin_state.phase.get() == LifecyclePhase::Serving {
        let _ = settle.send(());
    }
}

/// What signals lead to.
struct SignalHandler {
    commands: mpsc::Sender<ProcessCommand>,
    reload_requests: mpsc::Sender<()>,
    shared: Arc<InstanceShared>,
    notifier: Notifier,
}

impl SignalHandler {
    /// HUP reloads, USR1 opens the access log anew, USR2 has another process take over, TERM stops, a
    /// second TERM or INT ends at once.
    async fn run(self) {
        let signals = (
            signal(SignalKind::hangup()),
            signal(SignalKind::user_defined1()),
            signal(SignalKind::user_defined2()),
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        );
        let (Ok(mut hup), Ok(mut usr1), Ok(mut usr2), Ok(mut term), Ok(mut int)) = signals else {
            tracing::error!("signals cannot be heard");
            return;
        };
        loop {
            let order = tokio::select! {
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
            let _ = self.commands.try_send(order);
        }
    }
}
