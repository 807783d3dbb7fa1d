//! Wiring of the pure core to sockets, threads and files: one control thread decides and publishes
//! snapshots, worker threads serve requests.
//!
//! - [`runtime`]: start, stop and upgrade of the process
//! - [`dataplane`]: workers, listeners, the proxy, the access log
//! - [`control`]: drives the director; reload, DNS discovery, drills, orders
//! - [`ops`]: the admin listener, metrics, the ledger, reports

pub mod control;
pub mod dataplane;
pub mod ops;
pub mod runtime;

pub use runtime::instance::{Instance, InstanceOptions, ProcessOrigin, StartError};
