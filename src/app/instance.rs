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
use crate::net::listener::Stock;

use super::access;
use super::admin;
use super::control::{Board, Control, Inlets, Life, Order, Phase};
use super::discovery::memory;
use super::doors::{BindError, Doors};
use super::front;
use super::ledger::{self, Ledger};
use super::notify::Notifier;
use super::orders::keeper::Keeper;
use super::pressure;
use super::reload::{self, Attempt, Watched};
use super::shared::{Manners, Shared};
use super::upgrade::{Executable, Predecessor};
use super::worker;

/// A process that takes over gives pools of which it has inherited nothing this long to be probed.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks whether that is over.
const SETTLED_LOOK: Duration = Duration::from_millis(5);

/// How to run.
#[derive(Debug)]
pub struct Options {
    /// The checked configuration.
    pub config: Config,
    /// The file that it came from, to be watched.
    pub file: Option<Watched>,
    /// Whether HUP, USR1, USR2, TERM and INT are this instance's to obey, and the service manager is
    /// told how it goes.
    pub signals: bool,
    /// What it has from other processes.
    pub origin: Origin,
}

/// What an instance has from the processes before it and around it.
#[derive(Debug, Default)]
pub struct Origin {
    /// What an upgrade starts.
    pub executable: Option<Executable>,
    /// Listening sockets.
    pub sockets: Stock,
    /// Who is taken over from.
    pub predecessor: Option<Predecessor>,
}

/// Why nothing runs.
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
    orders: mpsc::Sender<Order>,
    control: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    #[cfg(feature = "otlp")]
    shared: Arc<Shared>,
    log: access::Writer,
    keeper: ledger::Keeper,
}

/// What a process begins with: of a predecessor, of the state directory, or of nothing.
fn life(
    mut predecessor: Option<&mut Predecessor>,
    config: &Config,
    (executable, ledger, notifier): (Option<Executable>, Ledger, Notifier),
) -> Result<Life, StartError> {
    let names = match (&mut predecessor, &config.state_dir) {
        (Some(left), _) if !left.names.is_empty() => std::mem::take(&mut left.names),
        (_, Some(directory)) if !config.dns.entries.is_empty() => memory::load(directory),
        _ => Vec::new(),
    };
    Ok(Life {
        names,
        executable,
        legacy: predecessor.as_mut().map(|left| std::mem::take(&mut left.legacy)),
        upgrades: predecessor.as_ref().map_or(0, |left| left.upgrades),
        notifier,
        ledger,
        keeper: Keeper::start(config.state_dir.clone())?,
        orders: predecessor.map(|left| std::mem::take(&mut left.orders)),
    })
}

impl Instance {
    /// Opens every listener, then starts control and, with its first snapshot, the workers. A process
    /// that takes over from another waits before that until it could serve, and is told to.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let Options { config, file, signals, origin } = options;
        let Origin { executable, sockets, mut predecessor } = origin;
        let (shared, reports) = Shared::new(Manners::of(&config));
        let log = access::start(&shared)?;
        let is_heir = predecessor.is_some();
        if let Some(secret) = predecessor.as_mut().and_then(|left| left.secret.take()) {
            let _ = shared.inherited_secret.set(secret);
        }
        let keeper = ledger::start(&shared, config.state_dir.clone(), config.ledger, is_heir)?;
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..config.workers).map(|_| mpsc::unbounded_channel()).unzip();
        let mut doors = Doors::new(senders, sockets);
        let (addresses, admin) = open_doors(&mut doors, &config)?;
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let (order_sender, orders) = mpsc::channel(4);
        let (attempt_sender, attempts) = mpsc::channel(1);
        let (ask_sender, asked) = mpsc::channel(1);
        let notifier = if signals { Notifier::start() } else { Notifier::default() };
        let before = (executable, keeper.ledger(), notifier.clone());
        let life = life(predecessor.as_mut(), &config, before)?;
        let thread = ControlThread {
            inlets: Inlets { reports, orders, attempts },
            life,
            admin,
            file: file.map(|file| (file, asked, attempt_sender)),
            signals: signals.then(|| Signals {
                orders: order_sender.clone(),
                ask: ask_sender,
                shared: Arc::clone(&shared),
                notifier: notifier.clone(),
            }),
        };
        let (control, milestones) = thread.spawn(Arc::clone(&shared), config, doors)?;
        let mut instance = Self {
            addresses,
            admin: admin_address,
            orders: order_sender,
            control: Some(control),
            workers: Vec::new(),
            #[cfg(feature = "otlp")]
            shared: Arc::clone(&shared),
            log,
            keeper,
        };
        // Whoever connects at once must find the routes.
        let _ = milestones.published.recv();
        if let Some(predecessor) = &mut predecessor {
            let is_settled = milestones.settled.recv().is_ok();
            let gone = || io::Error::other("stopped while it was about to take over");
            is_settled.then_some(()).ok_or_else(gone).map_err(StartError::TakeOver)?;
            predecessor.settled().map_err(StartError::TakeOver)?;
        }
        for (index, commands) in receivers.into_iter().enumerate() {
            instance.workers.push(worker::spawn(index, Arc::clone(&shared), commands)?);
        }
        let _ = milestones.serve_admin.send(());
        let has_taken_over = predecessor.is_some();
        if let Some(predecessor) = predecessor {
            predecessor.accepting().map_err(StartError::TakeOver)?;
            super::observe::upgraded(true);
        }
        notifier.ready(has_taken_over);
        Ok(instance)
    }

    /// Fails readiness, drains and ends.
    pub fn stop(&self) {
        let _ = self.orders.try_send(Order::Stop);
    }

    /// Waits for the end; whether every thread came to it in good order.
    #[must_use]
    pub fn wait(mut self) -> bool {
        self.join()
    }

    fn join(&mut self) -> bool {
        let control = self.control.take().is_none_or(|control| control.join().is_ok());
        let workers = self.workers.drain(..).map(|worker| worker.join().is_ok());
        let all = workers.fold(control, |all, one| all && one);
        self.log.finish();
        #[cfg(feature = "otlp")]
        self.shared.otlp.finish();
        self.keeper.finish();
        all
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.control.is_some() {
            let _ = self.orders.try_send(Order::Kill);
            self.join();
        }
    }
}

