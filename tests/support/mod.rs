//! What the black-box tests stand on: the real program as a child process, endpoints that fail on
//! command, and a client that sends what it is told to. Nothing here knows the program's insides.
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

/// How long things may take that are expected to happen at once: the machine may be busy.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Rest between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Looks until `condition` holds.
///
/// # Panics
/// If it does not within `timeout`.
#[track_caller]
pub(crate) fn eventually(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    poll_until(what, timeout, || condition().then_some(()));
}

/// Looks until `find` finds something.
///
/// # Panics
/// If it does not within `timeout`.
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

/// A port that is held for as long as this lives: bound, so that nobody else gets it, and not
/// listening, so that connecting to it is refused until somebody listens beside it.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    socket: Socket,
}

impl ReservedPort {
    pub(crate) fn reserve() -> Self {
        Self::reserve_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// This one; any if it is 0.
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

    /// Listens beside the holder.
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
