//! Listening sockets, one per worker on the same address.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4096;

/// Bytes that the kernel takes for a client beyond what is on its way. With megabytes of them a
/// client that reads slowly would look, for as long as those last, like one that does not read.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Opens `count` listeners on one address with `SO_REUSEPORT`: the kernel spreads connections over
/// them. Port 0 takes one free port for all.
///
/// # Errors
/// Whatever the kernel says: address in use, not available, no permission.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // With `SO_REUSEPORT` a second instance would take half of the connections and nobody would
    // know why: without it the kernel says that the address is taken.
    drop(socket(address, false)?);
    let first = listen(address)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(listen(address)?);
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Bound, and not listening yet: what it took for clients would be lost with it.
fn socket(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted connections inherit both.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
