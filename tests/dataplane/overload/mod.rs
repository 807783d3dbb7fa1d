//! Slow clients, many clients, and scarce descriptors and memory.

mod connection_limit;
mod descriptors;
mod memory;
mod slow_clients;

use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;

/// One endpoint that is up, and a proxy in front of it.
fn start_pair_with(config: ConfigBuilder) -> (TestEndpoint, Gapless) {
    let endpoint = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config.zone("here/a", &[endpoint.address()]));
    (endpoint, gapless)
}

/// The number of client connections closed for this reason.
fn closed_connections(gapless: &Gapless, reason: &str) -> u64 {
    let name = format!("gapless_client_connections_closed_total{{reason=\"{reason}\"}} ");
    let page = gapless.admin_get("/metrics").text();
    let line = page.lines().find_map(|line| line.strip_prefix(&*name));
    line.map_or(0, |count| count.parse().expect("a count"))
}
