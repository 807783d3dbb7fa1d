//! Opens, closes and hands over the listeners of an instance, and sends commands to its workers.
//!
//! Each worker accepts on a socket of its own (`SO_REUSEPORT`). Control keeps a handle to every
//! socket, so that an upgrade can pass on connections that wait in its queue.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::net::listener::{self, InheritedListener, InheritedListeners, ListenerRole};

use crate::app::dataplane::listener_config::ListenerConfig;
use crate::app::dataplane::shared::{Listener, WorkerCommand};

/// Why a listener could not be opened.
#[derive(Debug)]
pub struct BindError {
    pub address: SocketAddr,
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, error } = self;
        write!(f, "cannot listen on {address}: {error}")?;
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "; another process uses it: stop that process, or choose another port")
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

/// Open listeners, and the command queue of every worker.
#[derive(Debug, Default)]
pub struct Listeners {
    workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    open: Vec<OpenListener>,
    /// The admin listener and the status listener, with their configured addresses.
    operator: Vec<(SocketAddr, ListenerRole, ListeningSocket)>,
    /// Sockets of a predecessor or the service manager that no listener uses yet.
    inherited_sockets: InheritedListeners,
}

/// A listener that workers accept on.
#[derive(Debug)]
struct OpenListener {
    address: SocketAddr,
    config: Arc<ArcSwap<ListenerConfig>>,
    /// Workers hold duplicates of these, so an upgrade can hand over the same sockets.
    sockets: Vec<ListeningSocket>,
}

#[derive(Debug)]
struct ListeningSocket {
    listener: TcpListener,
    /// See [`InheritedListener::label`].
    label: Option<String>,
}

impl From<InheritedListener> for ListeningSocket {
    fn from(inherited_socket: InheritedListener) -> Self {
        Self { listener: inherited_socket.listener, label: inherited_socket.label }
    }
}

impl ListeningSocket {
    fn into_inherited(self, name: SocketAddr, role: ListenerRole) -> InheritedListener {
        let Self { listener, label } = self;
        InheritedListener { listener, configured_address: name, role: Some(role), label }
    }

    fn duplicate(&self, name: SocketAddr, role: ListenerRole) -> io::Result<InheritedListener> {
        let listener = self.listener.try_clone()?;
        Ok(Self { listener, label: self.label.clone() }.into_inherited(name, role))
    }
}

/// A bound listener that workers do not have yet.
struct NewListener {
    config: Arc<ListenerConfig>,
    bound: SocketAddr,
    sockets: Vec<ListeningSocket>,
    /// Duplicates of the sockets, each with the index of its worker.
    handles: Vec<(usize, TcpListener)>,
}

impl Listeners {
    /// Starts with no listener open. Sockets in `inherited` are used before new ones are bound.
    pub fn new(
        workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
        inherited: InheritedListeners,
    ) -> Self {
        Self { workers, open: Vec::new(), operator: Vec::new(), inherited_sockets: inherited }
    }

