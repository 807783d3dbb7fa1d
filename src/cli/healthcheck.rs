//! `gapless healthcheck`: asks a running instance whether it is alive, for containers without curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{FAILED, OK};

/// The whole exchange ends by then.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks `/healthz` (or `/readyz`) at `admin`; the exit code.
#[must_use]
pub fn healthcheck(admin: SocketAddr, ready: bool) -> u8 {
    let path = if ready { "/readyz" } else { "/healthz" };
    match ask(admin, path) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => OK,
        Ok(answer) => {
            eprintln!("gapless: {admin}{path}: {}", answer.lines().next().unwrap_or("no answer"));
            FAILED
        }
        Err(error) => {
            eprintln!("gapless: {admin}{path}: {error}");
            FAILED
        }
    }
}

fn ask(admin: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}
