//! The listeners of an instance and the workers behind them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::net::listener;

use super::front::Front;
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
    open: Vec<Open>,
}

/// A door that is open.
#[derive(Debug)]
struct Open {
    name: SocketAddr,
    front: Arc<ArcSwap<Front>>,
}

/// A listener that is open and not yet handed to the workers.
struct Opened {
    front: Arc<Front>,
    bound: SocketAddr,
    per_worker: Vec<std::net::TcpListener>,
}

impl Doors {
    /// Doors for these workers; all closed.
    #[must_use]
    pub fn new(workers: Vec<mpsc::UnboundedSender<Command>>) -> Self {
        Self { workers, open: Vec::new() }
    }

    /// Opens what is new in `wanted`, then closes what is not in it, and has the others take
    /// connections as they are to from now on. On an error nothing changes.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn rearrange(&mut self, wanted: Vec<Front>) -> Result<(), BindError> {
        let wanted: Vec<Arc<Front>> = wanted.into_iter().map(Arc::new).collect();
        self.open_missing(&wanted)?;
        let mut closed = Vec::new();
        self.open.retain(|door| {
            let front = wanted.iter().find(|front| front.listen.address == door.name);
            match front {
                Some(front) if front.listen != door.front.load().listen => {
                    door.front.store(Arc::clone(front));
                }
                Some(_) => {}
                None => closed.push(door.name),
            }
            front.is_some()
        });
        for name in closed {
            self.tell(|| Command::Unlisten(name));
        }
        Ok(())
    }

    /// Opens what is in `wanted` and not open yet; the addresses that were bound, in order.
    ///
    /// # Errors
    /// The first address that cannot be had; then none was opened.
    pub fn open_missing(&mut self, wanted: &[Arc<Front>]) -> Result<Vec<SocketAddr>, BindError> {
        let is_open =
            |front: &Arc<Front>| self.open.iter().any(|door| door.name == front.listen.address);
        let missing = wanted.iter().filter(|front| !is_open(front));
        let opened: Vec<Opened> =
            missing.map(|front| open(front, self.workers.len())).collect::<Result<_, _>>()?;
        let bound = opened.iter().map(|opened| opened.bound).collect();
        for Opened { front, per_worker, .. } in opened {
            let name = front.listen.address;
            let connections = Arc::new(AtomicUsize::new(0));
            let front = Arc::new(ArcSwap::new(front));
            for (worker, listener) in self.workers.iter().zip(per_worker) {
                let (connections, front) = (Arc::clone(&connections), Arc::clone(&front));
                let door = Door { name, listener, connections, front };
                // A worker that is gone has nobody to accept for.
                let _ = worker.send(Command::Listen(door));
            }
            self.open.push(Open { name, front });
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

fn open(front: &Arc<Front>, count: usize) -> Result<Opened, BindError> {
    let name = front.listen.address;
    let failed = |error| BindError { address: name, error };
    let per_worker = listener::bind(name, count).map_err(failed)?;
    let bound = match per_worker.first() {
        Some(listener) => listener.local_addr().map_err(failed)?,
        None => name,
    };
    Ok(Opened { front: Arc::clone(front), bound, per_worker })
}
