//! The listeners of an instance and the workers behind them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::mpsc;

use crate::config::model::Listen;
use crate::net::listener;

use super::shared::{Command, Door};

/// Why a listener could not be opened.
#[derive(Debug)]
pub struct BindError {
    /// The configured address.
    pub address: SocketAddr,
    /// What the kernel said.
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, error } = self;
        write!(f, "cannot listen on {address}: {error}")?;
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "; another process has it: stop that one, or choose another port")
            }
            io::ErrorKind::AddrNotAvailable => write!(f, "; this host has no such address"),
            io::ErrorKind::PermissionDenied => {
                write!(f, "; ports below 1024 need CAP_NET_BIND_SERVICE")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BindError {}

/// Open listeners, and the way to every worker.
#[derive(Debug, Default)]
pub struct Doors {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    open: Vec<SocketAddr>,
}

/// A listener that is open and not yet handed to the workers.
struct Opened {
    name: SocketAddr,
    bound: SocketAddr,
    per_worker: Vec<std::net::TcpListener>,
}

impl Doors {
    /// Doors for these workers; all closed.
    #[must_use]
    pub fn new(workers: Vec<mpsc::UnboundedSender<Command>>) -> Self {
        Self { workers, open: Vec::new() }
    }

    /// Opens what is new in `wanted`, then closes what is not in it. On an error nothing changes.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn rearrange(&mut self, wanted: &[Listen]) -> Result<(), BindError> {
        self.open_missing(wanted)?;
        let closed = |name: &SocketAddr| !wanted.iter().any(|listen| listen.address == *name);
        for name in self.open.iter().copied().filter(closed) {
            self.tell(|| Command::Unlisten(name));
        }
        self.open.retain(|name| !closed(name));
        Ok(())
    }

    /// Opens what is in `wanted` and not open yet; the addresses that were bound, in order.
    ///
    /// # Errors
    /// The first address that cannot be had; then none was opened.
    pub fn open_missing(&mut self, wanted: &[Listen]) -> Result<Vec<SocketAddr>, BindError> {
        let missing =
            wanted.iter().map(|listen| listen.address).filter(|name| !self.open.contains(name));
        let opened: Vec<Opened> =
            missing.map(|name| open(name, self.workers.len())).collect::<Result<_, _>>()?;
        let bound = opened.iter().map(|opened| opened.bound).collect();
        for Opened { name, per_worker, .. } in opened {
            let connections = Arc::new(AtomicUsize::new(0));
            for (worker, listener) in self.workers.iter().zip(per_worker) {
                let door = Door { name, listener, connections: Arc::clone(&connections) };
                // A worker that is gone has nobody to accept for.
                let _ = worker.send(Command::Listen(door));
            }
            self.open.push(name);
        }
        Ok(bound)
    }

    /// Tells every worker.
    pub fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            let _ = worker.send(command());
        }
    }

    /// Ends when every worker has.
    pub async fn all_closed(&self) {
        for worker in &self.workers {
            worker.closed().await;
        }
    }
}

fn open(name: SocketAddr, count: usize) -> Result<Opened, BindError> {
    let failed = |error| BindError { address: name, error };
    let per_worker = listener::bind(name, count).map_err(failed)?;
    let bound = match per_worker.first() {
        Some(listener) => listener.local_addr().map_err(failed)?,
        None => name,
    };
    Ok(Opened { name, bound, per_worker })
}
