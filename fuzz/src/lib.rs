//! What must hold of any bytes, one module a target: `check` panics where it does not.
//!
//! The same functions are called by `tests/house/properties.rs`, with bytes that are made there, and
//! with all that ever broke them (`regressions`).

pub mod codec;
pub mod config;
pub mod preface;
pub mod proxy_header;
pub mod routes;
