//! TODO-ROOM app/dataplane

pub mod access;
pub mod cookie_keys;
pub mod http_policy;
pub mod listener_config;
pub mod memory_gauge;
pub mod proxy;
pub mod request_metrics;
pub mod shared;
pub mod worker;
