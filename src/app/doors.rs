//! The listeners of an instance and the workers behind them.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::net::listener::{self, Given, Side, Stock};

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
    /// The operator's, as it is configured and as it is.
    admin: Option<(SocketAddr, Socket)>,
    stock: Stock,
}

/// A door that is open.
#[derive(Debug)]
struct Open {
    name: SocketAddr,
    front: Arc<ArcSwap<Front>>,
    /// Workers have handles to the same: what one of them has taken can be handed on.
    sockets: Vec<Socket>,
}

/// A listening socket.
#[derive(Debug)]
struct Socket {
    listener: TcpListener,
    /// See [`Given::label`].
    label: Option<String>,
}

impl From<Given> for Socket {
    fn from(given: Given) -> Self {
        Self { listener: given.listener, label: given.label }
    }
}

impl Socket {
    fn given(self, name: SocketAddr, side: Side) -> Given {
        let Self { listener, label } = self;
        Given { listener, name, side: Some(side), label }
    }

    fn copy(&self, name: SocketAddr, side: Side) -> io::Result<Given> {
        let listener = self.listener.try_clone()?;
        Ok(Self { listener, label: self.label.clone() }.given(name, side))
    }
}

/// A listener that is open and not yet handed to the workers.
struct Opened {
    front: Arc<Front>,
    bound: SocketAddr,
    sockets: Vec<Socket>,
    /// Worker by worker.
    handles: Vec<(usize, TcpListener)>,
}

impl Doors {
    /// Doors for these workers; all closed. Sockets in `stock` are used before any is made.
    #[must_use]
    pub fn new(workers: Vec<mpsc::UnboundedSender<Command>>, stock: Stock) -> Self {
        Self { workers, open: Vec::new(), admin: None, stock }
    }

    /// Opens the operator's listener.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn open_admin(&mut self, address: SocketAddr) -> Result<TcpListener, BindError> {
        let failed = |error| BindError { address, error };
        let given = self.stock.take(address, Side::Operator).into_iter().next();
        let socket = match given {
            Some(given) => given.into(),
            None => {
                let mut bound = listener::bind(address, 1).map_err(failed)?;
                let listener = bound.pop().ok_or_else(|| failed(io::ErrorKind::Other.into()))?;
                Socket { listener, label: None }
            }
        };
        let listener = socket.listener.try_clone().map_err(failed)?;
        self.admin = Some((address, socket));
        Ok(listener)
    }

    /// Opens what is new in `wanted`, then closes what is not in it, and has the others take
    /// connections as they are to from now on. On an error nothing changes.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn rearrange(&mut self, wanted: Vec<Front>) -> Result<(), BindError> {
        let wanted: Vec<Arc<Front>> = wanted.into_iter().map(Arc::new).collect();
        self.open_missing(&wanted)?;
        let (kept, closed) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|door| wanted.iter().any(|front| front.listen.address == door.name));
        self.open = kept;
        for door in &self.open {
            let front = wanted.iter().find(|front| front.listen.address == door.name);
            if let Some(front) = front.filter(|front| front.listen != door.front.load().listen) {
                door.front.store(Arc::clone(front));
            }
        }
        let names: Vec<_> = closed.iter().map(|door: &Open| door.name).collect();
        for Open { name, sockets, .. } in closed {
            // What the service manager keeps open can be had from nobody else.
            let given = sockets.into_iter().map(|socket| socket.given(name, Side::Clients));
            given.for_each(|given| self.stock.put(given));
        }
        self.stock.keep_passed();
        // Now the workers' handles are the last ones, and they look before they close.
        names.into_iter().for_each(|name| self.tell(|| Command::Unlisten(name)));
        Ok(())
    }

    /// Opens what is in `wanted` and not open yet; the addresses that were bound, in order.
    ///
    /// # Errors
    /// The first address that cannot be had; then none was opened.
    pub fn open_missing(&mut self, wanted: &[Arc<Front>]) -> Result<Vec<SocketAddr>, BindError> {
        let is_open =
            |front: &Arc<Front>| self.open.iter().any(|door| door.name == front.listen.address);
        let missing: Vec<_> = wanted.iter().filter(|front| !is_open(front)).collect();
        let mut all = Vec::with_capacity(missing.len());
        for front in missing {
            match open(front, self.workers.len(), &mut self.stock) {
                Ok(opened) => all.push(opened),
                Err(error) => {
                    for Opened { front, sockets, .. } in all {
                        let back =
                            |socket: Socket| socket.given(front.listen.address, Side::Clients);
                        sockets.into_iter().for_each(|socket| self.stock.put(back(socket)));
                    }
                    self.stock.keep_passed();
                    return Err(error);
                }
            }
        }
        let bound = all.iter().map(|opened| opened.bound).collect();
        for Opened { front, sockets, handles, .. } in all {
            let name = front.listen.address;
            let connections = Arc::new(AtomicUsize::new(0));
            let front = Arc::new(ArcSwap::new(front));
            for (worker, listener) in handles {
                let (connections, front) = (Arc::clone(&connections), Arc::clone(&front));
                let door = Door { name, listener, connections, front };
                // A worker that is gone has nobody to accept for.
                let _ = self.workers[worker].send(Command::Listen(door));
            }
            self.open.push(Open { name, front, sockets });
        }
        Ok(bound)
    }

    /// What of the given sockets is of no use now. Those that the service manager keeps stay at
    /// hand, the others are closed.
    pub fn unused(&mut self) -> Vec<String> {
        self.stock.keep_passed();
        self.stock.iter().map(Given::to_string).collect()
    }

    /// Further handles to every socket, for a process that takes over.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn copies(&self) -> io::Result<Vec<Given>> {
        let doors = self.open.iter().flat_map(|door| {
            door.sockets.iter().map(|socket| socket.copy(door.name, Side::Clients))
        });
        let admin = self.admin.iter().map(|(name, socket)| socket.copy(*name, Side::Operator));
        let rest = self.stock.iter().map(|given| {
            let (name, side, label) = (given.name, given.side, given.label.clone());
            Ok(Given { listener: given.listener.try_clone()?, name, side, label })
        });
        doors.chain(admin).chain(rest).collect()
    }

    /// Tells every worker.
    pub fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            let _ = worker.send(command());
        }
    }

    /// Has no more connections taken: another process takes them.
    pub fn leave(&mut self) {
        self.close();
        self.tell(|| Command::Leave);
    }

    /// Has no more connections taken, and those that are open ended.
    pub fn drain(&mut self) {
        self.close();
        self.tell(|| Command::Drain);
    }

    /// The workers' handles are the last ones then.
    fn close(&mut self) {
        self.open.clear();
        self.admin = None;
        self.stock = Stock::default();
    }

    /// Ends when every worker has.
    pub async fn all_closed(&self) {
        for worker in &self.workers {
            worker.closed().await;
        }
    }
}

