//! Spans as a collector receives them: it decodes the wire with types generated from
//! OpenTelemetry's definition.

#[path = "../support/mod.rs"]
mod support;

mod collector;
mod collector_failures;
mod config;
mod sampling;
mod span_content;
mod span_conversion;

use support::config::ConfigBuilder;
use support::endpoint::TestEndpoint;
use support::instance::Gapless;

use self::collector::SpanCollector;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The `traceparent` of a client with these flags.
fn client_traceparent(flags: &str) -> String {
    format!("00-{TRACE_ID}-00f067aa0ba902b7-{flags}")
}

/// Default configuration with a collector at `url`.
fn otlp_config(url: &str, keys: &str) -> ConfigBuilder {
    ConfigBuilder::default()
        .keys("workers = 1")
        .tables(&format!("[otlp]\nendpoint = \"{url}\"\n{keys}"))
}

/// One endpoint, a proxy in front of it, and a collector.
fn start_traced(keys: &str) -> (TestEndpoint, Gapless, SpanCollector) {
    let (endpoint, collector) = (TestEndpoint::start("one"), SpanCollector::start());
    let config = otlp_config(&collector.url(), keys).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    (endpoint, gapless, collector)
}
