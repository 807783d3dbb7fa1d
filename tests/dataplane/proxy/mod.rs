//! The request path over real sockets: forwarding, refusals, hostile peers.

mod admission;
mod bad_responses;
mod bodies;
mod connections;
mod error_responses;
mod headers;
mod hostile_peers;
mod interim_responses;
mod uploads;

use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;

/// One endpoint and a proxy in front of it; probes are so rare that they change nothing.
fn start_pair() -> (TestEndpoint, Gapless) {
    start_pair_with(ConfigBuilder::new())
}

/// The same with more in the configuration.
fn start_pair_with(config: ConfigBuilder) -> (TestEndpoint, Gapless) {
    let endpoint = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config_for(config, &endpoint));
    (endpoint, gapless)
}

fn config_for(config: ConfigBuilder, endpoint: &TestEndpoint) -> ConfigBuilder {
    config.zone("here/a", &[endpoint.address()])
}