    /// Opens the admin listener or the status listener.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn open_operator(
        &mut self,
        address: SocketAddr,
        role: ListenerRole,
    ) -> Result<TcpListener, BindError> {
        let failed = |error| BindError { address, error };
        let inherited_socket = self.inherited_sockets.take_for(address, role).into_iter().next();
        let socket = match inherited_socket {
            Some(inherited_socket) => inherited_socket.into(),
            None => {
                let mut bound = listener::bind_reuse_port(address, 1).map_err(failed)?;
                let listener = bound.pop().ok_or_else(|| failed(io::ErrorKind::Other.into()))?;
                ListeningSocket { listener, label: None }
            }
        };
        let listener = socket.listener.try_clone().map_err(failed)?;
        self.operator.push((address, role, socket));
        Ok(listener)
    }

    /// Opens listeners that are new in `wanted`, closes those that are not in it, and applies the
    /// new configuration to the others. On an error nothing changes.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn reconcile(&mut self, wanted: Vec<ListenerConfig>) -> Result<(), BindError> {
        let wanted: Vec<Arc<ListenerConfig>> = wanted.into_iter().map(Arc::new).collect();
        self.open_missing(&wanted)?;
        let (still_open, closed) =
            std::mem::take(&mut self.open).into_iter().partition(|listener| {
                wanted.iter().any(|config| config.listen.address == listener.address)
            });
        self.open = still_open;
        for listener in &self.open {
            let config = wanted.iter().find(|one| one.listen.address == listener.address);
            if let Some(config) = config.filter(|one| one.listen != listener.config.load().listen) {
                listener.config.store(Arc::clone(config));
            }
        }
        let names: Vec<_> = closed.iter().map(|listener: &OpenListener| listener.address).collect();
        for OpenListener { address: name, sockets, .. } in closed {
            // A later reload can reopen a socket of the service manager only if it is kept.
            let inherited_socket = sockets
                .into_iter()
                .map(|socket| socket.into_inherited(name, ListenerRole::Clients));
            inherited_socket.for_each(|socket| self.inherited_sockets.add(socket));
        }
        self.inherited_sockets.retain_service_manager_sockets();
        // The workers now hold the last handles, and empty the accept queue before they close.
        names.into_iter().for_each(|name| self.broadcast(|| WorkerCommand::Unlisten(name)));
        Ok(())
    }

    /// Opens the listeners in `wanted` that are not open yet. Returns their bound addresses in
    /// order.
    ///
    /// # Errors
    /// The first address that cannot be bound; then none is opened.
    pub fn open_missing(
        &mut self,
        wanted: &[Arc<ListenerConfig>],
    ) -> Result<Vec<SocketAddr>, BindError> {
        let is_open = |config: &Arc<ListenerConfig>| {
            self.open.iter().any(|listener| listener.address == config.listen.address)
        };
        let missing: Vec<_> = wanted.iter().filter(|config| !is_open(config)).collect();
        let mut all = Vec::with_capacity(missing.len());
        for config in missing {
            match open_listener(config, self.workers.len(), &mut self.inherited_sockets) {
                Ok(opened) => all.push(opened),
                Err(error) => {
                    for NewListener { config, sockets, .. } in all {
                        let back = |socket: ListeningSocket| {
                            socket.into_inherited(config.listen.address, ListenerRole::Clients)
                        };
                        sockets
                            .into_iter()
                            .for_each(|socket| self.inherited_sockets.add(back(socket)));
                    }
                    self.inherited_sockets.retain_service_manager_sockets();
                    return Err(error);
                }
            }
        }
        let bound = all.iter().map(|opened| opened.bound).collect();
        for NewListener { config, sockets, handles, .. } in all {
            let name = config.listen.address;
            let connections = Arc::new(AtomicUsize::new(0));
            let config = Arc::new(ArcSwap::new(config));
            for (worker, listener) in handles {
                let (connections, config) = (Arc::clone(&connections), Arc::clone(&config));
                let listener = Listener { address: name, listener, connections, config };
                // Fails only if the worker has ended.
                let _ = self.workers[worker].send(WorkerCommand::Listen(listener));
            }
            self.open.push(OpenListener { address: name, config, sockets });
        }
        Ok(bound)
    }

    /// Inherited sockets that no listener uses, as text. Those of the service manager stay
    /// available, the others are closed.
    pub fn unused_sockets(&mut self) -> Vec<String> {
        self.inherited_sockets.retain_service_manager_sockets();
        self.inherited_sockets.iter().map(InheritedListener::to_string).collect()
    }

    /// Duplicates every socket for a successor process.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub fn duplicate_sockets(&self) -> io::Result<Vec<InheritedListener>> {
        let listeners = self.open.iter().flat_map(|listener| {
            listener
                .sockets
                .iter()
                .map(|socket| socket.duplicate(listener.address, ListenerRole::Clients))
        });
        let operator =
            self.operator.iter().map(|(name, role, socket)| socket.duplicate(*name, *role));
        let inherited = self.inherited_sockets.iter().map(|inherited_socket| {
            let (name, role, label) = (
                inherited_socket.configured_address,
                inherited_socket.role,
                inherited_socket.label.clone(),
            );
            Ok(InheritedListener {
                listener: inherited_socket.listener.try_clone()?,
                configured_address: name,
                role,
                label,
            })
        });
        listeners.chain(operator).chain(inherited).collect()
    }

    pub fn broadcast(&self, command: impl Fn() -> WorkerCommand) {
        for worker in &self.workers {
            let _ = worker.send(command());
        }
    }

    /// Closes all listeners: another process accepts. Open connections stay.
    pub fn stop_accepting(&mut self) {
        self.close_all();
        self.broadcast(|| WorkerCommand::StopAccepting);
    }

    /// Closes all listeners and ends open connections after their running request.
    pub fn drain(&mut self) {
        self.close_all();
        self.broadcast(|| WorkerCommand::Drain);
    }

    /// Drops control's handles; the workers hold the last ones.
    fn close_all(&mut self) {
        self.open.clear();
        self.operator.clear();
        self.inherited_sockets = InheritedListeners::default();
    }

    /// Completes when every worker has ended.
    pub async fn wait_closed(&self) {
        for worker in &self.workers {
            worker.closed().await;
        }
    }
}

