//! `gapless healthcheck`: checks whether a running instance is alive, for containers without curl.

use super::admin_client::AdminClient;
use super::{EXIT_FAILED, EXIT_OK};

/// Requests `/healthz` (or `/readyz`) from `admin`; returns the exit code.
pub fn healthcheck(admin: &AdminClient, ready: bool) -> u8 {
    let path = if ready { "/readyz" } else { "/healthz" };
    match admin.get(path) {
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
