//! The request path over real sockets: what is passed on, what is refused, what is survived.

mod admission;
mod answers;
mod bodies;
mod connections;
mod errors;
mod heads;
mod hostile;
mod interim;
mod uploads;

use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;

/// One endpoint and a proxy in front of it; probes are so rare that they change nothing.
fn pair() -> (Endpoint, Gapless) {
    pair_with(Config::new())
}

/// The same with more in the configuration.
fn pair_with(config: Config) -> (Endpoint, Gapless) {
    let endpoint = Endpoint::start("one");
    let gapless = Gapless::start_ready(&in_front_of(config, &endpoint));
    (endpoint, gapless)
}

fn in_front_of(config: Config, endpoint: &Endpoint) -> Config {
    config.zone("here/a", &[endpoint.address()])
}
