//! Metrics in the text format of Prometheus, version 0.0.4.
//!
//! Every family stands once in the table of [`families()`]. A sample reaches the page in one of two
//! ways:
//!
//! - Event counts and measured times go to handles of the [`registry()`], at the time of the event.
//! - State is read at scrape: its owner implements [`Collect`].
//!
//! The request path uses neither: each worker has plain atomics of its own, which
//! `dataplane/request_metrics.rs` sums up at scrape. The registry is also the recorder of the
//! `metrics` facade. Rejected: `metrics-exporter-prometheus`. It cannot take samples of state, so
//! its page needed others beside it, and it keeps single samples of histograms until the next
//! scrape.

mod exposition;
pub mod families;
mod family;
mod registry;

use std::time::Instant;

pub use exposition::{FamilyWriter, HistogramBuckets};
pub use families::families;
pub use family::{CounterFamily, Family, GaugeFamily, HistogramFamily, MetricKind, MetricUnit};
pub use registry::{MetricsRegistry, install_recorder, registry};

/// Something whose state is read at scrape.
pub trait Collect {
    /// Writes the samples of all families that `self` owns.
    fn collect(&self, out: &mut FamilyWriter);
}

/// The page of all collectors' samples, as of `now`.
pub fn render(now: Instant, collectors: &[&dyn Collect]) -> String {
    let mut out = FamilyWriter::new(now);
    for collector in collectors {
        collector.collect(&mut out);
    }
    out.finish()
}
