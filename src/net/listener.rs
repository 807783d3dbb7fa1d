//! Listening sockets: one for each worker on the same address (`SO_REUSEPORT`), or inherited ones.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4096;

/// Unsent bytes that the kernel buffers for a client. With megabytes of them a slow client would
/// look, while they last, like one that does not read.
const NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;

/// The peers that a socket serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerRole {
    Clients,
    Operator,
    /// Programs that read metrics and health.
    Status,
}

/// A listening socket that another process has opened.
#[derive(Debug)]
pub struct InheritedListener {
    pub listener: TcpListener,
    /// The address in the configuration of the process that passed it; it differs from that of the
    /// socket if the port there is 0.
    pub configured_address: SocketAddr,
    /// The role in the other process; `None` if unknown.
    pub role: Option<ListenerRole>,
    /// The service manager's name for it. The service manager keeps the socket open too.
    pub label: Option<String>,
}

impl InheritedListener {
    fn is_for(&self, address: SocketAddr, role: ListenerRole) -> bool {
        let is_same_role = self.role.is_none_or(|known_role| known_role == role);
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

/// Inherited sockets that are not in use yet.
#[derive(Debug, Default)]
pub struct InheritedListeners(Vec<InheritedListener>);

impl InheritedListeners {
    /// The sockets that the service manager has passed (`LISTEN_FDS`, sd_listen_fds(3)), and an
    /// error for each unusable one. Changes the environment: call it before threads start.
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
                    errors.push(format!("inherited socket {name} is unusable: {error}"));
                }
            }
        }
        (listeners, errors)
    }

    pub fn add(&mut self, listener: InheritedListener) {
        self.0.push(listener);
    }

    /// Adds all sockets of `other`.
    pub fn merge(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Takes the sockets for this address and role.
    pub fn take_for(&mut self, address: SocketAddr, role: ListenerRole) -> Vec<InheritedListener> {
        let (taken, left) = self.0.drain(..).partition(|one| one.is_for(address, role));
        self.0 = left;
        taken
    }

    /// Drops the sockets that the service manager does not keep.
    pub fn retain_service_manager_sockets(&mut self) {
        self.0.retain(|one| one.label.is_some());
    }

    /// The sockets that have not been taken.
    pub fn iter(&self) -> impl Iterator<Item = &InheritedListener> {
        self.0.iter()
    }
}

/// Configures an inherited socket like one that this process has opened.
///
/// # Errors
/// If the socket does not listen.
pub fn adopt_listener(
    listener: TcpListener,
    configured_address: Option<SocketAddr>,
    role: Option<ListenerRole>,
    label: Option<String>,
) -> io::Result<InheritedListener> {
    let socket = SockRef::from(&listener);
    if !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    listener.set_nonblocking(true)?;
    let configured_address = match configured_address {
        Some(address) => address,
        None => listener.local_addr()?,
    };
    Ok(InheritedListener { listener, configured_address, role, label })
}

/// Opens `count` listeners on one address with `SO_REUSEPORT`: the kernel distributes connections
/// over them. Port 0 selects one free port for all.
///
/// # Errors
/// The kernel's error: address in use, address not available, or permission denied.
pub fn bind_reuse_port(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // With `SO_REUSEPORT` alone a second instance would silently take half of the connections. A
    // bind without it fails while the address is in use.
    drop(bind_socket(address, false)?);
    let first = listen_reuse_port(address)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(listen_reuse_port(address)?);
    }
    Ok(listeners)
}

/// A port that stays bound, without a listener, until this is dropped.
#[derive(Debug)]
#[must_use = "the port is free again when the reservation is dropped"]
pub struct PortReservation {
    _socket: Socket,
}

impl PortReservation {
    /// Reserves `address` for listeners of this user that [`listen_on_reserved`] opens. While none
    /// of them is open, connections are refused. Without `SO_REUSEADDR`, so that any other bind
    /// fails.
    ///
    /// # Errors
    /// The kernel's error: address in use, address not available, or permission denied.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        Ok(Self { _socket: socket })
    }
}

/// Opens a listener on an address that a [`PortReservation`] of this user holds, or that is free.
///
/// # Errors
/// The kernel's error: address in use, address not available, or permission denied.
pub fn listen_on_reserved(address: SocketAddr) -> io::Result<TcpListener> {
    listen_reuse_port(address)
}

fn listen_reuse_port(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind_socket(address, true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds a socket without listening, so that it accepts no connections that would be lost.
fn bind_socket(address: SocketAddr, is_reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted connections inherit both options.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
