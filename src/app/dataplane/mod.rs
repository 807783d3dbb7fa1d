//! The data plane: worker threads, the request path, the access log and the counters.
//!
//! The modules form a DAG. Leaf types (settings, ids, reasons) come first, then access records and
//! shared state, then the state of one worker, then the request path. The servers of connections
//! use all of them.

pub mod access;
pub mod cookie_keys;
pub mod http_policy;
pub mod listener_config;
pub mod memory_gauge;
pub mod proxy;
pub mod request_metrics;
pub mod shared;
pub mod worker;
