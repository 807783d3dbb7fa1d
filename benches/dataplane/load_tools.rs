//! Load generators in other programs: wrk and h2load.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::LOAD_CORE;
use crate::case::{BenchCase, CONNECTIONS, H2_CONNECTIONS, H2_STREAMS};
use crate::parse::{LoadReport, h2load_report, wrk_report};
use crate::process::bound_command;

/// Runs wrk for `seconds`.
pub(crate) fn wrk(
    script: &Path,
    case: &BenchCase,
    port: u16,
    should_reconnect: bool,
    seconds: u64,
) -> io::Result<LoadReport> {
    let scheme = if case.is_over_tls { "https" } else { "http" };
    let mut command = bound_command("wrk", Some(LOAD_CORE));
    command
        .args(["--threads", "1", "--connections", &CONNECTIONS.to_string()])
        .args(["--duration", &format!("{seconds}s"), "--script"])
        .arg(script)
        .arg(format!("{scheme}://127.0.0.1:{port}{}", case.path))
        .args(["--", case.method, &case.request_bytes.to_string()])
        .arg(if should_reconnect { "close" } else { "keep" });
    run_and_parse(command, "wrk", wrk_report)
}

/// Runs h2load for a number of requests. With a duration it ignores the requests in flight at the
/// end, and their cost would count for the others.
pub(crate) fn h2load(case: &BenchCase, port: u16, requests: u64) -> io::Result<LoadReport> {
    let mut command = bound_command("h2load", Some(LOAD_CORE));
    command
        .args(["--threads", "1", "--clients", &H2_CONNECTIONS.to_string()])
        .args(["--max-concurrent-streams", &H2_STREAMS.to_string()])
        .args(["--requests", &requests.to_string()])
        .arg(format!("https://127.0.0.1:{port}{}", case.path));
    run_and_parse(command, "h2load", h2load_report)
}

fn run_and_parse(
    mut command: Command,
    name: &str,
    parse: fn(&str) -> Option<LoadReport>,
) -> io::Result<LoadReport> {
    let output = command.output()?;
    parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        io::Error::other(format!("{name} failed: {}", stderr.trim()))
    })
}
