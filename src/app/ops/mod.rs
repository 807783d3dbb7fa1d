//! TODO-ROOM app/ops

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
pub mod status;
pub mod whatif;
