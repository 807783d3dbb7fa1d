//! The wiring: one control thread that writes, worker threads that serve.

pub mod control;
pub mod dataplane;
pub mod ops;
pub mod runtime;

pub use runtime::instance::{Instance, InstanceOptions, ProcessOrigin, StartError};
