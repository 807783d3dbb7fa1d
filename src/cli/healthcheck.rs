//! `gapless healthcheck`: asks a running instance whether it is alive, for containers without curl.

use std::net::SocketAddr;

use super::{FAILED, OK, ask};

/// Asks `/healthz` (or `/readyz`) at `admin`; the exit code.
#[must_use]
pub fn healthcheck(admin: SocketAddr, ready: bool) -> u8 {
    let path = if ready { "/readyz" } else { "/healthz" };
    match ask::get(admin, path) {
        Ok(answer) if answer.status == 200 => OK,
        Ok(answer) => {
            eprintln!("gapless: {admin}{path}: {} {}", answer.status, answer.body.trim_end());
            FAILED
        }
        Err(error) => {
            eprintln!("gapless: {admin}{path}: {error}");
            FAILED
        }
    }
}
