//! One plain request, to check that a server serves and how a proxy changes the request.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Bound on each step of the exchange.
const IO_TIMEOUT: Duration = Duration::from_millis(500);
/// Size limit of a response.
const MAX_RESPONSE_BYTES: u64 = 64 * 1024;

#[derive(Debug)]
pub(crate) struct CheckResponse {
    pub(crate) status: u16,
    /// Whether the endpoint received an `X-Forwarded-For`, as its response reports.
    pub(crate) has_forwarded_for: bool,
}

/// Requests `path` from `127.0.0.1:port` over a new connection.
pub(crate) fn get(port: u16, path: &str) -> io::Result<CheckResponse> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, IO_TIMEOUT)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut response)?;
    let text = String::from_utf8_lossy(&response);
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| io::Error::other("not an HTTP/1.1 answer"))?;
    // The endpoint omits the field if it received none. Envoy sends the machine's own address for
    // loopback.
    let has_forwarded_for = text.to_ascii_lowercase().contains("\r\nx-seen-forwarded-for: ");
    Ok(CheckResponse { status, has_forwarded_for })
}
