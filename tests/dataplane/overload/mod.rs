//! Slow clients, many clients, and too little of what serving them takes.

mod descriptors;
mod memory;
mod shed;
mod slow;

use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;

/// One endpoint, which is up, and a proxy in front of it.
fn pair_with(config: Config) -> (Endpoint, Gapless) {
    let endpoint = Endpoint::start("one");
    let gapless = Gapless::start_ready(&config.zone("here/a", &[endpoint.address()]));
    (endpoint, gapless)
}

/// How many client connections were ended for this reason.
fn closed(gapless: &Gapless, reason: &str) -> u64 {
    let name = format!("gapless_client_connections_closed_total{{reason=\"{reason}\"}} ");
    let page = gapless.ask("/metrics").text();
    let line = page.lines().find_map(|line| line.strip_prefix(&*name));
    line.map_or(0, |count| count.parse().expect("a count"))
}