fn open_listener(
    config: &Arc<ListenerConfig>,
    workers: usize,
    inherited: &mut InheritedListeners,
) -> Result<NewListener, BindError> {
    let name = config.listen.address;
    let failed = |error| BindError { address: name, error };
    let mut sockets: Vec<ListeningSocket> = inherited
        .take_for(name, ListenerRole::Clients)
        .into_iter()
        .map(ListeningSocket::from)
        .collect();
    if sockets.is_empty() {
        let made = listener::bind_reuse_port(name, workers).map_err(failed)?;
        sockets.extend(made.into_iter().map(|listener| ListeningSocket { listener, label: None }));
    }
    let bound = match sockets.first() {
        Some(socket) => socket.listener.local_addr().map_err(failed)?,
        None => name,
    };
    // Every socket has a worker that empties its queue, and every worker has a socket.
    let handle = |index: usize| {
        let socket = &sockets[index % sockets.len()];
        Ok((index % workers, socket.listener.try_clone().map_err(failed)?))
    };
    let handles = (0..sockets.len().max(workers)).map(handle).collect::<Result<_, _>>()?;
    Ok(NewListener { config: Arc::clone(config), bound, sockets, handles })
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::model::ListenerSpec;

    fn listener_config(address: SocketAddr) -> Arc<ListenerConfig> {
        let listen = ListenerSpec { address, has_http2: false, tls: None, proxy_protocol: None };
        Arc::new(ListenerConfig { listen, tls: None })
    }

    /// `count` sockets on one port, like those of a process with `count` workers.
    fn inherited_sockets(count: usize) -> (SocketAddr, InheritedListeners) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut inherited = InheritedListeners::default();
        let sockets = listener::bind_reuse_port(any, count).expect("a port");
        let bound = sockets[0].local_addr().expect("bound");
        for listener in sockets {
            let role = Some(ListenerRole::Clients);
            inherited.add(
                listener::adopt_listener(listener, Some(any), role, None).expect("it listens"),
            );
        }
        (bound, inherited)
    }

    /// Number of sockets that each worker gets.
    fn sockets_by_worker(sockets: usize, workers: usize) -> Vec<usize> {
        let (bound, inherited) = inherited_sockets(sockets);
        let (senders, mut receivers): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let mut listeners = Listeners::new(senders, inherited);
        let opened = listeners.open_missing(&[listener_config(bound)]).expect("open");
        assert_eq!(opened, [bound]);
        assert!(listeners.unused_sockets().is_empty());
        assert_eq!(listeners.duplicate_sockets().expect("copies").len(), sockets);
        let taken = |receiver: &mut mpsc::UnboundedReceiver<WorkerCommand>| {
            std::iter::from_fn(|| receiver.try_recv().ok()).count()
        };
        receivers.iter_mut().map(taken).collect()
    }

    #[test]
    fn inherited_sockets_are_spread_over_all_workers() {
        assert_eq!(sockets_by_worker(2, 2), [1, 1]);
        assert_eq!(sockets_by_worker(4, 2), [2, 2]);
        assert_eq!(sockets_by_worker(3, 2), [2, 1]);
        assert_eq!(sockets_by_worker(1, 3), [1, 1, 1]);
        assert_eq!(sockets_by_worker(2, 3), [1, 1, 1]);
    }

    #[test]
    fn inherited_socket_is_matched_by_configured_address() {
        let (bound, inherited) = inherited_sockets(1);
        let (sender, _receiver) = mpsc::unbounded_channel();
        let mut listeners = Listeners::new(vec![sender], inherited);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = listeners.open_operator(any, ListenerRole::Operator).expect("another port");
        assert_ne!(
            admin.local_addr().expect("bound"),
            bound,
            "the inherited socket is for clients"
        );
        assert_eq!(listeners.open_missing(&[listener_config(any)]).expect("open"), [bound]);
    }
}