fn open(front: &Arc<Front>, workers: usize, stock: &mut Stock) -> Result<Opened, BindError> {
    let name = front.listen.address;
    let failed = |error| BindError { address: name, error };
    let mut sockets: Vec<Socket> =
        stock.take(name, Side::Clients).into_iter().map(Socket::from).collect();
    if sockets.is_empty() {
        let made = listener::bind(name, workers).map_err(failed)?;
        sockets.extend(made.into_iter().map(|listener| Socket { listener, label: None }));
    }
    let bound = match sockets.first() {
        Some(socket) => socket.listener.local_addr().map_err(failed)?,
        None => name,
    };
    // Every socket has a worker that takes what is in its queue, and every worker has a socket.
    let handle = |index: usize| {
        let socket = &sockets[index % sockets.len()];
        Ok((index % workers, socket.listener.try_clone().map_err(failed)?))
    };
    let handles = (0..sockets.len().max(workers)).map(handle).collect::<Result<_, _>>()?;
    Ok(Opened { front: Arc::clone(front), bound, sockets, handles })
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::model::Listen;

    fn front(address: SocketAddr) -> Arc<Front> {
        let listen = Listen { address, http2: false, tls: None, proxy_protocol: None };
        Arc::new(Front { listen, tls: None })
    }

    /// So many sockets on one port, as another process with as many workers has them.
    fn stock(count: usize) -> (SocketAddr, Stock) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut stock = Stock::default();
        let sockets = listener::bind(any, count).expect("a port");
        let bound = sockets[0].local_addr().expect("bound");
        for listener in sockets {
            let side = Some(Side::Clients);
            stock.put(listener::adopt(listener, Some(any), side, None).expect("it listens"));
        }
        (bound, stock)
    }

    /// Whose sockets each worker has; every one of a worker's by its inode.
    fn shares(sockets: usize, workers: usize) -> Vec<usize> {
        let (bound, stock) = stock(sockets);
        let (senders, mut receivers): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let mut doors = Doors::new(senders, stock);
        let opened = doors.open_missing(&[front(bound)]).expect("open");
        assert_eq!(opened, [bound]);
        assert!(doors.unused().is_empty());
        assert_eq!(doors.copies().expect("copies").len(), sockets);
        let taken = |receiver: &mut mpsc::UnboundedReceiver<Command>| {
            std::iter::from_fn(|| receiver.try_recv().ok()).count()
        };
        receivers.iter_mut().map(taken).collect()
    }

    #[test]
    fn no_socket_is_without_a_worker_and_no_worker_without_a_socket() {
        assert_eq!(shares(2, 2), [1, 1]);
        assert_eq!(shares(4, 2), [2, 2]);
        assert_eq!(shares(3, 2), [2, 1]);
        assert_eq!(shares(1, 3), [1, 1, 1]);
        assert_eq!(shares(2, 3), [1, 1, 1]);
    }

    #[test]
    fn a_socket_is_known_again_by_the_configured_address_too() {
        let (bound, stock) = stock(1);
        let (sender, _receiver) = mpsc::unbounded_channel();
        let mut doors = Doors::new(vec![sender], stock);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = doors.open_admin(any).expect("another port");
        assert_ne!(admin.local_addr().expect("bound"), bound, "it was for clients");
        assert_eq!(doors.open_missing(&[front(any)]).expect("open"), [bound]);
    }
}
