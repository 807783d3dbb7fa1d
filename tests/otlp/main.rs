//! Spans, as a collector gets them: its side reads the wire with types that were generated of
//! OpenTelemetry's own definition.

#[path = "../support/mod.rs"]
mod support;

mod collector;
mod config;
mod sampled;
mod spans;
mod told;
mod trouble;

use support::config::Config;
use support::endpoint::Endpoint;
use support::instance::Gapless;

use self::collector::Collector;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What a client sends of its trace, with flags.
fn parent(flags: &str) -> String {
    format!("00-{TRACE}-00f067aa0ba902b7-{flags}")
}

/// Plain defaults, and a collector at `url`.
fn exporting(url: &str, keys: &str) -> Config {
    Config::default().keys("workers = 1").tables(&format!("[otlp]\nendpoint = \"{url}\"\n{keys}"))
}

/// One endpoint, a proxy in front of it, and the collector of its spans.
fn traced(keys: &str) -> (Endpoint, Gapless, Collector) {
    let (endpoint, collector) = (Endpoint::start("one"), Collector::start());
    let config = exporting(&collector.url(), keys).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    (endpoint, gapless, collector)
}
