//! TODO-ROOM app/dataplane

pub mod access;
pub mod cookie_keys;
pub mod listener_config;
pub mod proxy;
pub mod request_metrics;
pub mod shared;
pub mod worker;
