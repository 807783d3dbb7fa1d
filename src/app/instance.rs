//! A running gapless: threads, listeners, and the way to stop it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::config::model::Config;
use crate::net::listener;

use super::admin;
use super::control::{Control, Order};
use super::doors::{BindError, Doors};
use super::reload::{self, Watched};
use super::shared::{Manners, Shared};
use super::worker;

/// How to run.
#[derive(Debug)]
pub struct Options {
    /// The checked configuration.
    pub config: Config,
    /// The file that it came from, to be watched.
    pub file: Option<Watched>,
    /// Whether HUP, TERM and INT are this instance's to obey.
    pub signals: bool,
}

/// Why nothing runs.
#[derive(Debug)]
pub enum StartError {
    /// A listener could not be opened.
    Bind(BindError),
    /// No thread or runtime could be made.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
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
}

impl Instance {
    /// Opens every listener, then starts control and, with its first snapshot, the workers.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let Options { config, file, signals } = options;
        let admin = config.admin.address.map(open_admin).transpose()?;
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let manners = Manners::of(&config);
        let (shared, reports) = Shared::new(manners);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..config.workers).map(|_| mpsc::unbounded_channel()).unzip();
        let mut doors = Doors::new(senders);
        let addresses = doors.open_missing(&config.listen)?;
        let (order_sender, orders) = mpsc::channel(4);
        let (attempt_sender, attempts) = mpsc::channel(1);
        let (ask_sender, asked) = mpsc::channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outside = order_sender.clone();
        let (publish, published) = std::sync::mpsc::channel();
        let control_shared = Arc::clone(&shared);
        let control = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                let path = file.as_ref().map(|file| file.path.clone());
                let control =
                    Control::new(control_shared, config, path, doors, reports, orders, attempts);
                let _ = publish.send(());
                if let Some(listener) = admin {
                    tokio::task::spawn_local(admin::serve(listener, control.board()));
                }
                if let Some(file) = file {
                    tokio::task::spawn_local(reload::watch(file, asked, attempt_sender));
                }
                if signals {
                    tokio::task::spawn_local(obey_signals(outside, ask_sender));
                }
                control.run().await;
            });
        })?;
        let mut instance = Self {
            addresses,
            admin: admin_address,
            orders: order_sender,
            control: Some(control),
            workers: Vec::new(),
        };
        // Whoever connects at once must find the routes.
        let _ = published.recv();
        for (index, commands) in receivers.into_iter().enumerate() {
            instance.workers.push(worker::spawn(index, Arc::clone(&shared), commands)?);
        }
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
        workers.fold(control, |all, one| all && one)
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

fn open_admin(address: SocketAddr) -> Result<TcpListener, BindError> {
    let failed = |error| BindError { address, error };
    let mut listeners = listener::bind(address, 1).map_err(failed)?;
    listeners.pop().ok_or_else(|| failed(io::ErrorKind::Other.into()))
}

/// HUP reloads, TERM stops, a second TERM or INT ends at once.
async fn obey_signals(orders: mpsc::Sender<Order>, ask: mpsc::Sender<()>) {
    let signals = (
        signal(SignalKind::hangup()),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    let (Ok(mut hup), Ok(mut term), Ok(mut int)) = signals else {
        tracing::error!("signals cannot be heard");
        return;
    };
    loop {
        let order = tokio::select! {
            _ = hup.recv() => {
                let _ = ask.try_send(());
                continue;
            }
            _ = term.recv() => Order::Stop,
            _ = int.recv() => Order::Kill,
        };
        let _ = orders.try_send(order);
    }
}
