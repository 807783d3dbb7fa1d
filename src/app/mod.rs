//! The wiring: one control thread that writes, worker threads that serve.

pub mod meter;
pub mod proxy;
pub mod shared;
pub mod worker;
