//! Operations: the admin listener with its pages, metrics, the event log, the ledger of incidents,
//! drills, explanations and traces.

pub mod admin;
pub mod api;
pub mod collectors;
pub mod drill;
pub mod event_log;
pub mod explain;
pub mod ledger;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod repeated_lines;
pub mod status;
pub mod whatif;