/// Opens what the configuration asks for: the addresses of the clients' listeners, and the operator's
/// listener.
fn open_doors(
    doors: &mut Doors,
    config: &Config,
) -> Result<(Vec<SocketAddr>, Option<TcpListener>), StartError> {
    let admin = config.admin.address.map(|address| doors.open_admin(address)).transpose()?;
    let fronts = front::prepare(&config.listen).map_err(StartError::Tls)?;
    let fronts: Vec<_> = fronts.into_iter().map(Arc::new).collect();
    let addresses = doors.open_missing(&fronts)?;
    for socket in doors.unused() {
        tracing::warn!(
            "a socket that was passed is not used: no listener of the configuration is on {socket}"
        );
    }
    Ok((addresses, admin))
}

/// What the control thread is made of.
struct ControlThread {
    inlets: Inlets,
    life: Life,
    admin: Option<TcpListener>,
    file: Option<(Watched, mpsc::Receiver<()>, mpsc::Sender<Attempt>)>,
    signals: Option<Signals>,
}

/// How far control has come.
struct Milestones {
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
        shared: Arc<Shared>,
        config: Config,
        doors: Doors,
    ) -> io::Result<(JoinHandle<()>, Milestones)> {
        let Self { inlets, life, admin, file, signals } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (publish, published) = std::sync::mpsc::channel();
        let (settle, settled) = std::sync::mpsc::channel();
        let (serve_admin, may_serve_admin) = oneshot::channel();
        let is_heir = life.legacy.is_some();
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                let path = file.as_ref().map(|(file, ..)| file.path.clone());
                tokio::task::spawn_local(pressure::watch(Arc::clone(&shared)));
                let control = Control::new(shared, config, path, doors, inlets, life);
                let _ = publish.send(());
                let board = control.board();
                if is_heir {
                    tokio::task::spawn_local(settling(Rc::clone(&board), settle));
                }
                if let Some(listener) = admin {
                    tokio::task::spawn_local(async move {
                        if may_serve_admin.await.is_ok() {
                            admin::serve(listener, board).await;
                        }
                    });
                }
                if let Some((file, asked, attempts)) = file {
                    tokio::task::spawn_local(reload::watch(file, asked, attempts));
                }
                if let Some(signals) = signals {
                    tokio::task::spawn_local(signals.obey());
                }
                control.run().await;
            });
        })?;
        Ok((thread, Milestones { published, settled, serve_admin }))
    }
}

/// Says when all pools can serve, or have had time to.
async fn settling(board: Rc<Board>, settle: std::sync::mpsc::Sender<()>) {
    let end = Instant::now() + SETTLED_WITHIN;
    let is_settled =
        || board.discovery.borrow().is_settled() && board.director.borrow().is_settled();
    while !is_settled() && Instant::now() < end {
        tokio::time::sleep(SETTLED_LOOK).await;
    }
    if board.phase.get() == Phase::Serving {
        let _ = settle.send(());
    }
}

/// What signals lead to.
struct Signals {
    orders: mpsc::Sender<Order>,
    ask: mpsc::Sender<()>,
    shared: Arc<Shared>,
    notifier: Notifier,
}

impl Signals {
    /// HUP reloads, USR1 opens the access log anew, USR2 has another process take over, TERM stops, a
    /// second TERM or INT ends at once.
    async fn obey(self) {
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
                    self.notifier.reloading();
                    let _ = self.ask.try_send(());
                    continue;
                }
                _ = usr1.recv() => {
                    self.shared.access.reopen();
                    continue;
                }
                _ = usr2.recv() => Order::Upgrade,
                _ = term.recv() => Order::Stop,
                _ = int.recv() => Order::Kill,
            };
            let _ = self.orders.try_send(order);
        }
    }
}
