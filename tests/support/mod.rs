//! Fixtures of the black-box tests: the real program as a child process, endpoints that fail on
//! command, and a client that sends any bytes. Nothing here uses the program's internals.
#![allow(dead_code, reason = "each file of tests uses its own part of it")]

pub(crate) mod admin;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod endpoint;
pub(crate) mod instance;
pub(crate) mod load;
pub(crate) mod nginx;
pub(crate) mod pki;
pub(crate) mod server;
pub(crate) mod upgrade;
pub(crate) mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// Timeout for conditions that are expected at once: the machine may be busy.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval at which a condition is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Panics
/// If that does not happen within `timeout`.
#[track_caller]
pub(crate) fn eventually(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    poll_until(what, timeout, || condition().then_some(()));
}

/// Waits until `find` returns a value.
///
/// # Panics
/// If that does not happen within `timeout`.
#[track_caller]
pub(crate) fn poll_until<T>(
    what: &str,
    timeout: Duration,
    mut find: impl FnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(started.elapsed() < timeout, "not within {timeout:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A reserved port: bound, so that no other process gets it, and not
/// listening, so that connections are refused until a listener binds beside it.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    socket: Socket,
}

impl ReservedPort {
    pub(crate) fn reserve() -> Self {
        Self::reserve_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Reserves this port; 0 is any free port.
    #[track_caller]
    pub(crate) fn reserve_at(address: SocketAddr) -> Self {
        let socket = reusable_socket(address);
        socket.bind(&address.into()).expect("a free port");
        Self { socket }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.socket.local_addr().expect("bound");
        address.as_socket().expect("an IP address")
    }

    /// Listens beside the reservation.
    pub(crate) fn listen(&self) -> std::net::TcpListener {
        let socket = reusable_socket(self.address());
        socket.bind(&self.address().into()).expect("the held port");
        socket.listen(1024).expect("listening");
        socket.into()
    }
}

fn reusable_socket(at: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    socket
}
