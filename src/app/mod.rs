//! The wiring: one control thread that writes, worker threads that serve.

pub mod instance;

pub mod control;
pub mod discovery;
pub mod doors;
pub mod drill;
pub mod explain;
pub mod front;
pub mod gauges;
pub mod lag;
pub mod notify;
pub mod orders;
pub mod reload;
pub mod status;
pub mod upgrade;
pub mod whatif;

pub mod access;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod proxy;
pub mod worker;

pub mod keyring;
pub mod meter;
pub mod observe;
pub mod pressure;
pub mod shared;

pub mod ledger;

pub mod admin;
pub mod api;

pub use instance::{Instance, Options, Origin, StartError};
