//! `gapless healthcheck`: checks whether a running instance is alive, for containers without curl.

use std::net::SocketAddr;

use super::{EXIT_FAILED, EXIT_OK, admin_client};

/// Requests `/healthz` (or `/readyz`) from `admin`; returns the exit code.
pub fn healthcheck(admin: SocketAddr, ready: bool) -> u8 {
    let path = if ready { "/readyz" } else { "/healthz" };
    match admin_client::get(admin, path) {
        Ok(answer) if answer.status == 200 => EXIT_OK,
        Ok(answer) => {
            eprintln!("gapless: {admin}{path}: {} {}", answer.status, answer.body.trim_end());
            EXIT_FAILED
        }
        Err(error) => {
            eprintln!("gapless: {admin}{path}: {error}");
            EXIT_FAILED
        }
    }
}
