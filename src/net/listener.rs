//! Listening sockets: one per worker on the same address, or those that this process was given.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4096;

/// Bytes that the kernel takes for a client beyond what is on its way. With megabytes of them a
/// client that reads slowly would look, for as long as those last, like one that does not read.
const NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;

/// Who connects to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerRole {
    Clients,
    Operator,
}

/// A listening socket that another process has made.
#[derive(Debug)]
pub struct InheritedListener {
    pub listener: TcpListener,
    /// The address that it stands for in the configuration of who gives it; not that of the socket
    /// if the port there is 0.
    pub configured_address: SocketAddr,
    /// Whom it was for; `None` if that is not known.
    pub role: Option<ListenerRole>,
    /// What the service manager calls it. It keeps the socket too: to close it ends nothing.
    pub label: Option<String>,
}

impl InheritedListener {
    fn is_for(&self, address: SocketAddr, role: ListenerRole) -> bool {
        let is_same_role = self.role.is_none_or(|own| own == role);
        let is_bound = || self.listener.local_addr().is_ok_and(|bound| bound == address);
        is_same_role && (self.configured_address == address || address.port() != 0 && is_bound())
    }
}

impl fmt::Display for InheritedListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.listener.local_addr().unwrap_or(self.configured_address);
        match self.label.as_deref() {
            None | Some("") => write!(f, "{address}"),
            Some(label) => write!(f, "{address} ({label})"),
        }
    }
}

/// Sockets that were given to this process, and are not in use.
#[derive(Debug, Default)]
pub struct InheritedListeners(Vec<InheritedListener>);

impl InheritedListeners {
    /// What the service manager has passed (`LISTEN_FDS` and its kin, sd_listen_fds(3)), and why it
    /// is less than it should be. To be called before there are threads: it changes the environment.
    pub fn from_service_manager() -> (Self, Vec<String>) {
        let labels = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut labels = labels.split(':').map(str::to_owned);
        let mut passed = ListenFd::from_env();
        let (mut listeners, mut errors) = (Self::default(), Vec::new());
        for index in 0..passed.len() {
            let label = labels.next().unwrap_or_default();
            let inherited = passed.take_tcp_listener(index).and_then(|taken| {
                let listener = taken.ok_or(io::ErrorKind::NotFound)?;
                adopt_listener(listener, None, None, Some(label.clone()))
            });
            match inherited {
                Ok(inherited) => listeners.add(inherited),
                Err(error) => {
                    let name = if label.is_empty() { format!("number {index}") } else { label };
                    errors.push(format!("a socket that was passed ({name}) is of no use: {error}"));
                }
            }
        }
        (listeners, errors)
    }

    pub fn add(&mut self, listener: InheritedListener) {
        self.0.push(listener);
    }

    /// Adds all of another one.
    pub fn merge(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Takes out all that are for this address.
    pub fn take_for(&mut self, address: SocketAddr, role: ListenerRole) -> Vec<InheritedListener> {
        let (taken, left) = self.0.drain(..).partition(|given| given.is_for(address, role));
        self.0 = left;
        taken
    }

    /// Leaves out those that nobody else keeps.
    pub fn retain_service_manager_sockets(&mut self) {
        self.0.retain(|given| given.label.is_some());
    }

    /// What is in it.
    pub fn iter(&self) -> impl Iterator<Item = &InheritedListener> {
        self.0.iter()
    }
}

/// Makes a listener of a socket that comes from elsewhere.
///
/// # Errors
/// If it does not listen.
pub fn adopt_listener(
    listener: TcpListener,
    configured_address: Option<SocketAddr>,
    role: Option<ListenerRole>,
    label: Option<String>,
) -> io::Result<InheritedListener> {
    let socket = SockRef::from(&listener);
    if !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"));
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    listener.set_nonblocking(true)?;
    let configured_address = match configured_address {
        Some(name) => name,
        None => listener.local_addr()?,
    };
    Ok(InheritedListener { listener, configured_address, role, label })
}

/// Opens `count` listeners on one address with `SO_REUSEPORT`: the kernel spreads connections over
/// them. Port 0 takes one free port for all.
///
/// # Errors
/// Whatever the kernel says: address in use, not available, no permission.
pub fn bind_reuse_port(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // With `SO_REUSEPORT` a second instance would take half of the connections and nobody would
    // know why: without it the kernel says that the address is taken.
    drop(bind_socket(address, false)?);
    let first = listen_reuse_port(address)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(listen_reuse_port(address)?);
    }
    Ok(listeners)
}

fn listen_reuse_port(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind_socket(address, true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Bound, and not listening yet: what it took for clients would be lost with it.
fn bind_socket(address: SocketAddr, is_reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted connections inherit both.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
